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
from dicom_node.work.job_runner import FilmInWork, Heartbeat, JobRunner

log = logging.getLogger(__name__)

_REMEMBERED = 8  # films whose time says how long the next ones may take

T = TypeVar("T")


class Pipeline:
    """`films`: in work at once; a third is read ahead, a third is on the device, a third is being written. `stopping`:
    whether to claim no more. One run stays far below `time_limit_seconds`, at which the process would be killed."""

    def __init__(
        self, runner: JobRunner, films: int, time_limit_seconds: float, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._runner = runner
        self._films = films
        self._share = max(1, films // 3)
        self._time_limit_seconds = time_limit_seconds
        self._stopping = stopping
        self._reader = ThreadPoolExecutor(min(self._share, os.cpu_count() or 1), "reader")
        self._writer = ThreadPoolExecutor(min(self._share, os.cpu_count() or 1), "writer")
        self._took: deque[float] = deque(maxlen=_REMEMBERED)  # seconds from claim to answer
        self._held = Heartbeat(runner.queue)  # of this wake-up
        self._began = 0.0
        self.device_failed = False  # on a film: this process claims no more, and is to be replaced

    def answer_ready(self) -> None:
        """Claim what is ready and answer it."""
        self._began, first = time.monotonic(), self._runner.claim()
        if first is None:
            return
        with Heartbeat(self._runner.queue, first) as self._held:
            second = self._another() if first.job.attempts == 1 else None
            if second is None:
                self._one(first)
            else:
                self._several(first, second)

    def _another(self) -> Claim | None:
        """One more film, if one is ready and will be answered long before the time limit."""
        if self._stopping() or self.device_failed or not self._took or not 0 < len(self._held) < self._films:
            return None
        expected = time.monotonic() - self._began + (len(self._held) + 1) * max(self._took)
        claim = self._runner.claim(beside=True) if expected < self._time_limit_seconds / 2 else None
        if claim is not None:
            self._held.hold(claim)
        return claim

    def _one(self, claim: Claim) -> None:
        film = self._read(claim)
        if film is not None:
            for done in self._forward([film]):
                self._finish(done)

    def _several(self, first: Claim, second: Claim) -> None:
        ahead: deque[Future[FilmInWork | None]] = deque(self._reader.submit(self._read, claim) for claim in (first, second))
        written: deque[Future[None]] = deque()
        while films := self._taken(ahead):
            if self.device_failed:  # read ahead, and not begun
                for film in films:
                    self._runner.give_back(film.claim)
                    self._held.drop(film.claim)
                continue
            while len(ahead) < self._share:
                ahead.append(self._reader.submit(self._read_another))
            for film in self._forward(films):
                while len(written) >= self._share:
                    written.popleft().result()
                written.append(self._writer.submit(self._finish, film))
        for one in written:
            one.result()

    def _taken(self, ahead: deque[Future[FilmInWork | None]]) -> list[FilmInWork]:
        """The next film for the device, and those behind it that are read already."""
        taken: list[FilmInWork] = []
        while ahead and len(taken) < self._share and (not taken or ahead[0].done()):
            film = ahead.popleft().result()
            if film is not None:
                taken.append(film)
        return taken

    def _read_another(self) -> FilmInWork | None:
        claim = self._another()
        return None if claim is None else self._read(claim)

    def _read(self, claim: Claim) -> FilmInWork | None:
        film = self._edge([claim], lambda: self._runner.read(claim))
        if film is None:
            self._held.drop(claim)
        return film

    def _forward(self, films: list[FilmInWork]) -> list[FilmInWork]:
        """Those whose forward pass ended."""

        def step() -> list[FilmInWork]:
            if not self._runner.forward(films):
                self.device_failed = True
            return films

        done = self._edge([film.claim for film in films], step)
        if done is None:
            for film in films:
                self._held.drop(film.claim)
        return done or []

    def _finish(self, film: FilmInWork) -> None:
        job = self._edge([film.claim], lambda: self._runner.finish(film))
        if job is not None:
            self._took.append(time.monotonic() - film.started)
        self._held.drop(film.claim)

    def _edge(self, claims: Sequence[Claim], step: Callable[[], T]) -> T | None:
        """The task edge (MemoryError too: else Celery would be woken for the film for ever). Other films go on."""
        try:
            return step()
        except Exception as problem:
            for claim in claims:
                log.exception("a worker could not finish a film", extra=claim.job.log_context())
                try:
                    self._runner.record_crash(claim, problem)
                except (NodeError, sqlite3.Error) as trouble:  # the lease runs out instead
                    log.error("a crash could not be recorded", extra={"error": type(trouble).__name__})
            return None
