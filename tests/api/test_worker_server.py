"""The worker API: who may use it, whose claim it is, what is accepted, and what happens to repeated requests."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
import slow_proxy
import uvicorn
from click.testing import CliRunner
from fastapi import FastAPI
from ledger_counts import open_deliveries
from pydicom.dataset import Dataset
from receiver_node import running as receiving
from receiver_node import send
from remote_worker import CONTENT, MODEL, Hand, RemoteWorker, encoded, result, seg_of
from servers import free_port, wait_for

from dicom_node.api import connection_limits, worker_client
from dicom_node.api.schemas import ClaimReply
from dicom_node.api.worker_client import RemoteQueue
from dicom_node.cli.main import main
from dicom_node.runtime.config import Config, load
from dicom_node.runtime.config_sections import Work
from dicom_node.runtime.errors import ConfigError, DiskReserve, NodeAway
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import State
from segmenter.errors import Refused
from segmenter.indeterminate import IndeterminateCode
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom

PATIENT = "Zzyzx^Quilliam"

drawn_once = functools.cache(draw_phantom)


@dataclass
class ServeProcess:
    """`segmenter-worker serve` as a process, beside the ledger and spool that a receiver fills."""

    config_file: Path
    config: Config
    process: subprocess.Popen[bytes]
    url: str

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.config.ledger_path)

    def token(self, name: str = "gpu1") -> str:
        done = CliRunner().invoke(main, ["workers", "add", name, "--config", str(self.config_file)])
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    def worker(self, name: str = "gpu1") -> RemoteWorker:
        return RemoteWorker(self.url, self.token(name))

    def remote_node(self, name: str) -> RemoteQueue:
        token = self.config_file.with_name(f"token-{name}")
        token.write_text(self.token(name))
        return RemoteQueue.of(Work(node=self.url, token_file=str(token)), "ab", "m 1", MODEL)

    def film(self, seed: int = 1, private: int = 0) -> str:
        """A film that was received; its SOP Instance UID. `private`: bytes of a private element before the patient."""
        dataset = phantom_dataset(drawn_once(seed, shape=(96, 80)), kind="DX", bits=12)
        if private:
            dataset.private_block(0x0009, "MAKER", create=True).add_new(1, "OB", bytes(private))
        dataset.PatientName = dataset.PatientID = PATIENT
        with receiving(self.config.node.directory, allowed={"MODALITY": []}) as node:
            assert send(node.port, dataset) == 0x0000
        return str(dataset.SOPInstanceUID)

    def job_of(self, uid: str):
        return self.ledger.jobs(sop_instance_uid=uid, limit=1)[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with served(tmp_path_factory.mktemp("shared")) as one:
        yield one


@pytest.fixture
def api(shared: ServeProcess) -> Iterator[ServeProcess]:
    """The one process of all tests, with an empty ledger and spool."""
    yield shared
    assert shared.process.poll() is None, "it must serve on, whatever it was told"
    with shared.ledger.store.write() as db:
        for table in ("deliveries", "objects", "answers", "contents", "jobs", "associations", "workers"):
            db.execute(f"DELETE FROM {table}")
    for folder in ("job", "arrivals"):
        for file in filter(Path.is_file, list((shared.config.spool_directory / folder).rglob("*"))):
            file.unlink()


@contextmanager
def served(folder: Path) -> Iterator[ServeProcess]:
    file, port = folder / "config.toml", free_port()
    file.write_text(
        f"[node]\ndirectory = 'node'\nreserve_mb = 1\nstop_seconds = 6\n[serve]\nport = {port}\nmax_object_mb = 1\n"
        "[peers.PACS]\nhost = '127.0.0.1'\nport = 104\n[send]\ndestinations = ['PACS']\n"
        "[work]\nlease_seconds = 2\nheartbeat_seconds = 0.5\nmax_attempts = 4\n"
    )
    log = (folder / "serve.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "dicom_node.cli.main", "serve", "--config", str(file)], stderr=log, env=os.environ.copy()
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(port), 120, "the worker API")
        yield ServeProcess(file, load(file), process, url)
    finally:
        process.terminate()
        process.wait(120)
        text = (folder / "serve.log").read_text()
        assert "Zzyzx" not in text and "Quilliam" not in text


def heard(node: RemoteQueue) -> list[str]:
    """What it asks from now on."""
    calls: list[str] = []
    node._client.event_hooks = {"request": [lambda request: calls.append(f"{request.method} {request.url.path}")]}
    return calls


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_who_has_no_token_gets_nothing_and_a_revoked_one_is_out_at_once(api: ServeProcess) -> None:
    uid = api.film()
    job_id = api.job_of(uid).job_id
    for token in ("-", "wrong", "x" * 5000):
        stranger = RemoteWorker(api.url, token)
        answers = [
            stranger.client.get("/v1/ready"),
            stranger.ask(secrets.token_hex(16)),
            stranger.client.get(f"/v1/claims/{job_id}/source", headers={"X-Claim-Owner": "0" * 32}),
            stranger.client.post("/v1/living", json={"instance": "ab", "pids": []}),
        ]
        assert {answer.status_code for answer in answers} == {401}
    first = api.worker("gpu1")
    held = first.claim()
    assert CliRunner().invoke(main, ["workers", "revoke", "gpu1", "--config", str(api.config_file)]).exit_code == 0
    assert held.call("GET", "/source").status_code == 401
    assert api.job_of(uid).state is State.RECEIVED, "its film is free at once, uncharged"
    assert api.job_of(uid).crashes == 0
    token = api.token("gpu1")
    assert token not in api.config.ledger_path.read_bytes().decode("latin-1"), "a token is kept as a digest only"
    shown = json.loads(CliRunner().invoke(main, ["workers", "list", "--json", "--config", str(api.config_file)]).stdout)
    assert [(one["name"], one["state"], one["model"]) for one in shown] == [("gpu1", "allowed", "m 1")]


def test_claim_fetch_return_and_the_same_words_twice(api: ServeProcess) -> None:
    """Result: one answer and one delivery, however often a worker that heard no reply says it again."""
    uid = api.film()
    worker, owner = api.worker(), secrets.token_hex(16)
    asked = [worker.ask(owner).json() for _ in range(3)]
    assert asked[0] == asked[1] == asked[2], "asking again with the token is asking the same"
    assert api.job_of(uid).attempts == 1
    assert worker.ask(secrets.token_hex(16)).status_code == 204
    held = Hand(worker.client, asked[0], owner)
    source = held.source()
    assert source.SOPInstanceUID == uid
    content = {"content_sha256": CONTENT, "model_digest": MODEL}
    assert held.call("POST", "/content", json=content).json() == {"revision": 1, "kinds": None}
    seg = seg_of(source)
    sha256 = held.send(seg)
    assert held.send(seg) == sha256
    other = seg_of(source, SeriesDescription="other bytes")
    assert held.call("PUT", "/objects/seg.dcm", content=encoded(other)).status_code == 409
    ended = [held.finish(sha256, threshold=0.25, notes=["view-assumed", "of-a-newer-worker"]) for _ in range(3)]
    assert [answer.status_code for answer in ended] == [200, 200, 200]
    assert held.finish(sha256, finding="none", objects=[]).status_code == 409, "other words with a used token"
    job = api.job_of(uid)
    assert (job.state, job.finding, job.attempts) == (State.SEGMENTED, "pneumothorax", 1)
    assert job.notes == ("view-assumed", "of-a-newer-worker")
    shown = CliRunner().invoke(main, ["show", job.job_id, "--config", str(api.config_file)]).stdout
    assert "view-assumed: Nothing names the view" in shown and "of-a-newer-worker" in shown
    assert job.threshold == 0.25 and "90 % (threshold 25 %)" in shown
    [delivery] = Outbox(api.ledger.store).of_job(job.job_id)
    assert (delivery.object.sha256, delivery.object.sop_instance_uid) == (sha256, seg.SOPInstanceUID)
    assert (api.config.spool_directory / delivery.object.path).read_bytes() == encoded(seg)


def test_an_indeterminate_answer_of_a_remote_worker_needs_its_code_and_keeps_it(api: ServeProcess) -> None:
    uid = api.film()
    worker, sentence = api.worker(), IndeterminateCode.NO_REGION.sentence
    said = {"finding": "indeterminate", "area_mm2": None, "sentence": sentence, "objects": []}
    for wrong in ({}, {"code": "no-region", "finding": "none"}):  # no reason; a reason for a plain no
        assert worker.claim().finish("0" * 64, **said | wrong).status_code == 422
    assert worker.claim().finish("0" * 64, **said, code="no-region").status_code == 200
    job = api.job_of(uid)
    assert (job.state, job.finding, job.code, job.probability) == (State.SEGMENTED, "indeterminate", "no-region", 0.9)
    assert job.sentence == sentence


def test_a_worker_understands_a_newer_node_and_a_node_takes_no_unknown_words(api: ServeProcess) -> None:
    api.film()
    worker, owner = api.worker(), secrets.token_hex(16)
    said = worker.ask(owner).json()
    assert ClaimReply.model_validate(said | {"of_a_newer_node": 1}) == ClaimReply.model_validate(said)
    assert Hand(worker.client, said, owner).finish("0" * 64, of_a_newer_worker=1).status_code == 422


def test_a_late_finisher_is_refused_and_another_ones_claim_cannot_be_touched(api: ServeProcess) -> None:
    uid = api.film()
    slow, quick = api.worker("slow"), api.worker("quick")
    lost = slow.claim()
    source = lost.source()
    sha256 = lost.send(seg_of(source))
    taken = wait_for(lambda: _claimed(quick), 120, "the lease to run out")
    assert lost.finish(sha256).status_code == 409
    assert lost.call("PUT", "/lease").status_code == 409
    assert lost.call("POST", "/trouble", json={"code": "internal-error", "sentence": "x"}).status_code == 409
    assert lost.call("DELETE", "").status_code == 409
    lost.owner = taken.owner
    assert lost.finish(sha256).status_code == 409, "the right owner token in the hand of another worker"
    time.sleep(0.1)
    assert taken.finish(taken.send(seg_of(source))).status_code == 200
    job = api.job_of(uid)
    assert (job.state, job.attempts, job.crashes) == (State.SEGMENTED, 2, 0), "a lease that ran out charges nobody"
    assert len(Outbox(api.ledger.store).of_job(job.job_id)) == 1


def _claimed(worker: RemoteWorker):
    owner = secrets.token_hex(16)
    answer = worker.ask(owner)
    return Hand(worker.client, answer.json(), owner) if answer.status_code == 200 else None


def test_what_does_not_belong_to_the_film_is_refused(api: ServeProcess) -> None:
    """Wrong UID, class, study, patient, film, sha256, bytes. Result: nothing of it is stored as a result; charged thrice."""
    cases = {
        "SOP Instance UID": {"SOPInstanceUID": "1.2.3"},
        "SOP class": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        "StudyInstanceUID": {"StudyInstanceUID": "1.2.3"},
        "PatientID": {"PatientID": "somebody else"},
        "does not refer": {"ReferencedSeriesSequence": []},
    }
    worker = api.worker()
    for seed, (what, changes) in enumerate(cases.items(), start=10):
        uid = api.film(seed)
        held = worker.claim()
        answer = held.finish(held.send(seg_of(held.source(), **changes)))
        assert answer.status_code == 422 and what in answer.text, (what, answer.text)
        assert "Zzyzx" not in answer.text and "somebody" not in answer.text
        job = api.job_of(uid)
        assert (job.state, job.crashes) == (State.RECEIVED, 1)
        held = worker.claim()
        assert held.finish("e" * 64).status_code == 422, "an object that was never sent"
        held = worker.claim()
        held.call("PUT", "/objects/seg.dcm", content=b"not DICOM")
        assert held.finish(hashlib.sha256(b"not DICOM").hexdigest()).status_code == 422
        job = api.job_of(uid)
        assert (job.state, job.code) == (State.FAILED, "result-refused")
        assert not Outbox(api.ledger.store).of_job(job.job_id)


def test_a_file_that_the_sender_could_not_send_is_refused(api: ServeProcess) -> None:
    """File Meta without a transfer syntax, with another class, another syntax, a wrong length; a dataset that is cut."""
    bad = {
        "its transfer syntax": lambda seg: _renamed(encoded(seg), b"\x02\x00\x10\x00UI"),
        "Explicit VR Little Endian": lambda seg: _in_syntax(seg, "1.2.840.10008.1.2.4.90"),
        "another SOP class, or none": lambda seg: _renamed(encoded(seg), b"\x02\x00\x02\x00UI"),
        "does not end where": lambda seg: _with_group_length(encoded(seg), -8),
        "the group's length": lambda seg: encoded(seg)[:132] + encoded(seg)[144:],
        "to its end": lambda seg: encoded(seg) + b"\xfc\xff\xfc\xffOB\0\0\x10\0\0\0x",
    }
    worker = api.worker()
    for seed in (20, 21):  # each is charged three times
        api.film(seed)
    for what, broken in bad.items():
        held = worker.claim()
        data = broken(seg_of(held.source()))
        held.call("PUT", "/objects/seg.dcm", content=data).raise_for_status()
        answer = held.finish(hashlib.sha256(data).hexdigest())
        assert answer.status_code == 422, what
        assert what in answer.text or what in ("does not end where", "the group's length"), (what, answer.text)
    assert not open_deliveries(api.ledger.store)
    left = [file for file in (api.config.spool_directory / "job").rglob("*") if file.is_file()]
    assert not left, "what was refused is removed"


def _renamed(data: bytes, tag: bytes) -> bytes:
    """The element is there, and is another one: (0002,xxxx) becomes one without a name."""
    return data.replace(tag, tag[:2] + bytes((tag[2] + 1,)) + tag[3:], 1)


def _in_syntax(seg: Dataset, syntax: str) -> bytes:
    data, wanted = encoded(seg), syntax.encode().ljust(20, b"\0")[:20]
    return data.replace(b"1.2.840.10008.1.2.1\0", wanted, 1)


def _with_group_length(data: bytes, change: int) -> bytes:
    return data[:140] + (int.from_bytes(data[140:144], "little") + change).to_bytes(4, "little") + data[144:]


def test_only_what_was_asked_for_is_kept_and_the_reserve_stays(api: ServeProcess) -> None:
    """A token cannot fill the disk, with names that nobody asked for or claim by claim."""
    api.film()
    worker = api.worker()
    held = worker.claim()
    for name in ("seg-positioned.dcm", "capture.dcm", "x1.dcm", "presentation.dcm"):
        assert name.removesuffix(".dcm") not in held.task["kinds"]
        answer = held.call("PUT", f"/objects/{name}", content=b"x" * 1000)
        assert answer.status_code == 422 and name in answer.text
    for _ in range(3):
        assert held.call("PUT", "/objects/seg.dcm", content=b"x" * 1000).status_code == 200
        assert held.call("DELETE", "").status_code == 204
        held = worker.claim()
    left = [file for file in (api.config.spool_directory / "job").rglob("*") if file.is_file()]
    assert not left, "what a claim left that was given back"


def test_the_reserve_is_not_for_another_machine(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[node]\ndirectory = 'node'\nreserve_mb = 1000000000\n")
    config = load(tmp_path / "c.toml")
    with receiving(config.node.directory, allowed={"MODALITY": []}) as node:
        dataset = phantom_dataset(drawn_once(1, shape=(96, 80)), kind="DX", bits=12)
        assert send(node.port, dataset) == 0x0000
    here = LocalQueue.of(config, "w")
    claim = here.claim(1)
    assert claim is not None
    with pytest.raises(DiskReserve):
        here.for_remote_worker("gpu1").store(claim, "seg.dcm", b"x")
    assert here.store(claim, "seg.dcm", b"x")[1], "it is there for the worker of this machine"


def test_a_film_with_a_large_private_block_is_answered(api: ServeProcess) -> None:
    """Result: what film and result must share is found behind it."""
    uid = api.film(private=300_000)
    held = api.worker().claim()
    assert held.finish(held.send(seg_of(held.source()))).status_code == 200
    assert api.job_of(uid).state is State.SEGMENTED


def test_a_result_that_is_too_large_for_the_node_ends_the_film_with_a_code(api: ServeProcess) -> None:
    api.film()
    token = api.config_file.with_name("token")
    token.write_text(api.token())
    node = RemoteQueue.of(Work(node=api.url, token_file=str(token)), "ab", "m 1", MODEL)
    claim = node.claim()
    assert claim is not None
    with pytest.raises(Refused, match=r"serve\.max_object_mb") as refused:
        node.store(claim, "seg.dcm", bytes(2 * 2**20))
    assert refused.value.code == "result-too-large"


def test_bodies_are_bounded_and_errors_quote_nothing(api: ServeProcess) -> None:
    api.film()
    worker = api.worker()
    held = worker.claim()
    assert held.call("PUT", "/objects/seg.dcm", content=b"x" * (2 * 2**20)).status_code == 413
    assert held.call("PUT", "/objects/seg.dcm", content=(b"x" * 65536 for _ in range(40))).status_code == 413, "undeclared size"
    assert worker.client.post("/v1/claims", content=b"{" + b" " * 100_000).status_code == 413
    for name in ("..%2f..%2fx.dcm", "seg.exe", "UPPER.dcm", "a" * 80 + ".dcm"):
        assert held.call("PUT", f"/objects/{name}", content=b"x").status_code in (404, 422)
    wrong = worker.client.post("/v1/claims", json={"instance": PATIENT, "pid": -1})
    assert wrong.status_code == 422 and "Zzyzx" not in wrong.text
    assert held.call("POST", "/result", json=result("e" * 64) | {"probability": 7}).status_code == 422
    left = [file for file in (api.config.spool_directory / "job").rglob("*") if file.is_file()]
    assert not left


def test_a_dead_process_of_a_worker_is_charged_and_the_film_free_at_once(api: ServeProcess) -> None:
    uid = api.film()
    worker, other = api.worker("gpu1"), api.worker("gpu2")
    worker.claim()
    other.client.post("/v1/living", json={"instance": worker.instance, "pids": []}).raise_for_status()
    assert api.job_of(uid).state is State.CLAIMED, "nobody speaks for another worker's processes"
    worker.client.post("/v1/living", json={"instance": worker.instance, "pids": [4711]}).raise_for_status()
    assert api.job_of(uid).state is State.CLAIMED
    worker.client.post("/v1/living", json={"instance": worker.instance, "pids": [1]}).raise_for_status()
    assert (api.job_of(uid).state, api.job_of(uid).crashes) == (State.RECEIVED, 1)
    worker.claim()
    said = {"instance": worker.instance, "pids": [], "dead": [4712]}  # one that began after the look is not among the living
    worker.client.post("/v1/living", json=said).raise_for_status()
    assert api.job_of(uid).state is State.CLAIMED
    worker.client.post("/v1/living", json=said | {"dead": [4711]}).raise_for_status()
    assert (api.job_of(uid).state, api.job_of(uid).crashes) == (State.RECEIVED, 2)


def test_a_new_token_is_taken_without_a_restart(api: ServeProcess) -> None:
    token = api.config_file.with_name("token")
    token.write_text(api.token())
    node = RemoteQueue.of(Work(node=api.url, token_file=str(token)), "ab")
    assert node.ready() == 0
    assert CliRunner().invoke(main, ["workers", "revoke", "gpu1", "--config", str(api.config_file)]).exit_code == 0
    with pytest.raises(NodeAway, match="does not accept our token"):
        node.ready()
    token.write_text(api.token())
    assert node.ready() == 0


def test_an_idle_worker_that_redis_wakes_notices_a_revocation(api: ServeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "_CHECK_SECONDS", 0.0)
    token = api.config_file.with_name("token")
    token.write_text(api.token())
    node = RemoteQueue.of(Work(node=api.url, token_file=str(token)), "ab")
    assert node.reap()
    assert CliRunner().invoke(main, ["workers", "revoke", "gpu1", "--config", str(api.config_file)]).exit_code == 0
    with pytest.raises(NodeAway, match="it was revoked or replaced"):
        node.reap()


def test_numbers_are_bounded(api: ServeProcess) -> None:
    api.film()
    worker = api.worker()
    assert worker.ask(secrets.token_hex(16), pid=10**30).status_code == 422
    held = worker.claim()
    body = json.dumps(result("0" * 64)).replace("12.0", "Infinity")
    answer = held.call("POST", "/result", content=body.encode())
    assert "Infinity" in body and answer.status_code == 422


def test_what_is_no_answer_of_a_node_means_that_it_is_away(tmp_path: Path) -> None:
    """A proxy's page in its place: the ringer says so and goes on asking."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>back soon</html>")

        def log_message(self, *_: object) -> None:
            pass

    token = tmp_path / "token"
    token.write_text("x")
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = RemoteQueue.of(Work(node=f"http://127.0.0.1:{server.server_port}", token_file=str(token)), "ab")
        with pytest.raises(NodeAway, match="not as a node does"):
            node.ready()
        server.shutdown()


