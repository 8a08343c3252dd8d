"""`segmenter-worker`: thin verbs over the rooms below. Imports inside the verbs keep every start fast.

Exit codes: 0 every film answered (skips are answers), 1 refused or internal error, 2 usage or configuration,
3 some film failed, 4 something that is needed is not there.
"""

from __future__ import annotations

import errno
import json
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any

import click

from dicom_node import __version__
from dicom_node.cli.backup import backup, restore
from dicom_node.cli.conformance.command import conformance
from dicom_node.cli.jobs import deliver, jobs, purge, rerun, retry, show
from dicom_node.cli.journal import journal
from dicom_node.cli.options import (
    EXIT_CONFIG,
    EXIT_INTERNAL,
    EXIT_MISSING,
    child_option,
    config_option,
    in_words,
    json_option,
    load_config,
    model_option,
    open_ledger,
    print_json,
    resolved,
    start,
)  # fmt: skip
from dicom_node.cli.workers import workers
from dicom_node.runtime.errors import ConfigError, Missing, NodeError
from dicom_node.storage.database import is_damage

PROCESSES = ("run", "receive", "work", "serve", "send")  # they keep running: an unforeseen error is logged with its traceback


class Group(click.Group):
    """Turns our errors into one line and a named exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            code = EXIT_CONFIG
            message = str(error)
        except Missing as error:
            code = EXIT_MISSING
            message = str(error)
        except NodeError as error:
            code = EXIT_INTERNAL
            message = str(error)
        except ModuleNotFoundError as error:  # the node is installed without what segments films
            code = EXIT_MISSING
            package = str(error.name).partition(".")[0]
            message = f"{package} is not installed here; install the extra worker-cpu (or worker: with torch, for GPUs)"
        except (OSError, sqlite3.Error) as error:
            known = isinstance(error, PermissionError) or (isinstance(error, sqlite3.Error) and is_damage(error))
            is_process = ctx.invoked_subcommand in PROCESSES
            if (is_process and not known) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            code = EXIT_MISSING
            message = in_words(error)
        click.echo(f"segmenter-worker: {message}", err=True)
        ctx.exit(code)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="segmenter-worker")
def main() -> None:
    """Segments pneumothorax on chest X-rays sent by DICOM and returns DICOM SEG. Research software, not a medical device."""


# -- processes -------------------------------------------------------------------------------------------------


@main.command()
@config_option
def run(config_path: Path | None) -> None:
    """Run the whole node: receive, work and send, until SIGTERM."""
    from dicom_node.cli.supervisor import Supervisor

    path = resolved(config_path)
    Supervisor(start(path, "run"), path).run()


@main.command()
@config_option
@child_option
@click.option("--listen-fd", type=int, hidden=True)
def receive(config_path: Path | None, parent: int | None, listen_fd: int | None) -> None:
    """Only receive films."""
    from dicom_node.cli import processes

    config = start(config_path, "receive", parent)
    processes.receive(config, None if listen_fd is None else socket.socket(fileno=listen_fd))


@main.command()
@config_option
@child_option
@click.option("--node", metavar="URL", help="Work for the node on another machine (its `serve`).")
@click.option("--broker", metavar="URL", help="Redis of that node, which wakes this worker. Default: ask the node for work.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with this worker's token.")
@click.option("--ca", type=click.Path(path_type=Path), help="CA certificates (PEM) to verify the node and Redis.")
@model_option("the configured one")
def work(
    config_path: Path | None,
    parent: int | None,
    node: str | None,
    broker: str | None,
    token_file: Path | None,
    ca: Path | None,
    model: Path | None,
) -> None:
    """Only segment films that were received, by the node on this machine or on another one."""
    from dicom_node.cli import processes
    from dicom_node.runtime.config import with_node
    from dicom_node.work.model import with_model

    config = with_node(start(config_path, "work", parent), node, broker, token_file, ca)
    sys.exit(processes.work(config.model_copy(update={"segment": with_model(config.segment, model)})))


@main.command()
@config_option
@child_option
def serve(config_path: Path | None, parent: int | None) -> None:
    """Only HTTP: the API for workers on other machines, health and metrics."""
    from dicom_node.cli import processes

    processes.serve(start(config_path, "serve", parent))


@main.command()
@config_option
@child_option
def send(config_path: Path | None, parent: int | None) -> None:
    """Only deliver results."""
    from dicom_node.cli import processes

    processes.send(start(config_path, "send", parent))


# -- films by hand ---------------------------------------------------------------------------------------------


@main.command()
@click.option("--film", "films", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A film.")
@click.option("--pacs", metavar="HOST:PORT:AE", help="A real PACS in place of the demo PACS.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo-output"), show_default=True)
@model_option("the shipped demo model")
@json_option
def demo(films: tuple[Path, ...], pacs: str | None, out: Path, model: Path | None, as_json: bool) -> None:
    """The whole path with nothing to prepare: films go in by C-STORE, SEGs come back to a PACS."""
    from dicom_node.cli.demo import run_demo

    sys.exit(run_demo(films, pacs, out, as_json, model))


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of objects and pictures.")
@model_option("the configured one")
@config_option
@json_option
def segment(files: tuple[Path, ...], out: Path, model: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Offline: films in, DICOM objects and pictures out. No network, no queue."""
    from dicom_node.cli.segment import segment_files

    sys.exit(segment_files(load_config(config_path), files, out, as_json, model))


