"""The long fuzz, in three parts: broken conversations with the receiver, broken answers of a PACS to the sender, broken films.

    python tests/support/fuzz.py --seed 7 --pdus 5000 --answers 1000 --objects 5000 --out bench/fuzz.json

Mutants of one seed are the same in every run, so that a number in the report can be looked at again. `--objects 1000:2000`
takes a part of them; `--add` counts it to what `--out` holds already.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
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

from dicom_node.storage.records import FINISHED

WAVE, CHUNK, AT_ONCE = 100, 500, 7
PROCESSES = 3  # for two cores: peers and senders wait much of their time
# Every film counts as positive and most masks are made: the SEG of a film with a broken header is built too.
POSITIVE = {"only": {"image_threshold": 0.0, "mask_threshold": 0.4, "min_area_mm2": 0, "min_area_px": 0}}
NOT_FORESEEN = ("internal-error", "out-of-memory", "crashes-the-worker")
Part = dict[str, Any]


def main() -> int:
    asked = _asked()
    _quiet()
    report = _report(asked)
    with tempfile.TemporaryDirectory() as name:
        model = _model(Path(name) / "model")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(asked.processes, mp_context=spawn, initializer=_quiet) as processes:
            started = time.monotonic()
            # The longest first: none of them is left alone at the end.
            chunks = {
                processes.submit(_attacked, part, asked.seed, numbers, model): (part, numbers)
                for part, span in (("answers", asked.answers), ("objects", asked.objects), ("pdus", asked.pdus))
                for numbers in _chunks(span)
            }
            before = report["seconds"]
            for done in as_completed(chunks):
                part, numbers = chunks[done]
                count(report[part], done.result())
                report["seconds"] = round(before + time.monotonic() - started, 1)
                asked.out.write_text(json.dumps(report, indent=1) + "\n")
                print(f"{part} {numbers.start} to {numbers.stop - 1}", file=sys.stderr, flush=True)
    _print(report)
    bad = ("broken_promises", "crashes", "unforeseen")
    return 1 if any(report[part].get(what) for part in PARTS for what in bad) else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    span = "COUNT|FIRST:END"
    parser.add_argument("--pdus", type=_span, default=range(5000), metavar=span, help="conversations with the receiver")
    parser.add_argument("--answers", type=_span, default=range(1000), metavar=span, help="of a PACS to the sender")
    parser.add_argument("--objects", type=_span, default=range(5000), metavar=span, help="films")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="that share the work (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fuzz.json"))
    parser.add_argument("--add", action="store_true", help="count to what --out holds (same seed)")
    return parser.parse_args()


def _span(text: str) -> range:
    first, _, end = text.rpartition(":")
    return range(int(first or 0), int(end))


def _chunks(span: range) -> list[range]:
    return [span[at : at + CHUNK] for at in range(0, len(span), CHUNK)]


def _quiet() -> None:
    for name in ("pynetdicom", "pydicom", "dicom_node"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def _model(folder: Path) -> Path:
    """A small random network, with the graph that starts without torch."""
    from tiny_network import tiny_artifact  # torch: seconds, and only here

    from segmenter.model.artifact import load_artifact
    from train.export.onnx_graph import add_graphs

    tiny_artifact(folder, operating_points=POSITIVE, flips=False)
    add_graphs(load_artifact(folder))
    return folder


# -- the three parts --------------------------------------------------------------------------------------------------


def _attacked(part: str, seed: int, numbers: range, model: Path) -> Part:
    """What became of these mutants."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        said = PARTS[part](seed, numbers, Path(folder), model)
    return said | {"seconds": round(time.monotonic() - started, 1)}


def _conversations(seed: int, numbers: range, folder: Path, model: Path) -> Part:
    answers, broken, before = Counter[str](), [], memory_mb()
    with running(folder, **QUIET) as node:
        watch = Watch(node)
        for at in range(0, len(numbers), WAVE):
            wave = numbers[at : at + WAVE]
            toll = speak_all(node, [conversation(seed, number) for number in wave])
            try:
                watch.check(toll)
            except AssertionError as problem:
                broken.append(f"{wave}: {problem}")
            answers += toll.answers
    growth = memory_mb() - before
    return {"count": len(numbers), "answers": dict(answers), "broken_promises": broken, "receiver_growth_mb": growth}


