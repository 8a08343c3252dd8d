"""docs/use/multi-machine.md, line by line: certificate, Redis with password and TLS, node and worker as it says, on loopback.

The names and addresses of the page are replaced by those of this machine, and nothing else.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from quick_model import quick_film, quick_model, quick_settings
from servers import SENDER, Node, free_port, store, wait_for

from dicom_node.cli.main import main
from dicom_node.runtime.config import load
from dicom_node.runtime.config_sections import Queue, Work
from dicom_node.storage.records import State
from dicom_node.work.celery_app import celery_app, problem_of

PAGE = Path(__file__).parents[2] / "docs" / "use" / "multi-machine.md"
PASSWORD, WRITTEN = "Geheim#1/2@3%", "Geheim%231%2F2%403%25"  # as Redis has it, and as a URL writes it


@dataclass(frozen=True)
class Site:
    """What the page says, with the names of this machine."""

    folder: Path
    redis_port: int
    http_port: int

    def block(self, kind: str, word: str) -> str:
        """The block of the page that holds `word`."""
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        [text] = [one for found, one in blocks if found == kind and word in one]
        changes = {
            "node.hospital.example:6379": f"localhost:{self.redis_port}",
            "node.hospital.example:8114": f"localhost:{self.http_port}",
            "port = 8114": f"port = {self.http_port}",
            "tls-port 6379": f"tls-port {self.redis_port}",
            "node.hospital.example": "localhost",
            "10.0.0.5": "127.0.0.1",
            "/etc/redis/": f"{self.folder}/",
            "/srv/models/mine": str(quick_model()),
        }
        for said, here in changes.items():
            text = text.replace(said, here)
        return text

    def broker(self) -> str:
        return self.block("toml", "broker_ca").replace("PASSWORD", WRITTEN)


@pytest.fixture(scope="module")
def site(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Certificate and Redis, as the page makes them."""
    folder = tmp_path_factory.mktemp("far")
    one = Site(folder, free_port(), free_port())
    command = one.block("sh", "openssl req").split("\ninstall")[0]
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True, capture_output=True)
    conf = folder / "redis.conf"
    conf.write_text(one.block("", "requirepass").replace("PASSWORD", f'"{PASSWORD}"') + f"dir {folder}\n")
    redis = subprocess.Popen([tool("redis-server"), str(conf)], stdout=subprocess.DEVNULL)
    try:
        queue = load(config_file(folder, one.broker())).queue
        wait_for(lambda: problem_of(queue, Work()) is None, 120, "Redis")
        yield one
    finally:
        redis.terminate()
        redis.wait(120)


def config_file(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("url", "ca", "sentence"),
    [
        ("rediss://:{password}@localhost:{port}/0", True, None),
        ("rediss://:{password}@localhost:{port}/0?ssl_ca_certs={ca}", False, None),
        ("rediss://:{password}@localhost:{port}/0", False, "self-signed and not known here.* into queue.broker_ca"),
        ("rediss://:wrong@localhost:{port}/0", True, "refuses our password"),
        ("rediss://localhost:{port}/0", True, "refuses our password, or needs one"),
        ("redis://:{password}@localhost:{port}/0", True, "does it expect TLS"),
        ("rediss://:{password}@127.0.0.1:{closed}/0", True, "nothing listens on its port"),
        ("rediss://:{password}@redis.invalid:{port}/0", True, r"redis.invalid cannot be resolved \(DNS\)"),
        ("rediss://:{password}@127.1:{port}/0", True, "does not name 127.1"),
    ],
)
def test_check_says_why_redis_cannot_be_used(site: Site, url: str, ca: bool, sentence: str | None, tmp_path: Path) -> None:
    words = {"password": WRITTEN, "port": site.redis_port, "closed": free_port(), "ca": site.folder / "node.pem"}
    queue = Queue(broker=url.format(**words), broker_ca=str(site.folder / "node.pem") if ca else "")
    said = problem_of(queue, Work())
    assert said is None if sentence is None else re.search(sentence, said or ""), said
    file = config_file(tmp_path, f'[queue]\nbroker = "{queue.broker}"\nbroker_ca = "{queue.broker_ca}"\n')
    printed = CliRunner().invoke(main, ["check", "--config", str(file)]).output
    assert (sentence is None) == ("broker: answers" in printed) and "Geheim" not in printed


