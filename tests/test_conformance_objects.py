"""What the conformance statement says of our objects and of our associations is what really arrives at a PACS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest
from answered_films import running_sender
from conformance_page import Row, Statement
from instant_model import MIN_SIDE_PX, film
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from quick_model import quick_model
from servers import free_port, wait_for
from small_film import read_back

from dicom_node.commitment_report import PUSH_MODEL
from dicom_node.config import Config, load
from dicom_node.delivery import commits, echo
from dicom_node.job import Arrival, DeliveryState, Outcome, State, StoredObject
from dicom_node.ledger import Ledger
from dicom_node.model import load_model, segment_settings
from dicom_node.outbox import Outbox
from dicom_node.spool import Spool
from segmenter.engine import Segmenter

CODES = {"CodeValue", "CodingSchemeDesignator", "CodeMeaning", "CodingSchemeVersion"}


class Pacs:
    """Writes down what is proposed to it and what it is sent."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[object] = []  # A-ASSOCIATE requestors
        self.proposed: set[tuple[str, str]] = set()
        self.objects: list[Dataset] = []

    @contextmanager
    def serving(self) -> Iterator[None]:
        ae = AE("PACS")
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax))
        ae.add_supported_context("1.2.840.10008.1.1")
        ae.add_supported_context(PUSH_MODEL)
        handlers = [(evt.EVT_REQUESTED, self._asked), (evt.EVT_C_STORE, self._store)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def _asked(self, event: evt.Event) -> None:
        self.requests.append(event.assoc.requestor)
        for context in event.assoc.requestor.requested_contexts:
            self.proposed |= {(str(context.abstract_syntax), str(syntax)) for syntax in context.transfer_syntax}

    def _store(self, event: evt.Event) -> int:
        self.objects.append(dcmread(BytesIO(event.encoded_dataset())))
        return 0x0000


def films() -> dict[str, Dataset]:
    """By SOP Instance UID: a film with what films have, and one with what they must have."""
    rich, bare = film(1), film(2)
    rich.StudyDescription, rich.PatientAge, rich.IssuerOfPatientID = "Thorax in two planes", "061Y", "Ward 7"
    for keyword in ("StudyDate", "StudyID", "AccessionNumber", "PatientOrientation", "FrameOfReferenceUID", "PatientSex"):
        if keyword in bare:
            del bare[keyword]
    return {str(one.SOPInstanceUID): one for one in (read_back(rich), read_back(bare))}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, Pacs, dict[str, Dataset]]]:
    """Films that a real model answered, and a PACS to which a real sender sent every object."""
    pacs, folder, sources = Pacs(), tmp_path_factory.mktemp("site"), films()
    (folder / "config.toml").write_text(
        f"[peers.PACS]\nhost = '127.0.0.1'\nport = {pacs.port}\n[send]\nae_title = 'RESULTS'\ndestinations = ['PACS']\n"
        f"[segment]\nmodel = '{quick_model()}'\nmin_side_px = {MIN_SIDE_PX}\ndevice = 'cpu'\nthreads = 1\nseries_number = 77\n"
        "[node]\nreserve_mb = 0\n"
    )
    config = load(folder / "config.toml")
    spool, ledger = Spool(config.spool_directory, 0), Ledger(config.ledger_path)
    segmenter = Segmenter(load_model(config.segment), segment_settings(config.segment))
    for uid, source in sources.items():
        answer(source, uid, segmenter, config, spool, ledger)
    outbox = Outbox(ledger.store)

    def all_there() -> bool:
        sent = [one for job in ledger.jobs() for one in outbox.of_job(job.job_id)]
        return bool(sent) and all(one.state is DeliveryState.DELIVERED for one in sent)

    with pacs.serving(), running_sender(config, spool, ledger, outbox):
        wait_for(all_there, 60, "delivery")
    yield config, pacs, sources


def answer(source: Dataset, uid: str, segmenter: Segmenter, config: Config, spool: Spool, ledger: Ledger) -> None:
    arrival = Arrival(uid, str(source.SOPClassUID), "1.2.840.10008.1.2.1", uid, uid, 1, "MODALITY", "PTXSEG", "127.0.0.1")
    job_id = ledger.add_arrival(arrival).job_id
    claim = ledger.claim("w", 30)
    assert claim is not None
    [finding] = segmenter.segment([source])
    objects = []
    for made in segmenter.objects(source, finding):
        buffer = BytesIO()
        made.dataset.save_as(buffer, enforce_file_format=True)
        stored = spool.write_into(spool.folder_for(job_id, claim.owner), f"{made.role}{made.variant}.dcm", buffer.getvalue())
        objects.append(
            StoredObject(made.role, made.variant, made.sop_class_uid, made.sop_instance_uid, stored.sha256, stored.path,
                         stored.size, "research")
        )  # fmt: skip
    assert objects, finding
    outcome = Outcome(State.SEGMENTED, content_sha256=uid, model_digest="m", objects=tuple(objects))
    ledger.finish(claim, outcome, config.send.destinations)


