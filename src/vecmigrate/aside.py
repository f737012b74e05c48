"""What stands where a database is to be created: moved aside, and put back should that fail."""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from vecmigrate import sqlite_files
from vecmigrate.errors import RestoreFailedError

__all__ = ["made_way"]


@contextlib.contextmanager
def made_way(path: str, now: datetime) -> Iterator[str | None]:
    """Move a damaged database and stale sidecars aside, put an empty file in place; undo it on failure.

    SQLite would delete a ``-wal`` that has lost its database, with the commits it may hold.
    """
    aside = _aside_name(path, now)
    leftovers = _leftovers(path)
    is_new = not os.path.lexists(path) or "" in leftovers
    moved: list[tuple[str, str]] = []
    try:
        for suffix in leftovers:
            Path(path + suffix).rename(aside + suffix)
            moved.append((aside + suffix, path + suffix))
        if is_new:
            with contextlib.suppress(FileExistsError):
                sqlite_files.new_file(path)
        yield aside if moved else None
        sqlite_files.sync_folder(str(Path(path).parent))
    except BaseException as error:
        _undo(path, moved, is_new=is_new, cause=error)
        raise


def _aside_name(path: str, now: datetime) -> str:
    while True:
        aside = f"{path}.damaged-{now:%Y%m%dT%H%M%S.%f}Z"
        if not any(os.path.lexists(aside + suffix) for suffix in ("", *sqlite_files.SIDECARS)):
            return aside
        now += timedelta(microseconds=1)


def _leftovers(path: str) -> list[str]:
    """Return the suffixes of what has to be moved; the database comes last, it needs its WAL to the end."""
    present = [suffix for suffix in (*sqlite_files.SIDECARS, "") if os.path.lexists(path + suffix)]
    if "" in present and not Path(path).stat().st_size:
        # It may be a database in the making, whose journal holds nothing yet.
        return [suffix for suffix in present if suffix in {"-wal", "-shm"}]
    return present


def _undo(path: str, moved: list[tuple[str, str]], *, is_new: bool, cause: BaseException) -> None:
    try:
        if is_new and os.path.lexists(path) and not Path(path).stat().st_size:
            Path(path).unlink()
        for aside, original in reversed(moved):
            Path(aside).rename(original)
    except OSError as error:
        raise RestoreFailedError(
            f"Restoring {path} failed: {cause}. What was there is now {[aside for aside, _ in moved]}.",
            next_step="stop the programs that use it, and give these files their old names",
        ) from error
