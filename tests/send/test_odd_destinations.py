"""Destinations that answer in their own way: all that PS3.8 allows is delivered, all that it does not allow is a sentence.

Nothing of it ends the sender, keeps another destination waiting, or leaves a socket open.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from answered_films import SEG, AnsweredFilms
from echo_scu import echo
from ledger_counts import open_deliveries
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from raw_pacs import CLASS_UID, EXPLICIT, IMPLICIT, MAX_LENGTH, RawPacs, accept, item, pdv, proposals, response
from servers import free_port, wait_for

from dicom_node.dimse.association_pdu import LONGEST, UNSAID_LENGTH
from dicom_node.dimse.implicit_vr import implicit
from dicom_node.runtime.config import load
from dicom_node.send.storage_scu import commitment_problem
from dicom_node.storage.outbox import MAX_CRASHES
from dicom_node.storage.records import DeliveryState

SC = "1.2.840.10008.5.1.4.1.1.7"


def says(length: int) -> bytes:
    return item(0x51, struct.pack(">L", length)) + CLASS_UID


# What an A-ASSOCIATE-AC may look like, and the longest PDU that may be sent then.
ANSWERS: dict[str, tuple[dict[str, Any], int]] = {
    "no maximum length": ({"user": CLASS_UID}, UNSAID_LENGTH),
    "no user information": ({"user": b""}, UNSAID_LENGTH),
    "maximum length 1": ({"user": says(1)}, UNSAID_LENGTH),
    "maximum length 6": ({"user": says(6)}, UNSAID_LENGTH),
    "maximum length 7": ({"user": says(7)}, 7),
    "maximum length 8": ({"user": says(8)}, 8),
    "maximum length 0, any": ({"user": says(0)}, LONGEST),
    "maximum length 4 GiB": ({"user": says(0xFFFFFFFF)}, LONGEST),
    "maximum length of two bytes": ({"user": item(0x51, b"\x40\0") + CLASS_UID}, UNSAID_LENGTH),
    "unknown item": ({"more": item(0x77, b"xyz")}, 16384),
    "unknown user item": ({"user": MAX_LENGTH + CLASS_UID + item(0x7A, b"abcd")}, 16384),
    "long version name": ({"user": MAX_LENGTH + CLASS_UID + item(0x55, b"ACME-STORE-SCP-12.3.45")}, 16384),
    "latin version name": ({"user": MAX_LENGTH + CLASS_UID + item(0x55, "Gerät".encode("latin-1"))}, 16384),
    "long class uid": ({"user": MAX_LENGTH + item(0x52, b"1." * 40 + b"1")}, 16384),
    "empty class uid": ({"user": MAX_LENGTH + item(0x52, b"")}, 16384),
    "protocol version 3": ({"version": 3}, 16384),
    "titles of NULs": ({"titles": bytes(32)}, 16384),
    "titles that are not ASCII": ({"titles": b"\xff" * 32}, 16384),
    "padded syntax": ({"padding": b"\0"}, 16384),
    "asynchronous operations of one byte": ({"user": MAX_LENGTH + CLASS_UID + item(0x53, b"\0")}, 16384),
    "short user identity": ({"user": MAX_LENGTH + CLASS_UID + item(0x59, b"\0")}, 16384),
    "Implicit VR only": ({"takes": [IMPLICIT]}, 16384),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_form_of_acceptance_gets_the_object(name: str, tmp_path: Path) -> None:
    """The object comes whole, in PDUs that fit; the one that can take Implicit VR only gets the same elements."""
    how, longest = ANSWERS[name]
    pacs = RawPacs(partial(accept, **how))
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 1, size=300)
        with films.sending():
            films.all_are(DeliveryState.DELIVERED)
        assert echo(films.config, "PACS") is None or "Verification" in (echo(films.config, "PACS") or "")
    [stored] = pacs.stored
    assert stored.longest_pdu <= longest
    if how.get("takes") == [IMPLICIT]:
        assert stored.syntax == IMPLICIT
        sent = pydicom.filereader.read_dataset(io.BytesIO(stored.dataset), True, True)
        assert sent.SOPInstanceUID == films.uids[0] and len(sent.PixelData) == 300
    else:
        assert hashlib.sha256(stored.dataset).hexdigest() == films.sha256[films.uids[0]]


def test_a_destination_that_prefers_implicit_and_takes_explicit_gets_the_stored_bytes(tmp_path: Path) -> None:
    pacs = RawPacs(partial(accept, takes=(IMPLICIT, EXPLICIT)))
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 1)
        with films.sending():
            films.all_are(DeliveryState.DELIVERED)
    assert hashlib.sha256(pacs.stored[0].dataset).hexdigest() == films.sha256[films.uids[0]]
    for context in proposals(pacs.requests[0]):
        assert context.syntaxes[0] == EXPLICIT
    assert any(IMPLICIT in context.syntaxes for context in proposals(pacs.requests[0])), "PS3.5 10.1 a"


def test_a_repeated_object_has_the_same_bytes_where_it_was_converted(tmp_path: Path) -> None:
    answers = iter([0xA700, 0x0000])
    pacs = RawPacs(
        partial(accept, takes=[IMPLICIT]), lambda context, command: pdv(context, 3, response(command, next(answers)))
    )
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 1)
        with films.sending():
            films.all_are(DeliveryState.DELIVERED)
    first, second = pacs.stored
    assert first.dataset == second.dataset and first.syntax == IMPLICIT


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"abstracts": ["1.2.3"]}, ("abstract syntax not supported", SEG)),
        ({"takes": ["1.2.840.10008.1.2.4.70"]}, ("neither Explicit nor Implicit", "transfer syntaxes not supported")),
        ({"takes": [], "refusal": 1}, ("user rejection",)),
        ({"takes": [], "refusal": 200}, ("no reason",)),
    ],
)
def test_a_refusal_tells_class_from_syntax(how: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    pacs = RawPacs(partial(accept, **how))
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 1, sop_class=SEG)
        with films.sending():
            films.all_are(DeliveryState.REFUSED)
    reason = films.delivery(films.uids[0]).reason or ""
    assert "presentation context" in reason and all(word in reason for word in words), reason


def rejects(result: int, source: int, reason: int) -> Callable[[bytes], bytes]:
    return lambda request: struct.pack(">BBLBBBB", 3, 0, 4, 0, result, source, reason)


# What a PACS says to an association request, or to a C-STORE, and words of the sentence about it.
RUBBISH: dict[str, tuple[Callable[[bytes], bytes] | None, Any, str]] = {
    "not our title": (rejects(1, 1, 3), None, "does not know our AE title PTXSEG"),
    "not its title": (rejects(1, 1, 7), None, "peers.PACS.ae_title"),
    "busy": (rejects(2, 3, 1), None, "busy"),
    "a rejection without a name": (rejects(7, 9, 200), None, "rejected the association"),
    "an abort without a name": (lambda request: struct.pack(">BBLBBBB", 7, 0, 4, 0, 0, 9, 77), None, "aborted"),
    "a page": (lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n", None, "DICOM"),
    "an acceptance of nothing but its header": (lambda request: b"\2\0\0\0\0\0", None, "not readable DICOM"),
    "an acceptance that ends in an item": (lambda request: _cut(accept(request)), None, "not readable DICOM"),
    "a release": (lambda request: struct.pack(">BBLL", 6, 0, 4, 0), None, "cannot be reached"),
    "data first": (lambda request: pdv(1, 3, b"x" * 20), None, "cannot be reached"),
    "nothing": (lambda request: b"", None, "does not answer"),
    "4 GB": (lambda request: b"\2\0\xff\xff\xff\xff" + b"x" * 100, None, "cannot be reached"),
    "a response of 4 GB": (None, lambda context, command: b"\4\0\xff\xff\xff\xff" + b"x" * 100, "ended while|no answer"),
    "a response of noise": (None, lambda context, command: pdv(context, 3, b"\1" * 50), "ended while sending|no answer"),
    "another message's response": (
        None, lambda context, command: pdv(context, 3, response(command, e0120=b"\x77\x07")), "no answer",
    ),
    "another object's response": (
        None, lambda context, command: pdv(context, 3, response(command, e1000=b"1.2.9\0")), "no answer",
    ),
    "an echo's response": (
        None, lambda context, command: pdv(context, 3, response(command, e0100=struct.pack("<H", 0x8030))), "no answer",
    ),
    "a response without a status": (
        None, lambda context, command: pdv(context, 3, response(command, e0900=b"")), "no answer|unexpected error",
    ),
    "an associate request": (None, lambda context, command: b"\1\0\0\0\0\4abcd", "ended while sending|no answer"),
    "a rejection in the middle": (None, lambda context, command: rejects(1, 1, 1)(b""), "ended while sending|no answer"),
}  # fmt: skip


def _cut(pdu: bytes) -> bytes:
    return struct.pack(">BBL", 2, 0, len(pdu) - 6 - 3) + pdu[6:-3]


@pytest.mark.parametrize("name", RUBBISH)
def test_every_rubbish_is_a_sentence_and_the_others_do_not_wait(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is thought delivered, the sender lives, the sockets are closed, and no traceback is printed."""
    opening, answer, words = RUBBISH[name]
    odd = RawPacs(opening or accept, answer or (lambda context, command: None))
    sound = RawPacs()
    with odd.serving(), sound.serving():
        films = AnsweredFilms(tmp_path, odd.port, 1, others={"SOUND": sound.port}, connect_seconds=2, response_seconds=2)
        [uid] = films.uids
        with films.sending():
            wait_for(lambda: films.delivery(uid, "SOUND").state is DeliveryState.DELIVERED, 120)
            wait_for(lambda: films.delivery(uid).reason, 120)
        delivery = films.delivery(uid)
        assert delivery.state is not DeliveryState.DELIVERED
        assert any(word in (delivery.reason or "") for word in words.split("|")), delivery.reason
        if opening is not None:
            assert echo(films.config, "PACS") and commitment_problem(films.config, "PACS")
        wait_for(lambda: odd.open_lines == 0 and sound.open_lines == 0, 120, "sockets were left open")
    assert not [thread for thread in threading.enumerate() if thread.name == "reports"]
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out


