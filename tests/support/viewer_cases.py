"""Studies to look at in a viewer: films whose truth is known, and the objects that we would send for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from small_film import read_back
from tiny_network import tiny_artifact

from segmenter.engine import Segmenter
from segmenter.film.decode import decode
from segmenter.objects.kinds import ObjectKind
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.phantom.values import Phantom
from segmenter.settings import Settings
from segmenter.values import Decision, Finding

PORTRAIT, LANDSCAPE = (720, 560), (560, 720)


@dataclass(frozen=True)
class Case:
    """One study as it lies in the PACS. `phantom` is the film that the objects are about, and its truth."""

    name: str
    phantom: Phantom
    films: tuple[Dataset, ...]
    objects: tuple[Dataset, ...]
    kinds: tuple[ObjectKind, ...]  # of the objects

    @property
    def study(self) -> str:
        return str(self.films[0].StudyInstanceUID)


class Cases:
    """Makes them; the mask of every object is the truth."""

    def __init__(self, folder: Path) -> None:
        self._segmenter = Segmenter(tiny_artifact(folder), Settings(device="cpu", threads=1))

    def positive(self) -> Case:
        return self._case("positive", draw_phantom(7, shape=PORTRAIT, pneumothorax=True), [ObjectKind.SEG, ObjectKind.SR])

    def monochrome1(self) -> Case:
        phantom = draw_phantom(11, shape=LANDSCAPE, pneumothorax=True)
        return self._case("monochrome1", phantom, [ObjectKind.SEG, ObjectKind.SR], photometric="MONOCHROME1", bits=16)

    def without_spacing(self) -> Case:
        phantom = draw_phantom(21, shape=PORTRAIT, pneumothorax=True)
        kinds = [ObjectKind.SEG, ObjectKind.SR]
        return self._case("without-spacing", phantom, kinds, without=["ImagerPixelSpacing"], kind="CR")

    def seg_without(self, keyword: str) -> Case:
        """A SEG about a film without spacing that lacks this of its Pixel Measures, as we do not send it."""
        phantom = draw_phantom({"PixelSpacing": 71, "PixelMeasuresSequence": 81}[keyword], shape=PORTRAIT, pneumothorax=True)
        case = self._case(f"seg-without-{keyword}", phantom, [ObjectKind.SEG], without=["ImagerPixelSpacing"], kind="CR")
        shared = case.objects[0].SharedFunctionalGroupsSequence[0]
        del (shared if keyword in shared else shared.PixelMeasuresSequence[0])[keyword]
        return case

    def pa_and_lateral(self) -> Case:
        """Two views in one series, as many devices send them."""
        phantom = draw_phantom(31, shape=PORTRAIT, pneumothorax=True)
        case = self._case("pa-and-lateral", phantom, [ObjectKind.SEG, ObjectKind.SR])
        lateral = phantom_dataset(draw_phantom(32, shape=PORTRAIT, pneumothorax=False))
        for keyword in (
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "StudyID",
        ):
            lateral[keyword] = case.films[0][keyword]
        lateral.InstanceNumber, lateral.ViewPosition, lateral.PatientOrientation = 2, "LL", ["P", "F"]
        return replace(case, films=(*case.films, lateral))

    def negative(self) -> Case:
        return self._case("negative", draw_phantom(41, shape=PORTRAIT, pneumothorax=False), [ObjectKind.SEG, ObjectKind.SR])

    def capture(self) -> Case:
        return self._case("capture", draw_phantom(51, shape=PORTRAIT, pneumothorax=True), [ObjectKind.CAPTURE])

    def presentation(self) -> Case:
        phantom = draw_phantom(61, shape=PORTRAIT, pneumothorax=True)
        return self._case("presentation", phantom, [ObjectKind.SEG, ObjectKind.PRESENTATION])

    def all(self) -> list[Case]:
        return [
            self.positive(), self.monochrome1(), self.without_spacing(), self.pa_and_lateral(), self.negative(), self.capture(),
            self.presentation(),
        ]  # fmt: skip

    def _case(self, name: str, phantom: Phantom, kinds: list[ObjectKind], without: Iterable[str] = (), **how: Any) -> Case:
        dataset = phantom_dataset(phantom, **how)
        for keyword in without:
            del dataset[keyword]
        dataset = read_back(dataset)
        radiograph = decode(dataset)
        area_px = int(np.count_nonzero(phantom.truth))
        area = area_px * radiograph.spacing.pixel_area_mm2 if radiograph.spacing else None
        decision = Decision(phantom.pneumothorax, 0.97 if area_px else 0.02, phantom.truth, area, 1 if area_px else 0, 0.5)
        results = self._segmenter.objects(dataset, Finding("done", radiograph=radiograph, decision=decision), kinds=kinds)
        objects = tuple(read_back(result.dataset) for result in results)
        made = tuple(kind for kind in kinds if phantom.pneumothorax or kind is ObjectKind.SR)
        return Case(name, phantom, (dataset,), objects, made)
