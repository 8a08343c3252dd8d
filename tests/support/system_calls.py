"""What a program asked of the kernel, in order: strace's output as values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OPTIONS = (
    "-f", "-yy", "--seccomp-bpf", "-qq", "-s", "4200", "-e", "signal=none",
    "-e", "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg,mkdir,mkdirat",
)  # fmt: skip

_BEGIN = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_DESCRIPTOR = re.compile(r"\d+<(?P<path>.*?)>[,) ]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass
class Call:
    """One system call: it began and it ended, as line numbers of the trace (`end` 0: it never did)."""

    thread: str
    name: str
    path: str  # of the file behind the descriptor, or the first path named
    target: str  # of a rename
    text: str
    begin: int
    end: int = 0
    ok: bool = False


def read_trace(file: Path) -> list[Call]:
    calls: list[Call] = []
    open_calls: dict[str, Call] = {}
    for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), start=1):
        if resumed := _RESUMED.match(line):
            call = open_calls.pop(resumed["thread"], None)
            rest = resumed["rest"]
        elif begun := _BEGIN.match(line):
            rest = begun["rest"]
            call = _call(begun["thread"], begun["name"], rest, number)
            calls.append(call)
            if rest.endswith("<unfinished ...>"):
                open_calls[call.thread] = call
                continue
        else:
            continue
        if call is not None:
            call.end = number
            call.ok = not re.search(r"= (-1|\?)", rest[-80:])
    return calls


def _call(thread: str, name: str, rest: str, number: int) -> Call:
    if name.startswith(("rename", "mkdir")):
        named = [*_QUOTED.findall(rest), "", ""]
        return Call(thread, name, named[0], named[1], rest, number)
    found = _DESCRIPTOR.match(rest)
    return Call(thread, name, found["path"] if found else "", "", rest, number)


def first(calls: list[Call], what: str, condition: Callable[[Call], bool]) -> Call:
    """The first call that is so, and succeeded; AssertionError naming `what` is missing."""
    for call in calls:
        if call.ok and condition(call):
            return call
    raise AssertionError(f"there is no {what}")


def is_sync(call: Call, path: str) -> bool:
    return call.name in ("fsync", "fdatasync") and call.path == path
