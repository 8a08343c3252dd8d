"""Broken films: seeded mutants of sound ones. The same seed and number give the same bytes.

A mutant is what a peer may put into a C-STORE: the bytes of a dataset under a transfer syntax. `mutant` breaks one of the
films of `film_parts.bases` in one to three ways. This file is long because it is a list: one short function a way.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from film_parts import (
    LONG,
    PIXEL_DATA,
    SOP_INSTANCE_UID,
    SYNTAXES,
    UNDEFINED,
    Element,
    Film,
    element,
    encoded,
    even,
    item,
    nested,
)
from pydicom.uid import ImplicitVRLittleEndian


@dataclass(frozen=True)
class Mutant:
    number: int
    base: str
    how: tuple[str, ...]
    syntax: str
    sop_class_uid: str
    sop_instance_uid: str  # as the command says it
    dataset: bytes

    def __str__(self) -> str:
        return f"mutant {self.number}: {self.base}, {' + '.join(self.how)}"


def mutant(films: dict[str, Film], seed: int, number: int) -> Mutant:
    """Mutant `number` of `seed`."""
    chance = random.Random(f"{seed}/object/{number}")
    base = chance.choice(list(films.values()))
    film = replace(
        base,
        elements=[replace(one) for one in base.elements],
        fragments=None if base.fragments is None else list(base.fragments),
        item_tags={},
        item_lengths={},
        damage=[],
    )
    uid = f"1.2.826.0.1.3680043.8.498.{seed}.{number}"
    film.put(SOP_INSTANCE_UID, b"UI", even(uid.encode(), b"\0"))
    how = tuple(_way(film, chance) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    for name in how:
        (WAYS | STREAM_WAYS)[name](film, chance)
    return Mutant(number, film.kind, how, str(film.syntax), film.sop_class_uid, uid, encoded(film))


def _way(film: Film, chance: random.Random) -> str:
    """Every other damage of a compressed film is one of its stream."""
    ways = STREAM_WAYS if film.fragments is not None and chance.random() < 0.5 else WAYS
    return chance.choice(list(ways))


# -- ways to break a film -----------------------------------------------------------------------------------------

_NUMBERS = (0, 1, 2, 3, 7, 31, 32, 64, 127, 128, 255, 256, 4095, 16384, 32767, 32768, 65500, 65535)
_COUNTS = {
    "Rows": 0x00280010, "Columns": 0x00280011, "SamplesPerPixel": 0x00280002, "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101, "HighBit": 0x00280102, "PixelRepresentation": 0x00280103, "PlanarConfiguration": 0x00280006,
}  # fmt: skip
_TEXTS = (
    b"", b"\\", b"\\\\\\\\", b"\0", b" ", b"\xff\xfe", b"\x1b$B@\x1b(B", b"\x1b$)C\xb1\xe8", b"\x1b", b"1e999", b"nan", b"-inf",
    b"9" * 400, b"-1", b"0", b"\xc8\xe2\xe0\xed", "Ж^東".encode(), b"\xed\xa0\x80", b"A" * 70000, b"../../../etc/passwd",
    b"%s%s%n", b"\r\n[error] all is lost", b"2147483648", b"4294967295", b"1\\2\\3\\4\\5\\6\\7", b"1.2..3",
    b"." * 64, b"CHEST" * 40,
)  # fmt: skip
_CHARSETS = (
    b"ISO_IR 192", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO_IR 999", b"utf-8", b"latin-1\\ISO 2022 IR 13\\GBK", b"\\\\\\",
    b"rot13", b"punycode", b"idna", b"undefined", b"unicode_escape", b"zlib", b"\xff\xff",
    b"ISO 2022 IR 58\\ISO 2022 IR 58", b"GB18030",
)  # fmt: skip
_FRAMES = (b"0", b"1", b"2", b"-1", b"2147483647", b"2147483648", b"4294967297", b"1.0", b"1e9", b"1\\2", b"x")
_VRS = (
    *sorted(LONG),
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST",
    b"TM", b"UI", b"UL", b"US", b"  ", b"\0\0", b"??", b"ox",
)  # fmt: skip
_PHOTOMETRICS = (
    b"MONOCHROME1", b"MONOCHROME2", b"RGB", b"YBR_FULL", b"YBR_FULL_422", b"YBR_RCT", b"YBR_ICT", b"PALETTE COLOR",
    b"ARGB", b"",
)  # fmt: skip


def _some(film: Film, chance: random.Random) -> Element:
    return chance.choice(film.elements) if film.elements else Element(0, b"UN", b"")


def _delete(film: Film, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        if film.elements:
            film.elements.remove(_some(film, chance))


def _duplicate(film: Film, chance: random.Random) -> None:
    one = replace(_some(film, chance))
    if chance.random() < 0.5:
        one.value = one.value[::-1]
    film.elements.insert(chance.randrange(len(film.elements) + 1), one)


def _swap_vr(film: Film, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 3, 10))):
        _some(film, chance).vr = chance.choice(_VRS)


def _lie_about_length(film: Film, chance: random.Random) -> None:
    one = _some(film, chance)
    true = len(one.value)
    near = (0, 1, 2, true + 1, true + 2, max(0, true - 1), max(0, true - 2), true * 2)
    far = (0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFD, 0xFFFFFFFE, UNDEFINED, chance.randrange(1 << 16))
    one.length = chance.choice((*near, *far))


def _undefined_length(film: Film, chance: random.Random) -> None:
    one = _some(film, chance)
    one.vr, one.length = chance.choice((one.vr, b"UN", b"SQ", b"OB")), UNDEFINED
    if chance.random() < 0.5:
        one.value = item(one.value) + bytes.fromhex("feffdde000000000")


def _junk_values(film: Film, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 5, 40))):
        one = _some(film, chance)
        if one.tag != PIXEL_DATA:
            one.value = even(chance.choice(_TEXTS))


def _flip_in_values(film: Film, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 6)):
        one = _some(film, chance)
        if one.value:
            one.value = _flipped(one.value, chance)


def _absurd_numbers(film: Film, chance: random.Random) -> None:
    for name in chance.sample(list(_COUNTS), chance.choice((1, 1, 2, 3))):
        film.put(_COUNTS[name], b"US", struct.pack("<H", chance.choice(_NUMBERS)))
    if chance.random() < 0.2:  # several values where one belongs
        film.put(_COUNTS["Rows"], b"US", struct.pack("<3H", 168, 65535, 0))


def _many_frames(film: Film, chance: random.Random) -> None:
    film.put(0x00280008, b"IS", even(chance.choice(_FRAMES)))
    if chance.random() < 0.3:
        film.put(0x7FE00001, b"OV", chance.randbytes(8 * chance.randint(0, 3)))  # Extended Offset Table
        film.put(0x7FE00002, b"OV", chance.randbytes(8 * chance.randint(0, 3)))


def _photometric(film: Film, chance: random.Random) -> None:
    film.put(0x00280004, b"CS", even(chance.choice(_PHOTOMETRICS)))
    if chance.random() < 0.5:
        film.put(0x00280002, b"US", struct.pack("<H", 3))


def _charset(film: Film, chance: random.Random) -> None:
    film.put(0x00080005, b"CS", even(chance.choice(_CHARSETS)))
    for tag in (0x00081030, 0x0008103E, 0x00100010, 0x00081070, 0x00180015):
        if chance.random() < 0.5:
            film.put(tag, b"LO", even(chance.choice(_TEXTS)))


def _nest(film: Film, chance: random.Random) -> None:
    depth, undefined = chance.choice((2, 50, 300, 900, 2000)), chance.random() < 0.5
    tag = chance.choice((0x00081140, 0x00082218, 0x00400260, 0x00102202, 0x0018A001, 0x00540220, 0x00283000, 0x00091001))
    film.put(tag, b"SQ", nested(depth, tag, undefined=undefined), UNDEFINED if undefined else None)


def _group_lengths(film: Film, chance: random.Random) -> None:
    for group in chance.sample((0x0002, 0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x7FE0), chance.randint(1, 5)):
        film.put(group << 16, b"UL", struct.pack("<L", chance.choice((0, 1, 8, 0x7FFFFFFF, UNDEFINED))))


def _shuffle(film: Film, chance: random.Random) -> None:
    chance.shuffle(film.elements)


def _tables(film: Film, chance: random.Random) -> None:
    """Look-up tables, windows and rescales that make no sense."""
    numbers = [chance.choice(_NUMBERS) for _ in range(chance.choice((1, 3, 3, 3, 4)))]
    descriptor = Element(0x00283002, b"US", struct.pack(f"<{len(numbers)}H", *numbers))
    data = Element(0x00283006, chance.choice((b"US", b"OW", b"SS", b"UN", b"LO")), chance.randbytes(2 * chance.randint(0, 600)))
    table = b"".join(element(one, film.syntax == ImplicitVRLittleEndian) for one in (descriptor, data))
    film.put(chance.choice((0x00283000, 0x00283010)), b"SQ", item(table))
    film.put(0x00281053, b"DS", even(chance.choice((b"0", b"1e308", b"-1", b"nan", b"1e-300", b"inf", b"1\\2"))))
    film.put(0x00281051, b"DS", even(chance.choice((b"0", b"1e-320", b"-5", b"1e300", b"nan", b"3\\4"))))
    film.put(0x00281050, b"DS", even(chance.choice((b"0", b"1e308", b"-1e308", b"inf", b"7"))))


def _geometry(film: Film, chance: random.Random) -> None:
    value = even(chance.choice((b"0\\0", b"nan\\nan", b"1e-30\\1e30", b"-1\\-1", b"1", b"1\\2\\3", b"0.0100\\10", b"inf\\1")))
    film.put(chance.choice((0x00280030, 0x00181164)), b"DS", value)
    film.put(0x00200020, b"CS", even(chance.choice((b"", b"L", b"F\\L", b"R\\H", b"X\\Y", b"\\", b"\xff\\\xff", b"LFP\\HAR"))))
    film.put(0x00280120, chance.choice((b"US", b"SS", b"UN", b"LO")), struct.pack("<H", chance.choice(_NUMBERS)))
    if chance.random() < 0.5:
        film.put(0x00280121, b"US", struct.pack("<H", chance.choice(_NUMBERS)))


def _overlays(film: Film, chance: random.Random) -> None:
    group = 0x60000000 + (chance.choice((0, 2, 0x1E, 0xFF)) << 16)
    for number in (0x0010, 0x0011, 0x0100, 0x0102):
        film.put(group | number, b"US", struct.pack("<H", chance.choice(_NUMBERS)))
    if chance.random() < 0.5:
        film.put(group | 0x3000, b"OW", chance.randbytes(2 * chance.randint(0, 50)))


def _names(film: Film, chance: random.Random) -> None:
    """UIDs that are none, or another film's."""
    tag = chance.choice((0x00080016, SOP_INSTANCE_UID, 0x0020000D, 0x0020000E, 0x00200052))
    film.put(
        tag,
        b"UI",
        even(chance.choice((b"", b"1.2.3", b"../../x", b"1." + b"2" * 80, b"1.2.\xc3\xa9", b"\0\0", b"1.2\\1.3")), b"\0"),
    )


