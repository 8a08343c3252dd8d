"""Kinds of values in the configuration, each with what makes one wrong."""

from __future__ import annotations

from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydicom.datadict import tag_for_keyword

from dicom_node.patterns import compiled


def patterns(rules: dict[str, str]) -> dict[str, str]:
    """`rules`, by DICOM keyword, when each keyword and expression is one. Raises ValueError."""
    for keyword, pattern in rules.items():
        if tag_for_keyword(keyword) is None:
            raise ValueError(f"{keyword} is no DICOM keyword (example: RequestedProcedurePriority)")
        try:
            compiled(pattern)
        except ValueError as error:
            raise ValueError(f"{keyword}: {error}") from error
    return rules


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
