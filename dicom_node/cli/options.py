"""What the verbs of the command line share: options, exit codes, and their first steps."""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.runtime.errors import Missing

if TYPE_CHECKING:
    from dicom_node.runtime.config import Config
    from dicom_node.storage.ledger import Ledger

# 3: `film_report.exit_code`; the table is in cli/main.py.
EXIT_INTERNAL, EXIT_CONFIG, EXIT_FILM_FAILED, EXIT_MISSING = 1, 2, 3, 4
DEFAULT_CONFIG = Path("config.toml")


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--config FILE."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help="Configuration file. Default: ./config.toml when it is there, else the defaults.",
    )(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")(function)


def model_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--model FOLDER; `default` for the help text."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--model", metavar="FOLDER", type=kind, help=f"Model folder. Default: {default}.")


def child_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--parent PID, for the supervisor."""
    return click.option("--parent", type=int, hidden=True)(function)


def load_config(config_path: Path | None) -> Config:
    """The settings in force. Raises ConfigError."""
    from dicom_node.runtime.config import load

    return load(resolved(config_path))


def resolved(config_path: Path | None) -> Path | None:
    """The configuration file: the given one, else ./config.toml when it is there, else None."""
    if config_path is not None:
        return config_path
    return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None


def start(config_path: Path | None, verb: str, parent: int | None = None) -> Config:
    """Configuration and logging of a process that keeps running; it dies with the process `parent`. Raises ConfigError."""
    from dicom_node.runtime import child_processes, logs

    if parent is not None:
        child_processes.die_with_parent(parent)
    config = load_config(config_path)
    logs.start(config.log, verb)
    return config


def open_ledger(config_path: Path | None) -> tuple[Config, Ledger]:
    """Raises Missing on a node that never ran, LedgerUnusable for a ledger that cannot be used."""
    from dicom_node.storage.ledger import Ledger

    config = load_config(config_path)
    if not config.ledger_path.is_file():
        raise Missing(f"{config.node.directory}: no ledger there; start the node with `segmenter-worker run` first")
    return config, Ledger(config.ledger_path)


def in_words(error: OSError | sqlite3.Error) -> str:
    """The error of the system, with the remedy."""
    if isinstance(error, sqlite3.OperationalError):
        return f"the ledger cannot be used now ({error}); `check` looks at disk and ledger"
    if isinstance(error, sqlite3.Error):
        return f"the ledger is damaged ({error}); stop the node and restore a backup (`restore FILE`, docs/use/runbook.md)"
    remedy = "; run this as the user of the service" if isinstance(error, PermissionError) else ""
    return f"{error.filename or 'the system'}: {error.strerror or type(error).__name__}{remedy}"


def time_text(seconds: float | None) -> str | None:
    """ISO 8601, local time, of seconds since the epoch."""
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def print_json(value: object) -> None:
    """On standard output."""
    click.echo(json.dumps(value, indent=2))
