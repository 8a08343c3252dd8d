"""Several films in work: what is claimed beside what, and that no film disturbs another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dicom_node.api.schemas import ClaimReply, claim_from
from dicom_node.storage.leases import Claim
from dicom_node.work.job_runner import FilmInWork
from dicom_node.work.pipeline import Pipeline


def film(number: int, attempts: int = 1) -> Claim:
    task = ClaimReply(
        job_id=f"{number:016x}", sop_instance_uid=f"1.{number}", sop_class_uid="1.2", transfer_syntax_uid="1.2",
        dataset_sha256="0" * 64, size=1, attempts=attempts, crashes=0, generation=1, lease_seconds=30, kinds=(),
    )  # fmt: skip
    return claim_from(task, f"{number:032x}")


@dataclass
class Runner:
    """A job runner that writes down what happens to its films. `trouble`: number of a film and the stage in which it raises."""

    waiting: list[Claim]
    trouble: tuple[int, str] = (-1, "")
    seconds: float = 0.0
    queue: Any = None
    beside: list[bool] = field(default_factory=list)
    together: int = 0
    held: set[str] = field(default_factory=set)
    finished: list[str] = field(default_factory=list)
    charged: list[str] = field(default_factory=list)
    given_back: list[str] = field(default_factory=list)
    failed_by_the_device: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    heartbeat_seconds: float = 60.0

    def __post_init__(self) -> None:
        self.queue = self

    def claim(self, *, beside: bool = False) -> Claim | None:
        with self.lock:
            if not self.waiting or (beside and self.waiting[0].job.attempts > 1):
                return None
            claim = self.waiting.pop(0)
            self.beside.append(beside)
            self.held.add(claim.owner)
            self.together = max(self.together, len(self.held))
            return claim

    def _step(self, stage: str, claims: list[Claim]) -> None:
        time.sleep(self.seconds)
        for claim in claims:
            if (int(claim.job.job_id, 16), stage) == self.trouble:
                raise MemoryError(stage)

    def read(self, claim: Claim) -> FilmInWork:
        self._step("read", [claim])
        return FilmInWork(claim, time.monotonic() - self.seconds)

    def forward(self, films: list[FilmInWork]) -> bool:
        self._step("forward", [film.claim for film in films])
        return not any(int(film.claim.job.job_id, 16) in self.failed_by_the_device for film in films)

    def give_back(self, claim: Claim) -> None:
        with self.lock:
            self.held.discard(claim.owner)
            self.given_back.append(claim.job.job_id)

    def finish(self, film: FilmInWork) -> str:
        self._step("finish", [film.claim])
        with self.lock:
            self.held.discard(film.claim.owner)
            self.finished.append(film.claim.job.job_id)
        return "a job"

    def record_crash(self, claim: Claim, problem: Exception) -> None:
        with self.lock:
            self.held.discard(claim.owner)
            self.charged.append(claim.job.job_id)


def drained(runner: Runner, films: int, limit: float = 60.0, stopping: Callable[[], bool] = lambda: False) -> Pipeline:
    pipeline = Pipeline(runner, films, limit, stopping)  # type: ignore[arg-type]
    while runner.waiting:
        pipeline.answer_ready()
    return pipeline


@pytest.mark.parametrize("films", [1, 3, 12])
@pytest.mark.parametrize("stage", ["read", "forward", "finish"])
def test_a_film_that_fails_takes_no_other_with_it(films: int, stage: str) -> None:
    """Only in a forward pass that several films shared it cannot be told whose fault it was: all of these are tried again."""
    runner = Runner([film(number) for number in range(20)], trouble=(7, stage))
    drained(runner, films)
    assert film(7).job.job_id in runner.charged and film(7).job.job_id not in runner.finished
    assert len(runner.charged) <= (max(1, films // 3) if stage == "forward" else 1)
    assert len(runner.finished) + len(runner.charged) == 20 and runner.held == set()


@pytest.mark.parametrize("films", [1, 3, 12])
def test_when_the_device_fails_nothing_more_is_claimed(films: int) -> None:
    """Result: what was on it ends as it ended, what was read ahead is given back untouched; the process is to be replaced."""
    runner = Runner([film(number) for number in range(40)], failed_by_the_device={7})
    pipeline = Pipeline(runner, films, 60.0)  # type: ignore[arg-type]
    while not pipeline.device_failed:
        pipeline.answer_ready()
    assert film(7).job.job_id in runner.finished and runner.charged == [] and runner.held == set()
    assert len(runner.finished) <= 8 + films and len(runner.given_back) <= films
    assert len(runner.waiting) + len(runner.finished) + len(runner.given_back) == 40
    assert not set(runner.given_back) & set(runner.finished)


def test_as_many_films_are_in_work_as_may_be_and_the_first_film_of_a_process_is_alone() -> None:
    runner = Runner([film(number) for number in range(20)], seconds=0.01)
    drained(runner, 3)
    assert runner.beside[:3] == [False, False, True] and 1 < runner.together <= 3
    singly = Runner([film(number) for number in range(5)])
    drained(singly, 1)
    assert singly.beside == [False] * 5 and singly.together == 1


def test_what_was_tried_before_is_alone() -> None:
    runner = Runner([film(0), film(1), film(2), film(3, attempts=2), film(4), film(5)])
    drained(runner, 12)
    assert runner.beside[3] is False and runner.beside[4] is False, "neither beside others, nor others beside it"
    assert len(runner.finished) == 6


def test_nothing_is_claimed_beside_when_time_is_short_or_a_stop_was_asked_for() -> None:
    slow = Runner([film(number) for number in range(4)], seconds=0.05)
    drained(slow, 12, limit=0.3)
    assert slow.beside == [False] * 4, "two films in a row come too near to the time limit"
    stopped = Runner([film(number) for number in range(4)])
    drained(stopped, 12, stopping=lambda: True)
    assert stopped.beside == [False] * 4
