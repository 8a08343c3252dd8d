"""A C-ECHO to a destination, as the sender would associate with it."""

from __future__ import annotations

from dicom_node.dimse.contexts import echo_context
from dicom_node.runtime.config import Config
from dicom_node.send.associate import NoAssociation, associate


def echo(config: Config, destination: str) -> str | None:
    """A real C-ECHO to a peer; None when it answered, else the sentence that says what is wrong."""
    peer = config.peers[destination]
    try:
        association = associate(config, destination, [echo_context()])
    except NoAssociation as why:
        return f"{why} at {peer.host}:{peer.port}"
    status = association.send_c_echo().get("Status")
    association.close()
    if status is None:
        return f"{destination}: C-ECHO was not answered at {peer.host}:{peer.port}"
    return None if status == 0x0000 else f"{destination}: C-ECHO was answered with {status:04X}"
