"""SQLite files as files: opened without side effects, copied whole and checked.

A database that may be live is only ever opened through SQLite: a plain ``open`` and ``close`` of it, in the
process that holds its lock, drops that lock on POSIX.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vecmigrate import file_rights, progress
from vecmigrate.sqlite_driver import Connection, result_code

__all__ = [
    "POLL_SECONDS",
    "SIDECARS",
    "SUFFIX",
    "UNKNOWN",
    "Identity",
    "connect",
    "content_size",
    "copy_pages",
    "fit_to_wal",
    "identity",
    "is_busy",
    "is_of_content",
    "last_status",
    "new_file",
    "open_closed_file",
    "patiently",
    "pragma",
    "rename_to_new",
    "set_wal",
    "size",
    "sync",
    "sync_folder",
    "tables_of",
    "telling",
    "triggers_of",
    "until",
]

SUFFIX = ".sqlite3"
UNKNOWN = "unknown"
"""Stands for the revision of a database that does not say it, and is not at base."""
POLL_SECONDS = 0.02
_STEP_BYTES = 1 << 24
"""So much is copied between two looks at the progress, which is as fast as all at once."""
SIDECARS = ("-wal", "-shm", "-journal")
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_OUTSIDE_THE_FILE = _BUSY | {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
_T = TypeVar("_T")


def connect(path: str, *, options: str = "mode=rw", timeout: float = POLL_SECONDS) -> sqlite3.Connection:
    """Open an existing SQLite file in autocommit mode; ``options`` are those of SQLite's URIs.

    ``mode=rw`` takes the sidecars of a WAL database away again on close, ``mode=ro`` would leave them. SQLite
    itself waits only shortly for others, because no signal ends its waiting: wait with ``patiently``.
    """
    uri = f"{Path(path).absolute().as_uri()}?{options}"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, factory=Connection)
    # The schema may be anybody's. Runs do trust it, because a trigger of a service could not write to FTS5 otherwise:
    # https://sqlite.org/src/doc/latest/doc/trusted-schema.md
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def open_closed_file(path: str) -> sqlite3.Connection:
    """Open a file that nobody writes: read-only, without locks, leaving nothing beside it."""
    return connect(path, options="mode=ro&immutable=1")


def is_busy(error: BaseException) -> bool:
    """Tell whether *error* only means that somebody else has the database."""
    return result_code(error) in _BUSY


def is_of_content(error: sqlite3.Error) -> bool:
    """Tell whether *error*, met while only reading, lies in what the file holds and not in access to it."""
    return result_code(error) not in _OUTSIDE_THE_FILE


def until(deadline: float) -> Callable[[int, int, int], None]:
    """Make a ``progress`` for ``Connection.backup``, which by itself retries for ever on BUSY.

    It raises a busy ``sqlite3.OperationalError`` once *deadline*, a ``time.monotonic()``, has passed in vain.
    """

    def give_up(status: int, _remaining: int, _total: int) -> None:
        if status & 0xFF in _BUSY and time.monotonic() > deadline:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = status
            raise error

    return give_up


def patiently(action: Callable[[], _T], deadline: float) -> _T:
    """Repeat *action* while others have the database, until *deadline*, a ``time.monotonic()``."""
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def copy_pages(source: sqlite3.Connection, target_path: str, *, deadline: float, what: str = "backup") -> None:
    """Copy the database of *source* into the existing empty file, in one pass, and sync it.

    Where somebody listens to the progress it goes in large steps, all of the state that is there at the first one.
    """
    with contextlib.closing(connect(target_path)) as target:
        # Unsynced until it is whole: a copy that a crash cuts short is thrown away anyway.
        target.execute("PRAGMA synchronous=OFF")
        _copy_in_steps(source, target, deadline, what, target_path)
        # A copy of a WAL database is itself in WAL mode, and reading it would leave files beside it.
        target.execute("PRAGMA journal_mode=DELETE").fetchone()
    sync(target_path)


def _copy_in_steps(
    source: sqlite3.Connection, target: sqlite3.Connection, deadline: float, what: str, name: str
) -> None:
    if not progress.is_heard():
        source.backup(target, pages=-1, progress=until(deadline), sleep=POLL_SECONDS)
        return
    # Else a commit of somebody else in between would begin the copy anew.
    holds = not source.in_transaction
    if holds:
        source.execute("BEGIN")
        patiently(lambda: source.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone(), deadline)
    try:
        with telling(what, source, name, deadline) as tell:
            pages = max(1, _STEP_BYTES // int(pragma(source, "page_size")))
            source.backup(target, pages=pages, progress=tell, sleep=POLL_SECONDS)
    finally:
        if holds:
            source.execute("ROLLBACK")


@contextlib.contextmanager
def telling(
    what: str, source: sqlite3.Connection, name: str, deadline: float
) -> Iterator[Callable[[int, int, int], None]]:
    """Give a ``progress`` for ``Connection.backup`` that gives up like ``until``, and tells how far the copy is."""
    give_up, size = until(deadline), int(pragma(source, "page_size"))
    with progress.phase(what, name=name, unit="bytes", total=content_size(source)) as phase:

        def tell(status: int, remaining: int, total: int) -> None:
            give_up(status, remaining, total)
            if phase is not None:
                phase.at((total - remaining) * size)

        yield tell


def fit_to_wal(path: str, scratch_path: str, *, page_size: int) -> None:
    """Make what is in a closed file fit to be copied onto a WAL database, by way of an existing empty file.

    SQLite can't copy onto one of another page size, nor pause within a single page.
    """
    with contextlib.closing(connect(path)) as connection:
        if pragma(connection, "page_count") == 1:
            connection.executescript("PRAGMA auto_vacuum=0; VACUUM; CREATE TABLE page (x); DROP TABLE page")
        if pragma(connection, "page_size") == page_size:
            return
        connection.execute(f"PRAGMA page_size={page_size}")
        # Unlike VACUUM, it keeps every rowid.
        connection.execute("VACUUM INTO ?", (scratch_path,))
    Path(scratch_path).replace(path)


def set_wal(path: str) -> None:
    with contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchone()


def content_size(connection: sqlite3.Connection) -> int:
    """Return the bytes of the database without its journal or WAL; 0 for an empty file."""
    return int(pragma(connection, "page_count") * pragma(connection, "page_size"))


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    """Return the present value of a setting."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@dataclass(frozen=True)
class Identity:
    """What a database says of itself; ``revisions`` is its version table, with an empty text for NULL."""

    database_id: str | None
    revisions: tuple[str, ...]
    app_version: str | None

    @property
    def revision(self) -> str | None:
        """The revision, None for base, UNKNOWN where the version table holds something else than one."""
        if len(self.revisions) == 1 and self.revisions[0]:
            return self.revisions[0]
        # Going to base empties the version table, and takes the app version away.
        return UNKNOWN if self.revisions or self.app_version else None


