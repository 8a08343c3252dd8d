"""The tables of docs/develop/scale.md, as Markdown. Each function is one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import arrivals
import numpy as np
import simulation
from arrivals import HOUR, Habits
from capacity import Assumed, Layout, Measured, Part, Worker, disk_gb
from formula import Formula
from numpy.random import default_rng

WORKERS = (1, 4, 16, 64)
USES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CRASHES = 1e-4  # of the tries


@dataclass(frozen=True)
class Waits:
    """Seconds from received to claimed, of all films and of the urgent ones."""

    all: np.ndarray
    urgent: np.ndarray

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.all, share))


def simulate_waits(one: Worker, habits: Habits, count: int) -> dict[tuple[int, float], Waits]:
    """By workers and use. `count`: films of each cell, twice as many where waits hang together long."""
    found = {}
    for workers in WORKERS:
        for use in USES:
            rng = default_rng([workers, round(100 * use)])
            films = arrivals.steady(use * workers / one.seconds, count * (2 if use >= 0.9 else 1), habits, rng)
            run = simulation.Day(
                films, arrivals.seconds(len(films.at), one.seconds, one.spread, rng), workers, crash_share=CRASHES
            )
            waited = np.array(run.claimed) - np.array(films.at)
            found[workers, use] = Waits(waited, waited[np.array(films.urgent)])
    return found


def waiting(waits: Mapping[tuple[int, float], Waits]) -> str:
    rows = [
        [f"{n}"] + [" / ".join(told(waits[n, use].quantile(q)) for q in (0.5, 0.95, 0.99)) for use in USES] for n in WORKERS
    ]
    return table(["workers", *(f"{use:.0%}" for use in USES)], rows)


def urgent(waits: Mapping[tuple[int, float], Waits]) -> str:
    rows = [[f"{n}"] + [told(float(np.quantile(waits[n, use].urgent, 0.95))) for use in USES] for n in WORKERS]
    return table(["workers", *(f"{use:.0%}" for use in USES)], rows)


def agreement(waits: Mapping[tuple[int, float], Waits], one: Worker, habits: Habits) -> str:
    rows = []
    for workers in WORKERS:
        for use in (0.5, 0.7, 0.9):
            said = Formula(workers, use, one.seconds, one.spread, habits.sizes())
            seen = waits[workers, use]
            figures = (float(seen.all.mean()), said.mean(), seen.quantile(0.95), said.p95())
            rows.append([f"{workers}", f"{use:.0%}", *map(told, figures)])
    return table(["workers", "use", "mean, simulated", "mean, formula", "p95, simulated", "p95, formula"], rows)


def inputs(found: Measured, assumed: Assumed, habits: Habits, machine: str) -> str:
    names = {
        "receive": "films received, durably",
        "forward": "forward pass of a film",
        "stages": "everything but the forward pass, of that",
        "worker": "a film keeps a worker for",
        "accept": "accepted to stored, idle node",
        "spread": "spread of the worker's seconds (deviation over mean)",
        "ledger": "films that the ledger takes, all commits",
        "commits": "commits of a film",
        "ledger_bytes": "bytes of a film that stay in the ledger",
        "delivery": "films delivered to one PACS",
        "worker_api": "films through the worker API (HTTPS)",
        "wakeups": "wake-ups through Redis",
    }
    rows = [[text, f"{significant(one.value)} {unit(one.unit)}".strip(), f"measured: {one.source}"]
            for key, text in names.items() for one in [getattr(found, key)]]  # fmt: skip
    least, most = habits.films_of_round
    rows += [
        ["chest films of a room in its busiest hour", f"{assumed.films_per_room_hour:g}", "assumed (`--films-per-room-hour`)"],
        ["rooms of a hospital", f"{assumed.rooms_per_hospital}", "assumed (`--rooms-per-hospital`)"],
        ["a film; its results", f"{assumed.film_mb:g} MB; {assumed.result_mb:g} MB", "assumed (`--film-mb`)"],
        ["days that films are kept", f"{assumed.keep_days:g}", "`retention.finished_days`, its default (`--keep-days`)"],
        ["films of an examination", "1 (45 %), 2 (50 %), 3 (5 %)", "assumed"],
        ["a mobile unit", f"{least} to {most} films at once, at about 7:30 and 16:00; one for "
         f"{habits.rooms_per_mobile_unit} rooms", "assumed"],
        ["share of mobile films in the steady simulation: as when they dock", f"{habits.round_share:.0%}", "assumed"],
        ["urgent examinations", f"{habits.urgent_share:.0%}", "assumed"],
        ["no part is used more than", f"{assumed.most_use:.0%}", "our choice (`--most-use`)"],
    ]  # fmt: skip
    return f"Machine of the measured rows: {machine}.\n\n" + table(["what", "value", "where from"], rows)


def latency(found: Measured) -> str:
    rest = "accepted to stored, less the others"
    steps = [
        ("received: written, synced, committed", 1 / found.receive.value, "one over films/s"),
        ("wake-up, and the next look at the outbox", found.wakeup_seconds, rest),
        ("everything but the forward pass", found.stages_seconds, "stages"),
        ("forward pass", found.forward.value, "inference"),
        ("C-STORE of SEG and report", 1 / found.delivery.value, "one over films/s"),
    ]
    rows = [[text, f"{seconds:.2f}", why] for text, seconds, why in steps]
    rows.append(["**sent to stored, when nobody waits**", f"**{sum(seconds for _, seconds, _ in steps):.2f}**", ""])
    return table(["step", "s", "from"], rows)


def saturation(parts: Sequence[Part], one: Worker, layouts: Sequence[Layout]) -> str:
    rows = []
    for part in [*parts, Part(f"one {one.name}", 1 / one.seconds, "a film keeps it", "another worker")]:
        share = [f"{here.films / part.films / (here.workers if part.name.startswith('one ') else 1):.1%}" for here in layouts]
        rows.append([part.name, f"{part.films:.3g}", *share, part.add])
    return table(["part", "carries films/s", *(here.name for here in layouts), "when it is full, add"], rows)


def sizes(layouts: Sequence[Layout], found: Measured, assumed: Assumed, one: Worker, stored_seconds: float) -> str:
    def of(text: str, value: Callable[[Layout], float], each: str = "") -> list[list[str]]:
        """A row of one node, and one of all where there are several."""
        return [[text + each, *(number(value(here)) for here in layouts)]]

    def both(text: str, value: Callable[[Layout], float]) -> list[list[str]]:
        all_of_them = [text + ", all nodes", *(number(value(here) * here.nodes) for here in layouts)]
        return [*of(text, value, ", a node"), all_of_them]

    year = 365 * found.ledger_bytes.value / 1e9
    rows = [
        *of("nodes", lambda here: here.nodes),
        *of("rooms", lambda here: here.rooms, ", a node"),
        *both("films in the busiest hour", lambda here: here.films * HOUR),
        *both("films a day", lambda here: here.films_per_day),
        *both(f"{one.name}s", lambda here: here.workers),
        *of("their use in the busiest hour, %", lambda here: 100 * here.use),
        *of("line in, Mbit/s", lambda here: here.films * assumed.film_mb * 8, ", a node"),
        *both("spool, GB", lambda here: disk_gb(here, assumed)),
        *of("ledger grows by GB a year", lambda here: here.films_per_day * year, ", a node"),
        *of("commits/s", lambda here: here.films * found.commits.value, ", a node"),
        *of("wake-ups/s, where Redis is used", lambda here: here.films, ", a node"),
        *of("films accepted and not yet stored, at any moment", lambda here: here.films * stored_seconds, ", a node"),
    ]
    return table(["", *(here.name for here in layouts)], rows)


# -- text -------------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(one) + " |" for one in (head, ["---"] * len(head), *rows))


def told(seconds: float) -> str:
    if seconds < 0.005:
        return "0"
    return f"{seconds:.2f}" if seconds < 1 else f"{seconds:.1f}" if seconds < 20 else f"{seconds:.0f}"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def significant(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def unit(name: str) -> str:
    return {"1": "", "ratio": "", "1/s": "a second"}.get(name, name)
