"""What the conformance statement says of our objects and of our associations is what really arrives at a PACS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from answered_films import EXPLICIT, running_sender
from conformance_page import Row, Statement
from echo_scu import echo
from instant_model import MIN_SIDE_PX, film
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from quick_model import quick_model
from servers import free_port, wait_for
from small_film import read_back, small_film

from dicom_node.dimse.commitment_report import PUSH_MODEL
from dicom_node.runtime.config import Config, load
from dicom_node.send.storage_scu import commitment_problem
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, DeliveryState, Outcome, State, StoredObject
from dicom_node.storage.spool import Spool
from dicom_node.work.model import load_model, segment_settings
from segmenter.engine import ResultObject, Segmenter
from segmenter.objects.kinds import ObjectKind, kinds_for
from segmenter.values import Decision

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
    """By SOP Instance UID: a film with what films have, one with what they must have, and one on which nothing is found."""
    rich, bare, clear = film(1), small_film(kind="SC", seed=2, bits=10), small_film(kind="CR", seed=3, bits=8)
    rich.StudyDescription, rich.PatientAge, rich.IssuerOfPatientID = "Thorax in two planes", "061Y", "Ward 7"
    for keyword in ("StudyDate", "StudyID", "AccessionNumber", "PatientOrientation", "FrameOfReferenceUID", "PatientSex"):
        if keyword in bare:
            del bare[keyword]
    return {str(one.SOPInstanceUID): one for one in (read_back(rich), read_back(bare), read_back(clear))}


@dataclass
class Site:
    """Films that a real network answered, a sender's configuration, and the PACS to which it sent every object."""

    config: Config
    pacs: Pacs
    sources: dict[str, Dataset]
    kinds: dict[str, str] = field(default_factory=dict)  # by SOP Instance UID of the object
    source_of: dict[str, Dataset] = field(default_factory=dict)

    def answer(self, segmenter: Segmenter, spool: Spool, ledger: Ledger) -> None:
        routes = [Route(name, kinds_for(self.config.peers[name].objects or ())) for name in self.config.send.destinations]
        kinds = [kind for kind in ObjectKind if any(kind in route.kinds for route in routes)]
        for number, (uid, source) in enumerate(self.sources.items()):
            [finding] = segmenter.segment([source])
            assert finding.decision is not None and finding.decision.positive, finding
            if number == 2:
                nothing = Decision(False, 0.01, np.zeros_like(finding.decision.mask), None, 0, 0.5)
                finding = replace(finding, decision=nothing)
            arrival = Arrival(uid, str(source.SOPClassUID), EXPLICIT, uid, uid, 1, "MODALITY", "PTXSEG", "127.0.0.1")
            job_id = ledger.add_arrival(arrival).job_id
            claim = ledger.claim("w", 30)
            assert claim is not None
            folder = spool.folder_for(job_id, claim.owner)
            objects = [self._stored(made, source, spool, folder) for made in segmenter.objects(source, finding, kinds=kinds)]
            outcome = Outcome(State.SEGMENTED, content_sha256=uid, model_digest="m", objects=tuple(objects))
            ledger.finish(claim, outcome, routes)

    def _stored(self, made: ResultObject, source: Dataset, spool: Spool, folder: Path) -> StoredObject:
        self.kinds[made.sop_instance_uid], self.source_of[made.sop_instance_uid] = str(made.kind), source
        buffer = BytesIO()
        made.dataset.save_as(buffer, enforce_file_format=True)
        stored = spool.write_into(folder, f"{made.kind}.dcm", buffer.getvalue())
        return StoredObject(made.role, made.variant, made.sop_class_uid, made.sop_instance_uid, stored.sha256, stored.path,
                            stored.size, "research")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    pacs, folder = Pacs(), tmp_path_factory.mktemp("site")
    wanted = {
        "CLINICAL": ["seg", "sr", "capture", "presentation"], "RESEARCH": ["seg-positioned", "sr"], "REPORTS": ["sr"]
    }  # fmt: skip
    peers = "".join(
        f"[peers.{name}]\nhost = '127.0.0.1'\nport = {pacs.port}\nobjects = {objects}\n" for name, objects in wanted.items()
    )
    (folder / "config.toml").write_text(
        f"{peers}[send]\nae_title = 'RESULTS'\ndestinations = {list(wanted)}\n[node]\nreserve_mb = 0\n"
        f"[segment]\nmodel = '{quick_model()}'\nmin_side_px = {MIN_SIDE_PX}\ndevice = 'cpu'\nthreads = 1\nseries_number = 77\n"
    )
    config = load(folder / "config.toml")
    spool, ledger = Spool(config.spool_directory, 0), Ledger(config.ledger_path)
    found = Site(config, pacs, films())
    found.answer(Segmenter(load_model(config.segment), segment_settings(config.segment)), spool, ledger)
    outbox = Outbox(ledger.store)

    def all_there() -> bool:
        sent = [one for job in ledger.jobs() for one in outbox.of_job(job.job_id)]
        return bool(sent) and all(one.state is DeliveryState.DELIVERED for one in sent)

    with pacs.serving(), running_sender(config, spool, ledger, outbox):
        wait_for(all_there, 120, "delivery")
    return found


