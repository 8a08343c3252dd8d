"""The conformance statement is true of the live node: what it names is negotiated, answered and done, and nothing else."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from answered_films import AnsweredFilms
from certificates import Authority
from conformance_page import Statement
from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, Association, build_role
from pynetdicom import presentation as library
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import PresentationContext, build_context
from raw_peer import ASSOCIATE_AC, ASSOCIATE_RJ, CR, EXPLICIT, RawPeer, associate_rq, c_store
from rude_pacs import RudePacs
from servers import free_port, wait_for

from dicom_node.dimse.commitment_report import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reports
from dicom_node.dimse.contexts import VERIFICATION
from dicom_node.receive.storage_scp import Receiver, bind
from dicom_node.runtime.config import Config, load
from dicom_node.storage.commitments import Commitments, UncommittedDelivery
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import DeliveryState
from dicom_node.storage.spool import Spool

ROOT = Path(__file__).parents[2]
CLASSES = sorted({
    str(context.abstract_syntax) for name in dir(library) if name.endswith("Contexts") for context in getattr(library, name)
})  # fmt: skip
RESTRICTED = """
[receive]
ae_title = "OTHER"
also_called = ["TRIAL"]
sop_classes = ["DX", "SC"]
max_pdu_kb = 64
max_per_host = 1
[send]
ae_title = "RESULTS"
[peers.ARCHIVE]
host = "127.0.0.1"
port = 104
commit = true
"""


@dataclass
class Site:
    """A receiver that runs with a configuration, and the statement about it."""

    config: Config
    said: Statement
    ledger: Ledger
    spool: Spool
    commitments: Commitments
    port: int = 0
    tls: ssl.SSLContext | None = None

    def associate(self, contexts: list[PresentationContext], calling: str = "MODALITY", **more: object) -> Association:
        more = {"ae_title": self.config.receive.ae_title} | more
        if self.tls:
            more["tls_args"] = (self.tls, "127.0.0.1")
        return AE(calling).associate("127.0.0.1", self.port, contexts=contexts, **more)  # type: ignore[arg-type]

    def accepted(self, proposed: Iterable[tuple[str, list[str]]], calling: str = "MODALITY") -> set[tuple[str, str, str]]:
        """(abstract syntax, transfer syntax, our role) of what is accepted of (abstract syntax, its transfer syntaxes)."""
        found = set()
        every = [build_context(uid, syntaxes) for uid, syntaxes in proposed]
        for contexts in (every[at : at + 40] for at in range(0, len(every), 40)):  # a request holds at most 64 KiB
            roles = [build_role(PUSH_MODEL, scp_role=True)] if calling == "ARCHIVE" else []
            association = wait_for(lambda c=contexts, r=roles: self._answered(c, calling, r), 120, "an answer to the request")
            for context in association.accepted_contexts:
                role = "SCU" if context.as_scp else "SCP"
                found.add((str(context.abstract_syntax), str(context.transfer_syntax[0]), role))
            association.release() if association.is_established else association.abort()
        return found

    def _answered(self, contexts: list[PresentationContext], calling: str, roles: list[object]) -> Association | None:
        """None when nothing was negotiated: a busy machine did not answer in time, or still counts the last association."""
        association = self.associate(contexts, calling, ext_neg=roles)
        return association if association.accepted_contexts or association.rejected_contexts else None


@contextmanager
def site(folder: Path, text: str = "", *, authority: Authority | None = None) -> Iterator[Site]:
    folder.mkdir(exist_ok=True)
    file = folder / "config.toml"
    pair = authority.issue("node") if authority else None
    lines = f'tls_certificate = "{pair.certificate}"\ntls_key = "{pair.key}"\n' if pair else ""
    text = text if "[receive]" in text else f"[receive]\n{text}"
    head = f'[receive]\nhost = "127.0.0.1"\nport = {free_port()}\n{lines}'
    file.write_text(text.replace("[receive]\n", head) + "[receive.allowed]\nMODALITY = []\n")
    config = load(file)
    spool, ledger = Spool(config.spool_directory, 0), Ledger(config.ledger_path)
    found = Site(config, Statement.of(config), ledger, spool, Commitments(ledger.store, 1.0), config.receive.port)
    if authority:
        found.tls = ssl.create_default_context(cafile=str(authority.file))
    reports = Reports(config, found.commitments)
    receiver = Receiver(config.receive, spool, ledger, grace_seconds=1, reports=reports)
    thread = threading.Thread(target=receiver.serve, args=(bind(config.receive),))
    thread.start()
    try:
        yield found
    finally:
        receiver.stop()
        thread.join(120)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "hospital")


# -- the document ----------------------------------------------------------------------------------------------


def test_the_page_in_docs_is_that_of_the_default_configuration(tmp_path: Path) -> None:
    """When this fails and the change is meant:
    segmenter-worker conformance --config config.toml --out docs/use/conformance.md"""
    said = Statement.of(load(ROOT / "config.toml"))
    kept = (ROOT / "docs" / "use" / "conformance.md").read_text("utf-8")
    assert kept.splitlines() == said.text.splitlines(), f"out of date: {Path(__file__).name} says how to write it again"
    assert "Research software, not a medical device" in said.text.splitlines()[2]


def test_the_command_writes_the_same_for_people_and_programs_without_torch(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(RESTRICTED)
    program = (
        "import json, sys; from click.testing import CliRunner; from dicom_node.cli.main import main\n"
        f"words = ['conformance', '--config', {str(tmp_path / 'config.toml')!r}]\n"
        f"assert CliRunner().invoke(main, [*words, '--out', {str(tmp_path / 'page.md')!r}]).exit_code == 0\n"
        "done = CliRunner().invoke(main, [*words, '--json'])\n"
        "assert done.exit_code == 0 and 'torch' not in sys.modules, done.output\n"
        f"open({str(tmp_path / 'page.json')!r}, 'w').write(done.output)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    import json

    page, values = Statement.read((tmp_path / "page.md").read_text()), json.loads((tmp_path / "page.json").read_text())
    assert values["tables"] == page.tables
    assert {"OTHER, TRIAL", "RESULTS"} == {row["AE title"] for row in page.tables["application entities"]}
    assert str(tmp_path) not in page.text


# -- what is negotiated with us --------------------------------------------------------------------------------


def others(named: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Contexts of every class that the library knows: the named ones syntax by syntax, the others with all that are named."""
    classes, syntaxes = {uid for uid, _ in named}, sorted({syntax for _, syntax in named})
    one_by_one = [(uid, [syntax]) for uid in sorted(classes) for syntax in ALL_TRANSFER_SYNTAXES]
    return [*one_by_one, *((uid, syntaxes) for uid in CLASSES if uid not in classes)]


