"""An error that nobody gave a message says a sentence all the same."""

from __future__ import annotations

import inspect

import pytest

from dicom_node.runtime import errors

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_sentence_of_its_own(kind: type[errors.NodeError]) -> None:
    sentence = str(kind())
    assert sentence.endswith("."), sentence
    assert [other for other in CLASSES if str(other()) == sentence] == [kind], "its parent's"


def test_a_message_that_is_given_stands_alone() -> None:
    assert str(errors.LostClaim("job 12 was taken over")) == "job 12 was taken over"
