"""A-ASSOCIATE-RQ and A-ASSOCIATE-AC as PS3.8 wants them read: what is not known is skipped, what is not to be tested is not.

The library raises at an item that it does not know, a version name of 17 characters, a title that ends in NULs. So the PDU
is read here first, and the library gets one that says the same in the form that it knows:

- of the protocol version bit 0 alone is tested (PS3.8 9.3.2, 9.3.3);
- titles end at a NUL, UIDs lose their padding, a version name its 17th character and what is not ASCII;
- items and sub-items of unknown type are skipped, and so are those that we answer nothing to: asynchronous operations,
  extended negotiation, user identity (PS3.7 D.3.3: no answer means that it is not supported);
- a maximum length that is absent, or holds no byte of a message (1 to 6), is 16 KiB; "any length" is 128 KiB: shorter is
  always right (PS3.8 D.1);
- context ids are odd for the library; a peer that numbers otherwise is answered with its own numbers (`Request.ids`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dicom_node.dimse.implicit_vr import IMPLICIT
from dicom_node.runtime.printable import printable

ASSOCIATE_RQ, ASSOCIATE_AC, P_DATA_TF = 0x01, 0x02, 0x04
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
UNSAID_LENGTH = 16 * 1024  # bytes that every implementation can take
LONGEST = 128 * 1024  # bytes of a PDU that we send, whatever more the peer would take
NO_REASON, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 2, 3, 4  # results of a presentation context (PS3.8 table 9-18)

_HEADER = struct.Struct(">BBL")  # type, reserved, length
_FIXED = struct.Struct(">HH16s16s32s")  # protocol version, reserved, called and calling AE title, reserved
_ITEM = struct.Struct(">BBH")  # type, reserved, length
_APPLICATION, _PROPOSED, _RESULT, _ABSTRACT, _TRANSFER, _USER = 0x10, 0x20, 0x21, 0x30, 0x40, 0x50
_MAX_LENGTH, _CLASS_UID, _ROLE, _VERSION_NAME = 0x51, 0x52, 0x54, 0x55
_LEAST_LENGTH = 7  # a PDV's own header and one byte (PS3.8 9.3.5.1)
_ODD = range(1, 256, 2)


@dataclass(frozen=True)
class Request:
    """An A-ASSOCIATE-RQ."""

    pdu: bytes  # for the library
    calling_ae: str  # as said, without padding; what cannot be printed is escaped
    called_ae: str
    has_version: bool = True  # protocol version 1 is among those it speaks
    application_context: str = APPLICATION_CONTEXT
    ids: Mapping[int, int] = field(default_factory=dict)  # number of a context in `pdu` -> the peer's
    refused: tuple[tuple[int, int], ...] = ()  # (the peer's number, result) of contexts that `pdu` cannot name

    def incoming(self, pdu: bytearray) -> bytearray:
        """A PDU of the peer: a P-DATA-TF has the library's numbers, and 0 for what was not negotiated."""
        if pdu[0] != P_DATA_TF or not self.is_renumbered:
            return pdu
        return bytearray(_renumbered(pdu, {theirs: ours for ours, theirs in self.ids.items()}))

    def outgoing(self, pdu: bytes) -> bytes:
        """A PDU of ours with the peer's numbers; an A-ASSOCIATE-AC has a result for each context that it proposed."""
        if pdu[0] == P_DATA_TF and self.is_renumbered:
            return _renumbered(pdu, self.ids)
        return self._accept(pdu) if pdu[0] == ASSOCIATE_AC and (self.refused or self.is_renumbered) else pdu

    @property
    def is_renumbered(self) -> bool:
        """Whether the peer numbers its contexts otherwise than the library may."""
        return any(ours != theirs for ours, theirs in self.ids.items())

    def _accept(self, pdu: bytes) -> bytes:
        items = []
        for kind, body in _items(pdu[_HEADER.size + _FIXED.size :]):
            if kind == _USER:
                items += [_result(number, result, IMPLICIT) for number, result in self.refused]
            known = kind == _RESULT and body[0] in self.ids
            items.append(_item(kind, bytes((self.ids[body[0]],)) + body[1:] if known else body))
        return _pdu(ASSOCIATE_AC, pdu[_HEADER.size : _HEADER.size + _FIXED.size], b"".join(items))