@pytest.mark.parametrize("text", ["", RESTRICTED, "tls"], ids=["default", "restricted", "TLS"])
def test_what_senders_may_negotiate_is_what_the_statement_names(text: str, tmp_path: Path, authority: Authority) -> None:
    over_tls = text == "tls"
    with site(tmp_path / "node", "" if over_tls else text, authority=authority if over_tls else None) as node:
        named = node.said.contexts("presentation contexts accepted from senders")
        proposed = others(named) if not over_tls else [(uid, [syntax]) for uid, syntax in named]
        assert node.accepted(proposed) == {(*pair, role) for pair, role in named.items()}
        assert {row["UID"] for row in node.said.tables["SOP classes"] if row["SCP"] == "Y"} == {uid for uid, _ in named}

        window, identity = AsynchronousOperationsWindowNegotiation(), UserIdentityNegotiation()
        window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
        identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"nobody", True
        uid = next(uid for uid, _ in named if uid != VERIFICATION)
        preferred = [row["UID"] for row in node.said.tables["transfer syntaxes"]]
        extended = [window, identity, build_role(uid, scu_role=True, scp_role=True)]
        association = node.associate([build_context(uid, preferred[::-1])], ext_neg=extended)
        [context] = association.accepted_contexts
        answer = association.acceptor
        assert [*context.transfer_syntax] == preferred[:1] and context.as_scu and not context.as_scp
        assert str(answer.implementation_class_uid) == node.said.parameter("Implementation Class UID", "RECEIVER")
        assert answer.implementation_version_name == node.said.parameter("Implementation Version Name", "RECEIVER")
        assert str(answer.maximum_length) == node.said.parameter("Maximum PDU size, bytes", "RECEIVER")
        assert node.said.parameter("Asynchronous operations", "RECEIVER").startswith("none")
        assert answer.asynchronous_operations == (1, 1) and not answer.role_selection and answer.user_identity is None
        association.release()
        asked = "RECEIVER speaks TLS only" if over_tls else "RECEIVER speaks plain DICOM"
        assert asked in node.said.text


