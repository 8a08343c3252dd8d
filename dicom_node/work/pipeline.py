"""Several films at once: while the device works on some, the next are read and the last are written.

    reader: claim, fetch, decode, place   ->   device: forward pass   ->   writer: mask, objects, disk, ledger

A wake-up processes ready films until none is left or the time limit nears; it never waits for films. A film that was tried
before is worked on alone, and so is the first one of a process, whose speed is not known yet. A film alone goes through in
this thread.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from dicom_node.runtime.errors import NodeError
from dicom_node.storage.leases import Claim
from dicom_node.work.job_runner import Heartbeat, OnBench, Workbench

log = logging.getLogger(__name__)

_REMEMBERED = 8  # films whose time says how long the next ones may take

T = TypeVar("T")


class Conveyor:
    """`films`: on the bench at once; a third is read ahead, a third is on the device, a third is being written. `stopping`:
    whether to claim no more. The whole run stays far below `time_limit_seconds`, at which the process would be killed."""

    def __init__(
        self, bench: Workbench, films: int, time_limit_seconds: float, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._bench = bench
        self._films = films
        self._share = max(1, films // 3)
        self._time_limit_seconds = time_limit_seconds
        self._stopping = stopping
        self._reader = ThreadPoolExecutor(min(self._share, os.cpu_count() or 1), "reader")
        self._writer = ThreadPoolExecutor(min(self._share, os.cpu_count() or 1), "writer")
        self._took: deque[float] = deque(maxlen=_REMEMBERED)  # seconds from claim to answer
        self._held = Heartbeat(bench.node)  # of this ring of the bell
        self._began = 0.0
        self.worn_out = False  # the device failed a film: this process claims no more, and is to be replaced

    def answer_ready(self) -> None:
        """Claim what is ready and answer it."""
        self._began, first = time.monotonic(), self._bench.claim()
        if first is None:
            return
        with Heartbeat(self._bench.node, first) as self._held:
            second = self._another() if first.job.attempts == 1 else None
            if second is None:
                self._one(first)
            else:
                self._several(first, second)

    def _another(self) -> Claim | None:
        """One more film, if one is ready and will be answered long before the time limit."""
        if self._stopping() or self.worn_out or not self._took or not 0 < len(self._held) < self._films:
            return None
        expected = time.monotonic() - self._began + (len(self._held) + 1) * max(self._took)
        claim = self._bench.claim(beside=True) if expected < self._time_limit_seconds / 2 else None
        if claim is not None:
            self._held.hold(claim)
        return claim

    def _one(self, claim: Claim) -> None:
        piece = self._read(claim)
        if piece is not None:
            for read in self._forward([piece]):
                self._finish(read)

    def _several(self, first: Claim, second: Claim) -> None:
        ahead: deque[Future[OnBench | None]] = deque(self._reader.submit(self._read, claim) for claim in (first, second))
        written: deque[Future[None]] = deque()
        while pieces := self._taken(ahead):
            if self.worn_out:  # read ahead, and not begun
                for piece in pieces:
                    self._bench.give_back(piece.claim)
                    self._held.drop(piece.claim)
                continue
            while len(ahead) < self._share:
                ahead.append(self._reader.submit(self._read_another))
            for piece in self._forward(pieces):
                while len(written) >= self._share:
                    written.popleft().result()
                written.append(self._writer.submit(self._finish, piece))
        for one in written:
            one.result()

    def _taken(self, ahead: deque[Future[OnBench | None]]) -> list[OnBench]:
        """The next film for the device, and those behind it that are read already."""
        taken: list[OnBench] = []
        while ahead and len(taken) < self._share and (not taken or ahead[0].done()):
            piece = ahead.popleft().result()
            if piece is not None:
                taken.append(piece)
        return taken

    def _read_another(self) -> OnBench | None:
        claim = self._another()
        return None if claim is None else self._read(claim)

    def _read(self, claim: Claim) -> OnBench | None:
        piece = self._edge([claim], lambda: self._bench.read(claim))
        if piece is None:
            self._held.drop(claim)
        return piece

    def _forward(self, pieces: list[OnBench]) -> list[OnBench]:
        """Those that have been on the device."""

        def step() -> list[OnBench]:
            if not self._bench.forward(pieces):
                self.worn_out = True
            return pieces

        passed = self._edge([piece.claim for piece in pieces], step)
        if passed is None:
            for piece in pieces:
                self._held.drop(piece.claim)
        return passed or []

    def _finish(self, piece: OnBench) -> None:
        job = self._edge([piece.claim], lambda: self._bench.finish(piece))
        if job is not None:
            self._took.append(time.monotonic() - piece.started)
        self._held.drop(piece.claim)

    def _edge(self, claims: Sequence[Claim], step: Callable[[], T]) -> T | None:
        """The task edge (MemoryError too: Celery would ring for the film for ever). Who is not concerned goes on."""
        try:
            return step()
        except Exception as problem:
            for claim in claims:
                log.exception("a worker could not finish a film", extra=claim.job.log_context())
                try:
                    self._bench.stumbled(claim, problem)
                except (NodeError, sqlite3.Error) as trouble:  # the ledger's: the lease runs out instead
                    log.error("a film's trouble could not be told", extra={"error": type(trouble).__name__})
            return None