def test_our_associations_are_those_of_the_statement(site: Site) -> None:
    config, pacs = site.config, site.pacs
    said = Statement.of(config)
    peers = {name: peer.model_copy(update={"commit": True}) for name, peer in config.peers.items()}
    asked = config.model_copy(update={"peers": peers})
    with pacs.serving():
        assert echo(config, "CLINICAL") is None
        assert pacs.proposed == set(said.contexts("presentation contexts proposed"))
        assert commitment_problem(asked, "CLINICAL") is None
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


def test_every_element_that_arrived_is_as_the_statement_says(site: Site) -> None:
    said = Statement.of(site.config)
    assert {site.kinds[str(made.SOPInstanceUID)] for made in site.pacs.objects} == set(ObjectKind)
    for made in site.pacs.objects:
        kind, source = site.kinds[str(made.SOPInstanceUID)], site.source_of[str(made.SOPInstanceUID)]
        assert f" {kind}\n\nSOP class: {made.SOPClassUID.name} ({made.SOPClassUID}). Sent by" in said.text
        rows, found = attributes(said, kind), dict(walk(made, ()))
        assert not {path for path in found if path not in rows}, f"{kind} has elements that the statement does not name"
        missing = [row for path, row in rows.items() if row["Presence"].startswith("always") and path not in found]
        assert not missing, kind
        for path, values in found.items():
            assert_is(rows[path], path, values, source)


def test_every_content_item_that_arrived_is_one_of_the_statement(site: Site) -> None:
    said = Statement.of(site.config)
    reports = [made for made in site.pacs.objects if "ContentSequence" in made]
    assert len(reports) == 9  # three films, three destinations
    for made in reports:
        table = said.tables.get(f"content of {site.kinds[str(made.SOPInstanceUID)]}", said.tables["content of sr"])
        named = {(row["Level"].count(">"), row["Relationship"], row["Value type"], row["Concept"]) for row in table}
        assert set(content(made, 0)) <= named
    assert {code for made in site.pacs.objects for code in codes(made)} <= {
        (row["Code value"], row["Coding scheme"], row["Meaning"]) for row in said.tables["coded terms"]
    }


def content(item: Dataset, level: int) -> Iterator[tuple[int, str, str, str]]:
    names = item.get("ConceptNameCodeSequence") or ()
    yield level, item.get("RelationshipType", ""), item.ValueType, "".join(map(code_text, names))
    for below in item.get("ContentSequence") or ():
        yield from content(below, level + 1)


def codes(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    for item in (item for element in dataset if element.VR == "SQ" for item in element.value):
        if "CodeValue" in item:
            yield item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning
        yield from codes(item)


def attributes(said: Statement, kind: str) -> dict[tuple[int, ...], Row]:
    """The table of a kind by path; that of a variant is the difference to the plain one."""
    plain = ObjectKind(kind).role
    rows = table_of(said, plain)
    if kind != plain and f"attributes of {kind}" in said.tables:
        rows |= table_of(said, kind)
    return {path: row for path, row in rows.items() if row["Presence"] != "never"}


def table_of(said: Statement, kind: str) -> dict[tuple[int, ...], Row]:
    rows: dict[tuple[int, ...], Row] = {}
    path: tuple[int, ...] = ()
    for row in said.tables[f"attributes of {kind}"]:
        path = (*path[: row["Tag"].count(">")], int(Tag(row["Tag"].strip(">()").replace(",", ""))))
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
    texts, value = {shown(element) for element in elements} - {""}, row["Value or origin"]
    assert {element.VR for element in elements} == {row["VR"]}, row
    if row["Source"] == "fixed":
        assert all(one == value or (value.endswith("...") and one.startswith(value[:-3])) for one in texts) and texts, row
    elif row["Source"] == "copied":
        other = re.search(r"from \((....),(....)\)", value)
        tag = Tag(int(other[1] + other[2], 16)) if other else Tag(path[-1])
        assert texts <= ({shown(source[tag])} if tag in source else {value.removesuffix(" when the film has none")}), row
    elif row["Source"] == "configured":
        assert texts == {str(77 + int(value.partition("+")[2] or 0))}, row
    elif row["Source"] == "empty":
        assert not texts, row
    elif row["Source"] == "generated" and row["VR"] != "SQ":
        assert texts, row


def shown(element: DataElement) -> str:
    if element.VR == "SQ":
        return " and ".join(map(code_text, element.value)) if is_codes(element) else ""
    return text_of(element.value)


def text_of(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, MultiValue | list):
        return "\\".join(map(text_of, value))
    return "" if value is None else f"{float(value):.7g}" if isinstance(value, float) else str(value)


def code_text(item: Dataset) -> str:
    return f'({item.CodeValue}, {item.CodingSchemeDesignator}, "{item.CodeMeaning}")'
