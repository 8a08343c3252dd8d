"""When to try again: a pure decision, tested as a table."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.dimse.status import Verdict
from dicom_node.storage.records import DeliveryState


@dataclass(frozen=True)
class Policy:
    """All in seconds. The wait doubles from `first_delay` up to `max_delay`; after `give_up` the delivery is refused."""

    first_delay: float
    max_delay: float
    give_up: float


@dataclass(frozen=True)
class Decision:
    """The delivery's next state."""

    state: DeliveryState
    delay: float = 0.0  # seconds until the next try, when the state is PENDING


def decide(verdict: Verdict, attempts: int, age: float, policy: Policy, jitter: float) -> Decision:
    """What follows from one try, by its verdict.

    `attempts`: tries so far, this one included; `age`: seconds since the delivery was created; `jitter`: a random
    number in [0, 1) that spreads the tries of many deliveries over the second half of the wait.
    """
    if verdict in (Verdict.DELIVERED, Verdict.WARNED):
        return Decision(DeliveryState.DELIVERED)
    if verdict is Verdict.REFUSED or age >= policy.give_up:
        return Decision(DeliveryState.REFUSED)
    wait = min(policy.max_delay, policy.first_delay * 2.0 ** min(attempts - 1, 30))
    return Decision(DeliveryState.PENDING, wait * (0.5 + 0.5 * jitter))
