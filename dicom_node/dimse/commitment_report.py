"""The answer to a storage commitment request: an N-EVENT-REPORT comes in, the ledger is written, a status goes out.

It comes on the association of the request or on a new one to our receiver, from whoever the destination lets speak:
its own AE title or `commit_ae_title`, at its host. Statuses: `EventStatus`.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterator
from enum import IntEnum
from io import BytesIO

from pydicom.uid import UID
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.dimse.implicit_vr import EXPLICIT, IMPLICIT
from dicom_node.runtime.config import Config
from dicom_node.storage.commitments import Commitments, Report, ReportOutcome, committing

log = logging.getLogger(__name__)

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known
SYNTAXES = (EXPLICIT, IMPLICIT)
MAX_REPORT_BYTES = 16 * 2**20  # some 100,000 references


class EventStatus(IntEnum):
    """Statuses of an N-EVENT-REPORT that we answer (PS3.7 10.1.1.1.8, PS3.4 J.3.3.1.2), and when."""

    when: str

    def __new__(cls, status: int, when: str) -> EventStatus:
        member = int.__new__(cls, status)
        member._value_ = status
        member.when = when
        return member

    SUCCESS = 0x0000, "written to the ledger, or written before: a repeated answer changes nothing"
    PROCESSING_FAILURE = 0x0110, "ledger in trouble, or an error of ours: send it again"
    NO_SUCH_EVENT_TYPE = 0x0113, "an event type other than 1 (all committed) and 2 (failures exist)"
    INVALID_ARGUMENT = 0x0115, "it cannot be read, or names no transaction that this destination was asked in"
    NO_SUCH_SOP_CLASS = 0x0118, "not the Storage Commitment Push Model class"


class Reports:
    """What becomes of N-EVENT-REPORTs (PS3.4 J.3.3), at the receiver and on the sender's own associations."""

    def __init__(self, config: Config, commitments: Commitments) -> None:
        self._peers = committing(config)
        self._commitments = commitments
        self.called = frozenset((config.receive.ae_title, config.send.ae_title)) if self._peers else frozenset()

    def speakers(self, calling_ae: str) -> Iterator[tuple[str, str]]:
        """(peer, host) of every destination that `calling_ae` may answer for when it comes from that host."""
        for name, peer in self._peers.items():
            if calling_ae in (peer.commit_ae_title, peer.ae_title or name):
                yield name, peer.host

    def answer(self, request: N_EVENT_REPORT, syntax: UID, peers: Collection[str], said_by: str) -> EventStatus:
        """One report of a caller who may speak for `peers` -> the status. Never raises: the edge of DIMSE."""
        try:
            return self._answer(request, syntax, peers, said_by)
        except (sqlite3.Error, OSError) as error:
            log.error("a commitment report is not taken: ledger in trouble", extra={"error": type(error).__name__})
        except Exception:  # a bug of ours: the destination must keep its answer and try again
            log.exception("a commitment report is not taken")
        return EventStatus.PROCESSING_FAILURE

    def _answer(self, request: N_EVENT_REPORT, syntax: UID, peers: Collection[str], said_by: str) -> EventStatus:
        if request.AffectedSOPClassUID != PUSH_MODEL:
            return EventStatus.NO_SUCH_SOP_CLASS
        if request.EventTypeID not in (1, 2):
            return EventStatus.NO_SUCH_EVENT_TYPE
        report = _read(request, syntax)
        if report is None:
            log.warning("a commitment report cannot be read", extra={"ae_title": said_by})
            return EventStatus.INVALID_ARGUMENT
        done = self._commitments.settle(report, peers)
        context = {
            "ae_title": said_by,
            "transaction_uid": report.transaction_uid,
            "committed": done.committed,
            "again": done.again,
            "refused": done.refused,
            "unmentioned": done.unmentioned,
        }
        if done.outcome in (ReportOutcome.UNKNOWN, ReportOutcome.NOT_ASKED):
            log.warning("a commitment report is refused: %s", done.outcome.value, extra=context)
            return EventStatus.INVALID_ARGUMENT
        level = logging.WARNING if done.again or done.refused or done.unmentioned else logging.INFO
        log.log(level, "commitment report %s", done.outcome.value, extra=context)
        return EventStatus.SUCCESS


def context_as_scu() -> PresentationContext:
    """What we accept from a peer that opens an association to answer: the SCP role is its (PS3.7 D.3.3.4).

    A peer that negotiates no roles gets the context too: some archives forget them.
    """
    context = build_context(PUSH_MODEL, list(SYNTAXES))
    context.scu_role, context.scp_role = False, True  # roles of the requestor that we agree to
    return context


def _read(request: N_EVENT_REPORT, syntax: UID) -> Report | None:
    """The report in the Event Information (PS3.4 table J.3-2); None when it is none."""
    information = request.EventInformation
    if information is None or information.getbuffer().nbytes > MAX_REPORT_BYTES:
        return None
    try:
        dataset = decode(BytesIO(information.getvalue()), syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        committed = frozenset(str(one.ReferencedSOPInstanceUID) for one in dataset.get("ReferencedSOPSequence") or ())
        failed = {
            str(one.ReferencedSOPInstanceUID): int(one.get("FailureReason") or 0)
            for one in dataset.get("FailedSOPSequence") or ()
        }
        return Report(str(dataset.TransactionUID), committed, failed)
    except Exception:  # noqa: BLE001  the edge of DIMSE: hostile bytes make pydicom raise anything
        return None
