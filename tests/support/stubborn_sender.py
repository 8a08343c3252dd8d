"""A modality that keeps a film until it was answered with 0000, and sends it again until then."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.presentation import build_context
from servers import NODE_AE, SENDER


def try_once(film: Dataset | Path, port: int, calling: str, sop_class: str, syntax: str, called: str = NODE_AE) -> int | None:
    """The status of one C-STORE; None when there was no association or no answer."""
    ae = AE(ae_title=calling)
    ae.connection_timeout = ae.acse_timeout = 10
    ae.dimse_timeout = ae.network_timeout = 30
    association = ae.associate("127.0.0.1", port, contexts=[build_context(sop_class, [syntax])], ae_title=called)
    if not association.is_established:
        return None
    try:
        status = association.send_c_store(film).get("Status")
        association.release()
    except (RuntimeError, ValueError, AttributeError, OSError):  # it died under us
        return None
    return status


def send(film: Dataset, port: int, seconds: float = 60.0, calling: str = SENDER, stop: threading.Event | None = None) -> int:
    """Until 0000; how many times it was sent. Raises TimeoutError when it is never taken (or `stop` was set)."""
    until = time.monotonic() + seconds
    tries = 1
    while try_once(film, port, calling, film.SOPClassUID, film.file_meta.TransferSyntaxUID) != 0x0000:
        if time.monotonic() > until or (stop is not None and stop.is_set()):
            raise TimeoutError(f"not taken after {tries} tries")
        time.sleep(0.05)
        tries += 1
    return tries
