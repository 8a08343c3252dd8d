"""Films as hospitals send them: seldom alone, and not evenly over the day.

An examination is one to three films (PA and lateral) in one association. A mobile unit collects the films of its round on
the wards and sends them together when it docks. Nothing here is measured: a site puts in its own numbers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

HOUR = 3600.0
# Examinations by hour of the day, the busiest hour is 1.
DAY = (0.15,) * 6 + (0.3, 0.6, 0.85, 1, 1, 0.95, 0.7, 0.8, 0.85, 0.7, 0.5, 0.35, 0.3, 0.25) + (0.2,) * 4
DOCKINGS = (7.5, 16.0)  # hours at which mobile units dock
DOCKING_SPREAD = 1 / 3  # standard deviation, hours


@dataclass(frozen=True)
class Habits:
    """How films come together."""

    films_of_examination: tuple[tuple[int, float], ...] = ((1, 0.45), (2, 0.5), (3, 0.05))  # how many, how often
    films_of_round: tuple[int, int] = (6, 18)  # of a mobile unit, least and most
    round_share: float = 0.4  # of the films come from mobile units when these dock
    urgent_share: float = 0.1  # of the examinations; rounds are not urgent
    rooms_per_mobile_unit: int = 4
    gap_seconds: float = 0.1  # between two films of one association: 10 MB on the modality's line

    def sizes(self) -> list[tuple[int, float]]:
        """Films of a burst and how often such a burst comes; the shares add up to 1."""
        least, most = self.films_of_round
        rounds = self.round_share / ((least + most) / 2)
        examinations = (1 - self.round_share) / sum(size * share for size, share in self.films_of_examination)
        found = [(size, share * examinations) for size, share in self.films_of_examination]
        found += [(size, rounds / (most - least + 1)) for size in range(least, most + 1)]
        total = sum(share for _, share in found)
        return [(size, share / total) for size, share in found]


@dataclass(frozen=True)
class Films:
    """Arrivals in order: seconds, and which of them are urgent."""

    at: list[float]
    urgent: list[bool]


def steady(rate: float, count: int, habits: Habits, rng: Generator) -> Films:
    """About `count` films, `rate` a second on the average, bursts at random moments."""
    sizes, shares = zip(*habits.sizes(), strict=True)
    mean = float(np.dot(sizes, shares))
    bursts = max(1, round(count / mean))
    moments = np.cumsum(rng.exponential(mean / rate, bursts))
    films = rng.choice(sizes, bursts, p=shares)
    largest = max(size for size, _ in habits.films_of_examination)
    return _spread(moments, films, films <= largest, habits, rng)


def days(rooms: int, films_per_room_hour: float, count: int, habits: Habits, rng: Generator) -> Films:
    """`count` working days: examinations by the hour, and each mobile unit docking twice a day.

    `films_per_room_hour`: examinations' films in the busiest hour.
    """
    sizes, shares = zip(*habits.films_of_examination, strict=True)
    busiest = rooms * films_per_room_hour / float(np.dot(sizes, shares))
    moments, films, examinations = [], [], []
    for day, hour in itertools.product(range(count), range(24)):
        number = rng.poisson(busiest * DAY[hour])
        moments.append((24 * day + hour + rng.random(number)) * HOUR)
        films.append(rng.choice(sizes, number, p=shares))
        examinations.append(np.ones(number, bool))
    units = max(1, round(rooms / habits.rooms_per_mobile_unit))
    least, most = habits.films_of_round
    for day, hour in itertools.product(range(count), DOCKINGS):
        moments.append((24 * day + rng.normal(hour, DOCKING_SPREAD, units)) * HOUR)
        films.append(rng.integers(least, most + 1, units))
        examinations.append(np.zeros(units, bool))
    return _spread(*map(np.concatenate, (moments, films, examinations)), habits, rng)


def _spread(moments, films, examinations, habits: Habits, rng: Generator) -> Films:
    """Single films in order, from the bursts' moments, sizes and kinds."""
    urgent = examinations & (rng.random(len(moments)) < habits.urgent_share)
    first = np.repeat(np.cumsum(films) - films, films)
    at = np.repeat(moments, films) + habits.gap_seconds * (np.arange(int(films.sum())) - first)
    order = np.argsort(at, kind="stable")
    return Films(at[order].tolist(), np.repeat(urgent, films)[order].tolist())


def seconds(count: int, mean: float, spread: float, rng: Generator) -> list[float]:
    """Seconds of a worker for each film: lognormal, `spread` is standard deviation over mean."""
    if not spread:
        return [mean] * count
    sigma = np.log1p(spread**2)
    return rng.lognormal(np.log(mean) - sigma / 2, np.sqrt(sigma), count).tolist()
