"""Locks and the transaction of a run: the write lock, the wait for it, and the guard over its end."""

import logging
import os
import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from vecmigrate import sqlite_driver
from vecmigrate.errors import ConfigurationError, LockTimeoutError

__all__ = [
    "ThreadLock",
    "WatchedTransaction",
    "borrowed",
    "commit_sqlite",
    "end_behind",
    "ends_process",
    "freeze",
    "is_busy",
    "is_interrupted",
    "let_go",
    "let_through",
    "lock_postgresql",
    "lock_sqlite",
    "lock_timed_out",
    "one_thread_in_memory",
    "quiet",
    "sqlite_code",
    "wait_for_locks_postgresql",
    "wait_to_read_sqlite",
]

_ADVISORY_LOCK = 0x7665636D  # "vecm"
_POLL_SECONDS = 0.005
_FIRST_POLL_SECONDS = 0.0005
"""Who waits for a worker's short transaction is not to wait ten times as long as that."""
_FREEZE_MILLISECONDS = 1000
_BUSY_SQLSTATES = frozenset({"40P01", "55P03"})
"""A deadlock, of which this transaction was the victim, and a lock that was not to be had."""


class ThreadLock:
    """A lock for the threads of one process, which the same thread may take again.

    Each process has its own: one that is forked while a thread has the lock would wait for ever for a thread
    that it does not have.
    """

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def __enter__(self) -> None:
        self._locks.setdefault(os.getpid(), threading.RLock()).acquire()

    def __exit__(self, *_: object) -> None:
        self._locks[os.getpid()].release()


one_thread_in_memory = ThreadLock()
"""An engine in memory may have one connection for all: to give it back rolls back what others do with it."""


def lock_sqlite(name: str, connection: Connection, timeout: float) -> None:
    # Else the name of a removed journal may outlive a loss of power, and roll back what was committed.
    _retry_while_busy(connection, "PRAGMA synchronous = EXTRA", timeout, name)
    _retry_while_busy(connection, "BEGIN IMMEDIATE", timeout, name)
    driver: Any = connection.connection.driver_connection
    # The first look at the schema: a damaged one is told before anything else is done.
    driver.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def commit_sqlite(name: str, connection: Connection, timeout: float) -> None:
    """Commit here, because a reader can make a commit in rollback-journal mode busy for a while."""
    driver = connection.connection.driver_connection
    if driver is not None and driver.in_transaction:
        _retry_while_busy(connection, "COMMIT", timeout, name)


def wait_to_read_sqlite(name: str, connection: Connection, timeout: float) -> None:
    """Wait until the database can be read, and then read one state of it, for which nothing has to be waited again."""
    driver: Any = connection.connection.driver_connection
    driver.execute("BEGIN")
    _retry_while_busy(connection, "SELECT 1 FROM sqlite_master LIMIT 1", timeout, name)


def _retry_while_busy(connection: Connection, statement: str, timeout: float, name: str) -> None:
    # The wait is ours and not SQLite's, so that a signal ends it at once.
    driver: Any = connection.connection.driver_connection
    deadline = time.monotonic() + timeout
    pause = _FIRST_POLL_SECONDS
    while True:
        try:
            driver.execute(statement)
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if time.monotonic() >= deadline:
                raise lock_timed_out(name, timeout) from error
            time.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS)
        else:
            return


@contextmanager
def borrowed(engine: Engine) -> Iterator[Connection]:
    """Open a transaction on the caller's own engine in memory, and leave its connection as it was."""
    if isinstance(engine.pool, NullPool) and not (engine.url.database or "").startswith("file:"):
        raise ConfigurationError(
            "The Engine is one in memory that keeps no connection, and so no table. Nothing was changed.",
            next_step="make it with poolclass=StaticPool, or name a file",
        )
    with one_thread_in_memory, engine.connect() as connection, connection.begin():
        driver: Any = connection.connection.driver_connection
        _require_memory(driver)
        level, driver.isolation_level = driver.isolation_level, None
        pragmas = {"foreign_keys": 0, "legacy_alter_table": 1}
        before = {name: driver.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
        try:
            for name, value in pragmas.items():
                driver.execute(f"PRAGMA {name} = {value}")
            driver.execute("BEGIN IMMEDIATE")
            yield connection
            driver.execute("COMMIT")
        except BaseException:
            if driver.in_transaction:
                driver.execute("ROLLBACK")
            raise
        finally:
            for name, value in before.items():
                driver.execute(f"PRAGMA {name} = {value}")
            driver.isolation_level = level


def _require_memory(driver: Any) -> None:
    """Refuse a file behind an Engine whose URL does not name it: it would have no lock, backup and history."""
    path = driver.execute("PRAGMA database_list").fetchone()[2]
    if path:
        raise ConfigurationError(
            f"The URL of the Engine names no file, and its connection is one to {path}. Nothing was changed.",
            next_step=f"pass the URL of that file instead: sqlite:///{path}",
        )


def lock_postgresql(name: str, connection: Connection, timeout: float, *, shared: bool = False) -> None:
    function = "pg_try_advisory_xact_lock_shared" if shared else "pg_try_advisory_xact_lock"
    deadline = time.monotonic() + timeout
    while not connection.exec_driver_sql(f"SELECT {function}({_ADVISORY_LOCK})").scalar():
        if time.monotonic() >= deadline:
            raise lock_timed_out(name, timeout)
        time.sleep(_POLL_SECONDS)


def wait_for_locks_postgresql(connection: Connection, timeout: float) -> None:
    """Let statements of this transaction wait so many seconds for a table, and not for ever."""
    # 0 would mean for ever: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {min(max(1, int(timeout * 1000)), 2**31 - 1)}")


def freeze(connection: Connection, table: str) -> None:
    """Keep everybody from changing the rows of a table until the end of the transaction.

    On SQLite the write lock does. On PostgreSQL writers would queue behind who waits for this, so it waits shortly.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_FREEZE_MILLISECONDS}")
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE MODE")


def lock_timed_out(name: str | None, timeout: float | None) -> LockTimeoutError:
    waited = f" after {timeout:g} seconds of waiting" if timeout is not None else ""
    shown = f" {name}" if name else ""
    return LockTimeoutError(
        f"The database{shown} is still locked by another process{waited}. Nothing was changed.",
        next_step="run the same command again when the other process is done, or wait longer: "
        "VECMIGRATE_LOCK_TIMEOUT=SECONDS",
    )


def is_busy(error: BaseException) -> bool:
    """Tell whether an error of the database, wrapped or not, means that somebody else holds a lock."""
    if getattr(getattr(error, "orig", error), "sqlstate", None) in _BUSY_SQLSTATES:
        return True
    return sqlite_code(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_interrupted(error: BaseException) -> bool:
    """Tell whether a statement ended because a signal arrived: nothing else interrupts one."""
    return sqlite_code(error).startswith("SQLITE_INTERRUPT")


def ends_process(error: BaseException) -> bool:
    """Tell whether an error is to end the process, as the handler of a signal may decide and a script may not."""
    if not isinstance(error, SystemExit):
        return not isinstance(error, Exception)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not (frames and "down_revision" in frames[-1].f_globals)


def end_behind(error: BaseException, *, handled: BaseException | None) -> BaseException | None:
    """Return what is to end the process, where that is *error* or what it came of, else None.

    A signal may come right after a savepoint has gone, and to go back to that fails then in its stead. What the caller
    of all this had ``handled`` already (``sys.exc_info``) is none of it.
    """
    return next(filter(ends_process, _chain(error, until=handled)), None)


def let_go(error: BaseException) -> None:
    """Forget what the frames of a traceback hold: a statement half read keeps SQLite's lock, also from this process."""
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)


