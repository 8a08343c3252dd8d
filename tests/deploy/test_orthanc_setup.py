"""deploy/orthanc as it stands, with a real Orthanc: chest films go to the node, hands and our own results do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pydicom
from echo_scu import echo
from quick_model import quick_film, quick_settings
from servers import SENDER, Node, free_port, running_orthanc, store, wait_for

from segmenter.equipment import MANUFACTURER, MODEL_NAME

DEPLOY = Path(__file__).parents[2] / "deploy" / "orthanc"
KINDS = ("seg", "sr", "capture", "presentation")


def settings(folder: Path, node_port: int, **ports: int) -> dict[str, object]:
    """orthanc.json with the addresses, ports and folders of this machine, and the tests' sender for its modality."""
    text = re.sub(r"^\s*//.*$", "", (DEPLOY / "orthanc.json").read_text("utf-8"), flags=re.MULTILINE)
    found = json.loads(text.replace("MODALITY1", SENDER).replace("10.0.0.7", "127.0.0.1").replace("10.0.0.20", "127.0.0.1"))
    found["DicomModalities"]["segmenter"]["Port"] = node_port
    plugins = [file for file in found["Plugins"] if Path(file).exists()]
    here = {"StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "Plugins": plugins}
    return found | here | {"LuaScripts": [str(DEPLOY / "segmenter.lua")]} | ports


def films() -> dict[str, pydicom.Dataset]:
    """By what they are; all of other pixels and UIDs."""
    made = {}
    for number, (name, elements) in enumerate(
        {
            "chest": {"BodyPartExamined": "CHEST"},
            "by its description": {"BodyPartExamined": "", "StudyDescription": "RX Tórax PA"},
            "hand": {"BodyPartExamined": "HAND", "StudyDescription": "Hand", "SeriesDescription": "Hand"},
            "nothing said": {"BodyPartExamined": "", "StudyDescription": "", "SeriesDescription": ""},
        }.items()
    ):
        film = quick_film(number)
        film.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in elements.items():
            setattr(film, keyword, value)
        made[name] = film
    return made


def test_orthanc_sends_chest_films_and_results_come_back_once(tool: Callable[[str], str], tmp_path: Path) -> None:
    """Orthanc -> node -> Orthanc. Result: two of four films are answered, their objects are there exactly once, and stay:
    neither as they come from the node nor from somebody else are they sent to it."""
    ports = {"DicomPort": free_port(), "HttpPort": free_port()}
    node = Node(tmp_path / "node", ("ORTHANC", ports["DicomPort"]), quick_settings())
    text = node.config_file.read_text()
    node.config_file.write_text(
        text.replace(f"{SENDER} = []", 'ORTHANC = ["127.0.0.1"]').replace("[send]\n", f"[send]\nobjects = {list(KINDS)}\n")
    )
    more = settings(tmp_path / "orthanc", node.port, **ports)
    numbers = {"dicom_port": ports["DicomPort"], "http_port": ports["HttpPort"]}
    with running_orthanc(tool("Orthanc"), tmp_path / "orthanc", more=more, **numbers) as orthanc:
        node.start()
        try:
            assert echo(node.config, "ORTHANC") is None
            given = films()
            for film in given.values():
                assert store(film, orthanc.dicom_port, "ORTHANC") == 0x0000
            answered = [str(given[name].SOPInstanceUID) for name in ("chest", "by its description")]
            wait_for(lambda: len(node.ledger.jobs()) == 2, 120, "two films")
            for uid in answered:
                assert len(node.delivered(uid)) == len(KINDS)
            wait_for(lambda: len(orthanc.get("/instances")) == 4 + 2 * len(KINDS), 120, "the results")
            [capture, *_] = orthanc.find(Modality="OT", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
            result = pydicom.dcmread(pydicom.filebase.DicomBytesIO(orthanc.file(capture)))
            orthanc.delete(f"/instances/{capture}")
            assert store(result, orthanc.dicom_port, "ORTHANC") == 0x0000  # our own, by way of a modality
            wait_for(lambda: capture in orthanc.get("/instances"), 120, "the result once more")
            last = quick_film(9)  # Orthanc's script is called in the order of arrival: when this one is here, so is all else
            last.BodyPartExamined = "CHEST"
            assert store(last, orthanc.dicom_port, "ORTHANC") == 0x0000
            answered.append(str(last.SOPInstanceUID))
            wait_for(lambda: node.ledger.jobs(sop_instance_uid=answered[-1]), 120, "the last film")
            node.delivered(answered[-1])
            assert sorted(job.arrival.sop_instance_uid for job in node.ledger.jobs()) == sorted(answered)
            assert len(orthanc.get("/instances")) == 5 + 3 * len(KINDS)
        finally:
            node.stop()


def test_the_script_knows_our_results_by_what_they_say() -> None:
    text = (DEPLOY / "segmenter.lua").read_text("utf-8")
    assert f"'{MANUFACTURER}'" in text and f"'{MODEL_NAME}'" in text
