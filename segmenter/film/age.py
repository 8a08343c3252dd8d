"""How old the patient was when the film was taken, as far as the header tells. Never logged, never written: only the two
notes and the skip code that follow from it leave the core."""

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
_CONFLICT_YEARS = 2.0  # PatientAge is rounded, and sometimes as of another day
_AGE = re.compile(r"(\d{1,3})([DWMY]?)")  # AS, PS3.5 section 6.2; the unit is left out by some
_PER_YEAR = {"": 1.0, "D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")  # DA, and as ACR-NEMA wrote it
_TAKEN = ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")


def ages_years(dataset: Dataset) -> tuple[float, ...]:
    """What PatientAge says and what follows from PatientBirthDate, each where it makes sense (0 to 130 years)."""
    said = _AGE.fullmatch(text(dataset, "PatientAge").upper())
    found = [int(said[1]) / _PER_YEAR[said[2]]] if said else []
    born = _date(dataset, "PatientBirthDate")
    taken = next((day for keyword in _TAKEN if (day := _date(dataset, keyword))), None)
    if born and taken:
        found.append((taken - born).days / 365.25)
    return tuple(years for years in found if 0 <= years <= _OLDEST_YEARS)


def is_under(dataset: Dataset, years: float) -> bool:
    """Whether the age is known and every witness of it says less: a film is not left out for one slip of the pen."""
    ages = ages_years(dataset)
    return bool(ages) and max(ages) < years


def age_notes(dataset: Dataset) -> tuple[NoteCode, ...]:
    """One witness is enough for a warning."""
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
