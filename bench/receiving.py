"""Receiving, against dcmtk's storescp and Orthanc; and while hostile sockets are open."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path

from apparatus import dcmtk_storescp, film_files, needed, new_uids, seconds_of, send, send_at_once
from raw_peer import RawPeer, associate_rq, drip
from rows import ROUNDS, Row, row
from servers import NODE_AE, free_port, running_node, running_orthanc

ASSOCIATIONS = 4
FILMS_EACH = 10


def receive(scratch: Path) -> Iterator[Row]:
    """Durable C-STORE of 10 MB DX films by dcmtk's storescu, one and four at once, against dcmtk's storescp (which syncs
    nothing) and Orthanc."""
    films = film_files(scratch / "films", ASSOCIATIONS * FILMS_EACH)
    groups = [films[number::ASSOCIATIONS] for number in range(ASSOCIATIONS)]
    with (
        running_node(scratch / "receive", ("NOWHERE", free_port())) as node,
        running_orthanc(needed("Orthanc", "bench"), scratch / "orthanc") as orthanc,
        dcmtk_storescp(scratch / "storescp") as storescp,
        dcmtk_storescp(scratch / "forking", "--fork") as forking,
    ):
        node.ledger.set_mode("paused")  # only receiving is measured
        ours, archive = (node.port, NODE_AE), (orthanc.dicom_port, "ORTHANC")
        one = _rates({"ours": ours, "dcmtk storescp": (storescp, "STORESCP"), "Orthanc": archive}, [films[:FILMS_EACH]])
        four = _rates({"ours": ours, "dcmtk storescp --fork": (forking, "STORESCP"), "Orthanc": archive}, groups)
    yield from _rows("one association", one, {"dcmtk storescp": 0.95, "Orthanc": 1.4})
    yield from _rows("four associations", four, {"dcmtk storescp --fork": 0.85, "Orthanc": 1.5})


def _rates(receivers: dict[str, tuple[int, str]], groups: list[list[Path]]) -> dict[str, list[float]]:
    """Films a second by receiver (port, AE title), of alternating rounds; one association for each group."""
    rates: dict[str, list[float]] = {name: [] for name in receivers}
    for number in range(ROUNDS + 1):  # the first round warms up
        for name, (port, ae_title) in receivers.items():
            for files in groups:
                new_uids(files)
            os.sync()  # nobody waits for the disk because of what another one left
            seconds = seconds_of(lambda port=port, ae_title=ae_title: send_at_once(port, ae_title, groups))
            if number:
                rates[name].append(sum(map(len, groups)) / seconds)
    return rates


def _rows(what: str, rates: dict[str, list[float]], targets: dict[str, float]) -> Iterator[Row]:
    ours = rates["ours"]
    yield row(f"receive: films/s, {what}", statistics.median(ours), "1/s", "itself", "higher", rounds=ours)
    for name, target in targets.items():
        theirs, unsafe = rates[name], " (no fsync)" if "storescp" in name else ""
        ratio = statistics.median(ours) / statistics.median(theirs)
        ratios = [mine / its for mine, its in zip(ours, theirs, strict=True)]
        yield row(f"receive: {what} against {name}{unsafe}", ratio, "ratio", name, "higher", target, ratios)


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
                times[bool(number % 2)].append(seconds_of(lambda: send(node.port, NODE_AE, films)))
    alone, beside = statistics.median(times[False]), statistics.median(times[True])
    yield row("receive: one store while 20 hostile sockets are open", beside, "s", "itself", "lower")
    yield row("receive: the same against a store alone", beside / alone, "ratio", "itself alone", "lower")