def read_request(pdu: bytes) -> Request:
    """Raises ValueError when it has no form in which it could be answered: cut short, or an item longer than what holds it."""
    version, called, calling, items = _opened(pdu)
    application, user = "", b""
    proposed: dict[int, bytes] = {}
    for kind, body in items:
        if kind == _APPLICATION:
            application = application or _text(body)
        elif kind == _USER:
            user = user or body
        elif kind == _PROPOSED and len(body) >= 4:
            proposed.setdefault(body[0], body[4:])
    contexts, ids, refused = _proposals(proposed)
    return Request(
        _pdu(
            ASSOCIATE_RQ,
            _FIXED.pack(1, 0, _for_library(called), _for_library(calling), bytes(32)),
            _item(_APPLICATION, APPLICATION_CONTEXT.encode()) + contexts + _user(user),
        ),
        calling,
        called,
        bool(version & 1),
        printable(application) or APPLICATION_CONTEXT,  # one that forgets it means the only one there is
        ids,
        tuple(refused),
    )


def read_accept(pdu: bytes) -> bytes:
    """An A-ASSOCIATE-AC for the library. Raises ValueError as `read_request`."""
    _, called, calling, items = _opened(pdu)
    user = b""
    results: dict[int, bytes] = {}
    for kind, body in items:
        if kind == _USER:
            user = user or body
        elif kind == _RESULT and len(body) >= 4 and body[0] in _ODD:
            results.setdefault(body[0], _result_of(body))
    fixed = _FIXED.pack(1, 0, _for_library(called), _for_library(calling), bytes(32))  # neither is tested (table 9-17)
    application = _item(_APPLICATION, APPLICATION_CONTEXT.encode())
    return _pdu(ASSOCIATE_AC, fixed, application + b"".join(results.values()) + _user(user))


def _renumbered(pdu: bytes | bytearray, ids: Mapping[int, int]) -> bytes:
    """A P-DATA-TF in which every context has its other number."""
    changed, place = bytearray(pdu), _HEADER.size
    while place + 5 <= len(changed):
        changed[place + 4] = ids.get(changed[place + 4], 0)
        place += 4 + int.from_bytes(changed[place : place + 4], "big")
    return bytes(changed)


def is_uid(value: object) -> bool:
    """Digits and points, at most 64 (PS3.5 9.1). A component with a leading zero passes: real devices send them."""
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        return False
    return all(part.isascii() and part.isdigit() for part in value.split("."))


def is_ae_title(title: str) -> bool:
    """1 to 16 characters of ASCII that can be printed, but no backslash (PS3.5 6.2)."""
    return 0 < len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title


