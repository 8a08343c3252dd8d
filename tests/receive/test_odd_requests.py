"""Senders that ask in their own way: what PS3.8 9.3.2 allows comes in and is stored, what it does not allow is rejected with
its reason; and what they say of themselves stays on its line of the log."""

from __future__ import annotations

import logging
import re
import sqlite3
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from raw_pacs import CLASS_UID, EXPLICIT, IMPLICIT, MAX_LENGTH, item
from raw_peer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, CR, P_DATA, RawPeer, c_store
from receiver_node import Node, eventually, film, running, send

from dicom_node.cli.main import main
from dicom_node.dimse.association_pdu import UNSAID_LENGTH, read_request
from dicom_node.runtime import logs
from dicom_node.runtime.config_sections import Log
from dicom_node.runtime.printable import printable

CR_, ELE = CR.encode(), EXPLICIT.encode()
APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")


def context(number: int = 1, abstract: bytes = CR_, *syntaxes: bytes) -> bytes:
    inner = item(0x30, abstract) + b"".join(item(0x40, one) for one in syntaxes or (ELE,))
    return item(0x20, bytes((number, 0, 0, 0)) + inner)


def rq(
    user: bytes = MAX_LENGTH + CLASS_UID,
    *,
    application: bytes = APPLICATION,
    contexts: bytes | None = None,
    version: int = 1,
    calling: bytes = b"MODALITY",
    called: bytes = b"PTXSEG",
    more: bytes = b"",
) -> bytes:
    body = struct.pack(">HH", version, 0) + called.ljust(16) + calling.ljust(16) + bytes(32) + application
    body += (context() if contexts is None else contexts) + item(0x50, user) + more
    return struct.pack(">BBL", 1, 0, len(body)) + body


def user(*items: bytes) -> bytes:
    return rq(MAX_LENGTH + CLASS_UID + b"".join(items))


