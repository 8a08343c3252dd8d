"""A C-ECHO (PS3.4 A) to our own receiver, for /readyz: the proof that it accepts associations.

The calling AE title is one that [receive.allowed] accepts from this host. Where only other hosts are allowed, the receiver must
reject us by our AE title, and one that does so is running and follows its settings; with an entry such as
PROBE = ["127.0.0.1"] the C-ECHO itself is answered.
"""

from __future__ import annotations

import json
import socket
import ssl

from pynetdicom import Association
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import AddressInformation

from dicom_node.dimse.contexts import echo_context
from dicom_node.dimse.hosts import is_host
from dicom_node.dimse.requestor import RequestorAssociation
from dicom_node.dimse.status import Rejection
from dicom_node.runtime.check import Check
from dicom_node.runtime.config import Config
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

NAME = "receiver"  # of the check
UNLISTED = "SEGMENTER-PROBE"  # when no AE title may call from here


def call_receiver(config: Config, seconds: float = 3.0) -> Check:
    """Associate, C-ECHO, release; each step may take `seconds`. Network errors are outcomes, none is raised."""
    receive = config.receive
    if not receive.allowed:
        text = 'receive.allowed is empty, so every sender is rejected; add for example  MODALITY1 = ["10.0.0.7"]'
        return Check(NAME, False, text)
    host = config.serve.receiver_host or _own_address(receive.host)
    port = receive.port or _announced_port(config)
    try:
        caller = _caller(config, _source(host, port))
        context = _tls_context(config)
    except (OSError, ssl.SSLError) as problem:
        return Check(NAME, False, f"{host}:{port} cannot be called ({_reason(problem)})")
    ae = ApplicationEntity(caller or UNLISTED)
    ae.implementation_class_uid, ae.implementation_version_name = IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = seconds
    try:
        association = RequestorAssociation(ae, "receiver", AddressInformation(host, port))
        association.propose(receive.ae_title, [echo_context()], tls_args=(context, None) if context else None)
    except (OSError, RuntimeError, TypeError, ValueError) as problem:
        return Check(NAME, False, f"{host}:{port} cannot be called ({type(problem).__name__})")
    if association.is_established:
        return _echo(association)
    if association.is_rejected:
        return _rejected(association, caller)
    return Check(NAME, False, f"{host}:{port} {_why_no_association(host, port, context, seconds)}")


def _echo(association: RequestorAssociation) -> Check:
    status = association.send_c_echo().get("Status")
    association.close()
    return Check(NAME, status == 0x0000, "answers C-ECHO" if status == 0x0000 else f"C-ECHO was not answered ({status!r})")


def _rejected(association: Association, caller: str | None) -> Check:
    answer = association.acceptor.primitive
    given = None if answer is None else (answer.result, answer.result_source, answer.diagnostic)
    if caller is None and given == Rejection.CALLING_AE.value:
        text = "answers; it rejects us, as no AE title of [receive.allowed] may call from this host (no C-ECHO was sent)"
        return Check(NAME, True, text)
    why = "no reason given" if answer is None else f"{answer.result_str}, {answer.reason_str}"
    return Check(
        NAME,
        False,
        f"rejected the association of {caller or UNLISTED} ({why}): draining, full, or started with another configuration",
    )


def _caller(config: Config, source: str) -> str | None:
    """An AE title that may call from `source`, preferably one whose entry names the host; None when there is none."""
    allowed = config.receive.allowed
    named = [ae for ae, hosts in allowed.items() if any(is_host(source, host) for host in hosts)]
    return next(iter([*named, *(ae for ae, hosts in allowed.items() if not hosts)]), None)


def _source(host: str, port: int) -> str:
    """Our address as `host` sees it, by the route; nothing is sent. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _own_address(listening: str) -> str:
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(listening, listening)


def _announced_port(config: Config) -> int:
    """The port that the supervisor has written to run.json (receive.port = 0); 0 when there is none."""
    try:
        return int(json.loads((config.node.directory / "run.json").read_text())["port"])
    except (OSError, ValueError, KeyError):
        return 0


def _tls_context(config: Config) -> ssl.SSLContext | None:
    """Trusts the receiver's certificate and no other, whoever signed it; presents one of ours when the receiver asks for it."""
    receive, send = config.receive, config.send
    if not receive.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=receive.tls_certificate)
    context.check_hostname = False  # the certificate names the node as modalities do, we call 127.0.0.1
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf certificate is the trust anchor
    if receive.tls_client_ca:
        ours = send if send.tls_certificate else receive
        context.load_cert_chain(ours.tls_certificate, ours.tls_key)
    return context


def _why_no_association(host: str, port: int, context: ssl.SSLContext | None, seconds: float) -> str:
    """pynetdicom does not say why there is no association: try the connection itself."""
    try:
        with socket.create_connection((host, port), seconds) as connection:
            if context is not None:
                with context.wrap_socket(connection) as secured:
                    secured.settimeout(min(1.0, seconds))
                    secured.recv(1)  # TLS 1.3: a client certificate is verified after the handshake
    except TimeoutError:
        return "accepts the connection and does not answer: the receiver hangs or is overloaded"
    except ssl.SSLError as problem:
        return f"speaks TLS, but not with us ({_reason(problem)}); check receive.tls_certificate and receive.tls_client_ca"
    except OSError as problem:
        return f"cannot be reached ({_reason(problem)}): the receiver is not running"
    return "accepts the connection and does not answer: the receiver hangs or is overloaded"


def _reason(problem: OSError) -> str:
    if isinstance(problem, ssl.SSLError):
        return getattr(problem, "verify_message", None) or problem.reason or type(problem).__name__
    return problem.strerror or type(problem).__name__