def test_all_claims_of_a_process_are_renewed_by_one_call(api: ServeProcess) -> None:
    """Three films at a worker, one of them lost meanwhile; another worker's token renews none of them."""
    uids = [api.film(seed) for seed in (1, 2, 3)]
    node, other = api.remote_node("gpu1"), api.remote_node("gpu2")
    claims = [claim for claim in (node.claim(beside=at > 0) for at in range(3)) if claim is not None]
    assert len(claims) == 3
    calls = heard(node)
    assert node.renew(claims) == set()
    assert calls == ["PUT /v1/leases"]
    assert other.renew(claims) == {claim.owner for claim in claims}
    node.release(claims[1])
    assert node.renew(claims) == {claims[1].owner}
    assert [api.job_of(uid).state for uid in uids].count(State.CLAIMED) == 2


def test_a_node_that_knows_only_single_leases_is_asked_for_them(tmp_path: Path) -> None:
    """Nodes before `/v1/leases`: one call each, and a lost one costs no other."""
    asked = []

    class OldNode(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            single = self.path.endswith("/lease")
            self.send_response((409 if "job2" in self.path else 204) if single else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    token = tmp_path / "token"
    token.write_text("x")
    with ThreadingHTTPServer(("127.0.0.1", 0), OldNode) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = RemoteQueue.of(Work(node=f"http://127.0.0.1:{server.server_port}", token_file=str(token)), "ab")
        claims = [SimpleNamespace(job=SimpleNamespace(job_id=f"job{n}"), owner=f"{n:032x}") for n in range(4)]
        for _ in range(2):
            assert node.renew(claims) == {f"{2:032x}"}  # type: ignore[arg-type]
        server.shutdown()
    singles = [f"/v1/claims/job{n}/lease" for n in range(4)]
    assert asked == ["/v1/leases", *singles, *singles]


def test_a_body_that_cannot_be_decoded_means_that_the_node_is_away(tmp_path: Path) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(b"this was never packed")

        def log_message(self, *_: object) -> None:
            pass

    token = tmp_path / "token"
    token.write_text("x")
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = RemoteQueue.of(Work(node=f"http://127.0.0.1:{server.server_port}", token_file=str(token)), "ab")
        with pytest.raises(NodeAway):
            node.ready()
        server.shutdown()


def test_a_line_that_is_too_slow_for_a_film_is_no_fault_of_the_film(api: ServeProcess) -> None:
    """Result: what is sent and what is fetched end long before the time limit, which would charge the film with a crash."""
    api.film(private=900_000)
    token = api.config_file.with_name("token")
    token.write_text(api.token())
    port = free_port()
    program, behind = slow_proxy.__file__, api.url.rsplit(":", 1)[1]
    line = subprocess.Popen([sys.executable, program, str(port), "127.0.0.1", behind, "0.4"])
    try:
        wait_for(lambda: _answers(port), 120, "the line")
        work = Work(node=f"http://127.0.0.1:{port}", token_file=str(token), time_limit_seconds=6)
        node = RemoteQueue.of(work, "ab", "m 1", MODEL)
        claim = node.claim()
        assert claim is not None
        for step in (lambda: node.source(claim), lambda: node.store(claim, "seg.dcm", os.urandom(1_000_000))):
            with pytest.raises(NodeAway):  # the whole of it would come through, in nearly the time limit
                step()
    finally:
        line.kill()
        line.wait()


def test_who_says_nothing_is_shown_out_and_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn alone waits for a request without end. Result: silent connections, and one that sends its head byte by byte, are
    closed; one host has its share and no more."""
    monkeypatch.setattr(connection_limits, "HEAD_SECONDS", 1.0)
    app = FastAPI()
    app.get("/")(lambda: "here")
    port = free_port()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=connection_limits.LimitedProtocol,
        limit_concurrency=connection_limits.MAX_CONNECTIONS,
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    silent: list[socket.socket] = []
    try:
        wait_for(lambda: _answers(port), 120, "the server")
        silent += [socket.create_connection(("127.0.0.1", port)) for _ in range(connection_limits.MAX_PER_HOST - 20)]
        slow = silent[0]
        slow.sendall(b"GET / HTT")
        assert httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).json() == "here", "meanwhile"
        silent += [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        wait_for(lambda: all(_is_closed(one) for one in silent), 120, "the end of all silent connections")
        assert httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).json() == "here"
        wait_for(lambda: not connection_limits.LimitedProtocol.of_host, 120, "the last of them")
    finally:
        for one in silent:
            one.close()
        server.should_exit = True
        thread.join(120)


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(100) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_worker_that_holds_several_films_loses_them_uncharged(api: ServeProcess) -> None:
    uids = [api.film(seed) for seed in (1, 2)]
    worker = api.worker()
    worker.claim()
    owner = secrets.token_hex(16)
    asked = [worker.ask(owner, beside=True).json()["job_id"] for _ in range(2)]
    assert asked[0] == asked[1], "asking again is asking the same"
    worker.client.post("/v1/living", json={"instance": worker.instance, "pids": []}).raise_for_status()
    assert {(api.job_of(uid).state, api.job_of(uid).crashes) for uid in uids} == {(State.RECEIVED, 0)}
    assert worker.ask(secrets.token_hex(16), beside=True).status_code == 204, "each is worked on alone from now on"
    assert worker.claim().task["attempts"] == 2


def test_a_stop_hands_out_nothing_and_waits_for_distant_benches(tmp_path: Path) -> None:
    with served(tmp_path) as api:
        uid, later = api.film(1), api.film(2)
        worker = api.worker()
        held = worker.claim()
        api.process.terminate()
        time.sleep(0.5)  # it looks for signals twenty times a second
        wait_for(lambda: worker.ask(secrets.token_hex(16)).status_code == 204, 120, "no new work")
        sha256 = held.send(seg_of(held.source()))
        assert held.finish(sha256).status_code == 200
        assert api.process.wait(120) == 0
        first = next(one for one in (uid, later) if api.job_of(one).state is State.SEGMENTED)
        assert api.job_of(later if first == uid else uid).state is State.RECEIVED


def test_health_needs_no_token(api: ServeProcess) -> None:
    api.film()
    for path, status in (("/healthz", 200), ("/metrics", 200), ("/readyz", 503)):  # no receiver runs beside this api
        assert httpx2.get(api.url + path, trust_env=False, timeout=20).status_code == status, path


def test_the_interface_describes_itself(api: ServeProcess) -> None:
    paths = httpx2.get(f"{api.url}/openapi.json", trust_env=False).json()["paths"]
    assert {"/v1/claims", "/v1/claims/{job_id}/source", "/v1/claims/{job_id}/lease", "/v1/claims/{job_id}/result"} <= set(paths)
    assert "/v1/claims/{job_id}/objects/{name}" in paths and "/v1/living" in paths


def test_plain_http_over_the_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[serve]\nhost = '0.0.0.0'\nport = 0\n")
    done = CliRunner().invoke(main, ["serve", "--config", str(file)])
    assert done.exit_code == 2 and "serve.tls_certificate" in done.stderr


@pytest.mark.parametrize(
    "node", ["http://192.0.2.5:8114", "http://node.invalid:8114", "http://[2001:db8::5]:8114", "HTTP://192.0.2.5"]
)
def test_a_worker_sends_its_token_over_the_network_by_tls_only(node: str, tmp_path: Path) -> None:
    """The same rule as the node's own. Result: said at start, and never called."""
    token, file = tmp_path / "token", tmp_path / "config.toml"
    token.write_text("secret")
    file.write_text(f"[work]\nnode = '{node}'\ntoken_file = '{token}'\n")
    done = CliRunner().invoke(main, ["work", "--config", str(file)])
    assert done.exit_code == 2 and "work.allow_plain" in done.stderr and "secret" not in done.output
    work = load(file).work
    with pytest.raises(ConfigError, match="unencrypted"):
        RemoteQueue.of(work, "ab")
    RemoteQueue.of(work.model_copy(update={"allow_plain": True}), "ab")
    for loopback in ("http://127.0.0.1:8114", "http://[::1]:8114", "https://192.0.2.5:8114"):
        RemoteQueue.of(work.model_copy(update={"node": loopback}), "ab")
