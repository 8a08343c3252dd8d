"""The demo PACS: a storage SCP on loopback that keeps every object it is sent. Used by the demo and the tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]


@dataclass
class DemoPacs:
    """`port`: where it listens, 0: any free one; `received`: (SOP Instance UID, file) of every C-STORE in order, repeated ones
    included."""

    folder: Path
    ae_title: str = "DEMOPACS"
    port: int = 0
    status: int = 0x0000  # answered to every C-STORE; tests change it
    received: list[tuple[str, Path]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def serving(self) -> Iterator[DemoPacs]:
        """Listen on loopback while the block runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self.ae_title)
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax))
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        assert server is not None and server.socket is not None, "start_server(block=False) returns its server"
        self.port = server.socket.getsockname()[1]
        try:
            yield self
        finally:
            server.shutdown()

    def _store(self, event: evt.Event) -> int:
        if self.status != 0x0000:
            return self.status
        uid = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        with self._lock:
            file = self.folder / f"{len(self.received) + 1}.dcm"
            file.write_bytes(event.encoded_dataset())
            self.received.append((uid, file))
        return 0x0000
