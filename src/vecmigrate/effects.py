"""What the statements of a connection write, and through whose triggers, as SQLite tells while it compiles them."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

__all__ = ["Effects", "watched"]

_CHANGES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE})


@dataclass
class Effects:
    """The tables that were written to or dropped, in lower case, and which of them each trigger wrote to."""

    tables: set[str] = field(default_factory=set)
    of_triggers: dict[str, set[str]] = field(default_factory=dict)

    def note(self, action: int, one: str | None, two: str | None, _database: str | None, trigger: str | None) -> int:
        # Of ALTER TABLE it is the second name that is the table.
        table = one if action in _CHANGES else two if action == sqlite3.SQLITE_ALTER_TABLE else None
        if table is not None:
            self.tables.add(table.lower())
            if trigger is not None:
                self.of_triggers.setdefault(trigger, set()).add(table)
        return sqlite3.SQLITE_OK


@contextmanager
def watched(connection: Connection) -> Iterator[Effects]:
    """Note what is written on a connection to SQLite."""
    driver: Any = connection.connection.driver_connection
    effects = Effects()
    driver.set_authorizer(effects.note)
    try:
        yield effects
    finally:
        driver.set_authorizer(None)
