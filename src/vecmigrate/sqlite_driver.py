"""The connections of the driver ``sqlite3``, and what its errors say."""

import re
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

from vecmigrate.progress import tick

__all__ = ["BY_HAND", "Connection", "interruption", "is_of_unknown_sql", "nothing", "passes_over_sql", "result_code"]

_OF_SQL = re.compile(r"malformed database schema \(.*\) - (?!invalid rootpage|orphan index|.*is malformed)", re.DOTALL)
# A rename reads the SQL of every object there is, also of those that it does not touch.
_LACK_IN_RENAME = re.compile(r"error in \w+ .* after rename: (no such (collation sequence|function)|unknown function)")
_PROGRESS_STEPS = 50_000

BY_HAND = "writable_schema"
"""The pragma that lets statements write the schema itself."""

_ENDS = sqlite3.SQLITE_TRANSACTION
_WRITES = frozenset(
    {
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
    }
)

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
        self._first = _FirstWrites()

    def tell_first_writes(self, names: Iterable[str], tell: Callable[[str], object]) -> None:
        """Call a function with the name of each of some tables before the first statement that writes to it.

        Names are in lower case, and one of them may be ``BY_HAND``: that is told of before the schema can be written.
        Until the authorizer is set anew, no statement begins or ends a transaction.
        """
        self._first = _FirstWrites(names, tell)
        # Setting it has all prepared statements compiled anew, also those that are cached.
        self.set_authorizer(self._first.authorize)

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        # sqlite3 itself would not come by the method of the cursor.
        cursor: sqlite3.Cursor = self.cursor().execute(sql, parameters)
        return cursor

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().executemany(sql, parameters)
        return cursor

    def asked(self, run: Callable[[], object]) -> None:
        """Run a statement, again where it was refused because its tables had to be told of first."""
        try:
            while True:
                try:
                    run()
                except sqlite3.DatabaseError:
                    if not self._first.tell_refused():
                        raise
                else:
                    return
        finally:
            if self._first.raised:
                raised = self._first.raised[-1]
                self.tell_first_writes(self._first.awaited, self._first.tell)
                raise raised


class _Cursor(sqlite3.Cursor):
    """Passes over what of a schema this SQLite does not know, of which it would say that the file is malformed.

    So does ``PRAGMA writable_schema``, in a rename too: https://sqlite.org/pragma.html#pragma_writable_schema
    """

    connection: Connection

    def execute(self, sql: str, parameters: Any = ()) -> "_Cursor":
        run = partial(self.connection.asked, partial(super().execute, sql, parameters))
        try:
            run()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            is_rename = _LACK_IN_RENAME.match(str(error)) is not None
            if self.connection.passes_over_sql or not (is_rename or is_of_unknown_sql(error)):
                raise
        else:
            return self
        self.connection.asked(partial(super().execute, "PRAGMA writable_schema = ON"))
        self.connection.passes_over_sql = not is_rename
        try:
            run()
        finally:
            if is_rename:
                super().execute("PRAGMA writable_schema = OFF")
        return self

    def executemany(self, sql: str, parameters: Any) -> "_Cursor":
        rows = iter(parameters)
        # What is refused has taken no more than the first.
        first = list(islice(rows, 1))
        self.connection.asked(lambda: super(_Cursor, self).executemany(sql, chain(first, rows)))
        return self


class _FirstWrites:
    """An authorizer that refuses the first statement which writes to one of some tables, until that is told.

    SQLite asks it while it compiles a statement, also of what triggers write, and so before any row is changed:
    https://sqlite.org/c3ref/set_authorizer.html. It refuses the ends of transactions too.
    """

    def __init__(self, awaited: Iterable[str] = (), tell: Callable[[str], object] = str) -> None:
        self.awaited, self.tell = set(awaited), tell
        self.raised: list[BaseException] = []
        self._refused: list[str] = []
        judge = self._judge()
        next(judge)
        # Asked for what allows, and for the five arguments; SQLite refuses a statement for any answer but what allows.
        self.authorize = partial(max, sqlite3.SQLITE_OK, key=judge.send)

    def _judge(self) -> Generator[int, Any, None]:
        # A generator for the reason that is told of below. What a handler raises ends it; then it refuses all.
        action = answer = 0
        try:
            while True:
                value = yield answer
                answer = 0
                if isinstance(value, int):
                    action, answer = value, int(value == _ENDS)
                elif value is not None and self._is_awaited(action, value.lower()):
                    self._refused.append(value.lower())
                    answer = 1
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is raised again
            self.raised.append(error)

    def _is_awaited(self, action: int, name: str) -> bool:
        if action == sqlite3.SQLITE_PRAGMA:
            return name == BY_HAND in self.awaited
        return action in _WRITES and name in self.awaited

    def tell_refused(self) -> bool:
        """Tell of the tables for which a statement was refused; return whether there were any."""
        refused, self._refused[:] = set(self._refused), []
        for each in refused & self.awaited:
            self.awaited.discard(each)
            self.tell(each)
        return bool(refused)


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
