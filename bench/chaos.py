"""`make chaos`: kill -9 at random, over and over, while films flow; then nothing may be missing and nothing doubled.

Receiver, one of its children, worker, the worker's child, sender and supervisor are killed by a seeded generator at
exponential intervals whose mean is `--pace` times the time that one film takes undisturbed (0000 to the last destination,
measured first); with --redis the broker too; with --far the only worker has neither disk nor ledger of the node, and
it and the node's `serve` are killed. Modalities keep what was not answered with 0000. The supervisor and the worker that is far
are started again from outside. Exit code 1 when a film was lost or doubled or ended `failed` or skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hospital import ROOT, Hospital, open_hospital
from machine import machine_and_commit
from programs import needed, program
from rich.console import Console
from rich.table import Table
from servers import Redis, running_redis

TARGETS = ("receive", "receive child", "work parent", "work child", "send", "supervisor")
FAR_TARGETS = ("receive", "receive child", "serve", "far parent", "far child", "send", "supervisor")
MODALITIES = 3


def main() -> int:
    options = _options()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segmenter-chaos-")))
        settings = {}
        redis = None
        if options.redis:
            redis = stack.enter_context(running_redis(needed("redis-server", "chaos"), folder / "redis"))
            settings["SEGMENTER_QUEUE__BROKER"] = redis.url
        hospital = stack.enter_context(open_hospital(folder, program("Orthanc"), MODALITIES, far=options.far, **settings))
        result = storm(hospital, redis, options)
        if _is_bad(result):
            kept = folder.with_name(f"{folder.name}-kept")  # ledger, logs and the PACS's book, to find out why
            shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("orthanc", "redis"))
            print(f"what is needed to find out why is in {kept}", flush=True)
    result["command"] = "python bench/chaos.py " + " ".join(sys.argv[1:])
    result |= machine_and_commit()
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if _is_bad(result) else 0


def _is_bad(result: dict[str, object]) -> bool:
    return bool(result["lost"] or result["doubled"] or result["failed"])


def storm(hospital: Hospital, redis: Redis | None, options: argparse.Namespace) -> dict[str, object]:
    job_seconds = _undisturbed(hospital)
    mean = options.pace * job_seconds
    print(f"one film takes {job_seconds:.2f} s; a kill every {mean:.2f} s on average", flush=True)
    draw = random.Random(options.seed)
    killed: Counter[str] = Counter()
    before = len(hospital.latencies())
    started = due = time.monotonic()
    with hospital.flow(MODALITIES):
        while killed.total() < options.kills and time.monotonic() - started < options.minutes * 60:
            due += draw.expovariate(1 / mean)
            time.sleep(max(0.0, due - time.monotonic()))
            while not (name := _kill(draw, hospital, redis)):
                time.sleep(0.02)  # the supervisor died a moment ago and has no children yet
            killed[name] += 1
            if killed.total() % 20 == 0:
                print(f"{killed.total()} kills, {len(hospital.accepted)} films in, {len(hospital.latencies())} out", flush=True)
        seconds = time.monotonic() - started
        meanwhile = len(hospital.latencies()) - before
    hospital.drain(options.drain)
    return hospital.verdict() | {
        "kills": killed.total(),
        "killed": dict(sorted(killed.items())),
        "seed": options.seed,
        "job_seconds": round(job_seconds, 3),
        "mean_interval": round(seconds / max(1, killed.total()), 3),
        "mean_interval_in_jobs": round(seconds / max(1, killed.total()) / job_seconds, 2),
        "results_between_kills": meanwhile,  # the others came when it was over
        "seconds": round(seconds, 1),
        "broker": "redis" if redis else "memory",
        "worker": "far" if hospital.far else "of the node",
        "crashes_charged": _charged(hospital),
    }


def _undisturbed(hospital: Hospital) -> float:
    """Median seconds of one film on the idle node; the first two warm up."""
    for _ in range(7):
        hospital.take(hospital.new_film(), "XRAY0")
        until = time.monotonic() + 120
        while hospital.under_way():
            if time.monotonic() > until:
                sys.exit("the node does not answer films: " + hospital.node.log_text()[-2000:])
            time.sleep(0.02)
    return statistics.median(hospital.latencies()[2:])


def _kill(draw: random.Random, hospital: Hospital, redis: Redis | None) -> str:
    """Kill -9 of one process; of one of the node's other children when the drawn one is dead just now. Empty: none lived."""
    targets = FAR_TARGETS if hospital.far else TARGETS
    drawn = draw.choice([*targets, *(["redis"] if redis else [])])
    others = draw.sample(targets, k=len(targets))
    living = hospital.processes()
    for name in (drawn, *(other for other in others if other != "supervisor")):
        if name == "redis" and redis is not None and redis.process is not None and redis.process.poll() is None:
            redis.kill()
            threading.Timer(draw.uniform(0.2, 3.0), redis.start).start()
            return name
        if name in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(living[name], signal.SIGKILL)
                return name
    return ""


def _charged(hospital: Hospital) -> dict[str, int]:
    """Films by the number of crashes that they are charged with."""
    rows = hospital.node.ledger.store.read().execute("SELECT crashes, count(*) FROM jobs GROUP BY 1 ORDER BY 1")
    return {str(crashes): films for crashes, films in rows}


def show(result: dict[str, object]) -> None:
    table = Table("what", "value")
    for key, value in result.items():
        bad = key in ("lost", "doubled", "failed") and value
        table.add_row(key.replace("_", " "), f"[red]{value}[/]" if bad else str(value))
    Console().print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=1.7, help="mean interval between kills, in times of one film")
    parser.add_argument("--minutes", type=float, default=30.0, help="at most so long, whatever the number of kills")
    parser.add_argument("--drain", type=float, default=300.0, help="seconds that the node then has to finish")
    parser.add_argument("--redis", action="store_true", help="a real redis-server as the broker, killed too")
    parser.add_argument("--far", action="store_true", help="a worker as on another machine, and the node's `serve`, killed too")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "chaos.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