STORED = (ASSOCIATE_AC, "0000")
# Name -> request, what is said to it: the reason of a rejection, or the result of each context and the status of a film.
REQUESTS: dict[str, tuple[bytes, object]] = {
    "plain": (rq(), {1: 0}),
    "no maximum length": (rq(CLASS_UID), {1: 0}),
    "maximum length 3": (rq(item(0x51, b"\0\0\0\3")), {1: 0}),
    "maximum length 7": (rq(item(0x51, b"\0\0\0\7")), {1: 0}),
    "maximum length of two bytes": (rq(item(0x51, b"\x40\0")), {1: 0}),
    "no user items": (rq(b""), {1: 0}),
    "long version name": (user(item(0x55, b"ACME-STORE-SCU-12.3.45")), {1: 0}),
    "empty version name": (user(item(0x55, b"")), {1: 0}),
    "latin version name": (user(item(0x55, "Gerät".encode("latin-1"))), {1: 0}),
    "version name of NULs": (user(item(0x55, b"ACME\0\0")), {1: 0}),
    "version name with a line end": (user(item(0x55, b"A\n2026 [error] x")), {1: 0}),
    "unknown user item": (user(item(0x7A, b"abcd")), {1: 0}),
    "long class uid": (rq(MAX_LENGTH + item(0x52, b"1." * 40 + b"1")), {1: 0}),
    "class uid that is none": (rq(MAX_LENGTH + item(0x52, b"ACME MODALITY")), {1: 0}),
    "class uid twice": (user(CLASS_UID), {1: 0}),
    "no application context": (rq(application=b""), {1: 0}),
    "padded application context": (rq(application=item(0x10, b"1.2.840.10008.3.1.1.1\0")), {1: 0}),
    "other application context": (rq(application=item(0x10, b"1.2.3.4")), (1, 1, 2)),
    "protocol versions 1 and 2": (rq(version=3), {1: 0}),
    "protocol version 16": (rq(version=0x8001), {1: 0}),
    "no protocol version": (rq(version=0), (1, 2, 2)),
    "protocol version 2": (rq(version=2), (1, 2, 2)),
    "padded syntaxes": (rq(contexts=context(1, CR_ + b"\0", ELE + b" ")), {1: 0}),
    "unknown item": (rq(more=item(0x77, b"xyz")), {1: 0}),
    "zeros behind it": (rq(more=bytes(6)), {1: 0}),
    "even context id": (rq(contexts=context(2)), {2: 0}),
    "context id 0": (rq(contexts=context(0)), {0: 0}),
    "even and odd ids": (rq(contexts=context(2) + context(1) + context(254)), {1: 0, 2: 0, 254: 0}),
    "same context twice": (rq(contexts=2 * context()), {1: 0}),
    "a context without a syntax beside one": (
        rq(contexts=context(1) + item(0x20, b"\3\0\0\0" + item(0x30, CR_))),
        {1: 0, 3: 4},
    ),
    "a context without a class beside one": (rq(contexts=context(1) + item(0x20, b"\3\0\0\0" + item(0x40, ELE))), {1: 0, 3: 3}),
    "a class that is no UID beside one": (rq(contexts=context(1) + context(3, b"x" * 300)), {1: 0, 3: 3}),
    "a syntax that is no UID beside one": (rq(contexts=context(1, CR_, b"x" * 80, ELE)), {1: 0}),
    "titles that end in NULs": (rq(calling=b"MODALITY".ljust(16, b"\0"), called=b"PTXSEG".ljust(16, b"\0")), {1: 0}),
    "titles with rests behind a NUL": (rq(calling=b"MODALITY\0\xff\n", called=b"PTXSEG\0old"), {1: 0}),
    "titles after blanks": (rq(calling=b"  MODALITY", called=b" PTXSEG"), {1: 0}),
    "no calling title": (rq(calling=bytes(16)), (1, 1, 3)),
    "no called title": (rq(called=b" " * 16), (1, 1, 7)),
    "a calling title that is not ASCII": (rq(calling="Gerät".encode("latin-1")), (1, 1, 3)),
    "a calling title with a line end": (rq(calling=b"MOD\n[error] x"), (1, 1, 3)),
    "user identity 5": (user(item(0x58, b"\5\1" + struct.pack(">H", 4) + b"jwt." + bytes(2))), {1: 0}),
    "short user identity": (user(item(0x58, b"\1\1")), {1: 0}),
    "long extended negotiation": (user(item(0x56, struct.pack(">H", len(CR_)) + CR_ + b"\1" * 100)), {1: 0}),
    "short extended negotiation": (user(item(0x56, b"\0"), item(0x57, b"")), {1: 0}),
    "short asynchronous operations": (user(item(0x53, b"\0")), {1: 0}),
    "a role of another class": (user(item(0x54, b"\xff\xff1.2")), {1: 0}),
    "roles with other numbers": (user(item(0x54, struct.pack(">H", len(CR_)) + CR_ + b"\7\7")), {1: 0}),
    "an item longer than the PDU": (rq(more=struct.pack(">BBH", 0x77, 0, 500)), ABORT),
    "a user item longer than its item": (rq(MAX_LENGTH + struct.pack(">BBH", 0x55, 0, 500)), ABORT),
    "nothing but a header": (struct.pack(">BBL", 1, 0, 0), ABORT),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), max_per_host=50) as one:
        yield one


@pytest.mark.parametrize("name", REQUESTS)
def test_every_form_of_request_is_answered_as_the_standard_says(name: str, node: Node) -> None:
    request, wanted = REQUESTS[name]
    with RawPeer(node.port) as peer:
        peer.send(request)
        kind, body = peer.receive()
        if isinstance(wanted, int):
            assert (kind, body[2:]) == (wanted, bytes((2, 6))), "by the provider, invalid PDU parameter value"
        elif isinstance(wanted, tuple):
            assert (kind, tuple(body[1:])) == (ASSOCIATE_RJ, wanted)
        else:
            assert kind == ASSOCIATE_AC and results(body) == wanted
            number = next(one for one, result in wanted.items() if result == 0)
            uid = f"1.2.3.{list(REQUESTS).index(name)}"
            peer.send(numbered(c_store(uid), number))
            assert status(peer, number) == 0x0000
            assert len(node.ledger.jobs(sop_instance_uid=uid)) == 1


