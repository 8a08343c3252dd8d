"""The C-STORE SCP: what is offered, who may come in, and one thin handler: bytes -> spool -> ledger -> status.

What is answered to a C-STORE, and when: `status.StoreResponse`; when an association is rejected: `status.Rejection`. What
is answered with a failure was not stored, and the sender still has it; what is answered with 0000 is on disk and in the
ledger, whatever its content turns out to be.

The dataset itself is not parsed here: a film that cannot be read is stored, answered with 0000, and ends as a coded
skip or failure of its job.

A destination with commit = true may come in to report (commitment_report.py), whether it is in [receive.allowed] or not:
it is then offered Verification and Storage Commitment, and nothing that stores.

An object over `max_object_mb` aborts the association.
"""

from __future__ import annotations

import logging
import socket
import sqlite3

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.presentation import PresentationContextTuple

from dicom_node.dimse import tls
from dicom_node.dimse.association_pdu import APPLICATION_CONTEXT, NO_TRANSFER_SYNTAX, is_ae_title
from dicom_node.dimse.commitment_report import PUSH_MODEL, EventStatus, Reports, context_as_scu
from dicom_node.dimse.contexts import NOT_STORAGE, VERIFICATION, supported_contexts, verification_context
from dicom_node.dimse.hosts import is_host
from dicom_node.dimse.status import Rejection, StoreResponse
from dicom_node.receive.acceptor import AcceptorAssociation, Handlers
from dicom_node.receive.association_limit import AssociationLimit
from dicom_node.receive.rules import Rules
from dicom_node.receive.server import Server
from dicom_node.runtime.config_sections import Queue, Receive
from dicom_node.runtime.errors import SpoolError
from dicom_node.runtime.listening import listening
from dicom_node.runtime.log_limit import LogLimit
from dicom_node.runtime.printable import printable
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import Arrival
from dicom_node.storage.spool import Spool
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

log = logging.getLogger(__name__)


def bind(receive: Receive) -> socket.socket:
    """The listening socket, to be handed to one or more receivers. Raises ConfigError with the remedy."""
    return listening(receive.host, receive.port, "receive.host, receive.port")


