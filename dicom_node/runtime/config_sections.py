"""The sections of config.toml: every setting with its default, its limits, its unit and its reason.

config.toml shows the descriptions, and a test keeps the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from dicom_node.runtime.config_types import (
    STORAGE_CLASSES,
    AETitle,
    Allowed,
    BrokerUrl,
    File,
    Host,
    Hosts,
    NodeUrl,
    ObjectName,
    Patterns,
    PeerHost,
    PeerPort,
    Port,
    StorageClass,
    patterns,
)  # fmt: skip

WEEK = 604_800  # seconds; the longest wait: sockets and timers of the system count milliseconds in 32 bits


class Section(BaseModel):
    # No docstring: config.toml prints those of its subclasses.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes true for 1."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and {int, float} & {field.annotation, *get_args(field.annotation)}:
            raise PydanticCustomError("bool_as_number", "")
        return value


class Node(Section):
    """Where the node keeps films, results and its database."""

    directory: Path = Field(
        Path("var"), description="Folder of the spool (files) and the ledger (SQLite); local disk only, created 0700."
    )
    reserve_mb: int = Field(1024, ge=0, le=10**12, description="MB that stay free; below it films are refused with A700.")
    stop_seconds: float = Field(30, gt=0, le=WEEK, description="Seconds that a stop may take before children are killed.")


class Receive(Section):
    """The C-STORE SCP."""

    ae_title: AETitle = Field("PTXSEG", description="Our AE title; an association that calls another one is rejected.")
    also_called: tuple[AETitle, ...] = Field(
        (), description="Further AE titles that we answer to; [[rules]] can tell their films apart."
    )
    host: Host = Field("0.0.0.0", description="Address to listen on.")
    port: Port = Field(11112, description="TCP port; 0 takes a free one (demo and tests).")
    allowed: Annotated[dict[AETitle, list[Hosts]], Allowed("a table: AE title = list of hosts")] = Field(
        default_factory=dict,
        description="Calling AE titles that may send, each with the hosts it may come from ([] = any host). "
        "Empty: everybody is rejected.",
    )
    sop_classes: tuple[StorageClass, ...] = Field(STORAGE_CLASSES, description="Storage classes offered to senders.")
    processes: int = Field(
        0, ge=0, le=16, description="Receiver processes on the one port; 0: one for each core, at most 4. Limits are totals."
    )
    max_associations: int = Field(20, ge=1, le=10_000, description="Established associations at once; more are rejected.")
    max_per_host: int = Field(
        10,
        ge=1,
        le=10_000,
        description="Associations at once from one host; pending connections have the same limit, in each process.",
    )
    max_silent: int = Field(50, ge=1, le=10_000, description="Pending connections: no association was requested yet.")
    max_pdu_kb: int = Field(128, ge=16, le=1024, description="Largest PDU that we accept, KiB.")
    max_object_mb: int = Field(200, ge=1, le=4096, description="Largest object, MiB; a larger one aborts the association.")
    establish_seconds: float = Field(10, gt=0, le=WEEK, description="Seconds from TCP accept to an established association.")
    pdu_seconds: float = Field(30, gt=0, le=WEEK, description="Seconds that one PDU may take to arrive.")
    idle_seconds: float = Field(60, gt=0, le=WEEK, description="Seconds of silence after which an association is aborted.")
    tls_certificate: File = Field(
        "", description="Our certificate chain (PEM). With it and tls_key, only TLS is accepted (BCP 195)."
    )
    tls_key: File = Field("", description="Private key of tls_certificate (PEM).")
    tls_client_ca: File = Field("", description="CA certificates (PEM); senders must then show a certificate of one of them.")


class Peer(Section):
    """A node that results can be returned to."""

    host: PeerHost
    port: PeerPort
    ae_title: AETitle | None = Field(None, description="Its AE title when it differs from the name of the entry.")
    objects: tuple[ObjectName, ...] | None = Field(None, description="What it gets; default: send.objects.")
    tls: bool = Field(False, description="Use TLS to it (send.tls_ca says which CAs to trust).")
    commit: bool = Field(False, description="Ask it for storage commitment; what it has not committed to is never removed.")
    commit_ae_title: AETitle | None = Field(None, description="AE title that commits, when it differs; at the same host.")
    commit_port: PeerPort | None = Field(None, description="Port of commit_ae_title.")


class Send(Section):
    """The C-STORE SCU."""

    ae_title: AETitle = Field("PTXSEG", description="Our AE title when we send.")
    destinations: tuple[str, ...] = Field(
        (), description='Names from [peers] that get every result; "@sender" returns it to the AE that sent the film.'
    )
    objects: tuple[ObjectName, ...] = Field(
        ("seg", "sr"),
        description="What a destination gets of a positive film: seg; seg-positioned (for dcmqi and 3D Slicer); sr (structured "
        "report); capture (picture with the outline burned in); presentation (outline over the film).",
    )
    connect_seconds: float = Field(10, gt=0, le=WEEK, description="Seconds to wait for TCP and for the association.")
    response_seconds: float = Field(60, gt=0, le=WEEK, description="Seconds to wait for a C-STORE response.")
    first_delay_seconds: float = Field(5, gt=0, le=WEEK, description="Wait after the first failed try; doubles with jitter.")
    max_delay_seconds: float = Field(900, gt=0, le=WEEK, description="The longest wait between two tries.")
    give_up_days: float = Field(7, gt=0, le=36_500, description="Days after which a delivery that never worked is refused.")
    tls_ca: File = Field("", description="CA certificates (PEM) that destinations with tls = true are verified against.")
    tls_certificate: File = Field("", description="Client certificate (PEM) that we present when a destination asks for one.")
    tls_key: File = Field("", description="Private key of tls_certificate (PEM).")
    commit_again_hours: float = Field(
        24, gt=0, le=8760, description="Hours after which an unanswered commitment request is repeated."
    )


class Queue(Section):
    """How workers learn that films wait. The message broker only wakes them: a lost message loses no film."""

    broker: BrokerUrl = Field(
        "memory://",
        description="memory:// (one machine), or redis://:PASSWORD@HOST:PORT/DB (rediss: with TLS) for workers elsewhere.",
    )
    broker_ca: File = Field(
        "",
        description="CA certificates (PEM) that a rediss:// broker is verified against; empty: work.node_ca.",
    )
    poll_seconds: float = Field(0.02, gt=0, le=WEEK, description="Seconds between two checks of the ledger for waiting films.")
    urgent_from: tuple[AETitle, ...] = Field((), description="Calling AE titles whose films go before the others.")
    urgent_when: Patterns = Field(
        default_factory=dict, description="DICOM keyword = regular expression (RE2); a film whose value matches is urgent."
    )
    normal_waits_seconds: float = Field(
        300, ge=0, le=WEEK, description="A normal film that has waited this long goes before urgent ones."
    )

    _known = field_validator("urgent_when")(lambda rules: patterns(rules))


class Rule(Section):
    """What happens to the films that it matches; the first matching rule decides, else [send] and [queue]."""

    name: Annotated[str, Allowed("1 to 64 letters, digits, spaces, points and dashes, in quotes")] = Field(
        pattern=r"^[A-Za-z0-9 ._-]{1,64}$", description="Shown by `show JOB`."
    )
    calling_ae: tuple[AETitle, ...] = Field((), description="Sent by one of these; []: by any.")
    called_ae: tuple[AETitle, ...] = Field((), description="Sent to one of our AE titles; []: to any.")
    all_of: Patterns = Field(default_factory=dict, description="DICOM keyword = regular expression; all match.")
    any_of: Patterns = Field(default_factory=dict, description="The same; at least one matches.")
    none_of: Patterns = Field(default_factory=dict, description="The same; none matches.")
    mode: Literal["live", "shadow", "ignore"] = Field(
        "live", description="live; shadow: answered and kept, nothing is sent; ignore: skipped, not ours."
    )
    destinations: tuple[str, ...] | None = Field(None, description="Instead of send.destinations.")
    priority: Literal["", "urgent", "normal"] = Field("", description='"": as [queue] says.')

    _known = field_validator("all_of", "any_of", "none_of")(lambda rules: patterns(rules))


class Work(Section):
    """The workers."""

    processes: int = Field(
        1, ge=0, le=64, description="Worker processes; one per GPU, one per CPU machine. 0: only workers on other machines."
    )
    batch: int = Field(
        0,
        ge=0,
        le=1024,
        description="Films that a process works on at once: read, on the device, written. 0: three times what fills the device "
        "(8 films of a GPU; of a CPU one for each core, or for two cores with flips); 1: singly.",
    )
    lease_seconds: float = Field(30, gt=1, le=WEEK, description="A claim without a heartbeat for this long is taken over.")
    heartbeat_seconds: float = Field(5, gt=0, le=WEEK, description="How often a claim is renewed.")
    time_limit_seconds: int = Field(60, ge=1, le=WEEK, description="A film that takes longer loses its process (a crash).")
    max_crashes: int = Field(3, ge=1, le=1000, description="Crashes of the process while on one film before it is quarantined.")
    max_attempts: int = Field(20, ge=1, le=1_000_000, description="Hard cap of tries for one film, whatever the reason.")
    node: NodeUrl = Field("", description="URL of the node to work for (`serve`); empty: the one on this machine.")
    node_ca: File = Field("", description="CA certificates (PEM) that the node is verified against; empty: the system's.")
    token_file: File = Field("", description="File with this worker's token (`workers add NAME` on the node prints it).")
    allow_plain: bool = Field(False, description="Let the token and films cross the network without TLS (a node by http://).")
    on_resend: Literal["count", "redeliver"] = Field(
        "count", description="A film that was answered already: only count it, or send its stored objects again."
    )


class Serve(Section):
    """HTTP: health, metrics, and the interface for workers on other machines."""

    enabled: bool = Field(False, description="Whether `run` starts it.")
    host: Host = Field("127.0.0.1", description="Address to listen on; another one than loopback needs TLS.")
    port: Port = Field(8114, description="TCP port; 0 takes a free one (tests).")
    tls_certificate: File = Field("", description="Certificate chain (PEM).")
    tls_key: File = Field("", description="Private key of tls_certificate (PEM).")
    allow_plain: bool = Field(False, description="Let tokens and films cross the network without TLS.")
    max_object_mb: int = Field(64, ge=1, le=4096, description="Largest object that a worker may return, MiB.")
    receiver_host: Host = Field("", description="Where /readyz calls the receiver, when that is another host or container.")


class Retention(Section):
    """How long films and results stay on this disk. UIDs and sha256 stay for ever; nothing undelivered is removed."""

    finished_days: float = Field(
        7, ge=0, le=36_500, description="Days after which films that were answered or skipped are removed."
    )
    failed_days: float = Field(
        30, ge=0, le=36_500, description="Days after which films that failed or were refused are removed."
    )
    warn_days: float = Field(
        3, ge=0, le=36_500, description="Days before the removal of a failed film from which the log warns."
    )
    watermark_mb: int = Field(
        2048, ge=0, le=10**12, description="MB free under which finished films are removed before their time."
    )
    journal_days: float = Field(365, ge=1, le=36_500, description="Days that the journal of associations is kept.")


class Segment(Section):
    """The model and what it does."""

    model: Path = Field(Path("demo"), description='Artifact folder, or "demo": the shipped one, trained on phantoms.')
    allow_demo_model: bool = Field(False, description="Let a demo model send to destinations that are not loopback.")
    operating_point: str = Field("", description="Name from the manifest; empty: the artifact's default.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    engine: Literal["auto", "torch", "onnx"] = Field(
        "auto", description="auto: torch on a GPU, ONNX Runtime on a CPU where it is installed and the model has its graph."
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads of the forward pass; 0: all cores.")
    min_side_px: int = Field(256, ge=1, le=100_000, description="Films with a shorter side are skipped.")
    max_pixels: int = Field(
        100_000_000, ge=1, le=10_000_000_000, description="Films with more pixels are skipped before decoding."
    )
    min_age_years: float = Field(
        0,
        ge=0,
        le=150,
        description="Films of patients known to be younger are skipped; 0: answered, and children marked by a note.",
    )
    for_processing: Literal["skip", "answer"] = Field(
        "skip", description="Films not processed for display (For Processing): skipped, or answered from their X-ray intensity."
    )
    series_number: int = Field(9100, ge=1, le=2**31 - 1, description="SeriesNumber of our results.")
    report_negative: bool = Field(True, description="A film without pneumothorax gets an SR and a capture that say so.")
    language: Literal["en"] = Field("en", description="Language of the sentences in our objects.")
    plane_orientation: bool = Field(True, description="Write the orientation that OHIF needs to show a SEG on an X-ray.")


class Log(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe messages shown.")
    format: Literal["text", "json"] = Field("text", description="text for people, json for collectors.")