def test_what_is_wrong_with_the_line_is_named(tmp_path: Path) -> None:
    films = AnsweredFilms(tmp_path, free_port(), 0)
    assert "connection refused" in (echo(films.config, "PACS") or "")
    peers = {"PACS": films.config.peers["PACS"].model_copy(update={"host": "nowhere.invalid"})}
    elsewhere = films.config.model_copy(update={"peers": peers})
    assert "DNS" in (echo(elsewhere, "PACS") or "") and "DNS" in (commitment_problem(elsewhere, "PACS") or "")


def test_an_object_that_raises_is_refused_after_three_tries_and_the_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs = RawPacs(partial(accept, takes=[IMPLICIT]))
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 3)
        poison = films.uids[1]

        def stumble(dataset: bytes) -> bytes:
            if poison.encode() in dataset:
                raise ZeroDivisionError
            return implicit(dataset)

        monkeypatch.setattr("dicom_node.send.storage_scu.implicit", stumble)
        with films.sending():
            films.all_are(DeliveryState.DELIVERED, DeliveryState.REFUSED)
    assert [films.delivery(uid).state for uid in films.uids] == ["delivered", "refused", "delivered"]
    assert films.delivery(poison).attempts == MAX_CRASHES
    assert "ZeroDivisionError" in (films.delivery(poison).reason or "")


