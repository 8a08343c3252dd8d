"""`check`: what is wrong with this node, each problem with its remedy. Reads everything, changes nothing."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator

from dicom_node.cli.options import in_words
from dicom_node.cli.terminal import megabytes
from dicom_node.dimse import tls
from dicom_node.runtime.check import Check
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_types import shown
from dicom_node.runtime.errors import ConfigError, NodeError


def checks(config: Config) -> Iterator[Check]:
    """One after the other, quick ones first. A check that meets an error of disk or ledger has failed; the others are made."""
    of_node = (_receive, _rules, _tls, _serve, _disk, _ledger, _broker, _model, _negatives, _destinations)
    of_remote_worker = (_broker, _model, _node)  # it has no receiver, no ledger and no destinations
    for look in of_remote_worker if config.work.node else of_node:
        try:
            made = look(config)
            yield from [made] if isinstance(made, Check) else made
        except (OSError, sqlite3.Error) as error:
            yield Check(look.__name__.strip("_"), False, in_words(error))


def _receive(config: Config) -> Check:
    from dicom_node.receive.storage_scp import bind
    from dicom_node.storage.instance_lock import running_verbs

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
    """Our own files; those of the destinations are verified when they are called."""
    for identity in tls.identities(config):
        name = f"{identity.section} TLS"
        try:
            days = tls.days_left(identity)
        except ConfigError as problem:
            yield Check(name, False, str(problem))
            continue
        text = f"our certificate is valid for {days:.0f} more days"
        yield Check(name, days >= tls.SOON_DAYS, text if days >= tls.SOON_DAYS else f"{text}; renew it (docs/use/tls.md)")
    try:
        tls.verify(config)
    except ConfigError as problem:
        yield Check("TLS", False, str(problem))


def _disk(config: Config) -> Check:
    folder = config.node.directory
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    free, reserve = disk.f_bavail * disk.f_frsize, config.node.reserve_mb * 2**20
    text = f"{megabytes(free)} free, {megabytes(reserve)} stay free"
    if free < reserve:
        return Check("disk", False, f"{text} (node.reserve_mb): films are refused; free space in {folder}")
    return Check("disk", True, text)


def _ledger(config: Config) -> Check:
    from dicom_node.storage.database import Store

    if not config.ledger_path.exists():
        return Check("ledger", True, "does not exist yet; `segmenter-worker run` creates it")
    try:
        found = Store(config.ledger_path).integrity()
    except NodeError as error:
        return Check("ledger", False, str(error))
    if found != "ok":
        return Check("ledger", False, f"{found}; stop the node and restore a backup")
    return Check("ledger", True, "sound")


def _broker(config: Config) -> Check:
    if config.queue.broker.startswith("memory://"):
        return Check("broker", True, "memory:// (inside the worker, no server)")
    from dicom_node.work.celery_app import problem_of

    if problem := problem_of(config.queue, config.work):
        text = f"{shown(config.queue.broker)}: {problem}. Until then films wait; memory:// needs no server, on a single machine"
        return Check("broker", False, text)
    return Check("broker", True, "answers")


def _model(config: Config) -> Check:
    from dicom_node.work.model import load_model, refuse_demo_model, runnable_model

    try:
        manifest = (runnable_model if config.work.processes else load_model)(config.segment).manifest
        refuse_demo_model(config, manifest.intended_use)
    except NodeError as error:
        return Check("model", False, str(error))
    note = "; DEMO, not for clinical use" if manifest.intended_use == "demo" else ""
    return Check("model", True, f"{manifest.name} {manifest.version}{note}")


def _node(config: Config) -> Check:
    from dicom_node.api.worker_client import RemoteQueue

    try:
        ready = RemoteQueue.of(config.work, "c4ec").ready()
    except NodeError as error:
        return Check("node", False, str(error))
    return Check("node", True, f"{config.work.node} knows us, {ready} films are ready")


def _serve(config: Config) -> Iterator[Check]:
    from dicom_node.cli.processes import verify_serve
    from dicom_node.storage.instance_lock import running_verbs

    settings = config.serve
    if not settings.enabled:
        if not config.work.processes:
            text = "serve.enabled = false and work.processes = 0: no worker runs here, and no remote one can ask for work"
            yield Check("serve", False, text)
        return
    try:
        verify_serve(settings)
    except ConfigError as problem:
        yield Check("serve", False, str(problem))
        return
    if "serve" in running_verbs(config):
        yield Check("serve", True, f"running on port {settings.port}")
    elif problem_of_port := _port(config):
        yield Check("serve", False, problem_of_port)
    else:
        yield Check("serve", True, f"port {settings.port} is free")
    if not settings.tls_certificate and not _is_here(settings.host):
        text = (
            f"tokens and films cross the network unencrypted on {settings.host} (serve.allow_plain): put a TLS proxy before it"
        )
        yield Check("serve", True, text, warning=True)


def _port(config: Config) -> str | None:
    """Why `serve` cannot listen on its port."""
    settings = config.serve
    if settings.port and settings.port == config.receive.port:
        return f"serve.port and receive.port are both {settings.port}; choose another one"
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        where = f"{settings.host}:{settings.port} ({error.strerror})"
        return f"serve.host, serve.port: cannot listen on {where}; stop what listens there, or choose another port"
    return None


def _is_here(host: str) -> bool:
    from dicom_node.dimse.hosts import is_loopback

    return is_loopback(host)


def _rules(config: Config) -> Iterator[Check]:
    from dicom_node.cli.unreachable_rules import unknown_urgent, unreachable

    found = [Check(f"rule {name}", False, sentence) for name, sentence in unreachable(config)]
    if config.rules and not found:
        count = len(config.rules)
        found = [Check("rules", True, "the rule can match" if count == 1 else f"all {count} rules can match")]
    yield from found
    if unknown := unknown_urgent(config):
        text = f"queue.urgent_from names {', '.join(unknown)}, which [receive.allowed] does not allow to send; add it there"
        yield Check("queue", False, text)


def _negatives(config: Config) -> Iterator[Check]:
    """Destinations that get nothing for a film without pneumothorax: there it looks like one that was never answered."""
    from dicom_node.storage.destinations import Router

    if not config.segment.report_negative:
        text = "segment.report_negative = false: no object for a film without pneumothorax: it looks as if it had no answer"
        yield Check("negatives", True, text, warning=True)
        return
    router = Router.of(config)
    names = [name for name in config.peers if name in config.destinations or "@sender" in config.destinations]
    for name in names:
        kinds = router.kinds_of(name)
        if not any(kind.role in ("sr", "capture") for kind in kinds):
            made = ", ".join(kinds) or "nothing"
            text = f"gets {made}, and nothing for a film without pneumothorax; add sr or capture to its objects"
            yield Check(f"negatives {name}", True, text, warning=True)


def _destinations(config: Config) -> Iterator[Check]:
    from dicom_node.send.storage_scu import commitment_problem
    from dicom_node.storage.commitments import committing

    if not config.destinations:
        yield Check("send", False, "send.destinations is empty: results are made and kept, but sent nowhere")
    for name in config.destinations:
        yield from _senders(config) if name == "@sender" else _destination(config, name)
    for name in committing(config):
        problem = commitment_problem(config, name)
        yield Check(f"commit {name}", problem is None, problem or "accepts requests for storage commitment")


def _destination(config: Config, name: str) -> Iterator[Check]:
    from dicom_node.send.negotiation import negotiate

    found = negotiate(config, name)
    yield Check(f"send {name}", found.ok, found.text)
    yield from _earlier_tries(config, name)


def _senders(config: Config) -> Iterator[Check]:
    """Senders that get their results back. A modality may be switched off: no answer is a warning, a wrong one a failure."""
    from dicom_node.send.negotiation import negotiate

    missing = [ae for ae in config.receive.allowed if ae not in config.peers]
    text = f"[peers] has no entry for {', '.join(missing)}" if missing else "every sender has an entry in [peers]"
    yield Check("send @sender", not missing, text)
    for sender in config.receive.allowed:
        if sender in config.peers and sender not in config.destinations:
            found = negotiate(config, sender)
            text = found.text if found.answered else f"{found.text}; it may be switched off"
            yield Check(f"send {sender}", found.ok or not found.answered, text, warning=not found.answered)
            yield from _earlier_tries(config, sender)


def _earlier_tries(config: Config, name: str) -> Iterator[Check]:
    """How earlier deliveries to it ended: some archives refuse a sender only at the C-STORE."""
    from dicom_node.storage.database import Store
    from dicom_node.storage.outbox import Outbox

    if not config.ledger_path.exists():
        return
    try:
        found = Outbox(Store(config.ledger_path)).problems(name)
    except (NodeError, sqlite3.Error):
        return  # the check of the ledger reports it
    if found.refused:
        many = "1 object was" if found.refused == 1 else f"{found.refused} objects were"
        text = f"{many} refused there since the last delivered one ({found.refusal}); fix the cause, then `retry JOB`"
        yield Check(f"sent {name}", False, text)
    if found.waiting:
        many = "1 object waits" if found.waiting == 1 else f"{found.waiting} objects wait"
        text = f"{many} after a failed try ({found.failure}); may {config.send.ae_title} store there?"
        yield Check(f"sent {name}", False, f"{text} `deliver --now {name}` tries again at once")
