"""All that a radiologist sees of our objects in OHIF: opened, photographed, measured. `make viewer`.

usage: python tests/support/viewer.py --ohif 3.13.2 --out bench/viewer.json --pictures .make/viewer/pictures-3.13.2
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ohif_browser import ReadingRoom, Visit, reading_room
from programs import needed
from screen import Colour, find, look, photograph
from viewer_cases import Case, Cases

COMMAND = "make viewer OHIF={}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ohif", required=True, help="version; `make` installs it")
    arguments.add_argument("--out", type=Path, required=True, help="JSON file; rows of other versions stay in it")
    arguments.add_argument("--pictures", type=Path, required=True)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, reading_room(Path(folder), _needed, given.ohif) as room:
        rows = list(_rows(room, Cases(Path(folder) / "model")))
        shutil.rmtree(given.pictures, ignore_errors=True)
        shutil.copytree(room.pictures, given.pictures)
    for row in rows:
        print(f"{'good' if row['good'] else 'BAD ':4} {row['scenario']:24} {row['object']:4} {row['seen']}")
    _keep(given.out, given.ohif, rows)
    return 0 if all(row["good"] for row in rows if row["expected"]) else 1


def _rows(room: ReadingRoom, cases: Cases) -> Iterator[dict[str, Any]]:
    positive, inverted, bare, pair = cases.positive(), cases.monochrome1(), cases.without_spacing(), cases.pa_and_lateral()
    negative, capture, presentation = cases.negative(), cases.capture(), cases.presentation()
    visits = [Visit(case, (one,)) for case in (positive, inverted, bare, pair) for one in ("SEG", "SR")]
    visits += [Visit(negative, ("SR",)), Visit(capture, ("OT",)), Visit(presentation, ("PR",)), Visit(presentation, ("SEG",))]
    trials = [cases.seg_without("PixelSpacing"), cases.seg_without("PixelMeasuresSequence")]
    visits += [Visit(case, ("SEG",)) for case in trials]
    room.send([positive, inverted, bare, pair, negative, capture, presentation, *trials])
    answer = room.read(visits, seconds=1800)
    for visit in visits:
        seen, [modality] = answer["seen"][visit.name], visit.open
        verdict = _judge(visit.case, modality, seen) if "stuck" not in seen else {"good": False, "seen": seen["stuck"][:200]}
        # OHIF may bind the SEG to the first image of a series of several: no attribute of ours can help.
        # The trials tell what OHIF makes of a SEG that we do not send.
        expected = (visit.case, modality) != (pair, "SEG") and visit.case not in trials
        yield {"scenario": visit.case.name, "object": modality, "expected": expected, **verdict, "errors": seen["errors"]}


def _judge(case: Case, modality: str, seen: dict[str, Any]) -> dict[str, Any]:
    """Whether what was seen is what should be."""
    if not seen["panes"]:
        return {"good": False, "seen": "the page is black"}
    [pane] = seen["panes"]
    if modality == "SEG":
        overlay = look(seen["pictures"]["SEG"], pane, case.phantom, Colour.RED)
        return {"good": overlay.fills, "seen": asdict(overlay)}
    if modality == "SR" and case.phantom.pneumothorax:
        overlay = look(seen["pictures"]["SR-bare"], pane, case.phantom, Colour.GREEN)
        label = " ".join(seen["texts"]["SR"])
        return {"good": overlay.outlines and "Area" in label, "seen": asdict(overlay) | {"label": label}}
    if modality == "SR":
        answer = "no pneumothorax found"
        said = answer in seen["said"]["SR"]
        return {"good": said, "seen": f"text: {answer}" if said else "no such text"}
    if modality == "OT":
        # The film with a strip of text below it, so it is smaller on the screen than the film alone.
        overlay = look(seen["pictures"]["OT"], pane, case.phantom, Colour.RED, smaller=0.2)
        good = overlay.likeness >= 0.95 and overlay.border >= 0.95 and overlay.outside == 0
        return {"good": good, "seen": asdict(overlay)}
    # OHIF draws no presentation state: the film stays as it was.
    place = find(case.phantom.image, photograph(seen["pictures"][modality]), pane)
    drawn = bool(Colour.RED.where(photograph(seen["pictures"][modality]))[place.window].any())
    return {"good": place.likeness > 0.97, "seen": "drawn" if drawn else "not drawn; the film stays as it was"}


def _keep(path: Path, ohif: str, rows: list[dict[str, Any]]) -> None:
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[f"OHIF {ohif}"] = {"command": COMMAND.format(ohif), "rows": rows}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def _needed(name: str) -> str:
    return needed(name, "viewer")


if __name__ == "__main__":
    sys.exit(main())
