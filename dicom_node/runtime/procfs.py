"""Processes of this machine, read from /proc (Linux; proc(5))."""

from __future__ import annotations

from pathlib import Path

_DEAD = ("Z", "X")  # a zombie has ended, and its parent has not waited for it


def process_is_alive(pid: int) -> bool:
    """False for a process that is gone or a zombie; one that cannot be read (too many open files) counts as alive."""
    stat = Path(f"/proc/{pid}/stat")
    found = _state_and_parent(stat)
    return found[0] not in _DEAD if found is not None else stat.exists()


def children_of(parent: int) -> tuple[set[int], set[int]]:
    """(pids of the running children of `parent`, pids of its zombies)."""
    living: set[int] = set()
    zombies: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):  # not every kernel has /proc/PID/task/TID/children
        found = _state_and_parent(stat)
        if found is not None and found[1] == parent:
            (zombies if found[0] in _DEAD else living).add(int(stat.parent.name))
    return living, zombies


def _state_and_parent(stat: Path) -> tuple[str, int] | None:
    """(state, pid of the parent), None when the process is gone. Its name, in brackets, may hold brackets too."""
    try:
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return state, int(parent)
