"""The long fuzz: thousands of broken films and conversations, a table, and a JSON file with what became of them.

    python tests/support/fuzz.py --seed 7 --objects 5000 --pdus 5000 --answers 1000 --out bench/fuzz.json

Answers are those of a PACS to our sender.

Mutants of one seed are the same in every run, so that a number in the report can be looked at again. `--objects 1000:2000`
takes a part of them; `--add` counts it to what `--out` holds already.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from film_parts import bases
from hostile_traffic import QUIET, Watch, answer_all, memory_mb, speak_all, store_all
from mutant_answers import mutant as broken_answer
from mutant_answers import send_to_all
from mutant_pdus import conversation
from mutants import mutant
from receiver_node import running
from rich.console import Console
from rich.table import Table
from tiny_network import tiny_artifact

from dicom_node.storage.records import FINISHED
from train.export.onnx_graph import add_graphs

WAVE, CHUNK, AT_ONCE = 100, 500, 7
# Every film counts as positive and most masks are made: the SEG of a film with a broken header is built too.
POSITIVE = {"only": {"image_threshold": 0.0, "mask_threshold": 0.4, "min_area_mm2": 0, "min_area_px": 0}}
NOT_FORESEEN = ("internal-error", "out-of-memory", "crashes-the-worker")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--objects", type=_span, default=range(5000), metavar="COUNT|FIRST:END")
    parser.add_argument("--pdus", type=_span, default=range(5000), metavar="COUNT|FIRST:END")
    parser.add_argument("--answers", type=_span, default=range(1000), metavar="COUNT|FIRST:END")
    parser.add_argument("--out", type=Path, default=Path("fuzz.json"))
    parser.add_argument("--add", action="store_true", help="count to what --out holds (same seed)")
    asked = parser.parse_args()
    for name in ("pynetdicom", "pydicom", "dicom_node"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    report = _report(asked.seed)
    if asked.add and asked.out.exists():
        report = json.loads(asked.out.read_text())
        assert report["seed"] == asked.seed, "another seed: not the same mutants"
        report.setdefault("answers", _report(asked.seed)["answers"])
    for span, attack in ((asked.pdus, _conversations), (asked.answers, _answers), (asked.objects, _films)):
        for first in range(span.start, span.stop, CHUNK):
            with tempfile.TemporaryDirectory() as folder:
                attack(report, asked.seed, range(first, min(first + CHUNK, span.stop)), Path(folder))
            asked.out.write_text(json.dumps(report, indent=1) + "\n")
            print(f"{attack.__name__.strip('_')} up to {min(first + CHUNK, span.stop)}", file=sys.stderr, flush=True)
    _print(report)
    broken = report["pdus"]["broken_promises"] or report["answers"]["broken_promises"]
    return 1 if report["objects"]["unforeseen"] or report["objects"]["crashes"] or broken else 0


def _span(text: str) -> range:
    first, _, end = text.rpartition(":")
    return range(int(first or 0), int(end))


def _report(seed: int) -> dict[str, Any]:
    pdus: dict[str, Any] = {"count": 0, "answers": {}, "broken_promises": [], "receiver_growth_mb": 0, "seconds": 0.0}
    objects: dict[str, Any] = {
        "count": 0, "outcomes": {}, "crashes": {}, "unforeseen": {}, "broken_promises": [], "peak_mb": 0, "seconds": 0.0,
        "slowest": {"mutant": "", "seconds": 0.0}, "hungriest": {"mutant": "", "mb": 0},
    }  # fmt: skip
    return {
        "seed": seed,
        "command": f"python tests/support/fuzz.py --seed {seed} --objects 5000 --pdus 5000 --answers 1000",
        "pdus": pdus,
        "answers": {"count": 0, "ends": {}, "broken_promises": [], "seconds": 0.0},
        "objects": objects,
    }


def _conversations(report: dict[str, Any], seed: int, numbers: range, folder: Path) -> None:
    said, started, before = report["pdus"], time.monotonic(), memory_mb()
    with running(folder, **QUIET) as node:
        watch = Watch(node)
        for first in range(numbers.start, numbers.stop, WAVE):
            wave = range(first, min(first + WAVE, numbers.stop))
            toll = speak_all(node, [conversation(seed, number) for number in wave])
            try:
                watch.check(toll)
            except AssertionError as broken:
                said["broken_promises"].append(f"{wave}: {broken}")
            said["answers"] = dict(Counter(said["answers"]) + toll.answers)
    said["count"] += len(numbers)
    said["receiver_growth_mb"] = max(said["receiver_growth_mb"], memory_mb() - before)
    said["seconds"] = round(said["seconds"] + time.monotonic() - started, 1)


def _answers(report: dict[str, Any], seed: int, numbers: range, folder: Path) -> None:
    said, started = report["answers"], time.monotonic()
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        wave = range(first, min(first + AT_ONCE, numbers.stop))
        try:
            ends = send_to_all(folder / str(first), [broken_answer(seed, number) for number in wave])
            said["ends"] = dict(Counter(said["ends"]) + ends)
        except AssertionError as broken:
            said["broken_promises"].append(f"{wave}: {broken}")
    said["count"] += len(numbers)
    said["seconds"] = round(said["seconds"] + time.monotonic() - started, 1)


def _films(report: dict[str, Any], seed: int, numbers: range, folder: Path) -> None:
    said, started = report["objects"], time.monotonic()
    films = bases(folder)
    mutants = {one.sop_instance_uid: one for one in (mutant(films, seed, number) for number in numbers)}
    with running(folder, **QUIET) as node:
        watch = Watch(node)
        toll = store_all(node, list(mutants.values()))
        try:
            assert toll.answers == {"0000": len(mutants)}, toll.answers
            watch.check(toll)
        except AssertionError as broken:
            said["broken_promises"].append(f"{numbers}: {broken}")
        add_graphs(tiny_artifact(folder / "artifact", operating_points=POSITIVE))  # a worker then starts without torch
        answers = answer_all(folder)
        jobs = [job for job in node.ledger.jobs(limit=10**6) if job.arrival.sop_instance_uid in mutants]
        assert node.ledger.store.integrity() == "ok"
    said["count"] += len(jobs)
    ends = Counter(f"{job.state}: {job.code or job.finding}" for job in jobs)
    said["outcomes"] = dict(Counter(said["outcomes"]) + ends)
    said["crashes"] |= {str(mutants[uid]): how for uid, how in answers.crashes.items()}
    for job in jobs:
        if job.code in NOT_FORESEEN or job.state not in FINISHED:
            said["unforeseen"][str(mutants[job.arrival.sop_instance_uid])] = f"{job.code}: {job.sentence}"
    slow = max(answers.seconds, key=lambda uid: answers.seconds[uid])
    if answers.seconds[slow] > said["slowest"]["seconds"]:
        said["slowest"] = {"mutant": str(mutants.get(slow, slow)), "seconds": answers.seconds[slow]}
    hungry = max(answers.peak_mb, key=lambda uid: answers.peak_mb[uid])
    if answers.peak_mb[hungry] > said["hungriest"]["mb"]:
        said["hungriest"] = {"mutant": str(mutants.get(hungry, hungry)), "mb": answers.peak_mb[hungry]}
    said["peak_mb"] = said["hungriest"]["mb"]
    said["seconds"] = round(said["seconds"] + time.monotonic() - started, 1)


def _print(report: dict[str, Any]) -> None:
    ends = {
        "conversation ended": report["pdus"]["answers"],
        "delivery ended": report["answers"]["ends"],
        "film ended": report["objects"]["outcomes"],
    }
    for name, counts in ends.items():
        table = Table(name, "how often", title=f"seed {report['seed']}")
        for what, count in sorted(counts.items(), key=lambda one: -one[1]):
            table.add_row(what, f"{count:,}")
        Console().print(table)
    objects, pdus = report["objects"], report["pdus"]
    print(f"{pdus['count']:,} conversations: {len(pdus['broken_promises'])} broken promises")
    answers = report["answers"]
    print(f"{answers['count']:,} answers: {len(answers['broken_promises'])} broken promises")
    print(f"{objects['count']:,} films: {len(objects['crashes'])} crashes, {len(objects['unforeseen'])} without a proper code")
    print(f"slowest: {objects['slowest']}; most memory: {objects['hungriest']}")
    for what in (
        pdus["broken_promises"],
        answers["broken_promises"],
        objects["broken_promises"],
        objects["crashes"],
        objects["unforeseen"],
    ):
        if what:
            print(json.dumps(what, indent=1))


if __name__ == "__main__":
    sys.exit(main())
