"""Why nothing can be sent, said by real peers: whose AE title, whose certificate, which port, which name."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from certificates import Authority, Pair
from echo_scu import echo
from receiver_node import running as receiving
from servers import free_port, running_orthanc, wait_for

from dicom_node.runtime.config import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def ca(folder: Path) -> Authority:
    return Authority(folder, "ca")


@pytest.fixture(scope="module")
def other(folder: Path) -> Authority:
    return Authority(folder, "other")


def said(folder: Path, port: int, peer: str = "", host: str = "127.0.0.1", send: str = "") -> str:
    """What `check` says of a destination, and `show JOB` of a delivery to it."""
    file = folder / "config.toml"
    file.write_text(
        f"[peers.PACS]\nhost = '{host}'\nport = {port}\n{peer}\n[send]\ndestinations = ['PACS']\nconnect_seconds = 3\n{send}\n"
    )
    return echo(load(file), "PACS") or ""


@contextmanager
def program(*command: str | Path, port: int) -> Iterator[int]:
    """A server of somebody else on loopback, once it listens."""
    process = subprocess.Popen([str(one) for one in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port), 120, str(command[0]))
        yield port
    finally:
        process.kill()
        process.wait(120)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_orthanc_says_whose_ae_title_it_does_not_know(tool: Callable[[str], str], folder: Path) -> None:
    ours = {"us": {"AET": "PTXSEG", "Host": "127.0.0.1", "Port": 1, "AllowEcho": True}}
    closed = {"DicomAlwaysAllowEcho": False, "DicomAlwaysAllowFind": False, "DicomAlwaysAllowGet": False}
    closed |= {"DicomAlwaysAllowStore": False}
    with running_orthanc(tool("Orthanc"), folder / "orthanc", modalities=ours, more=closed) as orthanc:
        called = said(folder, orthanc.dicom_port)
        assert "PACS is not its AE title; correct peers.PACS.ae_title" in called
        calling = said(folder, orthanc.dicom_port, "ae_title = 'ORTHANC'", send="ae_title = 'NOBODY'")
        assert "does not know our AE title" in calling and "NOBODY" in calling
        assert said(folder, orthanc.dicom_port, "ae_title = 'ORTHANC'") == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--refuse",), "PACS rejected the association: .*is our AE title PTXSEG known there, and is its own PACS"),
        (("+xi",), None),
    ],
)
def test_storescp(tool: Callable[[str], str], folder: Path, options: tuple[str, ...], sentence: str | None) -> None:
    port = free_port()
    with program(tool("/usr/bin/storescp"), *options, str(port), port=port):
        found = said(folder, port)
        assert found == "" if sentence is None else re.search(sentence, found), found


def test_a_peer_that_speaks_plain_where_tls_is_set(tool: Callable[[str], str], folder: Path, ca: Authority) -> None:
    port = free_port()
    with program(tool("/usr/bin/storescp"), str(port), port=port):
        found = said(folder, port, "tls = true", send=f"tls_ca = '{ca.file}'")
    assert "that does not speak TLS on this port" in found and "peers.PACS.tls = false" in found


def s_server(tool: Callable[[str], str], pair: Pair, *options: str | Path) -> tuple[int, list[str | Path]]:
    port = free_port()
    return port, [
        tool("openssl"),
        "s_server",
        "-accept",
        str(port),
        "-cert",
        pair.certificate,
        "-key",
        pair.key,
        "-quiet",
        *options,
    ]


def test_a_peer_that_speaks_tls_where_it_is_not_set(tool: Callable[[str], str], folder: Path, ca: Authority) -> None:
    port, command = s_server(tool, ca.issue("pacs"))
    with program(*command, port=port):
        assert "it speaks TLS on this port; set peers.PACS.tls = true" in said(folder, port)


def test_whose_certificate_it_is_and_what_is_wrong_with_it(
    tool: Callable[[str], str], folder: Path, ca: Authority, other: Authority
) -> None:
    good, foreign = ca.issue("pacs"), other.issue("foreign")
    trust = f"tls_ca = '{ca.file}'\n"
    wants = ("-Verify", "1", "-verify_return_error", "-CAfile", ca.file)
    show = "tls_certificate = '{0.certificate}'\ntls_key = '{0.key}'\n"
    cases: list[tuple[Pair, tuple[str | Path, ...], str, str]] = [
        (ca.issue("old", days=(-400, -1)), (), trust, "its certificate has expired; it must be renewed there"),
        (ca.issue("far", host="10.9.9.9"), (), trust, "peers.PACS.host says must be in its subjectAltName"),
        (foreign, (), trust, "its certificate comes from a CA that is not known here; put that CA into send.tls_ca"),
        (good, wants, trust, "it wants a certificate of ours; set send.tls_certificate"),
        (good, wants, trust + show.format(foreign), "does not know the CA of our certificate (send.tls_certificate)"),
    ]
    with ExitStack() as running:
        for pair, options, send, sentence in cases:
            port, command = s_server(tool, pair, *options)
            running.enter_context(program(*command, port=port))
            found = said(folder, port, "tls = true", send=send)
            assert sentence in found, found


def test_nobody_there(folder: Path) -> None:
    assert "nothing listens on 127.0.0.1" in said(folder, free_port())
    assert "pacs.invalid cannot be resolved (DNS)" in said(folder, 104, host="pacs.invalid")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "takes the connection and does not answer" in said(folder, silent.getsockname()[1])


def test_a_modality_that_speaks_tls_to_a_plain_port_is_told_so(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("INFO", "dicom_node.receive.pending")
    with receiving(tmp_path, allowed={"MODALITY": []}) as node:
        with socket.create_connection(("127.0.0.1", node.port)) as line, pytest.raises((ssl.SSLError, OSError)):
            ssl.create_default_context().wrap_socket(line, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", node.port)) as line:
            line.sendall(b"GET / HTTP/1.1\r\n\r\n")
            line.recv(100)
        wait_for(lambda: "speaks HTTP" in caplog.text, 120, "the log")
    assert "it speaks TLS, and receive.tls_certificate is not set" in caplog.text
