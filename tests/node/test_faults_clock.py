"""The wall clock is set back a day, or forward a month: leases and deliveries go on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from answered_films import AnsweredFilms
from rude_pacs import RudePacs
from servers import free_port, wait_for

from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import Arrival, DeliveryState

DAY = 86_400.0


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the wall clock of this process by so many seconds, from the true time."""
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


def test_a_lease_neither_ends_early_nor_hangs_when_the_clock_is_set(tmp_path: Path, set_clock: Callable[[float], None]) -> None:
    now = 1000.0
    ledger = Ledger(tmp_path / "ledger.sqlite", clock=lambda: now)
    ledger.add_arrival(Arrival("1.2.3", "1.2", "1.2.840.10008.1.2.1", "aa", "arrivals/x", 1, "A", "B", "::1"))
    assert ledger.claim("w", 30) is not None
    set_clock(+DAY)
    assert ledger.claim("other", 30) is None, "29 s are left, whatever the wall says"
    set_clock(-DAY)
    now += 31
    assert ledger.ready() == 1
    assert ledger.claim("other", 30) is not None, "the lease ran out"


@pytest.mark.parametrize("set_by", [-DAY, +30 * DAY])
def test_deliveries_go_on_when_the_clock_is_set(set_by: float, tmp_path: Path, set_clock: Callable[[float], None]) -> None:
    """Scenario: one delivery waits for its next try, one waits for its first, and then the clock jumps; the PACS refuses
    once more for a while (A700), and a film is answered after the jump.

    Result: all are delivered soon; none waits a day, and none is given up because a month seems to have passed.
    """
    pacs = RudePacs(free_port())
    films = AnsweredFilms(tmp_path, pacs.port, 2)
    pacs.answer = lambda uid: 0xA700 if uid == films.uids[0] else 0x0000
    with pacs.serving():
        with films.sending():
            wait_for(lambda: films.delivery(films.uids[0]).attempts >= 2, 120, "two tries")
        never_tried = films.add()
        set_clock(set_by)
        films.add()
        pacs.script[never_tried] = deque([0xA700])
        with films.sending():
            tries = films.delivery(films.uids[0]).attempts
            wait_for(lambda: films.delivery(films.uids[0]).attempts >= tries + 2, 120, "tries after the clock was set")
            assert films.delivery(films.uids[0]).state is not DeliveryState.REFUSED, "given up for time that never passed"
            pacs.answer = 0x0000
            films.all_are(DeliveryState.DELIVERED, seconds=120)
    assert pacs.lost(films.sources) == []
    assert pacs.doubled() == []
