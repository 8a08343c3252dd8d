"""Rows of the conformance statement about services, associations and transport, read from the modules that do the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.charset import python_encoding
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext

from dicom_node.dimse.commitment_report import PUSH_MODEL, context_as_scu
from dicom_node.dimse.contexts import TRANSFER_SYNTAXES, VERIFICATION, echo_context, supported_contexts
from dicom_node.dimse.status import Rejection
from dicom_node.runtime.config import Config
from dicom_node.send import commitment_request, storage_scu
from dicom_node.send.associate import application_entity
from dicom_node.storage.commitments import FAILURE_REASONS, committing
from dicom_node.storage.destinations import Router
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

Row = tuple[object, ...]
RECEIVER, SENDER = "RECEIVER", "SENDER"
_SCU, _SCP = "SCU", "SCP"


def services(config: Config, sent: Sequence[tuple[str, str]]) -> Iterator[Row]:
    """Of everything that this node does with the network. `sent`: (SOP Class UID, Transfer Syntax UID) of our objects."""
    as_scp = {str(context.abstract_syntax) for context in supported_contexts(config.receive)}
    as_scu = {VERIFICATION, *(sop_class for sop_class, _ in sent), *([PUSH_MODEL] if committing(config) else ())}
    for uid in sorted(as_scp | as_scu):
        yield UID(uid).name, uid, "Y" if uid in as_scu else "N", "Y" if uid in as_scp else "N"


def character_sets() -> list[str]:
    """Defined terms of Specific Character Set (PS3.3 C.12.1.1.2) that are known."""
    return sorted(name for name in python_encoding if name and name.startswith("ISO"))


def titles(config: Config) -> tuple[str, ...]:
    """Called AE titles that RECEIVER answers to."""
    return (config.receive.ae_title, *config.receive.also_called)


def entities(config: Config) -> list[Row]:
    """Our two application entities."""
    port = config.receive.port or "any free one"
    function = "receives films, answers C-ECHO, receives storage commitment reports"
    return [
        (RECEIVER, ", ".join(titles(config)), port, function),
        (SENDER, config.send.ae_title, "none", "sends objects, requests storage commitment, sends C-ECHO"),
    ]


def destinations(config: Config) -> list[Row]:
    """Each destination with the kinds of objects that it gets."""
    router = Router.of(config)
    return [(name, ", ".join(router.all_kinds([name]))) for name in config.destinations] or [("none", "")]


def failure_reasons() -> list[Row]:
    """PS3.3 C.14.1.1."""
    return [(f"{code:04X}", text) for code, text in sorted(FAILURE_REASONS.items())]


def parameters(config: Config) -> Iterator[Row]:
    """What both entities say and wait for in an association, in bytes and seconds."""
    receive, caller = config.receive, application_entity(config)
    yield "Implementation Class UID", IMPLEMENTATION_CLASS_UID, caller.implementation_class_uid
    yield "Implementation Version Name", IMPLEMENTATION_VERSION_NAME, caller.implementation_version_name
    yield "Maximum PDU size, bytes", receive.max_pdu_kb * 1024, caller.maximum_pdu_size
    outgoing = storage_scu.DESTINATIONS_AT_ONCE + (commitment_request.AT_ONCE if committing(config) else 0)
    yield "Associations at once", f"{receive.max_associations}, {receive.max_per_host} per host", outgoing
    yield "Asynchronous operations", "none: one at a time", "none: one at a time"
    yield "SOP class extended negotiation", "none", "none"
    yield "User identity negotiation", "ignored, not answered", "none"
    yield "Wait for TCP, s", "none", _seconds(caller.connection_timeout)
    yield "Wait for an association, s", _seconds(receive.establish_seconds), _seconds(caller.acse_timeout)
    yield "Wait for a response, s", "none", _seconds(caller.dimse_timeout)
    yield "Silence in an association, s", _seconds(receive.idle_seconds), _seconds(caller.network_timeout)
    yield "One PDU, s", _seconds(receive.pdu_seconds), "none"


def allowed(config: Config) -> list[str]:
    """Who may send, and from where."""
    return [f"{name} from {', '.join(hosts) or 'any host'}" for name, hosts in config.receive.allowed.items()]


def accepted(config: Config) -> list[Row]:
    """Presentation contexts of senders."""
    return [_context(one, _SCP) for one in supported_contexts(config.receive)]


def accepted_reporters(config: Config) -> list[Row]:
    """Presentation contexts of destinations that report storage commitment."""
    verification = [_context(one, _SCP) for one in supported_contexts(config.receive) if one.abstract_syntax == VERIFICATION]
    report = context_as_scu()
    return [*verification, _context(report, _SCU if report.scp_role else _SCP)]


def proposed(config: Config, sent: Sequence[tuple[str, str]]) -> list[Row]:
    """Presentation contexts that SENDER proposes (PS3.8 9.3.2.2)."""
    rows = [_context(storage_scu.storage_context(*pair), _SCU) for pair in sorted(set(sent))]
    rows.append(_context(echo_context(), _SCU))
    return [*rows, _context(commitment_request.request_context(), _SCU)] if committing(config) else rows


def transfer_syntaxes() -> list[Row]:
    """What RECEIVER accepts, in its order of preference."""
    return [(number, UID(uid).name, uid, name) for number, (name, uid) in enumerate(TRANSFER_SYNTAXES.items(), 1)]


def rejections() -> Iterator[Row]:
    """PS3.8 table 9-21, as far as we send it."""
    for one in Rejection:
        said = A_ASSOCIATE_RJ()
        said.result, said.source, said.reason_diagnostic = result, source, reason = one.value
        yield f"{result} ({said.result_str})", f"{source} ({said.source_str})", f"{reason} ({said.reason_str})", one.when


def receiver_speaks(config: Config) -> str:
    """Plain DICOM or TLS, and what it asks of senders."""
    if not config.receive.tls_certificate:
        return "speaks plain DICOM"
    asked = "must present a certificate that is verified" if config.receive.tls_client_ca else "need no certificate"
    return f"speaks TLS only; senders {asked}"


def peers_over_tls(config: Config) -> list[str]:
    """Their names in [peers]."""
    return [name for name, peer in config.peers.items() if peer.tls]


def _context(context: PresentationContext, role: str) -> Row:
    uid = str(context.abstract_syntax)
    return UID(uid).name, uid, ", ".join(str(one) for one in context.transfer_syntax), role, "none"


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
