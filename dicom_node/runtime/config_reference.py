"""config.toml as text, made from the settings: every key with its default, unit and reason. A test compares the file."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dicom_node.runtime.config import Config

_HEAD = """\
# Settings of the node: every key with its default, its unit and its reason.
# A key that is left out has the value shown here; an unknown key is an error.
# The environment overrides the file: SEGMENTER_<SECTION>__<KEY>, for example SEGMENTER_QUEUE__BROKER.
# Relative paths are relative to this file.
"""

_EXAMPLES = {
    "allowed": '# [receive.allowed]\n# MODALITY1 = ["10.0.0.7"]\n# GATEWAY = []\n',
    "urgent_when": '# [queue.urgent_when]\n# RequestedProcedurePriority = "STAT|HIGH"\n',
}

_PEERS = """\
# [peers]: nodes that results can be sent to, by AE title. `ae_title` only when it differs from the name of the entry.
# [peers.PACS]
# host = "127.0.0.1"
# port = 104
# ae_title = "PACS"
# objects = ["seg", "sr"]    # what it gets; default: send.objects
# tls = false                # use TLS to it; send.tls_ca says which CAs to trust
# commit = false             # ask it for storage commitment; what it has not committed to is never removed
# commit_ae_title = "PACS"   # AE title that commits, when it differs; at the same host
# commit_port = 104          # its port, when it differs
"""

_RULES = """\
# [[rules]]: what happens to which film; the first matching rule decides, else [send] and [queue].
# [[rules]]
# name = "portable unit on trial"
# calling_ae = ["PORTABLE1"]                      # sent by one of these; []: by any
# called_ae = ["PTXTRIAL"]                        # sent to one of our AE titles (receive.also_called); []: to any
# all_of = { Modality = "^(CR|DX)$" }             # DICOM keyword = regular expression (RE2); all match
# any_of = { StudyDescription = "(?i)thorax", BodyPartExamined = "CHEST" }    # at least one matches
# none_of = { StationName = "^TEST" }             # none matches
# mode = "shadow"                                 # live; shadow: answered and kept, nothing is sent; ignore: skipped
# destinations = ["PACS"]                         # instead of send.destinations
# priority = "urgent"                             # urgent or normal; default: as [queue] says
"""


def render() -> str:
    """The text of config.toml."""
    parts = [_HEAD]
    for name, field in Config.model_fields.items():
        section = field.default
        if not isinstance(section, BaseModel):
            parts.append({"peers": _PEERS, "rules": _RULES}[name])
            continue
        sentence = (type(section).__doc__ or "").strip()
        parts.append((f"# {sentence}\n" if sentence and "\n" not in sentence else "") + f"[{name}]\n" + _keys(section))
    return "\n".join(parts)


def _keys(section: BaseModel) -> str:
    lines, later = [], []
    for name, field in type(section).model_fields.items():
        comment = textwrap.fill(field.description or "", 116, initial_indent="# ", subsequent_indent="#   ")
        if name in _EXAMPLES:
            later.append(f"{comment}\n{_EXAMPLES[name]}")
        else:
            lines.append(f"{comment}\n{name} = {_value(getattr(section, name))}\n")
    return "".join(lines) + "".join(later)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
