"""The deployment files: systemd's own check, the images and the compose file against what the program has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from click.testing import CliRunner

from dicom_node.cli import main
from dicom_node.config import load

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def test_systemd_units(tool, tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").glob("*.service"):
        # Only the program's path differs from a real installation.
        name = unit.name.replace("@.", "@work.")
        copy = tmp_path / name
        copy.write_text(re.sub(r"/opt/segmenter-worker/.venv/bin/segmenter-worker", "/bin/true", unit.read_text()))
        done = subprocess.run([tool("systemd-analyze"), "verify", "--man=no", str(copy)], capture_output=True, text=True)
        assert not [line for line in done.stderr.splitlines() if name in line], done.stderr


def test_stop_timeouts_leave_the_program_time_to_stop() -> None:
    stop = load(None).node.stop_seconds
    unit = (DEPLOY / "systemd" / "segmenter-worker.service").read_text()
    assert int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]) > stop
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in ("receive", "work", "send"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > stop


def test_compose_file_names_only_what_is_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose) <= {"name", "services", "volumes", "x-ours"}
    known = {"build", "image", "command", "ports", "volumes", "environment", "depends_on", "restart", "init", "cap_drop"}
    known |= {"security_opt", "read_only", "tmpfs", "stop_grace_period"}
    for name, service in compose["services"].items():
        assert set(service) <= known, name
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), volume
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
            assert CliRunner().invoke(main, [*service["command"], "--help"]).exit_code == 0
    config = load(DEPLOY / "compose.config.toml")
    assert {peer.host for peer in config.peers.values()} <= set(compose["services"])


def test_images_copy_what_exists_and_run_as_nobody_special() -> None:
    for file in DEPLOY.glob("Dockerfile.*"):
        text = file.read_text()
        for sources in re.findall(r"^COPY (.+) \S+$", text, re.M):
            assert all((ROOT / source).exists() for source in sources.split()), sources
        assert re.search(r"^USER segmenter$", text, re.M), "the program must not run as root"


def test_the_runbook_names_only_verbs_that_exist() -> None:
    for text in ((DEPLOY / "RUNBOOK.md").read_text(), (ROOT / "README.md").read_text()):
        for verb in re.findall(r"segmenter-worker ([a-z]+)\b", text):
            assert verb in main.commands, verb
