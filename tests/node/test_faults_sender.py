"""A sender that breaks off: nothing of its film is here, and the film it sends again is taken."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_peer import ASSOCIATE_AC, P_DATA, RawPeer, c_store, command, fragment
from receiver_node import eventually, running

A_ABORT = struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 0, 0)
A_RELEASE_RQ = struct.pack(">BBLL", 0x05, 0, 4, 0)
UID = "1.2.3.77"
HALF = command(UID) + fragment(b"x" * 60_000, last=False)


def abort(peer: RawPeer) -> None:
    peer.send(HALF + A_ABORT)


def close_between_two_pdus(peer: RawPeer) -> None:
    peer.send(HALF)


def close_in_a_pdu(peer: RawPeer) -> None:
    peer.send(HALF + struct.pack(">BBL", P_DATA, 0, 60_000) + b"y" * 100)


def close_in_a_header(peer: RawPeer) -> None:
    peer.send(HALF + b"\x04\x00\x00")


def release_in_the_middle(peer: RawPeer) -> None:
    peer.send(HALF + A_RELEASE_RQ)


def leave_before_the_answer(peer: RawPeer) -> None:
    """The object is whole: it may be taken, and the one that comes again meets it."""
    peer.send(c_store(UID) + A_ABORT)


@pytest.mark.parametrize(
    "breaking_off",
    [abort, close_between_two_pdus, close_in_a_pdu, close_in_a_header, release_in_the_middle, leave_before_the_answer],
)
def test_a_sender_that_breaks_off_leaves_nothing_and_its_resend_is_taken(
    breaking_off: Callable[[RawPeer], None], tmp_path: Path
) -> None:
    with running(tmp_path) as node:
        with RawPeer(node.port) as peer:
            assert peer.associate() == ASSOCIATE_AC
            breaking_off(peer)
        # The journal's last line is written when the association's thread ends: after it nothing can come any more.
        assert eventually(lambda: len(node.journal()) == 1 and node.journal()[0][1] is not None, 120)
        whole = breaking_off is leave_before_the_answer
        assert len(node.files()) == len(node.ledger.jobs()) <= int(whole)
        with RawPeer(node.port) as peer:
            assert peer.associate() == ASSOCIATE_AC
            peer.send(c_store(UID))
            assert peer.status() == (0x0000, "")
        [job] = node.ledger.jobs()
        assert [str(file.relative_to(node.spool.directory)) for file in node.files()] == [job.arrival.path]
