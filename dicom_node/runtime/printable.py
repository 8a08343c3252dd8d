"""Text from outside on one line: characters that could end a line, move the cursor or hide text are escaped."""

from __future__ import annotations

import unicodedata

# Control and format characters (bidirectional marks among them), surrogates, separators of lines and paragraphs.
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    """`text` with every invisible character written as \\xNN, \\uNNNN or \\UNNNNNNNN."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _INVISIBLE else one for one in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
