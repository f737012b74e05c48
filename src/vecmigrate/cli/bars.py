"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import shutil
import sys
import time

import click

from vecmigrate.progress import Progress

__all__ = ["Shown"]

_FIRST_SECONDS = 0.5
"""What takes no longer is not shown."""
_SECONDS_OF_A_LINE = 5.0
_SECONDS_OF_A_BAR = 0.1
_BAR, _SHORTEST = 24, 8
_VERBS = {
    "copy": "Copying",
    "backup": "Backing up",
    "verify": "Verifying",
    "upgrade": "Revision {}, up:",
    "downgrade": "Revision {}, down:",
    "restore": "Restoring",
    "embed": "Embedding",
}
_UNITS = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


class Shown:
    """Shows progress as it is told; nothing with ``is_quiet``."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._is_terminal = sys.stderr.isatty()
        self._phase: tuple[str, str] | None = None
        self._at = 0.0
        self._is_open = False

    def show(self, progress: Progress) -> None:
        if self._is_quiet or not self._is_due(progress):
            return
        self._at = time.monotonic()
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r{bar(progress, width)}\033[K", nl=False, err=True)
            self._is_open = True
        else:
            click.echo(line(progress), err=True)

    def _is_due(self, progress: Progress) -> bool:
        if self._phase != (progress.phase, progress.name):
            self._phase, self._at = (progress.phase, progress.name), 0.0
            self.end()
        first, pause = (_FIRST_SECONDS, _SECONDS_OF_A_BAR) if self._is_terminal else (_SECONDS_OF_A_LINE,) * 2
        return time.monotonic() - self._at >= pause if self._at else progress.duration_seconds >= first

    def end(self) -> None:
        """Take the bar away, so that what follows stands where it was."""
        if self._is_open:
            click.echo("\r\033[K", nl=False, err=True)
            self._is_open = False


def bar(progress: Progress, width: int) -> str:
    """Return what fits into one line of a terminal."""
    text = line(progress)
    size = min(_BAR, width - len(text) - len("[] "))
    if not progress.total or size < _SHORTEST:
        return text[:width]
    full = size * min(progress.done, progress.total) // progress.total
    return f"[{'#' * full}{'.' * (size - full)}] {text}"


def line(progress: Progress) -> str:
    """Return how far it is, with rate and time left as far as they are known."""
    verb = _VERBS.get(progress.phase, progress.phase).format(progress.name)
    done, total = _amount(progress, progress.done), progress.total
    parts = [f"{done} of {_amount(progress, total)} {_unit(progress)}".strip() if total else f"{done} {progress.unit}"]
    if progress.done:
        parts.append(f"{_amount(progress, int(progress.rate))} a second")
    left = progress.seconds_left
    # Once all rows are written, indexes and checks may still take a while, which nothing counts.
    parts.append(f"{_time(left)} left" if left else f"{_time(progress.duration_seconds)} so far")
    return f"{verb} {', '.join(parts)}"


def _unit(progress: Progress) -> str:
    return "" if progress.unit == "bytes" else progress.unit


def _amount(progress: Progress, count: int | None) -> str:
    if progress.unit != "bytes":
        return f"{count or 0:,}"
    size, name = next(((size, name) for size, name in _UNITS if (count or 0) >= size), (1, "bytes"))
    return f"{(count or 0) / size:.1f} {name}" if size > 1 else f"{count or 0} {name}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
