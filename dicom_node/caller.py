"""An association that we open: plain or TLS as [peers] says, or the sentence why there is none."""

from __future__ import annotations

import logging

from pynetdicom import Association, evt
from pynetdicom.presentation import PresentationContext

from dicom_node import handshake, tls
from dicom_node.config import Config, Peer
from dicom_node.errors import ConfigError, NodeError
from dicom_node.line import Caller
from dicom_node.status import Verdict
from segmenter.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

log = logging.getLogger(__name__)

NO_CONTEXT = "the destination accepts no presentation context for this object class; enable it there, then `retry`"


class NoAssociation(NodeError):
    """There is none; the message says why, `verdict` what follows: only a class that is not accepted is permanent."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict


def unit(config: Config) -> Caller:
    """Our application entity as an SCU, with the configured waits."""
    ae = Caller(ae_title=config.send.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = config.send.connect_seconds
    ae.acse_timeout = config.send.connect_seconds
    ae.dimse_timeout = config.send.response_seconds
    ae.network_timeout = config.send.response_seconds
    return ae


def associate(
    config: Config,
    name: str,
    contexts: list[PresentationContext],
    peer: Peer | None = None,
    handlers: list[evt.EventHandlerType] | None = None,
) -> Association:
    """An established association with the peer `name`, or with `peer` where another service of it is meant.

    The TLS files are read each time: a renewed certificate needs no restart. Raises NoAssociation.
    """
    peer = peer or config.peers[name]
    try:
        context = tls.outgoing(config.send) if peer.tls else None
    except ConfigError as problem:
        raise NoAssociation(Verdict.TRY_LATER, f"{name}: {problem}") from problem
    try:
        association = unit(config).associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.ae_title or name,
            evt_handlers=handlers,
            tls_args=(context, peer.host) if context else None,
        )
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # a name that does not resolve, for one
        log.warning("no association", extra={"destination": name, "error": type(error).__name__})
        raise NoAssociation(Verdict.TRY_LATER, f"{name} can not be reached") from error
    if association.is_established:
        return association
    if context is not None and context.problem is not None:
        raise NoAssociation(Verdict.TRY_LATER, f"{name}: {handshake.of_destination(context.problem)}")
    raise _why_not(association, name)


def _why_not(association: Association, name: str) -> NoAssociation:
    if association.is_rejected:
        primitive = association.acceptor.primitive
        reason = primitive.reason_str if primitive is not None else "no reason given"
        return NoAssociation(Verdict.TRY_LATER, f"{name} rejected the association ({reason}): is our AE title known there?")
    if association.rejected_contexts and not association.accepted_contexts:
        return NoAssociation(Verdict.REFUSED, NO_CONTEXT)
    return NoAssociation(Verdict.TRY_LATER, f"{name} can not be reached")
