"""A node, two workers and a PACS as hosts of their own, whose links are cut, slow and mended while films flow."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import slow_proxy
from certificates import Authority
from click.testing import CliRunner
from hosts import Hosts, can_be_made, hosts
from instant_model import MIN_SIDE_PX, film, instant_model
from programs import skip_or_fail
from recording_pacs import RecordingPacs, count
from servers import wait_for

from dicom_node.cli.main import main
from dicom_node.runtime.config import load
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import FINISHED, DeliveryState, Job, State
from segmenter.model.artifact import load_artifact

NAME = "Zzyzx^Quilliam"
PORT, HTTP_PORT, LINE_PORT, PACS_PORT, REDIS_PORT = 11112, 8443, 9443, 11104, 6379


@dataclass
class Site:
    """The four hosts and what runs on them."""

    net: Hosts
    folder: Path
    programs: dict[str, str]
    authority: Authority
    pacs: RecordingPacs
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        return self.folder / "config.toml"

    @property
    def ledger(self) -> Ledger:
        return Ledger(load(self.config_file).ledger_path)

    def write_config(self) -> None:
        pair = self.authority.issue("node", host="node.test")
        node, pacs = self.net.address("node"), self.net.address("pacs")
        self.config_file.write_text(
            f"[node]\ndirectory = 'node'\nreserve_mb = 16\nstop_seconds = 10\n"
            f"[receive]\nhost = '{node}'\nport = {PORT}\n[receive.allowed]\nMODALITY = []\n"
            f"[peers.PACS]\nhost = '{pacs}'\nport = {PACS_PORT}\n"
            "[send]\ndestinations = ['PACS']\nfirst_delay_seconds = 0.3\nmax_delay_seconds = 1\nconnect_seconds = 1\n"
            "response_seconds = 3\n"
            f"[queue]\nbroker = 'redis://{node}:{REDIS_PORT}/0'\n"
            "[work]\nprocesses = 0\nlease_seconds = 6\nheartbeat_seconds = 1\n[segment]\nallow_demo_model = true\n"
            f"[serve]\nenabled = true\nhost = '{node}'\nport = {HTTP_PORT}\n"
            f"tls_certificate = '{pair.certificate}'\ntls_key = '{pair.key}'\n"
        )

    def start(self, name: str, host: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        self.processes[name] = subprocess.Popen([*self.net.inside(host), *command], stdout=log, stderr=log, env=env)

    def start_redis(self) -> None:
        how = f"--port {REDIS_PORT} --bind {self.net.address('node')} --protected-mode no --dir {self.folder} --appendonly yes"
        self.start("redis", "node", self.programs["redis-server"], *how.split())

    def start_node(self) -> None:
        self.start("node", "node", sys.executable, "-m", "dicom_node.cli.main", "run", "--config", str(self.config_file))

    def start_worker(self, host: str, model: Path, port: int) -> None:
        token = self.folder / f"{host}.token"
        if not token.exists():
            token.write_text(CliRunner().invoke(main, ["workers", "add", host, "--config", str(self.config_file)]).stdout)
        own = self.folder / f"{host}.toml"  # of the GPU host: no ledger, no spool, not even a folder of the node
        own.write_text(f"[segment]\nmin_side_px = {MIN_SIDE_PX}\nthreads = 1\ndevice = 'cpu'\n[work]\nlease_seconds = 6\n"
                       "heartbeat_seconds = 1\n[node]\ndirectory = '/nowhere'\n")  # fmt: skip
        how = ["--node", f"https://node.test:{port}", "--broker", f"redis://{self.net.address('node')}:{REDIS_PORT}/0"]
        how += ["--token-file", str(token), "--ca", str(self.authority.file), "--model", str(model), "--config", str(own)]
        self.start(host, host, sys.executable, "-m", "dicom_node.cli.main", "work", *how)

    def send(self, number: int) -> str:
        """A film from the PACS's host; its SOP Instance UID."""
        dataset, file = film(number), self.folder / f"film-{number}.dcm"
        dataset.PatientName = dataset.PatientID = NAME
        dataset.save_as(file, enforce_file_format=True)
        who = ["-aet", "MODALITY", "-aec", "PTXSEG", self.net.address("node"), str(PORT)]
        subprocess.run([*self.net.inside("pacs"), self.programs["storescu"], *who, str(file)], check=True, timeout=300)
        return str(dataset.SOPInstanceUID)

    def job_of(self, uid: str) -> Job:
        return self.ledger.jobs(sop_instance_uid=uid, limit=1)[0]

    def in_work(self, worker: str) -> Job | None:
        """The film that a worker has claimed."""
        return next((job for job in self.ledger.jobs(state="claimed") if job.remote == worker), None)

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def stop(self) -> None:
        for name in ("w1", "w2", "node", "line", "redis"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def site(tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    programs = {name: tool(name) for name in ("storescu", "redis-server", "ip")}
    why_not = can_be_made()
    if why_not:
        skip_or_fail(why_not)
    folder = tmp_path_factory.mktemp("site")
    with hosts("node", "w1", "w2", "pacs") as net:
        pacs = RecordingPacs(folder / "pacs", PACS_PORT, host=net.address("pacs"), before=net.inside("pacs")).start()
        one = Site(net, folder, programs, Authority(folder, "ca"), pacs)
        try:
            yield started(one)
        finally:
            one.stop()
            pacs.stop()


def started(site: Site) -> Site:
    node = site.net.address("node")
    site.net.knows("w1", "node.test", "127.0.0.1")  # through the slow line
    site.net.knows("w2", "node.test", node)
    site.start_redis()
    site.start("line", "w1", sys.executable, slow_proxy.__file__, str(LINE_PORT), node, str(HTTP_PORT), "0.15")
    site.write_config()
    site.start_node()
    # Two versions of the model drain one node.
    models = {name: instant_model(site.folder / name) for name in ("w1", "w2")}
    other = load_artifact(models["w2"])
    (models["w2"] / "manifest.json").write_text((models["w2"] / "manifest.json").read_text().replace('"0.1"', '"0.2"'))
    assert load_artifact(models["w2"]).manifest_sha256 != other.manifest_sha256
    site.start_worker("w1", models["w1"], LINE_PORT)
    site.start_worker("w2", models["w2"], HTTP_PORT)
    wait_for(lambda: _receives(site) and _receives(site, HTTP_PORT), 120, "the node")
    return site


def test_two_workers_drain_one_node_while_links_are_cut_and_mended(site: Site) -> None:
    """1. w1's link (slow) is cut while it works on a film: the lease runs out, w2, away until then, answers; w1's late
    word is refused.
    2. The PACS's link is cut: deliveries wait. 3. Both workers' links are cut: films wait. 4. w2 is killed with -9 on a film.
    5. The node itself is killed with -9 and started again.
    6. Redis is killed with -9 and comes back empty. 7. w2's link is cut: w1 answers alone.

    Result: each film one result, one UID, one content at the PACS; nobody is charged for a cut line.
    """
    site.net.cut("w2")  # it would have answered before w1 had asked
    films = [site.send(number) for number in range(1, 5)]
    stranded = wait_for(lambda: site.in_work("w1"), 120, f"a film in w1's work ({site.log_of('w1')[-1500:]})")
    site.net.cut("w1")
    site.net.mend("w2")
    films += [site.send(number) for number in range(5, 8)]
    job = wait_for(lambda: _finished(site, stranded.job_id), 120, "the stranded film's answer")
    assert (job.attempts, job.crashes) == (2, 0), "a lease that ran out charges nobody"
    assert "w2" in site.log_of("node")
    site.net.mend("w1")

    site.net.cut("pacs")
    site.net.mend("pacs")  # the sender lives there: its film first
    films.append(site.send(8))
    site.net.cut("pacs")
    wait_for(lambda: site.job_of(films[-1]).state in FINISHED, 120, "an answer while the PACS is away")
    time.sleep(1.5)
    assert _open_deliveries(site), "the PACS is away: the delivery waits"
    site.net.mend("pacs")

    for worker in ("w1", "w2"):
        site.net.cut(worker)
    films += [site.send(number) for number in range(9, 12)]
    time.sleep(1.0)
    assert site.job_of(films[-1]).state is State.RECEIVED
    for worker in ("w1", "w2"):
        site.net.mend(worker)
    films += [site.send(number) for number in range(12, 16)]
    wait_for(lambda: site.in_work("w2"), 120, "a film in w2's work")
    site.processes["w2"].kill()
    site.processes["node"].kill()
    wait_for(lambda: not _receives(site), 120, "the end of the receiver that was killed with its node")
    site.start_node()
    site.start_worker("w2", site.folder / "w2" / "model", HTTP_PORT)
    site.processes["redis"].kill()  # and it comes back empty
    site.processes["redis"].wait(120)
    assert not _says_in_redis(site, NAME), "a wake-up has no content"
    shutil.rmtree(site.folder / "appendonlydir")
    site.start_redis()
    wait_for(lambda: _receives(site), 120, "the node")
    films += [site.send(number) for number in range(16, 19)]

    wait_for(lambda: all(site.job_of(uid).state in FINISHED for uid in films), 120, "every answer")
    site.net.cut("w2")
    films.append(site.send(19))
    wait_for(lambda: all(site.job_of(uid).state in FINISHED for uid in films), 120, "every answer")
    site.net.mend("w2")
    wait_for(lambda: not _open_deliveries(site), 120, "every delivery")
    jobs = [site.job_of(uid) for uid in films]
    assert {job.state for job in jobs} == {State.SEGMENTED}
    assert sum(job.crashes for job in jobs) == 0
    counted = count(site.pacs.journal(), films, ["PACS"])
    assert (counted.results, counted.lost, counted.doubled, counted.strange) == (2 * len(films), [], [], [])


def test_every_result_names_the_model_that_made_it(site: Site) -> None:
    """Two versions drained the node: each object carries the digest that its job carries."""
    jobs = site.ledger.jobs(limit=100)
    assert all("detector-spacing" in job.notes for job in jobs), "what a distant worker assumed is known here"
    digests = {job.arrival.sop_instance_uid: str(job.model_digest) for job in jobs}
    assert len(set(digests.values())) == 2, "both versions answered"
    for one in site.pacs.journal():
        assert digests[one.source].startswith(one.model) and one.model


def test_the_worker_host_needs_neither_disk_nor_ledger_of_the_node(site: Site) -> None:
    assert not Path("/nowhere").exists()
    for name in ("w1", "w2"):
        assert "cannot be used" not in site.log_of(name)
    for name in ("node", "w1", "w2"):
        assert "Zzyzx" not in site.log_of(name)


def test_tokens_and_films_never_cross_the_wire_in_plain(site: Site) -> None:
    """The worker server speaks TLS only, and a worker that does not trust its certificate does not talk to it."""
    address = f"http://{site.net.address('node')}:{HTTP_PORT}/openapi.json"
    ask = "import httpx2, sys; print(httpx2.get(sys.argv[1], trust_env=False, timeout=5).status_code)"
    plain = subprocess.run([*site.net.inside("w2"), sys.executable, "-c", ask, address], capture_output=True, text=True)
    assert plain.returncode != 0
    untrusting = subprocess.run(
        [*site.net.inside("w2"), sys.executable, "-c", ask, f"https://node.test:{HTTP_PORT}/openapi.json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "certificate verify failed" in untrusting.stderr


def _says_in_redis(site: Site, words: str) -> bool:
    """Whether these words ever went through Redis: its append-only file holds every command."""
    files = [file.read_bytes() for file in (site.folder / "appendonlydir").iterdir()]
    assert any(b"film_is_ready" in data for data in files), "the wake-ups went through this Redis"
    return any(words.encode() in data for data in files)


def _finished(site: Site, job_id: str) -> Job | None:
    job = site.ledger.job(job_id)
    return job if job.state in FINISHED else None


def _open_deliveries(site: Site) -> int:
    outbox = Outbox(site.ledger.store)
    states = [one.state for job in site.ledger.jobs(limit=100) for one in outbox.of_job(job.job_id)]
    return sum(state in (DeliveryState.PENDING, DeliveryState.SENT) for state in states)


def _receives(site: Site, port: int = PORT) -> bool:
    probe = f"import socket; socket.create_connection(('{site.net.address('node')}', {port}), 1)"
    return subprocess.run([*site.net.inside("pacs"), sys.executable, "-c", probe], capture_output=True).returncode == 0
