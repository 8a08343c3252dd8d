"""A stable code with the sentence that a person reads: why a film was skipped, what was assumed about one that was not."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """Members are written as (code, sentence); a member is its code."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member
