"""A certificate authority for tests, and a PACS that speaks TLS."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path

    @property
    def both(self) -> list[str]:
        """As dcmtk wants them: key first."""
        return [str(self.key), str(self.certificate)]


class Authority:
    """A root that signs; `file` is its certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = rsa.generate_private_key(65537, 2048)
        self._leaf_key = rsa.generate_private_key(65537, 2048)  # of all that it signs: making keys takes long
        self.file = folder / f"{name}.pem"
        certificate = self._builder(self._name, self._key, days=(-1000, 1000))
        certificate = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file.write_bytes(_pem(certificate.sign(self._key, hashes.SHA256())))

    def issue(
        self,
        name: str,
        *,
        host: str = "127.0.0.1",
        days: tuple[float, float] = (-1, 365),
        bits: int = 2048,
        server_only: bool = False,
        self_signed: bool = False,
    ) -> Pair:
        """`host`: its subjectAltName, an address or a name; `days`: valid from and until, from now."""
        key = self._leaf_key if bits == 2048 else rsa.generate_private_key(65537, bits)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, days, issuer=subject if self_signed else self._name)
        try:
            where: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            where = x509.DNSName(host)
        builder = builder.add_extension(x509.SubjectAlternativeName([where]), critical=False)
        if server_only:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.certificate.write_bytes(_pem(builder.sign(key if self_signed else self._key, hashes.SHA256())))
        pair.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return pair

    def _builder(
        self, subject: x509.Name, key: rsa.RSAPrivateKey, days: tuple[float, float], issuer: x509.Name | None = None
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def server_context(pair: Pair) -> ssl.SSLContext:
    """A peer's: takes everything that OpenSSL takes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@dataclass
class TlsPacs:
    """A storage SCP of pynetdicom; `context` None: plain. `received`: SOP Instance UIDs; `spoken`: (version, suite)."""

    context: ssl.SSLContext | None
    port: int = 0
    received: list[str] = field(default_factory=list)
    spoken: list[tuple[str, str]] = field(default_factory=list)
    connections: int = 0  # TCP connections on which a byte of DICOM was understood

    @contextmanager
    def serving(self) -> Iterator[TlsPacs]:
        ae = AE("PACS")
        ae.add_supported_context("1.2.840.10008.1.1")
        for one in AllStoragePresentationContexts:
            ae.add_supported_context(str(one.abstract_syntax))
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_PDU_RECV, self._heard)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=self.context)
        assert server is not None and server.socket is not None
        self.port = server.socket.getsockname()[1]
        try:
            yield self
        finally:
            server.shutdown()

    def _heard(self, event: evt.Event) -> None:
        self.connections += 1

    def _store(self, event: evt.Event) -> int:
        connection = event.assoc.dul.socket.socket
        if isinstance(connection, ssl.SSLSocket):
            self.spoken.append((connection.version() or "", (connection.cipher() or ("",))[0]))
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000
