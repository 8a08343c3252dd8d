"""Hosts of peers: whether an address is one that the configuration allows, and whether it is this machine."""

from __future__ import annotations

import ipaddress
import logging
import socket

log = logging.getLogger(__name__)


def is_host(host: str, allowed: str) -> bool:
    """Whether `host` (an address) is `allowed`: an address, a network such as 10.1.0.0/16, or a name."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(allowed, strict=False)
    except ValueError:
        pass
    try:
        return host in {str(entry[4][0]) for entry in socket.getaddrinfo(allowed, None)}
    except (OSError, ValueError):
        log.warning("the host name %s ([receive.allowed] or [peers]) cannot be resolved", allowed)
        return False


def is_loopback(host: str) -> bool:
    """Whether every address of `host` is this machine; a name that cannot be resolved is not."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, ValueError):
        return False
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)
