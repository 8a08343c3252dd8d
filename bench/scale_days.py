"""Whole days and faults, simulated: the tables `days` and `faults` of docs/develop/scale.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import arrivals
import numpy as np
import simulation
from arrivals import HOUR, Films, Habits
from capacity import Assumed, Layout, Measured, Worker
from numpy.random import default_rng
from scale_tables import CRASHES, minutes, table, told


@dataclass(frozen=True)
class Case:
    """Rooms of one node, simulated for some days."""

    name: str
    rooms: int
    workers: int
    days: int
    films: Films
    seconds: list[float]


def case(here: Layout, days: int, assumed: Assumed, habits: Habits, one: Worker) -> Case:
    rng = default_rng([here.rooms, days])
    films = arrivals.days(here.rooms, assumed.films_per_room_hour, days, habits, rng)
    spent = arrivals.seconds(len(films.at), one.seconds, one.spread, rng)
    return Case(here.name, here.rooms, here.workers, days, films, spent)


def run(this: Case, loss: simulation.Loss | None = None) -> simulation.Day:
    return simulation.Day(this.films, this.seconds, this.workers, loss=loss, crash_share=CRASHES)


def day(cases: Iterable[Case], found: Measured) -> str:
    rows = []
    for this in cases:
        done = run(this)
        at = np.array(this.films.at)
        waited = np.array(done.claimed) - at
        stored = np.array(simulation.deliver(done.finished, 1 / found.delivery.value)) - at + found.wakeup_seconds
        per_hour = np.bincount((at // HOUR).astype(int).clip(0))
        most = int(queue(this.films.at, done.claimed)[1].max())
        quantiles = " / ".join(told(float(np.quantile(waited, q))) for q in (0.5, 0.95, 0.99, 1))
        ends = " / ".join(told(float(np.quantile(stored, q))) for q in (0.5, 0.95, 0.99, 1))
        rows.append(
            [this.name, f"{this.rooms:,}", f"{this.workers}", f"{this.days}", f"{per_hour.max():,}", quantiles, ends, f"{most}"]
        )
    head = ["node of", "rooms", "workers", "days", "films in the fullest hour", "waited, s (p50 / p95 / p99 / longest)"]
    return table([*head, "received to stored, s (the same)", "most films waiting"], rows)


def queue(arrived: Sequence[float], left: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Moments, and how many wait from each of them on."""
    moments = np.concatenate([arrived, left])
    change = np.concatenate([np.ones(len(arrived), int), -np.ones(len(left), int)])
    order = np.lexsort((change, moments))
    return moments[order], np.cumsum(change[order])


DOCKING = 7.5 * HOUR


@dataclass(frozen=True)
class Aftermath:
    """Of a fault on one morning: films waiting when it is over, seconds until none of them does, seconds by arithmetic."""

    films: int
    seconds: float
    arithmetic: float


def faults(cases: Sequence[Case], found: Measured) -> str:
    rows = []
    for fault in (pacs_down, workers_lost):
        for this in cases:
            lost = "the worker" if this.workers == 1 else f"{half(this)} of {this.workers} workers"
            text = "PACS down for an hour" if fault is pacs_down else f"{lost} away for ten minutes"
            worst = max((fault(this, found, 24 * HOUR * day) for day in range(this.days)), key=lambda one: one.seconds)
            times = minutes(worst.seconds), minutes(worst.arithmetic)
            rows.append([f"{text}, node of {this.name}", f"{this.days}", f"{worst.films:,}", *times])
    head = ["at 7:30, when mobile units dock", "mornings, the worst of them", "films waiting at its end"]
    return table([*head, "none of them after", "by arithmetic"], rows)


def half(this: Case) -> int:
    """Workers of one host of two; of the only one where there is one."""
    return -(-this.workers // 2)


def worst_morning(this: Case, found: Measured) -> int:
    """The day on which most films wait when the workers are back."""
    return max(range(this.days), key=lambda day: workers_lost(this, found, 24 * HOUR * day).films)


def pacs_down(this: Case, found: Measured, midnight: float) -> Aftermath:
    """Arithmetic: the longest wait between two tries, and the sending."""
    down = (midnight + DOCKING, midnight + DOCKING + HOUR)
    done = run(this)
    stored = simulation.deliver(done.finished, 1 / found.delivery.value, down)
    late = [one for one, end in zip(stored, done.finished, strict=True) if end < down[1] <= one]
    longest = simulation.POLICY.max_delay + len(late) / found.delivery.value
    return Aftermath(len(late), max(late) - down[1], longest)


def workers_lost(this: Case, found: Measured, midnight: float) -> Aftermath:
    """Arithmetic: what waits, by what the workers do more than what comes."""
    loss = simulation.Loss(midnight + DOCKING, midnight + DOCKING + 600, half(this))
    moments, waiting_then = queue(this.films.at, run(this, loss).claimed)
    after = moments >= loss.until
    left = int(waiting_then[~after][-1])
    empty = float(moments[after][waiting_then[after] == 0][0]) if left else loss.until
    at = np.array(this.films.at)
    comes = float(((at >= loss.until) & (at < loss.until + 600)).mean() * len(at) / 600)
    does = this.workers * len(this.seconds) / sum(this.seconds)
    return Aftermath(left, empty - loss.until, left / max(1e-9, does - comes))
