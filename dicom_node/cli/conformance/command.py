"""`segmenter-worker conformance`: the conformance statement by PS3.2 Annex N, of this configuration and this code.

Its text is statement.md.j2; everything that can be counted or listed is read from the configuration and from the module that
does it. docs/use/conformance.md is the statement of the default configuration; a test compares it. To write it again:

    segmenter-worker conformance --config config.toml --out docs/use/conformance.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node import __version__
from dicom_node.cli.options import config_option, json_option, load_config, print_json
from dicom_node.runtime.errors import ConfigError

if TYPE_CHECKING:
    from dicom_node.cli.conformance.document import Page
    from dicom_node.runtime.config import Config

TEMPLATE = Path(__file__).with_name("statement.md.j2")
NOTICE = "Research software, not a medical device. Not for primary diagnosis."
_CONTEXTS = "Abstract syntax | UID | Transfer syntaxes | Our role | Extended negotiation"


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it there. Default: standard output.")
@config_option
@json_option
def conformance(out: Path | None, config_path: Path | None, as_json: bool) -> None:
    """The DICOM conformance statement (PS3.2 Annex N) of this configuration, as Markdown."""
    page = statement(load_config(config_path))
    if out is not None:
        text = json.dumps(page.values(), indent=2) + "\n" if as_json else page.markdown()
        try:
            out.write_text(text, "utf-8")
        except OSError as error:
            raise ConfigError(f"{out}: cannot be written ({error.strerror}); name another file with --out") from error
    elif as_json:
        print_json(page.values())
    else:
        click.echo(page.markdown(), nl=False)


def statement(config: Config) -> Page:
    """Raises ConfigError when the configured model cannot be used: its objects could not be described."""
    from jinja2 import Environment, StrictUndefined

    from dicom_node.cli.conformance import configuration, network, statuses
    from dicom_node.cli.conformance.document import Page, Table
    from dicom_node.cli.conformance.objects import Objects
    from dicom_node.dimse import tls
    from dicom_node.send import commitment_request, storage_scu
    from dicom_node.storage import commitments
    from dicom_node.work.model import load_model, segment_settings
    from segmenter.model.identity import identify

    model = identify(load_model(config.segment), segment_settings(config.segment))
    objects = Objects(config, demo=model.demo)
    tables: dict[str, Table] = {}

    def table(name: str, columns: str, rows: Iterable[Sequence[object]]) -> str:
        """A mark in the text, in whose place the table is put."""
        mark = f"<table {len(tables)}>"
        tables[mark] = Table.of(name, columns, rows)
        return mark

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["number"] = "{:g}".format
    text = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        config=config,
        notice=NOTICE,
        version=__version__,
        model=model,
        table=table,
        contexts=_CONTEXTS,
        sent=objects.sent(),
        committing=list(commitments.committing(config)),
        objects=objects,
        network=network,
        configuration=configuration,
        statuses=statuses,
        tls=tls,
        storing=storage_scu,
        requesting=commitment_request,
        commitments=commitments,
    )
    return Page.read(text, tables).with_contents("2")
