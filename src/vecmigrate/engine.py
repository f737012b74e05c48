"""Databases and connections: the only module that knows what differs between SQLite and PostgreSQL."""

import os
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from vecmigrate import soundness, sqlite_driver, sqlite_files, urls
from vecmigrate.causes import told
from vecmigrate.compiled import OF_SQLITE
from vecmigrate.diagnosis import diagnosed, is_writable, widowed
from vecmigrate.errors import ConfigurationError, DatabaseUnusableError
from vecmigrate.locks import (
    borrowed,
    commit_sqlite,
    is_busy,
    is_interrupted,
    let_through,
    lock_postgresql,
    lock_sqlite,
    lock_timed_out,
    one_thread_in_memory,
    quiet,
    wait_for_locks_postgresql,
    wait_to_read_sqlite,
)
from vecmigrate.new_database import built_beside
from vecmigrate.schema import OWN_PREFIX
from vecmigrate.shell import quoted

__all__ = [
    "SQLITE_FLOOR",
    "Database",
    "engine_of",
    "locate",
    "quick_check",
    "reading",
    "require_writable",
    "scratch",
    "sqlite_url",
    "translated",
    "unusable",
    "writing",
]

SQLITE_FLOOR = (3, 34, 0)
"""The oldest SQLite with everything the revision scripts use."""

_SYNCHRONOUS = {"aiosqlite": "pysqlite", "asyncpg": "psycopg", "psycopg_async": "psycopg"}
_SQLITE_DRIVERS = ("pysqlite", "aiosqlite")


@dataclass(frozen=True)
class Database:
    """A database that is named, not opened. ``path`` is the real path of an SQLite file, else None.

    ``engine`` is the caller's own, only where the database lives in memory and nowhere else.
    """

    url: URL
    path: str | None
    engine: Engine | None = None

    @property
    def dialect(self) -> str:
        return self.url.get_backend_name()

    @property
    def is_sqlite(self) -> bool:
        return self.dialect == "sqlite"

    def __str__(self) -> str:
        """Return the path, or the URL without password and query (which may hold one too)."""
        return self.path or self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def option(self) -> str:
        """The CLI option that names this database, for the commands in error messages."""
        return f"--db-path {quoted(self.path)}" if self.path else "--database-url URL"

    def is_absent(self) -> bool:
        """Tell whether the SQLite file is missing or empty; a zero-byte file counts as absent. Read-only.

        Raises DatabaseUnusableError for what is no file, and for a ``-wal`` that has lost its database: whoever opened
        that, also for reading, would have SQLite delete it with the commits that it may hold.
        """
        if self.path is None:
            return False
        try:
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):
                raise unusable(self, OSError("not a file"))
            is_absent = status.st_size == 0
        except FileNotFoundError:
            is_absent = True
        except OSError as error:
            raise unusable(self, error) from error
        if is_absent and sqlite_files.size(f"{self.path}-wal") and sqlite_files.size(self.path) == 0:
            raise widowed(self.path, option=self.option)
        return is_absent


def sqlite_url(path: str) -> URL:
    """Return the URL of an SQLite file; any character is allowed in the path."""
    return URL.create("sqlite", database=os.path.abspath(os.path.expanduser(path)))


def locate(url: str | os.PathLike[str] | URL | Engine) -> Database:
    """Return the database that a URL, an Engine or the path of an SQLite file names. Opens nothing.

    A path is a path object: text is taken for a URL. Of an Engine on a file or a server only the URL is
    used. Asynchronous drivers are replaced by their synchronous counterparts, and an AsyncEngine counts as
    its URL. Raises ConfigurationError, which never shows the URL, for what is no URL, and for a database that
    is neither SQLite nor PostgreSQL.
    """
    if isinstance(url, Engine):
        named = locate(url.url)
        if not named.is_sqlite or named.path is not None:
            return named
        if url.dialect.is_async:
            raise _of_an_event_loop()
        return replace(named, engine=url)
    if isinstance(url, os.PathLike):
        url = URL.create("sqlite", database=os.path.abspath(url))
    inner = getattr(url, "sync_engine", None)
    if isinstance(inner, Engine):
        return locate(inner)
    parsed, backend, driver = urls.parsed(url)
    if backend not in {"sqlite", "postgresql"}:
        raise ConfigurationError(
            f"{backend} is not supported; SQLite and PostgreSQL are. Nothing was changed.",
            next_step="name a database by --db-path FILE or --database-url URL",
        )
    if backend == "sqlite" and driver not in _SQLITE_DRIVERS:
        raise ConfigurationError(
            f"The SQLite driver {driver} is not supported. Nothing was changed.",
            next_step="write the URL as sqlite:////absolute/path.sqlite3",
        )
    if backend == "postgresql" and parsed.drivername == "postgresql":
        driver = "psycopg"
    parsed = parsed.set(drivername=f"{backend}+{_SYNCHRONOUS.get(driver, driver)}")
    return Database(parsed, urls.sqlite_path(parsed) if backend == "sqlite" else None)


