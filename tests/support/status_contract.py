"""The status-code contract, found out by asking: the tables of docs/reliability.md.

python tests/support/status_contract.py        runs every condition and rewrites the tables
"""

from __future__ import annotations

import re
import sqlite3
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from answered_films import SEG, AnsweredFilms
from raw_peer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, RawPeer, associate_rq, c_store, command, fragment
from receiver_node import Node, running
from rude_pacs import ABORT as PACS_ABORTS
from rude_pacs import CLOSE, LATE, RudePacs
from servers import free_port, wait_for

from dicom_node.dimse.contexts import VERIFICATION
from dicom_node.dimse.status import Status, sentence
from dicom_node.storage.records import DeliveryState

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

# -- what our receiver answers ------------------------------------------------------------------------------------

LATER, NEVER, LEAVE = "keep it, send it again", "mend what is wrong, then send", "nothing: it is safe here"


def heard(peer: RawPeer) -> str:
    """The next thing that the receiver says, in the words of the table."""
    try:
        kind, body = peer.receive()
    except (EOFError, OSError):
        return "the connection is closed"
    if kind == ASSOCIATE_RJ:
        return "rejected {}/{}/{}".format(*body[1:])
    if kind == ASSOCIATE_AC:
        result = body[body.index(b"\x21\x00", 68) + 6]  # presentation context item: result/reason (PS3.8 9.3.3.2)
        return "accepted" if result == 0 else f"no context ({result})"
    return "A-ABORT" if kind == ABORT else f"`{command_status(body):04X}`"


def command_status(body: bytes) -> int:
    from raw_peer import command_of

    return int(command_of(body).Status)


def storing(*requests: bytes, **association: str) -> Callable[[Node], str]:
    """Associate, send the requests one after the other; the answer to the last."""

    def ask(node: Node) -> str:
        with RawPeer(node.port) as peer:
            peer.send(associate_rq(**association))
            said = heard(peer)
            for request in requests if said == "accepted" else ():
                with suppress(OSError):  # it may have said its last word before it has all of this
                    peer.send(request)
                said = heard(peer)
            return said

    return ask


def broken(target: str, name: str, error: Exception) -> Callable[[Node], str]:
    """A film, while a part of the node raises."""

    def ask(node: Node) -> str:
        owner = {"ledger": node.ledger, "spool": node.spool}[target]
        with patch.object(owner, name, side_effect=error):
            return storing(c_store())(node)

    return ask


def draining(node: Node) -> str:
    node.ledger.set_mode("draining")
    return storing()(node)


def one_too_many(node: Node) -> str:
    with RawPeer(node.port) as first:
        assert first.associate() == ASSOCIATE_AC
        return storing()(node)


def silent(node: Node) -> str:
    with RawPeer(node.port) as peer:
        return heard(peer)


def saying(data: bytes) -> Callable[[Node], str]:
    def ask(node: Node) -> str:
        with RawPeer(node.port) as peer:
            peer.send(data)
            return heard(peer)

    return ask


def silent_in_association(node: Node) -> str:
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        return heard(peer)


COMMITS = "[peers.ARCHIVE]\nhost = '127.0.0.1'\nport = 104\ncommit = true\n[send]\nae_title = 'PTXSENDER'\n"


def a_reporter_that_stores(node: Node) -> str:
    with RawPeer(node.port) as peer:
        peer.associate("ARCHIVE", "PTXSENDER", VERIFICATION)
        peer.send(c_store("1.2.3", VERIFICATION))
        return heard(peer)


_FULL = sqlite3.OperationalError("database or disk is full")

# condition, how it is made, settings of the receiver, what the sender should do
RECEIVING: list[tuple[str, Callable[[Node], str], dict[str, Any], str]] = [
    ("the film is written, synced and committed", storing(c_store()), {}, LEAVE),
    ("an equal film is here already", storing(c_store(), c_store()), {}, LEAVE),
    ("other bytes under a SOP Instance UID that is here", storing(c_store(), c_store(dataset=b"other")), {}, LEAVE),
    ("the dataset cannot be read as DICOM (its job says so)", storing(c_store(dataset=b"not DICOM")), {}, LEAVE),
    ("free space is under `node.reserve_mb`", storing(c_store()), {"reserve_bytes": 2**62}, LATER),
    ("the spool cannot be written (full disk, failing fsync)", broken("spool", "write", OSError(28, "full")), {}, LATER),
    ("the ledger cannot commit (full disk, failing fsync, locked)", broken("ledger", "add_arrival", _FULL), {}, LATER),
    ("no memory", broken("spool", "write", MemoryError()), {}, LATER),
    ("any error that nobody foresaw", broken("spool", "write", RuntimeError()), {}, LATER),
    ("the SOP Instance UID is missing", storing(c_store(None)), {}, NEVER),
    ("the SOP Instance UID is none (PS3.5 9.1)", storing(c_store("../../etc/passwd")), {}, NEVER),
    ("the SOP class is missing, or not that of its context", storing(c_store("1.2.3", "1.2.3")), {}, NEVER),
    ("its AE title may report storage commitment, and not store", a_reporter_that_stores, {"peers": COMMITS}, NEVER),
    ("there is no dataset", storing(c_store(dataset=b"")), {}, NEVER),
    ("it calls another AE title than ours", storing(called="SOMEBODY"), {}, NEVER),
    ("its AE title is not in `receive.allowed`", storing(calling="STRANGER"), {}, NEVER),
    ("its host is not one of its AE title's", storing(), {"allowed": {"MODALITY": ["192.0.2.1"]}}, NEVER),
    ("the node is draining", draining, {}, LATER),
    ("the ledger cannot be written when the association begins", broken("ledger", "open_association", _FULL), {}, LATER),
    ("`receive.max_associations` or `receive.max_per_host` is reached", one_too_many, {"max_per_host": 1}, LATER),
    ("the SOP class is not offered", storing(sop_class="1.2.840.10008.5.1.4.1.1.2"), {}, NEVER),
    ("the transfer syntax is not offered", storing(syntax="1.2.840.10008.1.2.4.100"), {}, NEVER),
    (
        "the object is larger than `receive.max_object_mb`",
        storing(command("1.2.3") + fragment(b"x" * 65_000, last=False) * 20),
        {"max_object_mb": 1},
        NEVER,
    ),
    ("a request without its mandatory elements", storing(fragment(b"", last=True)), {}, NEVER),
    ("a PDU larger than we agreed to", storing(fragment(b"x" * 200_000, last=False)), {}, NEVER),
    ("what it says first is no A-ASSOCIATE-RQ", saying(b"GET / HTTP/1.1\r\n\r\n"), {}, NEVER),
    ("no association within `receive.establish_seconds`", silent, {"establish_seconds": 0.3}, LATER),
    ("silence in an association for `receive.idle_seconds`", silent_in_association, {"idle_seconds": 0.3}, LATER),
]


