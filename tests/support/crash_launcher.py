"""Kill -9 of exactly one process of a node, at exactly one line, exactly once, and proof that it happened.

The product knows nothing of this. A node that is started with `Traps.environment` gets tests/support/launch on its PYTHONPATH:
Python then runs `install` below at the start of every process of the node, which wraps the functions that
crash_points.py names while their modules are imported. A wrapped function looks at the file of traps on each call. When
one is set for it, the process first writes the proof and then kills itself. The proof file is made with O_EXCL, so a trap
springs once in all processes together, and others can be set while everything runs.

Two things differ from a node that a site runs, both for speed alone: the model's libraries are imported before the
worker forks, and the supervisor's growing delay before it restarts a child is off.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import json
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Literal

When = Literal["before", "after", "leaving"]  # leaving: in a context manager, when its body is done and its end is not


@dataclass(frozen=True)
class Point:
    """Where a process dies."""

    verb: str  # receive, serve, work, send or run (the supervisor)
    target: str  # module:function, module:Class.method or module:imported_module.function
    when: When
    nth: int = 1  # call, counted in one process since the trap was set

    def __str__(self) -> str:
        return f"{self.verb}: {self.when} {self.target.removeprefix('dicom_node.')}" + (f" #{self.nth}" if self.nth > 1 else "")


class Traps:
    """The test's hand: set traps, see whether they sprang. One folder per node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._rounds = 0
        self._proofs: list[Path] = []

    @property
    def environment(self) -> dict[str, str]:
        here = Path(__file__).parent
        path = os.pathsep.join(filter(None, [str(here / "launch"), str(here.parent), os.environ.get("PYTHONPATH")]))
        return {"CRASH_TRAPS": str(self.folder / "traps.json"), "PYTHONPATH": path}

    def set(self, *points: Point) -> None:
        """In place of the earlier ones; each springs once."""
        self._rounds += 1
        self._proofs = [self.folder / f"proof-{self._rounds}-{number}" for number in range(len(points))]
        traps = [asdict(point) | {"proof": str(proof)} for point, proof in zip(points, self._proofs, strict=True)]
        temporary = self.folder / "traps.tmp"
        temporary.write_text(json.dumps(traps))
        temporary.rename(self.folder / "traps.json")

    def sprung(self) -> list[str]:
        """The proofs: process and target of each that died."""
        return [proof.read_text() for proof in self._proofs if proof.exists()]


_BEFORE_THE_FORK = (
    "dicom_node.work.celery_worker"  # imported by the worker's parent alone, when it is bound to its supervisor's life
)


def resolve(target: str) -> Any:
    """The function of a target. Raises when the product does not have it (any more)."""
    owner, name = _owner(target)
    return getattr(owner, name)


def _owner(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    return functools.reduce(getattr, outer, importlib.import_module(module)), name


# -- in the node's processes -----------------------------------------------------------------------------------


def install() -> None:
    """Wrap what is imported from now on, if this process is one of the node's."""
    arguments = sys.orig_argv
    if "dicom_node.cli.main" not in arguments:
        return
    verb = arguments[arguments.index("dicom_node.cli.main") + 1]
    from crash_points import FAR_SCENES, SCENES

    targets: dict[str, set[str]] = {_BEFORE_THE_FORK: set()}
    for point in (point for scene in (*SCENES, *FAR_SCENES) for point in scene.points):
        if point.verb == verb:
            targets.setdefault(point.target.partition(":")[0], set()).add(point.target)
    sys.meta_path.insert(0, _Importer(verb, targets))
    if verb in ("run", "receive"):
        import dicom_node.runtime.child_processes

        dicom_node.runtime.child_processes.QUICK_EXIT_SECONDS = 0.0


class _Importer(importlib.abc.MetaPathFinder):
    """Lets the others find a module, and wraps its functions when it has been executed."""

    def __init__(self, verb: str, targets: dict[str, set[str]]) -> None:
        self._verb, self._targets = verb, targets

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self._targets:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def wrapping(module: types.ModuleType, execute: Callable[..., None] = execute) -> None:
                    execute(module)
                    for one in self._targets[name]:
                        _wrap(module, one, self._verb)
                    if name == _BEFORE_THE_FORK:
                        import onnxruntime  # noqa: F401

                        import segmenter.engine  # noqa: F401

                spec.loader.exec_module = wrapping  # type: ignore[method-assign]
                return spec
        return None


def _wrap(module: types.ModuleType, target: str, verb: str) -> None:
    path = target.partition(":")[2]
    *outer, name = path.split(".")
    owner: Any = module
    for step in outer:
        inner = getattr(owner, step)
        if isinstance(inner, types.ModuleType):  # os.fsync as this module sees it, and nobody else
            inner = _Seen(inner)
            setattr(owner, step, inner)
        owner = inner
    setattr(owner, name, _trapped(getattr(owner, name), target, verb))


class _Seen(types.SimpleNamespace):
    """A module through one other module's eyes."""

    def __init__(self, module: types.ModuleType) -> None:
        super().__init__(**vars(module))


_counting = threading.Lock()
_calls: dict[str, int] = {}  # by proof, that is by trap


def _trapped(function: Callable[..., Any], target: str, verb: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        when, proof = _sprung(target, verb)
        if when == "before":
            _die(target, proof)
        if when == "leaving":
            return leaving(proof, *args, **kwargs)
        value = function(*args, **kwargs)
        if when == "after":
            _die(target, proof)
        return value

    @contextmanager
    def leaving(proof: str, *args: Any, **kwargs: Any) -> Any:
        with function(*args, **kwargs) as value:
            yield value
            _die(target, proof)

    return wrapped


def _sprung(target: str, verb: str) -> tuple[str, str]:
    """When to die in this call and what to write first; empty: not in this one."""
    try:
        traps = json.loads(Path(os.environ["CRASH_TRAPS"]).read_text())
    except FileNotFoundError:
        return "", ""
    for trap in traps:
        if (trap["verb"], trap["target"]) != (verb, target) or Path(trap["proof"]).exists():
            continue
        with _counting:
            _calls[trap["proof"]] = number = _calls.get(trap["proof"], 0) + 1
        if number == trap["nth"]:
            return str(trap["when"]), str(trap["proof"])
    return "", ""


def _die(target: str, proof: str) -> None:
    try:
        file = os.open(proof, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # another process was here
    os.write(file, f"{os.getpid()} {target}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
