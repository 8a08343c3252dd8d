"""The capacity model: its simulation against queues with known answers and against the real ledger; the page it writes."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import arrivals  # noqa: E402
import formula  # noqa: E402
import scale  # noqa: E402
import simulation  # noqa: E402

from dicom_node.storage import leases, ledger  # noqa: E402
from dicom_node.storage.records import Arrival  # noqa: E402

ALONE = arrivals.Habits(films_of_examination=((1, 1.0),), round_share=0.0, urgent_share=0.0)


def waits(use: float, workers: int, spread: str, habits: arrivals.Habits = ALONE, count: int = 100_000) -> np.ndarray:
    rng = np.random.default_rng(7)
    films = arrivals.steady(use * workers, count, habits, rng)
    seconds = rng.exponential(1.0, len(films.at)).tolist() if spread == "random" else [1.0] * len(films.at)
    return np.array(simulation.Day(films, seconds, workers).claimed) - np.array(films.at)


def test_queues_with_a_known_answer() -> None:
    waited = waits(0.7, 1, "random")
    assert waited.mean() == pytest.approx(0.7 / 0.3, rel=0.06)  # M/M/1
    assert np.quantile(waited, 0.95) == pytest.approx(math.log(0.7 / 0.05) / 0.3, rel=0.06)
    assert waits(0.7, 1, "none").mean() == pytest.approx(0.7 / 0.3 / 2, rel=0.06)  # M/D/1
    assert waits(0.8, 4, "random", count=300_000).mean() == pytest.approx(
        formula.erlang_c(4, 3.2) / (4 * 0.2), rel=0.06
    )  # M/M/4
    assert formula.erlang_c(4, 3.2) == pytest.approx(0.5964, abs=1e-4)
    bursts = arrivals.Habits(urgent_share=0.0, gap_seconds=0.0)
    said = formula.Formula(1, 0.7, 1.0, 0.0, bursts.sizes()).mean()
    assert waits(0.7, 1, "none", bursts, 300_000).mean() == pytest.approx(said, rel=0.08)  # M^[X]/D/1, exact


def test_who_is_next_is_what_the_ledger_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Urgent and normal films in bursts, a waiting limit that is passed, crashes and a lost worker: the simulation's events are
    told to a real ledger, which hands out the same films in the same order."""
    clock = types.SimpleNamespace(now=0.0, time=lambda: clock.now)
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(ledger, "time", clock)
    real = ledger.Ledger(tmp_path / "ledger", clock=lambda: clock.now, boot="this boot")
    habits = arrivals.Habits(urgent_share=0.6, gap_seconds=0.5)
    rng = np.random.default_rng(3)
    films = arrivals.steady(0.5, 150, habits, rng)
    held: dict[int, leases.Claim] = {}
    lost: set[str] = set()
    turns = {"normal before urgent": 0, "expired": 0, "crashed": 0}

    def watch(what: str, now: float, film: int) -> None:
        # A lease that ends at this very moment has not run out for the ledger: a moment later it has.
        clock.now = now + 1e-4
        if what == "arrive":
            queue = "urgent" if films.urgent[film] else "normal"
            real.add_arrival(Arrival(f"1.{film}", "1.2", "1.2.1", f"{film}", f"a/{film}", 1, "A", "B", "h", None, queue))
        elif what == "claim":
            claim = real.claim("worker", simulation.LEASE, normal_waits_seconds=30.0, pid=film)
            assert claim is not None and claim.job.arrival.sop_instance_uid == f"1.{film}"
            held[film] = claim
            turns["expired"] += claim.job.job_id in lost
            lost.discard(claim.job.job_id)
            waiting = [job.arrival.queue for job in real.jobs(state="received", limit=1000)]
            turns["normal before urgent"] += claim.job.arrival.queue == "normal" and "urgent" in waiting
        elif what == "lose":
            lost.add(held[film].job.job_id)
            with real.store.write() as db:  # the heartbeats until then
                until = now - (now - began[film]) % simulation.HEARTBEAT + simulation.LEASE
                db.execute("UPDATE jobs SET lease_until = ? WHERE id = ?", (until, held[film].job.job_id))
        elif what == "crash":
            turns["crashed"] += 1
            real.release_worker("worker", [film], max_crashes=99)
            del held[film]
        else:
            with real.store.write() as db:  # finished: no longer anybody's
                db.execute("UPDATE jobs SET state = 'skipped' WHERE id = ?", (held.pop(film).job.job_id,))
        began[film] = now

    began: dict[int, float] = {}
    seconds = arrivals.seconds(len(films.at), 4.4, 0.3, rng)
    loss = simulation.Loss(100.0, 160.0, 1)
    done = simulation.Day(films, seconds, 2, loss=loss, crash_share=0.05, normal_waits=30.0, watch=watch)
    assert min(done.finished) > 0 and not real.jobs(state="received")
    assert turns["normal before urgent"] > 5 and turns["expired"] == 1 and turns["crashed"] > 2


