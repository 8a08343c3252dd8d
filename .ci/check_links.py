"""Red when a document names what is not there. Needs no network: links to other sites are not followed.

    python .ci/check_links.py [FOLDER]

Looked at are all Markdown files that git knows, or would add:
- relative links and pictures, and their anchors, as GitHub makes them from headings;
- paths in backticks that begin with a folder of the repository (`bench/run.py`, `train/fit/recipes/*.toml`), names of programs
  (`crash_points.py`), what they are said to define (`test_node.py::test_x`), and scripts that a command line calls
  (`python bench/scale.py`).
In all other text files: paths below `docs/`.
Model cards and CHANGELOG.md speak of their own day: of them only links are looked at.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.M | re.S)
INDENTED = re.compile(r"(?:^|\n)\n((?:(?: {4}|\t)[^\n]*\n)+)")
CODE = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.M)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.M)
ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")
SCRIPT = re.compile(r"(?:python|sh|bash)\s+((?:[\w.-]+/)+[\w.-]+\.(?:py|sh))")
PROGRAM = re.compile(r"[\w-]+\.(?:py|sh|lua|service|timer)")
PATH = re.compile(r"\.?[\w@*-]+(?:/[\w.@*-]+)*/?")
DOCUMENT = re.compile(r"\bdocs/[\w./-]*\w\.(?:md|png|jpg)\b")
TEXT = {"", ".py", ".toml", ".sh", ".lua", ".json", ".yaml", ".service", ".timer"}


def problems(root: Path) -> Iterator[str]:
    """One line for each broken reference."""
    files = known(root)
    names: dict[str, list[Path]] = {}
    for file in files:
        names.setdefault(file.name, []).append(file)
    tops = {file.relative_to(root).parts[0] for file in files if len(file.relative_to(root).parts) > 1}
    for file in files:
        where = file.relative_to(root)
        if file.suffix == ".md":
            text = file.read_text("utf-8")
            found = [*broken_links(file, text)]
            if file.name not in ("CHANGELOG.md", "MODEL_CARD.md"):
                found += broken_paths(root, text, names, tops)
        elif file.suffix in TEXT:
            text = file.read_text("utf-8", "replace")
            found = [f"{name}: no such file" for name in DOCUMENT.findall(text) if not (root / name).is_file()]
        else:
            continue
        yield from (f"{where}: {one}" for one in dict.fromkeys(found))


def known(root: Path) -> list[Path]:
    """Files of the working tree that git tracks or would add."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [root / one for one in dict.fromkeys(listed) if one and (root / one).is_file()]


def broken_links(file: Path, text: str) -> Iterator[str]:
    prose = CODE.sub("", INDENTED.sub("\n\n", FENCE.sub("", text)))
    linked = CODE.sub(lambda code: "x" * len(code[0]), INDENTED.sub("\n\n", FENCE.sub("", text)))
    for target in [*LINK.findall(linked), *REFERENCE.findall(prose)]:
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        if not there.exists():
            yield f"{target}: no such file"
        elif anchor and (there.suffix != ".md" or anchor not in anchors(there)):
            yield f"{target}: no such heading"


@cache
def anchors(file: Path) -> frozenset[str]:
    """As GitHub makes them: lower case, punctuation gone, a hyphen for each space; repeated ones are numbered."""
    text = FENCE.sub("", file.read_text("utf-8"))
    found: dict[str, int] = {}
    made = set(ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        made.add(f"{slug}-{count}" if count else slug)
    return frozenset(made)


def broken_paths(root: Path, text: str, names: dict[str, list[Path]], tops: set[str]) -> Iterator[str]:
    for script in SCRIPT.findall(text):
        if not (root / script).is_file():
            yield f"{script}: no such script"
    for _, code in CODE.findall(INDENTED.sub("\n\n", FENCE.sub("", text))):
        name, _, symbol = code.strip().partition("::")
        if PROGRAM.fullmatch(name):
            there = names.get(name, [])
        elif PATH.fullmatch(name) and "/" in name and name.split("/")[0] in tops:
            there = list(root.glob(name.rstrip("/")))
        else:
            continue
        if not there:
            yield f"`{code}`: no such file or folder"
        elif symbol and not any(defines(file, symbol) for file in there):
            yield f"`{code}`: not defined there"


def defines(file: Path, symbol: str) -> bool:
    """Whether a Python file has this function, class or name; of a parametrised test the part before the bracket."""
    name = re.escape(symbol.partition("[")[0])
    return re.search(rf"^\s*(?:(?:async )?def|class) {name}\b|^\s*{name}\b\s*[:=]", file.read_text("utf-8"), re.M) is not None


def main(arguments: list[str]) -> int:
    found = list(problems(Path(arguments[0] if arguments else Path(__file__).parent.parent).resolve()))
    print("\n".join(found) if found else "documents: every link and path is there")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
