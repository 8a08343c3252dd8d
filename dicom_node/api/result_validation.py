"""Validation of what a worker on another machine returned, before it becomes a result.

The worker is trusted about pixels only: UIDs must be those derived from film, content and model; an object must have the SOP
class of its role, belong to the patient and study of the film, and refer to the film. Its file must be sendable: complete File
Meta (PS3.10 7.1), a dataset that can be read to its end.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import pydicom
from pydicom.dataset import Dataset

from dicom_node.api.schemas import Result, ReturnedObject
from dicom_node.dimse.implicit_vr import EXPLICIT, implicit
from dicom_node.runtime.errors import NodeError
from dicom_node.storage.leases import Claim
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.storage.part10 import UNREADABLE, dataset_bytes, header
from dicom_node.storage.records import INDETERMINATE, Outcome, State, StoredObject
from dicom_node.storage.spool import sha256_of
from segmenter.objects.kinds import SOP_CLASSES, kind_of
from segmenter.objects.uids import result_uid

_SAME = ("StudyInstanceUID", "PatientID")
_NAMES = ("SOPClassUID", "SOPInstanceUID")
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"  # (0002,0000), with which File Meta begins (PS3.10 7.1)
_MOST_ITEMS = 10_000
_MOST_BYTES = 64 * 2**20  # of the film, searched for the elements that it shares with its result


class BadResult(NodeError):
    """The result of a worker does not belong to its film."""  # the message says in what, without patient data


def outcome_of(queue: LocalQueue, claim: Claim, result: Result) -> Outcome:
    """The outcome of a job, its objects read back from the node's own disk. Raises BadResult, SourceDamaged, SpoolError."""
    if result.state == State.SEGMENTED:
        if result.content_sha256 is None or result.model_digest is None or result.model is None or result.finding is None:
            raise BadResult("a result without content, model or finding")
        if (result.finding == INDETERMINATE) != (result.code is not None):
            raise BadResult("an indeterminate finding needs a code, any other has none")
    elif result.code is None or result.objects:
        raise BadResult("a film without a result needs a code and has no objects")
    return Outcome(
        State(result.state),
        code=result.code,
        sentence=result.sentence,
        finding=result.finding,
        probability=result.probability,
        area_mm2=result.area_mm2,
        content_sha256=result.content_sha256,
        model=result.model,
        model_digest=result.model_digest,
        revision=_revision(queue, claim, result),
        seconds=result.seconds,
        objects=_objects(queue, claim, result),
        notes=result.notes,
        threshold=result.threshold,
    )


def _revision(queue: LocalQueue, claim: Claim, result: Result) -> int:
    if result.content_sha256 is None:
        return 1
    return queue.ledger.revision(claim.job.arrival.sop_instance_uid, result.content_sha256)


def _objects(queue: LocalQueue, claim: Claim, result: Result) -> tuple[StoredObject, ...]:
    if not result.objects:
        return ()
    arrival = claim.job.arrival
    film = dataset_bytes(queue.source(claim))
    source = header(film, arrival.transfer_syntax_uid, _SAME, most=_MOST_BYTES)  # private elements before them may be large
    return tuple(_object(queue, claim, result, one, source) for one in result.objects)


def _object(queue: LocalQueue, claim: Claim, result: Result, one: ReturnedObject, source: Dataset) -> StoredObject:
    path = f"job/{claim.job.job_id}/{claim.owner}/{kind_of(one.role, one.variant)}.dcm"
    try:
        data = queue.spool.read(path)
    except FileNotFoundError as error:
        raise BadResult(f"{one.role}: it was never sent") from error
    if sha256_of(data) != one.sha256:
        raise BadResult(f"{one.role}: its sha256 is not that of the bytes that were sent")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        _check(dataset, claim, result, one, source)
        _check_file(data, dataset, one)
        uid, sop_class = str(dataset.SOPInstanceUID), str(dataset.SOPClassUID)
    except UNREADABLE as error:
        raise BadResult(f"{one.role}: cannot be read as DICOM ({type(error).__name__})") from error
    return StoredObject(one.role, one.variant, sop_class, uid, one.sha256, path, len(data), result.intended_use)


def _check(dataset: Dataset, claim: Claim, result: Result, one: ReturnedObject, source: Dataset) -> None:
    film = claim.job.arrival.sop_instance_uid
    if SOP_CLASSES.get(one.role) != dataset.SOPClassUID:
        raise BadResult(f"{one.role}: {dataset.SOPClassUID} is not the SOP class of this role")
    derived = result_uid(film, str(result.content_sha256), str(result.model_digest), one.role, one.variant)
    if derived != dataset.SOPInstanceUID or dataset.file_meta.MediaStorageSOPInstanceUID != derived:
        raise BadResult(f"{one.role}: its SOP Instance UID is not the one derived from film, content and model")
    for keyword in _SAME:
        if _bytes(dataset, keyword) != _bytes(source, keyword):
            raise BadResult(f"{one.role}: its {keyword} is not the film's")
    if film not in _references(dataset):
        raise BadResult(f"{one.role}: it does not refer to the film")


def _check_file(data: bytes, dataset: pydicom.FileDataset, one: ReturnedObject) -> None:
    """What the sender relies on (PS3.10 7.1)."""
    meta = dataset.file_meta
    if data[132:140] != _GROUP_LENGTH:
        raise BadResult(f"{one.role}: its File Meta does not begin with the group's length")
    if meta.get("MediaStorageSOPClassUID") != dataset.SOPClassUID:
        raise BadResult(f"{one.role}: its File Meta names another SOP class, or none")
    if meta.get("TransferSyntaxUID") != EXPLICIT:
        raise BadResult(f"{one.role}: its transfer syntax is not Explicit VR Little Endian")
    encoded = bytes(dataset_bytes(data))
    named = header(encoded, EXPLICIT, _NAMES)
    if any(named.get(name) != dataset.get(name) for name in _NAMES):
        raise BadResult(f"{one.role}: its File Meta does not end where it says")
    try:
        implicit(encoded)
    except ValueError as problem:
        raise BadResult(f"{one.role}: it cannot be read to its end ({problem})") from problem


def _bytes(dataset: Dataset, keyword: str) -> bytes:
    element = dataset.get_item(keyword)
    value = element.value if element is not None else b""
    return (value if isinstance(value, bytes) else str(value or "").encode()).rstrip(b"\0 ")


def _references(dataset: Dataset) -> Iterator[str]:
    """Every Referenced SOP Instance UID, at any depth."""
    waiting: list[Dataset] = [dataset]
    for _ in range(_MOST_ITEMS):
        if not waiting:
            return
        for element in waiting.pop():
            if element.VR == "SQ":
                waiting.extend(element.value)
            elif element.keyword == "ReferencedSOPInstanceUID":
                yield str(element.value)
