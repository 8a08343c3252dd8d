"""A PACS that is down, full, slow, rude or strict: nothing is lost there and nothing is there twice.

The sender is the real one, the PACS a real SCP that writes down every object it was ever sent.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import pytest
from answered_films import SEG, AnsweredFilms
from click.testing import CliRunner
from rude_pacs import ABORT, CLOSE, LATE, RudePacs
from servers import free_port, wait_for

from dicom_node.cli.main import main
from dicom_node.storage.records import DeliveryState


@pytest.fixture
def pacs() -> RudePacs:
    return RudePacs(free_port())


def bytes_are_ours(pacs: RudePacs, films: AnsweredFilms) -> bool:
    return all(one.sha256 == films.sha256[one.uid] for one in pacs.records)


def test_a_bad_night_of_the_pacs_loses_nothing_and_doubles_nothing(tmp_path: Path, pacs: RudePacs) -> None:
    """Down, then rejecting, then up with every trouble that passes, down again in the middle, then well.

    Result: every object is there once; the one whose answer came too late was sent twice, with the same bytes.
    """
    films = AnsweredFilms(tmp_path, pacs.port, 12)
    late, closing, aborting, full, busy, rude = films.uids[:6]
    for uid, troubles in {
        late: [LATE], closing: [CLOSE, CLOSE], aborting: [ABORT], full: [0xA700, 0xA7FF], busy: [0x0110, 0x0213],
        rude: [CLOSE, 0xA700, ABORT, LATE],
    }.items():  # fmt: skip
        pacs.script[uid] = deque(troubles)
    with films.sending():
        wait_for(lambda: all(films.delivery(uid).attempts for uid in films.uids), 120, "a try while the PACS is down")
        pacs.closed_to_us = True
        with pacs.serving():
            wait_for(lambda: "rejected" in (films.delivery(late).reason or ""), 120, "a rejection")
        assert not pacs.records
        pacs.closed_to_us = False
        with pacs.serving():
            wait_for(lambda: len(pacs.records) >= 4, 120, "objects at the PACS")
        with pacs.serving():
            films.all_are(DeliveryState.DELIVERED)
    assert not any(pacs.script.values()), "a trouble did not happen"
    assert pacs.lost(films.sources) == []
    assert pacs.doubled() == []
    assert bytes_are_ours(pacs, films)
    assert len([one for one in pacs.records if one.uid == late]) >= 2, "its answer came after our time-out: it goes again"
    assert all(films.delivery(uid).attempts >= 2 for uid in (closing, aborting, full, busy))


def test_a_refusal_for_good_is_not_repeated_and_retry_sends_the_same_bytes(tmp_path: Path, pacs: RudePacs) -> None:
    """0122, A900, C000, 0124 and a SOP class without a context; after mending, `retry` at the command line."""
    films = AnsweredFilms(tmp_path, pacs.port, 5)
    no_context = films.add(sop_class=SEG)
    statuses = dict(zip(films.uids, (0x0122, 0xA900, 0xC000, 0x0124, 0xC123), strict=False))
    pacs.answer = statuses.__getitem__
    pacs.classes = ["1.2.840.10008.5.1.4.1.1.7"]
    with films.sending():
        with pacs.serving():
            films.all_are(DeliveryState.REFUSED)
            threading.Event().wait(1.0)  # longer than any wait between two tries
        assert {uid: films.delivery(uid).status for uid in films.uids} == {**statuses, no_context: None}
        assert [films.delivery(uid).attempts for uid in films.uids] == [1] * 6
        assert len(pacs.records) == 5
        assert "presentation context" in (films.delivery(no_context).reason or "")
        pacs.answer, pacs.classes = 0x0000, None
        for job in films.jobs:
            done = CliRunner().invoke(main, ["retry", job, "--config", str(films.config_file)])
            assert done.exit_code == 0, done.output
        with pacs.serving():
            films.all_are(DeliveryState.DELIVERED)
    assert pacs.lost(films.sources) == []
    assert pacs.doubled() == []
    assert bytes_are_ours(pacs, films)
    assert len(pacs.records) == 5 + 6
