"""The SQL of new and changed columns of SQLite."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.operations.schemaobj import SchemaObjects
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateTable

from vecmigrate.operations.v1.change import ChangeError, Turned, affinity
from vecmigrate.operations.v1.definition import Definition, Part, parsed

__all__ = ["changed", "made"]

_STAYING = {"PRIMARY", "UNIQUE", "REFERENCES", "COLLATE", "GENERATED", "AS"}


def made(operations: Operations, table: str, columns: Sequence[sa.Column[Any]]) -> Definition:
    """Return the columns and constraints that these columns make, as parts of a table of their own."""
    copies = [column._copy() for column in columns]  # noqa: SLF001 - how Alembic itself gives a column to two tables
    for column in copies:
        if column.index:
            raise ChangeError(f"The column {column.name} has index=True: make the index by op.create_index.")
    scratch = SchemaObjects(operations.migration_context).table(table, *copies)
    return parsed(str(CreateTable(scratch).compile(dialect=sqlite_dialect())))


def changed(operations: Operations, table: str, turned: Turned, present: Part) -> Part:
    """Return a column of another name, type, default or nullability that keeps the other rules of the present one.

    A CHECK stays only with the type: what it says of the old values can't be told of the new ones.
    """
    old, new = turned
    made_part = made(operations, table, [_without_key(new)]).column(new.name)
    is_same_type = affinity(old) == affinity(new)
    kept = [sql for word, sql in present.clauses() if _stays(word, sql, turned, is_same_type=is_same_type)]
    return Part(" ".join([made_part.sql.strip(), *(sql.strip() for sql in kept)]))


def _stays(word: str, sql: str, turned: Turned, *, is_same_type: bool) -> bool:
    if word == "NOT":
        return "DEFERRABLE" in sql.upper()
    if word == "DEFAULT":
        return is_same_type and turned[0].server_default is None and turned[1].server_default is None
    return word in _STAYING or (word == "CHECK" and is_same_type)


def _without_key(column: sa.Column[Any]) -> sa.Column[Any]:
    copied = column._copy()  # noqa: SLF001
    copied.primary_key = False
    return copied
