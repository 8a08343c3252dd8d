"""Counting associations over processes: nothing that fails costs a slot."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from dicom_node.receive.association_limit import AssociationLimit
from dicom_node.runtime.config_sections import Receive


@pytest.mark.parametrize("fails", [errno.ENOLCK, errno.EOVERFLOW, errno.EINTR])
def test_a_lock_that_fails_costs_no_seat(fails: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of the two locks of an association cannot be had. Result: the first is given back, for others too."""
    limit, real, given_back = AssociationLimit(tmp_path / "associations", total=1, per_host=1), fcntl.lockf, []

    def lockf(file: int, what: int, length: int, byte: int) -> None:
        if what != fcntl.LOCK_UN and byte >= 2**20:
            raise OSError(fails, "no")
        given_back.extend([byte] if what == fcntl.LOCK_UN else [])
        real(file, what, length, byte)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", lockf)
        for _ in range(3):
            with pytest.raises(OSError, match="no"):
                limit.acquire("10.0.0.1")
    assert given_back == [0, 0, 0]
    assert limit.acquire("10.0.0.1") is not None and limit.acquire("10.0.0.2") is None


def test_a_seat_whose_locks_cannot_be_given_back_is_free_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = AssociationLimit(tmp_path / "associations", total=1, per_host=1)
    slot = limit.acquire("10.0.0.1")
    assert slot is not None
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no")))
        limit.release(slot)
    assert limit.acquire("10.0.0.1") == slot


def test_the_largest_numbers_that_may_be_configured_can_be_counted(tmp_path: Path) -> None:
    """Where the bytes of a host begin is its number of 48 bits times its share: it must stay below 2**63."""
    most = {name: next(one.le for one in Receive.model_fields[name].metadata if hasattr(one, "le"))
            for name in ("max_associations", "max_per_host")}  # fmt: skip
    assert most["max_associations"] <= 2**20 and 2**20 + 2**48 * most["max_per_host"] < 2**63
    limit = AssociationLimit(tmp_path / "associations", total=most["max_associations"], per_host=most["max_per_host"])
    assert all(limit.acquire(f"10.0.{n}.1") for n in range(50))