def results(body: bytes) -> dict[int, int]:
    """Context id -> result of an A-ASSOCIATE-AC; each context once."""
    found: dict[int, int] = {}
    place = 68
    while place < len(body):
        length = int.from_bytes(body[place + 2 : place + 4], "big")
        if body[place] == 0x21:
            assert body[place + 4] not in found
            found[body[place + 4]] = body[place + 6]
        place += 4 + length
    return found


def numbered(pdus: bytes, number: int) -> bytes:
    """P-DATA-TF PDUs of one PDV each, in another context."""
    changed, place = bytearray(pdus), 0
    while place < len(changed):
        changed[place + 10] = number
        place += 6 + int.from_bytes(changed[place + 2 : place + 6], "big")
    return bytes(changed)


def status(peer: RawPeer, number: int) -> int:
    """Of a C-STORE-RSP, however small its pieces."""
    said = b""
    while True:
        kind, body = peer.receive()
        assert kind == P_DATA and body[4] == number
        said += body[6:]
        if body[5] & 2:
            at = said.index(b"\0\0\0\x09\2\0\0\0")
            return int.from_bytes(said[at + 8 : at + 10], "little")


def test_two_contexts_with_even_numbers_are_not_taken_for_each_other(node: Node) -> None:
    """The film comes in the second, in Implicit VR: that is how it is written down."""
    with RawPeer(node.port) as peer:
        peer.send(rq(contexts=context(2, CR_, ELE) + context(4, CR_, IMPLICIT.encode())))
        assert peer.receive()[0] == ASSOCIATE_AC
        peer.send(numbered(c_store("1.2.4.4"), 4))
        assert status(peer, 4) == 0x0000
    [job] = node.ledger.jobs(sop_instance_uid="1.2.4.4")
    assert job.arrival.transfer_syntax_uid == IMPLICIT
    with RawPeer(node.port) as peer:
        peer.send(rq(contexts=context(2)))
        assert peer.receive()[0] == ASSOCIATE_AC
        peer.send(c_store("1.2.4.5"))  # in context 1, which was never proposed
        assert peer.receive()[0] == ABORT
    assert not node.ledger.jobs(sop_instance_uid="1.2.4.5")


def test_the_most_contexts_that_can_be_are_all_answered(node: Node) -> None:
    with RawPeer(node.port) as peer:
        peer.send(rq(contexts=b"".join(context(number) for number in range(256))))
        kind, body = peer.receive()
    found = results(body)
    assert kind == ASSOCIATE_AC and len(found) == 256 and sum(result == 0 for result in found.values()) == 128


@pytest.mark.parametrize("said", [None, b"\0\0\0\6", b"\0"])
def test_what_can_hold_no_byte_is_no_maximum(said: bytes | None) -> None:
    request = read_request(rq(CLASS_UID + (b"" if said is None else item(0x51, said))))
    assert item(0x51, struct.pack(">L", UNSAID_LENGTH)) in request.pdu


# -- the log and the journal ------------------------------------------------------------------------------------------


