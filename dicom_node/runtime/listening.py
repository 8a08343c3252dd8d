"""Listening TCP sockets."""

from __future__ import annotations

import socket

from dicom_node.runtime.errors import ConfigError


def listening(host: str, port: int, keys: str) -> socket.socket:
    """A non-blocking listening socket that child processes may inherit. `keys`: the settings that give host and port.

    Raises ConfigError with the remedy."""
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"{keys}: cannot listen on {host}:{port} ({error.strerror}); "
            "stop what listens there, or choose another port (under 1024 needs CAP_NET_BIND_SERVICE)"
        ) from error
    listener.setblocking(False)
    listener.set_inheritable(True)
    return listener
