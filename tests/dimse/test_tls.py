"""TLS in both directions, with real peers: who may come in, whom we talk to, and what a failure says.

"Unable to store" is read from the ledger and the spool, "nothing was sent" from what the other side heard.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Pair, TlsPacs, server_context
from echo_scu import echo
from raw_peer import ASSOCIATE_AC, RawPeer, associate_rq, c_store, drip
from receiver_node import Node, eventually, film, running
from receiver_node import send as store_once
from servers import free_port, wait_for
from waiting_delivery import WaitingDelivery

from dicom_node.cli.check import checks
from dicom_node.dimse import tls
from dicom_node.receive.pending import PendingConnections
from dicom_node.receive.storage_scp import bind
from dicom_node.runtime.config import load
from dicom_node.runtime.config_sections import Receive
from dicom_node.runtime.errors import ConfigError
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import DeliveryState


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "hospital")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def ours(ca: Authority) -> Pair:
    return ca.issue("node")


@contextmanager
def tls_node(tmp_path: Path, pair: Pair, *, clients: Authority | None = None, **settings: object) -> Iterator[Node]:
    files = {"tls_certificate": str(pair.certificate), "tls_key": str(pair.key)}
    if clients is not None:
        files["tls_client_ca"] = str(clients.file)
    with running(tmp_path, **files, **settings) as node:
        yield node


def client_context(ca: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca.file)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def send(port: int, context: ssl.SSLContext, uid: str = "1.2.3.4") -> int | None:
    """The status of one C-STORE of pynetdicom by TLS; None when there was no answer."""
    return store_once(port, film(uid), tls=context)


class TlsPeer(RawPeer):
    """Byte by byte, inside TLS. `raw` goes around it."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self.socket: ssl.SSLSocket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")

    def raw(self, data: bytes) -> None:
        socket.socket.send(self.socket, data)


def nothing_came_in(node: Node) -> bool:
    return not node.ledger.jobs() and not node.files() and not node.journal()


