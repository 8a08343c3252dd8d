"""Broken answers: seeded mutants of what a PACS says to our A-ASSOCIATE-RQ and to our C-STORE-RQ, against the real sender.

Each mutant breaks the first association or the first response, and is honest from then on.
"""

from __future__ import annotations

import hashlib
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from answered_films import AnsweredFilms
from pydicom.uid import UID
from raw_pacs import CLASS_UID, EXPLICIT, IMPLICIT, MAX_LENGTH, RELEASE_RP, RawPacs, accept, item, pdv, proposals, response
from servers import wait_for

from dicom_node.dimse.implicit_vr import implicit
from dicom_node.storage.part10 import dataset_bytes
from dicom_node.storage.records import DeliveryState

Opening = Callable[[bytes, random.Random], bytes]
Answer = Callable[[int, dict[int, bytes], random.Random], bytes]
_LENGTHS = (0, 1, 3, 6, 7, 127, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFF)
_NAMES = (b"", b"\0", b"ACME-STORE-SCP-12.3.45", "Gerät".encode("latin-1"), b"A\n[error] x", b"\xff" * 300)
_SETTLED = (DeliveryState.DELIVERED, DeliveryState.REFUSED)


# -- A-ASSOCIATE-AC ---------------------------------------------------------------------------------------------------


def _user_items(request: bytes, chance: random.Random) -> bytes:
    kinds = (0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x00, 0x7F, 0xFF)
    items = [item(chance.choice(kinds), chance.choice((*_NAMES, chance.randbytes(4)))) for _ in range(chance.randint(0, 5))]
    base = [MAX_LENGTH, CLASS_UID][chance.randrange(3) :]
    return accept(request, user=b"".join(chance.sample(items + base, len(items + base))))


def _max_length(request: bytes, chance: random.Random) -> bytes:
    return accept(request, user=item(0x51, struct.pack(">L", chance.choice(_LENGTHS))) + CLASS_UID)


def _fixed_part(request: bytes, chance: random.Random) -> bytes:
    return accept(request, version=chance.randrange(65536), titles=chance.choice((bytes(32), b"\xff" * 32, b"\n" * 32)))


def _unknown_items(request: bytes, chance: random.Random) -> bytes:
    return accept(request, more=item(chance.choice((0x00, 0x22, 0x77, 0xFF)), chance.randbytes(chance.randrange(300))))


def _results(request: bytes, chance: random.Random) -> bytes:
    answered = bytearray(accept(request))
    for place in _contexts(answered):
        answered[place + 6] = chance.choice((0, 0, 1, 2, 3, 4, 9, 255))
    return bytes(answered)


def _context_ids(request: bytes, chance: random.Random) -> bytes:
    answered = bytearray(accept(request))
    for place in _contexts(answered):
        answered[place + 4] = chance.choice((0, 1, 2, 3, 77, 255))
    return bytes(answered)


def _syntaxes(request: bytes, chance: random.Random) -> bytes:
    """Accepted in what was not proposed, in nothing, in what is no UID."""
    syntax = chance.choice((b"", b"1.2.840.10008.1.2.4.70", b"x" * 70, b"\xff\xff", IMPLICIT.encode() + b"\0 "))
    contexts = b"".join(item(0x21, bytes((one.number, 0, 0, 0)) + item(0x40, syntax)) for one in proposals(request))
    body = struct.pack(">HH", 1, 0) + request[10:42] + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1")
    body += contexts + item(0x50, MAX_LENGTH + CLASS_UID)
    return struct.pack(">BBL", 2, 0, len(body)) + body


def _one_syntax(request: bytes, chance: random.Random) -> bytes:
    return accept(request, takes=[chance.choice((EXPLICIT, IMPLICIT))], padding=chance.choice((b"", b"\0", b" ")))


def _inner_length(request: bytes, chance: random.Random) -> bytes:
    answered = bytearray(accept(request))
    struct.pack_into(">H", answered, chance.randrange(74, len(answered) - 2), chance.randrange(65536))
    return bytes(answered)


def _pdu_length(request: bytes, chance: random.Random) -> bytes:
    answered = bytearray(accept(request))
    struct.pack_into(">L", answered, 2, chance.choice((*_LENGTHS, len(answered) - 6 + chance.randint(-8, 8))))
    return bytes(answered)


def _random_bytes(request: bytes, chance: random.Random) -> bytes:
    answered = bytearray(accept(request))
    for _ in range(chance.randint(1, 8)):
        answered[chance.randrange(len(answered))] = chance.randrange(256)
    return bytes(answered)


def _cut_short(request: bytes, chance: random.Random) -> bytes:
    return accept(request)[: chance.randrange(90)]


def _other_pdu(request: bytes, chance: random.Random) -> bytes:
    kind, body = chance.choice((1, 3, 4, 5, 6, 7, 0, 8, 255)), chance.randbytes(chance.choice((0, 3, 4, 80)))
    return struct.pack(">BBL", kind, 0, len(body)) + body


def _two_answers(request: bytes, chance: random.Random) -> bytes:
    return accept(request) + chance.choice((accept(request), RELEASE_RP, pdv(1, 3, chance.randbytes(40))))


# -- C-STORE-RSP ------------------------------------------------------------------------------------------------------


def _statuses(context: int, command: dict[int, bytes], chance: random.Random) -> bytes:
    return pdv(context, 3, response(command, chance.randrange(65536)))


def _element_values(context: int, command: dict[int, bytes], chance: random.Random) -> bytes:
    tags = ("e0002", "e0100", "e0120", "e0800", "e0900", "e1000", "e0902", "effff")
    values = (b"", b"\0", b"\0\0", b"\xff\xff", b"x" * 300, b"1.2.3\0", b"\x01\x80")
    changes = {chance.choice(tags): chance.choice(values) for _ in range(chance.randint(1, 3))}
    return pdv(context, 3, response(command, **changes))


