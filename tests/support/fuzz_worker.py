"""The work side under fuzz, as a process of its own: it answers every film of a ledger, and may die of one.

    python fuzz_worker.py FOLDER       with FOLDER/spool, FOLDER/ledger.sqlite, FOLDER/artifact

One line of JSON per step on standard output: {"ready"}, {"job", "uid"} before a film, {"job", "seconds", "peak_mb"} after.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from dicom_node.runtime.config_sections import Send, Work
from dicom_node.storage.destinations import Router
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.storage.spool import Spool
from dicom_node.work.job_runner import JobRunner
from segmenter.engine import Segmenter
from segmenter.model.artifact import load_artifact
from segmenter.settings import Settings

NAME = "fuzz"
MAX_CRASHES = 1  # the first crash is told: the mutant is known by it
MEMORY = 1536 * 2**20  # bytes of address space beside what the loaded model holds
SETTINGS = Settings(device="cpu", threads=1, min_side_px=128, absurd_fraction=1.0)


def main(folder: Path) -> None:
    segmenter = Segmenter(load_artifact(folder / "artifact"), SETTINGS)
    ledger, spool = Ledger(folder / "ledger.sqlite"), Spool(folder / "spool", 0)
    router = Router(Send(destinations=("PACS",)), {})
    runner = JobRunner(LocalQueue(ledger, spool, Work(max_crashes=MAX_CRASHES), router, 300.0, NAME), segmenter)
    limit = _kb("VmSize") * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    say(ready=True)
    while claim := runner.claim():
        say(job=claim.job.job_id, uid=claim.job.arrival.sop_instance_uid)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
        before, started = _kb("VmRSS"), time.monotonic()
        try:
            runner.answer(claim)
        except Exception as problem:  # noqa: BLE001  stands in for the task edge
            print(f"{type(problem).__name__} in {claim.job.arrival.sop_instance_uid}", file=sys.stderr)
            runner.record_crash(claim, problem)
        peak = (_kb("VmHWM") - before) // 1024
        say(job=claim.job.job_id, seconds=round(time.monotonic() - started, 3), peak_mb=peak)


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def _kb(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name + ":")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
