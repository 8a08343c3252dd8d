"""How long films wait, as a formula. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Sizes = Sequence[tuple[int, float]]  # films of a burst, and how often such a burst comes


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
