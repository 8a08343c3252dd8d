"""Rows of the conformance statement about statuses, found by asking the code that answers and judges them (PS3.7 annex C)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator

from pynetdicom.status import GENERAL_STATUS

from dicom_node.dimse.commitment_report import EventStatus
from dicom_node.dimse.status import StoreResponse, Verdict, named, sentence, verdict
from dicom_node.runtime.config import Config
from dicom_node.send.backoff import Policy, decide
from dicom_node.send.commitment_request import PERMANENT
from dicom_node.storage.records import DeliveryState

Row = tuple[object, ...]
_FOLLOWS = {
    DeliveryState.DELIVERED: "delivered, never sent again",
    DeliveryState.PENDING: "sent again with identical bytes, for {give_up_days:g} days",
    DeliveryState.REFUSED: "refused, not sent again: fix the cause, then run `segmenter-worker retry JOB`",
}


def c_store_sent() -> list[Row]:
    """What RECEIVER answers to a C-STORE (PS3.4 B.2.3)."""
    return [(f"{one.value.status:04X}", one.value.comment, one.value.when, one.value.advice) for one in StoreResponse]


def c_store_received(config: Config) -> list[Row]:
    """What follows from each status of a C-STORE response, equal ones together."""
    groups = _alike()
    undefined = max(groups, key=lambda key: len(groups[key]))
    rows = []
    for (meaning, judged), statuses in groups.items():
        codes = "any other" if (meaning, judged) == undefined else ", ".join(_ranges(statuses))
        rows.append((codes, meaning, what_follows(judged.name, config)))
    return list(sorted(rows, key=lambda row: (row[0] == "any other", row[0])))


def n_action_received(config: Config) -> list[Row]:
    """What follows from each status of an N-ACTION response (PS3.4 J.3.2)."""
    later = f"requested again after {config.send.commit_again_hours:g} hours or more"
    return [
        ("0000", "Success", "wait for the report"),
        *((f"{code:04X}", GENERAL_STATUS[code][1], later) for code in PERMANENT),
        ("any other, or none", "", "requested again, with increasing delays"),
    ]


def n_event_report_sent() -> list[Row]:
    """What both entities answer to an N-EVENT-REPORT (PS3.4 J.3.3)."""
    return [(f"{one.value:04X}", one.when) for one in EventStatus]


def what_follows(judged: str, config: Config) -> str:
    """After a try with the verdict of this name."""
    policy = Policy(config.send.first_delay_seconds, config.send.max_delay_seconds, config.send.give_up_days * 86_400)
    decision = decide(Verdict[judged], 1, 0.0, policy, 0.0)
    return _FOLLOWS[decision.state].format(give_up_days=config.send.give_up_days)


@functools.cache
def _alike() -> dict[tuple[str, Verdict], list[int]]:
    """All 65,536 statuses, those together that mean the same to us: (meaning, verdict) -> statuses."""
    groups: dict[tuple[str, Verdict], list[int]] = {}
    for status in range(0x10000):
        known = named(status)
        meaning = sentence(known).rpartition(" (")[0] if known is not None else "(no meaning of its own)"
        groups.setdefault((meaning, verdict(status)), []).append(status)
    return groups


def _ranges(statuses: Iterable[int]) -> Iterator[str]:
    for _, group in itertools.groupby(enumerate(statuses), lambda pair: pair[1] - pair[0]):
        run = [status for _, status in group]
        yield f"{run[0]:04X}" if len(run) == 1 else f"{run[0]:04X}-{run[-1]:04X}"
