"""TLS by PS3.15 B.12, the BCP 195 profile (RFC 8996, RFC 9325), in both directions: who we are and whom we trust.

TLS 1.3 is offered and preferred, 1.2 is taken, older is refused. For 1.2 only suites with ephemeral keys and
authenticated encryption (ECDHE with AES-GCM or ChaCha20-Poly1305) and keys of at least 112 bits of strength (RSA from
2048 bits). No renegotiation, and no session tickets: every association is verified anew, and nothing is left unread on
the connection of a sender that closes at once.
"""

from __future__ import annotations

import datetime
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Receive, Send
from dicom_node.runtime.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger(__name__)

SOON_DAYS = 30.0
_SUITES_1_2 = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
_DAY = 86_400.0


class Identity(NamedTuple):
    """A certificate that we show, and the section of the configuration that names it."""

    section: str  # receive, send or serve
    certificate: str  # path, PEM, leaf first
    key: str  # path, PEM
    is_server: bool


class Outgoing(ssl.SSLContext):
    """The context of one association that we open. `problem`: what TLS failed with, which the library swallows."""

    problem: OSError | None = None


class _RecordingSocket(ssl.SSLSocket):
    """Records the first failure in its context. With TLS 1.3 a refusal of our certificate comes with the first read."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as problem:
            self._record(problem)
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        try:
            return super().read(len, buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as problem:
            self._record(problem)
            raise

    def _record(self, problem: OSError) -> None:
        context = cast(Outgoing, self.context)
        context.problem = context.problem or problem


def incoming(receive: Receive) -> ssl.SSLContext | None:
    """How the SCP speaks; None: plain. Raises ConfigError with key and remedy."""
    if not receive.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _narrow(context)
    _show(context, Identity("receive", receive.tls_certificate, receive.tls_key, True))
    if receive.tls_client_ca:
        _trust(context, "receive.tls_client_ca", receive.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def outgoing(send: Send) -> Outgoing:
    """How the SCU speaks to a peer with tls = true: it verifies chain and host name. Raises ConfigError."""
    context = Outgoing(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _RecordingSocket
    _narrow(context)
    if not send.tls_ca:
        raise ConfigError(
            "send.tls_ca is empty, and a peer has tls = true: name the file of the CA that signs for destinations"
        )
    _trust(context, "send.tls_ca", send.tls_ca)
    if send.tls_certificate:
        _show(context, Identity("send", send.tls_certificate, send.tls_key, False))
    return context


def verify(config: Config) -> None:
    """Look at all files of TLS before anything starts. Raises ConfigError with key and remedy."""
    incoming(config.receive)
    if any(peer.tls for peer in config.peers.values()):
        outgoing(config.send)
    for identity in identities(config):
        if identity.section == "serve":
            continue  # no reason to refuse films: `serve` says it
        if (days := days_left(identity)) < SOON_DAYS:
            log.warning("%s.tls_certificate expires in %d days; renew it", identity.section, days)


def suites() -> list[tuple[str, str]]:
    """(TLS version, cipher suite) that we offer and take, in both directions, by OpenSSL's names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _narrow(context)
    return sorted({(str(one["protocol"]), str(one["name"])) for one in context.get_ciphers()})


def identities(config: Config) -> Iterator[Identity]:
    """The certificates that we show."""
    if config.receive.tls_certificate:
        yield Identity("receive", config.receive.tls_certificate, config.receive.tls_key, True)
    if config.send.tls_certificate:
        yield Identity("send", config.send.tls_certificate, config.send.tls_key, False)
    if config.serve.enabled and config.serve.tls_certificate:
        yield Identity("serve", config.serve.tls_certificate, config.serve.tls_key, True)


def days_left(identity: Identity) -> float:
    """Days until it expires. Raises ConfigError when it cannot be used, has expired, or is not valid yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _narrow(context)
    return (_show(context, identity) - time.time()) / _DAY


def _narrow(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES_1_2)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0


def _show(context: ssl.SSLContext, identity: Identity) -> float:
    """Load a certificate of ours; epoch seconds until which it is good."""
    section, certificate, key, _ = identity
    _readable(f"{section}.tls_certificate", certificate)
    _readable(f"{section}.tls_key", key)

    def no_passphrase() -> str:
        raise ConfigError(
            f"{section}.tls_key: {key} asks for a passphrase, and nobody is there to type it; store it without one"
        )

    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as problem:
        if problem.reason == "KEY_VALUES_MISMATCH":
            text = f"{key} is not the key of {certificate}; name the pair that was made together"
        elif problem.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
            text = f"{certificate} is too weak ({problem.reason}); make one with RSA 2048 or EC P-256 and SHA-256"
        else:
            text = f"{certificate} and {key} are not a certificate and a key in PEM ({problem.reason}); convert them"
        raise ConfigError(f"{section}.tls_certificate, {section}.tls_key: {text}") from problem
    return _valid_until(identity)


def _trust(context: ssl.SSLContext, name: str, file: str) -> None:
    _readable(name, file)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as problem:
        raise ConfigError(f"{name}: {file} holds no certificate in PEM ({problem.reason}); convert it") from problem


def _readable(name: str, file: str) -> None:
    try:
        with open(file, "rb"):
            pass
    except OSError as problem:
        text = f"{name}: {file} cannot be read ({problem.strerror}); put it there, readable by the user that we run as"
        raise ConfigError(text) from problem


def _valid_until(identity: Identity) -> float:
    """Epoch seconds. Raises ConfigError outside its validity (RFC 5280 4.1.2.5), or when it was made for another use."""
    from cryptography import x509

    name = f"{identity.section}.tls_certificate: {identity.certificate}"
    try:
        leaf = x509.load_pem_x509_certificate(Path(identity.certificate).read_bytes())
        is_for_us = _is_made_for(leaf, identity)
    except ValueError as problem:
        raise ConfigError(f"{name} cannot be used ({problem}); have another one issued") from problem
    if not is_for_us:
        purpose = "serverAuth" if identity.is_server else "clientAuth"
        raise ConfigError(f"{name} was not made for this use; have one issued with extendedKeyUsage {purpose}")
    now = datetime.datetime.now(datetime.UTC)
    if now > leaf.not_valid_after_utc:
        raise ConfigError(f"{name} has expired; renew it")
    if now < leaf.not_valid_before_utc:
        raise ConfigError(f"{name} is not valid yet; is the clock of this machine right?")
    return leaf.not_valid_after_utc.timestamp()


def _is_made_for(leaf: x509.Certificate, identity: Identity) -> bool:
    """By its key usage and extended key usage, where it has them (RFC 5280 4.2.1.3, 4.2.1.12; the bits by OpenSSL's check)."""
    from cryptography.x509 import ExtendedKeyUsage, KeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID

    wanted = ExtendedKeyUsageOID.SERVER_AUTH if identity.is_server else ExtendedKeyUsageOID.CLIENT_AUTH
    for extension in leaf.extensions:
        said = extension.value
        if isinstance(said, ExtendedKeyUsage) and wanted not in said:
            return False
        if isinstance(said, KeyUsage):
            encipherment = identity.is_server and said.key_encipherment
            if not (said.digital_signature or said.key_agreement or encipherment):
                return False
    return True
