"""A PACS that misbehaves as it is told, and writes down every object that it was ever sent.

What counts at the PACS: one result UID per source film, one sha256 per UID. An object that came twice with the same
UID and the same bytes is one object; anything else is a double.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import decode
from pynetdicom.presentation import AllStoragePresentationContexts
from recording_pacs import source_of

LATE, CLOSE, ABORT = "answers when nobody waits any more", "closes in the middle of the object", "aborts when it has the object"


@dataclass(frozen=True)
class Received:
    """One object as it came in, whole."""

    source: str  # SOP Instance UID of the film it was made from
    uid: str
    sha256: str  # of the dataset, as sent
    series: str  # its SeriesDescription
    kept: bool  # whether the PACS has it now, whatever it answered
    role: str = ""  # its Modality, in small letters


class RudePacs:
    """`script[uid]`: what to do with the next tries of that object, a status or LATE, CLOSE, ABORT; then `answer`.

    `closed_to_us`: the association is rejected. `classes`: SOP classes accepted (None: all storage classes).
    """

    def __init__(self, port: int = 0, *, ae_title: str = "PACS") -> None:
        self.port, self.ae_title = port, ae_title
        self.answer: int | Callable[[str], int] = 0x0000
        self.script: dict[str, deque[int | str]] = defaultdict(deque)
        self.closed_to_us = False
        self.classes: Iterable[str] | None = None
        self.records: list[Received] = []
        self.slow_seconds = 0.0  # before every answer
        self._lock = threading.Lock()
        self._closing = threading.local()

    @contextmanager
    def serving(self) -> Iterator[RudePacs]:
        """Up while the block runs; may be entered again, the port stays."""
        ae = AE(self.ae_title)
        ae.maximum_pdu_size = 4096  # even a small SEG comes in several pieces
        if self.closed_to_us:
            ae.require_calling_aet = ["SOMEBODY-ELSE"]
        for context in AllStoragePresentationContexts:
            if self.classes is None or context.abstract_syntax in self.classes:
                ae.add_supported_context(str(context.abstract_syntax))
        if not ae.supported_contexts:
            ae.add_supported_context("1.2.840.10008.1.1")
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_DATA_RECV, self._fragment)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None and server.socket is not None
        self.port = server.socket.getsockname()[1]
        try:
            yield self
        finally:
            server.shutdown()

    # -- what came ---------------------------------------------------------------------------------------------

    def of(self, source: str) -> list[Received]:
        return [one for one in self.records if one.source == source]

    def roles(self, source: str) -> list[str]:
        """Of every object of this film that ever came, in order of name."""
        return sorted(one.role for one in self.of(source))

    def lost(self, sources: Iterable[str]) -> list[str]:
        """Films whose result is not here."""
        here = {one.source for one in self.records if one.kept}
        return [source for source in sources if source not in here]

    def doubled(self) -> list[str]:
        """Films with two results of one role, UIDs with two contents. Refused objects count too: they went over the wire."""
        uids, contents = defaultdict(set), defaultdict(set)
        for one in self.records:
            uids[one.source, one.role].add(one.uid)
            contents[one.uid].add(one.sha256)
        return [str(key) for found in (uids, contents) for key, values in found.items() if len(values) > 1]

    # -- what it does ------------------------------------------------------------------------------------------

    def _fragment(self, event: evt.Event) -> None:
        """Close the line when the second piece of an object with CLOSE in its script arrives."""
        message = event.assoc.dimse.message
        if event.data[0] != 0x04 or message is None or not message.encoded_command_set.getvalue():
            return
        command = decode(BytesIO(message.encoded_command_set.getvalue()), True, True)
        script = self.script.get(str(command.get("AffectedSOPInstanceUID")))
        if script and script[0] == CLOSE:
            script.popleft()
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    def _store(self, event: evt.Event) -> int:
        uid, data = str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()
        with self._lock:
            todo = self.script[uid].popleft() if self.script[uid] else self.answer
            if callable(todo):
                todo = todo(uid)
            kept = todo == LATE or (isinstance(todo, int) and (todo == 0 or todo & 0xF000 == 0xB000))
            dataset = event.dataset
            series, sha256 = str(dataset.get("SeriesDescription", "")), hashlib.sha256(data).hexdigest()
            role = str(dataset.get("Modality", "")).lower()
            self.records.append(Received(source_of(dataset), uid, sha256, series, kept, role))
        if todo == LATE:
            _wait_for_the_end(event.assoc)
        time.sleep(self.slow_seconds)
        if todo == ABORT:
            event.assoc.abort()
        return todo if isinstance(todo, int) else 0x0000


def _wait_for_the_end(association: Association) -> None:
    """Until the other side has ended the connection; this thread is the one that answers, another one reads."""
    until = time.monotonic() + 120
    while association.dul.state_machine.current_state == "Sta6" and time.monotonic() < until:
        time.sleep(0.05)
