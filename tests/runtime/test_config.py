"""The configuration: the file shows every setting as the code has it, and a wrong key is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from dicom_node.cli.main import main
from dicom_node.runtime.config import Config, load, redacted
from dicom_node.runtime.config_reference import render
from dicom_node.runtime.config_sections import Peer, Rule, Section
from dicom_node.runtime.config_types import shown
from dicom_node.runtime.errors import ConfigError
from dicom_node.work.model import refuse_demo_model

ROOT = Path(__file__).parents[2]


def written(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text)
    return file


def test_config_toml_is_complete_and_equal_to_the_defaults(tmp_path: Path) -> None:
    assert (ROOT / "config.toml").read_text("utf-8") == render()
    assert load(written(tmp_path, render())) == load(written(tmp_path, ""))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[receive]\nprot = 1", "receive.prot: unknown key; did you mean port?"),
        ("[send]\nport = 1", "send.port: unknown key; it belongs in [receive] or [peers.NAME] or [serve]"),
        ("port = 1", "port: unknown key; it belongs in [receive]"),
        ("[peer.PACS]\nhost = 'h'", "did you mean [peers.NAME]?"),
        ("[receive]\n\nhost = 10.0.0.2", "line 3, column 12: is not valid TOML"),
        ("[receive]\nallowed = [\n", "line 2, column 12: is not valid TOML"),
        ("[[rules]]\nname = 'a'\nmode = 'of'", '[[rules]] number 1, mode: must be one of "live", "shadow", "ignore", not "of"'),
        ("[rules]\nname = 'a'", "each begins with [[rules]]"),
        ("[[receive]]\nport = 1", "receive: must be a table"),
        ("receive = 5", "receive: must be a table"),
        ("[receive.port]\nx = 1", "receive.port: must be a whole number from 0 to 65535, not a table"),
        ("[receive]\nallowed = ['M']", "receive.allowed: must be a table: AE title = list of hosts, not a list"),
        ("[receive.allowed]\nM = '10.0.0.7'", "receive.allowed.M: must be a list"),
        ("[receive.allowed]\n'SEVENTEEN LETTERS' = []", "receive.allowed: each name must be an AE title"),
        ("[peers.PACS]\nhost = 'h'", "peers.PACS: the key port is missing"),
        ("[peers.PACS]\nhost = 'h:104'\nport = 1", "the port has its own key"),
        ("[peers.PACS]\nhost = 'h'\nport = 1\n[send]\ndestinations = ['PAC']", "did you mean PACS?"),
        ("[node]\nreserve_mb = true", "node.reserve_mb: must be a whole number"),
        ("[node]\nstop_seconds = inf", "node.stop_seconds: must be a number, more than 0"),
        ("[receive]\nport = 70000", "receive.port"),
        ("[receive]\nae_title = 'SEVENTEEN LETTERS'", "receive.ae_title"),
        ("[recieve]\nport = 1", "recieve: unknown key; did you mean [receive]?"),
        ("[send]\ndestinations = ['PACS']", "[peers] does not contain"),
        ("[queue]\nbroker = 'amqp://x'", "queue.broker"),
        ("[work]\nlease_seconds = 6", "work.heartbeat_seconds"),
        ("[receive", "not valid TOML"),
        ("[peers.RADIOLOGY-PACS-MAIN]\nhost = 'h'\nport = 1", "set its ae_title"),
        ("[peers.PACS]\nhost = 'pacs..local'\nport = 1", "is not a host name"),
        ("[receive.allowed]\nM = ['modality..local']", "is not a host name"),
        ("[queue]\nbroker = 'redis://host:notaport/0'", "queue.broker"),
        ("[work]\nnode = 'http://[::1'", "work.node"),
        ("[work]\nnode = 'nonsense'", "work.node"),
        ("[receive]\nmax_per_host = 40000", "receive.max_per_host"),
        ("[receive]\nidle_seconds = inf", "receive.idle_seconds"),
        ("[queue]\npoll_seconds = 1e300", "queue.poll_seconds"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(text: str, named: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as problem:
        load(file)
    assert named in str(problem.value)
    assert str(file) in str(problem.value)
    result = CliRunner().invoke(main, ["config", "--config", str(file)])
    assert result.exit_code == 2


def test_every_number_has_a_largest_value() -> None:
    """One that is too large for a lock, a timer or a socket of the system is refused here, and not where it is used."""
    sections = [type(section) for section in vars(load(None)).values() if isinstance(section, BaseModel)]
    for section in (*sections, Peer, Rule):
        for name, field in section.model_fields.items():
            if field.annotation in (int, float, int | None, float | None):
                assert any(hasattr(limit, "le") for limit in field.metadata), f"{section.__name__}.{name}"


def test_all_settings_are_printed(tmp_path: Path) -> None:
    file = written(tmp_path, "[[rules]]\nname = 'a'\n[[rules]]\nname = 'b'\n[receive.allowed]\nM = []")
    done = CliRunner().invoke(main, ["config", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert done.output.count("[[rules]]") == 2 and "[receive]" in done.output


def test_the_environment_overrides_the_file_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "[receive]\nport = 104\nae_title = 'FILE'")
    monkeypatch.setenv("SEGMENTER_RECEIVE__PORT", "105")
    monkeypatch.setenv("SEGMENTER_QUEUE__BROKER", "redis://:secret@queue:6379/0")
    config = load(file)
    assert (config.receive.port, config.receive.ae_title) == (105, "FILE")
    assert "secret" not in str(redacted(config))
    assert config.node.directory == tmp_path / "var"


def test_an_environment_that_is_no_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTER_RECEIVE__ALLOWED", "MOD1")
    with pytest.raises(ConfigError, match=r"SEGMENTER_RECEIVE__ALLOWED: receive.allowed: .*JSON"):
        load(None)


def test_a_demo_model_stays_on_this_machine(tmp_path: Path) -> None:
    outside = "[peers.PACS]\nhost = '192.0.2.1'\nport = 104\n[send]\ndestinations = ['PACS']\n"
    with pytest.raises(ConfigError, match="allow_demo_model"):
        refuse_demo_model(load(written(tmp_path, outside)), "demo")
    refuse_demo_model(load(written(tmp_path, outside)), "research")
    refuse_demo_model(load(written(tmp_path, outside + "[segment]\nallow_demo_model = true")), "demo")
    refuse_demo_model(load(written(tmp_path, outside.replace("192.0.2.1", "127.0.0.1"))), "demo")
    returned = outside.replace("['PACS']", "['@sender']")
    with pytest.raises(ConfigError, match="PACS"):
        refuse_demo_model(load(written(tmp_path, returned)), "demo")


# Of pydantic and of Python's parsers: an administrator never reads them.
FOREIGN = re.compile(
    r"Input should|Value error|Extra inputs|Field required|should (have|match)|unable to parse|[Ii]nvalid|pydantic|type=|codec"
)
GIVEN = [
    "1979-05-27",
    "{ a = { b = 1 } }",
    "[[['a']]]",
    "-1",
    "-0.5",
    "nan",
    "true",
    "'no such value \\u0000'",
    "'" + "x" * 300 + "'",
]


def settings() -> list[str]:
    """Every setting as a heading and its key; of [peers] and [[rules]] those of one entry."""
    sections = [(f"[{name}]", field.default) for name, field in Config.model_fields.items()]
    found = [(heading, type(one).model_fields) for heading, one in sections if isinstance(one, Section)]
    found += [("[peers.PACS]", Peer.model_fields), ("[[rules]]", Rule.model_fields)]
    return [f"{heading} {key}" for heading, fields in found for key in fields]


@pytest.mark.parametrize("setting", settings())
def test_a_wrong_value_is_refused_in_our_words(setting: str, tmp_path: Path) -> None:
    heading, key = setting.split(" ")
    needed = {"[peers.PACS]": {"host": "'h'", "port": "1"}, "[[rules]]": {"name": "'a'"}}.get(heading, {})
    refused = []
    for value in GIVEN:
        keys = needed | {key: value}
        file = written(tmp_path, heading + "\n" + "\n".join(f"{name} = {text}" for name, text in keys.items()))
        try:
            load(file)
        except ConfigError as problem:
            refused.append(value)
            for line in str(problem).splitlines():
                assert line.startswith(f"{file}: "), line
                assert key in line.removeprefix(str(file)) and not FOREIGN.search(line), line
                assert len(line) < len(str(file)) + 300, "a long value is cut"
    assert "1979-05-27" in refused, "nothing here is a date"
    assert len(refused) >= 3, refused


@pytest.mark.parametrize("setting", [one for one in settings() if not one.startswith("[[")])
def test_a_wrong_value_of_the_environment_names_the_variable(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heading, key = setting.split(" ")
    variable = "__".join(["SEGMENTER", *heading.strip("[]").split("."), key]).upper().replace("SEGMENTER__", "SEGMENTER_")
    if heading == "[peers.PACS]":
        monkeypatch.setenv("SEGMENTER_PEERS", '{"PACS": {"host": "h", "port": 1}}')
    monkeypatch.setenv(f"{variable}__FURTHER", '"x"')  # a table where a value stands, or a value that is no list of hosts
    with pytest.raises(ConfigError) as problem:
        load(None)
    line = str(problem.value)
    assert line.startswith(f"environment, {variable}__FURTHER: ") and key in line and not FOREIGN.search(line), line


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("SEGMENTER_RECEIVE__PROT", "receive.prot: unknown key; did you mean port?"),
        ("SEGMENTER_RECIEVE__PORT", "did you mean SEGMENTER_RECEIVE__PORT?"),
        ("SEGMENTER_RECEIVE_PORT", "did you mean SEGMENTER_RECEIVE__PORT, with two underscores?"),
        ("SEGMENTER_RECEIVE__PORT", 'receive.port: must be a whole number from 0 to 65535, not "x"'),
        ("SEGMENTER_PEERS__pacs__PORT", 'peers.PACS.port: must be a whole number from 1 to 65535, not "x"'),
    ],
)
def test_an_environment_variable_is_named_as_one(
    variable: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(ConfigError) as problem:
        load(written(tmp_path, "[peers.PACS]\nhost = 'h'\nport = 1"))
    assert str(problem.value).startswith(f"environment, {variable}: ") and named in str(problem.value)


def test_the_environment_changes_a_peer_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTER_PEERS__PACS__PORT", "105")
    monkeypatch.setenv("SEGMENTER_FILMS", "somebody else's")
    config = load(written(tmp_path, "\ufeff[peers.Pacs]\nhost = 'h'\nport = 1"))  # with the byte order mark of an editor
    assert {name: peer.port for name, peer in config.peers.items()} == {"Pacs": 105}


@pytest.mark.parametrize(
    "text",
    [
        "[queue]\nbroker = 'redis://:GEHEIM@h:x/0'",
        "[queue]\nbroker = 'redis://h:GEHEIM/0'",
        "[queue]\nbroker = ':GEHEIM@h'",
        "[queue]\nbroker = 'redis://[GEHEIM'",
        "[queue]\nbroker = { password = 'GEHEIM' }",
        "[queue]\npassword = 'GEHEIM'",
        "[queue]\nbroker = 'redis://:GEHEIM@h",
        "[work]\nnode = 'https://u:GEHEIM@h:1'",
        "[serve]\ntls_key = '''-----BEGIN PRIVATE KEY-----\nGEHEIM'''",
    ],
)
def test_a_secret_is_not_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as problem:
        load(written(tmp_path, text))
    assert "GEHEIM" not in str(problem.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://:a/b@c@h:1/0", "redis://***@h:1/0"),
        ("rediss://u:p@h:1/0?ssl_ca_certs=/ca.pem&password=p&ssl_password=p", "rediss://***@h:1/0?ssl_ca_certs=/ca.pem&password=***&ssl_password=***"),
        ("memory://", "memory://"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_secrets(url: str, safe: str) -> None:
    assert shown(url) == safe


def test_a_wrong_option_of_the_command_line_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["work", "--config", str(written(tmp_path, "")), "--node", "ftp://h"])
    assert done.exit_code == 2 and "--node: work.node: is not a URL" in done.output
