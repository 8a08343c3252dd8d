"""Films to evaluate a model on, each as the Dataset that would be served and its truth on the native matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.model.artifact import Manifest
from train.data.cases import PICTURES, Case, DataError, FilmError
from train.data.dataset import PreparedSet
from train.data.siim import find_films
from train.evaluate.exam import exam_film

SITES = ("SiteA", "SiteB", "SiteC")


@dataclass(frozen=True)
class LabelledFilm:
    name: str
    patient: str
    site: str
    dataset: Dataset
    truth: NDArray[np.bool_]  # (H, W)


@dataclass
class Source:
    """`count` films; `read` yields them, and fills `unusable` with those that cannot be read, by name. `fold` and
    `folds_sha256`: of a prepared data set, for those that may have learned from its other folds."""

    title: str
    cases: tuple[Case, ...]
    unusable: dict[str, str]
    fold: int | None = None
    folds_sha256: str = ""

    @property
    def count(self) -> int:
        return len(self.cases)

    def read(self) -> Iterator[LabelledFilm]:
        for case in self.cases:
            try:
                dataset = case.dataset()
                truth = case.truth((int(dataset.Rows), int(dataset.Columns)))
            except (FilmError, AttributeError, ValueError) as error:
                self.unusable[case.name] = str(error)
                continue
            yield LabelledFilm(case.name, case.patient or case.name, case.site, dataset, truth)


class Exam(Source):
    """The frozen exam: phantoms as DICOM objects of many makes (`train.evaluate.exam`)."""

    def __init__(self, films: int) -> None:
        super().__init__("the frozen exam of phantoms", (), {})
        self.films = films

    @property
    def count(self) -> int:
        return self.films

    def read(self) -> Iterator[LabelledFilm]:
        for i in range(self.films):
            phantom, dataset = exam_film(i)
            yield LabelledFilm(f"exam-{i}", f"exam-{i}", "", dataset, phantom.truth)


def siim_fold(folder: Path, fold: int) -> Source:
    """The films that a fold of a prepared data set held out, read from where they were prepared from."""
    data = PreparedSet(folder)
    held_out = {row.name for row in data.fold(fold)[1]}
    about = data.about
    found = find_films(data.source, *(Path(about[key]) if about[key] else None for key in ("labels", "patients_map")))
    cases = tuple(case for case in found.cases if case.name in held_out)
    lost = sorted(held_out - {case.name for case in cases})
    gone = dict.fromkeys(lost, "no longer where it was prepared from")
    return Source(f"fold {fold} of {about['kind']}", cases, gone, fold, about["folds_sha256"])


def training_overlap(source: Source, manifest: Manifest) -> str:
    """What a model has to do with films of a prepared data set: a sentence for its report, "" for nothing. Raises DataError
    when a member of it has learned them."""
    if source.fold is None or not manifest.folds:
        return ""
    if source.folds_sha256 != manifest.data.get("folds_sha256"):
        return "The model comes from another deal of folds: whether it has learned these films is not known."
    if any(fold != source.fold for fold in manifest.folds):
        raise DataError(
            f"{manifest.name} has learned films of fold {source.fold}: its members held out {list(manifest.folds)}. Measure it "
            "on films that none of them has seen, or export the run of that fold alone"
        )
    return (
        "These films chose among the weights of this run, and its thresholds where they were calibrated on its held-out fold."
    )


def ptx498(folder: Path) -> Source:
    """PTX-498: SiteA, SiteB, SiteC with N.1.img.png and N.2.mask.png, all of them positive. Raises DataError."""
    cases, unusable = [], {}
    for site in SITES:
        for image in sorted((folder / site).glob("*.1.img.png")):
            number = image.name.removesuffix(".1.img.png")
            mask = image.with_name(f"{number}.2.mask.png")
            if mask.exists():
                cases.append(Case(f"{site}-{number}", image, f"{site}-{number}", site, mask=mask))
            else:
                unusable[f"{site}-{number}"] = f"{mask.name} is missing"
    if not cases:
        raise DataError(f"{folder} is not PTX-498: no {'/'.join(SITES)} with N.1.img.png and N.2.mask.png in it")
    return Source("PTX-498", tuple(cases), unusable)


def any_folder(folder: Path) -> Source:
    """`films/` (DICOM or pictures, each a patient of its own) and `masks/NAME.png`, white where there is a pneumothorax, all
    black without one. A film without a mask is not taken for a negative: it is left out and named. Raises DataError."""
    films = sorted(p for p in (folder / "films").glob("*") if p.suffix.lower() in (".dcm", *PICTURES))
    if not films:
        raise DataError(f"{folder} has no films/*.dcm or films/*.png beside masks/*.png")
    masks = {p.stem: p for p in (folder / "masks").glob("*.png")}
    cases = tuple(Case(p.stem, p, p.stem, mask=masks[p.stem]) for p in films if p.stem in masks)
    return Source(str(folder.name), cases, {p.stem: "no mask" for p in films if p.stem not in masks})
