"""DIMSE statuses of C-STORE (PS3.4 B.2.3, PS3.7 9.1.1.1.9 and Annex C): those we answer, and what an answer to us means."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple


class Status(IntEnum):
    """Statuses of a C-STORE that have a name of their own; `sentence(status)` says them to a person."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    DOES_NOT_MATCH_SOP_CLASS = 0xA900
    COERCED = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    STORED_BUT_DOES_NOT_MATCH = 0xB007
    CANNOT_UNDERSTAND = 0xC000
    CANCELLED = 0xFE00


class _StoreResponse(NamedTuple):
    status: Status
    comment: str  # Error Comment (0000,0902), LO
    when: str
    advice: str  # what the sender should do


class StoreResponse(Enum):
    """What our receiver answers to a C-STORE. What is answered with a failure was not stored, and the sender still has it."""

    STORED = _StoreResponse(
        Status.SUCCESS, "",
        "written, fsynced, renamed, folder fsynced, committed; or an equal object is there already", "forget it",
    )  # fmt: skip
    DISK_OR_LEDGER = _StoreResponse(
        Status.OUT_OF_RESOURCES, "disk or ledger in trouble; send again later",
        "disk or ledger in trouble, or free space under the reserve", "send it again later",
    )  # fmt: skip
    # A bug of ours, or no memory. Not C000: the film may be sound, the sender must keep it and try again.
    INTERNAL_ERROR = _StoreResponse(
        Status.OUT_OF_RESOURCES, "internal error; send again later", "any error of ours", "send it again later"
    )  # fmt: skip
    NO_INSTANCE = _StoreResponse(
        Status.INVALID_SOP_INSTANCE, "SOP Instance UID missing or not a UID",
        "no SOP Instance UID, or one that breaks the rules of PS3.5 9.1 (path characters, over 64 bytes)", "call for help",
    )  # fmt: skip
    OTHER_CLASS = _StoreResponse(
        Status.SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the context",
        "the SOP class of the command is missing, not that of the presentation context, or no storage class", "call for help",
    )  # fmt: skip
    NO_SENDER = _StoreResponse(
        Status.NOT_AUTHORIZED, "not a sender here",
        "the caller is known as a destination that reports storage commitment, not as a sender", "call for help",
    )  # fmt: skip
    NO_DATASET = _StoreResponse(Status.CANNOT_UNDERSTAND, "no dataset", "there is no dataset", "call for help")


class Verdict(Enum):
    """What the sender of an object does after the answer."""

    DELIVERED = "delivered"  # the receiver has it
    WARNED = "warned"  # the receiver has it and changed or doubted something
    TRY_LATER = "try later"  # the same bytes may be taken another time
    REFUSED = "refused"  # the same bytes will never be taken; a person must look