def _private(film: Film, chance: random.Random) -> None:
    film.put(0x00090010, b"LO", even(chance.choice(_TEXTS)[:64]))
    film.put(0x00091000 | chance.randrange(256), chance.choice(_VRS), chance.randbytes(2 * chance.randint(0, 60)))


def _other_syntax(film: Film, chance: random.Random) -> None:
    film.damage.append(lambda data: None)  # what is written stays as it is: only the claim changes
    kept = encoded(film)
    film.damage[:] = [lambda data: data.__setitem__(slice(None), kept)]
    film.syntax = chance.choice(SYNTAXES)


def _flip_bytes(film: Film, chance: random.Random) -> None:
    rounds, where, noise = chance.randint(1, 12), chance.choice((64, 600, 3000, 1 << 30)), random.Random(chance.random())

    def flip(data: bytearray) -> None:
        for _ in range(rounds):
            data[noise.randrange(min(where, len(data)))] ^= 1 << noise.randrange(8)

    film.damage.append(flip)


def _cut_off(film: Film, chance: random.Random) -> None:
    part = chance.choice((0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999)) + chance.random() * 0.01
    film.damage.append(lambda data: data.__delitem__(slice(int(len(data) * min(part, 1)), None)))


def _move_bytes(film: Film, chance: random.Random) -> None:
    at, size, target, keep = chance.random(), chance.randint(1, 400), chance.random(), chance.random() < 0.5

    def move(data: bytearray) -> None:
        start = int(at * len(data))
        block = data[start : start + size]
        if not keep:
            del data[start : start + size]
        data[int(target * len(data)) : int(target * len(data))] = block

    film.damage.append(move)