def _chain(error: BaseException, *, until: BaseException | None = None) -> list[BaseException]:
    """Return an error and all that it came of."""
    chain: list[BaseException] = []
    following: list[BaseException | None] = [error]
    while following:
        each = following.pop()
        if each is not None and each is not until and not any(each is known for known in chain):
            chain.append(each)
            following += [each.__context__, each.__cause__]
    return chain


def sqlite_code(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(getattr(cause, "sqlite_errorname", "") or "")


def let_through(context: ExceptionContext) -> BaseException | None:
    """Raise what a signal handler raised inside a statement of SQLite: a listener of ``handle_error``."""
    # SQLAlchemy would close it after a KeyboardInterrupt, and SQLite keeps its lock while a statement is alive.
    context.is_disconnect = False
    driver = context.connection.connection.driver_connection if context.connection else None
    return sqlite_driver.interruption(driver, context.original_exception)


class _WithoutRows(logging.LoggerAdapter[Any]):
    """The logger of an engine, which at DEBUG would log every row that is read."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is that of logging
        return level > logging.DEBUG and super().isEnabledFor(level)


def quiet(engine: Engine) -> Engine:
    """Keep an engine from logging rows, notices, and the traceback of a signal while a connection is closed."""
    engine.logger = _WithoutRows(engine.logger)  # type: ignore[assignment]
    # The signal is raised as ever. A logger of its own changes no configuration of logging.
    engine.pool.logger = logging.Logger("vecmigrate", logging.CRITICAL)  # noqa: LOG001
    if engine.driver == "psycopg":
        event.listen(engine, "connect", _drop_notices)
    return engine


def _drop_notices(driver: Any, _record: object) -> None:
    """Keep SQLAlchemy from logging the notices of the server, in which a trigger may quote rows."""
    # Not by client_min_messages, which does not hold back RAISE INFO, and which not every pooler takes.
    driver._notice_handlers.clear()  # noqa: SLF001


# Asked for each part of a statement, and answered without a line of Python: sqlite3 drops what a signal handler raises
# in a callback. SQLite refuses a statement whose answer is none of its three: https://sqlite.org/c3ref/set_authorizer.html
_authorize = partial(max, sqlite3.SQLITE_OK, key=frozenset({sqlite3.SQLITE_TRANSACTION}).__contains__)
_REFUSAL = "authorizer malfunction"


class WatchedTransaction:
    """Guard a transaction while revision scripts run in it.

    On SQLite a script cannot end or begin one: the attempt fails, and ``was_touched`` tells of it, unless the script
    used the driver itself and swallowed the error. ``is_open`` tells whether it is still the same transaction (SQLite
    ends one by itself when a disk is full).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._driver: Any = connection.connection.driver_connection
        self._is_sqlite = connection.dialect.name == "sqlite"
        self.was_touched = False
        self._id = None if self._is_sqlite else self._transaction_id()

    def __enter__(self) -> Self:
        if self._is_sqlite:
            event.listen(self._connection.engine, "handle_error", self._note)
            self._driver.set_authorizer(_authorize)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_sqlite:
            self._driver.set_authorizer(None)
            event.remove(self._connection.engine, "handle_error", self._note)

    def _note(self, context: ExceptionContext) -> None:
        self.note(context.original_exception)

    def note(self, error: BaseException) -> None:
        """Look whether an error is the refusal of an attempt to end or begin the transaction."""
        self.was_touched = self.was_touched or _REFUSAL in str(error)

    def _transaction_id(self) -> object:
        return self._connection.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar()

    def is_open(self) -> bool:
        if self._is_sqlite:
            return bool(self._driver.in_transaction) and not self.was_touched
        return self._id == self._transaction_id()
