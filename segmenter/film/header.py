"""Reading header values that may be absent, empty, garbled, of the wrong VR or multiplicity.

Nothing here raises for a bad value: it is treated as absent, because a film must not fail for an element that does not matter.
"""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
import unicodedata
import warnings
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from segmenter.film.number_text import as_number, as_pair, is_proper

_UNREADABLE = (
    ValueError, TypeError, ArithmeticError, LookupError, AttributeError, NotImplementedError, RecursionError, OSError,
    struct.error, BytesLengthException,
)  # fmt: skip
_changes = ExitStack()  # restores what `without_warnings` changed
_counting = threading.Lock()
_threads_inside = 0  # of `without_warnings`
_ACCENTED = re.compile("[\u00c0-\u024f\u0370-\u03ff\u1e00-\u1fff]")  # Latin and Greek: й and ゲ are letters of their own
_JOINED = str.maketrans({"Ł": "L", "Ø": "O", "Đ": "D", "Æ": "AE", "Œ": "OE", "Ĳ": "IJ", "Þ": "TH", "Ð": "D", "İ": "I"})
_TEXTS = (None, "DS", "IS", "LO", "SH", "LT", "ST", "UT", "UC", "CS", "UN")  # VRs that a number may be written in
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Suppresses warnings of pydicom and highdicom: they quote header values, and header values are patient data.

    Changes settings of the process: the first thread that enters sets them, the last one that leaves restores them.
    """
    global _threads_inside
    with _counting:
        if _threads_inside == 0:
            _silence()
        _threads_inside += 1
    try:
        yield
    finally:
        with _counting:
            _threads_inside -= 1
            if _threads_inside == 0:
                _changes.close()


def _silence() -> None:
    for name in ("pydicom", "highdicom"):
        logger = logging.getLogger(name)
        _changes.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)
    _changes.enter_context(warnings.catch_warnings())
    _changes.enter_context(config.disable_value_validation())
    warnings.simplefilter("ignore")


def for_reading(dataset: Dataset) -> Dataset:
    """A dataset of the same elements, to read values from. pydicom converts an element when its value is read; in the original
    dataset the elements keep the bytes they arrived in. Not for datasets that were read with `defer_size`."""
    view = Dataset({tag: dataset.get_item(tag, keep_deferred=True) for tag in dataset.keys()})  # noqa: SIM118
    implicit_vr, little_endian = dataset.original_encoding
    view.set_original_encoding(implicit_vr, little_endian, dataset.original_character_set)  # type: ignore[arg-type]
    if hasattr(dataset, "file_meta"):
        view.file_meta = dataset.file_meta
    return view


def value(dataset: Dataset, keyword: str) -> Any:
    """The value as pydicom converts it; None when it is absent, empty or cannot be converted."""
    try:
        found = dataset.get(keyword)
    except _UNREADABLE:
        return None
    return None if found is None or (isinstance(found, str | list | MultiValue) and len(found) == 0) else found


def has_value(dataset: Dataset, keyword: str) -> bool:
    """Whether the element has a value, readable or not."""
    tag = Tag(keyword)
    if tag not in dataset:
        return False
    held = dataset.get_item(tag, keep_deferred=True).value
    if isinstance(held, bytes):
        return bool(held.strip(b" \0\\"))
    return held is not None and (not hasattr(held, "__len__") or len(held) > 0)


def text(dataset: Dataset, keyword: str) -> str:
    """One line of text, stripped; several values joined by a backslash; "" when there is none."""
    found = value(dataset, keyword)
    if found is None:
        return ""
    values = found if isinstance(found, MultiValue | list | tuple) else [found]
    try:
        parts = [str(v).strip() for v in values]
    except _UNREADABLE:  # a sequence with a bad item in place of text
        return ""
    return "\\".join(parts) if any(parts) else ""


def normalised(written: str) -> str:
    """A text as descriptions are compared: upper case, without accents of Latin and Greek letters, full-width letters as usual
    ones, underscores as blanks."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", written).replace("_", " ").upper().translate(_JOINED))
    return _ACCENTED.sub(lambda one: unicodedata.normalize("NFD", one[0])[0], composed)


def joined_text(dataset: Dataset, keywords: Sequence[str]) -> str:
    """The texts of these elements, joined and normalised."""
    return normalised(" | ".join(text(dataset, keyword) for keyword in keywords))


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a text with several values, upper case, stripped; () when there is none."""
    found = text(dataset, keyword)
    return tuple(v.strip().upper() for v in found.split("\\")) if found else ()


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """All values as finite floats; () when there is none or any of them is not a finite number."""
    found = numbers_or_gaps(dataset, keyword)
    return () if None in found else found  # type: ignore[return-value]


def numbers_or_gaps(dataset: Dataset, keyword: str) -> tuple[float | None, ...]:
    """All values as finite floats, None in place of any other value. Malformed DS and IS are read by
    `number_text.as_number`."""
    written = _written(dataset, keyword)
    if written is not None:
        if len(written) == 1 and dictionary_VM(keyword).startswith("2") and (pair := as_pair(written[0])):
            return pair
        return tuple(as_number(one) for one in written)
    found = value(dataset, keyword)
    if found is None or isinstance(found, bytes):
        return ()
    return tuple(_finite(one) for one in (found if isinstance(found, MultiValue | list | tuple) else [found]))


def malformed(dataset: Dataset, keyword: str) -> bool:
    """Whether a number that could be read is not a valid DS or IS (PS3.5 section 6.2)."""
    written = _written(dataset, keyword) or ()
    return any(not is_proper(one) and (as_number(one) is not None or as_pair(one) is not None) for one in written)


def _written(dataset: Dataset, keyword: str) -> tuple[str, ...] | None:
    """The values of an element whose VR should be DS or IS, as text, whatever its VR in the file; None for other elements."""
    tag = Tag(keyword)
    if tag not in dataset or dictionary_VR(tag) not in ("DS", "IS"):
        return None
    element = dataset.get_item(tag, keep_deferred=True)
    held = element.value
    if isinstance(held, bytes) and element.VR in _TEXTS:
        try:
            held = held.decode("utf-8")
        except UnicodeDecodeError:
            held = held.decode("latin-1")
    if isinstance(held, bytes):
        return None
    values = held.split("\\") if isinstance(held, str) else held if isinstance(held, MultiValue | list | tuple) else [held]
    texts = ["" if one is None else str(one).strip(" \0\t\r\n") for one in values]
    while texts and not texts[-1]:
        texts.pop()
    return tuple(texts)


def _finite(one: Any) -> float | None:
    try:
        return found if math.isfinite(found := float(one)) else None
    except _UNREADABLE:
        return None


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value that is a finite float, or None."""
    return next((one for one in numbers_or_gaps(dataset, keyword) if one is not None), None)


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value as a whole number, or None."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; () when it is absent or not a sequence."""
    found = value(dataset, keyword)
    return tuple(i for i in found if isinstance(i, Dataset)) if isinstance(found, MutableSequence) else ()


def is_uid(found: str) -> bool:
    """Whether a text is a UID: digits and dots, at most 64 characters (PS3.5 section 9.1). Leading zeros of a component, which
    the standard forbids, occur and are accepted."""
    return len(found) <= 64 and _UID.fullmatch(found) is not None