class Receiver:
    """The storage SCP of one process, until it is stopped. `grace_seconds`: how long a stop lets associations finish.

    `reports`: what becomes of storage commitment reports; None: no destination is asked for any. Raises ConfigError when the
    files of receive.tls_* cannot be used, OSError when associations cannot be counted.
    """

    def __init__(
        self,
        receive: Receive,
        spool: Spool,
        ledger: Ledger,
        *,
        rules: Rules | None = None,
        grace_seconds: float = 10.0,
        reports: Reports | None = None,
    ) -> None:
        self.receive = receive
        self._rules = rules or Rules(Queue())
        self._tls = tls.incoming(receive)
        self._spool = spool
        self._ledger = ledger
        self._grace_seconds = grace_seconds
        self._reports = reports
        self._storage = supported_contexts(receive)
        self._log_limit = LogLimit()
        counted = spool.directory / "lock" / "associations"
        self._association_limit = AssociationLimit(counted, receive.max_associations, receive.max_per_host)
        self._server: Server | None = None
        self._stopped = False

    def serve(self, listener: socket.socket) -> None:
        """Blocks until `stop`. `listener` is bound and listening; our hold on it is closed in the end."""
        ae = ApplicationEntity(self.receive.ae_title)
        ae.maximum_pdu_size = self.receive.max_pdu_kb * 1024
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.acse_timeout = self.receive.establish_seconds
        # The associations keep the other deadlines, and admission counts: the library would count rejected ones too.
        ae.network_timeout = ae.dimse_timeout = None
        ae.maximum_associations = 1_000_000
        handlers = Handlers(self._admit, self._nothing_accepted, self._store, self._report, self._closed)
        self._server = Server(ae, listener, self.receive, handlers, self._tls)
        if not self.receive.allowed:
            log.warning("receive.allowed is empty: every association is rejected until it names calling AE titles")
        speech = "TLS" if self._tls else "plain"
        log.info("receiving as %s on %s:%s, %s", self.receive.ae_title, *listener.getsockname()[:2], speech)
        if self._stopped:
            self._server.stop()
        self._server.serve_forever(self._grace_seconds)
        self._association_limit.close()
        log.info("receiver stopped")

    def stop(self) -> None:
        """No new associations; those under way may finish. Safe in a signal handler and from any thread."""
        self._stopped = True
        if self._server is not None:
            self._server.stop()

    def _admit(self, association: AcceptorAssociation) -> Rejection | None:
        rejection, reason = self._admission(association)
        if rejection is not None and self._log_limit.allows(association.calling_ae, association.host, reason):
            log.warning("association with %s rejected: %s", association.peer, reason)
        return rejection

    def _admission(self, association: AcceptorAssociation) -> tuple[Rejection | None, str]:
        """The decision, and its reason with the remedy. What costs nothing is asked first, the journal last."""
        calling, host = association.calling_ae, association.host
        if not association.asked.has_version:
            return Rejection.PROTOCOL, "it does not speak version 1 of the DICOM protocol"
        if association.asked.application_context != APPLICATION_CONTEXT:
            return Rejection.APPLICATION_CONTEXT, "its application context is not DICOM's"
        association.speaks_for = self._speaks_for(association)
        rejection, reason = self._may_send(association)
        association.may_store = rejection is None
        if rejection is not None and not association.speaks_for:
            return rejection, reason
        try:
            if association.may_store and self._ledger.mode() == "draining":
                association.may_store = False
                if not (association.speaks_for and PUSH_MODEL in _proposed(association)):
                    return Rejection.BUSY, "the node is draining; `resume` opens it again"
            self._offer(association)
            association.slot = self._association_limit.acquire(host)
            association.admitted = association.slot is not None
            if not association.admitted:
                return Rejection.LIMIT, "no association slot left (receive.max_associations, receive.max_per_host)"
            if not _is_health_probe(association):
                association.journal_id = self._ledger.open_association(calling, association.called_ae, host)
        except (sqlite3.Error, OSError) as error:
            return Rejection.BUSY, f"the ledger cannot be used ({error})"
        return None, ""

    def _may_send(self, association: AcceptorAssociation) -> tuple[Rejection | None, str]:
        """Whether the caller is one of [receive.allowed] and calls us."""
        calling, host = association.calling_ae, association.host
        if association.called_ae not in (self.receive.ae_title, *self.receive.also_called):
            called = f"it calls '{association.called_ae}', we are '{self.receive.ae_title}' (receive.ae_title)"
            return Rejection.CALLED_AE, called
        hosts = self.receive.allowed.get(calling)
        if hosts is None and not is_ae_title(calling):
            return Rejection.CALLING_AE, "what it calls itself is no AE title (PS3.5 6.2); correct it there"
        if hosts is None:
            return Rejection.CALLING_AE, f'to let it in, add "{calling}" = ["{host}"] to [receive.allowed]'
        if hosts and not any(is_host(host, allowed) for allowed in hosts):
            return Rejection.CALLING_AE, f"it may only come from {', '.join(hosts)} ([receive.allowed])"
        return None, ""

    def _speaks_for(self, association: AcceptorAssociation) -> frozenset[str]:
        """The peers whose commitment the caller may report. It calls the AE title that asked: ours as a sender."""
        if self._reports is None or association.called_ae not in self._reports.called:
            return frozenset()
        speakers = self._reports.speakers(association.calling_ae)
        return frozenset(peer for peer, host in speakers if is_host(association.host, host))

    def _offer(self, association: AcceptorAssociation) -> None:
        contexts = self._storage if association.may_store else [verification_context()]
        association.offer([*contexts, context_as_scu()] if association.speaks_for else contexts)

    def _nothing_accepted(self, association: AcceptorAssociation) -> None:
        """It proposed nothing that we take: it will leave again, and its administrator will ask why."""
        known = [str(one.abstract_syntax) for one in association.rejected_contexts if one.result == NO_TRANSFER_SYNTAX]
        association.nothing_accepted = "no syntax accepted" if known else "no class accepted"
        classes = known or sorted(_proposed(association))
        names = ", ".join(f"{printable(UID(uid).name)} ({printable(uid)})" for uid in classes[:3]) or "nothing"
        more = f" and {len(classes) - 3} more" if len(classes) > 3 else ""
        what = "no transfer syntax that we take for" if known else "no class of receive.sop_classes, but"
        if self._log_limit.allows(association.calling_ae, association.host, association.nothing_accepted, names):
            log.warning("association with %s: it proposes %s %s%s", association.peer, what, names, more)

    def _report(self, association: AcceptorAssociation, request: N_EVENT_REPORT, context: PresentationContextTuple) -> int:
        """One N-EVENT-REPORT request -> its status."""
        if self._reports is None or context.abstract_syntax != PUSH_MODEL:
            return int(EventStatus.NO_SUCH_SOP_CLASS)
        syntax = context.transfer_syntax
        return int(self._reports.answer(request, syntax, association.speaks_for, association.calling_ae))

    def _store(self, association: AcceptorAssociation, request: C_STORE, context: PresentationContextTuple) -> tuple[int, str]:
        """One C-STORE request -> its status and Error Comment. Never raises: the edge of DIMSE."""
        try:
            answer = self._take(association, request, context)
        except (SpoolError, OSError, sqlite3.Error) as error:
            log.error("film from %s not stored, its sender is asked to try again: %s", association.peer, error)
            answer = StoreResponse.DISK_OR_LEDGER
        except Exception:
            log.exception("film from %s not stored, its sender is asked to try again", association.peer)
            answer = StoreResponse.INTERNAL_ERROR
        if answer is StoreResponse.STORED:
            association.received += 1
        return int(answer.value.status), answer.value.comment

    def _take(self, association: AcceptorAssociation, request: C_STORE, context: PresentationContextTuple) -> StoreResponse:
        if request.AffectedSOPInstanceUID is None:
            log.warning("film from %s refused: no valid SOP Instance UID", association.peer)
            return StoreResponse.NO_INSTANCE
        if not association.may_store:
            log.warning("film from %s refused: it may only report commitment", association.peer)
            return StoreResponse.NO_SENDER
        if request.AffectedSOPClassUID != context.abstract_syntax or request.AffectedSOPClassUID in NOT_STORAGE:
            log.warning("film from %s refused: SOP class is not that of its context", association.peer)
            return StoreResponse.OTHER_CLASS
        if request.DataSet is None or not request.DataSet.getbuffer().nbytes:
            log.warning("film from %s refused: it has no dataset", association.peer)
            return StoreResponse.NO_DATASET
        uid, class_uid = str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID)
        syntax = str(context.transfer_syntax)
        head = part10_head(class_uid, uid, syntax, association.calling_ae)
        stored = self._spool.write(request.DataSet.getbuffer(), head)
        found = self._rules.decide(association.calling_ae, association.called_ae, request.DataSet.getbuffer(), syntax)
        arrival = Arrival(
            sop_instance_uid=uid,
            sop_class_uid=class_uid,
            transfer_syntax_uid=syntax,
            dataset_sha256=stored.sha256,
            path=stored.path,
            size=stored.size,
            calling_ae=association.calling_ae,
            called_ae=association.called_ae,
            host=association.host,
            association_id=association.journal_id,
            queue=found.queue,
            mode=found.mode,
            rule=found.rule,
            why=found.why,
            destinations=found.destinations,
        )
        self._commit(arrival)
        return StoreResponse.STORED

    def _commit(self, arrival: Arrival) -> None:
        """The ledger decides; the file of an arrival that it does not name is removed. Raises sqlite3.Error."""
        try:
            arrived = self._ledger.add_arrival(arrival)
        except sqlite3.Error:
            self._discard_if_unknown(arrival)
            raise
        if not arrived.new:
            self._discard(arrival)
        log.info("film %s is job %s%s", arrival.sop_instance_uid, arrived.job_id, "" if arrived.new else " already")

    def _discard_if_unknown(self, arrival: Arrival) -> None:
        """A failed commit may have been one after all: ask, and when even that fails leave the file to retention."""
        try:
            known = self._ledger.jobs(sop_instance_uid=arrival.sop_instance_uid)
        except sqlite3.Error:
            return
        if all(job.arrival.path != arrival.path for job in known):
            self._discard(arrival)

    def _discard(self, arrival: Arrival) -> None:
        try:
            self._spool.delete(arrival.path)
        except OSError as error:
            log.warning("%s cannot be removed; retention removes it later: %s", arrival.path, error)

    def _closed(self, association: AcceptorAssociation) -> None:
        """The last thing that happens in an association's thread."""
        try:
            if association.journal_id is not None:
                self._ledger.close_association(association.journal_id, association.outcome, association.received)
            # SQLite's connection is this thread's, if it asked the ledger anything: left alone it would wait for the collector.
            self._ledger.store.close()
        except (sqlite3.Error, OSError) as error:
            log.warning("the end of association %s is not in the journal: %s", association.journal_id, error)
        finally:
            if association.slot is not None:
                self._association_limit.release(association.slot)


def part10_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling_ae: str) -> bytes:
    """Preamble, DICM and File Meta of ours (PS3.10 7.1); the dataset as received follows it."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SourceApplicationEntityTitle = calling_ae
    file = DicomBytesIO()
    write_file_meta_info(file, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + file.getvalue()


def _is_health_probe(association: AcceptorAssociation) -> bool:
    """A C-ECHO of our own, as /readyz makes one every few seconds with the AE title of a sender: not for the journal."""
    ours = association.requestor.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    return ours and _proposed(association) == {VERIFICATION}


def _proposed(association: AcceptorAssociation) -> set[str]:
    """The abstract syntaxes of its request."""
    proposed = association.requestor.primitive.presentation_context_definition_list  # type: ignore[union-attr]
    return {str(context.abstract_syntax) for context in proposed}
