"""The only reader of TOML and environment: config.toml -> frozen settings, each package gets its section.

The fields are in config_sections.py. An unknown key is an error that names file and key.
Environment: SEGMENTER_<SECTION>__<KEY> overrides the file, for example SEGMENTER_QUEUE__BROKER.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dicom_node.runtime import config_environment, config_errors, config_toml
from dicom_node.runtime.config_sections import (
    Log,
    Node,
    Peer,
    Queue,
    Receive,
    Retention,
    Rule,
    Section,
    Segment,
    Send,
    Serve,
    Work,
)
from dicom_node.runtime.config_types import (
    AETitle,
    shown,
)  # fmt: skip
from dicom_node.runtime.errors import ConfigError


class Config(BaseModel):
    """All settings of a node, frozen. Built by `load`, never by hand in product code."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: Node = Node()
    receive: Receive = Receive()
    peers: dict[str, Peer] = Field(default_factory=dict)
    send: Send = Send()
    queue: Queue = Queue()
    work: Work = Work()
    serve: Serve = Serve()
    retention: Retention = Retention()
    segment: Segment = Segment()
    log: Log = Log()
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _check_ae_titles_of_peers(self) -> Config:
        for name, peer in self.peers.items():
            try:
                TypeAdapter(AETitle).validate_python(peer.ae_title or name)
            except ValidationError as error:
                raise ValueError(f"peers: {name!r} cannot be an AE title (16 characters at most); set its ae_title") from error
        return self

    @model_validator(mode="after")
    def _check_across_sections(self) -> Config:
        named = [("send.destinations", self.send.destinations)]
        named += [(f"rules: the destinations of {rule.name!r}", rule.destinations or ()) for rule in self.rules]
        for where, destinations in named:
            unknown = [name for name in destinations if name != "@sender" and name not in self.peers]
            if unknown:
                remedy = config_errors.of_peer(unknown[0], self.peers)
                raise ValueError(f"{where} names {', '.join(unknown)}, which [peers] does not contain{remedy}")
        names = [rule.name for rule in self.rules]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"rules: two rules have the same name, {twice[0]!r}; give each its own")
        if self.work.heartbeat_seconds * 2 > self.work.lease_seconds:
            raise ValueError("work.heartbeat_seconds must be less than half of work.lease_seconds")
        for name, section in (("receive", self.receive), ("send", self.send), ("serve", self.serve)):
            if bool(section.tls_certificate) != bool(section.tls_key):
                raise ValueError(f"{name}.tls_certificate and {name}.tls_key belong together: set both or neither")
        if self.receive.tls_client_ca and not self.receive.tls_certificate:
            raise ValueError("receive.tls_client_ca needs receive.tls_certificate and receive.tls_key")
        return self

    @property
    def destinations(self) -> tuple[str, ...]:
        """Every destination of [send] and [[rules]]: names of [peers], and "@sender"."""
        return tuple(dict.fromkeys([*self.send.destinations, *(d for rule in self.rules for d in rule.destinations or ())]))

    @property
    def spool_directory(self) -> Path:
        """The folder of films and results."""
        return self.node.directory / "spool"

    @property
    def ledger_path(self) -> Path:
        """The SQLite file."""
        return self.node.directory / "ledger.sqlite"


def load(path: Path | None) -> Config:
    """Read `path` (None: the defaults) and the environment. Raises ConfigError with file, key and remedy.

    Relative paths are relative to the folder of the file.
    """
    values = {} if path is None else config_toml.values(path)
    values, origins = config_environment.overlay(Config, values, os.environ)
    config = _validated(values, str(path or "config"), origins)
    return _anchored(config, path.resolve().parent if path else Path.cwd())


def _validated(values: dict[str, Any], source: str, origins: dict[tuple[str, ...], str]) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(config_errors.sentences(Config, error, source, origins))) from error


def with_node(config: Config, node: str | None, broker: str | None, token_file: Path | None, ca: Path | None) -> Config:
    """`config` with what the command line says about the node to work for; None leaves a setting as it is. Raises
    ConfigError."""
    files = {"token_file": token_file, "node_ca": ca}
    work = ({"node": node} if node else {}) | {name: str(file.resolve()) for name, file in files.items() if file}
    told = {"work": work, "queue": {"broker": broker} if broker else {}}
    options: dict[tuple[str, ...], str] = {("work", "node"): "--node", ("queue", "broker"): "--broker"}
    options |= {("work", "token_file"): "--token-file", ("work", "node_ca"): "--ca"}
    values = config.model_dump()
    return _validated(values | {section: values[section] | keys for section, keys in told.items()}, "command line", options)


def redacted(config: Config) -> dict[str, Any]:
    """The settings as plain values, passwords in URLs replaced."""
    values = config.model_dump(mode="json")
    values["queue"]["broker"] = shown(config.queue.broker)
    return values


def _anchored(config: Config, folder: Path) -> Config:
    """Every relative path made absolute."""

    def absolute(section: Section, *names: str) -> Any:
        paths = {name: getattr(section, name) for name in names}
        return section.model_copy(update={name: str((folder / path).resolve()) for name, path in paths.items() if path})

    node = config.node.model_copy(update={"directory": (folder / config.node.directory).resolve()})
    model = config.segment.model
    if str(model) != "demo":
        model = (folder / model).resolve()
    return config.model_copy(
        update={
            "node": node,
            "segment": config.segment.model_copy(update={"model": model}),
            "receive": absolute(config.receive, "tls_certificate", "tls_key", "tls_client_ca"),
            "send": absolute(config.send, "tls_ca", "tls_certificate", "tls_key"),
            "queue": absolute(config.queue, "broker_ca"),
            "work": absolute(config.work, "node_ca", "token_file"),
            "serve": absolute(config.serve, "tls_certificate", "tls_key"),
        }
    )
