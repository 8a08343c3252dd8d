"""Silent, slow, greedy and broken peers: none of them keeps an honest modality out, and none is served for ever."""

from __future__ import annotations

import logging
import random
import resource
import selectors
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from raw_peer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RawPeer, associate_rq, c_store, command, drip, fragment
from receiver_node import Node, eventually, film, running, send

from dicom_node.receive.pending import PendingConnections

MIB = 2**20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running(tmp_path) as one:
        yield one


def test_twenty_silent_and_slow_sockets_do_not_keep_a_modality_out(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """All from the modality's own host, with the default limits of number: 10 silent, 5 that stop in a header, 5 byte by byte.

    Result: its store completes while they are still connected, some of them closed to make room. No deadline comes to its help.
    """
    film().save_as(tmp_path / "film.dcm", enforce_file_format=True)
    with running(tmp_path, establish_seconds=600) as node, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(node.port)) for _ in range(20)]
        for peer in peers[10:15]:
            peer.send(associate_rq()[:5])
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=(peers[15:], stop))
        dripping.start()
        try:
            who = ["-aet", "MODALITY", "-aec", "PTXSEG", "127.0.0.1", str(node.port)]
            subprocess.run([tool("storescu"), *who, str(tmp_path / "film.dcm")], check=True, timeout=300)
            assert sum(not peer.is_closed_within(0.06) for peer in peers) >= 8, "the hostile sockets were to be still open"
        finally:
            stop.set()
            dripping.join()
        assert len(node.ledger.jobs()) == 1


def test_pending_connections_are_bounded_and_new_ones_get_in(tmp_path: Path) -> None:
    """The connection that has waited longest makes room."""
    with running(tmp_path, max_silent=3) as node, ExitStack() as stack:
        peers = []
        for _ in range(5):
            peers.append(stack.enter_context(RawPeer(node.port)))
            time.sleep(0.02)
        assert [peer.is_closed_within(0.2) for peer in peers] == [True, True, False, False, False]
        assert send(node.port, film()) == 0x0000


def test_a_connection_that_made_room_and_spoke_in_the_same_round_is_no_trouble() -> None:
    with selectors.DefaultSelector() as selector:
        pending = PendingConnections(selector, max_connections=1, max_per_host=1, seconds=10)
        pairs = [socket.socketpair() for _ in range(2)]
        pending.add(pairs[0][0], ("192.0.2.1", 1))
        pairs[0][1].send(associate_rq())
        [(key, _)] = selector.select(1)
        pending.add(pairs[1][0], ("192.0.2.2", 1))
        assert pending.read(key.data) is None
        assert len(pending) == 1
        pending.close()
        for pair in pairs:
            pair[1].close()


def test_a_peer_that_breaks_our_bookkeeping_does_not_end_the_service(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as broken:
        broken.setattr("dicom_node.receive.acceptor.AcceptorAssociation.start", bug)
        with RawPeer(node.port) as peer:
            peer.send(associate_rq())
            assert peer.is_closed()
    assert send(node.port, film()) == 0x0000


def test_who_asks_for_no_association_is_closed_in_time(tmp_path: Path) -> None:
    """A byte now and then does not buy more time."""
    with running(tmp_path, establish_seconds=0.6) as node, RawPeer(node.port) as silent, RawPeer(node.port) as slow:
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=([slow], stop))
        dripping.start()
        assert silent.is_closed() and slow.is_closed()
        stop.set()
        dripping.join()


@pytest.mark.parametrize("size", [0xFFFFFFFF, 64 * 1024 + 1])
def test_a_request_that_declares_too_much_is_cut_before_it_is_read(node: Node, size: int) -> None:
    with RawPeer(node.port) as peer:
        peer.send(struct.pack(">BBL", 1, 0, size) + b"x" * 100)
        assert peer.is_closed()
    assert send(node.port, film()) == 0x0000


def test_a_pdu_of_4_gb_in_an_association_is_cut_before_it_is_read(node: Node) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(struct.pack(">BBL", P_DATA, 0, 0xFFFFFFF0))
        try:
            for _ in range(64):
                peer.send(b"x" * MIB)
        except OSError:
            pass
        assert peer.is_closed()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 64 * MIB
    assert send(node.port, film()) == 0x0000


def test_an_object_over_the_limit_is_aborted_and_the_next_association_is_fine(tmp_path: Path) -> None:
    with running(tmp_path, max_object_mb=1) as node:
        with RawPeer(node.port) as peer:
            assert peer.associate() == ASSOCIATE_AC
            peer.send(command("1.2.3.4"))
            send_until_refused(peer, fragment(b"x" * 65536, last=False), 200)
            assert peer.is_closed()
        assert send(node.port, film()) == 0x0000
        assert len(node.files()) == 1
        assert eventually(lambda: [outcome for _, outcome, _ in node.journal()] == ["aborted", "released"])


def test_an_object_of_the_limit_is_taken(tmp_path: Path) -> None:
    with running(tmp_path, max_object_mb=1) as node, RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(command("1.2.3.4"))
        for number in range(16):
            peer.send(fragment(b"x" * 65536, last=number == 15))
        assert peer.status()[0] == 0x0000


def test_an_endless_command_set_is_aborted(node: Node) -> None:
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        item = struct.pack(">LB", 60_002, 1) + b"\x01" + b"x" * 60_000
        send_until_refused(peer, struct.pack(">BBL", P_DATA, 0, len(item)) + item, 100)
        assert peer.is_closed()


