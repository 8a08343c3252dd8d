"""How many nodes, workers, GPUs and disks: the tables of docs/develop/scale.md, from the bench's figures and a simulation.

    python bench/scale.py --measure               measures ledger, worker API, wake-ups, spread into bench/scale.json (minutes)
    python bench/scale.py                         prints the tables
    python bench/scale.py --out docs/develop/scale.md     fills them in, and draws docs/develop/pictures/scale.png

Seeded: the same figures give the same tables.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench"), str(ROOT / "tests" / "support")]

import scale_days  # noqa: E402
import scale_picture  # noqa: E402
import scale_tables as tables  # noqa: E402
from arrivals import DAY, DOCKINGS, Habits  # noqa: E402
from capacity import Assumed, NotMeasured, layout, measured, parts, worker  # noqa: E402

RESULTS, OWN = ROOT / "bench" / "results.json", ROOT / "bench" / "scale.json"


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.measure:
        _measure(given.own)
        return 0
    try:
        made, draw = _tables(given)
    except (NotMeasured, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    if given.out is None:
        print("\n\n".join(f"## {name}\n\n{text}" for name, text in made.items()))
        return 0
    given.out.write_text(filled(given.out.read_text("utf-8"), made), "utf-8")
    pictures = given.out.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    draw(pictures / "scale.png")
    return 0


def filled(text: str, made: dict[str, str]) -> str:
    """`text` with each `<!-- table: NAME -->` filled up to its `<!-- end -->`. KeyError for a table that nobody makes."""
    return re.sub(
        r"(<!-- table: (\S+) -->\n).*?(\n?<!-- end -->)",
        lambda found: f"{found[1]}{made[found[2]]}\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def _tables(given: argparse.Namespace):
    assumed = Assumed(
        films_per_room_hour=given.films_per_room_hour,
        rooms_per_hospital=given.rooms_per_hospital,
        film_mb=given.film_mb,
        keep_days=given.keep_days,
        link_mb=100.0 * given.link_gbit,
        most_use=given.most_use,
    )
    results, own, habits = json.loads(given.results.read_text()), json.loads(given.own.read_text()), Habits()
    found = measured([*results["rows"], *own["rows"]])
    cores = re.search(r"(\d+) cores", results["machine"])
    one = worker(found, given.gpu_films_per_second, given.gpu_cores, int(cores[1]) if cores else 1)
    carries = parts(found, assumed)
    rounds = len(DOCKINGS) * sum(habits.films_of_round) / 2 / habits.rooms_per_mobile_unit
    per_day = sum(DAY) * assumed.films_per_room_hour + rounds
    hospital, region, country = assumed.rooms_per_hospital, given.region_rooms, given.country_rooms
    layouts = [
        layout(name, rooms, nodes, per_day, one, carries, assumed)
        for name, rooms, nodes in (
            ("one hospital", hospital, 1),
            ("region, a node in each hospital", region, region // hospital),
            ("region, one node", region, 1),
            ("country, a node in each hospital", country, country // hospital),
            ("country, a node in each region", country, country // region),
        )
    ]
    of_nodes = [layouts[0], layouts[2]]  # the others are many of these
    cases = [scale_days.case(here, days, assumed, habits, one) for here, days in zip(of_nodes, (given.days, 1), strict=True)]
    waits = tables.simulate_waits(one, habits, given.films)
    machine = f"{results['machine']}, commit {results['commit']}; of bench/scale.json: {own['machine']}, commit {own['commit']}"
    made = {
        "inputs": tables.inputs(found, assumed, habits, machine),
        "latency": tables.latency(found),
        "sizes": tables.sizes(layouts, found, assumed, one, found.accept.value),
        "saturation": tables.saturation(carries, one, of_nodes),
        "waiting": tables.waiting(waits),
        "urgent": tables.urgent(waits),
        "agreement": tables.agreement(waits, one, habits),
        "days": scale_days.day(cases, found),
        "faults": scale_days.faults(cases, found),
    }
    return made, lambda path: scale_picture.draw(path, waits, one, habits, cases[0], scale_days.worst_morning(cases[0], found))


def _measure(own: Path) -> None:
    import carrying
    from machine import machine_and_commit

    with tempfile.TemporaryDirectory(prefix="segmenter-scale-") as scratch:
        rows = list(carrying.measure(Path(scratch)))
    own.write_text(json.dumps({"rows": rows, **machine_and_commit()}, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the parts, write --own")
    parser.add_argument("--out", type=Path, help="Markdown file with <!-- table: NAME --> places")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--own", type=Path, default=OWN)
    parser.add_argument("--gpu-films-per-second", type=float, help="of one GPU, with placement and mask; left out: CPU workers")
    parser.add_argument("--gpu-cores", type=int, default=8, help="CPU cores beside a GPU")
    parser.add_argument("--films-per-room-hour", type=float, default=Assumed.films_per_room_hour)
    parser.add_argument("--rooms-per-hospital", type=int, default=Assumed.rooms_per_hospital)
    parser.add_argument("--region-rooms", type=int, default=1000)
    parser.add_argument("--country-rooms", type=int, default=30_000)
    parser.add_argument("--film-mb", type=float, default=Assumed.film_mb)
    parser.add_argument("--keep-days", type=float, default=Assumed.keep_days)
    parser.add_argument("--link-gbit", type=float, default=1.0)
    parser.add_argument("--most-use", type=float, default=Assumed.most_use)
    parser.add_argument("--films", type=int, default=100_000, help="simulated for each number of workers and use")
    parser.add_argument("--days", type=int, default=30, help="simulated of the hospital")
    return parser


if __name__ == "__main__":
    sys.exit(main())
