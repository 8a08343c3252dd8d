r"""Regular expressions of the configuration, matched by RE2: in a time that grows linearly with the value, whatever a header
holds.

They are written as Python's are. \w, \d, \s and their opposites know all letters, as in Python and unlike RE2's own; \b knows
ASCII letters only. What RE2 does not know (look-around, back-references, possessive repetition) is refused.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import re2

Pattern: TypeAlias = "re2._Regexp"

# What each class is within []: Unicode's general categories, as `str.isalnum`, `str.isdecimal` and `str.isspace`.
_CLASSES = {
    "w": r"\pL\pN_",
    "W": r"\pM\pS\pZ\pC\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}\x{203f}\x{2040}\x{2054}\x{fe33}\x{fe34}\x{fe4d}-\x{fe4f}\x{ff3f}",
    "d": r"\p{Nd}",
    "D": r"\P{Nd}",
    "s": r"\t-\r\x1c-\x20\x85\pZ",
    "S": r"\x00-\x08\x0e-\x1b\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}"
    r"\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff}",
}
_TOKEN = re.compile(r"\\(?:u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|\[\^?\]?|.", re.DOTALL)
_BOUND_BY_ANOTHER_LETTER = re.compile(r"[^\x00-\x7f]\\[bB]|\\[bB][^\x00-\x7f]")

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # the error says it


def compiled(pattern: str) -> Pattern:
    """A pattern of RE2. Raises ValueError with the reason when it cannot be used."""
    if _BOUND_BY_ANOTHER_LETTER.search(pattern):
        raise ValueError(rf"{pattern!r}: \b knows ASCII letters only; write (^|\W) and ($|\W) in its place")
    try:
        return re2.compile(_in_re2(pattern), options=_OPTIONS)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        why = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(
            f"{pattern!r} is not a regular expression that RE2 knows ({why}); it has no look-around or back-references, and "
            "repeats at most 1000 times"
        ) from error


def found_in(pattern: Pattern, value: str) -> bool:
    """Whether `value`, of any length and encoding, contains a match."""
    return pattern.search(value.encode("utf-8", "replace")) is not None  # `replace`: a broken text may hold half characters


def _in_re2(pattern: str) -> str:
    """The same pattern in RE2's syntax."""
    parts, inside = [], False
    for token in _TOKEN.findall(pattern):
        if token[0] == "\\" and len(token) > 1:
            parts.append(_escaped(token[1:], inside))
        elif token[0] == "[":
            parts.append(token if not inside else token.replace("[", r"\["))  # within [] it is an ordinary character
            inside = not (inside and token.endswith("]"))
        else:
            inside = inside and token != "]"
            parts.append(token)
    return "".join(parts)


def _escaped(letter: str, inside: bool) -> str:
    if letter in _CLASSES:
        return _CLASSES[letter] if inside else f"[{'^' if letter.isupper() else ''}{_CLASSES[letter.lower()]}]"
    if letter[0] in "uU" and len(letter) > 1:
        return rf"\x{{{letter[1:]}}}"
    if letter == "Z" and not inside:
        return r"\z"
    return letter if not letter.isascii() else f"\\{letter}"