def send_until_refused(peer: RawPeer, data: bytes, times: int) -> None:
    try:
        for _ in range(times):
            peer.send(data)
    except OSError:
        pass


def test_a_pdu_that_takes_too_long_is_cut_though_bytes_keep_coming(tmp_path: Path) -> None:
    with running(tmp_path, pdu_seconds=0.6, idle_seconds=600) as node, RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=([peer], stop, struct.pack(">BBL", P_DATA, 0, 60_000)))
        dripping.start()
        assert peer.is_closed()
        stop.set()
        dripping.join()


def test_a_silent_association_is_aborted_politely(tmp_path: Path) -> None:
    with running(tmp_path, idle_seconds=0.6) as node, RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        assert peer.receive()[0] == ABORT
        assert peer.is_closed()
        assert eventually(lambda: [outcome for _, outcome, _ in node.journal()] == ["aborted"])


def test_our_own_slowness_is_not_the_peers_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, idle_seconds=0.5) as node, RawPeer(node.port) as peer:
        real = node.ledger.add_arrival
        monkeypatch.setattr(node.ledger, "add_arrival", lambda arrival: (time.sleep(1.2), real(arrival))[1])
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store())
        assert peer.status()[0] == 0x0000


def test_limits_of_associations_are_told_as_such(tmp_path: Path) -> None:
    """Transient, local limit exceeded (PS3.8 table 9-21); the modality tries again. A slot is free once it ended."""
    with running(tmp_path, max_associations=2) as node, ExitStack() as stack:
        first, second, third = (stack.enter_context(RawPeer(node.port)) for _ in range(3))
        assert first.associate() == second.associate() == ASSOCIATE_AC
        third.send(associate_rq())
        assert third.receive() == (ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
        first.socket.close()
        assert eventually(lambda: send(node.port, film()) == 0x0000)


def test_one_host_has_its_share(tmp_path: Path) -> None:
    with running(tmp_path, max_per_host=2) as node, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(node.port)) for _ in range(2)]
        assert [peer.associate() for peer in peers] == [ASSOCIATE_AC] * 2
        third = stack.enter_context(RawPeer(node.port))
        third.send(associate_rq())
        assert third.receive() == (ASSOCIATE_RJ, bytes([0, 2, 3, 2]))


def test_a_peer_that_does_not_wait_for_answers_is_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario: 40 requests of 1 MiB in one breath, while the first answer takes its time.
    Result: the node holds a few of them, TCP holds the rest; all are answered in the end.
    """
    with running(tmp_path) as node, RawPeer(node.port) as peer:
        may_go_on = threading.Event()
        real = node.ledger.add_arrival
        monkeypatch.setattr(node.ledger, "add_arrival", lambda arrival: may_go_on.wait(120) and real(arrival))
        assert peer.associate() == ASSOCIATE_AC
        sent = 0

        def flood() -> None:
            nonlocal sent
            for number in range(40):
                body = b"".join(fragment(b"x" * 65536, last=part == 15) for part in range(16))
                peer.send(command(f"1.2.3.{number}") + body)
                sent += 1

        sender = threading.Thread(target=flood)
        sender.start()
        time.sleep(1.0)
        assert sent < 20, "the node read everything it was sent"
        may_go_on.set()
        assert [peer.status()[0] for _ in range(40)] == [0x0000] * 40
        sender.join()


def test_a_request_that_nobody_can_answer_ends_the_association(node: Node) -> None:
    """No Message ID: there is nothing to answer to, and silence would make the sender wait for its time-out."""
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store().replace(struct.pack("<HHLH", 0, 0x0110, 2, 7), b""))
        assert peer.is_closed()
    assert node.files() == []


def test_mutated_pdus_leave_the_node_serving(tmp_path: Path) -> None:
    """300 seeded mutants of a whole conversation; an honest film after every fifty of them."""
    chance = random.Random(20)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    with running(tmp_path, establish_seconds=3, idle_seconds=3) as node:
        for number in range(300):
            request, store = bytearray(associate_rq()), bytearray(c_store(f"1.2.{number}"))
            target = chance.choice((request, store, store))
            for _ in range(chance.randint(1, 8)):
                target[chance.randrange(len(target))] = chance.randrange(256)
            with RawPeer(node.port, timeout=1) as peer:
                try:
                    peer.send(bytes(request))
                    if target is store and peer.receive()[0] != ASSOCIATE_AC:
                        continue
                    peer.send(bytes(store))
                    peer.socket.settimeout(0.01)
                    peer.socket.recv(100)
                except OSError:
                    pass
            if number % 50 == 49:
                assert eventually(lambda uid=f"1.3.{number}": send(node.port, film(uid)) == 0x0000), number
        jobs = {job.arrival.path for job in node.ledger.jobs(limit=1000)}
        assert {file.relative_to(node.spool.directory).as_posix() for file in node.files()} == jobs
        assert node.ledger.store.integrity() == "ok"
        assert eventually(lambda: threading.active_count() < 12, 120), "threads of mutants were left behind"


def test_silent_connections_cost_no_threads(node: Node) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(RawPeer(node.port))
        time.sleep(0.3)
        assert threading.active_count() == before


def test_a_connection_that_ends_in_the_middle_of_an_object_stores_nothing(node: Node) -> None:
    with RawPeer(node.port) as peer:
        assert peer.associate() == ASSOCIATE_AC
        peer.send(c_store()[:-10])
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
    assert eventually(lambda: [outcome for _, outcome, _ in node.journal()] != [None])
    assert node.files() == [] and node.ledger.jobs() == []
