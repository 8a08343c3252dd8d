"""`make soak`: a steady flow of films for half an hour; what came out, how fast, and what it cost in memory.

Memory is the share of anonymous pages (Pss_Anon) of every process of the node, every two seconds. What is kept, and not what
a film takes in passing, is the lowest sample of each minute: growth is the slope of a straight line through these after the
warm-up, in per cent of the level per hour, with its standard error.
Exit code 1 when a film was lost or doubled or ended `failed`, or a process was started again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from chaos import _undisturbed, show
from hospital import ROOT, Hospital, open_hospital
from machine import machine_and_commit
from programs import program
from rich.console import Console
from rich.table import Table

SAMPLE_SECONDS = 2.0
MODALITIES = 2


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="segmenter-soak-") as scratch, contextlib.ExitStack() as stack:
        hospital = stack.enter_context(open_hospital(Path(scratch), program("Orthanc"), MODALITIES))
        film_seconds = _undisturbed(hospital)
        pause = options.pause or MODALITIES * film_seconds / 0.6  # the worker is busy 60 % of the time at most
        samples = _watch(hospital, options.minutes * 60, pause)
        hospital.drain(120)
        memory = {name: growth(found, options.warm_up * options.minutes * 60) for name, found in samples.items()}
        result = hospital.verdict() | {
            "kills": 0, "seed": None, "minutes": options.minutes, "film_seconds": round(film_seconds, 3), "memory": memory,
        }  # fmt: skip
    result |= machine_and_commit()
    show({key: value for key, value in result.items() if key != "memory"})
    _show_memory(memory)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result["lost"] or result["doubled"] or result["failed"] or result["restarts"] else 0


def _watch(hospital: Hospital, seconds: float, pause: float) -> dict[str, list[tuple[float, float]]]:
    """Process -> (seconds, MiB) while films flow."""
    samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
    started = said = time.monotonic()
    with hospital.flow(MODALITIES, pause):
        while (now := time.monotonic()) - started < seconds:
            for name, pid in hospital.processes().items():
                with contextlib.suppress(OSError):
                    samples[name].append((now - started, pss_mb(pid)))
            if now - said > 60:
                said = now
                print(f"{(now - started) / 60:.0f} min, {len(hospital.accepted)} films", flush=True)
            time.sleep(SAMPLE_SECONDS)
    return samples


def pss_mb(pid: int) -> float:
    """What the process has allocated, MiB: its share of anonymous pages. Pages of files are left out, since a library's share
    grows when another process that maps it ends. The resident set size where the kernel does not tell. Raises OSError."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) / 1024
    except PermissionError:
        pass
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def growth(samples: list[tuple[float, float]], warm_up: float) -> dict[str, float | None]:
    """Level after the warm-up and slope in per cent of it per hour, with the slope's standard error."""
    lowest: dict[int, tuple[float, float]] = {}
    for at, mb in samples:
        minute = int(at // 60)
        lowest[minute] = min(lowest.get(minute, (at, mb)), (at, mb), key=lambda one: one[1])
    late = np.array([one for one in lowest.values() if one[0] >= warm_up])
    if len(late) < 3:
        return {"mb": None, "percent_per_hour": None, "standard_error": None}
    seconds, mb = late[:, 0] - late[:, 0].mean(), late[:, 1]
    spread = float((seconds**2).sum())
    slope = float((seconds * mb).sum() / spread)
    rest = mb - mb.mean() - slope * seconds
    error = math.sqrt(float((rest**2).sum()) / (len(late) - 2) / spread)
    to_percent = 3600 * 100 / float(mb.mean())
    return {
        "mb": round(float(mb.mean()), 1),
        "percent_per_hour": round(slope * to_percent, 2),
        "standard_error": round(error * to_percent, 2),
    }


def _show_memory(memory: dict[str, dict[str, float | None]]) -> None:
    table = Table("process", "allocated, MiB", "growth, %/h", "± (standard error)")
    for name, one in memory.items():
        table.add_row(name, *(str(one[key]) for key in ("mb", "percent_per_hour", "standard_error")))
    Console().print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pause", type=float, help="seconds between two films of one modality; default: 60 %% load")
    parser.add_argument("--warm-up", type=float, default=0.25, help="part of the time before memory counts")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "soak.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
