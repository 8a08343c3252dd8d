"""An association that we open, plain or TLS as [peers] says; or the reason why there is none."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable, Sequence
from ssl import SSLError

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_node.dimse import tls
from dicom_node.dimse.association_pdu import NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX
from dicom_node.dimse.requestor import RequestorAssociation
from dicom_node.dimse.status import Verdict
from dicom_node.runtime import tls_errors
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Peer
from dicom_node.runtime.errors import ConfigError, NodeError
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

log = logging.getLogger(__name__)

_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


class NoAssociation(NodeError):
    """The message says why; `verdict` says what follows: only a SOP class that is not accepted is permanent."""

    def __init__(self, verdict: Verdict, reason: str, rejected: Sequence[PresentationContext] = ()) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.rejected = rejected  # contexts, where they are the reason


def application_entity(config: Config) -> ApplicationEntity:
    """Our application entity as an SCU, with the configured timeouts."""
    ae = ApplicationEntity(ae_title=config.send.ae_title)
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
    contexts: Sequence[PresentationContext],
    peer: Peer | None = None,
    handlers: Sequence[evt.EventHandlerType] = (),
) -> RequestorAssociation:
    """An established association with the peer `name`, or with `peer` for another service of it. The caller closes it.

    The TLS files are read each time: a renewed certificate needs no restart. Raises NoAssociation (PS3.8 9.3.3, 9.3.4).
    """
    peer = peer or config.peers[name]
    try:
        context = tls.outgoing(config.send) if peer.tls else None
    except ConfigError as problem:
        raise NoAssociation(Verdict.TRY_LATER, f"{name}: {problem}") from problem
    association = RequestorAssociation(application_entity(config), name, _address(name, peer))
    try:
        association.propose(peer.ae_title or name, contexts, handlers, (context, peer.host) if context else None)
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # no more threads or descriptors, for one
        association.close()
        log.warning("no association", extra={"destination": name, "error": type(error).__name__})
        raise NoAssociation(Verdict.TRY_LATER, f"{name} cannot be reached ({type(error).__name__})") from error
    if association.is_established:
        return association
    if context is not None and context.problem is not None:
        raise NoAssociation(Verdict.TRY_LATER, f"{name}: {tls_errors.of_destination(context.problem, name)}")
    raise _why_not(association, config, name, peer)


def not_accepted(contexts: Iterable[PresentationContext], sop_class: str) -> str:
    """Why no presentation context of a class is accepted: the class, or each syntax that was offered for it (PS3.8 9.3.3.2)."""
    of_class = [one for one in contexts if one.abstract_syntax == sop_class]
    results = {one.result for one in of_class}
    which = f"{UID(sop_class).name} ({sop_class})"
    if NO_TRANSFER_SYNTAX in results:
        offered = "neither Explicit nor Implicit VR Little Endian"
        why = f"it accepts {which}, but in {offered} (transfer syntaxes not supported); allow one of them there"
    elif NO_ABSTRACT_SYNTAX in results:
        why = f"it does not accept {which} (abstract syntax not supported); enable this SOP class there"
    elif 1 in results:
        why = f"it does not let us send {which} (user rejection); allow it there"
    else:
        why = f"it gives no reason for {which}; enable this SOP class there"
    return f"the destination accepts no presentation context: {why}, then `retry`"


def _address(name: str, peer: Peer) -> AddressInformation:
    try:
        return AddressInformation(peer.host, peer.port)
    except (OSError, UnicodeError) as problem:
        why = f"its host name {peer.host} cannot be resolved (DNS); look at peers.{name}.host"
        raise NoAssociation(Verdict.TRY_LATER, f"{name} cannot be reached: {why}") from problem


def _why_not(association: RequestorAssociation, config: Config, name: str, peer: Peer) -> NoAssociation:
    if association.is_rejected:
        why = _rejection(association, config, name, peer)
        return NoAssociation(Verdict.TRY_LATER, f"{name} rejected the association: {why}")
    if association.rejected_contexts and not association.accepted_contexts:
        classes = {str(one.abstract_syntax) for one in association.rejected_contexts}
        reason = "; ".join(not_accepted(association.rejected_contexts, one) for one in sorted(classes))
        return NoAssociation(Verdict.REFUSED, reason, association.rejected_contexts)
    return NoAssociation(Verdict.TRY_LATER, f"{name} {_no_answer(association, name, peer)}")


def _rejection(association: RequestorAssociation, config: Config, name: str, peer: Peer) -> str:
    """What an A-ASSOCIATE-RJ means to an administrator (PS3.8 table 9-21)."""
    answer = association.acceptor.primitive
    given = None if answer is None else (answer.result_source, answer.diagnostic)
    match given:
        case (1, 3):
            return f"it does not know our AE title {config.send.ae_title}; enter this AE title and our address there"
        case (1, 7):
            called = peer.ae_title or name
            return f"{called} is not its AE title; correct peers.{name}.ae_title"
        case (1, 2):
            return "it does not accept the application context of DICOM; is it a DICOM node?"
        case (2, 2):
            return "it does not speak version 1 of the DICOM protocol"
        case (3, _):
            return f"it is busy ({_reason(association)}); will retry"
    ours = f"is our AE title {config.send.ae_title} known there, and is its own {peer.ae_title or name}?"
    return f"{_reason(association)}; {ours}"


def _reason(association: RequestorAssociation) -> str:
    answer = association.acceptor.primitive
    return str(answer.reason_str).lower() if answer is not None else "no reason given"


def _no_answer(association: RequestorAssociation, name: str, peer: Peer) -> str:
    """Neither accepted nor rejected: a network problem, or an answer that is not DICOM."""
    where, problem = f"{peer.host}:{peer.port}", association.transport.problem
    if problem is None:
        if association.has_answered:
            return "cannot be reached: its answer is not readable DICOM"
        if association.has_aborted:
            return "cannot be reached: it aborted the association request; its log may say why"
        if association.is_silent:
            return f"cannot be reached: {where} takes the connection and does not answer; is it a DICOM port?"
        if not peer.tls and tls_errors.speaks_tls(peer.host, peer.port):
            return f"cannot be reached: it speaks TLS on this port; set peers.{name}.tls = true, or name its plain port"
        return f"cannot be reached: {where} takes the connection and closes it; is it a DICOM port, and does it know us?"
    if isinstance(problem, ConnectionRefusedError):
        return f"cannot be reached: nothing listens on {where} (connection refused); does it run, is peers.{name}.port right?"
    if isinstance(problem, SSLError):
        return f"cannot be reached: {tls_errors.of_destination(problem, name)}"
    if isinstance(problem, TimeoutError):
        return f"cannot be reached: {where} does not answer; is the address right, does a firewall stand between?"
    if isinstance(problem, socket.gaierror) or problem.errno in _NO_ROUTE:
        return f"cannot be reached: there is no way to {where} from here ({problem.strerror})"
    return f"cannot be reached: {where} ({problem.strerror or type(problem).__name__})"
