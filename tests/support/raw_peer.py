"""A DICOM peer that speaks byte by byte, so that it can misbehave: PDUs are built here and sent when the test says so."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

CR = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP, ABORT = 0x02, 0x03, 0x04, 0x06, 0x07


class RawPeer:
    """One connection. Use as a context manager."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def associate(self, calling: str = "MODALITY", called: str = "PTXSEG", sop_class: str = CR, syntax: str = EXPLICIT) -> int:
        """Ask for an association; the type of the PDU that came back."""
        self.send(associate_rq(calling, called, sop_class, syntax))
        return self.receive()[0]

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and all that follows its header. Raises EOFError when the line is closed."""
        header = self._exactly(6)
        return header[0], self._exactly(struct.unpack(">L", header[2:])[0])

    def status(self) -> tuple[int, str]:
        """Status and Error Comment of the next C-STORE-RSP."""
        kind, body = self.receive()
        assert kind == P_DATA, f"PDU type {kind} instead of a response"
        response = command_of(body)
        return response.Status, response.get("ErrorComment", "")

    def is_closed(self) -> bool:
        """Whether the other side ends the connection; waits for it, and gives up only long after any deadline of a test."""
        return self.is_closed_within(60)

    def is_closed_within(self, seconds: float) -> bool:
        """For connections that are to stay open. What the other side says before it ends them is thrown away."""
        self.socket.settimeout(0.05)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if not self.socket.recv(4096):
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
        return False

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data


def associate_rq(calling: str = "MODALITY", called: str = "PTXSEG", sop_class: str = CR, syntax: str = EXPLICIT) -> bytes:
    """An A-ASSOCIATE-RQ with one context, number 1."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    primitive.user_information = [length, implementation]
    context = build_context(sop_class, syntax)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def c_store(sop_instance_uid: str | None = "1.2.3.4", sop_class_uid: str | None = CR, dataset: bytes | None = None) -> bytes:
    """A whole C-STORE request as P-DATA-TF PDUs; None leaves an element out, b"" sends no dataset."""
    data = part10_dataset(sop_instance_uid or "1.2.3.4") if dataset is None else dataset
    return command(sop_instance_uid, sop_class_uid, has_dataset=bool(data)) + (fragment(data, last=True) if data else b"")


def command(sop_instance_uid: str | None, sop_class_uid: str | None = CR, *, has_dataset: bool = True) -> bytes:
    request = Dataset()
    if sop_class_uid is not None:
        request.AffectedSOPClassUID = sop_class_uid
    request.CommandField = 0x0001
    request.MessageID = 7
    request.Priority = 0
    request.CommandDataSetType = 0x0001 if has_dataset else 0x0101
    encoded = encode(request, True, True) or b""
    if sop_instance_uid is not None:  # by hand: pydicom checks what it encodes
        value = sop_instance_uid.encode()
        value += b"\0" * (len(value) % 2)
        encoded += struct.pack("<HHL", 0x0000, 0x1000, len(value)) + value
    return _pdv(b"\x03" + encoded)


def fragment(data: bytes, *, last: bool) -> bytes:
    return _pdv((b"\x02" if last else b"\x00") + data)


def command_of(body: bytes) -> Dataset:
    """The command set in the body of a P-DATA-TF PDU."""
    from pynetdicom.dsutils import decode

    return decode(BytesIO(body[6:]), True, True)


def part10_dataset(sop_instance_uid: str) -> bytes:
    """A small dataset, encoded."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CR, "1.2.3.4"
    dataset.PatientID = sop_instance_uid[:8]
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset)
    return file.getvalue()


def _pdv(data: bytes) -> bytes:
    item = struct.pack(">LB", len(data) + 1, 1) + data
    return struct.pack(">BBL", P_DATA, 0, len(item)) + item


def drip(peers: list[RawPeer], stop: threading.Event, head: bytes = struct.pack(">BBL", 1, 0, 60_000)) -> None:
    """A request (or `head`) that never ends: one byte per peer and 50 ms, until told to stop."""
    for byte in itertools.chain(head, itertools.repeat(0)):
        for peer in peers:
            try:
                peer.send(bytes([byte]))
            except OSError:
                pass
        if stop.wait(0.05):
            return
