"""Films to evaluate a model on, each as the Dataset that a modality would send, with its true mask on the native matrix."""

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
    """A film with its true mask."""

    name: str
    patient: str
    site: str
    dataset: Dataset
    truth: NDArray[np.bool_]  # (H, W)


@dataclass
class Source:
    """Films of one data set. `unusable`: name and reason of films that cannot be read, filled by `read`. `fold` and
    `folds_sha256`: of a prepared data set, to detect models that were trained on these films."""

    title: str
    cases: tuple[Case, ...]
    unusable: dict[str, str]
    fold: int | None = None
    folds_sha256: str = ""

    @property
    def count(self) -> int:
        """Number of films, unusable ones included."""
        return len(self.cases)

    def read(self) -> Iterator[LabelledFilm]:
        """The films that can be read, in order; the others are added to `unusable`."""
        for case in self.cases:
            try:
                dataset = case.dataset()
                truth = case.truth((int(dataset.Rows), int(dataset.Columns)))
            except (FilmError, AttributeError, ValueError) as error:
                self.unusable[case.name] = str(error)
                continue
            yield LabelledFilm(case.name, case.patient or case.name, case.site, dataset, truth)


class Exam(Source):
    """The frozen exam: phantoms as DICOM objects of many kinds (`train.evaluate.exam`). `read` raises DataError."""

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
    """The held-out films of a fold of a prepared data set, read from its source. Raises DataError."""
    data = PreparedSet(folder)
    held_out = {row.name for row in data.fold(fold)[1]}
    about = data.about
    found = find_films(data.source, *(Path(about[key]) if about[key] else None for key in ("labels", "patients_map")))
    cases = tuple(case for case in found.cases if case.name in held_out)
    lost = sorted(held_out - {case.name for case in cases})
    gone = dict.fromkeys(lost, "no longer where it was prepared from")
    return Source(f"fold {fold} of {about['kind']}", cases, gone, fold, about["folds_sha256"])


def training_overlap(source: Source, manifest: Manifest) -> str:
    """Whether the model's training and these films overlap: a sentence for the report, "" for no overlap. Raises DataError when
    a member of the model was trained on them."""
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
    """PTX-498: SiteA, SiteB, SiteC with N.1.img.png and N.2.mask.png, all positive. Raises DataError for any other folder."""
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
    """`films/` (DICOM or pictures, each of another patient) and `masks/NAME.png`, white where there is a pneumothorax, all
    black without one. A film without a mask does not count as negative: it is left out and listed. Raises DataError."""
    films = sorted(p for p in (folder / "films").glob("*") if p.suffix.lower() in (".dcm", *PICTURES))
    if not films:
        raise DataError(f"{folder} has no films/*.dcm or films/*.png beside masks/*.png")
    masks = {p.stem: p for p in (folder / "masks").glob("*.png")}
    cases = tuple(Case(p.stem, p, p.stem, mask=masks[p.stem]) for p in films if p.stem in masks)
    return Source(str(folder.name), cases, {p.stem: "no mask" for p in films if p.stem not in masks})
