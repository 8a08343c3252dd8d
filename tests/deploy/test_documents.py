"""`.ci/check_links.py`, part of `make lint`: red on each kind of broken reference, silent on what only looks like one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    "README.md": "# Top\n",
    "guide/page.md": "# A page\n\n## `kill -9`: what then?\n\n## Twice\n\n## Twice\n",
    "guide/picture.png": "",
    "bench/run.py": "LIMIT: int = 3\n\n\nclass Row:\n    def value(self):\n        pass\n",
}
GONE = "/".join(("docs", "gone.md"))  # in one piece it would be a broken reference of this file


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name, text in FILES.items():
        write(tmp_path / name, text)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def checked(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / ".ci" / "check_links.py", folder], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("README.md", "[gone](guide/gone.md)\n", "guide/gone.md: no such file"),
        ("README.md", "![picture](guide/gone.png)\n", "guide/gone.png: no such file"),
        ("README.md", "see [it]\n\n[it]: guide/gone.md\n", "guide/gone.md: no such file"),
        ("README.md", "[`code` in it](guide/page.md#gone)\n", "guide/page.md#gone: no such heading"),
        ("README.md", "[here](#gone)\n", "#gone: no such heading"),
        ("guide/page.md", "[not from the top](guide/page.md)\n", "guide/page.md: no such file"),
        ("guide/page.md", "`bench/gone.py` measures it\n", "`bench/gone.py`: no such file or folder"),
        ("guide/page.md", "`bench/*.toml`\n", "`bench/*.toml`: no such file or folder"),
        ("guide/page.md", "`bench/gone/`\n", "`bench/gone/`: no such file or folder"),
        ("guide/page.md", "proven by `test_gone.py::test_it`\n", "`test_gone.py::test_it`: no such file or folder"),
        ("guide/page.md", "decided in `bench/run.py::gone`\n", "`bench/run.py::gone`: not defined there"),
        ("guide/page.md", "proven by `run.py::gone`\n", "`run.py::gone`: not defined there"),
        ("guide/page.md", "Run:\n\n    python bench/gone.py --out x\n", "bench/gone.py: no such script"),
        ("bench/run.py", f'"""Figures: {GONE}."""\n', f"{GONE}: no such file"),
    ],
)
def test_what_is_not_there_is_named(checkout: Path, name: str, text: str, named: str) -> None:
    write(checkout / name, text)
    done = checked(checkout)
    assert (done.returncode, done.stdout.splitlines()) == (1, [f"{name}: {named}"]), done.stderr


def test_what_is_there_or_is_no_reference_is_left_alone(checkout: Path) -> None:
    write(
        checkout / "README.md",
        "# Top\n[page](guide/page.md) [heading](guide/page.md#kill--9-what-then) [second](guide/page.md#twice-1) [own](#top)\n"
        "![picture](guide/picture.png) [site](https://example.org/gone.md) [mail](mailto:a@example.org)\n"
        "`guide/` `bench/*.py` `run.py` `bench/run.py::Row` `run.py::value` `bench/run.py::LIMIT`\n"
        "`demo-output/report.json` `text/plain` `application/dicom` `peers.X.tls`\n\n"
        "    [link](in/code.md) and `bench/gone.py`\n\n"
        "```toml\n# [link](in/code.md)\n```\n",
    )
    write(checkout / "CHANGELOG.md", "`bench/of-that-day.py`\n")
    done = checked(checkout)
    assert done.returncode == 0, done.stdout


def test_the_lines_of_the_log_that_the_tls_page_quotes_are_said() -> None:
    page = (ROOT / "docs" / "use" / "tls.md").read_text("utf-8")
    quoted = [one for row in re.findall(r"^\| log: ([^|]+)", page, re.M) for one in re.findall(r"`([^`]+)`", row)]
    said = (ROOT / "dicom_node" / "runtime" / "tls_errors.py").read_text("utf-8")
    assert len(quoted) > 5 and not [one for one in quoted if one not in said]


def test_the_documents_of_this_repository_hold() -> None:
    done = checked(ROOT)
    assert done.returncode == 0, done.stdout