_SENTENCES: dict[Status, tuple[Verdict, str]] = {
    Status.SUCCESS: (Verdict.DELIVERED, "The object is stored."),
    # We only ever resend a UID with identical bytes, so the one that is there already is ours.
    Status.DUPLICATE_SOP_INSTANCE: (Verdict.DELIVERED, "The receiver has this object already."),
    Status.COERCED: (Verdict.WARNED, "The object is stored; the receiver changed some of its elements."),
    Status.ELEMENTS_DISCARDED: (
        Verdict.WARNED,
        "The object is stored; the receiver discarded some of its elements.",
    ),
    Status.STORED_BUT_DOES_NOT_MATCH: (
        Verdict.WARNED,
        "The object is stored; the receiver doubts that it fits its class.",
    ),
    Status.OUT_OF_RESOURCES: (Verdict.TRY_LATER, "The receiver is out of resources."),
    Status.RESOURCE_LIMITATION: (Verdict.TRY_LATER, "The receiver has reached a limit."),
    # "Processing failure" is what archives say when their database is away: about the moment, not about the object.
    Status.PROCESSING_FAILURE: (Verdict.TRY_LATER, "The receiver failed while it processed the object."),
    # A message id that the receiver believes to be in use: the next association counts anew.
    Status.DUPLICATE_INVOCATION: (Verdict.TRY_LATER, "The receiver saw this message number twice."),
    # Nobody cancels a C-STORE; a receiver that says so is being shut down.
    Status.CANCELLED: (Verdict.TRY_LATER, "The receiver cancelled the transfer."),
    # The rest speaks of the object, the class or our rights. None of them changes by waiting.
    Status.INVALID_SOP_INSTANCE: (Verdict.REFUSED, "The receiver does not accept the SOP Instance UID."),
    Status.NO_SUCH_SOP_CLASS: (Verdict.REFUSED, "The receiver does not know the SOP class."),
    Status.SOP_CLASS_NOT_SUPPORTED: (Verdict.REFUSED, "The receiver does not support the SOP class."),
    Status.NOT_AUTHORIZED: (
        Verdict.REFUSED,
        "The receiver does not allow us to store; ask its administrator.",
    ),
    Status.UNRECOGNIZED_OPERATION: (Verdict.REFUSED, "The receiver does not know the C-STORE operation."),
    Status.MISTYPED_ARGUMENT: (
        Verdict.REFUSED,
        "The receiver says that an argument of the message has the wrong type.",
    ),
    Status.DOES_NOT_MATCH_SOP_CLASS: (
        Verdict.REFUSED,
        "The receiver says that the object does not fit its SOP class.",
    ),
    # C000-CFFF "Error: Cannot understand" (PS3.4 B.2.3). It judges the object, so the same bytes meet the same answer.
    Status.CANNOT_UNDERSTAND: (Verdict.REFUSED, "The receiver cannot understand the object."),
}


def named(status: int) -> Status | None:
    """The named status that stands for `status`; ranges fold into their first (A7xx, A9xx, Cxxx). None: unknown."""
    if status & 0xFF00 == 0xA700:
        return Status.OUT_OF_RESOURCES
    if status & 0xFF00 == 0xA900:
        return Status.DOES_NOT_MATCH_SOP_CLASS
    if status & 0xF000 == 0xC000:
        return Status.CANNOT_UNDERSTAND
    try:
        return Status(status)
    except ValueError:
        return None


def verdict(status: int) -> Verdict:
    """What the answer `status` to our C-STORE means.

    A status outside the tables is judged by its class (PS3.7 Annex C): Bxxx, 0001, 0107 and 0116 are warnings, the
    object was stored. Anything else that nobody defined is tried again: it may be passing, and `send.give_up_days`
    ends it.
    """
    known = named(status)
    if known is not None:
        return _SENTENCES[known][0]
    if status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return Verdict.WARNED
    if 0x0105 <= status <= 0x0123 or status & 0xF000 == 0xA000:
        return Verdict.REFUSED  # a defined failure about attributes, arguments or classes; Axxx "refused"
    return Verdict.TRY_LATER


def sentence(status: int) -> str:
    """One sentence for a person, with the code."""
    known = named(status)
    text = (
        _SENTENCES[known][1] if known is not None else f"The receiver gave an answer without a name ({verdict(status).value})."
    )
    return f"{text} ({status:04X})"


class Rejection(Enum):
    """A-ASSOCIATE-RJ: (result, source, reason) of PS3.8 table 9-21, and when it is said."""

    when: str

    def __new__(cls, result: int, source: int, reason: int, when: str) -> Rejection:
        member = object.__new__(cls)
        member._value_ = (result, source, reason)
        member.when = when
        return member

    PROTOCOL = 1, 2, 2, "it does not speak version 1 of the protocol (bit 0)"
    APPLICATION_CONTEXT = 1, 1, 2, "its application context is not 1.2.840.10008.3.1.1.1"
    CALLED_AE = 1, 1, 7, "it calls another AE title than ours"
    CALLING_AE = 1, 1, 3, "its AE title, or the host it comes from, is not in [receive.allowed]"
    BUSY = 2, 3, 1, "the node is draining, or its ledger cannot be used"
    LIMIT = 2, 3, 2, "receive.max_associations or receive.max_per_host is reached"
