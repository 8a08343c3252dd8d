"""Hosts of a test: network namespaces that share one wire, whose links can be cut. Loopback and made addresses only."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Hosts:
    """`names` are the hosts; the n-th (from 1) has the address 10.203.77.n on a bridge that only they are on."""

    names: Sequence[str]
    prefix: str = field(default_factory=lambda: f"t{secrets.token_hex(2)}")

    def address(self, name: str) -> str:
        return f"10.203.77.{self.names.index(name) + 1}"

    def inside(self, name: str) -> list[str]:
        """The beginning of a command that runs on this host."""
        return ["ip", "netns", "exec", self._space(name)]

    def knows(self, name: str, other: str, address: str) -> None:
        """On this host the name `other` means `address` (`ip netns exec` lays the file over /etc/hosts)."""
        folder = Path("/etc/netns", self._space(name))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {other}\n")

    def cut(self, name: str) -> None:
        _ip("netns", "exec", self._space(name), "ip", "link", "set", "wire", "down")

    def mend(self, name: str) -> None:
        _ip("netns", "exec", self._space(name), "ip", "link", "set", "wire", "up")

    def make(self) -> None:
        switch = self._space("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, name in enumerate(self.names):
            space = self._space(name)
            _ip("netns", "add", space)
            _ip("-n", switch, "link", "add", f"port{number}", "type", "veth", "peer", "name", "wire", "netns", space)
            _ip("-n", switch, "link", "set", f"port{number}", "master", "bridge")
            _ip("-n", switch, "link", "set", f"port{number}", "up")
            _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "wire")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", "wire", "up")

    def remove(self) -> None:
        for name in (*self.names, "switch"):
            subprocess.run(["ip", "netns", "del", self._space(name)], capture_output=True)
            shutil.rmtree(Path("/etc/netns", self._space(name)), ignore_errors=True)

    def _space(self, name: str) -> str:
        return f"{self.prefix}-{name}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def can_be_made() -> str | None:
    """Why there can be no hosts here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"t{secrets.token_hex(2)}-probe"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode == 0:  # a chroot lets them be made, and not be used
        done = subprocess.run(["ip", "netns", "exec", name, "true"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return None if done.returncode == 0 else f"no network namespaces here ({done.stderr.strip()})"


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    made = Hosts(names)
    try:
        made.make()
        yield made
    finally:
        made.remove()
