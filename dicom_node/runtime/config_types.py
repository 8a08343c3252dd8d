"""Types of values in the configuration, each with its check."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints
from pydicom.datadict import tag_for_keyword

from dicom_node.runtime.patterns import compiled


def patterns(rules: dict[str, str]) -> dict[str, str]:
    """`rules` (regular expressions by DICOM keyword), unchanged. Raises ValueError for an invalid keyword or expression."""
    for keyword, pattern in rules.items():
        if tag_for_keyword(keyword) is None:
            raise ValueError(f"{keyword} is not a DICOM keyword (example: RequestedProcedurePriority)")
        try:
            compiled(pattern)
        except ValueError as error:
            raise ValueError(f"{keyword}: {error}") from error
    return rules


class Allowed(NamedTuple):
    """What a type of value may be, for an error: "must be ..."."""

    words: str
    secret: bool = False  # a wrong value is not shown: it may hold a password or a key


def _host(host: str) -> str:
    """A host name that no resolver accepts (an empty label, a port, a URL) is refused here, before it is called."""
    if _is_address(host):
        return host
    try:
        sound = bool(re.fullmatch(r"[A-Za-z0-9._-]*", host.encode("idna").decode()))
    except UnicodeError:  # an empty label, or one that is too long
        sound = False
    if not sound:
        hint = "; write the host alone: the port has its own key" if re.search(r"[:/]", host) else ""
        raise ValueError(f"{host[:60]!r} is not a host name or address{hint}")
    return host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _hosts(hosts: str) -> str:
    """A host, or a network of them."""
    try:
        ipaddress.ip_network(hosts, strict=False)
    except ValueError as error:
        if "/" in hosts:
            raise ValueError(f"{hosts[:60]!r} is not a host name, address or network (such as 10.1.0.0/16)") from error
        return _host(hosts)
    return hosts


def _url(url: str, schemes: tuple[str, ...]) -> str:
    """Nothing of a wrong URL is quoted: it may hold a password."""
    try:
        found = urlsplit(url)
    except ValueError as error:
        raise ValueError("is not a URL: the address in brackets is not an IPv6 address") from error
    if found.scheme not in schemes:
        raise ValueError(f"is not a URL that begins with {' or '.join(f'{one}://' for one in schemes)}")
    try:
        port = found.port
    except ValueError as error:
        raise ValueError("is not a URL: its port is not a number from 1 to 65535 (a / or # in a password: %2F, %23)") from error
    if port == 0 or not found.hostname:
        raise ValueError("is not a URL: it needs a host, and a port other than 0")
    try:
        _host(found.hostname)
    except ValueError as error:
        raise ValueError("is not a URL: its host is not a host name or address") from error
    return url


def _broker(url: str) -> str:
    return url if url.startswith("memory://") else _url(url, ("redis", "rediss"))


def _node(url: str) -> str:
    if url and "@" in urlsplit(_url(url, ("http", "https"))).netloc:
        raise ValueError("contains a user or password; a worker sends its token instead (work.token_file)")
    return url


def _file(name: str) -> str:
    """A file name, not its content: messages that name the file would show it."""
    if "-----BEGIN" in name or "\n" in name:
        raise ValueError("contains the content of a file; save it in a file and write the name of that file here")
    return name


def shown(url: str) -> str:
    """A URL without its possible secrets: user and password, and values of its query that are not known to be harmless."""
    scheme, colon, rest = url.partition("://")
    if "@" in rest:
        rest = f"***@{rest.rpartition('@')[2]}"
    rest, question, query = rest.partition("?")
    parts = [one if one.partition("=")[0] in _HARMLESS else f"{one.partition('=')[0]}=***" for one in query.split("&")]
    return scheme + colon + rest + question + ("&".join(parts) if question else "")


_HARMLESS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "virtual_host", "db")

AETitle = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$"),
    Allowed("an AE title (1 to 16 ASCII characters, no backslash)"),
]
_HOST = Allowed('a host name or an address in quotes, such as "10.0.0.7"')
Host = Annotated[str, AfterValidator(_host), _HOST]
PeerHost = Annotated[str, StringConstraints(min_length=1), AfterValidator(_host), _HOST]
Hosts = Annotated[
    str, AfterValidator(_hosts), Allowed('a host name, an address or a network in quotes, such as "10.0.0.7" or "10.1.0.0/16"')
]
BrokerUrl = Annotated[
    str, AfterValidator(_broker), Allowed('"memory://" or "redis://HOST:PORT/DB" (rediss: with TLS)', secret=True)
]
NodeUrl = Annotated[str, AfterValidator(_node), Allowed('a URL in quotes, such as "https://node.example:8114"', secret=True)]
File = Annotated[str, AfterValidator(_file), Allowed("the name of a file in quotes", secret=True)]
Port = Annotated[int, Field(ge=0, le=65535)]
PeerPort = Annotated[int, Field(ge=1, le=65535)]
Patterns = Annotated[dict[str, str], Allowed("a table: DICOM keyword = regular expression in quotes")]
StorageClass = Literal["CR", "DX", "DX-PROCESSING", "SC", "SC-MF-BYTE", "SC-MF-WORD"]
ObjectName = Literal["seg", "seg-positioned", "sr", "capture", "presentation"]
STORAGE_CLASSES: tuple[StorageClass, ...] = get_args(StorageClass)