def test_nothing_accepted_is_one_line_and_a_word_in_the_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ct, jpip = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.2.4.94"
    with running(tmp_path) as node:
        for asked in (context(1, ct), context(1, CR_, jpip), context(1, ct)):
            with RawPeer(node.port) as peer:
                peer.send(rq(contexts=asked))
                assert peer.receive()[0] == ASSOCIATE_AC
        assert eventually(lambda: len(node.journal()) == 3 and None not in [outcome for _, outcome, _ in node.journal()])
        outcomes = [outcome for _, outcome, _ in node.journal()]
    lines = [record.getMessage() for record in caplog.records if "it proposes" in record.getMessage()]
    assert outcomes == ["no class accepted", "no syntax accepted", "no class accepted"]
    assert len(lines) == 2, "one for each kind of it and minute"
    assert "CT Image Storage" in lines[0] and "receive.sop_classes" in lines[0]
    assert "Computed Radiography Image Storage" in lines[1] and "transfer syntax" in lines[1]


STRANGE = "MOD\n[error] x"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_stranger_forges_no_line_of_the_log(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Titles, version names and whatever else: line ends, escape sequences of terminals, bidirectional marks."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.start(Log(format=form), "receive")  # type: ignore[arg-type]
    with running(tmp_path) as node:
        for calling in (STRANGE.encode(), b"\x1b[31mRED", "Z\u202e".encode(), b"A\rB\x85", b'"] \\'):
            with RawPeer(node.port) as peer:
                peer.send(rq(calling=calling))
                assert peer.receive()[0] == ASSOCIATE_RJ
        with RawPeer(node.port) as peer:
            peer.send(rq(MAX_LENGTH + item(0x55, STRANGE.encode())))
            assert peer.receive()[0] == ASSOCIATE_AC
        logging.getLogger("dicom_node.any").warning(
            "said %s\nand", STRANGE, extra={"reason": STRANGE, "more": {"a": [STRANGE]}}
        )
    said = capsys.readouterr().err
    begins = re.compile(r"\d{4}-\d\d-\d\dT" if form == "text" else r'\{"')
    assert all(begins.match(line) for line in said.splitlines()), "every line is an event"
    assert not [one for one in said if not one.isprintable() and one != "\n"]
    assert said.count("rejected") == 5 and "[error] x" in said


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("Gerät 胸 \\ \"'") == "Gerät 胸 \\ \"'"
    assert printable("a\nb\x1b\x7f\x85\u2028\u202e\ufeff\udcff") == r"a\x0ab\x1b\x7f\x85\u2028\u202e\ufeff\udcff"


def test_the_hint_for_a_stranger_names_its_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path) as node:
        assert send(node.port, film(), calling="CARM7") is None
    assert 'add "CARM7" = ["127.0.0.1"] to [receive.allowed]' in caplog.text


def test_the_journal_prints_what_was_not_accepted(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[node]\ndirectory = '.'\n")
    from dicom_node.storage.ledger import Ledger

    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.close_association(ledger.open_association("MOD", "PTXSEG", "127.0.0.1"), "no class accepted", 0)
    done = CliRunner().invoke(main, ["journal", "--json", "--config", str(tmp_path / "c.toml")])
    assert done.exit_code == 0 and "no class accepted" in done.output


# -- what a stranger costs --------------------------------------------------------------------------------------------


def test_a_rejected_stranger_costs_no_connection_to_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    connect = sqlite3.connect
    with running(tmp_path) as node:
        monkeypatch.setattr(sqlite3, "connect", lambda *how, **more: opened.append(1) or connect(*how, **more))
        for _ in range(5):
            with RawPeer(node.port) as peer:
                assert peer.associate("STRANGER") == ASSOCIATE_RJ
                assert peer.is_closed_within(20)
        assert eventually(lambda: not [one for one in threading.enumerate() if "AcceptorThread" in one.name], 120)
        assert not opened
        assert send(node.port, film()) == 0x0000 and opened


def test_logs_of_an_object_that_is_no_text_are_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    event = logs._on_one_line(None, "", {"event": "x", "path": Path("a\nb"), "n": 1.5, "none": None, "s": {"q\r"}})
    assert event == {"event": "x", "path": r"a\x0ab", "n": 1.5, "none": None, "s": [r"q\x0d"]}
