"""Real servers for the tests: our node, Orthanc, redis-server. Each on loopback with its own port and folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_node.cli.supervisor import running
from dicom_node.runtime.config import Config, load
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import FINISHED, Delivery, DeliveryState, Job

SENDER, NODE_AE = "TESTSCU", "PTXSEG"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 120.0, what: str = "the condition") -> Any:
    """The first true value of `condition`; AssertionError when there is none in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true in {seconds} s")


@dataclass
class Node:
    """`segmenter-worker run` as a child process, with its ledger open for looking."""

    folder: Path
    destination: tuple[str, int]  # AE title and port on loopback
    settings: Mapping[str, str] = field(default_factory=dict)  # environment overrides
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        ae_title, port = self.destination
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_file = self.folder / "config.toml"
        self.config_file.write_text(
            f"""
[node]
directory = "node"
reserve_mb = 16
[receive]
host = "127.0.0.1"
port = {free_port()}
ae_title = "{NODE_AE}"
[receive.allowed]
{SENDER} = []
[peers.{ae_title}]
host = "127.0.0.1"
port = {port}
[send]
ae_title = "{NODE_AE}"
destinations = ["{ae_title}"]
first_delay_seconds = 0.5
max_delay_seconds = 2
connect_seconds = 20
"""
        )

    @property
    def config(self) -> Config:
        return load(self.config_file)

    @property
    def port(self) -> int:
        return self.config.receive.port

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.config.ledger_path)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.ledger.store)

    def start(self) -> Node:
        self.launch()
        wait_for(lambda: running(self.config), 120, "the node")
        return self

    def launch(self) -> None:
        """Start it and do not wait for it."""
        log = (self.folder / "node.log").open("ab")
        command = [sys.executable, "-m", "dicom_node.cli.main", "run", "--config", str(self.config_file)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | dict(self.settings))

    def children(self) -> dict[str, int]:
        return dict((running(self.config) or {})["children"])  # type: ignore[call-overload]

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(120)

    def log_text(self) -> str:
        return (self.folder / "node.log").read_text("utf-8", "replace")

    def job_of(self, uid: str) -> Job:
        return self.ledger.jobs(sop_instance_uid=uid, limit=1)[0]

    def finished(self, uid: str, seconds: float = 240.0) -> Job:
        """The job of a film, once it is finished."""
        wait_for(lambda: self.job_of(uid).state in FINISHED, seconds, f"an answer (log: {self.log_text()[-2000:]})")
        return self.job_of(uid)

    def delivered(self, uid: str, seconds: float = 240.0) -> list[Delivery]:
        """The deliveries of a film, once each is delivered."""
        answered_by = self.finished(uid, seconds).answered_by

        def all_there() -> bool:
            return all(one.state is DeliveryState.DELIVERED for one in self.outbox.of_job(answered_by))

        wait_for(all_there, seconds, f"delivery ({self.outbox.of_job(answered_by)})")
        return self.outbox.of_job(answered_by)


@contextlib.contextmanager
def running_node(folder: Path, destination: tuple[str, int], **settings: str) -> Iterator[Node]:
    """A node that is stopped in order when the block ends (killed when it does not stop)."""
    node = Node(folder, destination, settings).start()
    try:
        yield node
    finally:
        if node.process is not None and node.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.stop()
            if node.process.poll() is None:
                node.kill()


def store(dataset: pydicom.Dataset, port: int, ae_title: str = NODE_AE, calling: str = SENDER) -> int:
    """C-STORE one dataset as it is (no transcoding); the DIMSE status."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 120  # a busy machine is no refusal
    context = build_context(dataset.SOPClassUID, [dataset.file_meta.TransferSyntaxUID])
    association = ae.associate("127.0.0.1", port, contexts=[context], ae_title=ae_title)
    assert association.is_established, "the association was refused"
    try:
        return int(association.send_c_store(dataset).Status)
    finally:
        association.release()


@dataclass
class Orthanc:
    """A real PACS."""

    program: str
    folder: Path
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    modalities: Mapping[str, Any] = field(default_factory=dict)  # whom it knows (DicomModalities)
    plugins: Sequence[str] = ()  # its shared libraries, by path
    more: Mapping[str, Any] = field(default_factory=dict)  # further settings; they go before those here
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Orthanc:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "test",
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": True,
            "DicomScuTimeout": 120,  # seconds; a busy machine may be slow to answer it
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "Plugins": list(self.plugins),
            "DicomModalities": dict(self.modalities),
            **self.more,
        }
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        log = (self.folder / "orthanc.log").open("ab")
        self.process = subprocess.Popen([self.program, str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        wait_for(self._answers, 120, "Orthanc")
        return self

    def _answers(self) -> bool:
        try:
            return bool(self.get("/system"))
        except OSError:
            return False

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(120)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=300) as answer:
            return json.loads(answer.read())

    def delete(self, path: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method="DELETE")
        urllib.request.urlopen(request, timeout=300).close()

    def file(self, instance: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/instances/{instance}/file", timeout=300) as answer:
            return bytes(answer.read())

    def find(self, **tags: str) -> list[str]:
        """Orthanc ids of the instances that match."""
        query = json.dumps({"Level": "Instance", "Query": tags}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/tools/find", data=query, method="POST")
        with urllib.request.urlopen(request, timeout=300) as answer:
            return list(json.loads(answer.read()))


@contextlib.contextmanager
def running_orthanc(program: str, folder: Path, **more: Any) -> Iterator[Orthanc]:
    orthanc = Orthanc(program, folder, **more).start()
    try:
        yield orthanc
    finally:
        orthanc.stop()


@dataclass
class Redis:
    """A real redis-server with the settings of deploy/ (append-only file, no eviction)."""

    program: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Redis:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"--port {self.port} --bind 127.0.0.1 --dir {self.folder} --appendonly yes --maxmemory-policy noeviction"
        self.process = subprocess.Popen([self.program, *options.split()], stdout=subprocess.DEVNULL)
        wait_for(self._answers, 120, "redis-server")
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as link:
                link.sendall(b"PING\r\n")
                return link.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(120)


@contextlib.contextmanager
def running_redis(program: str, folder: Path) -> Iterator[Redis]:
    redis = Redis(program, folder).start()
    try:
        yield redis
    finally:
        redis.kill()
