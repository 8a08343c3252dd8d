"""Processes of this machine, as /proc tells them (Linux)."""

from __future__ import annotations

from pathlib import Path

_DEAD = ("Z", "X")  # a zombie has ended and nobody has asked how


def process_is_alive(pid: int) -> bool:
    """False for a process that is gone or a zombie; one that cannot be looked at (too many open files) is taken for alive."""
    stat = Path(f"/proc/{pid}/stat")
    found = _look(stat)
    return found[0] not in _DEAD if found is not None else stat.exists()


def children_of(parent: int) -> tuple[set[int], set[int]]:
    """Pids of the child processes: (those that live, zombies)."""
    living: set[int] = set()
    zombies: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):  # not every kernel has /proc/PID/task/TID/children
        found = _look(stat)
        if found is not None and found[1] == parent:
            (zombies if found[0] in _DEAD else living).add(int(stat.parent.name))
    return living, zombies


def _look(stat: Path) -> tuple[str, int] | None:
    """(state, parent) of a process, None when it is gone (proc(5); its name may hold anything, brackets too)."""
    try:
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return state, int(parent)
