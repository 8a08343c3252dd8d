"""Which films go first: by who brought them and by what the header says, in every encoding, and never by breaking."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from raw_peer import RawPeer, c_store
from receiver_node import film, running, send

from dicom_node.runtime.config import load
from dicom_node.runtime.config_sections import Queue
from dicom_node.runtime.errors import ConfigError

RULES = Queue(urgent_from=("EMERGENCY",), urgent_when={"RequestedProcedurePriority": "^(STAT|HIGH)$", "ViewPosition": "AP"})
ALLOWED = {"MODALITY": [], "EMERGENCY": []}


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_tag_or_the_sender_makes_a_film_urgent_in_every_encoding(syntax: str, tmp_path: Path) -> None:
    films = {
        "1.2.1": {},
        "1.2.2": {"RequestedProcedurePriority": "STAT"},
        "1.2.3": {"ViewPosition": "PA"},
        "1.2.4": {"ViewPosition": "AP"},
    }
    with running(tmp_path, queue=RULES, allowed=ALLOWED) as node:
        for uid, values in films.items():
            dataset = film(uid, syntax=syntax)
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
            assert send(node.port, dataset) == 0x0000
        assert send(node.port, film("1.2.5", syntax=syntax), calling="EMERGENCY") == 0x0000
        queues = {job.arrival.sop_instance_uid: job.arrival.queue for job in node.ledger.jobs()}
    assert queues == {"1.2.1": "normal", "1.2.2": "urgent", "1.2.3": "normal", "1.2.4": "urgent", "1.2.5": "urgent"}


def test_a_header_that_cannot_be_read_is_normal_and_stored(tmp_path: Path) -> None:
    with running(tmp_path, queue=RULES, allowed=ALLOWED) as node:
        for number, data in enumerate([b"\xff" * 300, b"\x08\x00\x05\x00CS", b"\x40\x00\x03\x10LT\xff\xff" + b"x" * 9]):
            with RawPeer(node.port) as peer:
                peer.associate()
                peer.send(c_store(f"1.2.{number}", dataset=data))
                assert peer.status()[0] == 0x0000
        assert [job.arrival.queue for job in node.ledger.jobs()] == ["normal"] * 3


@pytest.mark.parametrize(("rule", "named"), [("Nonsense = 'x'", "not a DICOM"), ("ViewPosition = '('", "not a regular")])
def test_a_rule_that_is_none_is_named(rule: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f"[queue.urgent_when]\n{rule}\n")
    with pytest.raises(ConfigError, match=named):
        load(tmp_path / "config.toml")
