"""Redis absent, hung and killed: no worker is woken, films are taken all the while and answered once when it is back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_counts import open_deliveries
from quick_model import quick_film, quick_settings
from rude_pacs import RudePacs
from servers import Redis, free_port, running_node, store, wait_for

from dicom_node.storage.records import State


@pytest.fixture
def redis(tool: Callable[[str], str], tmp_path: Path) -> Iterator[Redis]:
    """Not started yet."""
    server = Redis(tool("redis-server"), tmp_path / "redis", free_port())
    yield server
    if server.process is not None:
        server.process.send_signal(signal.SIGCONT)
        server.kill()


def test_redis_absent_at_the_start_then_hung_then_gone(redis: Redis, tmp_path: Path) -> None:
    """Scenario: the node starts without Redis; Redis comes; it hangs, and a film arrives; it is killed, another one arrives.

    Result: 0000 for each at once, one answer for each, claimed once each, and one result each at the PACS.
    """
    films = {name: quick_film(number) for number, name in enumerate(("absent", "well", "hung", "killed"), start=60)}
    uids = {name: str(one.SOPInstanceUID) for name, one in films.items()}
    with (
        RudePacs().serving() as pacs,
        running_node(tmp_path / "node", ("PACS", pacs.port), **quick_settings(SEGMENTER_QUEUE__BROKER=redis.url)) as node,
    ):
        assert store(films["absent"], node.port) == 0x0000
        words = ("the broker cannot be reached", "Cannot connect")
        wait_for(lambda: any(one in node.log_text() for one in words), 120, "a word about the broker")
        assert node.job_of(uids["absent"]).state is State.RECEIVED
        redis.start()
        assert store(films["well"], node.port) == 0x0000
        node.delivered(uids["absent"])
        node.delivered(uids["well"])
        assert redis.process is not None
        os.kill(redis.process.pid, signal.SIGSTOP)
        assert store(films["hung"], node.port) == 0x0000
        with pytest.raises(AssertionError, match="did not come true"):
            wait_for(lambda: node.job_of(uids["hung"]).state is not State.RECEIVED, 4)
        os.kill(redis.process.pid, signal.SIGCONT)
        node.delivered(uids["hung"])
        redis.kill()
        assert store(films["killed"], node.port) == 0x0000
        redis.start()
        node.delivered(uids["killed"])
        wait_for(lambda: open_deliveries(node.ledger.store) == 0, 120, "deliveries")
        assert [(node.job_of(uid).attempts, node.job_of(uid).crashes) for uid in uids.values()] == [(1, 0)] * 4
    assert pacs.lost(uids.values()) == []
    assert pacs.doubled() == []
    assert [pacs.roles(uid) for uid in uids.values()] == [["seg", "sr"]] * 4
