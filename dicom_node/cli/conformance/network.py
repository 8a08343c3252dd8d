"""Chapters 4 to 8 of the conformance statement: entities, services, settings, network, statuses, security.

Everything that can be counted or listed is read from the configuration and from the module that does it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext
from pynetdicom.status import GENERAL_STATUS

from dicom_node.cli.conformance.document import Section, Table
from dicom_node.dimse import tls
from dicom_node.dimse.commitment_report import PUSH_MODEL, EventStatus, context_as_scu
from dicom_node.dimse.contexts import TRANSFER_SYNTAXES, VERIFICATION, echo_context, supported_contexts
from dicom_node.dimse.status import Rejection, StoreResponse, Verdict, named, sentence, verdict
from dicom_node.runtime.config import Config
from dicom_node.send import commitment_request as asking
from dicom_node.send import storage_scu
from dicom_node.send.associate import application_entity
from dicom_node.send.backoff import Policy, decide
from dicom_node.storage.commitments import FAILURE_REASONS, FIRST_ROUND_SECONDS, ROUNDS, committing
from dicom_node.storage.destinations import Router
from dicom_node.storage.records import DeliveryState
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

RECEIVER, SENDER = "RECEIVER", "SENDER"
_SCU, _SCP = "SCU", "SCP"
_CONTEXTS = "Abstract syntax | UID | Transfer syntaxes | Our role | Extended negotiation"
_WORDS = {
    DeliveryState.DELIVERED: "delivered, never sent again",
    DeliveryState.PENDING: "the identical bytes go again, for {give_up_days:g} days",
    DeliveryState.REFUSED: "refused, kept, not repeated: fix the cause, then run `segmenter-worker retry JOB`",
}


def chapters(config: Config, sent: list[tuple[str, str]]) -> list[Section]:
    """`sent`: (SOP Class UID, Transfer Syntax UID) of every object that we make."""
    return [*_model(config), *_services(config, sent), *_configuration(config), *_network(config, sent), *_statuses(config),
            *_security(config)]  # fmt: skip


def services(config: Config, sent: list[tuple[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    """(SOP class, UID, whether SCU, whether SCP) of everything that this node does with the network."""
    as_scp = {str(context.abstract_syntax) for context in supported_contexts(config.receive)}
    as_scu = {VERIFICATION, *(sop_class for sop_class, _ in sent), *([PUSH_MODEL] if committing(config) else ())}
    for uid in sorted(as_scp | as_scu):
        yield UID(uid).name, uid, "Y" if uid in as_scu else "N", "Y" if uid in as_scp else "N"


# -- 4, 5: entities and services -------------------------------------------------------------------------------


def _model(config: Config) -> list[Section]:
    return [
        Section("4", "Implementation model"),
        Section(
            "4.1",
            "Application entities and data flow",
            (
                "A sender (modality, gateway, archive) opens an association to RECEIVER and stores films. Each film is "
                "written to disk and to a ledger before it is answered. Workers look at the film and make objects. SENDER "
                "opens associations to the destinations and stores the objects there. Nothing is queried or retrieved.",
                "    sender --C-STORE--> RECEIVER -> disk, ledger -> worker ---> SENDER --C-STORE--> destination\n"
                "    sender --C-ECHO---> RECEIVER                                SENDER --N-ACTION-> destination that commits\n"
                "                        RECEIVER <----------------N-EVENT-REPORT------------------- destination that commits",
                Table.of(
                    "application entities",
                    "Application entity | AE title | Port | Function",
                    [
                        (RECEIVER, ", ".join(_titles(config)), config.receive.port or "any free one",
                         "takes films, answers C-ECHO, hears storage commitment reports"),
                        (SENDER, config.send.ae_title, "none", "sends objects, asks for storage commitment, C-ECHO"),
                    ],
                ),
            ),
        ),
        Section(
            "4.2",
            "Sequencing",
            (
                "An object is sent after its film was stored here, and only to the destinations of the configuration. A "
                "film that is not one of ours (another region, another view, a result) is answered with success and gets "
                "no object; a list of the reasons is in `segmenter-worker jobs`. A film that was sent twice has one "
                "result: SOP Instance UIDs are derived from film, pixels and model, the bytes of an object are fixed "
                "before it is first sent, and a UID is never sent with other bytes.",
            ),
        ),
    ]  # fmt: skip


def _services(config: Config, sent: list[tuple[str, str]]) -> list[Section]:
    commits = ", ".join(committing(config)) or "none: no peer has commit = true"
    return [
        Section("5", "Service and interoperability description"),
        Section("5.1", "Verification", (
            "RECEIVER answers C-ECHO of everybody that it lets in. SENDER makes a C-ECHO when an administrator asks for it "
            "(`segmenter-worker check`); the node calls itself the same way when its readiness is asked for.",
        )),
        Section("5.2", "Storage as SCP", (
            f"Level 2 (full): the dataset is kept as the bytes that came, nothing is coerced, and it is removed after "
            f"{config.retention.finished_days:g} days when all that was made of it is delivered. No film is decoded before "
            f"it is answered. Digital signatures are not verified. An object of more than {config.receive.max_object_mb} "
            "MiB aborts the association.",
        )),
        Section("5.3", "Storage as SCU", (
            "Each object is sent in the transfer syntax in which it was made, Explicit VR Little Endian. A destination that "
            "accepts Implicit VR Little Endian only gets the same elements in that one, with the same bytes each time; "
            "nothing else is transcoded. Up to "
            f"{storage_scu.PER_ASSOCIATION} objects go over one association, one after the other.",
            Table.of("destinations of results", "Destination | Objects", _destinations(config)),
        )),
        Section("5.4", "Storage commitment as SCU (push model)", (
            f"Asked for from: {commits}.",
            f"N-ACTION (Request Storage Commitment, action type 1) names up to {asking.PER_REQUEST} delivered objects, the "
            f"first of which waits {asking.GATHER_SECONDS:g} s for others. The association stays open for "
            f"{asking.LINGER_SECONDS:g} s for a report on it; a report may also come on an association to RECEIVER, from "
            "the destination's AE title (or `commit_ae_title`) at its host, called by either of our AE titles. A request "
            f"without a report is made again after {config.send.commit_again_hours:g} hours. An object that the "
            f"destination does not commit to is sent again, up to {ROUNDS - 1} times, first after {FIRST_ROUND_SECONDS:g} s. "
            "What is not committed to is never removed here.",
            Table.of("failure reasons understood", "Failure Reason (0008,1197) | Meaning",
                     [(f"{code:04X}", text) for code, text in sorted(FAILURE_REASONS.items())]),
        )),
        Section("5.5", "Services that are not there", (
            "Query/Retrieve, worklist, MPPS, UPS, print, instance availability, DICOM web services, media (no DICOMDIR, no "
            "file-sets), real-time video, de-identification.",
        )),
    ]  # fmt: skip


def _destinations(config: Config) -> list[tuple[str, str]]:
    router = Router.of(config)
    return [(name, ", ".join(router.all_kinds([name]))) for name in config.destinations] or [("none", "")]


# -- 6: configuration ------------------------------------------------------------------------------------------


def _configuration(config: Config) -> list[Section]:
    sections = [Section("6", "Configuration", (
        "One file, config.toml; the environment overrides it. This statement was made with the values shown. File names "
        "are not shown.",))]  # fmt: skip
    for number, name in enumerate(("receive", "send", "segment", "retention"), 1):
        section = getattr(config, name)
        rows = [(f"`{name}.{key}`", _shown(key, getattr(section, key)), field.description or "")
                for key, field in type(section).model_fields.items()]  # fmt: skip
        title = (type(section).__doc__ or name).strip().partition("\n")[0].rstrip(".")
        sections.append(
            Section(f"6.{number}", title, (Table.of(f"parameters of {name}", "Parameter | Value | Meaning", rows),))
        )
    peers = [
        (name, peer.ae_title or name, peer.host, str(peer.port), _yes(peer.tls), _yes(peer.commit))
        for name, peer in config.peers.items()
    ]
    rules = [
        (one.name, ", ".join(one.calling_ae) or "any", ", ".join(one.called_ae) or "any", one.mode,
         "as send.destinations" if one.destinations is None else ", ".join(one.destinations) or "none")
        for one in config.rules
    ]  # fmt: skip
    columns = "Peer | AE title | Host | Port | TLS | Storage commitment"
    sections.append(Section("6.5", "Remote application entities", (
        Table.of("remote application entities", columns, peers or [("none", "", "", "", "", "")]),)))  # fmt: skip
    columns = "Rule | Calling AE titles | Called AE titles | Mode | Destinations"
    sections.append(Section("6.6", "Rules", (
        "The first rule that matches a film decides; a rule can also look at attributes of the film. Mode shadow: objects are "
        "made and kept, nothing is sent. Mode ignore: the film is stored, and gets no object.",
        Table.of("rules", columns, rules or [("none", "", "", "", "")]))))  # fmt: skip
    return sections


def _shown(key: str, value: Any) -> str:
    if key.startswith("tls_"):
        return "set" if value else "not set"
    if isinstance(value, Path):
        return "demo (the shipped one)" if str(value) == "demo" else "a folder"
    if isinstance(value, dict):
        return "; ".join(f"{name} from {', '.join(hosts) or 'any host'}" for name, hosts in value.items()) or "nobody"
    if isinstance(value, tuple | list):
        return ", ".join(str(one) for one in value) or "none"
    assert not isinstance(value, BaseModel)
    if isinstance(value, float):
        return f"{value:.10g}"
    return _yes(value) if isinstance(value, bool) else str(value)


# -- 7: network ------------------------------------------------------------------------------------------------


def _network(config: Config, sent: list[tuple[str, str]]) -> list[Section]:
    return [
        Section("7", "Network and media communication details"),
        Section("7.1", "General", (
            "TCP/IP over whatever the operating system has; IPv4 or IPv6, as host names and addresses say. Application "
            "context 1.2.840.10008.3.1.1.1. No media, no printing.",
            Table.of("association parameters", "Parameter | RECEIVER (acceptor) | SENDER (initiator)", _parameters(config)),
        )),
        Section("7.2", "Association acceptance: RECEIVER", (
            "Who may come in: " + ("; ".join(_gate(config)) or "nobody, `receive.allowed` is empty") + ". It must call "
            f"{' or '.join(_titles(config))}. Of several transfer syntaxes in one context the first of table "
            "\"transfer syntaxes\" is taken. Role selection for storage is not answered: RECEIVER is SCP.",
            Table.of("presentation contexts accepted from senders", _CONTEXTS,
                     [_context(one, _SCP) for one in supported_contexts(config.receive)]),
            *_reporters(config),
            Table.of("transfer syntaxes", "Preference | Name | UID | Described as",
                     [(number, UID(uid).name, uid, name) for number, (name, uid) in enumerate(TRANSFER_SYNTAXES.items(), 1)]),
            "Of the protocol version bit 0 is tested. Items and sub-items of unknown type are skipped. AE titles end at a NUL, "
            "UIDs lose their padding; an implementation version name may be longer than 16 characters. Context ids that are "
            "even are taken as they are. A request without an application context is taken for one of DICOM's.",
            Table.of("association rejection", "Result | Source | Reason | When", [_rejection(one) for one in Rejection]),
            f"A-ABORT or the end of the line: no association {config.receive.establish_seconds:g} s after the connection, "
            f"a PDU that takes more than {config.receive.pdu_seconds:g} s or is longer than agreed, "
            f"{config.receive.idle_seconds:g} s of silence, an object of more than {config.receive.max_object_mb} MiB, a "
            "message that cannot be read.",
        )),
        Section("7.3", "Association initiation: SENDER", (
            f"One association per destination at a time, to {storage_scu.DESTINATIONS_AT_ONCE} destinations at once, and one "
            f"for storage commitment per destination, to {asking.AT_ONCE} at once. It is opened when an object is due and "
            "released when nothing is left to send. Contexts are proposed for what is due: for each SOP class one with both "
            "syntaxes of table \"presentation contexts proposed\", and one with the first alone, so that an acceptor that "
            "prefers Implicit VR Little Endian still gets what was stored. No PDU is longer than 128 KiB or than the acceptor "
            "says; one that says no length, or one that holds no byte of a message (1 to 6), gets PDUs of up to 16 KiB.",
            Table.of("presentation contexts proposed", _CONTEXTS, _proposed(config, sent)),
            "An association that is rejected, aborted or cannot be had: "
            f"{_what_follows(Verdict.TRY_LATER, config)}. A SOP class that is not accepted: "
            f"{_what_follows(Verdict.REFUSED, config)}.",
        )),
    ]  # fmt: skip


def _parameters(config: Config) -> Iterator[tuple[object, ...]]:
    receive, caller = config.receive, application_entity(config)
    yield "Implementation Class UID", IMPLEMENTATION_CLASS_UID, caller.implementation_class_uid
    yield "Implementation Version Name", IMPLEMENTATION_VERSION_NAME, caller.implementation_version_name
    yield "Maximum PDU size, bytes", receive.max_pdu_kb * 1024, caller.maximum_pdu_size
    yield (
        "Associations at once",
        f"{receive.max_associations}, {receive.max_per_host} per host",
        storage_scu.DESTINATIONS_AT_ONCE + (asking.AT_ONCE if committing(config) else 0),
    )
    yield "Asynchronous operations", "none: one at a time", "none: one at a time"
    yield "SOP class extended negotiation", "none", "none"
    yield "User identity negotiation", "not looked at, not answered", "none"
    yield "Wait for TCP, s", "none", _seconds(caller.connection_timeout)
    yield "Wait for an association, s", _seconds(receive.establish_seconds), _seconds(caller.acse_timeout)
    yield "Wait for a response, s", "none", _seconds(caller.dimse_timeout)
    yield "Silence in an association, s", _seconds(receive.idle_seconds), _seconds(caller.network_timeout)
    yield "One PDU, s", _seconds(receive.pdu_seconds), "none"


def _context(context: PresentationContext, role: str) -> tuple[str, ...]:
    uid = str(context.abstract_syntax)
    return UID(uid).name, uid, ", ".join(str(one) for one in context.transfer_syntax), role, "none"


def _reporters(config: Config) -> Iterator[str | Table]:
    """What is offered to destinations that report storage commitment."""
    if not committing(config):
        return
    yield (
        "A destination that is asked for storage commitment comes in to report, under the AE title and from the host of "
        f"its entry, calling {config.receive.ae_title} or {config.send.ae_title}. If it is no sender too, it is offered "
        "this; else this and what senders are offered. It is the SCP of the class: role selection is answered so, and "
        "its absence taken for it."
    )
    verification = [_context(one, _SCP) for one in supported_contexts(config.receive) if one.abstract_syntax == VERIFICATION]
    report = context_as_scu()
    rows = [*verification, _context(report, _SCU if report.scp_role else _SCP)]
    yield Table.of("presentation contexts accepted from destinations that commit", _CONTEXTS, rows)


def _proposed(config: Config, sent: list[tuple[str, str]]) -> list[tuple[str, ...]]:
    rows = [_context(storage_scu.storage_context(*pair), _SCU) for pair in sorted(set(sent))]
    rows.append(_context(echo_context(), _SCU))
    return [*rows, _context(asking.request_context(), _SCU)] if committing(config) else rows


def _gate(config: Config) -> list[str]:
    return [f"{name} from {', '.join(hosts) or 'any host'}" for name, hosts in config.receive.allowed.items()]


def _rejection(rejection: Rejection) -> tuple[str, ...]:
    said = A_ASSOCIATE_RJ()
    said.result, said.source, said.reason_diagnostic = rejection.value
    result, source, reason = rejection.value
    return (f"{result} ({said.result_str})", f"{source} ({said.source_str})", f"{reason} ({said.reason_str})", rejection.when)


# -- 7.4: statuses ---------------------------------------------------------------------------------------------


def _statuses(config: Config) -> list[Section]:
    hours = config.send.commit_again_hours
    columns = "Status | Error Comment | When | What the sender should do"
    answers = [(f"{one.value.status:04X}", one.value.comment, one.value.when, one.value.advice) for one in StoreResponse]
    return [
        Section("7.4", "Status codes"),
        Section("7.4.1", "C-STORE, answered by RECEIVER", (
            "What is answered with a failure was not stored.", Table.of("C-STORE statuses sent", columns, answers))),
        Section("7.4.2", "C-STORE, received by SENDER", (
            Table.of("C-STORE statuses received", "Status | Meaning | What we do", _received(config)),
            f"No answer within {config.send.response_seconds:g} s, or the association ends: the outcome is unknown, "
            f"{_what_follows(Verdict.TRY_LATER, config)}.",
        )),
        Section("7.4.3", "N-ACTION, received by SENDER", (
            Table.of("N-ACTION statuses received", "Status | Meaning | What we do", [
                ("0000", "Success", "the report is waited for"),
                *((f"{code:04X}", GENERAL_STATUS[code][1], f"asked again after {hours:g} hours or more")
                  for code in asking.PERMANENT),
                ("any other, or none", "", "asked again, with growing waits"),
            ]),
        )),
        Section("7.4.4", "N-EVENT-REPORT, answered by RECEIVER and SENDER", (
            Table.of("N-EVENT-REPORT statuses sent", "Status | When", [(f"{one.value:04X}", one.when) for one in EventStatus]),
        )),
    ]  # fmt: skip


def _received(config: Config) -> list[tuple[str, ...]]:
    groups = _alike()
    undefined = max(groups, key=lambda key: len(groups[key]))
    rows = []
    for (meaning, judged), statuses in groups.items():
        codes = "any other" if (meaning, judged) == undefined else ", ".join(_ranges(statuses))
        rows.append((codes, meaning, _what_follows(judged, config)))
    return sorted(rows, key=lambda row: (row[0] == "any other", row[0]))


@functools.cache
def _alike() -> dict[tuple[str, Verdict], list[int]]:
    """All 65,536 statuses, those together that mean the same to us: (meaning, verdict) -> statuses."""
    groups: dict[tuple[str, Verdict], list[int]] = {}
    for status in range(0x10000):
        known = named(status)
        meaning = sentence(known).rpartition(" (")[0] if known is not None else "(no sentence of its own)"
        groups.setdefault((meaning, verdict(status)), []).append(status)
    return groups


def _what_follows(judged: Verdict, config: Config) -> str:
    policy = Policy(config.send.first_delay_seconds, config.send.max_delay_seconds, config.send.give_up_days * 86_400)
    decision = decide(judged, 1, 0.0, policy, 0.0)
    return _WORDS[decision.state].format(give_up_days=config.send.give_up_days)


def _ranges(statuses: Iterable[int]) -> Iterator[str]:
    for _, group in itertools.groupby(enumerate(statuses), lambda pair: pair[1] - pair[0]):
        run = [status for _, status in group]
        yield f"{run[0]:04X}" if len(run) == 1 else f"{run[0]:04X}-{run[-1]:04X}"


# -- 8: security -----------------------------------------------------------------------------------------------


def _security(config: Config) -> list[Section]:
    receive, send = config.receive, config.send
    over_tls = [name for name, peer in config.peers.items() if peer.tls]
    asked = "must show a certificate that is verified" if receive.tls_client_ca else "need no certificate"
    speaks = f"speaks TLS only; senders {asked}" if receive.tls_certificate else "speaks plain DICOM"
    shows = "with" if send.tls_certificate else "without"
    return [
        Section("8", "Security"),
        Section("8.1", "Transport", (
            "BCP 195 RFC 8996, 9325 TLS Profile (PS3.15 B.12), where TLS is configured. As configured: RECEIVER "
            f"{speaks}. SENDER speaks TLS to {', '.join(over_tls) or 'nobody'}, {shows} a certificate of its own; it "
            "verifies chain and host name of the destination. Older versions than those of the table are refused, there is "
            "no renegotiation, and no session is resumed. Revocation lists are not looked at.",
            Table.of("TLS", "Version | Cipher suite (OpenSSL's name)", tls.suites()),
        )),
        Section("8.2", "Ports", (
            f"RECEIVER listens on {receive.host}, TCP port {receive.port or 'of its own choice'}. SENDER opens connections "
            "to the hosts and ports of table \"remote application entities\".",
        )),
        Section("8.3", "Association level", (
            "RECEIVER admits by calling AE title, host and called AE title; see 7.2. Who is rejected can store nothing.",
        )),
        Section("8.4", "Other", (
            "No user identity negotiation, no digital signatures, no audit trail messages by PS3.15 A.5, no media "
            "security, no attribute confidentiality profile. The node's own log holds no patient data.",
        ))]  # fmt: skip


def _titles(config: Config) -> tuple[str, ...]:
    return (config.receive.ae_title, *config.receive.also_called)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