def test_a_destination_that_commits_may_negotiate_what_the_statement_names(tmp_path: Path) -> None:
    with site(tmp_path / "node", RESTRICTED) as node:
        named = node.said.contexts("presentation contexts accepted from destinations that commit")
        assert node.accepted(others(named), "ARCHIVE") == {(*pair, role) for pair, role in named.items()}
    with site(tmp_path / "other") as node:
        assert "presentation contexts accepted from destinations that commit" not in node.said.tables
        assert not node.accepted([(PUSH_MODEL, [EXPLICIT])])


def test_only_the_suites_of_the_statement_are_spoken(tmp_path: Path, authority: Authority) -> None:
    every = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    every.set_ciphers("ALL:@SECLEVEL=0")
    versions = {"TLSv1": ssl.TLSVersion.TLSv1, "TLSv1.1": ssl.TLSVersion.TLSv1_1, "TLSv1.2": ssl.TLSVersion.TLSv1_2}
    with site(tmp_path / "node", authority=authority) as node:
        spoken = set()
        for version, suite in [*((v, "ALL") for v in versions), *(("TLSv1.2", str(c["name"])) for c in every.get_ciphers())]:
            context = ssl.create_default_context(cafile=str(authority.file))
            try:
                context.set_ciphers(f"{suite}:@SECLEVEL=0")
            except ssl.SSLError:
                continue  # of TLS 1.3: not chosen one by one
            context.minimum_version = context.maximum_version = versions[version]
            try:
                with RawPeer(node.port) as peer, context.wrap_socket(peer.socket, server_hostname="127.0.0.1") as line:
                    spoken.add((line.version(), line.cipher()[0]))  # type: ignore[index]
            except OSError:
                pass
        named = {(row["Version"], row["Cipher suite (OpenSSL's name)"]) for row in node.said.tables["TLS"]}
        ours = {one for one in named if one[0] == "TLSv1.2" and "ECDSA" not in one[1]}  # our certificate is RSA
        assert spoken == ours and len(ours) >= 2
        with RawPeer(node.port) as peer, node.tls.wrap_socket(peer.socket, server_hostname="127.0.0.1") as line:  # type: ignore[union-attr]
            assert (line.version(), line.cipher()[0]) in named and line.version() == "TLSv1.3"  # type: ignore[index]


# -- what we answer --------------------------------------------------------------------------------------------


def test_the_statuses_of_c_store_are_those_of_the_statement(tmp_path: Path) -> None:
    with site(tmp_path / "node", RESTRICTED.replace("max_per_host = 1\n", "")) as node:
        dx, called = "1.2.840.10008.5.1.4.1.1.1.1", "OTHER"

        def ask(request: bytes, calling: str = "MODALITY", sop_class: str = dx) -> tuple[str, str]:
            with RawPeer(node.port) as peer:
                assert peer.associate(calling, called, sop_class) == ASSOCIATE_AC
                peer.send(request)
                status, comment = peer.status()
                return f"{status:04X}", comment

        answered = {
            ask(c_store("1.2.3", dx)),
            ask(c_store(None, dx)),
            ask(c_store("1.2.3", CR)),
            ask(c_store("1.2.3", dx, b"")),
            ask(c_store("1.2.3", dx), "ARCHIVE", VERIFICATION),
        }
        for error in (OSError(28, "full"), MemoryError()):
            with patch.object(node.spool, "write", side_effect=error):
                answered.add(ask(c_store("1.2.4", dx)))
        assert answered == {(row["Status"], row["Error Comment"]) for row in node.said.tables["C-STORE statuses sent"]}


