"""What a power cut finds on the disk: the order of writes, as the kernel saw it (strace of a whole node)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from quick_model import quick_film, quick_settings
from rude_pacs import RudePacs
from servers import Node, store, wait_for
from system_calls import OPTIONS, Call, first, is_sync, read_trace

from dicom_node.cli.supervisor import running


class Trace(NamedTuple):
    """One film's way through a node that has just been made."""

    calls: list[Call]
    directory: Path  # of the node
    port: int
    pacs_port: int
    film: str  # its path in the spool
    result: str  # its object's path in the spool

    @property
    def wal(self) -> str:
        return f"{self.directory}/ledger.sqlite-wal"

    def committed(self, path: str) -> Call:
        """The sync of the transaction that names the file `path`."""
        wrote = first(self.calls, f"row of {path}", lambda c: c.name == "pwrite64" and c.path == self.wal and path in c.text)
        return first(
            self.calls,
            f"sync of the row of {path}",
            lambda c: is_sync(c, self.wal) and c.thread == wrote.thread and c.begin > wrote.end,
        )

    def file_is_safe(self, path: str) -> Call:
        """Written, synced, renamed, folder synced, each after the one before; the last of them."""
        final = f"{self.directory}/spool/{path}"
        renamed = first(self.calls, "rename", lambda c: c.name.startswith("rename") and c.target == final)
        part = renamed.path
        written = [c for c in self.calls if c.name == "write" and c.path == part]
        synced = first(self.calls, "sync of the file", lambda c: is_sync(c, part))
        folder = first(
            self.calls, "sync of its folder", lambda c: is_sync(c, str(Path(final).parent)) and c.begin > renamed.end
        )
        assert written and max(c.end for c in written) < synced.begin, "written after the sync"
        assert synced.end < renamed.begin, "renamed before it was synced"
        return folder

    def folders_are_safe(self, before: Call) -> None:
        """Every folder that was made before this call has its entry synced in the folder above, before this call."""
        made = [c for c in self.calls if c.name.startswith("mkdir") and c.ok and c.end < before.begin]
        made = [c for c in made if c.path.startswith(str(self.directory)) and "/lock" not in c.path]
        assert made
        for one in made:
            above = str(Path(one.path).parent)
            first(
                self.calls,
                f"sync of {above} after {one.path} was made in it",
                lambda c, above=above, one=one: is_sync(c, above) and c.begin > one.end and c.end < before.begin,
            )


@pytest.fixture(scope="module")
def trace(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Trace:
    strace, folder = tool("strace"), tmp_path_factory.mktemp("traced")
    output = folder / "trace"
    with RudePacs().serving() as pacs:
        node = Node(folder, ("PACS", pacs.port), quick_settings())
        command = [strace, *OPTIONS, "-o", str(output), sys.executable, "-m", "dicom_node.cli.main", "run"]
        log = (folder / "node.log").open("ab")
        tracer = subprocess.Popen(
            [*command, "--config", str(node.config_file)], stdout=log, stderr=log, env=os.environ | dict(node.settings)
        )
        try:
            wait_for(lambda: running(node.config), 120, f"the node (log: {node.log_text()[-1000:]})")
            source = quick_film(70)
            assert store(source, node.port) == 0x0000
            [delivery] = [one for one in node.delivered(source.SOPInstanceUID) if one.object.role == "seg"]  # it goes first
            film = node.job_of(source.SOPInstanceUID).arrival.path
        finally:
            state = running(node.config)
            if state is not None:
                os.kill(int(str(state["pid"])), signal.SIGTERM)
            try:
                tracer.wait(120)
            except subprocess.TimeoutExpired:
                tracer.kill()
    return Trace(read_trace(output), node.config.node.directory, node.port, pacs.port, film, delivery.object.path)


def said(trace: Trace, what: str, line: str) -> Call:
    """The first P-DATA-TF (PS3.8 9.3.5) that left by this line."""
    names = ("sendto", "sendmsg")
    return first(trace.calls, what, lambda c: c.name in names and line in c.path and '>, "\\4\\0' in c.text)


def test_success_is_said_when_the_film_survives_a_power_cut(trace: Trace) -> None:
    answer = said(trace, "C-STORE response", f":{trace.port}->")
    safe, committed = trace.file_is_safe(trace.film), trace.committed(trace.film)
    assert safe.end < committed.begin, "the row was committed before its file was safe"
    assert committed.end < answer.begin, "0000 was said before the commit was on the disk"
    trace.folders_are_safe(before=answer)


def test_an_object_goes_out_when_its_bytes_and_its_row_survive_a_power_cut(trace: Trace) -> None:
    """Else a second run after the power cut would make other bytes under a UID that the PACS has already."""
    on_the_wire = said(trace, "object on the wire", f"->127.0.0.1:{trace.pacs_port}]")
    safe, committed = trace.file_is_safe(trace.result), trace.committed(trace.result)
    assert safe.end < committed.begin, "the result was committed before its bytes were safe"
    assert committed.end < on_the_wire.begin, "the object went out before the result was committed"
    trace.folders_are_safe(before=committed)
    sent = [c for c in trace.calls if c.path == trace.wal and committed.end < c.begin and c.end < on_the_wire.begin]
    marked = [c for c in sent if c.thread != committed.thread]
    assert [c.name for c in marked if c.ok][-1:] == ["fdatasync"], "it was not marked as sent, durably, before it went out"
