"""What names a patient stays inside the film: it is in no log line, row, file name or answer of the command line.

The strings stand in every text VR, in private elements, where a UID or a file name belongs, in every place that the gate
and the decoder read, and in films that are broken in the middle of them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner
from film_parts import SOP_INSTANCE_UID, Element, Film, bases, element, encoded, even, item
from mutants import mutant
from raw_peer import ASSOCIATE_AC, RawPeer, command, fragment
from servers import SENDER, Node, free_port, wait_for
from tiny_network import tiny_artifact

from dicom_node.cli.main import main
from dicom_node.storage.records import FINISHED
from train.export.onnx_graph import add_graphs

NAME, NUMBER, BIRTH = b"QUILLIAM^Zzyzxova", b"XQ-7744-01", b"19170203"
SECRETS = (b"QUILLIAM", b"Zzyzxova", NUMBER, BIRTH, "Цзызова".encode(), "Цзызова".encode("cp1251"))
POSITIVE = {"only": {"image_threshold": 0.0, "mask_threshold": 0.4, "min_area_mm2": 0, "min_area_px": 0}}
BROKEN = 40

EVERY_VR = (
    (0x00100010, b"PN", NAME), (0x00100020, b"LO", NUMBER), (0x00100030, b"DA", BIRTH), (0x00080050, b"SH", NUMBER),
    (0x00080090, b"PN", NAME), (0x00081040, b"LO", NAME), (0x00081080, b"LO", NAME), (0x00101000, b"LO", NUMBER),
    (0x001021B0, b"LT", NAME + b"\r\n[critical] " + NUMBER), (0x00104000, b"LT", NAME), (0x00204000, b"LT", NAME),
    (0x00400254, b"LO", NAME), (0x00401400, b"LT", NAME), (0x00081030, b"LO", b"CHEST " + NAME), (0x0008103E, b"LO",
    b"CHEST " + NAME),
    (0x00080080, b"LO", NAME), (0x00080081, b"ST", NAME), (0x0008010D, b"CS", NAME), (0x00080054, b"AE", NAME),
    (0x00080055, b"AE", NAME), (0x00101010, b"AS", NAME), (0x00400244, b"DA", NAME), (0x00400245, b"TM", NAME),
    (0x0008002A, b"DT", NAME), (0x00180060, b"DS", NUMBER), (0x00200011, b"IS", NUMBER), (0x00080119, b"UC", NAME),
    (0x00080120, b"UR", b"file:///patients/" + NAME), (0x00221006, b"UT", NAME), (0x00041500, b"CS", NAME),
    (0x00041130, b"CS", NAME), (0x00200052, b"UI", NAME), (0x0020000D, b"UI", b"1.2.3.4"), (0x00081155, b"UI", NAME),
    (0x00090010, b"LO", NAME), (0x00091001, b"UN", NAME), (0x00091002, b"PN", NAME), (0x00090011, b"LO", NUMBER),
    (0x00180015, b"CS", b"CHEST"), (0x00400275, b"SQ", None), (0x7FE00009, b"OD", NAME),
)  # fmt: skip
# Each takes a film to another end: what is read there must not be quoted.
READ = (
    (0x00080060, b"CS"), (0x00180015, b"CS"), (0x00185101, b"CS"), (0x00280004, b"CS"), (0x00280008, b"IS"),
    (0x00280010, b"US"),
    (0x00280010, b"LO"), (0x00280030, b"DS"), (0x00281050, b"DS"), (0x00200020, b"CS"), (0x00080005, b"CS"),
    (0x00080008, b"CS"),
    (0x0020000D, b"UI"), (0x0020000E, b"UI"), (0x00080016, b"UI"), (SOP_INSTANCE_UID, b"UI"), (0x00080070, b"LO"),
    (0x00102201, b"LO"), (0x00102292, b"LO"), (0x00283000, b"SQ"), (0x00283010, b"LO"), (0x00280100, b"PN"),
    (0x00082218, b"SQ"),
    (0x00280103, b"UT"), (0x00280120, b"LO"), (0x00020010, b"UI"), (0x7FE00010, b"PN"), (0x00020000, b"UL"),
)  # fmt: skip


def patient(base: Film) -> Film:
    """`base` with the strings in every VR."""
    one = replace(base, elements=[replace(part) for part in base.elements], damage=[])
    one.put(0x00080005, b"CS", b"ISO_IR 192")
    for tag, vr, value in EVERY_VR:
        inner = element(Element(0x00400007, b"LO", even(NAME)), one.syntax == "1.2.840.10008.1.2")
        one.put(tag, vr, item(inner) if value is None else even(value))
    one.put(0x00100021, b"LO", even("Цзызова".encode()))
    return one


def films(folder: Path, first: int) -> list[tuple[str, str, str, bytes]]:
    """(SOP Instance UID, SOP class, transfer syntax, dataset)."""
    sound = bases(folder)
    found = [(f"whole {name}", patient(base)) for name, base in sound.items()]
    for tag, vr in READ:
        found.append((f"{tag:08X}", one := patient(sound["explicit"])))
        one.put(tag, vr, even(NAME))
    one = patient(sound["explicit"])
    one.put(0x00080005, b"CS", b"")
    one.put(0x00100010, b"PN", even("Цзызова".encode("cp1251")))
    found.append(("bytes without a character set", one))
    result = []
    for number, (_, one) in enumerate(found, first):
        uid = f"1.2.826.0.1.3680043.8.501.{number:04}"
        if not any(part.tag == SOP_INSTANCE_UID and b"QUILL" in part.value for part in one.elements):
            one.put(SOP_INSTANCE_UID, b"UI", uid.encode() + b"\0" * (len(uid) % 2))
        result.append((uid, one.sop_class_uid, one.syntax, encoded(one)))
    with_strings = {name: patient(base) for name, base in sound.items()}
    for number in range(first, first + BROKEN):
        broken = mutant(with_strings, 3, number)
        result.append((broken.sop_instance_uid, broken.sop_class_uid, broken.syntax, broken.dataset))
    return result


def send_all(port: int, some: list[tuple[str, str, str, bytes]]) -> None:
    for uid, sop_class, syntax, data in some:
        with RawPeer(port) as peer:
            assert peer.associate(SENDER, sop_class=sop_class, syntax=syntax) == ASSOCIATE_AC
            peer.send(command(uid, sop_class))
            for at in range(0, len(data), 60_000):
                peer.send(fragment(data[at : at + 60_000], last=at + 60_000 >= len(data)))
            assert peer.status()[0] == 0x0000
    with RawPeer(port) as peer:  # and where the command should name the film
        assert peer.associate(SENDER) == ASSOCIATE_AC
        peer.send(command(NAME.decode()) + fragment(some[0][3][:1000], last=True))
        status, comment = peer.status()
        assert status == 0x0117 and "QUILLIAM" not in comment


def secrets_in(data: bytes) -> list[bytes]:
    """Also as JSON and Python would escape them."""
    escaped = [json.dumps(secret.decode("utf-8", "replace"))[1:-1].encode() for secret in SECRETS]
    return [secret for secret in (*SECRETS, *escaped, repr(SECRETS[-1])[2:-1].encode()) if secret in data]


def test_no_patient_string_leaves_its_film(tmp_path: Path) -> None:
    add_graphs(tiny_artifact(tmp_path / "model", operating_points=POSITIVE))
    settings = {
        "SEGMENTER_SEGMENT__MODEL": str(tmp_path / "model"),
        "SEGMENTER_SEGMENT__MIN_SIDE_PX": "128",
        "SEGMENTER_LOG__LEVEL": "INFO",
    }
    node = Node(tmp_path / "node", ("PACS", free_port()))  # nobody there: deliveries fail, and say so
    sent = 0
    for form in ("json", "text"):
        node.settings = settings | {"SEGMENTER_LOG__FORMAT": form}
        node.start()
        try:
            some = films(tmp_path, sent)
            send_all(node.port, some)
            sent += len(some)
            wait_for(
                lambda: all(job.state in FINISHED for job in node.ledger.jobs(limit=10**6)), 200, "an answer for each film"
            )
        finally:
            node.stop()
    jobs = node.ledger.jobs(limit=10**6)
    assert len(jobs) == sent and len({job.code for job in jobs}) > 8
    assert any(secrets_in(file.read_bytes()) for file in node.config.spool_directory.rglob("*.dcm")), "the films hold them"

    log = (node.folder / "node.log").read_bytes()
    assert log.count(b"film ") >= sent and b'"level": "info"' in log and b"[info" in log
    assert not secrets_in(log)
    for file in node.config.node.directory.rglob("*"):
        assert not secrets_in(str(file).encode())
        if file.is_file() and file.suffix != ".dcm":
            assert not secrets_in(file.read_bytes()), file.name
    run = CliRunner()
    for verb in (["status"], ["jobs", "--limit", "1000"], *(["show", job.job_id] for job in jobs)):
        for form in ([], ["--json"]):
            said = run.invoke(main, [*verb, *form, "--config", str(node.config_file)])
            assert said.exit_code == 0
            assert not secrets_in(said.output.encode()), verb
