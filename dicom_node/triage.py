"""Which films go first. Decided when a film arrives, by who brought it or by what its header says (config: [queue])."""

from __future__ import annotations

import re

from dicom_node.config import Queue
from dicom_node.film import UNREADABLE, header


class Triage:
    def __init__(self, queue: Queue) -> None:
        self._from = frozenset(queue.urgent_from)
        self._when = {keyword: re.compile(pattern) for keyword, pattern in queue.urgent_when.items()}

    def queue_of(self, calling_ae: str, dataset: memoryview, transfer_syntax_uid: str) -> str:
        """ "urgent" or "normal"; a header that can not be read makes no film urgent."""
        if calling_ae in self._from:
            return "urgent"
        if not self._when:
            return "normal"
        found = header(dataset, transfer_syntax_uid, list(self._when))
        for keyword, pattern in self._when.items():
            try:
                value = str(found.get(keyword, ""))
            except UNREADABLE:
                continue
            if value and pattern.search(value):
                return "urgent"
        return "normal"
