"""What a node carries, as arithmetic: measured figures in; films a second, machines and waiting times out. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Rows = Sequence[dict[str, object]]
Sizes = Sequence[tuple[int, float]]  # films of a burst, and how often such a burst comes


class NotMeasured(Exception):
    """A row that the model needs is not in the results."""


@dataclass(frozen=True)
class Figure:
    """A number of the model and where it comes from: a row of the bench, or "assumed"."""

    value: float
    unit: str
    source: str = "assumed"


@dataclass(frozen=True)
class Measured:
    """What the bench says about one node and one worker: a process with all cores of the bench's machine."""

    receive: Figure  # films/s, durably
    forward: Figure  # s, one film
    worker: Figure  # s, that a film keeps a worker
    accept: Figure  # s, accepted to stored, idle node
    spread: Figure  # of a worker's seconds: standard deviation over mean
    ledger: Figure  # films/s, all their commits
    commits: Figure  # of one film
    ledger_bytes: Figure  # that a film leaves for ever
    door: Figure  # films/s, claimed and fetched by workers on other machines
    bells: Figure  # bells/s through Redis

    @property
    def rest_seconds(self) -> float:
        """Accepted to stored, less the worker: waiting for the bell, delivery."""
        return max(0.02, self.accept.value - self.worker.value)


def measured(rows: Rows) -> Measured:
    """The figures in the rows of bench/results.json and bench/scale.json. Raises NotMeasured, naming the row."""
    forward = _row(rows, "inference: forward pass of one film", "s")
    return Measured(
        receive=_found(rows, "receive: films/s, four associations", "1/s")
        or _row(rows, "receive: films/s, one association", "1/s"),
        forward=forward,
        worker=_worker(rows, forward.value),
        accept=_row(rows, "accept: C-STORE accepted to SEG in the PACS", "s"),
        spread=_row(rows, "worker: spread of its seconds", "ratio"),
        ledger=_row(rows, "ledger: films/s", "1/s"),
        commits=_row(rows, "ledger: commits of a film", "1"),
        ledger_bytes=_row(rows, "ledger: bytes that a film leaves", "bytes"),
        door=_row(rows, "door: films/s", "1/s"),
        bells=_row(rows, "bells: bells/s", "1/s"),
    )


def _worker(rows: Rows, forward: float) -> Figure:
    """Of a backlog where that was measured (batches, threads and gaps are in it), else forward pass and stages."""
    if rate := _found(rows, "backlog:", "1/s"):
        return Figure(1 / rate.value, "s", rate.source)
    if share := _found(rows, "backlog:", "ratio"):
        return Figure(forward / share.value, "s", share.source)
    stages = _row(rows, "stages:", "ratio")
    return Figure(forward * (1 + stages.value), "s", f"forward pass and {stages.source}")


def _found(rows: Rows, begins: str, unit: str) -> Figure | None:
    for one in rows:
        if str(one["name"]).startswith(begins) and one["unit"] == unit and one["value"]:
            return Figure(float(str(one["value"])), unit, str(one["name"]))
    return None


def _row(rows: Rows, begins: str, unit: str) -> Figure:
    found = _found(rows, begins, unit)
    if found is None:
        raise NotMeasured(
            f"no row that begins with {begins!r} in {unit}; `make bench` and `python bench/scale.py --measure` make them"
        )
    return found


# -- waiting --------------------------------------------------------------------------------------------------------


def erlang_c(workers: int, load: float) -> float:
    """Share of the films that wait when they come alone, at random, and `load` workers of `workers` are busy (M/M/c)."""
    blocked = 1.0
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / workers * (1 - blocked))


@dataclass(frozen=True)
class Formula:
    """Waiting by Allen and Cunneen's approximation of G/G/c, and the wait behind the films of one's own burst.

    The squared coefficient of variation of the arrivals is that of random bursts in the long run, E[B^2] / E[B] for B films a
    burst; exact for one worker (M^[X]/G/1: the two terms are Pollaczek-Khinchine's and the burst's).
    """

    workers: int
    use: float  # of the workers' time, 0 to 1
    seconds: float  # of a worker for a film, the mean
    spread: float  # standard deviation over mean
    sizes: Sizes

    def mean(self) -> float:
        """Seconds."""
        queue = erlang_c(self.workers, self.use * self.workers) * self.seconds / (self.workers * (1 - self.use))
        return queue * (self._variability() + self.spread**2) / 2 + self.seconds * self._before_it()

    def p95(self) -> float:
        """Seconds that 95 % wait at most: those who wait do so exponentially long."""
        alone = erlang_c(self.workers, self.use * self.workers)
        waits = alone + (1 - alone) * self._behind_its_own()
        return self.mean() / waits * math.log(waits / 0.05) if waits > 0.05 else 0.0

    def _variability(self) -> float:
        films = sum(size * share for size, share in self.sizes)
        return sum(size**2 * share for size, share in self.sizes) / films

    def _before_it(self) -> float:
        """Turns that a film waits behind its own burst when all workers are free."""
        films = sum(size * share for size, share in self.sizes)
        return sum(share * sum(place // self.workers for place in range(size)) for size, share in self.sizes) / films

    def _behind_its_own(self) -> float:
        films = sum(size * share for size, share in self.sizes)
        return sum(share * max(0, size - self.workers) for size, share in self.sizes) / films


# -- machines -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assumed:
    """What no bench can know. A site puts in its own (the command's flags)."""

    films_per_room_hour: float = 6.0  # chest films in the busiest hour
    rooms_per_hospital: int = 8
    film_mb: float = 10.0
    result_mb: float = 0.1  # SEG and SR, the mean over positive and negative films
    keep_days: float = 7.0  # retention.finished_days
    link_mb: float = 100.0  # MB/s that a link of 1 Gbit/s carries
    most_use: float = 0.7  # of any part, in the busiest hour


@dataclass(frozen=True)
class Part:
    """A component of a node, what it carries (films/s) and what to add when it is full."""

    name: str
    films: float
    source: str
    add: str


def parts(found: Measured, assumed: Assumed) -> list[Part]:
    """The node's own components, workers not among them, the first to fill up first."""
    link = assumed.link_mb / assumed.film_mb
    one_by_one = "one association at a time"
    return sorted(
        [
            Part("line of 1 Gbit/s, films coming in", link, "10 MB films, 100 MB/s usable: assumed", "a faster line"),
            Part("receiver and disk (synced)", found.receive.value, found.receive.source, "a faster disk; then another node"),
            Part("ledger (one writer)", found.ledger.value, found.ledger.source, "a disk that syncs faster; then another node"),
            Part("delivery to one PACS", 1 / found.rest_seconds, f"{one_by_one}: accept less the worker", "another node"),
            Part("HTTPS door", found.door.value, found.door.source, "workers on the node; then another node"),
            Part("Redis (bells only)", found.bells.value, found.bells.source, "nothing: something else is full before"),
        ],
        key=lambda part: part.films,
    )


@dataclass(frozen=True)
class Worker:
    """One worker: what it answers by itself, and what it is."""

    films: float  # 1/s
    name: str


def gpu_worker(found: Measured, films_per_second: float, cores: int, stages_cores: int) -> Worker:
    """A GPU with `cores` beside it, which decode and write while it computes: the slower of both.

    `stages_cores`: cores on which the bench's stages ran.
    """
    beside = max(1e-9, found.worker.value - found.forward.value) * stages_cores
    return Worker(min(films_per_second, cores / beside), "GPU")
