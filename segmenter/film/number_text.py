"""Numbers written as text (DS and IS, PS3.5 section 6.2), also malformed ones: with a decimal comma, in brackets, with a
unit."""

from __future__ import annotations

import math
import re

_PROPER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_UNIT = re.compile(r"(?<=[\d.,\s])(mm|cm|µm|um|px|pixel|HU|%)\S*\s*$", re.IGNORECASE)
_ONE = re.compile(r"(?P<sign>[+-]?)\s*(?P<digits>\d[\d.,' ]*|[.,]\d+)(\s*[eEdD]\s*(?P<exponent>[+-]?\d+))?")
_GROUPED = {mark: re.compile(rf"[1-9]\d{{0,2}}(\{mark}\d{{3}})+") for mark in ".,' "}
_BETWEEN_TWO = (r"[;|/:x×*]", r"(?<=\d),\s+", r"\s+")


def as_number(written: str) -> float | None:
    """The number in a text; None when it contains none, more than one, or one that is not finite."""
    if _PROPER.fullmatch(written):
        found = float(written)
        return found if math.isfinite(found) else None
    plain = _UNIT.sub("", written.replace("\xa0", " ").replace("\u2212", "-"))
    numbers = list(_ONE.finditer(plain))
    if len(numbers) != 1 or "#" in plain:  # 1.#QNAN
        return None
    one = numbers[0]
    digits = _with_point(one["digits"].rstrip(" '"))
    if digits is None:
        return None
    found = float(f"{one['sign']}{digits}e{one['exponent'] or 0}")
    return found if math.isfinite(found) else None


def is_proper(written: str) -> bool:
    """Whether a text is a valid DS or IS, or empty."""
    return not written or _PROPER.fullmatch(written) is not None


def as_pair(written: str) -> tuple[float, float] | None:
    """Two numbers in one text, separated by something else than a backslash; None for any other text."""
    written = written.strip("[](){} ")
    ways = [re.split(between, written) for between in _BETWEEN_TWO]
    parts = written.split(",")
    if len(parts) == 4:  # two decimal commas and one that separates
        ways.append([",".join(parts[:2]), ",".join(parts[2:])])
    elif all("." in part for part in parts):
        ways.append(parts)
    for way in ways:
        found = [as_number(part.strip()) for part in way if part.strip()]
        if len(found) == 2 and found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def _with_point(digits: str) -> str | None:
    """The digits with a decimal point: the last of two different marks, or a single comma; repeated marks group thousands. None
    for any other text."""
    marks = [one for one in digits if one in ".,' "]
    decimal = marks[-1] if marks and marks[-1] in ".," and marks.count(marks[-1]) == 1 else ""
    whole, _, fraction = digits.partition(decimal) if decimal else (digits, "", "")
    for mark in dict.fromkeys(one for one in whole if one in ".,' "):
        if not _GROUPED[mark].fullmatch(whole):
            return None
    whole = re.sub(r"\D", "", whole)
    return f"{whole or '0'}.{fraction or '0'}" if fraction.isdigit() or not fraction else None
