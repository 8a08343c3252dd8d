"""A stable code with the sentence that a person reads: why a film was skipped, or what was assumed about an answered film."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """Members are defined as (code, sentence); the value of a member is its code."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member
