"""The configuration: the file shows every setting as the code has it, and a wrong key is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from dicom_node.cli import main
from dicom_node.config import Peer, Rule, load, redacted
from dicom_node.config_file import render
from dicom_node.errors import ConfigError
from dicom_node.model import refuse_demo_model

ROOT = Path(__file__).parent.parent


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
        ("[receive]\nprot = 1", "receive.prot: unknown key"),
        ("[receive]\nport = 70000", "receive.port"),
        ("[receive]\nae_title = 'SEVENTEEN LETTERS'", "receive.ae_title"),
        ("[recieve]\nport = 1", "recieve: unknown key"),
        ("[send]\ndestinations = ['PACS']", "[peers] does not hold"),
        ("[queue]\nbroker = 'amqp://x'", "queue.broker"),
        ("[work]\nlease_seconds = 6", "work.heartbeat_seconds"),
        ("[receive", "not valid TOML"),
        ("[peers.RADIOLOGY-PACS-MAIN]\nhost = 'h'\nport = 1", "set its ae_title"),
        ("[peers.PACS]\nhost = 'pacs..local'\nport = 1", "is no host name"),
        ("[receive.allowed]\nM = ['modality..local']", "is no host name"),
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
    with pytest.raises(ConfigError, match=r"receive.*JSON"):
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
