"""`check`: what is wrong with this node, in words that name the remedy. Looks at everything, changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node import tls
from dicom_node.config import Config
from dicom_node.errors import ConfigError, NodeError
from dicom_node.options import in_words


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    text: str


def checks(config: Config) -> Iterator[Check]:
    """One after the other, cheap ones first. One that can not be made is a failed one, and the others are made."""
    here = (_receive, _tls, _disk, _ledger, _broker, _model, _destinations)
    far = (_broker, _model, _node)  # a worker's machine has no receiver, no ledger and no destinations
    for look in far if config.work.node else here:
        try:
            made = look(config)
            yield from [made] if isinstance(made, Check) else made
        except (OSError, sqlite3.Error) as error:
            yield Check(look.__name__.strip("_"), False, in_words(error))


def _receive(config: Config) -> Check:
    from dicom_node.association import bind
    from dicom_node.lifecycle import running_verbs

    settings = config.receive
    if not settings.allowed:
        text = 'receive.allowed is empty, so every sender is rejected; add for example  MODALITY1 = ["10.0.0.7"]'
        return Check("receive", False, text)
    senders = f"{len(settings.allowed)} calling AE titles may send to {settings.ae_title}"
    if "receive" in running_verbs(config):
        return Check("receive", True, f"running on port {settings.port}, {senders}")
    try:
        bind(settings).close()
    except ConfigError as problem:
        return Check("receive", False, str(problem))
    return Check("receive", True, f"port {settings.port} is free, {senders}")


def _tls(config: Config) -> Iterator[Check]:
    """Our own files; the certificates of destinations are tried by their C-ECHO."""
    for identity in tls.identities(config):
        name = f"{identity.section} TLS"
        try:
            days = tls.days_left(identity)
        except ConfigError as problem:
            yield Check(name, False, str(problem))
            continue
        text = f"our certificate is good for {days:.0f} more days"
        yield Check(name, days >= tls.SOON_DAYS, text if days >= tls.SOON_DAYS else f"{text}; renew it (RUNBOOK, TLS)")
    try:
        tls.verify(config)
    except ConfigError as problem:
        yield Check("TLS", False, str(problem))


def _disk(config: Config) -> Check:
    folder = config.node.directory
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // 1_048_576
    if free < config.node.reserve_mb:
        text = f"{free} MB free at {folder}, under node.reserve_mb = {config.node.reserve_mb}: films are refused; make room"
        return Check("disk", False, text)
    return Check("disk", True, f"{free} MB free, {config.node.reserve_mb} MB stay free")


def _ledger(config: Config) -> Check:
    from dicom_node.store import Store

    if not config.ledger_path.exists():
        return Check("ledger", True, "not there yet; `segmenter-worker run` makes it")
    try:
        found = Store(config.ledger_path).integrity()
    except NodeError as error:
        return Check("ledger", False, str(error))
    if found != "ok":
        return Check("ledger", False, f"{found}; stop the node and restore a backup")
    return Check("ledger", True, "sound")


def _broker(config: Config) -> Check:
    if config.queue.broker.startswith("memory://"):
        return Check("broker", True, "memory:// (in the worker, no server)")
    from kombu import Connection
    from kombu.exceptions import OperationalError

    try:
        with Connection(
            config.queue.broker, transport_options={"socket_connect_timeout": 3, "socket_timeout": 3}
        ) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except (OperationalError, OSError) as error:
        text = f"queue.broker does not answer ({type(error).__name__}); start Redis, or use memory://. Films wait in the ledger"
        return Check("broker", False, text)
    return Check("broker", True, "answers")


def _model(config: Config) -> Check:
    from dicom_node.model import load_model, refuse_demo_model, runnable_model

    try:
        manifest = (runnable_model if config.work.processes else load_model)(config.segment).manifest
        refuse_demo_model(config, manifest.intended_use)
    except NodeError as error:
        return Check("model", False, str(error))
    note = "; DEMO, not for clinical use" if manifest.intended_use == "demo" else ""
    return Check("model", True, f"{manifest.name} {manifest.version}{note}")


def _node(config: Config) -> Check:
    from dicom_node.remote import RemoteNode

    try:
        ready = RemoteNode.of(config.work, "c4ec").ready()
    except NodeError as error:
        return Check("node", False, str(error))
    return Check("node", True, f"{config.work.node} knows us, {ready} films are ready")


def _destinations(config: Config) -> Iterator[Check]:
    from dicom_node.commitments import committing
    from dicom_node.delivery import commits, echo

    if not config.destinations:
        yield Check("send", False, "send.destinations is empty: results are made and kept, but go nowhere")
    for name in config.destinations:
        if name == "@sender":
            missing = [ae for ae in config.receive.allowed if ae not in config.peers]
            text = f"[peers] has no entry for {', '.join(missing)}" if missing else "every sender has an entry in [peers]"
            yield Check("send @sender", not missing, text)
            by_tls = [ae for ae in config.receive.allowed if ae in config.peers and config.peers[ae].tls]
            for sender in set(by_tls) - set(config.destinations):
                if (problem := echo(config, sender)) and "TLS" in problem:  # a modality may well be switched off
                    yield Check(f"send {sender}", False, problem)
            continue
        problem = echo(config, name)
        yield Check(f"send {name}", problem is None, problem or "answers C-ECHO")
    for name in committing(config):
        problem = commits(config, name)
        yield Check(f"commit {name}", problem is None, problem or "takes requests for storage commitment")
