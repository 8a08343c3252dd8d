"""Rules and routes: which films are answered, what goes where, and `show` says why. Through the whole node, and by table."""

from __future__ import annotations

import io
import json
import tomllib
import warnings
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from quick_model import quick_film, quick_settings
from recording_pacs import recording_pacs
from servers import SENDER, running_node, store

from dicom_node.cli.main import main
from dicom_node.receive.rules import RuleDecision, Rules
from dicom_node.runtime.config import Config, load
from dicom_node.runtime.config_sections import Queue, Rule
from dicom_node.runtime.errors import ConfigError
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import Arrival, DeliveryState, Outcome, State, StoredObject
from segmenter.objects.kinds import ObjectKind

RULES = """
[[rules]]
name = "phantoms of the physicists"
any_of = { StationName = "^QA", ProtocolName = "(?i)phantom" }
mode = "ignore"
[[rules]]
name = "trial"
called_ae = ["PTXTRIAL"]
mode = "shadow"
[[rules]]
name = "ward"
calling_ae = ["WARD"]
all_of = { Modality = "^(CR|DX)$", BodyPartExamined = "CHEST" }
none_of = { SeriesDescription = "(?i)test" }
destinations = ["WARDPACS"]
priority = "urgent"
"""


def look(calling: str = "ANY", called: str = "PTXSEG", **values: str) -> RuleDecision:
    config = Config(
        rules=tuple(Rule(**one) for one in tomllib.loads(RULES.replace('["WARDPACS"]', "[]"))["rules"]),
        queue=Queue(urgent_from=("ICU",)),
    )
    film = Dataset()
    for keyword, value in values.items():
        setattr(film, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, film, implicit_vr=False, little_endian=True)
    return Rules.of(config).decide(calling, called, memoryview(buffer.getvalue()), ExplicitVRLittleEndian)


CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST"}


