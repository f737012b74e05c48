"""Databases filled with rows made from their own schema, and all their rows told exactly: for tests of revisions."""

import random
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.engine import Inspector
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from vecmigrate.catalog import is_sqlite, objects
from vecmigrate.operations.v1.cells import cells, codec_of, fetched, insert, row_of
from vecmigrate.operations.v1.codec import dumped
from vecmigrate.schema import OWN_PREFIX

__all__ = ["fill", "rows", "tables"]

_TRIES = 60
_LITERAL = re.compile(r"'((?:[^']|'')*)'|(?<![\w.])(-?\d+)(?![\w.])")


def tables(connection: Connection) -> list[str]:
    """Return the tables of a database but those of the tool, each after those that it refers to. Read-only."""
    found = objects(connection)
    virtual = [each.name for each in found if each.is_virtual]
    ordered = inspect(connection).get_sorted_table_and_fkc_names()
    return [
        name
        for name, _ in ordered
        if name
        and not name.startswith(OWN_PREFIX)
        # A virtual table keeps its rows in tables that begin with its name.
        and not any(name == each or name.startswith(f"{each}_") for each in virtual)
    ]


def fill(target: Connection | Engine | str, *, rows: int = 8) -> list[str]:
    """Add up to so many rows to each table; return the tables that took none and are empty. Writes, and commits a URL.

    Values are made of the types, the literals in CHECKs, and the rows that foreign keys refer to; a row that the
    table refuses is left out. The same schema gets the same rows.
    """
    if not isinstance(target, Connection):
        with _engine(target).begin() as connection:
            return fill(connection, rows=rows)
    return [name for name in tables(target) if not _Filling(target, name).add(rows) and not _count(target, name)]


def rows(target: Connection | Engine | str) -> dict[str, list[str]]:
    """Return all rows of each table but the tool's, sorted, exact in value and storage class, as JSON. Read-only."""
    if not isinstance(target, Connection):
        with _engine(target).connect() as connection:
            return rows(connection)
    return {name: _rows(target, name) for name in sorted(tables(target))}


def _engine(target: Engine | str) -> Engine:
    return create_engine(target, poolclass=NullPool) if isinstance(target, str) else target


def _count(connection: Connection, table: str) -> int:
    name = connection.dialect.identifier_preparer.quote_identifier(table)
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one())


def _rows(connection: Connection, table: str) -> list[str]:
    columns = sorted(each["name"] for each in inspect(connection).get_columns(table))
    codec = codec_of(connection)
    name = connection.dialect.identifier_preparer.quote_identifier(table)
    pages = fetched(connection, f"SELECT {cells(connection, columns)} FROM {name} s")
    return sorted(dumped(row_of(columns, row, codec)) for page in pages for row in page)


class _Filling:
    """Adds rows to one table."""

    def __init__(self, connection: Connection, table: str) -> None:
        inspector = inspect(connection)
        self._connection = connection
        self._table = table
        self._columns = [each for each in inspector.get_columns(table) if "computed" not in each]
        self._literals = _literals(inspector, table)
        self._referred = _referred(connection, inspector, table)
        self._start = _count(connection, table)
        # From the name, so that the same schema gets the same rows.
        self._random = random.Random(f"{table} {self._start}")  # noqa: S311 - nothing is secret here

    def add(self, wanted: int) -> int:
        """Try to add rows until there are as many as wanted; return how many landed."""
        landed = 0
        for attempt in range(_TRIES):
            if landed == wanted:
                break
            row = {each["name"]: self._value(each, self._start + attempt) for each in self._columns}
            landed += self._is_added({name: value for name, value in row.items() if value is not _DEFAULT})
        return landed

    def _is_added(self, row: Mapping[str, Any]) -> bool:
        try:
            with self._connection.begin_nested():
                insert(self._connection, self._table, list(row), [list(row.values())])
        except (DBAPIError, TypeError, ValueError):
            return False
        return True

    def _value(self, column: Mapping[str, Any], number: int) -> Any:
        name, kind = column["name"], self._random.random()
        if column.get("identity") or (column["default"] is not None and kind < 0.2):  # noqa: PLR2004 - one in five
            return _DEFAULT
        if column["nullable"] and not column.get("primary_key") and kind < 0.5:  # noqa: PLR2004 - every other one
            return None
        if self._referred.get(name):
            return self._random.choice(self._referred[name])
        if self._literals.get(name) and kind < 0.9:  # noqa: PLR2004 - now and then another one is allowed too
            return self._random.choice(self._literals[name])
        return _made(self._connection, column, number)


_DEFAULT = object()
"""Left to the default of the column."""


def _made(connection: Connection, column: Mapping[str, Any], number: int) -> Any:
    """Return a value of the type of a column, another one for each number."""
    try:
        python_type = column["type"].python_type
    except NotImplementedError:
        python_type = str
    if python_type is bool and is_sqlite(connection):
        return number % 2
    if python_type in {int, float, bool}:
        # Beyond 32 bits where that is allowed: what a type that is too small would cut off.
        return python_type([number + 1, (number + 1) * 1_000_003][number % 2])
    if python_type is bytes:
        return f"{column['name']} {number}".encode() + bytes([0, 255])
    if python_type is str:
        return f"{column['name']} {number}" + ["", " é", "\n'\""][number % 3]
    return f"{number}" if is_sqlite(connection) else None


def _literals(inspector: Inspector, table: str) -> dict[str, list[Any]]:
    """Return the literals in the CHECKs that name a column: what it is compared with, and may be."""
    found: dict[str, list[Any]] = {}
    names = [each["name"] for each in inspector.get_columns(table)]
    for check in inspector.get_check_constraints(table):
        values = [int(number) if number else text for text, number in _LITERAL.findall(check["sqltext"])]
        values += [value + 1 for value in values if isinstance(value, int)]
        for name in names:
            if re.search(rf"\b{re.escape(name)}\b", check["sqltext"]):
                found.setdefault(name, []).extend(values)
    return found


def _referred(connection: Connection, inspector: Inspector, table: str) -> dict[str, list[Any]]:
    """Return the values that a column with a foreign key may have."""
    found = {}
    quote = connection.dialect.identifier_preparer.quote_identifier
    for key in inspector.get_foreign_keys(table):
        for here, there in zip(key["constrained_columns"], key["referred_columns"], strict=False):
            query = f"SELECT {quote(there)} FROM {quote(key['referred_table'])} LIMIT 100"
            found[here] = list(connection.exec_driver_sql(query).scalars())
    return found
