"""`check` finds what a film or a result would find out later: what destinations accept, rules that never match, the HTTP
server, and where a negative answer would be silent."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from answered_films import AnsweredFilms
from certificates import Authority
from click.testing import CliRunner
from pynetdicom import AE
from servers import Orthanc, free_port, running_orthanc

from dicom_node.cli.check import checks
from dicom_node.cli.main import main
from dicom_node.runtime.check import Check
from dicom_node.runtime.config import load
from dicom_node.storage.records import DeliveryState
from dicom_node.storage.spool import Spool
from segmenter.objects.kinds import SOP_CLASSES

VERIFICATION = "1.2.840.10008.1.1"
SEG, SR, CAPTURE = SOP_CLASSES["seg"], SOP_CLASSES["sr"], SOP_CLASSES["capture"]


def looked(folder: Path, text: str) -> dict[str, Check]:
    """What `check` says of a configuration, by name."""
    (folder / "config.toml").write_text("[node]\ndirectory = 'node'\nreserve_mb = 0\n" + text)
    config = load(folder / "config.toml")
    Spool.of(config)  # a node that ran before: who runs now can be told
    return {one.name: one for one in checks(config)}


@contextlib.contextmanager
def archive(*classes: str, callers: tuple[str, ...] = ()) -> Iterator[int]:
    """The port of an archive that accepts these classes, from these calling AE titles (none: from all)."""
    ae = AE("PACS")
    ae.require_calling_aet = list(callers)
    for one in classes:
        ae.add_supported_context(one)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        yield int(server.socket.getsockname()[1])  # type: ignore[union-attr]
    finally:
        server.shutdown()


# -- destinations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "objects", "ok", "words"),
    [
        ((VERIFICATION, SEG, SR), ("seg", "sr"), True, ("answers C-ECHO", "accepts seg, sr")),
        ((SEG, SR), ("seg", "sr"), True, ("does not offer C-ECHO", "accepts seg, sr")),
        ((VERIFICATION, SR), ("seg", "sr"), False, ("Segmentation Storage (seg)", "PTXSEG", "peers.PACS.objects")),
        ((VERIFICATION,), ("seg", "sr", "capture"), False, ("(seg)", "Comprehensive SR Storage (sr)", "(capture)")),
        ((VERIFICATION, SR), ("sr",), True, ("accepts sr",)),  # what it does not get need not be accepted
        ((VERIFICATION, SEG), ("seg-positioned",), True, ("accepts seg",)),
        ((CAPTURE,), ("presentation",), False, ("Presentation State", "(presentation)")),  # nothing is accepted at all
    ],
)
def test_a_destination_is_asked_for_what_it_would_get(
    accepted: tuple[str, ...], objects: tuple[str, ...], ok: bool, words: tuple[str, ...], tmp_path: Path
) -> None:
    with archive(*accepted) as port:
        peer = f"[peers.PACS]\nhost = '127.0.0.1'\nport = {port}\nobjects = {json.dumps(objects)}\n"
        found = looked(tmp_path, f"{peer}[send]\ndestinations = ['PACS']\n")["send PACS"]
    assert found.ok is ok and all(word in found.text for word in words), found


def test_who_sends_is_asked_too_when_results_return_to_it(tmp_path: Path) -> None:
    """One that is switched off is no fault; one that does not take the results is."""
    with archive(VERIFICATION) as port, archive(VERIFICATION, SEG, SR, callers=("SOMEBODY",)) as closed:
        peers = "".join(f"[peers.{name}]\nhost = '127.0.0.1'\nport = {at}\n" for name, at in
                        (("CR1", port), ("CR2", closed), ("OFF", free_port())))  # fmt: skip
        found = looked(
            tmp_path, f"{peers}[receive.allowed]\nCR1 = []\nCR2 = []\nOFF = []\n[send]\ndestinations = ['@sender']\n"
        )
    assert not found["send CR1"].ok and "Segmentation Storage" in found["send CR1"].text
    assert not found["send CR2"].ok and "CR2 rejected the association" in found["send CR2"].text
    assert found["send OFF"].ok and found["send OFF"].warning and "may be switched off" in found["send OFF"].text


def test_what_became_of_earlier_tries_is_said(tmp_path: Path) -> None:
    with archive(VERIFICATION, SEG, SR) as port:
        films = AnsweredFilms(tmp_path, port, 3)
        taken, refused, waits = (films.delivery(uid) for uid in films.uids)
        films.outbox.settle(refused, DeliveryState.REFUSED, status=0x0124, reason="not allowed to store")
        before = [one.text for one in checks(films.config) if one.name == "sent PACS"]
        films.outbox.settle(taken, DeliveryState.DELIVERED, status=0, reason="")
        later = [one for one in checks(films.config) if one.name == "sent PACS"]
        films.outbox.sending(waits)
        films.outbox.settle(waits, DeliveryState.PENDING, status=None, reason="the association ended", delay=60)
        [failed] = [one for one in checks(films.config) if one.name == "sent PACS"]
    assert len(before) == 1 and "1 object was refused" in before[0] and "not allowed to store" in before[0]
    assert not later, "the destination has taken something since"
    assert not failed.ok and "the association ended" in failed.text and "`deliver --now PACS`" in failed.text


@pytest.fixture(scope="module")
def orthanc(tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:  # type: ignore[no-untyped-def]
    with running_orthanc(tool("Orthanc"), tmp_path_factory.mktemp("orthanc")) as server:
        yield server


def test_a_real_archive_accepts_all_that_we_make(orthanc: Orthanc, tmp_path: Path) -> None:
    peer = f"[peers.ORTHANC]\nhost = '127.0.0.1'\nport = {orthanc.dicom_port}\n"
    kinds = "['seg', 'sr', 'capture', 'presentation']"
    found = looked(tmp_path, f"{peer}[send]\ndestinations = ['ORTHANC']\nobjects = {kinds}\n")["send ORTHANC"]
    assert found.ok and "accepts seg, sr, capture, presentation" in found.text, found


# -- rules -----------------------------------------------------------------------------------------------------

ANY = '[[rules]]\nname = "any"\nmode = "shadow"\n'


@pytest.mark.parametrize(
    ("rules", "bad", "words"),
    [
        ('calling_ae = ["STRANGER"]', "r", "STRANGER is not in [receive.allowed]: it never matches"),
        ('calling_ae = ["CR1", "STRANGER"]', "r", "that part of it never matches"),
        ('called_ae = ["OTHER"]', "r", "OTHER is neither receive.ae_title nor in receive.also_called"),
        ('all_of = { Modality = "^CR$" }\nnone_of = { Modality = "^(CR|DX)$" }', "r", "contradict each other for Modality"),
        ('all_of = { Modality = "CR" }\nnone_of = { Modality = "." }', "r", "contradict each other"),
        ('all_of = { BodyPartExamined = "CHEST" }\nnone_of = { BodyPartExamined = "CHE" }', "r", "contradict each other"),
        ('all_of = { Modality = "^CR$" }\nany_of = { Modality = "^DX$" }', "r", "any_of (Modality) is contradicted"),
        ('mode = "ignore"\npriority = "urgent"', "r", "have no effect"),
    ],
)
def test_a_rule_that_can_never_match_is_named(rules: str, bad: str, words: str, tmp_path: Path) -> None:
    text = f'[receive.allowed]\nCR1 = []\n[[rules]]\nname = "{bad}"\n{rules}\n'
    found = looked(tmp_path, text)[f"rule {bad}"]
    assert not found.ok and words in found.text, found


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        ("", 'all_of = { Modality = "CR" }', True),
        ('called_ae = ["TRIAL"]', 'called_ae = ["TRIAL"]\nall_of = { Modality = "CR" }', True),
        ('called_ae = ["TRIAL"]', 'all_of = { Modality = "CR" }', False),  # other titles are left
        ('calling_ae = ["CR1", "CR2"]', "", True),  # both that may send
        ('calling_ae = ["CR1"]', 'calling_ae = ["CR1", "CR2"]', False),
        ('all_of = { Modality = "^(CR|DX)$" }', 'all_of = { Modality = "^CR$" }', True),
        ('all_of = { Modality = "^CR$" }', 'all_of = { Modality = "^(CR|DX)$" }', False),
        ('all_of = { Modality = "^CR$" }', 'any_of = { Modality = "^CR$", BodyPartExamined = "CHEST" }', False),
        ('any_of = { Modality = "^(CR|DX)$" }', 'any_of = { Modality = "^CR$" }', True),
        ('any_of = { StationName = "^QA", ProtocolName = "phantom" }', 'all_of = { StationName = "^QA" }', True),
        ('none_of = { StationName = "^QA" }', 'all_of = { Modality = "CR" }', False),
        ('none_of = { Modality = "^DX$" }', 'all_of = { Modality = "^CR$" }', True),  # what is CR is not DX
        ('all_of = { Modality = "(?i)c.*r" }', 'all_of = { Modality = "cr" }', False),  # not decided: not named
    ],
)
def test_a_rule_behind_one_that_takes_all_of_it_is_named(first: str, second: str, shadowed: bool, tmp_path: Path) -> None:
    text = "[receive]\nalso_called = ['TRIAL']\n[receive.allowed]\nCR1 = []\nCR2 = []\n"
    found = looked(tmp_path, f'{text}[[rules]]\nname = "a"\n{first}\n[[rules]]\nname = "b"\n{second}\n')
    assert ("rule b" in found) is shadowed, found
    if shadowed:
        assert not found["rule b"].ok and "taken by 'a' before it" in found["rule b"].text
    else:
        assert found["rules"].ok and "2 rules" in found["rules"].text


def test_two_rules_that_take_all_together_and_an_urgent_sender_that_never_sends(tmp_path: Path) -> None:
    text = "[receive.allowed]\nCR1 = []\nCR2 = []\n[queue]\nurgent_from = ['CR1', 'ICU9']\n"
    rules = "".join(f'[[rules]]\nname = "{name}"\ncalling_ae = ["{name}"]\n' for name in ("CR1", "CR2"))
    found = looked(tmp_path, f'{text}{rules}[[rules]]\nname = "rest"\n')
    assert "taken by 'CR1' and 'CR2' before it" in found["rule rest"].text
    assert not found["queue"].ok and "ICU9" in found["queue"].text and "CR1" not in found["queue"].text


# -- the HTTP server -------------------------------------------------------------------------------------------


def test_the_http_server_is_looked_at(tmp_path: Path) -> None:
    port = free_port()
    serve = f"[serve]\nenabled = true\nport = {port}\n"
    assert looked(tmp_path, serve)["serve"] == Check("serve", True, f"port {port} is free")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        busy = looked(tmp_path, serve)["serve"]
        with Spool.of(load(tmp_path / "config.toml")).lock("serve"):
            assert looked(tmp_path, serve)["serve"] == Check("serve", True, f"running on port {port}"), "it is ours"
    assert not busy.ok and "stop what listens there, or choose another port" in busy.text
    plain = looked(tmp_path, f"{serve}host = '0.0.0.0'\n")["serve"]
    assert not plain.ok and "unencrypted; set serve.tls_certificate" in plain.text
    allowed = looked(tmp_path, f"{serve}host = '0.0.0.0'\nallow_plain = true\n")["serve"]
    assert allowed.ok and allowed.warning and "unencrypted" in allowed.text
    same = looked(tmp_path, f"[receive]\nport = {port}\n{serve}")["serve"]
    assert not same.ok and "receive.port" in same.text
    assert "serve" not in looked(tmp_path, "")
    nobody = looked(tmp_path, "[work]\nprocesses = 0\n")["serve"]
    assert not nobody.ok and "work.processes = 0" in nobody.text


def test_the_certificate_of_the_http_server_is_looked_at(tmp_path: Path) -> None:
    expired = Authority(tmp_path, "CA").issue("expired", days=(-30, -1))
    keys = f"tls_certificate = '{expired.both[1]}'\ntls_key = '{expired.both[0]}'\n"
    found = looked(tmp_path, f"[serve]\nenabled = true\nhost = '0.0.0.0'\nport = {free_port()}\n{keys}")
    assert not found["serve TLS"].ok and not found["serve"].ok and "has expired" in found["serve"].text


# -- silent negatives ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[segment]\nreport_negative = false\n", "negatives"),
        ("[peers.PACS]\nhost = '127.0.0.1'\nport = 1\nobjects = ['seg']\n[send]\ndestinations = ['PACS']\n", "negatives PACS"),
        ("[peers.PACS]\nhost = '127.0.0.1'\nport = 1\n[send]\ndestinations = ['PACS']\nobjects = ['seg', 'presentation']\n",
         "negatives PACS"),
        ("[peers.PACS]\nhost = '127.0.0.1'\nport = 1\nobjects = ['sr']\n[send]\ndestinations = ['PACS']\n", None),
        ("[peers.PACS]\nhost = '127.0.0.1'\nport = 1\nobjects = ['seg']\n", None),  # gets nothing anyway
    ],
)  # fmt: skip
def test_where_a_negative_answer_is_silent_there_is_a_warning(text: str, name: str | None, tmp_path: Path) -> None:
    found = {key: one for key, one in looked(tmp_path, text).items() if key.startswith("negatives")}
    assert list(found) == ([] if name is None else [name])
    assert all(one.ok and one.warning and "without pneumothorax" in one.text for one in found.values())


def test_a_warning_is_no_failure(tmp_path: Path) -> None:
    port = free_port()
    with archive(VERIFICATION, SEG) as at:
        looked(
            tmp_path,
            f"[receive]\nport = {port}\n[receive.allowed]\nCR1 = []\n"
            f"[peers.PACS]\nhost = '127.0.0.1'\nport = {at}\nobjects = ['seg']\n[send]\ndestinations = ['PACS']\n",
        )
        done = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "config.toml")])
    assert done.exit_code == 0 and "warn  negatives PACS: gets seg" in done.output, done.output
