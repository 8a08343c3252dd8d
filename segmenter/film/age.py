"""The patient's age when the film was taken, as far as the header tells it. The age is patient data and is neither logged nor
written: only the notes and the skip code that follow from it leave this package."""

from __future__ import annotations

import re
from datetime import date

from pydicom.dataset import Dataset

from segmenter.film.header import text
from segmenter.notes import NoteCode

# Software made for adults reads children of 2 years and younger markedly worse: on 2,273 films of children its accuracy rose
# from 87.5 to 96.9 % without them and without cardiomegaly (Shin, Son, Kim and Kim, "Diagnostic performance of artificial
# intelligence approved for adults for the interpretation of pediatric chest radiographs", Scientific Reports 2022).
YOUNG_CHILD_YEARS = 3.0
ADULT_YEARS = 18.0
_OLDEST_YEARS = 130.0
_CONFLICT_YEARS = 2.0  # PatientAge is rounded, and sometimes belongs to another day
_AGE = re.compile(r"(\d{1,3})([DWMY]?)")  # AS, PS3.5 section 6.2; some devices leave the unit out
_PER_YEAR = {"": 1.0, "D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")  # DA (PS3.5 section 6.2), and its form in ACR-NEMA, with points
_TAKEN = ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")


def ages_years(dataset: Dataset) -> tuple[float, ...]:
    """The ages, in years, by PatientAge and by PatientBirthDate, each where it is plausible (0 to 130)."""
    declared = _AGE.fullmatch(text(dataset, "PatientAge").upper())
    ages = [int(declared[1]) / _PER_YEAR[declared[2]]] if declared else []
    born = _date(dataset, "PatientBirthDate")
    taken = next((day for keyword in _TAKEN if (day := _date(dataset, keyword))), None)
    if born and taken:
        ages.append((taken - born).days / 365.25)
    return tuple(years for years in ages if 0 <= years <= _OLDEST_YEARS)


def is_under(dataset: Dataset, years: float) -> bool:
    """Whether the age is known and less than `years` by every element that gives it: one typing error does not skip a film."""
    ages = ages_years(dataset)
    return bool(ages) and max(ages) < years


def age_notes(dataset: Dataset) -> tuple[NoteCode, ...]:
    """The notes about the age; one element that gives a young age is enough for a warning."""
    ages = ages_years(dataset)
    if not ages:
        return (NoteCode.AGE_UNKNOWN,)
    group = NoteCode.YOUNG_CHILD if min(ages) < YOUNG_CHILD_YEARS else NoteCode.MINOR
    conflict = (NoteCode.AGE_CONFLICT,) if max(ages) - min(ages) > _CONFLICT_YEARS else ()
    return (*((group,) if min(ages) < ADULT_YEARS else ()), *conflict)


def _date(dataset: Dataset, keyword: str) -> date | None:
    found = _DATE.fullmatch(text(dataset, keyword))
    try:
        return date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None
