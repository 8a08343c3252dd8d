"""Every answer to our C-STORE has one meaning, and every status a sentence."""

import pytest

from dicom_node.dimse.status import Status, Verdict, named, sentence, verdict

TABLE = [
    (0x0000, Verdict.DELIVERED),
    (0x0111, Verdict.DELIVERED),
    (0xB000, Verdict.WARNED),
    (0xB006, Verdict.WARNED),
    (0xB007, Verdict.WARNED),
    (0xB123, Verdict.WARNED),
    (0x0107, Verdict.WARNED),
    (0xA700, Verdict.TRY_LATER),
    (0xA7FF, Verdict.TRY_LATER),
    (0x0110, Verdict.TRY_LATER),
    (0x0210, Verdict.TRY_LATER),
    (0x0213, Verdict.TRY_LATER),
    (0xFE00, Verdict.TRY_LATER),
    (0x1234, Verdict.TRY_LATER),
    (0x0117, Verdict.REFUSED),
    (0x0118, Verdict.REFUSED),
    (0x0122, Verdict.REFUSED),
    (0x0124, Verdict.REFUSED),
    (0x0211, Verdict.REFUSED),
    (0x0212, Verdict.REFUSED),
    (0x0106, Verdict.REFUSED),
    (0xA800, Verdict.REFUSED),
    (0xA900, Verdict.REFUSED),
    (0xA9AB, Verdict.REFUSED),
    (0xC000, Verdict.REFUSED),
    (0xC211, Verdict.REFUSED),
    (0xCFFF, Verdict.REFUSED),
]


@pytest.mark.parametrize(("status", "expected"), TABLE, ids=lambda value: f"{value:04X}" if isinstance(value, int) else "")
def test_verdict(status: int, expected: Verdict) -> None:
    assert verdict(status) is expected


def test_every_16_bit_status_has_a_verdict_and_a_sentence_with_its_code() -> None:
    for status in range(0x10000):
        assert isinstance(verdict(status), Verdict)
        assert f"({status:04X})" in sentence(status)


def test_every_named_status_speaks_for_itself() -> None:
    texts = {sentence(status).rpartition(" (")[0] for status in Status}
    assert len(texts) == len(Status)
    assert all(named(status) is status for status in Status)