def _of_an_event_loop() -> ConfigurationError:
    return ConfigurationError(
        "The Engine is an asynchronous one on memory, which only a connection of it can migrate. Nothing was changed.",
        next_step="async with engine.connect() as connection: await connection.run_sync(vecmigrate.ensure_current)",
    )


def unusable(database: Database, error: BaseException) -> DatabaseUnusableError:
    """Return the error for a database that cannot be opened, from the driver's own error."""
    return diagnosed(error, path=database.path, shown=str(database), option=database.option)


def _sqlite_error(name: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(name)
    error.sqlite_errorname, error.sqlite_errorcode = name, getattr(sqlite3, name)
    return error


def require_writable(database: Database) -> None:
    """Refuse a read-only file or folder before anything is written: SQLite grants its write lock all the same."""
    path = database.path
    if path and urls.is_for_reading(database.url):
        raise ConfigurationError(
            f"The URL of {path} opens it for reading only. Nothing was changed.",
            next_step=f"vecmigrate {database.option} status, or take mode=ro and immutable out of the URL",
        )
    if path is None or not os.path.exists(path):
        return
    if not is_writable(path) or soundness.has_unknown_format(path):
        raise unusable(database, _sqlite_error("SQLITE_READONLY"))


@contextmanager
def reading(database: Database, *, timeout: float = 5.0) -> Iterator[Connection]:
    """Open a connection that cannot write. An absent SQLite file is not created, but an error.

    Waits up to ``timeout`` seconds for a process that lets nobody read, as one does in rollback-journal
    mode while it writes much. Raises DatabaseUnusableError, LockTimeoutError.
    """
    if database.is_absent():
        # SQLite would take an empty file for an empty database.
        raise unusable(database, FileNotFoundError())
    engine = database.engine or engine_of(database, timeout=timeout, read_only=True)
    alone = one_thread_in_memory if database.engine else nullcontext()
    with alone, translated(database), engine.connect() as connection:
        if database.path is not None:
            wait_to_read_sqlite(str(database), connection, timeout)
        yield connection


@contextmanager
def writing(database: Database, *, lock_timeout: float) -> Iterator[Connection]:
    """Open a transaction that holds the migration lock, and commit it at the end.

    Takes SQLite's write lock, or an advisory lock of the transaction on PostgreSQL, waiting up to
    ``lock_timeout`` seconds. An exception rolls back. Raises LockTimeoutError, DatabaseUnusableError.
    """
    if database.engine is not None:
        with borrowed(database.engine) as connection:
            yield connection
        return
    with ExitStack() as stack:
        database.is_absent()  # Asked first, because it may refuse.
        require_writable(database)
        place = stack.enter_context(_placed(database, lock_timeout))
        with translated(database):
            connection = stack.enter_context(engine_of(place, timeout=lock_timeout, read_only=False).connect())
            transaction = connection.begin()
        try:
            yield connection
        except BaseException:
            transaction.rollback()
            raise
        with translated(database):
            transaction.commit()


@contextmanager
def _placed(database: Database, lock_timeout: float) -> Iterator[Database]:
    """Give the database to write to: a missing file is built beside its place, where it comes whole or not at all."""
    if database.path is None or os.path.lexists(database.path):
        yield database
        return
    with ExitStack() as building:
        with translated(database):
            place = building.enter_context(built_beside(database.path, time.monotonic() + lock_timeout))
        yield replace(database, path=place)
        with translated(database):
            building.close()


@contextmanager
def translated(database: Database) -> Iterator[None]:
    """Turn errors of the driver into DatabaseUnusableError, LockTimeoutError or what a signal's handler raised."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, OSError) as error:
        if is_interrupted(error):
            raise KeyboardInterrupt from told(error)
        if is_busy(error) or isinstance(error, BlockingIOError):
            raise lock_timed_out(str(database), None) from told(error)
        raise unusable(database, error) from told(error)
    except UnicodeDecodeError as error:  # names in the schema
        raise unusable(database, error) from told(error)


def engine_of(database: Database, *, timeout: float, read_only: bool, shared: bool = False) -> Engine:
    """Return an Engine whose transactions hold the migration lock, or that cannot write. Opens nothing.

    ``shared`` is for writers who bar a migration and not each other, where the database can tell them apart.
    """
    if not database.is_sqlite:
        try:
            engine = quiet(create_engine(database.url, poolclass=NullPool, hide_parameters=True))
        except (ArgumentError, ValueError, TypeError):
            raise urls.no_url() from None  # Its text quotes the part of the query that is wrong.
        except ModuleNotFoundError as error:
            raise urls.no_driver(error) from None
        event.listen(engine, "begin", lambda c: wait_for_locks_postgresql(c, timeout))
        if not read_only:
            event.listen(engine, "begin", lambda c: lock_postgresql(str(database), c, timeout, shared=shared))
        return engine
    if sqlite3.sqlite_version_info < SQLITE_FLOOR:
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} is too old: {'.'.join(map(str, SQLITE_FLOOR))} or newer is needed. "
            "Nothing was changed.",
            next_step="use a Python with a newer SQLite; python -c 'import sqlite3; print(sqlite3.sqlite_version)'",
        )
    connect = partial(_connect_sqlite, database, read_only=read_only)
    # Only Alembic shows this URL (current -v); the file is opened by what stands above.
    url = sqlite_url(database.path) if database.path else "sqlite://"
    compiled = {"compiled_cache": OF_SQLITE}
    engine = quiet(
        create_engine(url, creator=connect, poolclass=NullPool, hide_parameters=True, execution_options=compiled)
    )
    event.listen(engine, "handle_error", let_through)
    if not read_only:
        event.listen(engine, "begin", lambda c: lock_sqlite(str(database), c, timeout))
        event.listen(engine, "commit", lambda c: commit_sqlite(str(database), c, timeout))
    return engine


def _connect_sqlite(database: Database, *, read_only: bool) -> sqlite3.Connection:
    """Open the file so that a reader creates nothing, and so that a statement can be interrupted.

    ``mode=rw`` serves readers too, because ``mode=ro`` leaves the sidecars of a WAL database behind.
    """
    if database.path is None:
        target = ":memory:"
    elif read_only:
        mode = "rw" if os.access(database.path, os.W_OK) else "ro"
        target = f"file:{quote(database.path)}?mode={mode}{_unshared(database.path)}"
    else:
        target = f"file:{quote(database.path)}?mode=rwc"
    connection = sqlite3.connect(
        target, uri=True, timeout=0, isolation_level=None, check_same_thread=False, factory=sqlite_driver.Connection
    )
    connection.execute("PRAGMA foreign_keys = OFF")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    else:
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute("PRAGMA secure_delete = FAST")
    return connection


def _unshared(path: str) -> str:
    """Return the option for a WAL database that nobody has open, where its sidecars cannot be made, else nothing."""
    is_closed = not is_writable(path) and not os.path.lexists(f"{path}-wal") and soundness.is_wal(path)
    return "&immutable=1" if is_closed else ""


def quick_check(database: Database, *, tables: Collection[str] | None = None) -> None:
    """Raise DatabaseUnusableError for a damaged SQLite file, on a connection of its own. Read-only.

    With ``tables``, in lower case, these are looked at alone, as far as they are there, and the tool's own.
    """
    if database.path is None:
        return
    with translated(database), closing(sqlite_files.connect(database.path)) as connection:
        found = soundness.problems(connection, tables=None if tables is None else _among(connection, tables))
    if found:
        raise unusable(database, _sqlite_error("SQLITE_CORRUPT"))


def _among(connection: sqlite3.Connection, tables: Collection[str]) -> list[str]:
    names = sqlite_files.tables_of(connection)
    return ["sqlite_master", *(n for n in names if n.lower() in tables or n.lower().startswith(OWN_PREFIX))]


@contextmanager
def scratch() -> Iterator[Connection]:
    """Open an empty SQLite database in memory."""
    memory = Database(URL.create("sqlite", database=":memory:"), None)
    with engine_of(memory, timeout=0, read_only=False).connect() as connection, connection.begin():
        yield connection
