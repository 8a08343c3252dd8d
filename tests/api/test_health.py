"""What the node says of itself: a real receiver, real films, HTTP by uvicorn, text read by Prometheus' own parser."""

from __future__ import annotations

import datetime
import json
import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from receiver_node import film, send
from servers import wait_for
from watched_node import Labels, Site, get, samples, watched

from dicom_node.api import metrics
from dicom_node.api.readiness import call_receiver
from dicom_node.cli.main import main
from dicom_node.storage import statistics
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import DeliveryState, State
from dicom_node.storage.retention import DAY, Cleanup
from dicom_node.storage.spool import Spool

MONITORING = Path(__file__).parents[2] / "docs" / "use" / "monitoring.md"
def ready(url: str) -> tuple[int, dict[str, dict[str, object]]]:
    status, text = get(url + "/readyz")
    return status, json.loads(text)["checks"]


def failing(url: str, check: str) -> str:
    """The text of the one check that fails, once it does."""

    def only_that() -> dict[str, dict[str, object]] | None:
        status, checks = ready(url)
        return checks if status == 503 and [name for name, one in checks.items() if not one["ok"]] == [check] else None

    return str(wait_for(only_that, 120, f"{check} alone to fail ({ready(url)})")[check]["text"])


def at(**labels: str) -> Labels:
    return frozenset(labels.items())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.stop()


def test_metrics_tell_what_the_ledger_holds_and_survive_every_restart(site: Site) -> None:
    site.start()
    for uid in ("1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.2.6", "1.2.5", "1.2.1"):
        assert send(site.port, film(uid)) == 0x0000
    positive = site.answer(State.SEGMENTED, finding="pneumothorax")
    site.answer(State.SEGMENTED, finding="none")
    site.answer(State.SKIPPED, "lateral-view")
    site.answer(State.FAILED, "not-dicom")
    unsure = site.answer(State.SEGMENTED, "no-region", finding="indeterminate")
    outbox = Outbox(site.ledger.store)
    [delivery] = outbox.of_job(positive)
    outbox.sending(delivery)
    outbox.settle(delivery, DeliveryState.DELIVERED, status=0xB007, reason="")
    site.ledger.revision("1.2.1", "c1"), site.ledger.revision("1.2.1", "c2")
    site.ledger.set_mode("paused")
    with site.ledger.store.write() as db:  # the failed film has been here for 28 days; one film waits since 100 s
        db.execute("UPDATE jobs SET finished_at = finished_at - ? WHERE state = 'failed'", (28 * DAY,))
        db.execute("UPDATE jobs SET received_at = received_at - 100 WHERE state = 'received'")
        db.execute("UPDATE jobs SET claimed_at = NULL WHERE code = 'lateral-view'")  # finished by an older program
    Cleanup(site.config, site.ledger, Spool(site.config.spool_directory, 0)).round()
    site.stop()
    with watched(site.config) as url:
        status, text = get(url + "/metrics")
    assert status == 200
    found = samples(text)
    assert found["segmenter_films_received_total"] == {at(): 6}
    assert found["segmenter_films_resent_total"] == {at(): 1}
    assert found["segmenter_conflicts_total"] == {at(): 1}
    states = {"received": 1, "claimed": 0, "segmented": 3, "skipped": 1, "failed": 1}
    assert found["segmenter_jobs"] == {at(state=state): count for state, count in states.items()}
    assert found["segmenter_jobs_answered"] == {at(finding=one): 1 for one in ("pneumothorax", "none", "indeterminate")}
    assert found["segmenter_jobs_indeterminate"] == {at(code="no-region"): 1}
    assert found["segmenter_jobs_skipped"] == {at(code="lateral-view"): 1}
    assert found["segmenter_jobs_failed"] == {at(code="not-dicom"): 1}
    assert found["segmenter_queue_waiting"] == {at(queue="normal"): 1, at(queue="urgent"): 0}
    assert 100 <= found["segmenter_queue_oldest_seconds"][at(queue="normal")] < 100 + 120
    assert found["segmenter_deliveries"] == {
        at(destination="PACS", state="delivered", status="B007"): 1,
        at(destination="PACS", state="pending", status="none"): 2,
    }
    assert at(destination="PACS") in found["segmenter_undelivered_oldest_seconds"]
    # Four films finished within the hour; the claim of one of them is not known.
    films = {"waiting": 3, "work": 4, "answer": 4, "delivery": 1}
    assert found["segmenter_stage_films"] == {at(stage=stage): count for stage, count in films.items()}
    assert found["segmenter_stage_seconds"][at(stage="work", quantile="0.99")] == 1.5
    assert found["segmenter_associations_last_hour"] == {at(outcome="released"): 7}
    assert found["segmenter_films_expiring"] == {at(): 1}
    assert found["segmenter_mode"] == {at(mode="paused"): 1, at(mode="running"): 0, at(mode="draining"): 0}
    assert found["segmenter_disk_reserve_bytes"] == {at(): 2**20}
    assert found["segmenter_disk_free_bytes"][at()] > 0
    [model] = found["segmenter_model_info"]
    assert dict(model).keys() == {"name", "version", "digest"}
    assert found["segmenter_answered_by_info"] == {at(model="m 1", digest="d"): 1}
    assert "1.2." not in text and "Nobody" not in text, "no UIDs, nothing of a patient"

    told = json.loads(CliRunner().invoke(main, ["status", "--json", "--config", str(site.file)]).stdout)
    assert (told["jobs"], told["mode"], told["expiring"]) == (states, "paused", 1)
    assert (told["findings"]["indeterminate"], told["indeterminate"], told["codes"]["no-region"]) == (1, {"no-region": 1}, 1)
    said = {verb: CliRunner().invoke(main, [*verb.split(), "--config", str(site.file)]).stdout
            for verb in ("status", "jobs", f"show {unsure}")}  # fmt: skip
    assert "1 indeterminate" in said["status"] and {"indeterminate:", "no-region"} <= set(said["jobs"].split())
    assert "no-region" in said[f"show {unsure}"] and "indeterminate" in said[f"show {unsure}"]
    assert told["queues"]["normal"]["waiting"] == 1 and told["queues"]["normal"]["oldest_seconds"] >= 100
    assert told["stages"]["work"]["seconds"]["0.5"] == 1.5
    assert told["model"]["digest"] == dict(model)["digest"]
    assert {"destination": "PACS", "state": "delivered", "status": "B007", "count": 1} in told["delivery_statuses"]
    people = CliRunner().invoke(main, ["status", "--config", str(site.file)]).stdout
    for words in ("(paused: ", "lateral-view: 1", "1 delivered (last answer B007)", "1 film without a delivered answer is"):
        assert words in people, people


