"""The deployment files: systemd's own check, the images and the compose file against what the program has."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml
from click.testing import CliRunner

from dicom_node import __version__
from dicom_node.cli.main import main
from dicom_node.runtime.config import load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def test_systemd_units(tool, tmp_path: Path) -> None:
    copies = []
    for unit in sorted((DEPLOY / "systemd").iterdir()):
        # Only the program's path differs from a real installation.
        copies.append(tmp_path / unit.name.replace("@.", "@work."))
        copies[-1].write_text(re.sub(r"/opt/segmenter-worker/.venv/bin/segmenter-worker", "/bin/true", unit.read_text()))
    assert {copy.suffix for copy in copies} == {".service", ".timer"}
    command = [tool("systemd-analyze"), "verify", "--man=no", *map(str, copies)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
    said = [line for line in done.stderr.splitlines() if any(copy.name in line for copy in copies)]
    assert not said, done.stderr


def test_the_units_call_verbs_with_options_that_exist(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").glob("*.service"):
        [line] = re.findall(r"^ExecStart=\S+/segmenter-worker (.+)$", unit.read_text(), re.M)
        done = CliRunner().invoke(main, [*line.replace("%i", "work").split(), "--help"])
        assert done.exit_code == 0, done.output
    timer = (DEPLOY / "systemd" / "segmenter-worker-backup.timer").read_text()
    assert "OnCalendar=" in timer and (DEPLOY / "systemd" / "segmenter-worker-backup.service").is_file()


def test_the_version_is_written_in_one_place_and_has_its_chapter() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert __version__ == version
    assert CliRunner().invoke(main, ["--version"]).output.split()[-1] == version
    releases = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert releases[0] == version and len(set(releases)) == len(releases)
    pages = ((ROOT / "docs" / "use" / "install.md").read_text(), (ROOT / "CONTRIBUTING.md").read_text())
    tags = [re.findall(r"git (?:checkout|tag -a) v(\S+)", page) for page in pages]
    assert [set(found) for found in tags] == [{version}, {version}], "they speak of this release"


def test_an_update_keeps_an_installation_without_torch_without_torch() -> None:
    """The page's own line that finds out what is installed, run here."""
    chapter = (ROOT / "docs" / "use" / "install.md").read_text().split("## Update the software")[1].split("\n## ")[0]
    assert '".[$EXTRA]"' in chapter and "'.[worker]'" not in chapter
    [find] = re.findall(r"EXTRA=\$\((.+)\)$", chapter, re.M)
    for python, extra in (("true", "worker"), ("false", "worker-cpu")):
        line = find.replace(".venv/bin/python -c 'import torch'", python)
        assert line != find
        assert subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout.strip() == extra


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


def test_the_documents_name_only_verbs_that_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 10
    for page in pages:
        for verb in re.findall(r"(?:`|    |&& )segmenter-worker ([a-z]+)\b", page.read_text()):
            assert verb in main.commands, f"{page.name}: {verb}"
