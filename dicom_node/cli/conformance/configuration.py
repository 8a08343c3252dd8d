"""Rows of the conformance statement about the configuration: its values, never a file name or a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dicom_node.runtime.config import Config

Row = tuple[object, ...]


def title(config: Config, name: str) -> str:
    """Of the section `name` of config.toml."""
    return (type(getattr(config, name)).__doc__ or name).strip().partition("\n")[0].rstrip(".")


def parameters(config: Config, name: str) -> list[Row]:
    """Each setting of the section: key, value, meaning."""
    section = getattr(config, name)
    fields = type(section).model_fields.items()
    return [(f"`{name}.{key}`", _shown(key, getattr(section, key)), field.description or "") for key, field in fields]


def peers(config: Config) -> list[Row]:
    """The entries of [peers]."""
    rows: list[Row] = [
        (name, peer.ae_title or name, peer.host, peer.port, _yes(peer.tls), _yes(peer.commit))
        for name, peer in config.peers.items()
    ]
    return rows or [("none", "", "", "", "", "")]


def rules(config: Config) -> list[Row]:
    """The entries of [[rules]], in their order."""
    rows: list[Row] = []
    for one in config.rules:
        sent_to = "as send.destinations" if one.destinations is None else ", ".join(one.destinations) or "none"
        rows.append((one.name, ", ".join(one.calling_ae) or "any", ", ".join(one.called_ae) or "any", one.mode, sent_to))
    return rows or [("none", "", "", "", "")]


def _shown(key: str, value: Any) -> str:
    if key.startswith("tls_"):
        return "set" if value else "not set"
    if isinstance(value, Path):
        return "demo (the shipped one)" if str(value) == "demo" else "a folder"
    if isinstance(value, dict):
        return "; ".join(f"{name} from {', '.join(hosts) or 'any host'}" for name, hosts in value.items()) or "nobody"
    if isinstance(value, tuple | list):
        return ", ".join(str(one) for one in value) or "none"
    assert not isinstance(value, BaseModel)
    if isinstance(value, float):
        return f"{value:.10g}"
    return _yes(value) if isinstance(value, bool) else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
