"""How answers look: tables that fit, times of here, and colour where there is a terminal for it."""

import os
import re
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

__all__ = ["Screen", "counted", "local", "printable"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_IN_LINES = re.compile(r"(?!\x1b\[\d{0,2}m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""The same but for the ends of lines, tabs and colours: those are ours, or harmless."""

_GAP = "  "
_NARROWEST = 16
"""Text in a column that is narrower is hard to read."""
_COLOURS = {
    "applied": "green",
    "success": "green",
    "up to date": "green",
    "yes": "green",
    "active": "green",
    "pending": "yellow",
    "building": "yellow",
    "warning": "yellow",
    "skipped": "yellow",
    "failed": "red",
    "interrupted": "red",
    "error": "red",
    "NO": "red",
}


def local(moment: str | None, *, seconds: bool = False) -> str:
    """Return a time of the history or a manifest in the zone of this machine; what is none stays as it is."""
    try:
        found = datetime.fromisoformat(moment or "")
    except ValueError:
        return moment or ""
    # Of a registry that was taken over no zone may be known.
    found = found.astimezone() if found.tzinfo else found
    return f"{found:%Y-%m-%d %H:%M:%S}" if seconds else f"{found:%Y-%m-%d %H:%M}"


def printable(text: str, *, in_lines: bool = False) -> str:
    """Return a text of a database with its control characters escaped: a terminal would obey them.

    With ``in_lines`` it is a whole answer, in which lines end, and words have colours.
    """
    pattern = _IN_LINES if in_lines else _CONTROL
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def counted(count: int, noun: str) -> str:
    """Return a number of things, in the singular where it is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Screen:
    """What a stream is written for: a terminal of some width, or no terminal, where lines have any length."""

    def __init__(self, stream: Any) -> None:
        is_terminal = bool(getattr(stream, "isatty", bool)())
        self.has_colour = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = shutil.get_terminal_size().columns if is_terminal or os.environ.get("COLUMNS") else None

    def coloured(self, text: str, colour: str | None = None) -> str:
        """Return a word in its colour: the one that is given, or that it has as a state."""
        colour = colour or _COLOURS.get(text.strip())
        return click.style(text, fg=colour) if self.has_colour and colour else text

    def table(self, rows: Sequence[Sequence[str]], *, whole: Collection[int] = (0,), titles: int = 1) -> list[str]:
        """Return the lines of a table, whose first row has the names of its columns.

        Where it is too wide, text is broken in the columns that are not in ``whole``; where that is not enough, each
        row becomes a block, which begins with its first ``titles`` cells.
        """
        rows = [[printable(cell) for cell in row] for row in rows]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - (self.width or 1 << 30)
        while excess > 0:
            loose = [index for index in range(len(widths)) if index not in whole and widths[index] > _NARROWEST]
            if not loose:
                return self._blocks(rows, titles)
            widest = max(loose, key=widths.__getitem__)
            widths[widest] -= 1
            excess -= 1
        return [line for row in rows for line in self._row(row, widths)]

    def _row(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        height = max(map(len, cells))
        lines = zip(*(cell + [""] * (height - len(cell)) for cell in cells), strict=True)
        padded = ([part.ljust(width) for part, width in zip(line, widths, strict=True)] for line in lines)
        return [_GAP.join(map(self.coloured, line)).rstrip() for line in padded]

    def _blocks(self, rows: Sequence[Sequence[str]], titles: int) -> list[str]:
        names, *others = rows
        lines = []
        for row in others:
            lines.append(" ".join(filter(None, row[:titles])))
            told = zip(names[titles:], row[titles:], strict=True)
            text = ", ".join(f"{name.lower()} {cell}" for name, cell in told if cell)
            lines += self.wrapped(text, indent=_GAP)
        return lines

    def facts(self, pairs: Mapping[str, str]) -> list[str]:
        """Return lines of names and values, the values below each other."""
        room = max(map(len, pairs)) + len(":" + _GAP)
        lines = []
        for name, value in pairs.items():
            text = self.wrapped(printable(value), indent=" " * room) or [""]
            lines.append(f"{name}:".ljust(room) + self.coloured(text[0].lstrip()))
            lines += text[1:]
        return lines

    def wrapped(self, text: str, *, indent: str = "") -> list[str]:
        """Return a text in lines that fit; paths and commands are not broken."""
        return textwrap.wrap(
            text,
            self.width or 1 << 30,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _wrapped(cell: str, width: int) -> list[str]:
    return [cell] if len(cell) <= width else textwrap.wrap(cell, width)
