"""Every moment at which the node is killed, one scene each: where, what leads there, and what it may cost the film.

The work of one film, in the order in which it happens; between two neighbours nothing is written. A crash of the process
that works on a film is charged to the film as long as it holds the claim; the loss of the whole group is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crash_launcher import Point

Lead = Literal["film", "film twice", "start"]  # what the test does: send one, send it again when answered, start the node


@dataclass(frozen=True)
class Scene:
    points: tuple[Point, ...]  # each must be hit
    charged: int = 0  # crashes that the film's job has to its name in the end
    lead: Lead = "film"

    def __str__(self) -> str:
        return ", then ".join(map(str, self.points))


RECEIVE = (
    Point("receive", "dicom_node.receive.acceptor:AcceptorAssociation._on_c_store", "before"),  # the film is in memory
    Point("receive", "dicom_node.storage.spool:_write_all", "after", 1),  # the head is in the temporary file
    Point("receive", "dicom_node.storage.spool:_write_all", "after", 2),  # all of it is, not fsynced
    Point("receive", "dicom_node.storage.spool:os.rename", "before"),  # fsynced
    Point("receive", "dicom_node.storage.spool:os.rename", "after"),
    Point("receive", "dicom_node.storage.spool:Spool.write", "after"),  # the folder is fsynced
    Point(
        "receive", "dicom_node.storage.database:Store.write", "leaving", 2
    ),  # the row is inserted, not committed (1: association)
    Point("receive", "dicom_node.storage.ledger:Ledger.add_arrival", "after"),  # committed
    Point("receive", "dicom_node.receive.storage_scp:Receiver._take", "after"),  # not answered yet
    Point("receive", "dicom_node.receive.storage_scp:Receiver._closed", "before"),  # answered
)

CLAIMING = (
    Point("work", "dicom_node.storage.ledger:Ledger.claim", "before"),
    Point("work", "dicom_node.storage.database:Store.write", "leaving", 1),  # the claim is not committed
)
WORKING = (
    Point("work", "dicom_node.storage.ledger:Ledger.claim", "after"),
    Point("work", "dicom_node.work.job_runner:read_film", "after"),
    Point("work", "segmenter.engine:decode", "after"),
    Point("work", "segmenter.model.predict:Predictor.__call__", "before"),
    Point("work", "segmenter.model.predict:Predictor.__call__", "after"),
    Point("work", "dicom_node.storage.database:Store.write", "leaving", 2),  # the revision is not committed
    Point("work", "dicom_node.storage.ledger:Ledger.revision", "after"),
    Point("work", "dicom_node.storage.ledger:Ledger.stored_kinds", "after"),  # no result exists yet
    Point("work", "dicom_node.storage.spool:Spool.folder_for", "after"),
    Point("work", "dicom_node.storage.spool:_write_all", "after", 2),  # the object is written, not fsynced
    Point("work", "dicom_node.storage.spool:os.rename", "before"),  # fsynced
    Point("work", "dicom_node.storage.spool:os.rename", "after"),
    Point("work", "dicom_node.storage.spool:Spool.write_into", "after"),  # the folder is fsynced
    Point("work", "dicom_node.storage.ledger:Ledger.finish", "before"),
    Point(
        "work", "dicom_node.storage.database:Store.write", "leaving", 3
    ),  # answer, objects, deliveries: inserted, not committed
)
FINISHED = Point("work", "dicom_node.storage.ledger:Ledger.finish", "after")
WAKING = (
    Point("work", "dicom_node.work.wakeup:Wakeups._send", "before"),
    Point("work", "dicom_node.work.wakeup:Wakeups._send", "after"),
)
REAPING = Point("work", "dicom_node.storage.ledger:Ledger.release_worker", "before")
REAPED = Point("work", "dicom_node.storage.ledger:Ledger.release_worker", "after")
FREEING = (
    Point("work", "dicom_node.storage.ledger:Ledger.release_others", "before"),
    Point("work", "dicom_node.storage.ledger:Ledger.release_others", "after"),
)

SEND = (
    Point("send", "dicom_node.send.storage_scu:associate", "before"),
    Point("send", "dicom_node.send.storage_scu:associate", "after"),
    Point("send", "dicom_node.storage.outbox:Outbox.sending", "before"),
    Point("send", "dicom_node.storage.database:Store.write", "leaving", 1),  # "on the wire" is not committed
    Point("send", "dicom_node.storage.outbox:Outbox.sending", "after"),
    Point("send", "dicom_node.dimse.requestor:RequestorAssociation.store", "before"),
    Point("send", "pynetdicom.transport:AssociationSocket.send", "after", 8),  # in the middle of an object
    Point("send", "dicom_node.dimse.requestor:RequestorAssociation.store", "after"),  # the peer has answered
    Point("send", "dicom_node.storage.outbox:Outbox.settle", "before"),
    Point(
        "send", "dicom_node.storage.database:Store.write", "leaving", 6
    ),  # three destinations, marked and settled: the last one
    Point("send", "dicom_node.storage.outbox:Outbox.settle", "after"),
)
ANSWERED = Point("send", "dicom_node.dimse.requestor:RequestorAssociation.store", "after")
RECOVERING = (
    Point("send", "dicom_node.storage.outbox:Outbox.recover", "before"),
    Point("send", "dicom_node.storage.outbox:Outbox.recover", "after"),
)

STARTING = (
    Point("run", "dicom_node.cli.supervisor:Supervisor._start", "after", 1),  # the receiver runs and nothing else
    Point("run", "dicom_node.cli.supervisor:Supervisor._start", "after", 3),  # all three run, run.json is of yesterday
    Point("run", "dicom_node.cli.supervisor:Supervisor._announce", "after"),
)
LOOKING = Point("run", "dicom_node.cli.supervisor:Supervisor._look_after", "before")
TAKEN = Point("receive", "dicom_node.receive.storage_scp:Receiver._take", "after")

SCENES = (
    *(Scene((point,)) for point in RECEIVE),
    Scene((Point("receive", "dicom_node.receive.storage_scp:Receiver._discard", "before"),), lead="film twice"),
    *(Scene((point,)) for point in CLAIMING),
    *(Scene((point,), charged=1) for point in WORKING),
    Scene((FINISHED,)),
    Scene(WAKING),
    Scene((WORKING[1], REAPING, *FREEING)),  # the group is lost before the crash was charged, and twice more at its start
    Scene((WORKING[1], REAPED), charged=1),
    *(Scene((point,)) for point in SEND),
    Scene((ANSWERED, *RECOVERING)),
    Scene(STARTING, lead="start"),
    Scene((LOOKING,)),
    Scene(
        (ANSWERED, Point("run", "dicom_node.runtime.child_processes:ChildProcesses.start", "after"))
    ),  # the child that it starts again
    Scene(
        (TAKEN, Point("receive", "dicom_node.runtime.child_processes:ChildProcesses.start", "after"))
    ),  # so do the receivers' parent
)

# A worker on another machine, and the worker API. What dies in `serve` is repeated by the worker and costs nothing.
FAR_SCENES = (
    Scene((Point("serve", "dicom_node.storage.ledger:Ledger.claim", "before"),)),
    Scene((Point("serve", "dicom_node.storage.ledger:Ledger.claim", "after"),)),  # claimed, and the worker does not know it
    Scene((Point("serve", "dicom_node.storage.local_queue:LocalQueue.source", "after"),)),
    Scene((Point("serve", "dicom_node.storage.local_queue:LocalQueue.known", "after"),)),
    Scene((Point("serve", "dicom_node.storage.spool:os.rename", "after"),)),  # the object is there, its folder is not synced
    Scene((Point("serve", "dicom_node.storage.local_queue:LocalQueue.store", "after"),)),
    Scene((Point("serve", "dicom_node.storage.ledger:Ledger.finish", "before"),)),
    Scene((Point("serve", "dicom_node.storage.ledger:Ledger.finish", "after"),)),  # finished, and the worker does not know it
    Scene((Point("work", "dicom_node.api.worker_client:RemoteQueue.claim", "after"),), charged=1),
    Scene((Point("work", "dicom_node.api.worker_client:RemoteQueue.source", "after"),), charged=1),
    Scene((Point("work", "dicom_node.api.worker_client:RemoteQueue.store", "after"),), charged=1),
    Scene((Point("work", "dicom_node.api.worker_client:RemoteQueue.finish", "before"),), charged=1),
    Scene((Point("work", "dicom_node.api.worker_client:RemoteQueue.finish", "after"),)),
)