def _answers(seed: int, numbers: range, folder: Path, model: Path) -> Part:
    ends, broken = Counter[str](), []
    for at in range(0, len(numbers), AT_ONCE):
        wave = numbers[at : at + AT_ONCE]
        try:
            ends += send_to_all(folder / str(at), [broken_answer(seed, number) for number in wave])
        except AssertionError as problem:
            broken.append(f"{wave}: {problem}")
    return {"count": len(numbers), "ends": dict(ends), "broken_promises": broken}


def _films(seed: int, numbers: range, folder: Path, model: Path) -> Part:
    films = bases(folder)
    mutants = {one.sop_instance_uid: one for one in (mutant(films, seed, number) for number in numbers)}
    broken = []
    with running(folder, **QUIET) as node:
        watch = Watch(node)
        toll = store_all(node, list(mutants.values()))
        try:
            assert toll.answers == {"0000": len(mutants)}, toll.answers
            watch.check(toll)
        except AssertionError as problem:
            broken.append(f"{numbers}: {problem}")
        (folder / "artifact").symlink_to(model)
        answers = answer_all(folder)
        jobs = [job for job in node.ledger.jobs(limit=10**6) if job.arrival.sop_instance_uid in mutants]
        assert node.ledger.store.integrity() == "ok"
    slow = max(answers.seconds, key=lambda uid: answers.seconds[uid])
    hungry = max(answers.peak_mb, key=lambda uid: answers.peak_mb[uid])
    return {
        "count": len(jobs),
        "outcomes": dict(Counter(f"{job.state}: {job.code or job.finding}" for job in jobs)),
        "crashes": {str(mutants[uid]): how for uid, how in answers.crashes.items()},
        "unforeseen": {
            str(mutants[job.arrival.sop_instance_uid]): f"{job.code}: {job.sentence}"
            for job in jobs
            if job.code in NOT_FORESEEN or job.state not in FINISHED
        },
        "broken_promises": broken,
        "slowest": {"mutant": str(mutants.get(slow, slow)), "seconds": answers.seconds[slow]},
        "hungriest": {"mutant": str(mutants.get(hungry, hungry)), "mb": answers.peak_mb[hungry]},
    }


PARTS: dict[str, Callable[[int, range, Path, Path], Part]] = {"pdus": _conversations, "answers": _answers, "objects": _films}


# -- the report -------------------------------------------------------------------------------------------------------


def _report(asked: argparse.Namespace) -> dict[str, Any]:
    """What is counted to; the parts' `seconds` are those of all processes together, that of the whole is the clock's."""
    if asked.add and asked.out.exists():
        report = json.loads(asked.out.read_text())
        assert report["seed"] == asked.seed, "another seed: not the same mutants"
        return {"seconds": 0.0, **{part: {} for part in PARTS}, **report}
    return {"seed": asked.seed, "command": " ".join(["python", *sys.argv]), "seconds": 0.0, **{part: {} for part in PARTS}}


def count(said: Part, more: Part) -> None:
    """Add what became of some mutants to what is known of others of the same part."""
    for name, value in more.items():
        if name not in said:
            said[name] = value
        elif name in ("count", "seconds"):
            said[name] = round(said[name] + value, 1)
        elif name == "receiver_growth_mb":
            said[name] = max(said[name], value)
        elif name in ("slowest", "hungriest"):
            said[name] = max(said[name], value, key=lambda one: one.get("seconds", one.get("mb")))
        elif name in ("answers", "ends", "outcomes"):
            said[name] = dict(Counter(said[name]) + Counter(value))
        elif name == "broken_promises":
            said[name] = said[name] + value
        else:
            said[name] = said[name] | value


def _print(report: dict[str, Any]) -> None:
    names = {
        "pdus": ("conversations", "answers"), "answers": ("answers", "ends"), "objects": ("films", "outcomes"),
    }  # fmt: skip
    for part, (name, ends) in names.items():
        said = report[part]
        table = Table(f"how {name} ended", "how often", title=f"seed {report['seed']}")
        for what, count in sorted(said.get(ends, {}).items(), key=lambda one: -one[1]):
            table.add_row(what, f"{count:,}")
        Console().print(table)
        troubles = {what: said.get(what, ()) for what in ("broken_promises", "crashes", "unforeseen") if what in said}
        print(f"{said.get('count', 0):,} {name}: " + ", ".join(f"{len(all_)} {what}" for what, all_ in troubles.items()))
        for trouble in filter(None, troubles.values()):
            print(json.dumps(trouble, indent=1))
    objects = report["objects"]
    print(f"slowest: {objects.get('slowest')}; most memory: {objects.get('hungriest')}; {report['seconds']:.0f} s in all")


if __name__ == "__main__":
    sys.exit(main())