def test_our_associations_are_those_of_the_statement(site) -> None:
    config, pacs, _ = site
    said = Statement.of(config)
    asked = config.model_copy(update={"peers": {"PACS": config.peers["PACS"].model_copy(update={"commit": True})}})
    with pacs.serving():
        assert echo(config, "PACS") is None
        assert pacs.proposed == set(said.contexts("presentation contexts proposed"))
        assert commits(asked, "PACS") is None
    assert pacs.proposed == set(Statement.of(asked).contexts("presentation contexts proposed"))
    for request in pacs.requests:
        assert request.primitive.calling_ae_title.strip() == "RESULTS"
        assert str(request.implementation_class_uid) == said.parameter("Implementation Class UID", "SENDER")
        assert request.implementation_version_name == said.parameter("Implementation Version Name", "SENDER")
        assert str(request.maximum_length) == said.parameter("Maximum PDU size, bytes", "SENDER")
        assert request.asynchronous_operations == (1, 1) and not request.role_selection and request.user_identity is None
    assert {row["UID"] for row in said.tables["SOP classes"] if row["SCU"] == "Y"} == {
        uid for uid, _ in pacs.proposed if uid != PUSH_MODEL
    }


def test_every_element_that_arrived_is_as_the_statement_says(site) -> None:
    config, pacs, sources = site
    said = Statement.of(config)
    for made in pacs.objects:
        rows = attributes(said, made)
        found = dict(walk(made, ()))
        assert not {path for path in found if path not in rows}, "elements that the statement does not name"
        missing = [path for path, row in rows.items() if row["Presence"].startswith("always") and path not in found]
        assert not missing
        source = source_of(made, sources)
        for path, values in found.items():
            assert_is(rows[path], path, values, source)


def attributes(said: Statement, made: Dataset) -> dict[tuple[int, ...], Row]:
    """The table of the object's kind, by path."""
    uid = str(made.SOPClassUID)
    rows, path = {}, ()
    for row in said.tables[f"attributes of {name}"]:
        depth = row["Tag"].count(">")
        path = (*path[:depth], int(Tag(row["Tag"].strip(">()").replace(",", ""))))
        assert row["Attribute"] == keyword_for_tag(path[-1])
        rows[path] = row
    return rows


def walk(dataset: Dataset, above: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], list[DataElement]]]:
    """Path -> elements; sequences of codes are one element."""
    found: dict[tuple[int, ...], list[DataElement]] = {}
    for element in dataset:
        path = (*above, int(element.tag))
        found.setdefault(path, []).append(element)
        if element.VR == "SQ" and not is_codes(element) and element.keyword != "ContentSequence":
            for item in element.value:
                for below, elements in walk(item, path):
                    found.setdefault(below, []).extend(elements)
    yield from found.items()


def is_codes(element: DataElement) -> bool:
    return all({one.keyword for one in item} <= CODES for item in element.value)


def assert_is(row: Row, path: tuple[int, ...], elements: list[DataElement], source: Dataset) -> None:
    texts = {shown(element) for element in elements} - {""}
    assert {element.VR for element in elements} == {row["VR"]}, row
    if row["Source"] == "fixed":
        assert texts <= {row["Value or origin"]} or all(one.startswith(row["Value or origin"].rstrip(".")) for one in texts), (
            row
        )
    elif row["Source"] == "copied":
        other = re.search(r"from \((....),(....)\)", row["Value or origin"])
        tag = Tag(int(other[1] + other[2], 16)) if other else Tag(path[-1])
        if tag in source:
            assert texts <= {shown(source[tag])}, row
        elif texts:
            assert texts == {row["Value or origin"].removesuffix(" when the film has none")}, row
    elif row["Source"] == "configured":
        assert texts == {"77"}, row
    elif row["Source"] == "empty":
        assert not texts, row
    elif row["Source"] == "generated" and element_is_plain(elements[0]):
        assert texts, row


def element_is_plain(element: DataElement) -> bool:
    return element.VR != "SQ"


def shown(element: DataElement) -> str:
    if element.VR == "SQ":
        code = '({0.CodeValue}, {0.CodingSchemeDesignator}, "{0.CodeMeaning}")'
        return " and ".join(code.format(item) for item in element.value) if is_codes(element) else ""
    value = element.value
    if isinstance(value, bytes):
        return value.hex()
    return "" if value is None else "\\".join(map(str, value)) if isinstance(value, list) or element.VM > 1 else str(value)


def source_of(made: Dataset, sources: dict[str, Dataset]) -> Dataset:
    [uid] = [uid for uid in sources if uid in str(made)]
    return sources[uid]