def _add_bytes(film: Film, chance: random.Random) -> None:
    tail = chance.choice((b"\0" * 100, chance.randbytes(333), bytes.fromhex("feff00e0ffffffff"), b"\xff" * 50))
    film.damage.append(lambda data: data.extend(tail))


WAYS: dict[str, Callable[[Film, random.Random], None]] = {
    "elements deleted": _delete,
    "element duplicated": _duplicate,
    "VR swapped": _swap_vr,
    "length is a lie": _lie_about_length,
    "undefined length": _undefined_length,
    "junk values": _junk_values,
    "bits flipped in values": _flip_in_values,
    "absurd numbers": _absurd_numbers,
    "many frames": _many_frames,
    "photometric": _photometric,
    "character set": _charset,
    "nested sequences": _nest,
    "group lengths": _group_lengths,
    "order": _shuffle,
    "tables": _tables,
    "geometry": _geometry,
    "overlays": _overlays,
    "UIDs": _names,
    "private": _private,
    "other syntax": _other_syntax,
    "bits flipped": _flip_bytes,
    "cut off": _cut_off,
    "bytes moved": _move_bytes,
    "bytes added": _add_bytes,
}


# -- ways to break a compressed stream ------------------------------------------------------------------------------


def _stream(film: Film) -> int:
    """Which fragment is the longest; at least one is there."""
    assert film.fragments is not None
    if not film.fragments:
        film.fragments.append(b"")
    return max(range(len(film.fragments)), key=lambda n: len(film.fragments[n]))  # type: ignore[index]


