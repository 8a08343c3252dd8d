"""What other people's software says of an object that we made: dicom3tools, dcmtk, pydicom, highdicom, dcmqi.

Every judge answers with complaints, sentences about what is wrong; none when all is well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from scipy.ndimage import binary_fill_holes

Tool = Callable[[str], str]
OUTLINE_OVERLAP = 0.95  # of a drawn outline and the mask: an outline runs through pixels or around them


@dataclass(frozen=True)
class Truth:
    """What an object must say. `mask` (H, W) bool, empty for a film without finding; `area_mm2`: None where the film does not
    say how large its pixels are; `film`: the film's own dataset."""

    mask: np.ndarray
    area_mm2: float | None
    film: Dataset


def dciodvfy(path: Path, tool: Tool) -> set[str]:
    """The errors and warnings of dciodvfy."""
    done = subprocess.run([tool("dciodvfy"), path], capture_output=True, check=False)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    return {line for line in text.splitlines() if line.startswith(("Error", "Warning"))}


def dcm2json(path: Path, tool: Tool) -> list[str]:
    done = subprocess.run([tool("dcm2json"), path, "/dev/null"], capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    return [f"dcm2json: {said or done.returncode}"] if said or done.returncode else []


def dcmqi_program() -> str | None:
    """A program of the Python package dcmqi: it lies beside the interpreter, on the path or not."""
    name = "segimage2itkimage"
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def dcmqi(path: Path) -> list[str]:
    """segimage2itkimage, by which 3D Slicer imports; only where it is installed."""
    program = dcmqi_program()
    if program is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nii"]
        done = subprocess.run(command, capture_output=True, check=False)
        there = any(Path(folder).glob("*.nii*"))
    return [] if there and not done.returncode else [f"dcmqi: {done.returncode} {done.stderr.decode(errors='replace')[-300:]}"]


def reads_back(path: Path, role: str, variant: str, truth: Truth) -> list[str]:
    """pydicom and highdicom read it, and it says what is true."""
    judge = {"seg": seg, "sr": sr, "capture": capture, "presentation": presentation}.get(role)
    if judge is None:
        return [f"nobody judges the role {role}"]
    try:
        return [*belongs(pydicom.dcmread(path), truth.film), *judge(path, variant, truth)]
    except Exception as error:  # noqa: BLE001 (whatever a reader raises is the complaint)
        return [f"{role}: {type(error).__name__}: {error}"]


def belongs(found: Dataset, film: Dataset) -> list[str]:
    """In the film's study, in a series of its own."""
    wrong = []
    if found.StudyInstanceUID != film.StudyInstanceUID:
        wrong.append("it is in another study than its film")
    if found.SeriesInstanceUID == film.SeriesInstanceUID or found.SOPInstanceUID == film.SOPInstanceUID:
        wrong.append("it has a UID of its film")
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyDate"):
        if str(found.get(keyword) or "") != str(film.get(keyword) or ""):
            wrong.append(f"{keyword} is not its film's")
    if "Rows" in found and list(found.get("PatientOrientation") or []) != list(film.get("PatientOrientation") or []):
        wrong.append("PatientOrientation is not its film's")  # the matrix lies as the film's does
    return wrong


def seg(path: Path, variant: str, truth: Truth) -> list[str]:
    """The identical mask, by pydicom's reading and by highdicom's."""
    wrong = []
    if not np.array_equal(pydicom.dcmread(path).pixel_array.squeeze() != 0, truth.mask):
        wrong.append("pydicom reads another mask")
    found = highdicom.seg.segread(path)
    frames = found.get_pixels_by_source_instance([truth.film.SOPInstanceUID], ignore_spatial_locations=True)
    if not np.array_equal(frames[0, :, :, 0] != 0, truth.mask):
        wrong.append("highdicom reads another mask")
    groups = found.PerFrameFunctionalGroupsSequence[0]
    placed = "PlanePositionSequence" in groups or "PlanePositionSequence" in found.SharedFunctionalGroupsSequence[0]
    if placed != (variant == "positioned"):
        wrong.append(f"variant {variant!r} and a plane position: {placed}")
    return wrong


def sr(path: Path, variant: str, truth: Truth) -> list[str]:
    """highdicom's reader takes it for a Comprehensive SR; outlines and area are those of the mask."""
    found = highdicom.sr.srread(path)
    content = list(_items(found))
    outlines = [np.asarray(one.GraphicData, float).reshape(-1, 2) for one in content if one.ValueType == "SCOORD"]
    areas = [
        float(one.MeasuredValueSequence[0].NumericValue)
        for one in content
        if one.ValueType == "NUM"
        and "MeasuredValueSequence" in one
        and one.MeasuredValueSequence
        and one.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "mm2"
    ]
    wrong = []
    if not truth.mask.any():
        return ["a film without finding has an outline"] if outlines else []
    wrong += _drawn(outlines, truth.mask, corner=0.0)
    if truth.area_mm2 is None and areas:
        wrong.append(f"an area of {areas} mm2 where nobody knows the size of a pixel")
    elif truth.area_mm2 is not None and not any(abs(one / truth.area_mm2 - 1) < 0.001 for one in areas):
        wrong.append(f"areas {areas} mm2, and it is {truth.area_mm2}")
    film = str(truth.film.SOPInstanceUID)
    if not any(
        one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == film for one in content if one.ValueType == "IMAGE"
    ):
        wrong.append("it does not refer to its film")
    return wrong


def capture(path: Path, variant: str, truth: Truth) -> list[str]:
    """A picture of the film's shape that says that it is burned in."""
    found = pydicom.dcmread(path)
    pixels = found.pixel_array
    wrong = []
    if found.BurnedInAnnotation != "YES" or found.Modality != "OT":
        wrong.append("it does not say that it is a picture with annotations burned in")
    if max(pixels.shape[:2]) > 1250 or pixels.min() == pixels.max():
        wrong.append(f"a picture of {pixels.shape}, values {pixels.min()} to {pixels.max()}")
    return wrong


def presentation(path: Path, variant: str, truth: Truth) -> list[str]:
    """It refers to the film, and draws the mask's outline (a pixel's centre has whole numbers: PS3.3 C.10.5.1.2)."""
    found = pydicom.dcmread(path)
    shown = [one.ReferencedSOPInstanceUID for s in found.ReferencedSeriesSequence for one in s.ReferencedImageSequence]
    graphics = [one for layer in found.GraphicAnnotationSequence for one in layer.get("GraphicObjectSequence", [])]
    units = {one.GraphicAnnotationUnits for one in graphics}
    outlines = [np.asarray(one.GraphicData, float).reshape(-1, 2) for one in graphics if one.GraphicType == "POLYLINE"]
    wrong = [] if shown == [truth.film.SOPInstanceUID] else ["it does not refer to its film alone"]
    if units - {"PIXEL"}:
        return [*wrong, f"units {units} are not judged here"]
    return wrong + _drawn(outlines, truth.mask, corner=0.5)


def _items(content: Dataset) -> Iterator[Dataset]:
    for one in content.get("ContentSequence", []):
        yield one
        yield from _items(one)


def _drawn(outlines: list[np.ndarray], mask: np.ndarray, corner: float) -> list[str]:
    """Complaints about outlines that do not enclose `mask`; they run around holes, not along them. `corner`: coordinates of the
    corner of the first pixel."""
    mask = binary_fill_holes(mask)
    if not outlines:
        return ["no outline"]
    inside = np.zeros(mask.shape, bool)
    for outline in outlines:
        inside ^= _enclosed(outline - corner, mask.shape)
    overlap = np.count_nonzero(inside & mask) / np.count_nonzero(inside | mask)
    return [] if overlap >= OUTLINE_OVERLAP else [f"the outline and the mask overlap by {overlap:.3f}"]


def _enclosed(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels whose centres lie inside a polygon of (x, y), by counting the edges to their right."""
    x, y = np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        rows = (y0 <= y) != (y1 <= y)
        crossing = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0)
        inside[rows] ^= x[None, :] < crossing[:, None]
    return inside
