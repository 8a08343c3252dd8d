"""Example objects: every kind of object for synthetic films, built by the same code as all others.

They describe what we write. The films differ in everything that an object could copy from a film: each has its own value in
every element of patient, study and series, except one film that has none of them. So the objects show which elements are
copied, generated or fixed, and no list of them must be maintained.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag

from segmenter.film.decode import decode
from segmenter.film.header import without_warnings
from segmenter.indeterminate import IndeterminateCode
from segmenter.model.artifact import OperatingPoint
from segmenter.model.identity import ModelIdentity
from segmenter.objects.build import applies, build
from segmenter.objects.kinds import ObjectKind
from segmenter.phantom.dicom import ImageIOD, phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.settings import Settings
from segmenter.values import Decision, Finding

# The elements of patient, study, series and equipment: group, first and last element; all of PS3.6 in these ranges.
_HEADER = ((0x0008, 0x0020, 0x1110), (0x0010, 0x0000, 0xFFFF), (0x0012, 0x0000, 0xFFFF), (0x0018, 0x1000, 0x1030),
           (0x0020, 0x000D, 0x0062), (0x0020, 0x4000, 0x4000), (0x0040, 0x0244, 0x0254))  # fmt: skip
_OF_THE_IMAGE = ("SOPClassUID", "SOPInstanceUID", "Modality", "SamplesPerPixel", "PatientOrientation", "ImageLaterality")
_CHARACTER_SETS = ("ISO_IR 100", "ISO_IR 192")


@dataclass(frozen=True)
class Example:
    """One film and its objects by kind, as read from their files. `is_bare`: the film has only the elements that it needs;
    `is_negative`: without a mask."""

    film: Dataset
    identity: ModelIdentity
    settings: Settings
    is_bare: bool
    is_negative: bool
    objects: dict[str, FileDataset]


@functools.cache
def examples(settings: Settings, *, demo: bool) -> tuple[Example, ...]:
    """Five examples, made once in a second or two. `demo`: of a demo model, which the objects declare."""
    other = replace(settings, series_number=settings.series_number + 100)
    with without_warnings():
        return (
            _specimen(1, _full(1, "DX", (96, 80)), demo, settings),
            _specimen(2, _full(2, "CR", (80, 104)), demo, other),
            # Wide, because pictures of large films are reduced.
            _specimen(3, _bare(_full(3, "SC", (72, 1300))), demo, settings, is_bare=True),
            _specimen(4, _full(4, "DX", (64, 76)), demo, settings, is_negative=True),
            _specimen(5, _full(5, "CR", (72, 68)), demo, settings, is_negative=True, is_indeterminate=True),
        )


def _specimen(
    number: int, made: Dataset, demo: bool, settings: Settings, *,
    is_bare: bool = False, is_negative: bool = False, is_indeterminate: bool = False,
) -> Example:  # fmt: skip
    film, identity = _as_read(made), _identity(number, demo)
    radiograph = decode(film)
    mask = np.zeros(radiograph.image.shape, bool)
    if not is_negative:
        mask[10 : 20 + number, 12 : 30 + number] = mask[12 : 14 + number, 12:40] = True
        mask[40 : 40 + 4 * number, 40:50] = mask[40:50, 40 : 40 + 2 * number] = True
    area = mask.sum() * radiograph.spacing.pixel_area_mm2 if radiograph.spacing else None
    threshold = identity.thresholds.image_threshold
    probability = threshold / 2 if is_negative and not is_indeterminate else 0.9 + number / 100
    decision = Decision(not is_negative, probability, mask, area, 0 if is_negative else 2, threshold)
    finding = Finding("done", radiograph=radiograph, decision=decision)
    if is_indeterminate:
        code = IndeterminateCode.NO_REGION
        finding = Finding("indeterminate", code.value, code.sentence, radiograph, decision)
    kinds = [kind for kind in ObjectKind if applies(kind, film, finding, settings)]
    objects = {str(kind): _as_read(build(kind, film, finding, identity, settings)) for kind in kinds}
    return Example(film, identity, settings, is_bare, is_negative, objects)


def _identity(number: int, demo: bool) -> ModelIdentity:
    return ModelIdentity(
        name=f"model-{number}", version=f"{number}.0.{number}", demo=demo, commit=f"commit{number}",
        operating_point=f"point-{number}", thresholds=OperatingPoint(number / 10, number / 20, number, number),
        weights_sha256=f"{number}a" * 32, manifest_sha256=f"{number}b" * 32, settings_sha256=f"{number}c" * 32,
        digest=f"{number}d" * 32,
    )  # fmt: skip


def _full(number: int, kind: ImageIOD, shape: tuple[int, int]) -> Dataset:
    """A film with every element of its header, each with a value of its own."""
    drawn = draw_phantom(number, shape=shape, pneumothorax=True)
    film = phantom_dataset(drawn, kind=kind, bits=max(8, 16 - 2 * number))
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        group, element = tag >> 16, tag & 0xFFFF
        named = any(group == one and first <= element <= last for one, first, last in _HEADER)
        if named and not retired and keyword not in _OF_THE_IMAGE and (value := _value(vr, tag, number)) is not None:
            film[tag] = DataElement(Tag(tag), vr, value)
    film.SpecificCharacterSet = _CHARACTER_SETS[number % 2]
    film.PatientOrientation = [["L", "F"], ["R", "F"]][number % 2]
    return film


def _value(vr: str, tag: int, number: int) -> str | None:
    """A valid value that no other element and no other film has; None for other VRs."""
    mark = f"{tag:08x}{number}"
    plain = {"LO": mark, "SH": mark, "PN": f"N{mark}^{number}", "LT": mark, "ST": mark, "UC": mark, "UT": mark,
             "CS": mark.upper(), "UI": f"1.2.{tag}.{number}", "DA": f"2001010{number}", "TM": f"10{tag % 60:02d}0{number}",
             "AS": f"04{number}Y", "DS": f"{tag % 97}.{number}", "IS": f"{tag % 97}{number}"}  # fmt: skip
    return plain.get(vr)


def _bare(film: Dataset) -> Dataset:
    """The film without the elements that it does not need."""
    needed = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"}
    for element in list(film):
        if element.tag.group != 0x0028 and element.tag.group < 0x7FE0 and element.keyword not in needed:
            del film[element.tag]
    film.pop("PixelSpacing", None)
    return film


def _as_read(made: Dataset) -> FileDataset:
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))
