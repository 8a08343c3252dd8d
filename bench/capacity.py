"""What a node carries, as arithmetic: measured figures in; films a second and machines out. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Rows = Sequence[dict[str, object]]


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
    stages: Figure  # all but the forward pass, as a ratio to it
    worker: Figure  # s, that a film keeps a worker
    accept: Figure  # s, accepted to stored, idle node
    spread: Figure  # of a worker's seconds: standard deviation over mean
    ledger: Figure  # films/s, all their commits
    commits: Figure  # of one film
    ledger_bytes: Figure  # that a film leaves for ever
    delivery: Figure  # films/s, their objects to one PACS
    worker_api: Figure  # films/s, claimed and fetched by workers on other machines
    wakeups: Figure  # a second, through Redis

    @property
    def stages_seconds(self) -> float:
        return self.forward.value * self.stages.value

    @property
    def wakeup_seconds(self) -> float:
        """What is left of accepted to stored: waiting for the wake-up and for the next look at the outbox."""
        known = self.forward.value + self.stages_seconds + 1 / self.delivery.value
        return max(0.0, self.accept.value - known)


def measured(rows: Rows) -> Measured:
    """The figures in the rows of bench/results.json and bench/scale.json. Raises NotMeasured, naming the row."""
    forward = _row(rows, "inference: forward pass of one film", "s")
    stages = _row(rows, "stages:", "ratio")
    return Measured(
        receive=_found(rows, "receive: films/s, four associations", "1/s")
        or _row(rows, "receive: films/s, one association", "1/s"),
        forward=forward,
        stages=stages,
        worker=_worker(rows, forward.value, stages),
        accept=_row(rows, "accept: C-STORE accepted to SEG in the PACS", "s"),
        spread=_row(rows, "worker: spread of its seconds", "ratio"),
        ledger=_row(rows, "ledger: films/s", "1/s"),
        commits=_row(rows, "ledger: commits of a film", "1"),
        ledger_bytes=_row(rows, "ledger: bytes that a film leaves", "bytes"),
        delivery=_row(rows, "delivery: films/s", "1/s"),
        worker_api=_row(rows, "worker API: films/s", "1/s"),
        wakeups=_row(rows, "wake-ups: wake-ups/s", "1/s"),
    )


def _worker(rows: Rows, forward: float, stages: Figure) -> Figure:
    """Of a backlog where that was measured (batches, threads and gaps are in it), else forward pass and stages."""
    if rate := _found(rows, "backlog:", "1/s"):
        return Figure(1 / rate.value, "s", rate.source)
    if share := _found(rows, "backlog:", "ratio"):
        return Figure(forward / share.value, "s", share.source)
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


def parts(found: Measured, a: Assumed) -> list[Part]:
    """The node's own components, workers not among them, the first to fill up first."""
    link = a.link_mb / a.film_mb
    return sorted(
        [
            Part(f"line in, {a.link_mb:g} MB/s usable", link, f"{a.film_mb:g} MB a film: assumed", "a faster line"),
            Part("receiver and disk (synced)", found.receive.value, found.receive.source, "a faster disk; then another node"),
            Part("ledger (one writer)", found.ledger.value, found.ledger.source, "a disk that syncs faster; then another node"),
            Part(
                "delivery to one PACS", found.delivery.value, found.delivery.source, "another node (one association at a time)"
            ),
            Part(
                "worker API (HTTPS)", found.worker_api.value, found.worker_api.source, "workers on the node; then another node"
            ),
            Part("Redis (wake-ups only)", found.wakeups.value, found.wakeups.source, "nothing: something else is full before"),
        ],
        key=lambda part: part.films,
    )


@dataclass(frozen=True)
class Worker:
    """One worker: how long a film keeps it on the average, and how much that spreads."""

    name: str
    seconds: float
    spread: float


def worker(found: Measured, gpu_films_per_second: float | None, gpu_cores: int, bench_cores: int) -> Worker:
    """The bench's CPU worker; or a GPU with `gpu_cores` beside it, which decode and write meanwhile: the slower of both.

    `bench_cores`: those that the bench's stages had.
    """
    if gpu_films_per_second is None:
        return Worker("CPU worker", found.worker.value, found.spread.value)
    beside = found.stages_seconds * bench_cores / gpu_cores
    return Worker("GPU worker", max(1 / gpu_films_per_second, beside), found.spread.value)


@dataclass(frozen=True)
class Layout:
    """Rooms behind nodes of one kind, in the busiest hour."""

    name: str
    nodes: int
    rooms: int  # behind one node
    workers: int  # of one node
    films: float  # 1/s, of one node
    films_per_day: float  # of one node
    use: float  # of its workers


def layout(name: str, rooms: int, nodes: int, films_per_room_day: float, one: Worker, parts: list[Part], a: Assumed) -> Layout:
    """At least `nodes`, more where a part of a node would be used more than `a.most_use`."""
    films = rooms * a.films_per_room_hour / 3600
    nodes = max(nodes, math.ceil(films / (a.most_use * parts[0].films)))
    each = films / nodes
    workers = max(1, math.ceil(each * one.seconds / a.most_use))
    use = each * one.seconds / workers
    return Layout(name, nodes, round(rooms / nodes), workers, each, rooms * films_per_room_day / nodes, use)


def disk_gb(here: Layout, a: Assumed) -> float:
    """Of one node's spool: films and results for as long as they are kept, and as much room again as a tenth of that."""
    return here.films_per_day * a.keep_days * (a.film_mb + a.result_mb) * 1.1 / 1000
