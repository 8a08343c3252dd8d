"""Kinds of values in the configuration, each with what makes one wrong."""

from __future__ import annotations

import re
import re._parser as sre_parser  # type: ignore[import-not-found]  # nothing public tells how a pattern is built
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydicom.datadict import tag_for_keyword


def patterns(rules: dict[str, str]) -> dict[str, str]:
    """`rules`, by DICOM keyword, when each keyword and expression is one. Raises ValueError."""
    for keyword, pattern in rules.items():
        if tag_for_keyword(keyword) is None:
            raise ValueError(f"{keyword} is no DICOM keyword (example: RequestedProcedurePriority)")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{keyword}: {pattern!r} is no regular expression ({error})") from error
        if _repeats_a_repeat(sre_parser.parse(pattern)):
            raise ValueError(f"{keyword}: {pattern!r} repeats a repetition, which can take for ever; leave the outer one out")
    return rules


def _repeats_a_repeat(parsed: Iterable[Any], inside: bool = False) -> bool:
    """Whether something without an upper limit stands in something without one, as in (a+)+: backtracking then takes
    exponential time, and it is the header of a film that decides."""
    for operation, what in parsed:
        endless = operation in (sre_parser.MAX_REPEAT, sre_parser.MIN_REPEAT) and what[1] == sre_parser.MAXREPEAT
        if endless and inside:
            return True
        if any(_repeats_a_repeat(part, inside or endless) for part in _parts(what)):
            return True
    return False


def _parts(what: Any) -> Iterator[Iterable[Any]]:
    """The patterns inside an operation of a parsed pattern, however deep its arguments hold them."""
    if isinstance(what, sre_parser.SubPattern):
        yield what
    elif isinstance(what, (tuple, list)):
        for one in what:
            yield from _parts(one)


def _host(host: str) -> str:
    """Host names that no resolver takes (an empty label, for one) are said here, and not where they are called."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{host!r} is no host name or address ({error})") from error
    return host


def _url(url: str) -> str:
    try:
        found = urlsplit(url)
        sound = not url or found.scheme == "memory" or bool(found.port != 0 and found.hostname and _host(found.hostname))
    except ValueError as error:
        raise ValueError(f"is no URL ({error})") from error
    if not sound:
        raise ValueError("is no URL: it needs a host")
    return url


AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")]
Host = Annotated[str, AfterValidator(_host)]
Url = Annotated[str, AfterValidator(_url)]
Port = Annotated[int, Field(ge=0, le=65535)]
StorageClass = Literal["CR", "DX", "DX-PROCESSING", "SC", "SC-MF-BYTE", "SC-MF-WORD"]
ObjectName = Literal["seg", "seg-positioned", "sr", "capture", "presentation"]
STORAGE_CLASSES: tuple[StorageClass, ...] = get_args(StorageClass)
