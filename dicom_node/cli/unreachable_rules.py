"""Which of [[rules]] can never match, and why: found from the configuration alone, before a film finds out.

Patterns are compared as text, and by their values where they list them ("^(CR|DX)$"). A rule named here can never match;
one that is not named may still match nothing, where this cannot be decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Rule

_LISTED = re.compile(r"\^(?:\((?:\?:)?([\w /-]+(?:\|[\w /-]+)*)\)|([\w /-]+))\$")
_PLAIN = re.compile(r"\^?([\w /-]+)\$?")
_EVERYTHING = ("", ".", ".*", ".+", "^.*$", "^.+$", "^", "$")  # of values that are there; an absent one matches nothing


def unreachable(config: Config) -> Iterator[tuple[str, str]]:
    """(name of the rule, sentence with the remedy) for each that can never match, or says something that has no effect."""
    callers = tuple(config.receive.allowed)
    titles = (config.receive.ae_title, *config.receive.also_called)
    earlier: list[Rule] = []
    for rule in config.rules:
        problems = (_no_such_ae(rule, callers, titles), _contradiction(rule), _shadowed(rule, earlier, callers, titles))
        for sentence in filter(None, problems):
            yield rule.name, sentence
            break
        earlier.append(rule)


def unknown_urgent(config: Config) -> tuple[str, ...]:
    """AE titles of queue.urgent_from that may not send: they are never seen."""
    return tuple(ae for ae in config.queue.urgent_from if ae not in config.receive.allowed)


def _no_such_ae(rule: Rule, callers: tuple[str, ...], titles: tuple[str, ...]) -> str | None:
    wanted = (
        ("calling_ae", rule.calling_ae, callers, "is not in [receive.allowed]"),
        ("called_ae", rule.called_ae, titles, "is neither receive.ae_title nor in receive.also_called"),
    )
    for key, named, known, sentence in wanted:
        missing = [ae for ae in named if ae not in known]
        if missing:
            never = "it never matches" if len(missing) == len(named) else "that part of it never matches"
            return f"{key} {', '.join(missing)} {sentence}: {never}; add the AE title there, or correct it here"
    return None


def _contradiction(rule: Rule) -> str | None:
    if rule.mode == "ignore" and (rule.destinations or rule.priority):
        return 'mode = "ignore" answers nothing, so destinations and priority have no effect; remove them, or change the mode'
    for keyword, pattern in rule.all_of.items():
        if _excludes(rule.none_of, keyword, pattern):
            return f"all_of and none_of contradict each other for {keyword}: it never matches; correct one of them"
    if rule.any_of and all(
        _excludes(rule.none_of, keyword, pattern) or _disjoint(rule.all_of.get(keyword), pattern)
        for keyword, pattern in rule.any_of.items()
    ):
        return f"any_of ({', '.join(rule.any_of)}) is contradicted by all_of or none_of: it never matches; correct one of them"
    return None


def _excludes(none_of: Mapping[str, str], keyword: str, pattern: str) -> bool:
    """Whether every value that `pattern` takes is one that `none_of` forbids."""
    return keyword in none_of and _within(pattern, none_of[keyword])


def _disjoint(pattern: str | None, other: str) -> bool:
    """Whether no value is taken by both, as far as one of them lists its values."""
    if pattern is None:
        return False
    for lists, asks in ((pattern, other), (other, pattern)):
        values = _listed(lists)
        if values and not any(_found(asks, value) for value in values):
            return True
    return False


def _shadowed(rule: Rule, earlier: Iterable[Rule], callers: tuple[str, ...], titles: tuple[str, ...]) -> str | None:
    """By rules before it which take every film that it would match: each pair of AE titles has one."""
    implied = [one for one in earlier if _implied(one, rule)]
    pairs = list(product(rule.calling_ae or callers or ("",), rule.called_ae or titles))
    before = {next((one.name for one in implied if _admits(one, *pair)), None) for pair in pairs}
    if None in before:
        return None
    names = " and ".join(repr(one.name) for one in implied if one.name in before)
    return f"every film that it could match is taken by {names} before it: it never matches; move it up, or remove it"


def _admits(rule: Rule, calling: str, called: str) -> bool:
    return calling in (rule.calling_ae or (calling,)) and called in (rule.called_ae or (called,))


def _implied(before: Rule, rule: Rule) -> bool:
    """Whether the header conditions of `before` hold for every film for which those of `rule` do."""
    return (
        all(_surely(rule, keyword, pattern) for keyword, pattern in before.all_of.items())
        and (not before.any_of or _any_surely(before, rule))
        and all(_surely_not(rule, keyword, pattern) for keyword, pattern in before.none_of.items())
    )


def _surely(rule: Rule, keyword: str, pattern: str) -> bool:
    """Whether each film of `rule` has a value that `pattern` takes."""
    if keyword in rule.all_of and _within(rule.all_of[keyword], pattern):
        return True
    return set(rule.any_of) == {keyword} and _within(rule.any_of[keyword], pattern)


def _any_surely(before: Rule, rule: Rule) -> bool:
    if any(_surely(rule, keyword, pattern) for keyword, pattern in before.any_of.items()):
        return True
    takes = before.any_of
    return bool(rule.any_of) and all(k in takes and _within(p, takes[k]) for k, p in rule.any_of.items())


def _surely_not(rule: Rule, keyword: str, pattern: str) -> bool:
    forbidden = rule.none_of.get(keyword)
    return (forbidden is not None and _within(pattern, forbidden)) or _disjoint(rule.all_of.get(keyword), pattern)


def _within(pattern: str, other: str) -> bool:
    """Whether each value that `pattern` takes is taken by `other`."""
    if other in (pattern, *_EVERYTHING):
        return True
    words = _PLAIN.fullmatch(pattern)
    if words is not None and other in words[1] and _PLAIN.fullmatch(other):  # "CHEST" is found wherever "CHEST PA" is
        return True
    values = _listed(pattern)
    return bool(values) and all(_found(other, value) for value in values)


def _listed(pattern: str) -> tuple[str, ...]:
    """The values of a pattern that lists them all, such as "^(CR|DX)$"; () for another one."""
    found = _LISTED.fullmatch(pattern)
    return () if found is None else tuple((found[1] or found[2]).split("|"))


def _found(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:  # written for another engine: not decided
        return False
