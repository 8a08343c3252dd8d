"""Why a TLS handshake failed, in words that name the remedy. Codes of OpenSSL and keys of the configuration, no subjects."""

from __future__ import annotations

import ssl

_LEAST = "at least TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305"
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
_TOO_OLD = (
    "UNSUPPORTED_PROTOCOL",
    "VERSION_TOO_LOW",
    "WRONG_SSL_VERSION",
    "NO_SHARED_CIPHER",
    "NO_PROTOCOLS_AVAILABLE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
)

# X509_V_ERR_* of OpenSSL -> what is wrong, and what to do. As the SCU sees the certificate of a destination.
_VERDICTS = {
    9: ("its certificate is not valid yet", "is the clock of one of the two machines wrong?"),
    10: ("its certificate has expired", "it must be renewed there"),
    18: ("its certificate is self-signed and not known here", "put it, or better the CA that should sign it, into send.tls_ca"),
    19: ("its certificate comes from a CA that is not known here", "put that CA into send.tls_ca"),
    20: ("its certificate comes from a CA that is not known here", "put that CA into send.tls_ca"),
    21: ("its certificate comes from a CA that is not known here", "put that CA into send.tls_ca"),
    26: ("its certificate was not made for a server", "it needs extendedKeyUsage serverAuth"),
    62: ("host name mismatch, its certificate names another host", "the name in peers.*.host must stand in subjectAltName"),
    64: ("IP address mismatch, its certificate names another host", "the address in peers.*.host must stand in subjectAltName"),
}


def of_destination(problem: OSError) -> str:
    """What failed while we called: a clause to follow the name of the destination."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        other = (f"its certificate is not accepted ({problem.verify_message})", "another one must be issued for it")
        what, remedy = _VERDICTS.get(problem.verify_code, other)
        return f"TLS: {what}; {remedy}"
    if isinstance(problem, TimeoutError):
        return "TLS: no answer to the handshake; does it speak TLS on this port?"
    reason = _reason(problem)
    if reason in _NOT_TLS:
        return (
            "TLS: it does not speak TLS on this port, and it is not spoken to in plain; mend it there, or peers.*.tls = false"
        )
    if reason in _TOO_OLD:
        return f"TLS: it offers nothing that is safe ({reason}); we need {_LEAST}"
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return f"TLS: it refused our certificate ({reason}); send.tls_certificate must be one that it trusts"
    if "ALERT" in reason:
        return f"TLS: it refused the handshake ({reason}); does it want a certificate (send.tls_certificate)? We offer {_LEAST}"
    return f"TLS: it ended the handshake ({reason}); does it speak TLS on this port?"


def of_guest(problem: OSError) -> str:
    """What failed while we were called: a predicate, "it ..."."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"showed a certificate that is not accepted ({problem.verify_message}; receive.tls_client_ca)"
    reason = _reason(problem)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "showed no certificate, and receive.tls_client_ca asks for one"
    if reason in _NOT_TLS:
        return "does not speak TLS, and receive.tls_certificate is set: only TLS is spoken here"
    if reason in _TOO_OLD:
        return f"offers nothing that is safe ({reason}); it needs {_LEAST}"
    if "ALERT" in reason:
        return f"refused our certificate or handshake ({reason})"
    return f"broke the TLS handshake ({reason})"


def _reason(problem: OSError) -> str:
    """OpenSSL's word for it, or the name of the error of the line."""
    return str(getattr(problem, "reason", None) or type(problem).__name__).replace(" ", "_").upper()