def _opened(pdu: bytes) -> tuple[int, str, str, Iterator[tuple[int, bytes]]]:
    """Protocol version, called and calling AE title, items."""
    if len(pdu) < _HEADER.size + _FIXED.size:
        raise ValueError("the PDU ends in its fixed part")
    version, _, called, calling, _ = _FIXED.unpack_from(pdu, _HEADER.size)
    return version, _title(called), _title(calling), _items(pdu[_HEADER.size + _FIXED.size :])


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each item. Zeros behind the last are padding."""
    place = 0
    while place < len(data):
        if not any(data[place:]):
            return
        if place + _ITEM.size > len(data):
            raise ValueError("the PDU ends in the header of an item")
        kind, _, length = _ITEM.unpack_from(data, place)
        body = data[place + _ITEM.size : place + _ITEM.size + length]
        if len(body) != length:
            raise ValueError("an item is longer than what holds it")
        yield kind, body
        place += _ITEM.size + length


def _proposals(proposed: Mapping[int, bytes]) -> tuple[bytes, dict[int, int], list[tuple[int, int]]]:
    """The contexts for the library, their numbers (ours -> theirs), and those that can only be refused."""
    free = iter([number for number in _ODD if number not in proposed])
    contexts, ids, refused = b"", {}, []
    for number, body in proposed.items():
        abstract, syntaxes = "", []
        for kind, value in _items(body):
            if kind == _ABSTRACT:
                abstract = abstract or _text(value)
            elif kind == _TRANSFER and is_uid(syntax := _text(value)):
                syntaxes.append(syntax)
        ours = number if number in _ODD else next(free, 0)
        if not is_uid(abstract):
            refused.append((number, NO_ABSTRACT_SYNTAX))
        elif not syntaxes:
            refused.append((number, NO_TRANSFER_SYNTAX))
        elif not ours:
            refused.append((number, NO_REASON))  # more than the 128 that there can be
        else:
            ids[ours] = number
            inner = _item(_ABSTRACT, abstract.encode()) + b"".join(_item(_TRANSFER, one.encode()) for one in syntaxes)
            contexts += _item(_PROPOSED, bytes((ours, 0, 0, 0)) + inner)
    return contexts, ids, refused


def _result_of(body: bytes) -> bytes:
    """One context of an A-ASSOCIATE-AC. Its transfer syntax is significant only where it was accepted (PS3.8 table 9-18)."""
    result = body[2] if body[2] <= NO_TRANSFER_SYNTAX else NO_REASON
    syntaxes = [_text(value) for kind, value in _items(body[4:]) if kind == _TRANSFER] if not result else []
    if not result and not (syntaxes and is_uid(syntaxes[0])):
        result = NO_TRANSFER_SYNTAX  # accepted in no syntax that has a name: nothing can be sent
    return _result(body[0], result, IMPLICIT if result else syntaxes[0])


def _result(number: int, result: int, syntax: str) -> bytes:
    return _item(_RESULT, bytes((number, 0, result, 0)) + _item(_TRANSFER, syntax.encode()))


def _user(body: bytes) -> bytes:
    """The User Information item for the library (PS3.8 D.1, PS3.7 D.3.3)."""
    said: dict[int, bytes] = {}
    roles: dict[str, bytes] = {}
    for kind, value in _items(body):
        if kind == _ROLE:
            length = int.from_bytes(value[:2], "big")
            uid, both = _text(value[2 : 2 + length]), value[2 + length : 4 + length]
            if is_uid(uid) and len(both) == 2:
                roles.setdefault(uid, both)
        else:
            said.setdefault(kind, value)
    items = _item(_MAX_LENGTH, struct.pack(">L", _length(said.get(_MAX_LENGTH, b""))))
    if is_uid(uid := _text(said.get(_CLASS_UID, b""))):
        items += _item(_CLASS_UID, uid.encode())
    for uid, both in roles.items():
        body = struct.pack(">H", len(uid)) + uid.encode() + bytes(int(one == 1) for one in both)
        items += _item(_ROLE, body)
    if name := _ascii(said.get(_VERSION_NAME, b""))[:16].strip():
        items += _item(_VERSION_NAME, name.encode())
    return _item(_USER, items)


def _length(value: bytes) -> int:
    """The longest PDU that we send to a peer that says this of itself."""
    said = int.from_bytes(value, "big") if len(value) == 4 else UNSAID_LENGTH
    if 0 < said < _LEAST_LENGTH:
        return UNSAID_LENGTH
    return min(said or LONGEST, LONGEST)


def _title(value: bytes) -> str:
    return printable(value.partition(b"\0")[0].decode("ascii", "backslashreplace").strip(" "))


def _for_library(title: str) -> bytes:
    """The title where it is one (PS3.5 6.2, AE); the others are looked at by us alone."""
    return (title if is_ae_title(title) else "?").ljust(16).encode()


def _text(value: bytes) -> str:
    """A UID or name without its padding."""
    return value.partition(b"\0")[0].decode("ascii", "backslashreplace").strip(" ")


def _ascii(value: bytes) -> str:
    return "".join(chr(one) for one in value.partition(b"\0")[0] if 0x20 <= one < 0x7F)


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, 0, len(body)) + body


def _pdu(kind: int, fixed: bytes, items: bytes) -> bytes:
    return _HEADER.pack(kind, 0, len(fixed) + len(items)) + fixed + items
