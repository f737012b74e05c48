"""A rehearsal: the real run, on a scratch copy or in a transaction that is rolled back, and what it came to."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from vecmigrate import backups, places, records, sqlite_files
from vecmigrate.access import Access
from vecmigrate.causes import described
from vecmigrate.engine import Database, locate, quick_check, reading, require_writable, translated
from vecmigrate.errors import BackupError, LockTimeoutError, RunFailedError, VecmigrateError
from vecmigrate.journal import Report
from vecmigrate.plan import Plan
from vecmigrate.scratch_files import clean_temporary_folders, scratch_folder
from vecmigrate.settings import Settings
from vecmigrate.shell import quoted
from vecmigrate.tools.inside import WAIT_SECONDS, Inside
from vecmigrate.watch import Watch

__all__ = ["ON_A_SERVER", "Rehearsal", "rehearse"]

ON_A_SERVER = (
    "On PostgreSQL it is rehearsed in the database itself, in a transaction that is rolled back: until then other "
    "migrations wait, and so does who uses the tables it changes. It waits at most "
    f"{WAIT_SECONDS} s for each lock."
)

_LOCK_NOT_AVAILABLE = "55P03"

Run = Callable[[Settings, Watch], Report]
"""Runs what is rehearsed, on the database that the settings name, and is seen by the watch."""


@dataclass
class Rehearsal:
    """What a run would come to. Bytes are None where nothing was tried, or it failed.

    ``lock_seconds`` is how long others would wait about, ``disk_needed`` how many bytes the run needs beside the
    database and for its backup. ``error`` is what it would end with.
    """

    from_revision: str | None = None
    to_revision: str | None = None
    backup_folder: str | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    disk_needed: int | None = None
    lock_seconds: float | None = None
    created: bool = False
    inside: Inside = field(default_factory=Inside)
    notes: list[str] = field(default_factory=list)
    error: VecmigrateError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def as_dict(self) -> dict[str, Any]:
        steps = self.inside.steps
        return {
            "dry_run": True,
            "ok": self.ok,
            "from": self.from_revision,
            "to": self.to_revision,
            "applied": [each["revision"] for each in steps if each["direction"] == "upgrade"],
            "reverted": [each["revision"] for each in steps if each["direction"] == "downgrade"],
            "created": self.created,
            "rows": {kind: sum(each["rows"][kind] for each in steps) for kind in ("converted", "set_aside")},
            "revisions": steps,
            "tables": self.inside.tables,
            "foreign_keys": self.inside.foreign_keys,
            "objects_lost": self.inside.objects_lost,
            "locks": self.inside.locks,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "disk_needed": self.disk_needed,
            "lock_seconds": self.lock_seconds,
            "backup": None,
            "backup_folder": self.backup_folder,
            "notes": self.notes,
            "error": self.error and self.error.as_dict(),
        }


def rehearse(access: Access, plan: Callable[[], Plan], run: Run) -> Rehearsal:
    """Run what ``plan`` tells where it leaves nothing, and return what came of it; an error is kept, not raised.

    Of an SQLite file the run is on a copy beside it, which goes at the end, and with it all that the run has written.
    """
    found = Rehearsal()
    try:
        chosen = plan()
        found.from_revision, found.to_revision = chosen.from_revision, chosen.to_revision
        found.backup_folder = chosen.backup_folder
        found.notes += [chosen.note] if chosen.note else []
        if chosen.steps:
            places.require_apart(access.database, access.settings)
            _run_apart(access, found, run)
    except VecmigrateError as error:
        found.error = error
    return found


def _run_apart(access: Access, found: Rehearsal, run: Run) -> None:
    database = access.database
    if database.path is not None:
        _on_copy(access, database.path, found, run)
    elif database.engine is not None:
        with _copy_in_memory(database) as copy:
            _try(found, run, replace(access.settings, database_url=copy), Inside())
    else:
        # Memory of its own goes with the run.
        is_server = not database.is_sqlite
        found.notes += [ON_A_SERVER] if is_server else []
        with _told_of_locks(database):
            _try(found, run, access.settings, Inside(is_rolled_back=is_server))


@contextmanager
def _told_of_locks(database: Database) -> Iterator[None]:
    """Let a script that did not get a lock in the short time it has here be no failure of the script."""
    try:
        yield
    except (RunFailedError, LockTimeoutError) as error:
        # What led to an error is told without its object by then: its SQLSTATE is left.
        if _LOCK_NOT_AVAILABLE not in str(error.__cause__):
            raise
        raise LockTimeoutError(
            f"The rehearsal waited {WAIT_SECONDS} s for a table of {database} that others use, and no longer, because "
            "all who come after would wait with it. Nothing was changed.",
            next_step="rehearse it when the service is idle, or on a copy of the database",
        ) from error


@contextmanager
def _copy_in_memory(database: Database) -> Iterator[Any]:
    with closing(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)) as copy:
        with reading(database) as connection:
            driver: Any = connection.connection.driver_connection
            driver.backup(copy)
        yield create_engine("sqlite://", creator=lambda: copy, poolclass=StaticPool, hide_parameters=True)


def _on_copy(access: Access, path: str, found: Rehearsal, run: Run) -> None:
    database, settings = access.database, access.settings
    require_writable(database)
    records.require_mirror_apart(database, settings)
    folder = os.path.dirname(path)
    clean_temporary_folders(folder, path)
    with translated(database), scratch_folder(folder, path) as scratch:
        copy = os.path.join(scratch, "copy.sqlite3")
        inside, copying, journal_mode = Inside(file=copy), 0.0, ""
        found.bytes_before = 0
        if not database.is_absent():
            copying, journal_mode = _copy(access, copy, found)
        apart = replace(
            settings,
            database_url=Path(copy),
            backup="never",
            backup_dir=None,
            history_file=None,
            is_default_database=False,
        )
        with _told_of(path, instead_of=copy, found=found):
            if found.backup_folder and found.bytes_before:
                # The run checks the whole file with its backup.
                quick_check(locate(Path(copy)))
            _try(found, run, apart, inside)
        found.bytes_after = sqlite_files.size(copy)
    saved = found.bytes_before or 0 if found.backup_folder else 0
    growth = max(0, found.bytes_after - (found.bytes_before or 0))
    # In WAL mode what is new goes through the log first.
    beside = inside.journal_bytes + growth * (2 if journal_mode == "wal" else 1)
    found.disk_needed = saved + beside
    if found.backup_folder and found.lock_seconds is not None:
        found.lock_seconds = round(found.lock_seconds + copying, 6)


def _copy(access: Access, copy: str, found: Rehearsal) -> tuple[float, str]:
    """Copy the committed state, as for a backup; return the seconds that took, and the journal mode."""
    path, timeout = access.database.path or "", access.settings.lock_timeout
    with reading(access.database, timeout=timeout) as connection:
        driver: Any = connection.connection.driver_connection
        size = sqlite_files.content_size(driver)
        # The copy, and as much again beside it, as the run itself may need.
        backups.check_room(os.path.dirname(copy), 2 * size, database=path)
        if found.backup_folder:
            _require_backup_fits(found.backup_folder, size, path)
        found.bytes_before = size
        began = time.monotonic()
        sqlite_files.new_file(copy)
        sqlite_files.copy_pages(driver, copy, deadline=began + timeout, what="copy")
        return time.monotonic() - began, str(sqlite_files.pragma(driver, "journal_mode"))


def _require_backup_fits(folder: str, size: int, path: str) -> None:
    """Raise BackupError where the run could make no backup: its folder cannot be, or has no room. Read-only."""
    standing = next(str(each) for each in (Path(folder), *Path(folder).absolute().parents) if os.path.lexists(each))
    why: OSError | None = None
    if not os.path.isdir(standing):
        why = NotADirectoryError(20, "Not a directory")
    elif not os.access(standing, os.W_OK | os.X_OK):
        why = PermissionError(13, "Permission denied")
    if why is not None:
        raise BackupError(
            f"The backup folder {folder} could not be created: {described(why)}. Nothing was changed.",
            next_step=f"make {standing} a folder that can be written to, or set VECMIGRATE_BACKUP_DIR, then run it "
            "again",
        )
    backups.check_room(standing, size, database=path)


def _try(found: Rehearsal, run: Run, settings: Settings, inside: Inside) -> None:
    found.inside = inside
    report = run(settings, inside)
    ended = time.monotonic()
    commit = ended - inside.ended_at if inside.ended_at is not None else 0.0
    found.lock_seconds = round(inside.seconds + commit, 6)
    found.notes += [note for note in report.notes if note not in found.notes]
    found.created = report.created
    if found.bytes_before is None:
        found.bytes_before = inside.bytes_before
    found.bytes_after = inside.bytes_after
    found.disk_needed = max(0, inside.bytes_after - inside.bytes_before)


@contextmanager
def _told_of(path: str, *, instead_of: str, found: Rehearsal) -> Iterator[None]:
    """Let an error and the notes of a run on a copy name the database itself."""

    def told(text: str) -> str:
        return text.replace(quoted(instead_of), quoted(path)).replace(instead_of, path)

    try:
        yield
    except VecmigrateError as error:
        error.message, error.next_step = told(error.message), told(error.next_step)
        raise
    finally:
        found.notes = [told(note) for note in found.notes]