def test_a_receiver_that_is_stopped_or_hangs_is_not_ready(site: Site) -> None:
    with watched(site.config) as url:
        assert "is not running" in failing(url, "receiver")
        site.start()
        wait_for(lambda: ready(url)[0] == 200, 120, f"ready ({ready(url)})")
        assert ready(url)[1]["receiver"]["text"] == "answers C-ECHO"
        assert site.receiver is not None
        site.receiver.send_signal(signal.SIGSTOP)
        assert "hangs" in failing(url, "receiver")
        assert get(url + "/healthz")[0] == 200, "this process is well"
        site.receiver.send_signal(signal.SIGCONT)
        wait_for(lambda: ready(url)[0] == 200, 120, "ready again")
    calling = site.ledger.store.read().execute("SELECT DISTINCT calling_ae FROM associations").fetchall()
    assert [ae for (ae,) in calling] == [], "our own looks are nobody's visits"


def test_what_the_gate_would_refuse_is_not_ready(site: Site) -> None:
    site.start()
    site.write("")
    with watched(site.config) as url:
        assert "receive.allowed is empty" in failing(url, "receiver")
    site.write("SOMEBODY_ELSE = []")  # edited, and the receiver was not started again
    with watched(site.config) as url:
        assert "SOMEBODY_ELSE" in failing(url, "receiver")
    site.write("MODALITY = []")
    with watched(site.config) as url:
        site.ledger.set_mode("draining")
        wait_for(lambda: ready(url)[0] == 503 and not ready(url)[1]["receiver"]["ok"], 120, "draining")
        assert "draining" in str(ready(url)[1]["mode"]["text"])
        site.ledger.set_mode("paused")  # films are still taken
        wait_for(lambda: ready(url)[0] == 200, 120, "paused")