def _command_bytes(context: int, command: dict[int, bytes], chance: random.Random) -> bytes:
    data = bytearray(response(command))
    for _ in range(chance.choice((1, 2, 8))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return pdv(context, 3, bytes(data[: chance.choice((len(data), len(data), 9))]))


def _pieces(context: int, command: dict[int, bytes], chance: random.Random) -> bytes:
    data, size = response(command), chance.choice((1, 2, 7, 50))
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(pdv(context, 3 if n == len(parts) - 1 else 1, part) for n, part in enumerate(parts))


def _controls(context: int, command: dict[int, bytes], chance: random.Random) -> bytes:
    return pdv(chance.choice((context, 0, 2, 255)), chance.choice((0, 1, 2, 3, 4, 255)), response(command))


def _message_between(context: int, command: dict[int, bytes], chance: random.Random) -> bytes:
    """A request of its own before the response: C-ECHO, N-EVENT-REPORT, C-STORE."""
    field = struct.pack("<H", chance.choice((0x0030, 0x0100, 0x0001, 0x0FFF)))
    between = response(command, e0100=field, e0110=b"\7\0", e1002=b"\1\0")
    return pdv(context, 3, between) + pdv(context, 3, response(command))


def _line(context: int, command: dict[int, bytes], chance: random.Random) -> bytes:
    kind, body = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 9)), chance.randbytes(chance.choice((0, 4, 30)))
    return struct.pack(">BBL", kind, 0, chance.choice((len(body), *_LENGTHS))) + body


OPENINGS: dict[str, Opening] = {
    "user items": _user_items, "maximum length": _max_length, "fixed part": _fixed_part, "unknown items": _unknown_items,
    "results": _results, "context ids": _context_ids, "syntaxes": _syntaxes, "one syntax": _one_syntax,
    "inner length": _inner_length, "PDU length": _pdu_length, "random bytes": _random_bytes, "cut short": _cut_short,
    "other PDU": _other_pdu, "two answers": _two_answers,
}  # fmt: skip
ANSWERS: dict[str, Answer] = {
    "statuses": _statuses, "element values": _element_values, "command bytes": _command_bytes, "pieces": _pieces,
    "controls": _controls, "a message between": _message_between, "another PDU": _line,
}  # fmt: skip
HARMLESS = ("maximum length", "fixed part", "unknown items", "one syntax", "pieces")  # the first try delivers


@dataclass
class Mutant:
    """Number `number` of a seed: a PACS."""

    number: int
    how: str
    pacs: RawPacs

    def __str__(self) -> str:
        return f"answer {self.number}: {self.how}"


def mutant(seed: int, number: int) -> Mutant:
    chance = random.Random(f"{seed}/answer/{number}")
    how = chance.choice([*OPENINGS, *ANSWERS])
    pacs = RawPacs()

    def opening(request: bytes) -> bytes:
        return OPENINGS[how](request, chance) if how in OPENINGS and len(pacs.requests) == 1 else accept(request)

    def answer(context: int, command: dict[int, bytes]) -> bytes | None:
        return ANSWERS[how](context, command, chance) if how in ANSWERS and len(pacs.stored) == 1 else None

    pacs.opening, pacs.answer = opening, answer
    return Mutant(number, how, pacs)


def _contexts(answered: bytearray) -> list[int]:
    """Where the results of contexts begin."""
    found, place = [], 74
    while place < len(answered):
        if answered[place] == 0x21:
            found.append(place)
        place += 4 + int.from_bytes(answered[place + 2 : place + 4], "big")
    return found


def send_to_all(folder: Path, mutants: Sequence[Mutant], seconds: float = 120) -> Counter[str]:
    """One object to each of them and to a sound destination. How each ended; AssertionError when a promise was broken."""
    sound = RawPacs()
    threads = threading.active_count()
    with ExitStack() as stack:
        for pacs in (sound, *(one.pacs for one in mutants)):
            stack.enter_context(pacs.serving())
        names = {f"ODD{one.number}": one for one in mutants}
        ports = {name: one.pacs.port for name, one in names.items()}
        films = AnsweredFilms(folder, sound.port, 1, size=700, others=ports, connect_seconds=2, response_seconds=2)
        [uid] = films.uids
        stored = bytes(dataset_bytes(films.spool.read(films.delivery(uid).object.path)))
        with films.sending():
            wait_for(lambda: films.delivery(uid).state is DeliveryState.DELIVERED, seconds, "the sound destination waits")
            for name, one in names.items():
                wait_for(lambda: films.delivery(uid, name).state in _SETTLED, seconds, f"{one} is not settled")  # noqa: B023
        ends: Counter[str] = Counter()
        for name, one in names.items():
            state = films.delivery(uid, name).state
            ends[f"{one.how}: {state}"] += 1
            whole = [again for again in one.pacs.stored if again.dataset in (stored, implicit(stored))]
            assert state is DeliveryState.REFUSED or whole, f"{one}: delivered, and not there"
            assert len({hashlib.sha256(again.dataset).hexdigest() for again in whole if UID(again.syntax)}) <= 2
            assert one.how not in HARMLESS or len(one.pacs.requests) == 1, f"{one}: it did nothing wrong, and was asked again"
        wait_for(lambda: all(one.pacs.open_lines == 0 for one in mutants), 120, "sockets were left open")
    wait_for(lambda: threading.active_count() <= threads, 120, "threads were left behind")
    return ends
