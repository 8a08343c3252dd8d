"""docs/develop/pictures/scale.png: the wait of 95 % of the films against the use of the workers, and a lost worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import simulation
from arrivals import HOUR, Habits
from capacity import Worker
from formula import Formula
from scale_days import DOCKING, Case, queue, run
from scale_tables import USES, WORKERS, Waits

from train.report.pictures import BLUE, CYCLE, GREY, VERMILION

LEAST = 0.05  # s, the lowest wait that is shown


def draw(
    path: Path,
    waits: Mapping[tuple[int, float], Waits],
    one: Worker,
    habits: Habits,
    hospital: Case,
    morning: int,
) -> None:
    """`morning`: the day of `hospital` that is shown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for workers, colour in zip(WORKERS, CYCLE, strict=False):
        seen = [max(LEAST, waits[workers, use].quantile(0.95)) for use in USES]
        said = [max(LEAST, Formula(workers, use, one.seconds, one.spread, habits.sizes()).p95()) for use in USES]
        left.plot(USES, seen, "o-", color=colour, label=f"{workers} worker{'s' if workers > 1 else ''}")
        left.plot(USES, said, ":", color=colour)
    left.plot([], [], ":", color=GREY, label="formula")
    left.set(
        yscale="log", xlabel="use of the workers", ylabel="waiting time of 95 % of the films (s; 0.05 stands for less, too)"
    )
    left.set_title(f"Steady arrivals in bursts, {one.name}s, {one.seconds:.2g} s a film")
    left.legend(loc="upper left")
    _loss(right, hospital, morning)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.savefig(path, format="png", metadata={"Software": None})


def _loss(axes, hospital: Case, morning: int) -> None:
    """Films that wait on a morning, as usual and with the worker away for ten minutes."""
    midnight = 24 * HOUR * morning
    loss = simulation.Loss(midnight + DOCKING, midnight + DOCKING + 600, hospital.workers)
    for label, style, fault in (
        ("no worker for ten minutes", {"color": VERMILION, "linewidth": 3}, loss),
        ("as usual", {"color": BLUE}, None),
    ):
        moments, films = queue(hospital.films.at, run(hospital, fault).claimed)
        axes.step((moments - midnight) / HOUR, films, where="post", label=label, **style)
    axes.axvspan(DOCKING / HOUR, (DOCKING + 600) / HOUR, color=GREY, alpha=0.15)
    axes.set(xlim=(7, 8.25), xlabel="hour of the day", ylabel="films waiting", ylim=(0, None))
    axes.set_title(f"Hospital of {hospital.rooms} rooms: the worst of {hospital.days} mornings")
    axes.legend(loc="upper right")
