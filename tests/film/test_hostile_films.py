"""Films made to do harm: each is stored as it is, answered with its own code, and costs neither memory nor a process."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from film_parts import PIXEL_DATA, SOP_INSTANCE_UID, UNDEFINED, Film, bases, element, encoded, nested
from hostile_traffic import QUIET, answer_all, store_all
from mutants import Mutant
from raw_peer import ASSOCIATE_AC, RawPeer, associate_rq, c_store
from receiver_node import Node, eventually, film, running, send
from tiny_network import tiny_artifact

from train.export.onnx_graph import add_graphs

MIB = 2**20
MOST_MB = 160  # what one film may cost on top of the loaded model; each of these asks for 200 MB to 9 TB
ROWS, COLUMNS, FRAMES = 0x00280010, 0x00280011, 0x00280008


def copied(base: Film) -> Film:
    return replace(
        base,
        elements=[replace(one) for one in base.elements],
        fragments=None if base.fragments is None else list(base.fragments),
        damage=[],
    )


def sized(base: Film, rows: int, columns: int) -> Film:
    base.put(ROWS, b"US", struct.pack("<H", rows))
    base.put(COLUMNS, b"US", struct.pack("<H", columns))
    return base


def restreamed(base: Film, old: bytes, offset: int, new: bytes) -> Film:
    """`new` in the place that is `offset` bytes behind the first `old` of the compressed stream."""
    assert base.fragments is not None
    at = base.fragments[1].index(old) + offset
    base.fragments[1] = base.fragments[1][:at] + new + base.fragments[1][at + len(new) :]
    return base


def with_element(base: Film, tag: int, vr: bytes, value: bytes, length: int | None = None) -> Film:
    base.put(tag, vr, value, length)
    return base


def bomb(base: Film) -> Film:
    """640 MB of nothing in 0.65 MB."""
    squeeze = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    film = b"".join(element(one, False) for one in base.elements if one.tag < 0x00091001)
    deflated = squeeze.compress(film + struct.pack("<HH2sHL", 0x0009, 0x1001, b"UN", 0, 640 * MIB))
    deflated += b"".join(squeeze.compress(bytes(MIB)) for _ in range(640)) + squeeze.flush()
    assert len(deflated) < 0.7 * MIB
    base.damage.append(lambda data: data.__setitem__(slice(None), deflated))
    return base


def without_an_end(base: Film) -> Film:
    base.has_delimiter = False
    return base


def followed_by(base: Film, junk: bytes) -> Film:
    base.damage.append(lambda data: data.extend(junk))
    return base


def cut(base: Film, share: float) -> Film:
    base.damage.append(lambda data: data.__delitem__(slice(int(share * len(data)), None)))
    return base


SOF, SIZ = b"\xff\xc3", b"\xff\x4f\xff\x51"
FILMS = {
    "deflate bomb": ("deflated", bomb, {"absurd-size"}),
    "65,535 x 65,535": ("explicit", lambda f: sized(f, 65535, 65535), {"too-large"}),
    "9,999 x 9,999": ("explicit", lambda f: sized(f, 9999, 9999), {"truncated-pixel-data"}),
    "9,999 x 9,999 of RLE": ("RLE", lambda f: sized(f, 9999, 9999), {"absurd-size"}),
    "JPEG of another size": (
        "JPEG lossless", lambda f: restreamed(f, SOF, 5, struct.pack(">HH", 65535, 65535)), {"undecodable-pixel-data"}),
    "JPEG of 9,999 x 9,999": (
        "JPEG lossless", lambda f: sized(restreamed(f, SOF, 5, struct.pack(">HH", 9999, 9999)), 9999, 9999), {"absurd-size"}),
    "JPEG 2000 of another size": (
        "JPEG 2000", lambda f: restreamed(f, SIZ, 8, struct.pack(">LL", 0x7FFFFFFF, 0x7FFFFFFF)), {"undecodable-pixel-data"}),
    "JPEG 2000 of 9,999 x 9,999": (
        "JPEG 2000", lambda f: sized(restreamed(f, SIZ, 8, struct.pack(">LL", 9999, 9999)), 9999, 9999), {"absurd-size"}),
    "JPEG 2000 in 24,192 tiles, one of them there": (
        "JPEG 2000", lambda f: restreamed(f, SIZ, 24, struct.pack(">LL", 1, 1)), {"undecodable-pixel-data"}),
    "RLE with false offsets": (
        "RLE", lambda f: restreamed(f,
        b"\x02\0\0\0", 4, struct.pack("<LL", 0x7FFFFFFF, UNDEFINED)), {"undecodable-pixel-data"}),
    "RLE of 2^32 segments": ("RLE", lambda f: restreamed(f, b"\x02\0\0\0", 0, b"\xff\xff\xff\xff"), {"undecodable-pixel-data"}),
    "JPEG without a delimiter": ("JPEG lossless", without_an_end, {None}),
    "RLE without a delimiter": ("RLE", without_an_end, {None}),
    "FF behind the pixels": ("explicit", lambda f: followed_by(f, b"\xff" * 992), {None}),
    "FF behind a JPEG 2000 stream": ("JPEG 2000", lambda f: followed_by(f, b"\xff" * 992), {None}),
    "a JPEG cut off": ("JPEG lossless", lambda f: cut(f, 0.7), {"truncated-pixel-data"}),
    "an RLE film cut off": ("RLE", lambda f: cut(f, 0.7), {"truncated-pixel-data"}),
    "pixels cut off": ("explicit", lambda f: cut(f, 0.7), {"truncated-pixel-data"}),
    "a header cut off": ("implicit", lambda f: cut(f, 0.0155), {"truncated-dataset"}),
    "2^31 frames": ("explicit", lambda f: with_element(f, FRAMES, b"IS", b"2147483648"), {"multi-frame"}),
    "2^31 frames of JPEG": ("JPEG lossless", lambda f: with_element(f, FRAMES, b"IS", b"2147483648"), {"multi-frame"}),
    "65,535 bits": ("explicit", lambda f: with_element(f, 0x00280100, b"US", b"\xff\xff"), {"bad-pixel-description"}),
    "a sequence 10,000 deep": (
        "explicit", lambda f: with_element(f, 0x0018A001, b"SQ", nested(10_000, 0x0018A001, undefined=True), UNDEFINED),
        {"not-dicom"}),
    "a sequence 4,000 deep, with lengths": (
        "implicit", lambda f: with_element(f, 0x0018A001,
        b"SQ", nested(4_000, 0x0018A001, undefined=False)), {None, "not-dicom"}),
    "length FFFFFFFE": (
        "explicit", lambda f: with_element(f, PIXEL_DATA, b"OW", bytes(100), 0xFFFFFFFE),
        {"truncated-pixel-data", "not-dicom"}),
    "length FFFFFFFE of a header element": (
        "implicit", lambda f: with_element(f, 0x00081030, b"LO", b"x " * 20, 0xFFFFFFFE), {"truncated-dataset"}),
    "another UID inside, with path characters": (
        "explicit", lambda f: with_element(f, SOP_INSTANCE_UID, b"UI", b"../../../../tmp/x\0"), {"uid-mismatch"}),
    "another UID inside, of 200 bytes": (
        "explicit", lambda f: with_element(f, SOP_INSTANCE_UID, b"UI", b"1." * 100), {"uid-mismatch"}),
    "another UID inside, not ASCII": (
        "explicit", lambda f: with_element(f, SOP_INSTANCE_UID, b"UI", "1.2.é/".encode() + b"\0"), {"uid-mismatch"}),
    "a study UID with path characters": (
        "explicit", lambda f: with_element(f, 0x0020000D, b"UI", b"../../../../tmp/x\0"), {"invalid-uid"}),
    "a series UID with NUL": ("explicit", lambda f: with_element(f, 0x0020000E, b"UI", b"1.2\0../x"), {"invalid-uid"}),
    "a transfer syntax inside": (
        "explicit", lambda f: with_element(f, 0x00020010, b"UI", b"1.2.840.10008.1.2.4.70"), {"not-dicom"}),
    "two values of Rows": ("explicit", lambda f: with_element(f, ROWS, b"US", struct.pack("<2H", 168, 9)), {None}),
    "a character set that is a codec": ("explicit", lambda f: with_element(f, 0x00080005, b"CS", b"zlib"), {None}),
}  # fmt: skip


def hostile_films(folder: Path) -> Iterator[Mutant]:
    sound = bases(folder)
    for number, (name, (base, change, _)) in enumerate(FILMS.items()):
        broken = copied(sound[base])
        uid = f"1.2.826.0.1.3680043.8.500.{number:04}"
        broken.put(SOP_INSTANCE_UID, b"UI", uid.encode() + b"\0" * (len(uid) % 2))
        broken = change(broken)
        yield Mutant(number, base, (name,), str(broken.syntax), broken.sop_class_uid, uid, encoded(broken))


def of_no_film(path: Path) -> bool:
    """Whether a file is one that every node has, films or not."""
    return path.name.startswith("ledger.sqlite") or path.parts[-3:] == ("spool", "lock", "associations")


def test_each_has_its_code_and_none_costs_memory_or_a_process(tmp_path: Path) -> None:
    """Result: nothing is allocated on the word of a header, no decoder falls, nothing is written outside the spool."""
    films = {one.sop_instance_uid: one for one in hostile_films(tmp_path)}
    add_graphs(tiny_artifact(tmp_path / "artifact", operating_points={"only": {
        "image_threshold": 0.0, "mask_threshold": 0.4, "min_area_mm2": 0, "min_area_px": 0}}))  # fmt: skip
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with running(tmp_path, **QUIET) as node:
        assert store_all(node, list(films.values())).answers == {"0000": len(films)}
        answers = answer_all(tmp_path)
        codes = {films[job.arrival.sop_instance_uid].how[0]: job.code for job in node.ledger.jobs(limit=1000)}
        assert node.ledger.store.integrity() == "ok"
        named = {node.spool.directory / path for path in node.ledger.paths()}
    assert not answers.crashes, {str(films[uid]): how for uid, how in answers.crashes.items()}
    assert {name: code for name, code in codes.items() if code not in FILMS[name][2]} == {}
    hungry = {str(films[uid]): mb for uid, mb in answers.peak_mb.items() if mb > MOST_MB}
    assert not hungry
    after = {path for path in tmp_path.rglob("*") if path.is_file() and not of_no_film(path)}
    assert after - before - named == {tmp_path / "worker.log"}


@pytest.mark.parametrize("uid", ["../../../../tmp/x", "1.2.é.4", "１.２.３", "1.2.3\n.4", "1.2.3 4", "." * 64, "1" * 66])
def test_a_uid_that_is_none_is_refused_and_nothing_is_written(tmp_path: Path, uid: str) -> None:
    before = set(tmp_path.rglob("*"))
    with running(tmp_path / "node") as node, RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store(uid))
        assert peer.status()[0] == 0x0117
        assert node.files() == [] and node.ledger.jobs() == []
    written = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert all(path.is_relative_to(tmp_path / "node") and of_no_film(path) for path in written)


# -- requests that nobody could answer --------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running(tmp_path) as one:
        yield one


def without(request: bytes, item: bytes, size: int) -> bytes:
    """The A-ASSOCIATE-RQ less one sub-item of user information or of the (only, last) context."""
    at = request.index(item)
    shorter = request[:at] + request[at + size :]
    holder = request.rindex(b"\x50\0", 0, at) if item[0] > 0x50 else request.rindex(b"\x20\0", 0, at)
    length = struct.unpack_from(">H", request, holder + 2)[0] - size
    shorter = shorter[: holder + 2] + struct.pack(">H", length) + shorter[holder + 4 :]
    return shorter[:2] + struct.pack(">L", len(shorter) - 6) + shorter[6:]


def test_a_request_without_a_maximum_length_is_answered_all_the_same(node: Node) -> None:
    with RawPeer(node.port) as peer:
        peer.send(without(associate_rq(), b"\x51\0\0\x04", 8))
        assert peer.receive()[0] == ASSOCIATE_AC
        peer.send(c_store())
        assert peer.status()[0] == 0x0000


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_event_that_the_state_machine_does_not_know_ends_its_association_only(node: Node) -> None:
    """An A-ABORT from nobody (source 210), and an abort behind a release."""
    for last in (bytes.fromhex("07000000000400 00d200"), bytes.fromhex("0500000000040000000007000000000400000000")):
        with RawPeer(node.port) as peer:
            assert peer.associate() == ASSOCIATE_AC
            peer.send(last)
            assert peer.is_closed()
    assert eventually(lambda: None not in [outcome for _, outcome, _ in node.journal()])
    assert send(node.port, film()) == 0x0000
