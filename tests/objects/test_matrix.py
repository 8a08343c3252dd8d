"""Every kind of film that a hospital may send, in a few films: what comes of each is clean, true, and stored by two archives.

The full matrix is `make matrix`; its result lies in bench/matrix.json.
"""

from __future__ import annotations

from itertools import combinations, product

import highdicom
import numpy as np
import pydicom
import pytest
from archives import both_archives
from encoded_film import BY_DCMTK, BY_GDCM, LOSSY
from matrix import MAIN, Court, bright_segmenter
from matrix_cells import DIMENSIONS, Cell, few_cells, valid_cells
from matrix_films import matrix_film
from object_judges import Truth, dciodvfy, dcm2json, dcmqi, dcmqi_program, reads_back
from programs import skip_or_fail

from dicom_node.dimse.contexts import TRANSFER_SYNTAXES
from segmenter.objects.kinds import ObjectKind

PLAIN = Cell(
    "DX", "MONOCHROME1", 12, False, "ImagerPixelSpacing, magnification", True, True, True, "Explicit VR Little Endian"
)


def test_the_few_films_meet_every_pair_of_values_that_can_be_met():
    few, everything = few_cells(), list(valid_cells())
    assert few == few_cells() and len(few) < 75 and set(few) <= set(everything)
    assert len(everything) == 3 * 2 * 2 * 4 * 2 * 2 * (36 + 3)  # 36 depths and syntaxes with a finding, 3 depths without
    for found in (True, False):
        among, chosen = ([c for c in cells if c.pneumothorax is found] for cells in (everything, few))
        for one, other in combinations(DIMENSIONS, 2):
            for values in product(DIMENSIONS[one], DIMENSIONS[other]):
                there, taken = (
                    any((getattr(c, one), getattr(c, other)) == values for c in cells) for cells in (among, chosen)
                )
                assert there == taken, (one, other, values)


def test_there_is_a_film_in_every_transfer_syntax_of_the_receiver():
    assert set(BY_DCMTK) | set(BY_GDCM) == set(TRANSFER_SYNTAXES)
    assert {name for name, uid in TRANSFER_SYNTAXES.items() if pydicom.uid.UID(uid).is_compressed} - set(LOSSY) == {
        "JPEG Lossless SV1", "JPEG Lossless", "JPEG-LS Lossless", "JPEG 2000 Lossless", "RLE Lossless",
        *({"Deflated Explicit VR Little Endian"} if pydicom.uid.DeflatedExplicitVRLittleEndian.is_compressed else ()),
    }  # fmt: skip


def test_every_object_of_every_kind_of_film_passes_every_judge(tool, tmp_path):
    """Decoded to the pixels that were encoded, the mask on the truth; of every object: nothing in dciodvfy that the film does
    not have, the identical content for pydicom and highdicom, and element for element in Orthanc and in dcmqrscp."""
    court = Court(bright_segmenter(tmp_path / "model"), tool, tmp_path)
    cells = few_cells()
    with both_archives(tool, tmp_path / "archives") as archives:
        found = court.judge(cells, archives)
    assert found.complaints == []
    positive = sum(cell.pneumothorax for cell in cells)
    assert [found.objects[kind] for kind in MAIN] == [positive, len(cells), len(cells), positive]
    assert all(found.objects[kind] for kind in ObjectKind)


@pytest.fixture(scope="module")
def objects(tool, tmp_path_factory):
    """One film and all of its objects, by kind."""
    folder = tmp_path_factory.mktemp("objects")
    film = matrix_film(PLAIN, 1, folder, tool)
    segmenter, dataset = bright_segmenter(folder / "model"), pydicom.dcmread(film.path)
    (finding,) = segmenter.segment([dataset])
    paths = {}
    for one in segmenter.objects(dataset, finding, kinds=tuple(ObjectKind)):
        paths[one.kind] = folder / f"{one.kind}.dcm"
        one.dataset.save_as(paths[one.kind], enforce_file_format=True)
    truth = Truth(film.truth, float(film.truth.sum() * film.pixel_mm2), pydicom.dcmread(film.path))
    return paths, truth


def test_the_judges_see_what_is_wrong(objects, tool, tmp_path):
    """Each is shown a sound object and the same one with one thing broken."""
    paths, truth = objects
    bad = tmp_path / "bad.dcm"

    def broken(kind: ObjectKind, change, truth: Truth = truth) -> list[str]:
        assert reads_back(paths[kind], kind.role, kind.variant, truth) == []
        dataset = pydicom.dcmread(paths[kind])
        change(dataset)
        dataset.save_as(bad)
        return reads_back(bad, kind.role, kind.variant, truth)

    def one_pixel(seg):
        seg.PixelData = bytes([seg.PixelData[0] ^ 1]) + seg.PixelData[1:]

    def shift_outline(report):
        for item in report.iterall():
            if item.keyword == "GraphicData":
                item.value = [float(v) + 4 for v in item.value]

    def areas(report, factor):
        for item in report.iterall():
            if item.keyword == "NumericValue":
                item.value = f"{float(item.value) * factor:.6g}"

    def other_film(item):
        for element in item.iterall():
            if element.keyword == "ReferencedSOPInstanceUID" and element.value == truth.film.SOPInstanceUID:
                element.value = "1.2.3"

    for kind in (ObjectKind.SEG, ObjectKind.SEG_POSITIONED):
        assert broken(kind, one_pixel)
    for kind in (ObjectKind.SR, ObjectKind.SR_POSITIONED, ObjectKind.SR_ALONE):
        for change in (shift_outline, other_film, lambda report: areas(report, 1.25**2)):
            assert broken(kind, change), kind
    assert broken(ObjectKind.PRESENTATION, shift_outline) and broken(ObjectKind.PRESENTATION, other_film)
    assert broken(ObjectKind.CAPTURE, lambda picture: setattr(picture, "BurnedInAnnotation", "NO"))
    for kind in ObjectKind:
        assert broken(kind, lambda one: setattr(one, "StudyInstanceUID", "1.2.3"))
        assert broken(kind, lambda one: setattr(one, "PatientID", "somebody else"))
        assert dciodvfy(paths[kind], tool) == set() and dcm2json(paths[kind], tool) == []
        broken(kind, lambda one: delattr(one, "InstanceNumber"))
        assert dciodvfy(bad, tool), kind
        bad.write_bytes(paths[kind].read_bytes()[:-300])
        assert dcm2json(bad, tool), kind


def test_three_d_slicer_opens_the_positioned_seg_and_it_alone(objects):
    """By dcmqi, which it imports with; the other one is for viewers that would match it by position (facts of the SEG)."""
    if dcmqi_program() is None:
        skip_or_fail("dcmqi is not installed; `make test` installs it")
    paths, truth = objects
    assert dcmqi(paths[ObjectKind.SEG_POSITIONED]) == [] and dcmqi(paths[ObjectKind.SEG]) != []
    positioned = highdicom.seg.segread(paths[ObjectKind.SEG_POSITIONED])
    assert np.array_equal(positioned.pixel_array.squeeze() != 0, truth.mask)