def test_an_object_without_a_transfer_syntax_is_refused_and_the_others_go(tmp_path: Path) -> None:
    """As an older node took it from a worker: it was never sent, and stopped all that were."""
    pacs = RawPacs()
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 2)
        first = films.delivery(films.uids[0]).object
        data = bytearray(films.spool.read(first.path))
        at = data.index(b"\x02\x00\x10\x00UI")
        data[at + 2] = 0x11  # (0002,0011): an element without a name
        (films.spool.directory / first.path).write_bytes(data)
        with films.ledger.store.write() as db:
            sha256 = hashlib.sha256(data).hexdigest()
            db.execute("UPDATE objects SET sha256 = ? WHERE sop_instance_uid = ?", (sha256, films.uids[0]))
        with films.sending():
            films.all_are(DeliveryState.DELIVERED, DeliveryState.REFUSED)
    assert [films.delivery(uid).state for uid in films.uids] == ["refused", "delivered"]
    assert "transfer syntax" in (films.delivery(films.uids[0]).reason or "")


def test_an_object_at_which_the_process_dies_is_refused_at_the_third_death(tmp_path: Path) -> None:
    """Two are on the wire at the first deaths, each to its own destination; what is refused was alone at the third."""
    films = AnsweredFilms(tmp_path, free_port(), 2)
    outbox, poison, innocent = films.outbox, films.uids[0], films.uids[1]
    for _ in range(2):
        assert outbox.sending(films.delivery(poison)) and outbox.sending(films.delivery(innocent))
        assert outbox.recover() == 2  # the process died
    assert outbox.due(60) == {}, "nothing goes beside a suspect"
    suspect = outbox.suspect(60)
    assert suspect is not None
    assert outbox.sending(suspect)
    outbox.recover()
    assert films.delivery(suspect.object.sop_instance_uid).state is DeliveryState.REFUSED
    assert "died 3 times" in (films.delivery(suspect.object.sop_instance_uid).reason or "")
    other = outbox.suspect(60)
    assert other is not None and outbox.sending(other)
    outbox.settle(other, DeliveryState.PENDING, status=None, reason="busy")
    assert films.delivery(other.object.sop_instance_uid).crashes == 0, "it was sent and nobody died"


