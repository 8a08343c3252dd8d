"""Why a TLS handshake failed, with the remedy: OpenSSL's codes and settings are named, subjects of certificates are not."""

from __future__ import annotations

import socket
import ssl

_LEAST = "at least TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305"
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)
_TOO_OLD = (
    "UNSUPPORTED_PROTOCOL",
    "VERSION_TOO_LOW",
    "WRONG_SSL_VERSION",
    "NO_SHARED_CIPHER",
    "NO_PROTOCOLS_AVAILABLE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
)

# X509_V_ERR_* of OpenSSL -> what is wrong with a certificate that we were shown.
_NOT_YET, _EXPIRED, _SELF_SIGNED, _UNKNOWN_CA, _PURPOSE, _HOST, _ADDRESS = 9, 10, 18, (2, 19, 20, 21), 26, 62, 64
_WEAK = (66, 67, 68)
_WRONG = {
    _NOT_YET: "is not valid yet",
    _EXPIRED: "has expired",
    _SELF_SIGNED: "is self-signed and not known here",
    **dict.fromkeys(_UNKNOWN_CA, "comes from a CA that is not known here"),
    **dict.fromkeys(_WEAK, "is too weak (its key, or the digest of its CA)"),
}
# What to do about a destination's, and about a sender's.
_THERE = {
    _NOT_YET: "is the clock of one of the two machines wrong?",
    _EXPIRED: "it must be renewed there",
    _SELF_SIGNED: "put it, or better the CA that should sign it, into send.tls_ca",
    **dict.fromkeys(_UNKNOWN_CA, "put that CA into send.tls_ca"),
    **dict.fromkeys(_WEAK, "it must be made anew there: RSA 2048 or EC P-256, SHA-256"),
}
_OF_SENDER = {
    _SELF_SIGNED: "put it, or better the CA that should sign it, into receive.tls_client_ca",
    **dict.fromkeys(_UNKNOWN_CA, "put that CA into receive.tls_client_ca"),
}

# Alerts (RFC 8446 6.2) by which a peer says what is wrong with ours.
_DOUBTED = (
    "does not accept our certificate{ours}: it does not know its CA, or calls us by a name or address that it does not hold"
)
_ALERTS = {
    "UNKNOWN_CA": "does not know the CA of our certificate{ours}; give it that CA",
    "CERTIFICATE_EXPIRED": "says that our certificate{ours} has expired; renew it, or is its clock wrong?",
    "CERTIFICATE_REVOKED": "says that our certificate{ours} was revoked; have another one issued",
    "CERTIFICATE_REQUIRED": "wants a certificate of ours; set {key} and its key",
    "BAD_CERTIFICATE": _DOUBTED,
    "CERTIFICATE_UNKNOWN": _DOUBTED,
    "UNSUPPORTED_CERTIFICATE": "does not accept our certificate{ours}: it was not made for this use (extendedKeyUsage)",
}


