"""How values are printed in a terminal: tables that fit 80 columns, numbers rounded, with units. Programs read --json."""

from __future__ import annotations

import datetime
import os
import sys

from rich.console import Console
from rich.table import Table

from segmenter.notes import NoteCode
from segmenter.objects import sentences

_SENTENCES = {note.value: note.sentence for note in NoteCode}
_THROUGH_A_PIPE = 140  # columns, when neither a terminal nor COLUMNS says how many


def console(*, soft_wrap: bool = False) -> Console:
    """As wide as the terminal; COLUMNS says it for a pipe. `soft_wrap`: lines are left to the terminal to break."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if known else _THROUGH_A_PIPE, highlight=False, soft_wrap=soft_wrap)


def table(on: Console, *names: str, whole: tuple[str, ...] = (), numbers: tuple[str, ...] = ()) -> Table:
    """A table without lines, to be printed `on` a console. Columns that are `whole`, and `numbers`, keep their text in one
    piece, whatever the width: an id that is cut is no id. The others break; nothing is cut off."""
    made = Table(box=None, pad_edge=False, padding=(0, 2 if is_wide(on) else 1, 0, 0), header_style="bold underline")
    for name in names:
        kept, justify = name in (*whole, *numbers), "right" if name in numbers else "left"
        made.add_column(name, overflow="fold", no_wrap=kept, justify=justify)  # type: ignore[arg-type]
    return made


def is_wide(on: Console) -> bool:
    """Whether there is room for more than the 80 columns that everything fits into."""
    return on.width >= 110


def probability(value: float | None, threshold: float | None) -> str:
    """Such as "34 % (threshold 11 %)", as in pictures and reports. `value` in [0, 1]; "" for None."""
    return "" if value is None else sentences.percent(value, threshold, sentences.ENGLISH.threshold)


def percent(value: float | None, threshold: float | None) -> str:
    """Such as "34 %": `probability` without its threshold."""
    return probability(value, threshold).partition(" (")[0]


def area(square_mm: float | None) -> str:
    """Such as "1234 mm²"; "" for None."""
    return "" if square_mm is None else f"{square_mm:.0f} mm²"


def duration(seconds: float) -> str:
    """Such as "9 s", "12 min", "5 h", "3 days"."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def short_time(seconds: float | None) -> str:
    """Local time of seconds since the epoch, in 11 characters: month, day and time; the date, of another year."""
    if seconds is None:
        return ""
    moment, now = datetime.datetime.fromtimestamp(seconds), datetime.datetime.now()
    return moment.strftime("%m-%d %H:%M" if moment.year == now.year else "%Y-%m-%d")


def megabytes(size: int) -> str:
    """Of a disk, in the unit of node.reserve_mb (1,048,576 bytes)."""
    return f"{size // 2**20} MB"


def note(code: str) -> str:
    """What was assumed about a film: the code with its sentence; that of a newer worker alone."""
    return f"{code}: {_SENTENCES[code]}" if code in _SENTENCES else code