_KILLED = """
import os, signal, sys, threading
from pathlib import Path
from dicom_node.send import storage_scu
from dicom_node.runtime.config import load
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.spool import Spool
send = storage_scu.Sender._store
def store(self, association, one, *rest):
    if one.object.sop_instance_uid == "{uid}":
        os.kill(os.getpid(), signal.SIGKILL)
    return send(self, association, one, *rest)
storage_scu.Sender._store = store
config, stop = load(Path(sys.argv[1])), threading.Event()
ledger = Ledger(config.ledger_path)
signal.signal(signal.SIGTERM, lambda *_: stop.set())
storage_scu.Sender(config, Spool(config.spool_directory, 0), ledger, Outbox(ledger.store)).run(stop, 0.02)
"""


def test_a_sender_that_is_killed_by_one_object_delivers_the_others(tmp_path: Path) -> None:
    """The real process, and an object at which it gets SIGKILL: it is started again until nothing waits."""
    pacs = RawPacs()
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 3)
        script = _KILLED.format(uid=films.uids[1])
        deaths = 0
        for _ in range(10):
            if not open_deliveries(films.ledger.store):
                break
            process = subprocess.Popen([sys.executable, "-c", script, str(films.config_file)])
            wait_for(lambda: process.poll() is not None or not open_deliveries(films.ledger.store), 120)  # noqa: B023
            if process.poll() is None:
                process.terminate()
            deaths += process.wait(120) == -signal.SIGKILL
    assert deaths == MAX_CRASHES
    assert [films.delivery(uid).state for uid in films.uids] == ["delivered", "refused", "delivered"]


def test_pause_stops_a_batch_within_one_object(tmp_path: Path) -> None:
    paused = threading.Event()
    pacs = RawPacs()

    def answer(context: int, command: dict[int, bytes]) -> None:
        if len(pacs.stored) == 3:
            films.ledger.set_mode("paused")
            paused.set()

    pacs.answer = answer
    with pacs.serving():
        films = AnsweredFilms(tmp_path, pacs.port, 12)
        with films.sending():
            assert paused.wait(120)
            wait_for(lambda: pacs.open_lines == 0, 120, "the association goes on")
            assert len(pacs.stored) == 3
            films.ledger.set_mode("running")
            films.all_are(DeliveryState.DELIVERED)
    assert len(pacs.stored) == 12


def test_implicit_vr_is_what_the_standard_writes() -> None:
    """Against pydicom's own writer: every kind of length, nested sequences, empty values; and twice the same bytes."""
    inner, middle, outer = Dataset(), Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning, inner.PixelData = "1", "", b"\1\2"
    inner["PixelData"].VR = "OB"
    middle.ConceptNameCodeSequence, middle.TextValue = [inner, Dataset()], "x" * 70_000
    outer.SOPInstanceUID, outer.ContentSequence, outer.Rows = "1.2.3", [middle, middle], 5
    outer.ReferencedSeriesSequence, outer.WindowCenter = [], ["1.5", "2"]
    for undefined in (False, True):
        for one in (middle, inner, outer):
            one.is_undefined_length_sequence_item = undefined
        for element in (outer["ContentSequence"], middle["ConceptNameCodeSequence"]):
            element.is_undefined_length = undefined
        explicit, wanted = _written(outer, implicit_vr=False), _written(outer, implicit_vr=True)
        assert implicit(explicit) == wanted == implicit(explicit)


def _written(dataset: Dataset, *, implicit_vr: bool) -> bytes:
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, implicit_vr
    write_dataset(file, dataset)
    return file.getvalue()


@pytest.mark.parametrize(
    "broken", [b"\x08", b"\x08\0\x18\0UI\x40\0x", b"\x08\0\x18\0\0\0\0\0", b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff"]
)
def test_what_cannot_be_converted_is_said(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        implicit(broken)
    with pytest.raises(ValueError, match="without end"):
        implicit(b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 2000)


def test_nothing_is_left_of_twenty_noises(tmp_path: Path) -> None:
    """One association after the other that fails: descriptors and threads do not grow."""
    noise = RawPacs(lambda request: os.urandom(40))
    with noise.serving():
        (tmp_path / "c.toml").write_text(
            f"[peers.PACS]\nhost='127.0.0.1'\nport={noise.port}\n[send]\ndestinations=['PACS']\nconnect_seconds=0.3\n"
            "response_seconds=0.3\n"
        )
        config = load(tmp_path / "c.toml")
        echo(config, "PACS")
        wait_for(lambda: noise.open_lines == 0, 120)
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(20):
            assert echo(config, "PACS")
        wait_for(lambda: noise.open_lines == 0, 120)
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= files and threading.active_count() <= threads, 120, "a leak")
