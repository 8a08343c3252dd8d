"""A PACS that answers byte by byte what a test wants: A-ASSOCIATE-AC in any form, C-STORE-RSP in any form."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
RELEASE_RP = struct.pack(">BBLL", 0x06, 0, 4, 0)


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


MAX_LENGTH = item(0x51, struct.pack(">L", 16384))
CLASS_UID = item(0x52, b"1.2.3")


@dataclass
class Proposal:
    number: int
    abstract: str
    syntaxes: list[str]


def proposals(request: bytes) -> list[Proposal]:
    """The presentation contexts of an A-ASSOCIATE-RQ."""
    found = []
    for kind, body in _items(request[74:]):
        if kind == 0x20:
            inner = list(_items(body[4:]))
            names = [value.decode() for what, value in inner if what == 0x40]
            found.append(Proposal(body[0], next(value.decode() for what, value in inner if what == 0x30), names))
    return found


def accept(
    request: bytes,
    *,
    takes: Sequence[str] = (EXPLICIT, IMPLICIT),
    user: bytes = MAX_LENGTH + CLASS_UID,
    version: int = 1,
    titles: bytes | None = None,
    more: bytes = b"",
    refusal: int = 4,
    abstracts: Sequence[str] | None = None,
    padding: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-AC: the first syntax of `takes` that is proposed in each context (`refusal`: the result without one)."""
    contexts = b""
    for one in proposals(request):
        syntax = next((name for name in takes if name in one.syntaxes), None)
        known = abstracts is None or one.abstract in abstracts
        result = 3 if not known else refusal if syntax is None else 0
        inner = item(0x40, (syntax or IMPLICIT).encode() + padding)
        contexts += item(0x21, bytes((one.number, 0, result, 0)) + inner)
    body = struct.pack(">HH", version, 0) + (titles or request[10:42]) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + item(0x50, user) + more
    return struct.pack(">BBL", 0x02, 0, len(body)) + body


def response(command: dict[int, bytes], status: int = 0x0000, **changes: bytes) -> bytes:
    """The elements of a C-STORE-RSP (or of the response to another request), encoded."""
    field = int.from_bytes(command[0x0100], "little") | 0x8000
    elements = {
        0x0002: command.get(0x0002, b""), 0x0100: struct.pack("<H", field), 0x0120: command[0x0110],
        0x0800: struct.pack("<H", 0x0101), 0x0900: struct.pack("<H", status), 0x1000: command.get(0x1000, b""),
    }  # fmt: skip
    elements |= {int(name.removeprefix("e"), 16): value for name, value in changes.items()}
    data = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(data)) + data


def pdv(context: int, control: int, data: bytes) -> bytes:
    body = struct.pack(">LBB", len(data) + 2, context, control) + data
    return struct.pack(">BBL", 0x04, 0, len(body)) + body


@dataclass
class Stored:
    """One C-STORE as it came."""

    uid: str
    syntax: str
    dataset: bytes
    longest_pdu: int


@dataclass
class RawPacs:
    """`opening`: request -> what is said to it, b"" for nothing; `answer`: (context, command) -> what is said to a message, or
    None for the honest response."""

    opening: Callable[[bytes], bytes] = accept
    answer: Callable[[int, dict[int, bytes]], bytes | None] = lambda context, command: None
    port: int = 0
    stored: list[Stored] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    open_lines: int = 0

    @contextmanager
    def serving(self) -> Iterator[RawPacs]:
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield self
            listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._talk, args=(listener.accept()[0],), daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        self.open_lines += 1
        try:
            with contextlib.suppress(OSError, EOFError, LookupError, struct.error), line:
                line.settimeout(20)
                request = _pdu(line)
                self.requests.append(request)
                opening = self.opening(request)
                line.sendall(opening)
                items = [body for kind, body in _items(opening[74:]) if kind == 0x21] if opening[:1] == b"\2" else []
                self._serve(line, {body[0]: _syntax(body) for body in items if len(body) > 3 and body[2] == 0})
        finally:
            self.open_lines -= 1

    def _serve(self, line: socket.socket, accepted: dict[int, str]) -> None:
        command, data, longest = b"", b"", 0
        while (pdu := _pdu(line))[0] == 0x04:
            longest = max(longest, len(pdu) - 6)
            for context, control, part in _pdvs(pdu):
                if control & 1:
                    command += part
                else:
                    data += part
                if not control & 2 or (control & 1 and _elements(command)[0x0800] != b"\x01\x01"):
                    continue  # not the last piece, or a dataset follows
                said = _elements(command)
                if said[0x0100] == b"\1\0":
                    uid = said[0x1000].rstrip(b"\0").decode()
                    self.stored.append(Stored(uid, accepted.get(context, ""), data, longest))
                if said[0x0100][1:] == b"\x80":  # a response of ours to a message that was none of its business
                    command, data, longest = b"", b"", 0
                    continue
                heard = self.answer(context, said)
                line.sendall(pdv(context, 3, response(said)) if heard is None else heard)
                command, data, longest = b"", b"", 0
        if pdu[0] == 0x05:
            line.sendall(RELEASE_RP)
        while line.recv(4096):  # until the other side closes
            pass


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length = int.from_bytes(data[2:4], "big")
        yield data[0], data[4 : 4 + length]
        data = data[4 + length :]


def _syntax(context: bytes) -> str:
    return next((value.decode("latin-1").strip("\0 ") for kind, value in _items(context[4:]) if kind == 0x40), "")


def _pdvs(pdu: bytes) -> Iterator[tuple[int, int, bytes]]:
    place = 6
    while place < len(pdu):
        length = int.from_bytes(pdu[place : place + 4], "big")
        yield pdu[place + 4], pdu[place + 5], pdu[place + 6 : place + 4 + length]
        place += 4 + length


def _elements(command: bytes) -> dict[int, bytes]:
    found, place = {}, 0
    while place < len(command):
        _, tag, length = struct.unpack_from("<HHL", command, place)
        found[tag] = command[place + 8 : place + 8 + length]
        place += 8 + length
    return found


def _pdu(line: socket.socket) -> bytes:
    head = _exactly(line, 6)
    return head + _exactly(line, int.from_bytes(head[2:], "big"))


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = line.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data
