"""A file that the spool has returned survives; one that it has not leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dicom_node.runtime.errors import DiskReserve, NodeError, SpoolError
from dicom_node.storage.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", reserve_bytes=0)


def files(spool: Spool) -> list[str]:
    rooms = (spool.directory / "arrivals", spool.directory / "job")
    return [str(file) for room in rooms for file in room.rglob("*") if file.is_file()]


def test_a_film_is_stored_under_a_name_of_ours(spool: Spool) -> None:
    stored = spool.write([b"pixel", b"data"], head=b"meta")
    assert stored.path.startswith("arrivals/") and stored.path.endswith(".dcm")
    assert spool.read(stored.path) == b"metapixeldata"
    assert stored.size == 13
    assert stored.sha256 == hashlib.sha256(b"pixeldata").hexdigest()


def test_nobody_else_can_read(spool: Spool) -> None:
    stored = spool.write(b"film")
    folder = spool.folder_for("job1", "token")
    spool.write_into(folder, "seg.dcm", b"mask")
    for file in spool.directory.rglob("*"):
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode == (0o700 if file.is_dir() else 0o600), file
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    assert stored.path in {Path(file).relative_to(spool.directory).as_posix() for file in files(spool)}


def test_power_cut_order(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is synced before the rename, and the rename before the return."""
    trace: list[str] = []
    real = {name: getattr(os, name) for name in ("write", "fsync", "rename")}

    def name_of(descriptor: int) -> str:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return "folder" if os.path.isdir(path) else Path(path).suffix

    monkeypatch.setattr(os, "write", lambda fd, data: (trace.append(f"write {name_of(fd)}"), real["write"](fd, data))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (trace.append(f"fsync {name_of(fd)}"), real["fsync"](fd))[1])
    monkeypatch.setattr(os, "rename", lambda a, b: (trace.append("rename"), real["rename"](a, b))[1])
    monkeypatch.setattr("secrets.token_hex", lambda _, ids=iter(("aa1", "aa2")): next(ids))
    a_film = ["write .part", "write .part", "fsync .part", "rename", "fsync folder"]

    spool.write(b"film", head=b"meta")
    assert trace == ["fsync folder", *a_film]  # the shelf is new to this process

    trace.clear()
    spool.write(b"film", head=b"meta")
    assert trace == a_film

    trace.clear()
    folder = spool.folder_for("job1", "token")
    assert trace == ["fsync folder", "fsync folder"]  # the new folders are durable before anything is in them

    trace.clear()
    spool.write_into(folder, "seg.dcm", b"mask")
    assert trace == ["write .part", "fsync .part", "rename", "fsync folder"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failing_disk_leaves_nothing_behind(spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(SpoolError, match="Input/output error"):
            spool.write(b"film")
    assert files(spool) == []
    assert spool.read(spool.write(b"film").path) == b"film"


def test_a_folder_that_cannot_be_synced_leaves_nothing_behind(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Result: the file was renamed already, and is removed again."""
    real = os.fsync

    def fail_on_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_folders)
    with pytest.raises(SpoolError):
        spool.write(b"film")
    assert files(spool) == []


def test_two_writes_of_one_object_do_not_disturb_each_other(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker far away that hears nothing sends its object again while the first writer still waits for the disk."""
    folder, again = spool.folder_for("job1", "token"), []
    real = os.fsync

    def slow(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        again.append(spool.write_into(folder, "seg.dcm", b"mask"))  # meanwhile
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(SpoolError):
        spool.write_into(folder, "seg.dcm", b"mask")
    assert spool.read(again[0].path) == b"mask", "what was answered is there"
    assert files(spool) == [str(spool.directory / again[0].path)]


def test_short_writes_are_continued(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    assert spool.read(spool.write(b"a long film").path) == b"a long film"


def test_the_reserve_is_never_touched(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", reserve_bytes=2**62)
    with pytest.raises(DiskReserve, match=r"node\.reserve_mb"):
        spool.write(b"film")
    assert files(spool) == []


def test_the_film_itself_counts_against_the_reserve(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "free_bytes", lambda: 1000)
    spool.write(b"x" * 1000)
    with pytest.raises(DiskReserve):
        spool.write(b"x" * 1001)


@pytest.mark.parametrize("path", ["../outside", "arrivals/../../outside", "/etc/passwd", "", "arrivals//x", "a\0b", "."])
def test_no_path_leads_outside(spool: Spool, path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        spool.read(path)
    with pytest.raises(ValueError, match="not a path inside"):
        spool.delete(path)
    with pytest.raises(ValueError, match="not a path inside"):
        spool.write_into(path, "seg.dcm", b"")


def test_delete_takes_the_empty_folders_of_a_result_along(spool: Spool) -> None:
    folder = spool.folder_for("job1", "token")
    stored = spool.write_into(folder, "seg.dcm", b"mask")
    spool.delete(stored.path)
    spool.delete(stored.path)  # gone already
    assert list((spool.directory / "job").iterdir()) == []


def test_old_files_that_no_row_names_are_removed(spool: Spool) -> None:
    known, lost, young = (spool.write(name) for name in (b"known", b"lost", b"young"))
    loser = spool.write_into(spool.folder_for("job1", "late"), "seg.dcm", b"mask")
    half = spool.directory / lost.path.replace(".dcm", "half.dcm.part")
    half.write_bytes(b"half")
    empty = spool.folder_for("job2", "killed before its first object")
    an_hour_ago = time.time() - 3601
    for path in (empty, known.path, lost.path, loser.path, half.relative_to(spool.directory)):
        os.utime(spool.directory / path, (an_hour_ago, an_hour_ago))

    removed = spool.remove_orphans({known.path})

    assert sorted(removed) == sorted([lost.path, loser.path, half.relative_to(spool.directory).as_posix()])
    assert sorted(files(spool)) == sorted(str(spool.directory / one.path) for one in (known, young))
    assert not (spool.directory / "job" / "job2").exists()


def test_a_second_instance_stays_out_and_a_killed_one_does_not_block(spool: Spool) -> None:
    """Scenario: `receive` runs, another one is started, the first is killed with -9, the second is started again."""
    program = (
        "import sys, time; from pathlib import Path; from dicom_node.storage.spool import Spool\n"
        "with Spool(Path(sys.argv[1]), 0).lock('receive'): print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(spool.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "locked\n"
        with pytest.raises(NodeError, match=rf"another `receive` runs on this spool \(process {first.pid}\)"):
            spool.lock("receive").__enter__()
        with spool.lock("work"):
            pass  # another verb is another lock
        first.kill()
    with spool.lock("receive"):
        pass