def test_a_receiver_for_other_hosts_only_is_ready_when_it_keeps_its_rules(tmp_path: Path) -> None:
    site = Site(tmp_path, allowed='MODALITY = ["192.0.2.7"]')
    site.start()
    try:
        probe = call_receiver(site.config)
        assert probe.ok and "no C-ECHO was sent" in probe.text
        site.write('MODALITY = ["192.0.2.7"]\nPROBE = ["127.0.0.1"]')
        assert not call_receiver(site.config).ok, "not started again yet"
        site.stop()
        site.start()
        assert call_receiver(site.config).text == "answers C-ECHO"
    finally:
        site.stop()


def test_a_disk_under_the_reserve_is_not_ready(site: Site) -> None:
    site.start()
    site.write("MODALITY = []", reserve_mb=10**9)
    with watched(site.config) as url:
        assert "below node.reserve_mb" in failing(url, "disk")


def test_a_spool_that_can_keep_no_film_is_not_ready(site: Site) -> None:
    """Enough bytes are free, and every C-STORE would be A700: no inodes, no rights, or, here, something else in its place."""
    site.start()
    with watched(site.config) as url:
        wait_for(lambda: ready(url)[0] == 200, 120, "ready")
        arrivals = site.config.spool_directory / "arrivals"
        assert not list(arrivals.glob(".probe*")), "nothing is left of a check"
        arrivals.rename(arrivals.with_name("aside"))
        arrivals.write_text("")
        assert "cannot store a film" in failing(url, "disk")


