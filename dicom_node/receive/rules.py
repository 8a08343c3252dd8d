"""What becomes of a film, decided when it arrives: by who brought it, whom it called, and what its header says.

The first of [[rules]] that matches decides; what it leaves open, [send] and [queue] say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Queue, Rule
from dicom_node.runtime.patterns import Pattern, compiled, found_in
from dicom_node.storage.part10 import UNREADABLE, header

Patterns = Mapping[str, Pattern]

MOST_CHARACTERS = 1024  # of a value that patterns see: what stands further on is no name of anything


@dataclass(frozen=True)
class RuleDecision:
    """`rule`: the name of the one that decided, "" when none did; `why`: what of it matched, names only, never a value of
    the header. `destinations` None: send.destinations."""

    queue: Literal["urgent", "normal"] = "normal"
    mode: Literal["live", "shadow", "ignore"] = "live"
    rule: str = ""
    why: str = ""
    destinations: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Compiled:
    rule: Rule
    all_of: Patterns
    any_of: Patterns
    none_of: Patterns


class Rules:
    """[queue] and [[rules]], compiled."""

    def __init__(self, queue: Queue, rules: Iterable[Rule] = ()) -> None:
        self._from = frozenset(queue.urgent_from)
        self._when = _compiled(queue.urgent_when)
        self._rules = [_Compiled(rule, *map(_compiled, (rule.all_of, rule.any_of, rule.none_of))) for rule in rules]
        self._keywords = sorted({*self._when, *(k for one in self._rules for k in (*one.all_of, *one.any_of, *one.none_of))})

    @classmethod
    def of(cls, config: Config) -> Rules:
        """Those of the configuration."""
        return cls(config.queue, config.rules)

    def decide(self, calling_ae: str, called_ae: str, dataset: memoryview, transfer_syntax_uid: str) -> RuleDecision:
        """`dataset`: encoded, without File Meta. A header that cannot be read matches no pattern. Never raises."""
        found = header(dataset, transfer_syntax_uid, self._keywords) if self._keywords else Dataset()
        values = {keyword: _value(found, keyword) for keyword in self._keywords}
        urgent = calling_ae in self._from or any(_matches(values, k, p) for k, p in self._when.items())
        queue: Literal["urgent", "normal"] = "urgent" if urgent else "normal"
        for one in self._rules:
            why, rule = _why(one, calling_ae, called_ae, values), one.rule
            if why is not None:
                return RuleDecision(rule.priority or queue, rule.mode, rule.name, why, rule.destinations)
        return RuleDecision(queue)


def _why(one: _Compiled, calling_ae: str, called_ae: str, values: Mapping[str, str]) -> str | None:
    """Why the rule matches, None when it does not. An empty condition holds for every film."""
    said, aes = [], (("calling_ae", one.rule.calling_ae, calling_ae), ("called_ae", one.rule.called_ae, called_ae))
    for name, wanted, actual in aes:
        if wanted and actual not in wanted:
            return None
        said += [f"{name} is {actual}"] if wanted else []
    all_of, any_of, none_of = (
        [k for k, p in group.items() if _matches(values, k, p)] for group in (one.all_of, one.any_of, one.none_of)
    )
    if len(all_of) < len(one.all_of) or none_of or (one.any_of and not any_of):
        return None
    said += [f"{k} matches" for k in (*all_of, *any_of)] + [f"{k} does not match" for k in one.none_of]
    return ", ".join(said) or "it has no condition"


def _compiled(patterns: Mapping[str, str]) -> dict[str, Pattern]:
    return {keyword: compiled(pattern) for keyword, pattern in patterns.items()}


def _matches(values: Mapping[str, str], keyword: str, pattern: Pattern) -> bool:
    return bool(values[keyword]) and found_in(pattern, values[keyword])


def _value(found: Dataset, keyword: str) -> str:
    try:
        return str(found.get(keyword, ""))[:MOST_CHARACTERS]
    except UNREADABLE:
        return ""
