"""What the statements of a connection write, and through whose triggers, as SQLite tells while it compiles them."""

import sqlite3
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection

from vecmigrate import sqlite_driver
from vecmigrate.catalog import objects

__all__ = ["Effects", "tell_first_writes", "watched"]

_CHANGES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE})
_TOLD = 6


@dataclass
class Effects:
    """The tables that were written to or dropped, in lower case, and which of them each trigger wrote to."""

    tables: set[str] = field(default_factory=set)
    of_triggers: dict[str, set[str]] = field(default_factory=dict)

    def note(self, action: int, one: str | None, two: str | None, _database: str | None, trigger: str | None) -> None:
        # Of ALTER TABLE it is the second name that is the table.
        table = one if action in _CHANGES else two if action == sqlite3.SQLITE_ALTER_TABLE else None
        if table is not None:
            self.tables.add(table.lower())
            if trigger is not None:
                self.of_triggers.setdefault(trigger, set()).add(table)


@contextmanager
def watched(connection: Connection) -> Iterator[Effects]:
    """Note what is written on a connection to SQLite. Raises what the handler of a signal raises meanwhile."""
    driver: Any = connection.connection.driver_connection
    effects = Effects()
    raised: list[BaseException] = []
    listener = _listener(effects, raised)
    next(listener)
    # sqlite3 drops what a signal handler raises in a callback, and SQLite then refuses the statement. This one has no
    # line of Python outside the ``try`` of a generator, which gets the answer and the five arguments one by one.
    driver.set_authorizer(partial(max, sqlite3.SQLITE_OK, key=listener.send))
    try:
        yield effects
    finally:
        driver.set_authorizer(None)
        if raised:
            raise raised[0]


def _listener(effects: Effects, raised: list[BaseException]) -> Generator[bool, Any, None]:
    """Rank the answer, which comes first, above the arguments; once something was raised every statement is refused."""
    told: list[Any] = []
    try:
        while True:
            told.append((yield len(told) == 1))
            if len(told) == _TOLD:
                effects.note(*told[1:])
                told.clear()
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is raised again
        raised.append(error)


def tell_first_writes(
    connection: Connection, tables: Collection[str], tell: Callable[[Collection[str]], None]
) -> frozenset[str]:
    """Have a function called with each of some tables before the first statement that writes to it, from now on.

    A statement writes also what its triggers write, and what it drops or alters. Return the tables, in lower case, that
    will be told of: none on PostgreSQL and on a connection of another driver, and no virtual ones, which write to
    theirs in the middle of a statement.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite_driver.Connection):
        return frozenset()
    # What is still awaited belongs to an earlier call.
    driver.tell_first_writes((), tell=str)
    if driver.execute(f"PRAGMA {sqlite_driver.BY_HAND}").fetchone()[0]:
        # Whoever writes the schema by hand can take a table out of it without a word.
        return frozenset()
    virtual = [each.name.lower() for each in objects(connection) if each.is_virtual]
    shadows = tuple(f"{name}_" for name in virtual)
    told = frozenset(name for name in tables if name not in virtual and not name.startswith(shadows))
    left = set(told)

    def tell_one(name: str) -> None:
        found = left & ({name} if name != sqlite_driver.BY_HAND else left)
        left.difference_update(found)
        tell(found)

    driver.tell_first_writes(told | {sqlite_driver.BY_HAND}, tell_one)
    return told