def test_the_rejections_are_those_of_the_statement(tmp_path: Path) -> None:
    with site(tmp_path / "node", RESTRICTED) as node:
        dx = "1.2.840.10008.5.1.4.1.1.1.1"

        def ask(calling: str, called: str, change: tuple[bytes, bytes] = (b"", b"")) -> tuple[int, ...]:
            with RawPeer(node.port) as peer:
                peer.send(associate_rq(calling, called, dx).replace(*change, 1))
                kind, body = peer.receive()
                assert kind == ASSOCIATE_RJ
                return tuple(body[1:])

        said = {ask("MODALITY", "PTXSEG"), ask("STRANGER", "OTHER")}
        said.add(ask("MODALITY", "OTHER", (b"\0\1\0\0OTHER", b"\0\2\0\0OTHER")))  # protocol version
        said.add(ask("MODALITY", "OTHER", (b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")))  # application context
        with RawPeer(node.port) as first:
            assert first.associate("MODALITY", "OTHER", dx) == ASSOCIATE_AC
            said.add(ask("MODALITY", "OTHER"))
        node.ledger.set_mode("draining")
        said.add(ask("MODALITY", "OTHER"))
        rows = node.said.tables["association rejection"]
        assert said == {tuple(int(row[name][0]) for name in ("Result", "Source", "Reason")) for row in rows}


def test_the_statuses_of_a_commitment_report_are_those_of_the_statement(tmp_path: Path) -> None:
    films = AnsweredFilms(tmp_path, 104, 1)
    with site(tmp_path / "node", RESTRICTED) as node:
        node.commitments._store = films.ledger.store  # where there is something to commit to
        [one] = films.outbox.of_job(films.jobs[0])
        assert films.outbox.sending(one)
        films.outbox.settle(one, DeliveryState.DELIVERED, status=0, reason="stored")
        known = node.commitments.open("ARCHIVE", [UncommittedDelivery(one.delivery_id, one.job_id, CR, films.uids[0])])
        assert known is not None
        roles = [build_role(PUSH_MODEL, scp_role=True)]
        association = node.associate([build_context(PUSH_MODEL, EXPLICIT)], "ARCHIVE", ext_neg=roles)

        def report(transaction: str, event: int = 1, class_uid: str = PUSH_MODEL) -> str:
            information = Dataset()
            information.TransactionUID = transaction
            answer, _ = association.send_n_event_report(information, event, class_uid, PUSH_MODEL_INSTANCE, meta_uid=PUSH_MODEL)
            return f"{answer.Status:04X}"

        said = {report("1.2.3"), report(known, 3), report(known, 1, CR)}
        with patch.object(node.commitments, "settle", side_effect=OSError(28, "full")):
            said.add(report(known))
        said.add(report(known))
        association.release()
        assert said == {row["Status"] for row in node.said.tables["N-EVENT-REPORT statuses sent"]}


# -- what we do with answers -----------------------------------------------------------------------------------


def test_what_we_do_with_each_status_is_what_the_statement_says(tmp_path: Path) -> None:
    expected = {}
    for row in Statement.of(load(None)).tables["C-STORE statuses received"]:
        codes = "1234" if row["Status"] == "any other" else row["Status"]
        for code in {end for part in codes.split(", ") for end in part.split("-")}:
            expected[int(code, 16)] = row
    pacs = RudePacs(free_port())
    films = AnsweredFilms(tmp_path, pacs.port, len(expected), size=200)
    answers = dict(zip(films.uids, expected, strict=True))
    pacs.answer = lambda uid: answers[uid]
    with pacs.serving(), films.sending():
        for uid in films.uids:
            wait_for(
                lambda uid=uid: films.delivery(uid).attempts and films.delivery(uid).state is not DeliveryState.SENT, 60, uid
            )
            done, row = films.delivery(uid), expected[answers[uid]]
            what = {
                "delivered": DeliveryState.DELIVERED,
                "sent again": DeliveryState.PENDING,
                "refused": DeliveryState.REFUSED,
            }
            assert [state for words, state in what.items() if row["What we do"].startswith(words)] == [done.state], row
            assert done.reason.startswith(row["Meaning"]) or row["Meaning"].startswith("("), (row, done.reason)
    assert len(expected) > 40
