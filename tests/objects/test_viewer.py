"""What a radiologist sees in OHIF: the overlay, on the pixels it belongs to. All scenarios: `make viewer`."""

from ohif_browser import Visit, reading_room
from screen import Colour, look
from viewer_cases import Cases

from segmenter.objects.kinds import ObjectKind

OHIF = "3.13.2"


def test_seg_and_report_lie_on_the_pneumothorax_in_ohif(tool, tmp_path):
    case = Cases(tmp_path / "model").positive()
    with reading_room(tmp_path, tool, OHIF) as room:
        room.send([case])
        seen = room.read([Visit(case, ("SEG", "SR"))])["seen"]["positive-seg-sr"]
    assert "stuck" not in seen and not seen["errors"], seen
    [pane] = seen["panes"]
    seg = look(seen["pictures"]["SEG"], pane, case.phantom, Colour.RED)
    assert seg.fills, seg
    report = look(seen["pictures"]["SR-bare"], pane, case.phantom, Colour.GREEN)
    assert report.outlines, report
    area = case.phantom.truth.sum() * case.phantom.spacing_mm**2
    assert f"Area: {area:.2f}"[:-2] in seen["said"]["SR"], seen["said"]["SR"]


def test_what_ohif_needs_of_a_report(tmp_path):
    """Every outline refers to the film, and every group belongs to a finding that has an outline: over a group without one
    OHIF fails and shows nothing. Several regions stay several findings."""
    case = Cases(tmp_path / "model").monochrome1()
    report = case.objects[list(case.kinds).index(ObjectKind.SR)]
    groups = [one for content in report.ContentSequence for one in content.get("ContentSequence", ())]
    outlines: dict[str, list[str]] = {}
    for group in groups:
        items = group.ContentSequence
        [finding] = [one.UID for one in items if one.ValueType == "UIDREF"]
        at = [one.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in items if "GraphicData" in one]
        outlines.setdefault(finding, []).extend(at)
    film = case.films[0].SOPInstanceUID
    assert sorted(outlines.values()) == [[film]] * 3, outlines