def test_a_ledger_that_cannot_be_written_is_not_ready_but_alive(site: Site) -> None:
    site.start()
    with watched(site.config) as url:
        wait_for(lambda: ready(url)[0] == 200, 120, "ready")
        site.ledger.store.read().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        holder = sqlite3.connect(site.config.ledger_path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")  # what a stuck writer does to everybody
        wait_for(lambda: not ready(url)[1]["ledger"]["ok"], 120, "the ledger not to be writable")
        assert get(url + "/healthz")[0] == 200
        holder.execute("ROLLBACK")
        wait_for(lambda: ready(url)[0] == 200, 120, "ready again")


def test_a_broken_or_missing_ledger_is_not_alive(site: Site) -> None:
    path = site.config.ledger_path
    with watched(site.config) as url:
        assert get(url + "/healthz")[0] == 200
        site.ledger.store.read().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        site.ledger.store.read().close()
        whole = path.read_bytes()
        for broken in (b"x" * len(whole), whole[:4096] + b"\xff" * (len(whole) - 4096), b""):
            path.write_bytes(broken)
            status, text = get(url + "/healthz")
            assert (status, json.loads(text)["alive"]) == (503, False)
            assert not wait_for(lambda: ready(url), 120)[1]["ledger"]["ok"]
        path.write_bytes(b"x" * len(whole))
        assert get(url + "/metrics")[0] == 503
        path.unlink()
        assert get(url + "/healthz")[0] == get(url + "/metrics")[0] == 503
        assert not path.exists(), "looking makes no ledger"
        path.write_bytes(whole)
        assert get(url + "/healthz")[0] == 200


def test_who_looks_does_not_wait_for_a_writer_nor_a_writer_for_him(site: Site) -> None:
    site.start()
    assert send(site.port, film()) == 0x0000
    wait_for(site.is_journal_closed, 120, "the end of the association in the journal")
    site.ledger.store.read().execute("PRAGMA busy_timeout = 1000")
    writer = sqlite3.connect(site.config.ledger_path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with watched(site.config) as url:
        # Whoever asked for the write lock would fail after 30 s: the writer lets go only after they have answered.
        assert get(url + "/metrics")[0] == 200 == get(url + "/healthz")[0]
        assert CliRunner().invoke(main, ["status", "--config", str(site.file)]).exit_code == 0
        journal = CliRunner().invoke(main, ["journal", "--json", "--limit", "1", "--config", str(site.file)])
        [entry] = json.loads(journal.stdout)
        assert (entry["calling_ae"], entry["host"], entry["films"]) == ("MODALITY", "127.0.0.1", 1)
    writer.execute("ROLLBACK")
    reader = site.ledger.store.read()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchone()  # a scrape that takes its time
    assert send(site.port, film("1.2.3.5")) == 0x0000
    reader.execute("COMMIT")


def test_the_journal_names_who_came(site: Site) -> None:
    site.start()
    assert send(site.port, film()) == 0x0000
    invoke = lambda *more: CliRunner().invoke(main, ["journal", "--config", str(site.file), *more]).stdout  # noqa: E731
    wait_for(lambda: json.loads(invoke("--json"))[0]["outcome"] == "released", 120, "the end of the association")
    assert "MODALITY" in invoke() and "released" in invoke()
    for _ in range(3):
        assert call_receiver(site.config).text == "answers C-ECHO"
    assert len(json.loads(invoke("--json"))) == 1, "our own looks are nobody's visits"


def test_the_cost_of_looking_does_not_grow_with_what_is_on_disk(site: Site) -> None:
    """Totals from a covering index; all else searches. Loud when an index is lost (INDEXED BY) or a table is scanned."""
    values = {1: ("normal",), 2: (0.0, 2000)}
    for name, query in statistics.QUERIES.items():
        given = values.get(query.count("?"), ()) if "queue" in query or query.count("?") == 2 else (0.0,) * query.count("?")
        plan = site.ledger.store.read().execute("EXPLAIN QUERY PLAN " + query, given).fetchall()
        for step in (row["detail"] for row in plan):
            tiny = name == "meta" or "contents_conflicts" in step or "jobs_claimed" in step or "TEMP" in step
            assert step.startswith("SEARCH") or "COVERING INDEX" in step or tiny, f"{name}: {step}"


def test_the_page_lists_every_metric_with_its_type_and_labels() -> None:
    kinds = {"CounterMetricFamily": "counter", "GaugeMetricFamily": "gauge", "InfoMetricFamily": "gauge"}
    suffixes = {"CounterMetricFamily": "_total", "GaugeMetricFamily": "", "InfoMetricFamily": "_info"}
    there = {name + suffixes[kind.__name__]: (kinds[kind.__name__], labels) for name, kind, labels, _, _ in metrics.METRICS}
    there |= {f"{name}_info": ("gauge", labels) for name, labels, _ in (metrics.MODEL, metrics.BUILD)}
    text = MONITORING.read_text("utf-8")
    rows = re.findall(r"^\| `(segmenter_\w+)` \| (\w+) \| ([^|]*) \|", text, re.M)
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert listed == there
    assert set(re.findall(r"\bsegmenter_[a-z_]+", text)) <= set(there), "an alert names a metric that is not there"


def test_a_receiver_that_speaks_tls_is_called_by_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    site = Site(tmp_path, more=f"tls_certificate = '{certificate}'\ntls_key = '{key}'")
    site.start()
    try:
        wait_for(lambda: call_receiver(site.config).text == "answers C-ECHO", 120, str(call_receiver(site.config)))
        other, other_key = self_signed(tmp_path, "other")
        site.write("MODALITY = []", more=f"tls_certificate = '{other}'\ntls_key = '{other_key}'")
        refused = call_receiver(site.config)
        assert not refused.ok and "speaks TLS, but not with us" in refused.text, "another certificate is not ours"
        site.write("MODALITY = []", more="")
        assert not call_receiver(site.config).ok, "plain words to TLS"
    finally:
        site.stop()


def self_signed(folder: Path, name: str = "node") -> tuple[Path, Path]:
    """A certificate for a name that is not 127.0.0.1, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name}.hospital.example")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1))
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, secret
