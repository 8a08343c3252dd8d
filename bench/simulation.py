"""The node as a discrete simulation: receive -> ledger -> workers -> delivery, event by event (heapq), seeded.

Who is next is decided as `dicom_node.storage.leases.Leases._next` does (tests/bench/test_scale.py drives both with the same
films), when a delivery is tried again by the node's own `dicom_node.send.backoff.decide`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from arrivals import Films

from dicom_node.dimse.status import Verdict
from dicom_node.runtime.config_sections import Queue, Send, Work
from dicom_node.send.backoff import Policy, decide
from dicom_node.storage.records import DeliveryState

NORMAL_WAITS = Queue().normal_waits_seconds
LEASE, HEARTBEAT = Work().lease_seconds, Work().heartbeat_seconds
POLICY = Policy(Send().first_delay_seconds, Send().max_delay_seconds, Send().give_up_days * 86_400)


@dataclass(frozen=True)
class Loss:
    """Seconds from which and until which the first `workers` of all are not there."""

    at: float
    until: float
    workers: int


@dataclass
class Waiting:
    """The films that wait, and who is next."""

    normal_waits: float = NORMAL_WAITS
    _expired: deque[int] = field(default_factory=deque)
    _urgent: list[tuple[float, int]] = field(default_factory=list)
    _normal: list[tuple[float, int]] = field(default_factory=list)
    _last_normal: bool = False

    def add(self, received_at: float, film: int, urgent: bool) -> None:
        heapq.heappush(self._urgent if urgent else self._normal, (received_at, film))

    def expire(self, film: int) -> None:
        self._expired.append(film)

    def __len__(self) -> int:
        return len(self._expired) + len(self._urgent) + len(self._normal)

    def next(self, now: float) -> int:
        """Take the next film: one whose lease ran out, the oldest urgent, the oldest normal; a normal one that has waited
        too long takes turns with the urgent ones."""
        if self._expired:
            return self._expired.popleft()
        if self._urgent and self._normal and self._normal[0][0] <= now - self.normal_waits:
            self._last_normal = not self._last_normal
            return heapq.heappop(self._normal if self._last_normal else self._urgent)[1]
        return heapq.heappop(self._urgent or self._normal)[1]


ENDS, LOST, BACK, EXPIRES = range(4)


class Day:
    """One run. `claimed` and `finished`: seconds, film by film; the first claim of a film counts.

    `seconds`: of a worker, film by film. `crash_share`: of the tries end with the death of the worker's process; the film is
    free at once, as the supervisor sees to it. A lost worker's film is free when its lease has run out. `watch` hears
    "arrive", "claim", "finish", "crash", "lose" in the order of events.
    """

    def __init__(
        self,
        films: Films,
        seconds: Sequence[float],
        workers: int,
        *,
        loss: Loss | None = None,
        crash_share: float = 0.0,
        seed: int = 1,
        normal_waits: float = NORMAL_WAITS,
        watch: Callable[[str, float, int], None] = lambda what, now, film: None,
    ) -> None:
        self.claimed = [-1.0] * len(films.at)
        self.finished = [-1.0] * len(films.at)
        self._films, self._seconds, self._loss, self._crash_share = films, seconds, loss, crash_share
        self._random, self._watch = Random(seed), watch
        self._waiting = Waiting(normal_waits)
        self._idle = list(range(workers - 1, -1, -1))
        self._bench: dict[int, tuple[int, float]] = {}  # worker -> film, since when
        self._events: list[tuple[float, int, int, int]] = []  # when, what, worker, film
        if loss:
            self._events = [(loss.at, LOST, -1, -1), (loss.until, BACK, -1, -1)]
        self._run()

    def _run(self) -> None:
        at, events, arrived = self._films.at, self._events, 0
        does = {ENDS: self._end, LOST: self._lose, BACK: self._come_back, EXPIRES: self._expire}
        while arrived < len(at) or events:
            if arrived < len(at) and (not events or at[arrived] <= events[0][0]):
                now = at[arrived]
                self._waiting.add(now, arrived, self._films.urgent[arrived])
                self._watch("arrive", now, arrived)
                arrived += 1
            else:
                now, what, worker, film = heapq.heappop(events)
                does[what](now, worker, film)
            while self._idle and self._waiting:
                self._claim(now)

    def _claim(self, now: float) -> None:
        film, worker = self._waiting.next(now), self._idle.pop()
        if self.claimed[film] < 0:
            self.claimed[film] = now
        self._bench[worker] = (film, now)
        heapq.heappush(self._events, (now + self._seconds[film], ENDS, worker, film))
        self._watch("claim", now, film)

    def _end(self, now: float, worker: int, film: int) -> None:
        held, since = self._bench.get(worker, (-1, 0.0))
        if held != film or now != since + self._seconds[film]:
            return  # the worker was lost meanwhile
        del self._bench[worker]
        self._idle.append(worker)
        if self._crash_share and self._random.random() < self._crash_share:
            self._waiting.add(self._films.at[film], film, self._films.urgent[film])
            self._watch("crash", now, film)
        else:
            self.finished[film] = now
            self._watch("finish", now, film)

    def _lose(self, now: float, *_: int) -> None:
        assert self._loss is not None
        away = range(self._loss.workers)
        self._idle = [one for one in self._idle if one not in away]
        for one in sorted(set(away) & self._bench.keys()):
            film, since = self._bench.pop(one)
            renewed = since + HEARTBEAT * ((now - since) // HEARTBEAT)
            heapq.heappush(self._events, (renewed + LEASE, EXPIRES, one, film))
            self._watch("lose", now, film)

    def _come_back(self, *_: float) -> None:
        assert self._loss is not None
        self._idle += range(self._loss.workers)

    def _expire(self, now: float, worker: int, film: int) -> None:
        self._waiting.expire(film)


def deliver(done: Sequence[float], seconds: float, down: tuple[float, float] = (0.0, 0.0), seed: int = 1) -> list[float]:
    """When each film's objects are in the PACS: one destination, one association at a time, `seconds` a film.

    `down`: from when and until when the PACS cannot be reached; a try then costs nothing but the wait that follows.
    """
    random = Random(seed)
    delivered = [0.0] * len(done)
    due = [(moment, film, 1) for film, moment in enumerate(done)]
    heapq.heapify(due)
    free = 0.0
    while due:
        moment, film, tries = heapq.heappop(due)
        start = max(moment, free)
        if down[0] <= start < down[1]:
            decision = decide(Verdict.TRY_LATER, tries, start - done[film], POLICY, random.random())
            if decision.state is DeliveryState.PENDING:
                heapq.heappush(due, (start + decision.delay, film, tries + 1))
        else:
            delivered[film] = free = start + seconds
    return delivered
