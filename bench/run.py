"""`make bench`: measures the node beside its peers on the same machine in the same run. Ratios and medians, no verdicts.

Writes bench/results.json and bench/RESULTS.md. Rounds of ours and theirs alternate, so a noisy machine is noisy for both.
`--only receive,accept` measures a part and prints it, writing nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import engines
import flow
import ledger_size
import receiving
import sizes
import starting
import training
from machine import machine_and_commit
from rows import ROOT, ROUNDS
from why import explained

GPU = json.loads((ROOT / "bench" / "gpu.json").read_text())  # by `make bench-gpu`, elsewhere
MEASURES = {
    "startup": starting.startup,
    "receive": receiving.receive,
    "hostile": receiving.hostile,
    "ledger": ledger_size.ledger,
    "engines": engines.engines,
    "stages": flow.stages,
    "accept": flow.accept,
    "backlog": flow.backlog,
    "install": sizes.sizes,
    "training": lambda scratch: training.measure(scratch, "cpu"),
    "gpu": lambda scratch: GPU["rows"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(MEASURES), help="names of measures, with commas")
    wanted = parser.parse_args().only.split(",")
    rows = []
    with tempfile.TemporaryDirectory(prefix="segmenter-bench-") as scratch:
        for name in wanted:
            print(f"measuring {name} ...", flush=True)
            rows += list(MEASURES[name](Path(scratch)))
    result = {"rows": rows, **machine_and_commit(), "gpu_machine": GPU["machine"], "gpu_commit": GPU["commit"]}
    print(_markdown(result))
    if set(wanted) == set(MEASURES):
        (ROOT / "bench" / "results.json").write_text(json.dumps(result, indent=2) + "\n")
        (ROOT / "bench" / "RESULTS.md").write_text(_markdown(result))


def _markdown(result: dict) -> str:
    lines = [
        f"# Measured by `make bench`\n\n{result['machine']}, commit {result['commit']}. Medians of {ROUNDS} rounds.\n",
        f"Rows `gpu`, by `make bench-gpu`: {result['gpu_machine']}, commit {result['gpu_commit']}.\n",
        "| what | value | spread | unit | against | target |",
        "|---|---|---|---|---|---|",
    ]
    for one in result["rows"]:
        target = "" if one["target"] is None else f"{'>=' if one['better'] == 'higher' else '<='} {one['target']}"
        value = "not measured" if one["value"] is None else f"{one['value']:.3g}"
        spread = "" if not one["spread"] else "{:.3g} to {:.3g}".format(*one["spread"])
        lines.append(f"| {one['name']} | {value} | {spread} | {one['unit']} | {one['against']} | {target} |")
    return "\n".join(lines) + "\n" + explained(result["rows"])


if __name__ == "__main__":
    main()