def test_what_celery_is_told_verifies_redis(site: Site) -> None:
    """Celery by itself believes whoever answers a rediss:// URL."""
    queue = Queue(broker=f"rediss://:{WRITTEN}@localhost:{site.redis_port}/0")
    assert problem_of(queue, Work(node_ca=str(site.folder / "node.pem"))) is None
    with pytest.raises(Exception, match="certificate verify failed"), celery_app(queue, Work()).connection_for_write() as line:
        line.ensure_connection(max_retries=1, timeout=3)


def test_node_and_worker_as_the_page_says(site: Site, tmp_path: Path) -> None:
    """Result: a film is answered by the worker over TLS, woken by Redis; the worker's folder holds no key of the node; its log
    has its start, the film and the revocation, and nothing that was said holds the password."""
    node = Node(site.folder / "node", ("PACS", free_port()), quick_settings())
    for file in ("node.pem", "node.key"):
        (node.folder / file).write_bytes((site.folder / file).read_bytes())
    node.config_file.write_text(
        node.config_file.read_text() + "\n[segment]\nallow_demo_model = true\n" + site.block("toml", "[serve]") + site.broker()
    )
    token = subprocess.run(
        [sys.executable, "-m", "dicom_node.cli.main", "workers", "add", "gpu1", "--config", str(node.config_file)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    (tmp_path / "node.pem").write_bytes((site.folder / "node.pem").read_bytes())
    (tmp_path / "gpu1.token").write_text(token)
    own = config_file(tmp_path, site.block("toml", "token_file") + site.broker())
    node.start()
    log = tmp_path / "worker.log"
    try:
        with log.open("wb") as to:
            command = [sys.executable, "-m", "dicom_node.cli.main", "work", "--config", str(own)]
            worker = subprocess.Popen(command, stdout=to, stderr=to, env=os.environ | quick_settings())
        wait_for(lambda: "model loaded" in log.read_text(), 120, "the worker")
        dataset = quick_film(1)
        assert store(dataset, node.port, calling=SENDER) == 0x0000
        job = node.finished(str(dataset.SOPInstanceUID))
        assert job.state is State.SEGMENTED
        wait_for(lambda: "job segmented" in log.read_text(), 120, "the line of the film")
        checked = CliRunner().invoke(main, ["check", "--config", str(own)], env=quick_settings())
        shown = CliRunner().invoke(main, ["config", "--config", str(own)]).output
        assert "ok    broker: answers" in checked.output and "knows us" in checked.output, checked.output
        revoked = CliRunner().invoke(main, ["workers", "revoke", "gpu1", "--config", str(node.config_file)])
        assert revoked.output.strip() == "gpu1 revoked; 0 films returned to the queue"
        wait_for(lambda: "it was revoked or replaced" in log.read_text(), 120, "the line of the revocation")
        worker.send_signal(signal.SIGTERM)
        worker.wait(120)
    finally:
        node.stop()
        if worker.poll() is None:
            worker.kill()
    lines = log.read_text().splitlines()
    [started] = [line for line in lines if "working" in line and "node=" in line]
    assert f"rediss://***@localhost:{site.redis_port}/0" in started and f"https://localhost:{site.http_port}" in started
    [film] = [line for line in lines if "job segmented" in line]
    assert job.job_id in film and re.search(r"seconds=\d+\.\d", film) and "finding=" in film
    for said in (log.read_text(), node.log_text(), checked.output, shown):
        assert "Geheim" not in said and token.strip() not in said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["config.toml", "gpu1.token", "node.pem", "worker.log"]
    assert "PRIVATE KEY" not in "".join((tmp_path / name).read_text() for name in ("node.pem", "config.toml"))


def test_the_page_copies_no_key_to_the_worker() -> None:
    worker = PAGE.read_text("utf-8").split("## On the worker's machine\n")[1].split("\n## ")[0]
    assert "node.key" not in worker and "(not its key)" in worker


def test_a_token_in_place_of_the_name_of_its_file_is_not_shown() -> None:
    token = "Geheim" + "x" * 37
    done = CliRunner().invoke(main, ["check"], env={"SEGMENTER_WORK__NODE": "https://h:1", "SEGMENTER_WORK__TOKEN_FILE": token})
    assert "must be the name of the file with the token" in done.output and "Geheim" not in done.output
