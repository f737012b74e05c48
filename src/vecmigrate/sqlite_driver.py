"""The connections of the driver ``sqlite3``, and what its errors say."""

import re
import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import Any

from vecmigrate.progress import tick

__all__ = ["Connection", "interruption", "is_of_unknown_sql", "nothing", "passes_over_sql", "result_code"]

_OF_SQL = re.compile(r"malformed database schema \(.*\) - (?!invalid rootpage|orphan index|.*is malformed)", re.DOTALL)
# A rename reads the SQL of every object there is, also of those that it does not touch.
_LACK_IN_RENAME = re.compile(r"error in \w+ .* after rename: (no such (collation sequence|function)|unknown function)")
_PROGRESS_STEPS = 50_000

nothing = partial(min, None, None, key=frozenset[object]().__contains__)
"""A function for SQL that gives NULL, without a line of Python: sqlite3 drops what a signal handler raises in one."""


class Connection(sqlite3.Connection):
    """A connection on which Python runs signal handlers also inside one long statement.

    What a handler raises there ends the statement, and SQLite only says that it was interrupted: ask
    ``interruption`` what is to be raised in its place. It also lets the phase under way tell where it is.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.raised: list[BaseException] = []
        self.passes_over_sql = False
        handlers = _run_handlers(self.raised)
        next(handlers)
        self.set_progress_handler(handlers.__next__, _PROGRESS_STEPS)

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        # sqlite3 itself would not come by the method of the cursor.
        cursor: sqlite3.Cursor = self.cursor().execute(sql, parameters)
        return cursor


class _Cursor(sqlite3.Cursor):
    """Passes over what of a schema this SQLite does not know, of which it would say that the file is malformed.

    So does ``PRAGMA writable_schema``, in a rename too: https://sqlite.org/pragma.html#pragma_writable_schema
    """

    connection: Connection

    def execute(self, sql: str, parameters: Any = ()) -> "_Cursor":
        try:
            return super().execute(sql, parameters)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            is_rename = _LACK_IN_RENAME.match(str(error)) is not None
            if self.connection.passes_over_sql or not (is_rename or is_of_unknown_sql(error)):
                raise
        super().execute("PRAGMA writable_schema = ON")
        self.connection.passes_over_sql = not is_rename
        try:
            return super().execute(sql, parameters)
        finally:
            if is_rename:
                super().execute("PRAGMA writable_schema = OFF")


def _run_handlers(raised: list[BaseException]) -> Iterator[int]:
    # Where a generator is resumed, handlers run inside its ``try``. In a function they would run before its first
    # line, where nobody could catch what they raise, and sqlite3 would drop it.
    answer = 0
    while True:
        try:
            yield answer
            answer = 0
            tick()
        except GeneratorExit:
            return
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is raised again
            raised[:], answer = [error], 1


def interruption(connection: object, error: BaseException) -> BaseException | None:
    """Return what a signal handler raised, where that is why a statement ended with *error*, else None."""
    raised = connection.raised if isinstance(connection, Connection) else []
    return raised.pop() if raised and result_code(error) == sqlite3.SQLITE_INTERRUPT else None


def is_of_unknown_sql(error: BaseException) -> bool:
    """Tell whether SQLite calls a schema malformed only because it does not know the SQL of an object in it."""
    if isinstance(error, UnicodeDecodeError):
        # It quotes the schema in what it says of it, and Python cannot read that.
        return True
    return result_code(error) == sqlite3.SQLITE_CORRUPT and _OF_SQL.match(str(error)) is not None


def passes_over_sql(connection: object) -> bool:
    """Tell whether the schema holds objects whose SQL this SQLite does not know, once it was read."""
    return isinstance(connection, Connection) and connection.passes_over_sql


def result_code(error: BaseException) -> int:
    """Return SQLite's primary result code, 0 for other errors."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