def _stream_head(film: Film, chance: random.Random) -> None:
    at = _stream(film)
    stream = bytearray(film.fragments[at])  # type: ignore[index]
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if stream:
            stream[chance.randrange(min(len(stream), 160))] = chance.choice(
                (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256))
            )
    film.fragments[at] = bytes(stream)  # type: ignore[index]


def _stream_size(film: Film, chance: random.Random) -> None:
    """The frame header names another size; sometimes the film's header agrees."""
    at = _stream(film)
    stream = bytearray(film.fragments[at])  # type: ignore[index]
    rows, columns = chance.choice(_NUMBERS), chance.choice(_NUMBERS)
    frame = next((n for n in range(len(stream) - 9) if stream[n] == 0xFF and stream[n + 1] in (0xC0, 0xC1, 0xC3, 0xF7)), None)
    size = stream.find(b"\xff\x4f\xff\x51")
    if size >= 0:
        struct.pack_into(">LL", stream, size + 8, columns, rows)
        if chance.random() < 0.5:
            struct.pack_into(
                ">LL", stream, size + 24, chance.choice((0, 1, columns, 0xFFFFFFFF)), chance.choice((1, rows, 0xFFFFFFFF))
            )
    elif frame is not None:
        struct.pack_into(">HH", stream, frame + 5, rows, columns)
    film.fragments[at] = bytes(stream)  # type: ignore[index]
    if chance.random() < 0.7:
        film.put(_COUNTS["Rows"], b"US", struct.pack("<H", rows))
        film.put(_COUNTS["Columns"], b"US", struct.pack("<H", columns))


