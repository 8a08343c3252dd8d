"""Why a connection to Redis or to the node failed, with the remedy. Nothing of a URL is quoted."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

from dicom_node.runtime import tls_errors

_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def why(error: BaseException, *, host: str, ca_key: str) -> str:
    """A clause to follow the name of the server. `host`: its host; `ca_key`: the setting that names the trusted CAs.

    The libraries wrap the system's error: the first known cause counts.
    """
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return tls_errors.of_server(one, host, ca_key)
        if isinstance(one, ssl.SSLError):
            return tls_errors.of_connection(one)
        if isinstance(one, socket.gaierror):
            return f"the host name {host} cannot be resolved (DNS)"
        if isinstance(one, ConnectionRefusedError):
            return "nothing listens on its port (connection refused); is it running, are address and port right?"
        if isinstance(one, ConnectionResetError | BrokenPipeError):
            return "it closed the connection; does it expect TLS, or does a firewall block it?"
        if "Authentication" in type(one).__name__:
            return "it refuses our password, or needs one"
        if isinstance(one, TimeoutError) or "Timeout" in type(one).__name__:
            return "no answer in time; is the address right, does it use TLS there, does a firewall block it?"
        if isinstance(one, OSError) and one.errno in _NO_ROUTE:
            return "there is no route to it"
        if "Disconnected" in str(one) or type(one).__name__ == "RemoteProtocolError":
            return "it closed the connection without an answer; does it expect TLS?"
    return type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The innermost first: the system's error, then how a library calls it."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    yield from reversed(chain)
