"""Broken conversations: seeded mutants of an association that stores one film. The same seed and number, the same bytes.

What is broken: the A-ASSOCIATE-RQ and its items, P-DATA-TF and its PDVs, the command set, the order of fragments, and PDUs
that come at a wrong moment. PS3.8 section 9.3 has the forms, PS3.7 annex D.3 the user information.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from raw_peer import CR, EXPLICIT, part10_dataset

RELEASE_RQ = struct.pack(">BBLL", 0x05, 0, 4, 0)
ABORT = struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 0, 0)
_LENGTHS = (0, 1, 2, 3, 5, 6, 7, 127, 255, 4096, 65535, 65536, 131072, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass
class Conversation:
    """What a peer says: its request (an answer is waited for when it `waits`), then everything else in one breath.

    `film`: the dataset that must be on disk when the C-STORE is answered with 0000; None when the mutation touched it.
    """

    number: int
    sop_instance_uid: str
    film: bytes | None
    items: list[tuple[int, bytes]]
    user: list[tuple[int, bytes]]
    command: list[tuple[int, bytes]]
    pdvs: list[list[tuple[int, int, bytes]]] = field(default_factory=list)  # per PDU: context id, control header, data
    request: bytes = b""
    rest: bytes = b""
    waits: bool = True
    releases: bool = True
    version: int = 1  # of the protocol
    how: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"conversation {self.number}: {' + '.join(self.how)}"


def conversation(seed: int, number: int) -> Conversation:
    """Mutant `number` of `seed`."""
    chance = random.Random(f"{seed}/pdu/{number}")
    uid = f"1.2.826.0.1.3680043.8.499.{seed}.{number}"
    film = part10_dataset(uid) + bytes(chance.randrange(200) * 2)
    one = Conversation(number, uid, film, _contexts((1, CR, (EXPLICIT,))), _user_items(), _store_command(uid))
    one.pdvs = [[(1, 0x03, _command(one.command))], [(1, 0x02, film)]]
    one.how = tuple(chance.choice(list(WAYS)) for _ in range(chance.choice((1, 1, 1, 2))))
    early = [WAYS[name] for name in one.how if name not in LATE]
    late = [WAYS[name] for name in one.how if name in LATE]
    for way in early:
        if one.user and one.items:  # the way before may have left nothing to break
            way(one, chance)
    one.request, one.rest = _associate(one.items, one.user, one.version), b"".join(_data(pdvs) for pdvs in one.pdvs)
    for way in late:
        way(one, chance)
    if one.releases:
        one.rest += RELEASE_RQ
    return one


# -- the request ------------------------------------------------------------------------------------------------------


def _item_types(one: Conversation, chance: random.Random) -> None:
    at = chance.randrange(len(one.items))
    one.items[at] = (chance.choice((0x00, 0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x7F, 0xFF)), one.items[at][1])


def _item_order(one: Conversation, chance: random.Random) -> None:
    one.items += [chance.choice(one.items) for _ in range(chance.randint(0, 3))]
    chance.shuffle(one.items)


def _items_missing(one: Conversation, chance: random.Random) -> None:
    del one.items[chance.randrange(len(one.items))]


def _context_ids(one: Conversation, chance: random.Random) -> None:
    ids = chance.choice(([0], [2], [255], [1, 1], [1, 3, 1], [1, 2, 3], list(range(1, 256, 2)), list(range(256)), [1] * 140))
    one.items[:] = _contexts(*((n, CR, (EXPLICIT,)) for n in ids))


def _context_content(one: Conversation, chance: random.Random) -> None:
    """Abstract and transfer syntaxes: none, several, no UIDs, very long ones, very many."""
    names = ("", "1.2.3", "x" * 300, "1." * 40, "\0\0", CR, "1.2.840.10008.1.1", "../../x", "é", "1.2.840.10008.5.1.4.1.1.2")
    syntaxes = [chance.choice((*names, EXPLICIT, "1.2.840.10008.1.2")) for _ in range(chance.choice((0, 1, 2, 40, 2000)))]
    contexts = [(2 * n + 1, chance.choice(names), tuple(syntaxes)) for n in range(chance.choice((1, 1, 2)))]
    one.items[:] = _contexts(*contexts)


def _titles(one: Conversation, chance: random.Random) -> None:
    bad = (
        b"\0" * 16,
        b" " * 16,
        b"\xff" * 16,
        b"MODALITY\\PTXSEG ",
        b"PTXSEG\r\n[error] ",
        b"'; DROP TABLE --",
        b"../../../../../x",
    )
    calling, called = chance.choice((*bad, b"MODALITY".ljust(16))), chance.choice((*bad, b"PTXSEG".ljust(16)))
    one.user.append((-1, called + calling))


def _user_lengths(one: Conversation, chance: random.Random) -> None:
    at = chance.randrange(len(one.user))
    one.user[at] = (one.user[at][0], chance.choice((b"", b"\0", b"\xff" * 4, b"1" * 65, b"1" * 2000, one.user[at][1] + b"\0")))


def _max_length(one: Conversation, chance: random.Random) -> None:
    one.user[0] = (0x51, struct.pack(">L", chance.choice((0, 1, 6, 7, 12, 13, 127, 0xFFFFFFFF))))


def _roles(one: Conversation, chance: random.Random) -> None:
    """SCP/SCU role selection (PS3.7 D.3.3.4) with lies."""
    for _ in range(chance.choice((1, 2, 300))):
        uid = chance.choice((CR, "1.2.3", "", "x" * 70)).encode()
        length = chance.choice((len(uid), len(uid), 0, 65535))
        one.user.append((0x54, struct.pack(">H", length) + uid + bytes((chance.randrange(256), chance.randrange(256)))))


def _extended(one: Conversation, chance: random.Random) -> None:
    """SOP class extended and common extended negotiation, asynchronous operations, user identity (PS3.7 D.3.3)."""
    for _ in range(chance.randint(1, 4)):
        length = chance.choice((0, 1, len(CR), 65535))
        body = struct.pack(">H", length) + CR.encode() + chance.randbytes(chance.choice((0, 1, 7, 500)))
        match chance.randrange(4):
            case 0:
                one.user.append((0x56, body))
            case 1:
                one.user.append((0x57, body + struct.pack(">H", chance.choice(_LENGTHS[:11])) + CR.encode()))
            case 2:
                one.user.append(
                    (0x53, struct.pack(">HH", chance.randrange(65536), chance.randrange(65536))[: chance.choice((1, 4))])
                )
            case 3:
                kind, name = chance.randrange(8), chance.choice((b"", b"user", b"\xff" * 300))
                identity = struct.pack(">BBH", kind, chance.randrange(2), chance.choice((len(name), 0, 9999))) + name
                one.user.append((0x58, identity + struct.pack(">H", chance.choice((0, 3, 65535))) + b"pwd"))


def _user_types(one: Conversation, chance: random.Random) -> None:
    at = chance.randrange(len(one.user))
    one.user[at] = (chance.choice((0x00, 0x10, 0x50, 0x51, 0x52, 0x55, 0x59, 0x5A, 0xFF)), one.user[at][1])


def _no_user_items(one: Conversation, chance: random.Random) -> None:
    one.user[:] = [] if chance.random() < 0.5 else one.user * 200


def _unknown_items(one: Conversation, chance: random.Random) -> None:
    """Sound (PS3.8 9.3.1: skipped), among the items and in the user information."""
    for items, kinds in ((one.items, (0x00, 0x22, 0x77, 0xFF)), (one.user, (0x00, 0x5F, 0x7A, 0xFF))):
        for _ in range(chance.randint(0, 3)):
            at = chance.randint(1, len(items))
            items.insert(at, (chance.choice(kinds), chance.randbytes(chance.choice((0, 1, 4, 300)))))


def _protocol_version(one: Conversation, chance: random.Random) -> None:
    """Sound where bit 0 is set (PS3.8 9.3.2)."""
    one.version = chance.randrange(65536)


def _padding(one: Conversation, chance: random.Random) -> None:
    """Sound: titles, UIDs and names that end in NULs or blanks."""
    pad = chance.choice((b"\0", b" "))
    one.user.append((-1, b"PTXSEG".ljust(16, pad) + b"MODALITY".ljust(16, pad)))
    one.user[:] = [(kind, body + (pad if kind in (0x52, 0x55) else b"")) for kind, body in one.user]
    padded = pad.decode()
    one.items[:] = _contexts((1, CR + padded, (EXPLICIT + padded,)))


def _names(one: Conversation, chance: random.Random) -> None:
    """Sound: what a peer calls its implementation is its own affair."""
    name = chance.choice((b"", b"ACME-STORE-SCU-12.3.45", "Gerät".encode("latin-1"), b"A\n[error] x", b"\xff" * 300, b"\0A"))
    one.user[1:] = [(0x52, chance.choice((b"1.2.3", b"", b"ACME", b"1." * 40 + b"1"))), (0x55, name)]


def _even_ids(one: Conversation, chance: random.Random) -> None:
    """Against PS3.8 9.3.2.2, and taken: it is plain what is meant."""
    number = chance.randrange(0, 256, 2)
    one.items[:] = _contexts((number, CR, (EXPLICIT,)))
    for pdvs in one.pdvs:
        pdvs[:] = [(number if context == 1 else context, control, data) for context, control, data in pdvs]


# -- the film on the wire -------------------------------------------------------------------------------------------


def _refragmented(one: Conversation, chance: random.Random) -> None:
    """Sound, and seldom seen: many small PDVs, several to a PDU, command and data in one PDU."""
    command, data = _command(one.command), one.film or b""
    pdvs = _split(command, 0x01, 0x03, chance) + _split(data, 0x00, 0x02, chance)
    one.pdvs = [[]]
    for pdv in pdvs:
        one.pdvs[-1].append(pdv)
        if chance.random() < 0.3:
            one.pdvs.append([])
    one.pdvs = [pdvs for pdvs in one.pdvs if pdvs]


def _pdv_contexts(one: Conversation, chance: random.Random) -> None:
    one.film = None
    for pdvs in one.pdvs:
        pdvs[:] = [(chance.choice((context, 0, 2, 3, 255)), control, data) for context, control, data in pdvs]


def _pdv_controls(one: Conversation, chance: random.Random) -> None:
    one.film = None
    for pdvs in one.pdvs:
        pdvs[:] = [(context, chance.choice((control, 0, 1, 2, 3, 4, 0x80, 0xFF)), data) for context, control, data in pdvs]


def _fragment_order(one: Conversation, chance: random.Random) -> None:
    """Data before its command, two commands, one film in another, a message that never ends."""
    one.film = None
    flat = [pdv for pdvs in one.pdvs for pdv in pdvs]
    extra = flat and [chance.choice(flat) for _ in range(chance.randint(0, 4))]
    flat = flat[:: chance.choice((1, -1))] + extra
    chance.shuffle(flat)
    one.pdvs = [[pdv] for pdv in flat]


def _empty_pdvs(one: Conversation, chance: random.Random) -> None:
    one.film = None
    one.pdvs.insert(
        chance.randrange(len(one.pdvs) + 1),
        chance.choice(([], [(1, 0, b"")] * chance.choice((1, 500)), [(1, 3, b"")], [(1, 2, b"")])),
    )


def _command_values(one: Conversation, chance: random.Random) -> None:
    """Every element of the command set may be absent, twice there, or hold what it must not."""
    one.film = None
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(one.command))
        tag, value = one.command[at]
        bad = (
            b"",
            b"\0",
            b"\0\0",
            b"\xff\xff",
            b"\x01\x00",
            b"../../x\0",
            b"1." + b"2" * 90,
            b"1.2.\xc3\xa9",
            b"1\0" * 40,
            value * 2,
            b"x" * 3000,
        )
        one.command[at] = (chance.choice((tag, tag, tag, 0x0900, 0x0001, 0xFFFF)), chance.choice(bad))
        if chance.random() < 0.3:
            del one.command[chance.randrange(len(one.command))]
        if not one.command:
            break
    one.pdvs[:1] = [[(1, 0x03, _command(one.command))]]


def _other_commands(one: Conversation, chance: random.Random) -> None:
    """Everything but a C-STORE-RQ: C-GET, C-FIND, C-MOVE, C-ECHO, N-*, C-CANCEL, responses, and what is none."""
    one.film = None
    code = chance.choice(
        (0x0010, 0x0020, 0x0021, 0x0030, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150, 0x0FFF, 0x8001, 0x8030, 0xFFFF, 0)
    )
    one.command = [(tag, struct.pack("<H", code) if tag == 0x0100 else value) for tag, value in one.command]
    if chance.random() < 0.5:
        one.command.append(
            (
                chance.choice((0x0003, 0x1001, 0x0600, 0x0120, 0x1008, 0x1005, 0x1031)),
                chance.choice((b"1.2.3\0", b"\0\0", b"\xff" * 30)),
            )
        )
    one.pdvs[:1] = [[(1, 0x03, _command(sorted(one.command)))]]


def _command_bytes(one: Conversation, chance: random.Random) -> None:
    one.film = None
    data = bytearray(_command(one.command))
    for _ in range(chance.choice((1, 2, 8))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    one.pdvs[:1] = [[(1, 0x03, bytes(data[: chance.choice((len(data), len(data), len(data) // 2, 9))]))]]


def _same_film_again(one: Conversation, chance: random.Random) -> None:
    one.pdvs = one.pdvs * chance.choice((2, 3, 8))


def _no_dataset(one: Conversation, chance: random.Random) -> None:
    one.film = None
    one.pdvs = one.pdvs[:1] + ([] if chance.random() < 0.5 else [[(1, 0x02, b"")]])


# -- the line itself ------------------------------------------------------------------------------------------------


def _pdu_length(one: Conversation, chance: random.Random) -> None:
    one.film = None
    in_request = chance.random() < 0.5
    target = bytearray(one.request if in_request else one.rest)
    if len(target) > 20:
        struct.pack_into(">L", target, 2, chance.choice((*_LENGTHS, len(target) - 6 + chance.randint(-8, 8))))
    if in_request:
        one.request, one.waits = bytes(target), False
    else:
        one.rest = bytes(target)


def _inner_length(one: Conversation, chance: random.Random) -> None:
    """Of an item of the request or of a PDV: two or four bytes anywhere."""
    one.film = None
    if chance.random() < 0.5:
        data = bytearray(one.request)
        if len(data) > 80:
            struct.pack_into(">H", data, chance.randrange(74, len(data) - 2), chance.choice(_LENGTHS[:11]) & 0xFFFF)
        one.request = bytes(data)
    else:
        data = bytearray(one.rest)
        if len(data) > 10:
            struct.pack_into(">L", data, 6, chance.choice(_LENGTHS))
        one.rest = bytes(data)


def _random_bytes(one: Conversation, chance: random.Random) -> None:
    one.film = None
    request, rest = bytearray(one.request), bytearray(one.rest)
    target = chance.choice((request, rest))
    for _ in range(chance.randint(1, 8)):
        if target:
            target[chance.randrange(len(target))] = chance.randrange(256)
    one.request, one.rest = bytes(request), bytes(rest)


def _cut_short(one: Conversation, chance: random.Random) -> None:
    one.film = None
    one.releases = chance.random() < 0.5
    if chance.random() < 0.4:
        one.request, one.rest, one.waits = one.request[: chance.randrange(len(one.request) + 1)], b"", False
        one.releases = False
    else:
        one.rest = one.rest[: chance.randrange(len(one.rest) + 1)]


def _wrong_moment(one: Conversation, chance: random.Random) -> None:
    """A PDU of every kind, known or not, well formed or not, before the request, behind it, or in the middle of a film."""
    kind = chance.choice((0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x00, 0x08, 0x20, 0xFF))
    body = chance.choice((b"\0\0\0\0", b"", chance.randbytes(4), chance.randbytes(80), one.request[6:]))
    length = chance.choice((len(body), len(body), chance.choice(_LENGTHS)))
    pdu = struct.pack(">BBL", kind, 0, length) + body
    one.film = None
    match chance.randrange(4):
        case 0:
            one.request, one.waits = pdu + one.request, False
        case 1:
            one.request += pdu
        case 2:
            one.rest = pdu + one.rest
        case 3:
            cut = len(_data(one.pdvs[0])) if one.pdvs else 0
            one.rest = one.rest[:cut] + pdu + one.rest[cut:]


def _release_games(one: Conversation, chance: random.Random) -> None:
    """Release, and a film behind it; release twice; release with a length; abort and a film."""
    one.film = None
    pdu = chance.choice(
        (RELEASE_RQ, RELEASE_RQ * 2, struct.pack(">BBL", 5, 0, 100) + b"\0" * 100, struct.pack(">BBLL", 6, 0, 4, 0), ABORT)
    )
    one.rest = pdu + one.rest
    one.releases = chance.random() < 0.5


def _all_at_once(one: Conversation, chance: random.Random) -> None:
    """The film comes right behind the request: the peer does not wait to be let in."""
    one.waits = False


WAYS: dict[str, Callable[[Conversation, random.Random], None]] = {
    "item types": _item_types,
    "item order": _item_order,
    "items missing": _items_missing,
    "context ids": _context_ids,
    "context content": _context_content,
    "AE titles": _titles,
    "user item lengths": _user_lengths,
    "maximum length": _max_length,
    "roles": _roles,
    "extended negotiation": _extended,
    "user item types": _user_types,
    "user items absent or many": _no_user_items,
    "unknown items": _unknown_items,
    "protocol version": _protocol_version,
    "padding": _padding,
    "names": _names,
    "even ids": _even_ids,
    "refragmented": _refragmented,
    "PDV contexts": _pdv_contexts,
    "PDV controls": _pdv_controls,
    "fragment order": _fragment_order,
    "empty PDVs": _empty_pdvs,
    "command values": _command_values,
    "other commands": _other_commands,
    "command bytes": _command_bytes,
    "same film again": _same_film_again,
    "no dataset": _no_dataset,
    "PDU length": _pdu_length,
    "inner length": _inner_length,
    "random bytes": _random_bytes,
    "cut short": _cut_short,
    "wrong moment": _wrong_moment,
    "release games": _release_games,
    "all at once": _all_at_once,
}
LATE = {"PDU length", "inner length", "random bytes", "cut short", "wrong moment", "release games", "all at once"}


# -- bytes ------------------------------------------------------------------------------------------------------------


def _sub_item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body) & 0xFFFF) + body


def _contexts(*contexts: tuple[int, str, tuple[str, ...]]) -> list[tuple[int, bytes]]:
    """The variable items of a request but the user information: application context, presentation contexts."""
    items = [(0x10, b"1.2.840.10008.3.1.1.1")]
    for number, abstract, syntaxes in contexts:
        body = bytes((number & 0xFF, 0, 0, 0)) + _sub_item(0x30, abstract.encode())
        items.append((0x20, body + b"".join(_sub_item(0x40, syntax.encode()) for syntax in syntaxes)))
    return items


def _user_items() -> list[tuple[int, bytes]]:
    return [(0x51, struct.pack(">L", 16384)), (0x52, b"1.2.3"), (0x55, b"HOSTILE_1")]


def _associate(items: list[tuple[int, bytes]], user: list[tuple[int, bytes]], version: int) -> bytes:
    titles = next((body for kind, body in user if kind == -1), b"PTXSEG".ljust(16) + b"MODALITY".ljust(16))
    information = b"".join(_sub_item(kind, body) for kind, body in user if kind >= 0)
    body = struct.pack(">HH", version, 0) + titles + bytes(32)
    body += b"".join(_sub_item(kind, content) for kind, content in items) + _sub_item(0x50, information)
    return struct.pack(">BBL", 0x01, 0, len(body)) + body


def _store_command(uid: str) -> list[tuple[int, bytes]]:
    """Elements of group 0000: a C-STORE-RQ (PS3.7 table 9.3-1)."""
    return [
        (0x0002, CR.encode() + b"\0" * (len(CR) % 2)),
        (0x0100, struct.pack("<H", 0x0001)),
        (0x0110, struct.pack("<H", 7)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 0x0001)),
        (0x1000, uid.encode() + b"\0" * (len(uid) % 2)),
    ]


def _command(elements: list[tuple[int, bytes]]) -> bytes:
    data = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(data)) + data


def _data(pdvs: list[tuple[int, int, bytes]]) -> bytes:
    body = b"".join(struct.pack(">LBB", len(data) + 2, context, control) + data for context, control, data in pdvs)
    return struct.pack(">BBL", 0x04, 0, len(body)) + body


def _split(data: bytes, more: int, last: int, chance: random.Random) -> list[tuple[int, int, bytes]]:
    size = chance.choice((2, 7, 50, 1000))
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    return [(1, last if n == len(parts) - 1 else more, part) for n, part in enumerate(parts)]
