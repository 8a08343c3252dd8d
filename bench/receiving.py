"""Receiving, against dcmtk's storescp and Orthanc; and while hostile sockets are open."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path

from apparatus import ROUNDS, Row, dcmtk_storescp, film_files, needed, new_uids, row, seconds_of, send
from raw_peer import RawPeer, associate_rq
from servers import free_port, running_node, running_orthanc
from test_hostile_peers import drip

FILMS_PER_ROUND = 20


def receive(scratch: Path) -> Iterator[Row]:
    """Durable C-STORE of 10 MB DX films by dcmtk's storescu, against dcmtk's storescp (which syncs nothing) and Orthanc."""
    films = film_files(scratch / "films", FILMS_PER_ROUND)
    with (
        running_node(scratch / "receive", ("NOWHERE", free_port())) as node,
        running_orthanc(needed("Orthanc", "bench"), scratch / "orthanc") as orthanc,
        dcmtk_storescp(scratch / "storescp") as storescp,
    ):
        node.ledger.set_mode("paused")  # only receiving is measured
        ports = {"ours": (node.port, "PTXSEG"), "storescp": (storescp, "STORESCP"), "orthanc": (orthanc.dicom_port, "ORTHANC")}
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(ROUNDS):
            for name, (port, ae_title) in ports.items():
                new_uids(films)
                seconds = seconds_of(lambda port=port, ae_title=ae_title: send(port, ae_title, films))
                rates[name].append(len(films) / seconds)
    ours, peer, archive = (statistics.median(rates[name]) for name in ("ours", "storescp", "orthanc"))
    yield row("receive: films/s, one association", ours, "1/s", "itself", "higher")
    yield row(
        "receive: one association against dcmtk storescp (no fsync)", ours / peer, "ratio", "dcmtk storescp", "higher", 0.95
    )
    yield row("receive: one association against Orthanc", ours / archive, "ratio", "Orthanc", "higher", 1.4)


def hostile(scratch: Path) -> Iterator[Row]:
    """One honest store beside 20 hostile sockets of its own host (silent, stopped in a header, byte by byte), and alone."""
    films = film_files(scratch / "honest", 1)
    with running_node(scratch / "hostile", ("NOWHERE", free_port())) as node:
        node.ledger.set_mode("paused")
        times: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * ROUNDS):
            new_uids(films)
            with contextlib.ExitStack() as stack:
                if number % 2:
                    peers = [stack.enter_context(RawPeer(node.port)) for _ in range(20)]
                    for peer in peers[10:]:
                        peer.send(associate_rq()[:5])
                    stop = threading.Event()
                    dripping = threading.Thread(target=drip, args=(peers[15:], associate_rq(), stop))
                    dripping.start()
                    stack.callback(dripping.join)
                    stack.callback(stop.set)
                times[bool(number % 2)].append(seconds_of(lambda: send(node.port, "PTXSEG", films)))
    alone, beside = statistics.median(times[False]), statistics.median(times[True])
    yield row("receive: one store while 20 hostile sockets are open", beside, "s", "itself", "lower")
    yield row("receive: the same against a store alone", beside / alone, "ratio", "itself alone", "lower")
