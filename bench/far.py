"""For `make chaos CHAOS="--far"`: a worker that has the node's URL, a token, and nothing else of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from servers import Node, free_port

from dicom_node.cli.main import main


class Far:
    """`segmenter-worker work --node`, started again when it dies."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.launches = 0

    @property
    def settings(self) -> dict[str, str]:
        """Environment of the node: `serve` runs, and no worker."""
        return {
            "SEGMENTER_WORK__PROCESSES": "0",
            "SEGMENTER_SERVE__ENABLED": "true",
            "SEGMENTER_SERVE__PORT": str(self._port),
        }

    def introduce(self, node: Node) -> None:
        """The node gives it a token."""
        added = CliRunner().invoke(main, ["workers", "add", "far", "--config", str(node.config_file)])
        if added.exit_code:
            sys.exit(added.output)
        token = self._folder / "token"
        token.touch(0o600)
        token.write_text(added.stdout)
        (self._folder / "config.toml").write_text(
            f"[work]\nnode = 'http://127.0.0.1:{self._port}'\ntoken_file = '{token}'\nprocesses = 1\n"
        )

    def keep_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        command = [sys.executable, "-m", "dicom_node.cli.main", "work", "--config", str(self._folder / "config.toml")]
        with (self._folder / "far.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ.copy())
        self.launches += 1

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
