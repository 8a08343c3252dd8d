"""What a radiologist sees in OHIF: the overlay, on the pixels it belongs to. All scenarios: `make viewer`."""

from reading_room import Visit, reading_room
from screen import Colour, look
from viewer_cases import Cases

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
