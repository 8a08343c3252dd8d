"""A command in a real terminal of so many columns, as a person runs it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(config_file: Path, *arguments: str, columns: int = 80, answer: str = "") -> tuple[int, str]:
    """Exit code, and what `segmenter-worker` shows, without colours. `answer` is typed as soon as it starts."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    command = [sys.executable, "-m", "dicom_node.cli.main", *arguments, "--config", str(config_file)]
    os.write(ours, answer.encode())
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment | {"TERM": "xterm"}) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return process.returncode, _COLOURS.sub("", shown.decode()).replace("\r\n", "\n")