# -- into us ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["+py", "+pz"], ids=["non-downgrading BCP 195", "extended BCP 195"])
def test_dcmtk_stores_by_tls(profile: str, tmp_path: Path, tool: Callable[[str], str], ca: Authority, ours: Pair) -> None:
    """It verifies our certificate. The film is many TLS records and PDUs long."""
    large = film()
    large.Rows, large.Columns, large.BitsAllocated, large.SamplesPerPixel = 1500, 1000, 16, 1
    large.PixelData = bytes(range(256)) * (3_000_000 // 256 + 1)
    large["PixelData"].VR = "OW"
    large.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    with tls_node(tmp_path, ours, clients=ca) as node:
        who = ["-aet", "MODALITY", "-aec", "PTXSEG", "127.0.0.1", str(node.port), str(tmp_path / "film.dcm")]
        how = ["+tls", *ca.issue("modality").both, "+cf", str(ca.file), "-rc", profile]
        subprocess.run([tool("storescu"), *how, *who], check=True, timeout=300)
        [job] = node.ledger.jobs()
        assert job.arrival.size > 3_000_000
        assert eventually(lambda: node.journal() == [("MODALITY", "released", 1)])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(version: ssl.TLSVersion, tmp_path: Path, ca: Authority, ours: Pair) -> None:
    context = client_context(ca)
    context.minimum_version = context.maximum_version = version
    with tls_node(tmp_path, ours) as node:
        assert send(node.port, context) == 0x0000
        assert len(node.ledger.jobs()) == 1


def test_what_is_not_safe_cannot_store(tmp_path: Path, ca: Authority, ours: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """TLS 1.0 and 1.1; suites of 1.2 without ephemeral keys or without authenticated encryption; plain DICOM."""
    caplog.set_level("INFO", "dicom_node.receive.pending")
    with tls_node(tmp_path, ours) as node:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = client_context(ca)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            assert send(node.port, context) is None
        for suite in ("AES128-GCM-SHA256", "AES256-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384"):
            context = client_context(ca)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"{suite}:@SECLEVEL=0")
            assert send(node.port, context) is None
        with RawPeer(node.port) as plain:
            plain.send(associate_rq() + c_store())
            assert plain.is_closed()
        assert nothing_came_in(node)
    said = [record.getMessage() for record in caplog.records]
    assert sum("offers no safe version or cipher suite" in line for line in said) == 6
    assert sum("only TLS is spoken here" in line for line in said) == 1


def test_a_modality_refuses_our_wrong_certificate(tmp_path: Path, ca: Authority, stranger: Authority) -> None:
    for pair in (stranger.issue("other"), ca.issue("elsewhere", host="node.example")):
        (tmp_path / pair.certificate.stem).mkdir()
        with tls_node(tmp_path / pair.certificate.stem, pair) as node:
            assert send(node.port, client_context(ca)) is None
            assert nothing_came_in(node)


def test_only_modalities_with_a_certificate_of_the_hospital_store(
    tmp_path: Path, ca: Authority, stranger: Authority, ours: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """None, one of another CA, a self-signed one, an expired one, one that is not for clients: no association, no byte.

    Each tries politely, and by pouring request and film after its own half of the handshake, as TLS 1.3 lets it.
    """
    caplog.set_level("INFO", "dicom_node.receive.pending")
    wrong = [
        None,
        stranger.issue("foreign"),
        ca.issue("lonely", self_signed=True),
        ca.issue("old", days=(-400, -1)),
        ca.issue("server", server_only=True),
    ]
    with tls_node(tmp_path, ours, clients=ca) as node:
        for pair in wrong:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = client_context(ca, pair)
                context.maximum_version = version
                assert send(node.port, context) is None
                try:
                    with TlsPeer(node.port, context) as peer:
                        peer.send(associate_rq() + c_store())
                        assert peer.is_closed()
                except OSError:
                    pass  # refused in the handshake, or while it poured
        assert nothing_came_in(node)
        assert send(node.port, client_context(ca, ca.issue("modality-1"))) == 0x0000
        assert len(node.ledger.jobs()) == 1
    said = " ".join(record.getMessage() for record in caplog.records)
    for word in ("showed no certificate", "unable to get local issuer", "self-signed", "has expired", "purpose"):
        assert word in said


def test_silent_and_slow_tls_clients_do_not_keep_a_modality_out(
    tmp_path: Path, tool: Callable[[str], str], ca: Authority, ours: Pair
) -> None:
    """All from the modality's own host, with the default limits of number: without a ClientHello, with half of one, with one
    byte of it at a time, silent after the handshake, and with one byte of the request at a time after it.

    Result: a store by TLS completes while they are still connected; they cost no threads.
    """
    film().save_as(tmp_path / "film.dcm", enforce_file_format=True)
    hello = client_hello(ca)
    with tls_node(tmp_path, ours, establish_seconds=600) as node, ExitStack() as stack:
        threads = threading.active_count()
        silent, half, slow = ([stack.enter_context(RawPeer(node.port)) for _ in range(2)] for _ in range(3))
        for peer in half:
            peer.send(hello[: len(hello) // 2])
        mute, dripping = ([stack.enter_context(TlsPeer(node.port, client_context(ca))) for _ in range(2)] for _ in range(2))
        stop = threading.Event()
        drops = [
            threading.Thread(target=drip, args=(slow, stop, hello)),
            threading.Thread(target=drip, args=(dripping, stop)),
        ]
        for thread in drops:
            thread.start()
        try:
            assert threading.active_count() == threads + len(drops)
            who = ["-aet", "MODALITY", "-aec", "PTXSEG", "127.0.0.1", str(node.port), str(tmp_path / "film.dcm")]
            subprocess.run([tool("storescu"), "+tla", "+cf", str(ca.file), *who], check=True, timeout=300)
            assert len(node.ledger.jobs()) == 1
            hostile = (*silent, *half, *slow, *mute, *dripping)
            assert sum(not peer.is_closed_within(0.06) for peer in hostile) >= 8, "they were to be still connected"
        finally:
            stop.set()
            for thread in drops:
                thread.join()


def client_hello(ca: Authority) -> bytes:
    out = ssl.MemoryBIO()
    end = client_context(ca).wrap_bio(ssl.MemoryBIO(), out, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    return out.read()


def test_who_ends_no_handshake_and_asks_for_no_association_is_shown_out(tmp_path: Path, ca: Authority, ours: Pair) -> None:
    with tls_node(tmp_path, ours, establish_seconds=0.6) as node:
        with RawPeer(node.port) as silent, RawPeer(node.port) as half, TlsPeer(node.port, client_context(ca)) as mute:
            half.send(client_hello(ca)[:50])
            assert silent.is_closed() and half.is_closed() and mute.is_closed()
        assert nothing_came_in(node)


def test_a_handshake_that_does_not_fit_on_the_line_goes_on_when_there_is_room(
    tmp_path: Path, ca: Authority, ours: Pair
) -> None:
    """A chain of twenty certificates, a socket that holds a few, a client that waits for all before it speaks again."""
    chain = tmp_path / "chain.pem"
    chain.write_bytes(ours.certificate.read_bytes() + ca.file.read_bytes() * 20)
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    here.setblocking(False)
    context = tls.incoming(Receive(tls_certificate=str(chain), tls_key=str(ours.key)))
    assert context is not None
    accepted = context.wrap_socket(here, server_side=True, do_handshake_on_connect=False)

    def call() -> None:
        with client_context(ca).wrap_socket(there, server_hostname="127.0.0.1") as line:
            line.sendall(associate_rq())

    client = threading.Thread(target=call, daemon=True)
    with selectors.DefaultSelector() as selector:
        pending = PendingConnections(selector, max_connections=1, max_per_host=1, seconds=10)
        pending.add(accepted, ("192.0.2.1", 1))
        client.start()
        request = None
        while not request and (found := selector.select(10)):
            request = pending.read(found[0][0].data)
        assert request is not None and request.pdu == associate_rq()
        accepted.close()
    client.join(120)


def test_request_and_film_in_one_record_are_both_seen(tmp_path: Path, ca: Authority, ours: Pair) -> None:
    """What lies decrypted behind the request is not seen by any selector."""
    with tls_node(tmp_path, ours) as node, TlsPeer(node.port, client_context(ca)) as peer:
        peer.send(associate_rq() + c_store())
        assert peer.receive()[0] == ASSOCIATE_AC
        assert peer.status()[0] == 0x0000
        assert len(node.ledger.jobs()) == 1


def test_half_a_record_holds_back_no_answer_and_no_abort(
    tmp_path: Path, ca: Authority, ours: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes on the connection are not data yet: a read that waits for the rest would keep us from sending."""
    with tls_node(tmp_path, ours, idle_seconds=1.5, pdu_seconds=600) as node:
        may_answer, real = threading.Event(), node.ledger.add_arrival
        monkeypatch.setattr(node.ledger, "add_arrival", lambda arrival: may_answer.wait(120) and real(arrival))
        with TlsPeer(node.port, client_context(ca)) as peer:
            assert peer.associate() == ASSOCIATE_AC
            peer.send(c_store())
            assert eventually(lambda: bool(node.files()))  # the request is off the queue: reading goes on
            peer.raw(b"\x17\x03\x03\x40\x00" + b"x" * 10)
            time.sleep(0.3)
            may_answer.set()
            assert peer.status()[0] == 0x0000
            assert peer.is_closed(), "idle_seconds holds with half a record on the connection"
        assert eventually(lambda: [outcome for _, outcome, _ in node.journal()] == ["aborted"])


def test_a_pdu_that_takes_too_long_is_cut_inside_tls_too(tmp_path: Path, ca: Authority, ours: Pair) -> None:
    with tls_node(tmp_path, ours, pdu_seconds=0.6, idle_seconds=600) as node:
        with TlsPeer(node.port, client_context(ca)) as peer:
            assert peer.associate() == ASSOCIATE_AC
            peer.send(c_store(dataset=b"x" * 1000)[:400])
            assert peer.is_closed()
        assert eventually(lambda: [outcome for _, outcome, _ in node.journal()] == ["aborted"])
        assert not node.files()
        assert send(node.port, client_context(ca)) == 0x0000


def test_the_receiver_process_speaks_tls_on_a_socket_that_it_inherits(tmp_path: Path, ca: Authority, ours: Pair) -> None:
    listener = bind(Receive(host="127.0.0.1", port=0))
    file = tmp_path / "config.toml"
    file.write_text(
        "[node]\ndirectory = 'node'\nreserve_mb = 0\n[receive.allowed]\nMODALITY = []\n"
        f"[receive]\nhost = '127.0.0.1'\ntls_certificate = '{ours.certificate}'\ntls_key = '{ours.key}'\n"
    )
    command = [
        sys.executable,
        "-m",
        "dicom_node.cli.main",
        "receive",
        "--config",
        str(file),
        "--listen-fd",
        str(listener.fileno()),
    ]
    process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
    try:
        assert send(listener.getsockname()[1], client_context(ca)) == 0x0000
        assert len(Ledger(load(file).ledger_path).jobs()) == 1
    finally:
        process.terminate()
        assert process.wait(120) == 0
        listener.close()


# -- out of us --------------------------------------------------------------------------------------------------------


def waiting_for(
    folder: Path, port: int, ca: Path | str, *, host: str = "127.0.0.1", pair: Pair | None = None, seconds: float = 3
) -> WaitingDelivery:
    """One object that waits for a PACS with tls = true."""
    waiting = WaitingDelivery(folder, port)
    ours = f"tls_certificate = '{pair.certificate}'\ntls_key = '{pair.key}'\n" if pair else ""
    file = folder / "config.toml"
    file.write_text(
        f"[peers.PACS]\nhost = '{host}'\nport = {port}\ntls = true\n"
        f"[send]\ndestinations = ['PACS']\nfirst_delay_seconds = 0.2\nmax_delay_seconds = 0.3\n"
        f"connect_seconds = {seconds}\nresponse_seconds = {seconds}\ntls_ca = '{ca}'\n{ours}"
    )
    waiting.config = load(file)
    return waiting


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_result_is_delivered_by_tls(version: ssl.TLSVersion, host: str, tmp_path: Path, ca: Authority) -> None:
    context = server_context(ca.issue("pacs", host=host))
    context.maximum_version = version
    with TlsPacs(context).serving() as pacs:
        waiting = waiting_for(tmp_path, pacs.port, ca.file, host=host)
        assert echo(waiting.config, "PACS") is None
        with waiting.sending():
            waiting.waits_for(DeliveryState.DELIVERED)
    [(spoken, suite)] = pacs.spoken
    assert spoken == version.name.replace("_", ".")
    assert version is ssl.TLSVersion.TLSv1_3 or (suite.startswith("ECDHE-") and ("GCM" in suite or "POLY1305" in suite))


def test_dcmtk_takes_a_result_by_tls(tmp_path: Path, tool: Callable[[str], str], ca: Authority, ours: Pair) -> None:
    """It asks for our certificate (its default) and verifies it."""
    port, inbox = free_port(), tmp_path / "inbox"
    inbox.mkdir()
    how = ["+tls", *ca.issue("storescp").both, "+cf", str(ca.file), "-aet", "PACS", "-od", str(inbox)]
    pacs = subprocess.Popen([tool("storescp"), *how, str(port)])
    try:
        waiting = waiting_for(tmp_path, port, ca.file, pair=ours)
        wait_for(lambda: echo(waiting.config, "PACS") is None, 120, "storescp")
        with waiting.sending():
            waiting.waits_for(DeliveryState.DELIVERED)
        assert len(list(inbox.iterdir())) == 1
    finally:
        pacs.terminate()
        pacs.wait(120)


def only_tls_1_1(pair: Pair) -> ssl.SSLContext:
    context = server_context(pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def only_static_rsa(pair: Pair) -> ssl.SSLContext:
    context = server_context(pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256:@SECLEVEL=0")
    return context


WRONG_PACS: dict[str, tuple[Callable[[Authority, Authority], ssl.SSLContext | None], str]] = {
    "expired": (lambda ca, _: server_context(ca.issue("pacs", days=(-400, -1))), "certificate has expired"),
    "not yet valid": (lambda ca, _: server_context(ca.issue("pacs", days=(1, 400))), "not valid yet"),
    "another CA": (
        lambda _, other: server_context(other.issue("pacs")),
        "CA that is not known here; put that CA into send.tls_ca",
    ),
    "self-signed": (lambda ca, _: server_context(ca.issue("pacs", self_signed=True)), "self-signed"),
    "another host": (lambda ca, _: server_context(ca.issue("pacs", host="10.9.9.9")), "IP address mismatch"),
    "TLS 1.1": (lambda ca, _: only_tls_1_1(ca.issue("pacs")), "at least TLS 1.2"),
    "no ephemeral key": (lambda ca, _: only_static_rsa(ca.issue("pacs")), "at least TLS 1.2 with ECDHE"),
    "plain": (lambda *_: None, "speak TLS on this port"),
}


@pytest.mark.parametrize("wrong", WRONG_PACS)
def test_a_result_waits_for_a_pacs_that_cannot_be_trusted_and_nothing_is_said_to_it(
    wrong: str, tmp_path: Path, ca: Authority, stranger: Authority
) -> None:
    """Result: it waits with a sentence that names reason and remedy; once the PACS is mended it goes out."""
    make, sentence = WRONG_PACS[wrong]
    with TlsPacs(make(ca, stranger)).serving() as pacs:
        waiting = waiting_for(tmp_path, pacs.port, ca.file)
        assert sentence in (echo(waiting.config, "PACS") or "")
        with waiting.sending():
            wait_for(lambda: waiting.delivery.attempts >= 1 and waiting.delivery.state is DeliveryState.PENDING, 120, "a try")
            assert sentence in (waiting.delivery.reason or "")
    assert (pacs.connections, pacs.received) == (0, []), "it was told something"
    if wrong == "expired":
        with TlsPacs(server_context(ca.issue("pacs")), pacs.port).serving(), waiting.sending():
            waiting.waits_for(DeliveryState.DELIVERED)


def test_the_name_of_the_host_is_verified(tmp_path: Path, ca: Authority) -> None:
    with TlsPacs(server_context(ca.issue("pacs", host="pacs.example"))).serving() as pacs:
        waiting = waiting_for(tmp_path, pacs.port, ca.file, host="localhost")
        assert "host name mismatch" in (echo(waiting.config, "PACS") or "")
    assert pacs.connections == 0


def test_a_peer_with_tls_hears_a_client_hello_or_nothing(tmp_path: Path, ca: Authority) -> None:
    """Whatever is missing here; and a port that takes the connection and says nothing lets the delivery wait too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        waiting = waiting_for(tmp_path, listener.getsockname()[1], ca.file, seconds=0.5)
        heard: list[bytes] = []
        accepting = threading.Thread(target=_first_byte_of_each, args=(listener, heard, 3))
        accepting.start()
        with waiting.sending():
            accepting.join(120)
            wait_for(lambda: waiting.delivery.attempts >= 2, 120, "two tries")
            assert "no answer to the handshake" in (waiting.delivery.reason or "")
        assert heard == [b"\x16"] * 3
    Path(tmp_path / "gone.pem").write_bytes(ca.file.read_bytes())
    (tmp_path / "second").mkdir()
    with TlsPacs(None).serving() as pacs:
        waiting = waiting_for(tmp_path / "second", pacs.port, tmp_path / "gone.pem")
        (tmp_path / "gone.pem").unlink()
        with waiting.sending():
            wait_for(lambda: waiting.delivery.reason is not None, 120, "a try")
            assert "send.tls_ca" in (waiting.delivery.reason or "") and "cannot be read" in (waiting.delivery.reason or "")
    assert pacs.connections == 0


def _first_byte_of_each(listener: socket.socket, heard: list[bytes], count: int) -> None:
    with ExitStack() as open_ones:
        for _ in range(count):
            connection, _ = listener.accept()
            open_ones.enter_context(connection)
            heard.append(connection.recv(1))


@pytest.mark.parametrize("said", [b"", b"\x02\x00\x00"], ids=["nothing", "half a header"])
def test_a_pacs_that_falls_silent_after_the_handshake_does_not_hold_the_sender(
    said: bytes, tmp_path: Path, ca: Authority
) -> None:
    """Its session tickets are bytes on the connection, but no answer: the wait for an association ends all the same."""
    context, ended = server_context(ca.issue("pacs")), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_and_fall_silent() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as line:
                line.recv(4)
                line.sendall(said)
                line.settimeout(15)
                try:
                    while line.recv(4096):
                        pass
                except TimeoutError:
                    return  # it was left open
                except OSError:
                    pass
                ended.set()

        pacs = threading.Thread(target=shake_and_fall_silent)
        pacs.start()
        waiting = waiting_for(tmp_path, listener.getsockname()[1], ca.file, seconds=0.5)
        with waiting.sending():
            pacs.join(120)
            wait_for(lambda: waiting.delivery.reason is not None, 120, "a try")
            assert waiting.delivery.state is not DeliveryState.REFUSED
    assert ended.is_set(), "the connection was left open"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_pacs_that_asks_for_our_certificate(
    version: ssl.TLSVersion, tmp_path: Path, ca: Authority, stranger: Authority, ours: Pair
) -> None:
    context = server_context(ca.issue("pacs"))
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca.file)
    with TlsPacs(context).serving() as pacs:
        for number, pair in enumerate((None, stranger.issue("us"))):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert "send.tls_certificate" in (echo(waiting_for(folder, pacs.port, ca.file, pair=pair).config, "PACS") or "")
        assert pacs.connections == 0
        waiting = waiting_for(tmp_path, pacs.port, ca.file, pair=ours)
        with waiting.sending():
            waiting.waits_for(DeliveryState.DELIVERED)


# -- our own files ----------------------------------------------------------------------------------------------------


def config_of(folder: Path, **lines: dict[str, Any]) -> Any:
    file = folder / "config.toml"
    sections = ["".join(f"{key} = {json.dumps(str(value))}\n" for key, value in keys.items()) for keys in lines.values()]
    file.write_text("".join(f"[{name}]\n{text}" for name, text in zip(lines, sections, strict=True)))
    return load(file)


def as_settings(pair: Pair, **more: object) -> dict[str, object]:
    return {"tls_certificate": pair.certificate, "tls_key": pair.key} | more


def test_files_that_cannot_be_used_are_named_with_key_and_remedy(
    tool: Callable[[str], str], tmp_path: Path, ca: Authority, stranger: Authority, ours: Pair
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate\n")
    locked = tmp_path / "locked.key"
    subprocess.run([tool("openssl"), "rsa", "-aes256", "-passout", "pass:x", "-in", ours.key, "-out", locked], check=True)
    expired, early = ca.issue("expired", days=(-30, -1)), ca.issue("early", days=(1, 30))
    cases: list[tuple[str, dict[str, object], str]] = [
        ("receive", as_settings(Pair(tmp_path / "none.pem", ours.key)), "receive.tls_certificate: .* cannot be read"),
        ("receive", as_settings(Pair(ours.certificate, tmp_path / "none")), "receive.tls_key: .* cannot be read"),
        ("receive", as_settings(Pair(text, ours.key)), "receive.tls_certificate, .* PEM"),
        ("receive", as_settings(Pair(ours.certificate, locked)), "receive.tls_key: .* passphrase"),
        ("receive", as_settings(Pair(ours.certificate, stranger.issue("another").key)), "is not the key of .*together"),
        ("receive", as_settings(expired), "receive.tls_certificate: .* has expired; renew it"),
        ("receive", as_settings(early), "not valid yet; is the clock"),
        ("receive", as_settings(ca.issue("weak", bits=1024)), "too weak"),
        ("receive", as_settings(ours, tls_client_ca=text), "receive.tls_client_ca: .* holds no certificate"),
        ("send", as_settings(expired, tls_ca=ca.file), "send.tls_certificate: .* has expired"),
        ("send", as_settings(ca.issue("only-server", server_only=True)), "extendedKeyUsage clientAuth"),
    ]
    for section, keys, sentence in cases:
        config = config_of(tmp_path, **{section: keys})
        with pytest.raises(ConfigError, match=sentence):
            tls.verify(config)
        assert any(not one.ok and one.name.endswith("TLS") for one in checks(config)), sentence
    file = tmp_path / "config.toml"
    config_of(tmp_path, send={"ae_title": "US"})
    file.write_text(file.read_text() + "[peers.PACS]\nhost = 'pacs'\nport = 104\ntls = true\n")
    with pytest.raises(ConfigError, match=r"send\.tls_ca is empty"):
        tls.verify(load(file))


@pytest.mark.parametrize("verb", ["run", "receive"])
def test_the_node_does_not_start_with_an_expired_certificate(verb: str, tmp_path: Path, ca: Authority) -> None:
    config_of(tmp_path, receive=as_settings(ca.issue("expired", days=(-30, -1))))
    command = [sys.executable, "-m", "dicom_node.cli.main", verb, "--config", str(tmp_path / "config.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "receive.tls_certificate" in done.stderr and "has expired; renew it" in done.stderr


def test_check_says_when_a_certificate_runs_out_and_when_a_peers_tls_fails(tmp_path: Path, ca: Authority, ours: Pair) -> None:
    with TlsPacs(server_context(ca.issue("pacs", days=(-400, -1)))).serving() as pacs:
        waiting = waiting_for(tmp_path, pacs.port, ca.file, pair=ca.issue("ending", days=(-300, 12.5)))
        found = {one.name: one for one in checks(waiting.config)}
        (tmp_path / "config.toml").write_text(
            (tmp_path / "config.toml").read_text().replace("['PACS']", "['@sender']") + "[receive.allowed]\nPACS = []\n"
        )
        to_sender = {one.name: one for one in checks(load(tmp_path / "config.toml"))}
    assert (found["send TLS"].ok, found["send PACS"].ok) == (False, False)
    assert "12 more days; renew it" in found["send TLS"].text
    assert "certificate has expired" in found["send PACS"].text
    assert "certificate has expired" in to_sender["send PACS"].text
    [good] = [one for one in checks(config_of(tmp_path, receive=as_settings(ours))) if one.name == "receive TLS"]
    assert (good.ok and "364 more days" in good.text) or "365 more days" in good.text


def test_the_certificates_of_the_page_work(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """The five commands as they are printed, with loopback for the address; again for a modality; then a store."""
    text = (Path(__file__).parents[2] / "docs" / "use" / "tls.md").read_text()
    text = text.replace("10.1.2.3", "127.0.0.1")
    commands = re.findall(r"^    (openssl (?:req|x509|verify) .+)$", text, re.M)
    assert len(commands) == 5
    for_modality = [one.replace("node.", "modality.").replace("CN=segmenter", "CN=modality") for one in commands[1:]]
    tool("openssl")
    for command in (*commands, *for_modality):
        subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
    film().save_as(tmp_path / "film.dcm", enforce_file_format=True)
    files = {name: str(tmp_path / file) for name, file in re.findall(r'^    (tls_\w+) = "tls/([\w.]+)"', text, re.M)[:3]}
    assert set(files) == {"tls_certificate", "tls_key", "tls_client_ca"}
    with running(tmp_path, allowed={"MODALITY1": []}, **files) as node:
        tries = re.findall(r"^    ((?:openssl s_client|echoscu|storescu) .+)$", text.replace(" 11112", f" {node.port}"), re.M)
        tries = [one.replace(":11112", f":{node.port}") for one in tries]
        for command in tries:
            program = tool(command.split()[0])
            done = subprocess.run(program + command[command.index(" ") :], shell=True, cwd=tmp_path, stdin=subprocess.DEVNULL)
            assert (done.returncode == 0) is ("must fail" not in command), command
        assert len(tries) == 4
        assert len(node.ledger.jobs()) == 1