def _stream_body(film: Film, chance: random.Random) -> None:
    at = _stream(film)
    stream = bytearray(film.fragments[at])  # type: ignore[index]
    for _ in range(chance.choice((1, 1, 3, 10, 100))):
        if stream:
            stream[chance.randrange(len(stream))] = chance.randrange(256)
    film.fragments[at] = bytes(stream)  # type: ignore[index]


def _stream_cut(film: Film, chance: random.Random) -> None:
    at = _stream(film)
    stream = film.fragments[at]  # type: ignore[index]
    start, end = sorted(chance.randrange(len(stream) + 1) for _ in range(2))
    film.fragments[at] = chance.choice(
        (stream[:start], stream[start:], stream[:start] + stream[end:], stream[:end] + stream[start:])
    )  # type: ignore[index]


def _run_lengths(film: Film, chance: random.Random) -> None:
    """Number of segments and their offsets (PS3.5 annex G); other streams get a bad head."""
    at = _stream(film)
    stream = bytearray(film.fragments[at])  # type: ignore[index]
    if len(stream) < 64:
        return
    for _ in range(chance.choice((1, 2, 4))):
        value = chance.choice((0, 1, 2, 15, 16, 64, 65, len(stream) - 1, len(stream), len(stream) + 1, 0x7FFFFFFF, UNDEFINED))
        struct.pack_into("<L", stream, 4 * chance.randrange(6), value)
    film.fragments[at] = bytes(stream)  # type: ignore[index]


def _fragments(film: Film, chance: random.Random) -> None:
    """Offset table, number of fragments, their lengths and tags, and the end of it all."""
    assert film.fragments is not None
    at = _stream(film)
    match chance.randrange(8):
        case 0:
            film.fragments[0] = struct.pack(
                f"<{(n := chance.randint(1, 9))}L", *(chance.choice((0, 4, 99999, UNDEFINED)) for _ in range(n))
            )
        case 1:
            stream, cut = film.fragments[at], chance.randrange(len(film.fragments[at]) + 1)
            film.fragments[at : at + 1] = [stream[:cut], stream[cut:]]
        case 2:
            film.fragments[chance.randrange(len(film.fragments) + 1) : 0] = [b""] * chance.choice((1, 100, 20000))
        case 3:
            film.has_delimiter = False
        case 4:
            film.item_lengths[at] = chance.choice(
                (0, 1, len(film.fragments[at]) - 1, len(film.fragments[at]) + 8, 0xFFFFFFFE, UNDEFINED)
            )
        case 5:
            film.item_tags[chance.randrange(len(film.fragments))] = chance.choice(
                (bytes.fromhex("feffdde0"), bytes.fromhex("e07f1000"), b"\0\0\0\0")
            )
        case 6:
            film.fragments.extend(film.fragments[at:] * chance.choice((1, 3)))
        case 7:
            film.fragments.clear()


STREAM_WAYS: dict[str, Callable[[Film, random.Random], None]] = {
    "stream: head": _stream_head,
    "stream: head again": _stream_head,  # twice as often
    "stream: size": _stream_size,
    "stream: body": _stream_body,
    "stream: cut": _stream_cut,
    "stream: run lengths": _run_lengths,
    "fragments": _fragments,
}


def _flipped(value: bytes, chance: random.Random) -> bytes:
    data = bytearray(value)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)