# -- looking ---------------------------------------------------------------------------------------------------


@main.command()
@config_option
@json_option
def status(config_path: Path | None, as_json: bool) -> None:
    """How many films wait, were answered, skipped or failed; what is still to be sent to which destination."""
    from dicom_node.cli import tables

    config, ledger = open_ledger(config_path)
    values = tables.status(config, ledger)
    print_json(values) if as_json else tables.print_status(values, config.retention.warn_days)


for _verb in (jobs, show, retry, deliver, rerun, purge):
    main.add_command(_verb)


# -- doing -----------------------------------------------------------------------------------------------------


def _mode(name: str, mode: str, text: str, help_text: str) -> None:
    @main.command(name, help=help_text)
    @config_option
    def verb(config_path: Path | None) -> None:
        _, ledger = open_ledger(config_path)
        ledger.set_mode(mode)  # type: ignore[arg-type]
        click.echo(text)


_mode(
    "pause",
    "paused",
    "paused: films are taken, nothing is segmented or sent",
    "Stop segmenting and sending; films are still taken and kept.",
)
_mode("resume", "running", "running", "End a pause or a drain.")
_mode(
    "drain",
    "draining",
    "draining: no new films are taken, the films here are finished",
    "Take no new films, finish those that are here.",
)


main.add_command(backup)
main.add_command(restore)


@main.command()
@config_option
@json_option
def check(config_path: Path | None, as_json: bool) -> None:
    """Say what is wrong with configuration, rules, disk, ledger, broker, model and destinations, and how to fix it.

    Destinations are asked whether they accept our objects; nothing is stored. Exit code 4 when something is wrong.
    """
    from dicom_node.cli.check import checks

    results = list(checks(load_config(config_path)))
    if as_json:
        print_json([{"name": one.name, "ok": one.ok, "warning": one.warning, "text": one.text} for one in results])
    else:
        for one in results:
            mark, colour = ("FAIL", "red") if not one.ok else ("warn", "yellow") if one.warning else ("ok  ", "green")
            click.echo(f"{click.style(mark, fg=colour)}  {one.name}: {one.text}")
    sys.exit(0 if all(one.ok for one in results) else EXIT_MISSING)


@main.command()
@config_option
@json_option
def config(config_path: Path | None, as_json: bool) -> None:
    """The settings in force, secrets redacted."""
    from dicom_node.runtime.config import redacted

    values = redacted(load_config(config_path))
    if as_json:
        print_json(values)
        return
    for section, settings in values.items():
        title = f"[[{section}]]" if isinstance(settings, list) else f"[{section}]"
        for one in settings if isinstance(settings, list) else [settings]:
            click.echo(title)
            for key, value in one.items():
                click.echo(f"{key} = {json.dumps(value)}")
            click.echo()


main.add_command(journal)
main.add_command(conformance)


@main.group()
def model() -> None:
    """The models on this machine."""


@model.command("list")
@config_option
@json_option
def model_list(config_path: Path | None, as_json: bool) -> None:
    """The shipped demo model and the configured one."""
    from dicom_node.cli import tables

    rows = tables.models(load_config(config_path))
    print_json(rows) if as_json else tables.print_models(rows)


@model.command("verify")
@config_option
def model_verify(config_path: Path | None) -> None:
    """Verify the configured artifact: manifest, digest, tensors, and an answer to a phantom film."""
    from dicom_node.work.model import model_folder, runnable_model, segment_settings
    from segmenter.engine import Segmenter
    from segmenter.phantom.dicom import phantom_dataset
    from segmenter.phantom.draw import draw_phantom

    settings = load_config(config_path).segment
    segmenter = Segmenter(runnable_model(settings), segment_settings(settings))
    [finding] = segmenter.segment([phantom_dataset(draw_phantom(1, shape=(512, 448)))])
    if finding.decision is None:
        raise ConfigError(f"{model_folder(settings)}: does not answer a phantom film: {finding.sentence}")
    click.echo(f"{model_folder(settings)}: ok, identity {segmenter.identity.digest}")


@model.command("show")
@config_option
@json_option
def model_show(config_path: Path | None, as_json: bool) -> None:
    """Manifest and card of the configured model."""
    from dicom_node.work.model import load_model, model_folder

    settings = load_config(config_path).segment
    load_model(settings)
    folder = model_folder(settings)
    click.echo((folder / ("manifest.json" if as_json else "MODEL_CARD.md")).read_text("utf-8"))


main.add_command(workers)

if __name__ == "__main__":
    main()