def test_a_pacs_that_was_down_gets_everything_within_the_longest_wait() -> None:
    done = [float(moment) for moment in range(0, 3600, 30)]
    stored = simulation.deliver(done, 0.2, (600.0, 1800.0))
    assert min(stored) == pytest.approx(0.2) and all(a >= b for a, b in zip(stored, done, strict=True))
    assert not [one for one in stored if 600.2 < one < 1800.2]
    late = [one for one, end in zip(stored, done, strict=True) if end < 1800]
    assert max(late) < 1800 + simulation.POLICY.max_delay + 0.2 * len(done)


ROWS = [
    ("receive: films/s, one association", 18.0, "1/s"),
    ("inference: forward pass of one film, CPU", 0.4, "s"),
    ("stages: everything but the forward pass", 0.25, "ratio"),
    ("accept: C-STORE accepted to SEG in the PACS", 0.7, "s"),
]
OWN = [
    ("ledger: films/s, one process", 40.0, "1/s"),
    ("ledger: commits of a film", 10.0, "1"),
    ("ledger: bytes that a film leaves", 3500.0, "bytes"),
    ("delivery: films/s", 5.0, "1/s"),
    ("worker API: films/s", 19.0, "1/s"),
    ("wake-ups: wake-ups/s through Redis", 700.0, "1/s"),
    ("worker: spread of its seconds", 0.2, "ratio"),
]


def results(file: Path, rows: list[tuple[str, float, str]]) -> str:
    named = [dict(zip(("name", "value", "unit"), one, strict=True)) for one in rows]
    file.write_text(json.dumps({"rows": named, "machine": "a machine, 2 cores", "commit": "abc"}))
    return str(file)


def test_the_page_is_filled_and_a_missing_row_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "scale.md"
    page.write_text((BENCH.parent / "docs" / "develop" / "scale.md").read_text("utf-8"), "utf-8")
    own = results(tmp_path / "own.json", OWN)
    quick = [
        "--own",
        own,
        "--out",
        str(page),
        "--films",
        "300",
        "--days",
        "1",
        "--region-rooms",
        "80",
        "--country-rooms",
        "160",
    ]
    assert scale.main(["--results", results(tmp_path / "results.json", ROWS), *quick]) == 0
    text = page.read_text("utf-8")
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == 9, "every table of the command has its place"
    assert "| a film keeps a worker for | 0.5 s |" in text
    assert (tmp_path / "pictures" / "scale.png").stat().st_size > 10_000
    backlog = [*ROWS, ("backlog: 200 films, films/s", 4.0, "1/s"), ("receive: films/s, four associations", 30.0, "1/s")]
    assert scale.main(["--results", results(tmp_path / "results.json", backlog), "--gpu-films-per-second", "20", *quick]) == 0
    text = page.read_text("utf-8")
    assert "| a film keeps a worker for | 0.25 s |" in text and "| films received, durably | 30 a second |" in text
    assert "GPU workers" in text and "CPU workers" not in text.split("<!-- table: sizes -->")[1].split("<!-- end -->")[0]
    assert scale.main(["--results", results(tmp_path / "results.json", ROWS[:-1]), *quick]) == 2
    assert "'accept: C-STORE accepted to SEG in the PACS' in s" in capsys.readouterr().err