@pytest.mark.parametrize(
    ("film", "rule", "mode", "queue", "why"),
    [
        (CHEST, "", "live", "normal", ""),
        (CHEST | {"calling": "ICU"}, "", "live", "urgent", ""),
        (CHEST | {"calling": "WARD"}, "ward", "live", "urgent",
         "calling_ae is WARD, Modality matches, BodyPartExamined matches, SeriesDescription does not match"),
        (CHEST | {"calling": "WARD", "SeriesDescription": "Test film"}, "", "live", "normal", ""),
        ({"Modality": "DX", "calling": "WARD"}, "", "live", "normal", ""),
        (CHEST | {"called": "PTXTRIAL"}, "trial", "shadow", "normal", "called_ae is PTXTRIAL"),
        (CHEST | {"called": "PTXTRIAL", "calling": "ICU"}, "trial", "shadow", "urgent", "called_ae is PTXTRIAL"),
        (CHEST | {"StationName": "QA-3"}, "phantoms of the physicists", "ignore", "normal", "StationName matches"),
        (CHEST | {"called": "PTXTRIAL", "ProtocolName": "PHANTOM"}, "phantoms of the physicists", "ignore", "normal",
         "ProtocolName matches"),
    ],
)  # fmt: skip
def test_the_first_rule_that_matches_decides(film, rule, mode, queue, why):
    found = look(**film)
    assert (found.rule, found.mode, found.queue, found.why) == (rule, mode, queue, why)


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ("[[rules]]\nname = 'a'\nall_of = { Nonsense = 'x' }", "not a DICOM keyword"),
        ("[[rules]]\nname = 'a'\nany_of = { Modality = '(' }", "not a regular expression"),
        ("[[rules]]\nname = 'a'\ndestinations = ['NOWHERE']", "does not contain"),
        ("[[rules]]\nname = 'a'\n[[rules]]\nname = 'a'", "same name"),
        ("[[rules]]\nname = 'a'\nmode = 'loud'", "rules"),
        ("[[rules]]\nname = 'a'\nall_of = { StudyDescription = '(?=STAT)' }", "no look-around"),
        ("[queue.urgent_when]\nStudyDescription = '(A)\\1'", "no look-around or back-references"),
        ("[queue.urgent_when]\nStudyDescription = '\\bÜbersicht'", "knows ASCII letters only"),
        ("[queue.urgent_when]\nStudyDescription = '(\\w{1,1000} ?)+'", "too large"),
        ("[peers.A]\nhost = 'a'\nport = 1\nobjects = ['segs']", "objects"),
    ],
)
def test_a_rule_that_is_none_is_named(rules: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(rules)
    with pytest.raises(ConfigError, match=named):
        load(tmp_path / "config.toml")


def test_an_overlong_value_is_looked_at_in_part() -> None:
    """Where a name of something would stand; matching holds the whole process up."""
    rule = Rule(name="urgent", all_of={"StudyDescription": ".*(STAT|URGENT)"}, priority="urgent")
    film = Dataset()
    film.StudyDescription = "S" * 200_000 + "STAT"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(buffer, film, implicit_vr=False, little_endian=True)
    looked = Rules(Queue(), [rule]).decide("ANY", "PTXSEG", memoryview(buffer.getvalue()), ExplicitVRLittleEndian)
    assert looked.rule == "", "what stands behind 1,024 characters is not seen"


def shown(node, job_id: str) -> dict:
    done = CliRunner().invoke(main, ["show", job_id, "--json", "--config", str(node.config_file)])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def contents(node, film: Dataset) -> dict[str, str]:
    """UID -> sha256 of every object that was made of it."""
    made = shown(node, node.job_of(film.SOPInstanceUID).job_id)["objects"]
    return {one["sop_instance_uid"]: one["sha256"] for one in made}


def test_each_destination_gets_its_objects_and_show_says_why(tmp_path: Path) -> None:
    """PACS takes the default, WARDPACS pictures and a report of its own; a film on trial is kept; the same film sent in
    earnest then goes out with the bytes that were kept; a new kind is added to an old answer."""
    with recording_pacs(tmp_path / "pacs") as pacs:
        environment = quick_settings(
            SEGMENTER_RECEIVE__ALSO_CALLED='["PTXTRIAL"]', SEGMENTER_RECEIVE__ALLOWED=json.dumps({SENDER: [], "WARD": []})
        )
        ward = {"host": "127.0.0.1", "port": pacs.port, "objects": ["capture", "presentation", "sr", "seg-positioned"]}
        environment["SEGMENTER_PEERS"] = json.dumps({"PACS": {"host": "127.0.0.1", "port": pacs.port}, "WARDPACS": ward})
        environment["SEGMENTER_RULES"] = json.dumps(tomllib.loads(RULES)["rules"])
        with running_node(tmp_path / "node", ("PACS", pacs.port), **environment) as node, pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():  # what the command line reads is what the node reads
                patch.setenv(name, value)
            _the_story(node, pacs)


def _the_story(node, pacs) -> None:
    def roles(uid: str, destination: str) -> list[str]:
        return [one.role for one in pacs.results_of(uid) if one.called_ae == destination]

    plain, trial, ward, ignored = (quick_film(number) for number in range(4))
    ignored.StationName = "QA-1"
    ward.BodyPartExamined = "CHEST"
    assert store(plain, node.port) == 0 and store(ignored, node.port) == 0
    assert store(trial, node.port, "PTXTRIAL") == 0 and store(ward, node.port, calling="WARD") == 0
    for film in (plain, trial, ward, ignored):
        node.delivered(film.SOPInstanceUID)
    assert roles(plain.SOPInstanceUID, "PACS") == ["seg", "sr"], "the report follows its SEG"
    assert not roles(plain.SOPInstanceUID, "WARDPACS")
    assert sorted(roles(ward.SOPInstanceUID, "WARDPACS")) == ["ot", "pr", "seg", "sr"]
    assert not roles(ward.SOPInstanceUID, "PACS") and not pacs.results_of(trial.SOPInstanceUID)
    job = node.job_of(ignored.SOPInstanceUID)
    assert (job.state, job.code) == (State.SKIPPED, "ignored-by-rule") and not pacs.results_of(ignored.SOPInstanceUID)

    said = shown(node, node.job_of(ward.SOPInstanceUID).job_id)
    assert (said["rule"], said["queue"], said["mode"]) == ("ward", "urgent", "live") and "calling_ae is WARD" in said["why"]
    assert said["routes"] == {"WARDPACS": ["seg-positioned", "sr-positioned", "capture", "presentation"]}

    kept = shown(node, node.job_of(trial.SOPInstanceUID).job_id)
    assert (kept["mode"], kept["rule"], kept["finding"], kept["deliveries"]) == ("shadow", "trial", "pneumothorax", [])
    assert {one["kind"] for one in kept["objects"]} == {"seg", "sr"} and all(one["path"] for one in kept["objects"])

    assert store(trial, node.port) == 0, "now in earnest"
    node.delivered(trial.SOPInstanceUID)
    sent = {one.uid for one in pacs.results_of(trial.SOPInstanceUID)}
    assert sent == {one["sop_instance_uid"] for one in kept["objects"]}
    assert shown(node, node.job_of(trial.SOPInstanceUID).job_id)["mode"] == "live"

    # The same film for the ward: of its answer only what was never made is made, and only it goes there.
    before = contents(node, plain)
    plain.BodyPartExamined = "CHEST"
    plain.PatientComments = "came again by way of the ward"
    assert store(plain, node.port, calling="WARD") == 0
    again = node.job_of(plain.SOPInstanceUID)
    deliveries = node.delivered(plain.SOPInstanceUID)
    assert node.job_of(plain.SOPInstanceUID).same_as, again
    assert all(one.state is DeliveryState.DELIVERED for one in deliveries)
    after = contents(node, plain)
    assert before.items() < after.items() and len(after) == 6
    assert sorted(roles(plain.SOPInstanceUID, "WARDPACS")) == ["ot", "pr", "seg", "sr"]
    assert roles(plain.SOPInstanceUID, "PACS") == ["seg", "sr"], "PACS was not sent anything twice"


def test_a_report_waits_for_its_seg_and_goes_alone_when_that_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    outbox = Outbox(ledger.store)
    ledger.add_arrival(Arrival("1.2.3", "1.2", ExplicitVRLittleEndian, "sha", "a/1", 1, "MODALITY", "PTXSEG", "127.0.0.1"))
    claim = ledger.claim("w", 30)
    assert claim is not None
    objects = [StoredObject(role, "", "1.2.840.10008.5.1.4.1.1.7", f"2.25.{number}", "s", f"p{number}", 1, "research")
               for number, role in enumerate(("sr", "seg", "capture"), start=1)]  # fmt: skip
    outcome = Outcome(State.SEGMENTED, content_sha256="c", model_digest="m", objects=tuple(objects))
    ledger.finish(claim, outcome, [Route("A"), Route("B"), Route("C", (ObjectKind.SR,))])

    def due() -> set[tuple[str, str]]:
        return {(one.object.role, name) for name, dues in outbox.due(60).items() for one in dues}

    def settle(role: str, destination: str, state: DeliveryState, delay: float = 0) -> None:
        one = next(one for one in outbox.due(60)[destination] if one.object.role == role)
        assert outbox.sending(one)
        if state is not DeliveryState.SENT:
            outbox.settle(one, state, status=None, reason="", delay=delay)

    others = {("capture", "A"), ("capture", "B"), ("sr", "C")}
    assert due() == others | {("seg", "A"), ("seg", "B")}
    settle("seg", "A", DeliveryState.DELIVERED)
    assert due() == others | {("sr", "A"), ("seg", "B")}
    settle("seg", "B", DeliveryState.PENDING, delay=30)
    assert due() == others | {("sr", "A")}
    with ledger.store.write() as db:
        db.execute("UPDATE deliveries SET state = 'refused' WHERE destination = 'B' AND attempts = 1")
    assert due() == others | {("sr", "A"), ("sr", "B")}