def identity(connection: sqlite3.Connection) -> Identity:
    """Read who the database is. Missing tables, and foreign ones of the same name, say nothing."""
    revisions = _texts(connection, "SELECT coalesce(CAST(version_num AS TEXT), '') FROM vecmigrate_version")
    meta = "SELECT CAST(value AS TEXT) FROM vecmigrate_meta WHERE key = "
    database_ids = _texts(connection, meta + "'database_id'")
    app_versions = _texts(connection, meta + "'app_version'")
    return Identity(next(iter(database_ids), None), revisions, next(iter(app_versions), None))


def last_status(connection: sqlite3.Connection) -> str | None:
    """Return how the newest attempt in the history ended, None if there is none. Read-only."""
    query = "SELECT CAST(status AS TEXT) FROM vecmigrate_history ORDER BY id DESC LIMIT 1"
    return next(iter(_texts(connection, query)), None)


def tables_of(connection: sqlite3.Connection) -> list[str]:
    """Return the names of all tables. Read-only."""
    connection.text_factory = lambda text: text.decode(errors="replace")
    try:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    finally:
        connection.text_factory = str


def triggers_of(connection: sqlite3.Connection, tables: Sequence[str]) -> list[tuple[str, str]]:
    """Return the triggers on some tables, which are named in lower case, each with its table. Read-only."""
    marks = ", ".join("?" * len(tables))
    query = f"SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) IN ({marks})"
    connection.text_factory = lambda text: text.decode(errors="replace")
    try:
        return list(connection.execute(query, tables))
    finally:
        connection.text_factory = str


def _texts(connection: sqlite3.Connection, query: str) -> tuple[str, ...]:
    # As bytes SQLite hands out UTF-8 whatever the encoding of the database, and bad bytes raise no error.
    connection.text_factory = bytes
    try:
        values = [value for (value,) in connection.execute(query) if value is not None]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return ()
    except UnicodeDecodeError as error:
        damage = sqlite3.DatabaseError("the schema is not UTF-8")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error
    finally:
        connection.text_factory = str
    return tuple(value.decode(errors="replace") for value in values)


# Files.


def size(path: str) -> int:
    """Return the bytes of a file, 0 for one that is not there."""
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def new_file(path: str, *, is_private: bool = True) -> None:
    """Create an empty file that only its owner reads, under any umask; FileExistsError if there is one.

    One that is not private has the mode that SQLite gives to a database.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600 if is_private else 0o644)
    try:
        # By its descriptor: whoever cleans up may take its name away at any moment.
        if os.name != "nt" and is_private:
            file_rights.keep_private(descriptor, 0o600, path=path)
        file_rights.belong_to_folder(descriptor, path)
    finally:
        os.close(descriptor)


def rename_to_new(source: str, target: str) -> bool:
    """Give *source* the name *target*, or return False where that is taken; ``os.rename`` would overwrite it.

    *source* may keep its old name beside the new one.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        # A file system without hard links.
        if os.path.lexists(target):
            return False
        Path(source).rename(target)
    return True


def sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: str) -> None:
    """Make names in *folder* durable, where the system can."""
    file_rights.sync_names(folder)