def receiving_table() -> str:
    lines = ["| condition | answer | what the sender should do |", "|---|---|---|"]
    for condition, ask, settings, advice in RECEIVING:
        with tempfile.TemporaryDirectory() as folder, running(Path(folder), grace_seconds=0.1, **settings) as node:
            lines.append(f"| {condition} | {ask(node)} | {advice} |")
    return "\n".join(lines)


# -- what we do when a PACS answers -------------------------------------------------------------------------------

RANGES = {0xA7AB: "A7xx", 0xA9AB: "A9xx", 0xC123: "Cxxx", 0xB123: "Bxxx", 0xA800: "other Axxx", 0x0106: "other 0105-0123",
          0x0001: "0001", 0x0107: "0107", 0x0116: "0116", 0x1234: "any other"}  # fmt: skip
TROUBLES = {LATE: "no answer within `send.response_seconds`", CLOSE: "the connection ends in the middle of the object",
            PACS_ABORTS: "A-ABORT instead of an answer"}  # fmt: skip
DONE = {
    DeliveryState.DELIVERED: "delivered, never sent again",
    DeliveryState.PENDING: "sent again, the identical bytes, for `send.give_up_days`",
    DeliveryState.REFUSED: "refused, kept, not repeated: fix the cause, then run `retry`",
}


def sending_table() -> str:
    statuses = [*(int(one) for one in Status), *RANGES]
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        pacs = RudePacs(free_port())
        films = AnsweredFilms(Path(folder), pacs.port, len(statuses) + len(TROUBLES))
        answers = dict(zip(films.uids, (*statuses, *TROUBLES), strict=True))
        pacs.answer = lambda uid: answers[uid] if isinstance(answers[uid], int) else 0x0000
        for uid, what in answers.items():
            if not isinstance(what, int):
                pacs.script[uid] = deque([what] * 99)
        films.add(sop_class=SEG)
        pacs.classes = ["1.2.840.10008.5.1.4.1.1.7"]
        with pacs.serving(), films.sending():
            what_we_do = {uid: _done(films, uid) for uid in films.uids}
        for uid, what in answers.items():
            if isinstance(what, int):
                meaning = sentence(what).rpartition(" (")[0] if what not in RANGES else ""
                rows.append((f"`{RANGES.get(what, f'{what:04X}')}`", meaning, what_we_do[uid]))
            else:
                rows.append((TROUBLES[str(what)], "", what_we_do[uid]))
        rows.append(("no presentation context for the class or syntax", "", what_we_do[films.uids[-1]]))
    for condition, closed, up in (("the association is rejected", True, True), ("it cannot be reached", False, False)):
        with tempfile.TemporaryDirectory() as folder:
            pacs = RudePacs(free_port())
            pacs.closed_to_us = closed
            films = AnsweredFilms(Path(folder), pacs.port, 1)
            with films.sending(), pacs.serving() if up else _nothing():
                rows.append((condition, "", _done(films, films.uids[0])))
    lines = ["| the PACS answers | in words | what we do |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)])


def _done(films: AnsweredFilms, uid: str) -> str:
    """After the first try."""
    wait_for(lambda: films.delivery(uid).attempts >= 1 and films.delivery(uid).state is not DeliveryState.SENT, 120, uid)
    return DONE[films.delivery(uid).state]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


# -- the page -----------------------------------------------------------------------------------------------------

TABLES = {"receiving": receiving_table, "sending": sending_table}


def block(name: str) -> re.Pattern[str]:
    return re.compile(f"(<!-- table: {name} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


def main() -> None:
    text = PAGE.read_text("utf-8")
    for name, table in TABLES.items():
        found = table()
        text = block(name).sub(lambda match, found=found: match[1] + found + match[3], text)
    PAGE.write_text(text, "utf-8")
    sys.stdout.write(f"{PAGE} is up to date\n")


if __name__ == "__main__":
    main()