def of_destination(problem: OSError, name: str = "*") -> str:
    """What failed when we connected to the peer `name`: a clause to follow the name of the destination."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"TLS: its certificate {_verdict_of_destination(problem, name)}"
    if isinstance(problem, TimeoutError):
        return "TLS: no answer to the handshake; does it speak TLS on this port?"
    reason = _reason(problem)
    there = f"switch TLS on there, name its TLS port in peers.{name}.port, or set peers.{name}.tls = false"
    if reason in _NOT_TLS:
        return f"TLS: it does not speak TLS on this port, and peers.{name}.tls = true; {there}"
    if isinstance(problem, ConnectionError | ssl.SSLEOFError):
        closed = f"it closed the connection in the handshake ({reason})"
        return f"TLS: {closed}, as one does that does not speak TLS on this port; {there}"
    if reason in _TOO_OLD:
        return f"TLS: it offers no safe version or cipher suite ({reason}); we need {_LEAST}"
    if alert := _alert(reason, "send.tls_certificate"):
        return f"TLS: it {alert} ({reason})"
    if "CERTIFICATE" in reason:
        return f"TLS: it refused our certificate ({reason}); send.tls_certificate must be one that it trusts"
    if "ALERT" in reason:
        return f"TLS: it refused the handshake ({reason}); does it want a certificate (send.tls_certificate)? We offer {_LEAST}"
    return f"TLS: it ended the handshake ({reason}); does it speak TLS on this port?"


def _verdict_of_destination(problem: ssl.SSLCertVerificationError, name: str) -> str:
    code = problem.verify_code
    if code == _HOST:
        return f"names another host (host name mismatch); what peers.{name}.host says must be in its subjectAltName"
    if code == _ADDRESS:
        return f"names another host (IP address mismatch); what peers.{name}.host says must be in its subjectAltName"
    if code == _PURPOSE:
        return "was not made for a server; it needs extendedKeyUsage serverAuth"
    if code in _WRONG:
        return f"{_WRONG[code]}; {_THERE[code]}"
    return f"is not accepted ({problem.verify_message}); another one must be issued for it"


def of_server(problem: ssl.SSLCertVerificationError, host: str, ca_key: str) -> str:
    """What is wrong with the certificate of Redis, or of the node that a worker connects to: a clause. `ca_key`: the setting
    that names the trusted CAs."""
    code = problem.verify_code
    if code in (_HOST, _ADDRESS):
        return f"its certificate does not name {host} (subjectAltName); use a name from it, or have one issued for {host}"
    if code in (*_UNKNOWN_CA, _SELF_SIGNED):
        return f"its certificate {_WRONG[code]}; put it, or the CA that signed it, into {ca_key}"
    return f"its certificate {_WRONG.get(code, f'is not accepted ({problem.verify_message})')}; it must be renewed there"


def of_connection(problem: ssl.SSLError) -> str:
    """What else failed in TLS to one of these servers: a clause."""
    reason = _reason(problem)
    if reason in _NOT_TLS:
        return "it does not speak TLS on this port"
    return f"TLS failed ({reason}); does it speak TLS on this port?"


def of_sender(problem: OSError) -> str:
    """What failed in the handshake with a sender (we are the acceptor): a predicate, "it ..."."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"showed a certificate that is not accepted: {_verdict_of_sender(problem)}"
    reason = _reason(problem)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "showed no certificate, and receive.tls_client_ca asks for one"
    if reason in _NOT_TLS:
        return "does not speak TLS, and receive.tls_certificate is set: only TLS is spoken here"
    if reason in _TOO_OLD:
        return f"offers no safe version or cipher suite ({reason}); it needs {_LEAST}"
    if alert := _alert(reason, "receive.tls_certificate"):
        return f"{alert} ({reason})"
    if "ALERT" in reason:
        return f"refused our certificate or handshake ({reason})"
    return f"broke the TLS handshake ({reason})"


def _verdict_of_sender(problem: ssl.SSLCertVerificationError) -> str:
    """With OpenSSL's own message, which the administrator of the sender may look up."""
    code = problem.verify_code
    if code == _PURPOSE:
        return f"it was not made for a client, it needs extendedKeyUsage clientAuth ({problem.verify_message})"
    wrong = _WRONG.get(code, "another one must be issued for it")
    remedy = _OF_SENDER.get(code, "a certificate of receive.tls_client_ca is needed")
    return f"it {wrong} ({problem.verify_message}); {remedy}" if code in _WRONG else f"{problem.verify_message}; {remedy}"


def of_first_byte(kind: int) -> str:
    """What a sender uses on a port without TLS, by its first byte (PS3.8 9.3.1; RFC 8446 5.1): a predicate, "it ..."."""
    if kind == 0x16:
        return "speaks TLS, and receive.tls_certificate is not set: only plain DICOM is spoken here"
    if chr(kind) in "GHPOCDT":  # GET, HEAD, POST, PUT, PATCH, OPTIONS, CONNECT, DELETE, TRACE
        return "speaks HTTP or another protocol, not DICOM"
    return f"began with something else than an A-ASSOCIATE-RQ (0x{kind:02X})"


def speaks_tls(host: str, port: int, seconds: float = 3.0) -> bool:
    """Whether a server uses TLS; for a remedy when plain DICOM got no answer. Nothing is verified, nothing is sent after the
    handshake. Never raises."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), seconds) as connection, context.wrap_socket(connection):
            return True
    except ssl.SSLError as problem:
        return "ALERT" in _reason(problem)  # it answers in TLS, and refuses us
    except OSError:
        return False


def _alert(reason: str, key: str) -> str | None:
    """`reason`: TLSV1_ALERT_UNKNOWN_CA, SSLV3_ALERT_BAD_CERTIFICATE, TLSV13_ALERT_CERTIFICATE_REQUIRED ..."""
    _, is_alert, what = reason.partition("ALERT_")
    words = _ALERTS.get(what) if is_alert else None
    return words and words.format(ours=f" ({key})", key=key)


def _reason(problem: OSError) -> str:
    """OpenSSL's name for it, or that of the system's error."""
    return str(getattr(problem, "reason", None) or type(problem).__name__).replace(" ", "_").upper()
