"""A table as it is in the database now: its columns, its keys, and what hangs on it."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import cells, run
from vecmigrate.operations.v1.change import ChangeError, Way, affinity_of

__all__ = ["UNKNOWN", "PresentColumn", "PresentTable", "default_of", "read"]

UNKNOWN = object()
"""The default of a column that gives another value each time, or one of no simple type."""

_PYTHONS = (
    *(sa.String, sa.Integer, sa.Numeric, sa.Float, sa.Boolean, sa.LargeBinary),
    *(sa.Date, sa.DateTime, sa.Time, sa.Interval, sa.Uuid, sa.ARRAY),
)
"""The types of PostgreSQL whose values Python has as they are."""
_LITERAL = re.compile(r"\(*\s*(?:[+-]?\d+|'(?:[^']|'')*'(?:::[\w ]+)?|NULL(?:::[\w ]+)?)\s*\)*", re.IGNORECASE)


@dataclass(frozen=True)
class PresentColumn:
    """A column that rows can be written to. ``default`` is SQL; ``is_simple`` tells that JSON holds it as it is."""

    name: str
    type: str
    affinity: str
    is_needed: bool
    default: str | None
    is_simple: bool
    is_read_as_text: bool = False


@dataclass(frozen=True)
class PresentTable:
    name: str
    columns: tuple[PresentColumn, ...]
    has_rowid: bool
    uniques: tuple[frozenset[str], ...]
    sql: str = ""
    rowid_is_column: bool = False

    @cached_property
    def by_name(self) -> dict[str, PresentColumn]:
        return {column.name.lower(): column for column in self.columns}

    def column(self, name: str) -> PresentColumn:
        return self.by_name[name.lower()]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def cells(self, connection: sa.Connection) -> str:
        """Return what to select of a table named s for ``row_of``; what Python has no type for, JSON too, is text."""
        if is_sqlite(connection):
            return cells(connection, self.names)
        return ", ".join(
            f"s.{quoted(column.name)}" + ("::text" if column.is_read_as_text else "") for column in self.columns
        )

    def require(self, way: Way) -> None:
        """Raise ChangeError where the table is not what the change is written for."""
        faults = [f"there is no column {name}" for name in (*way.touched, *way.key) if name.lower() not in self.by_name]
        new = {name.lower() for name in way.target_touched} - {name.lower() for name in way.touched}
        faults += [f"there is a column {name} already" for name in sorted(new & self.by_name.keys())]
        if not faults and frozenset(name.lower() for name in way.key) not in self.uniques:
            faults.append(f"the key ({', '.join(way.key)}) is not unique: neither a primary key nor a unique index")
        if "rowid" in self.by_name and not self.rowid_is_column:
            faults.append("a column named rowid hides the rowids of its rows")
        if faults:
            raise ChangeError(
                f"Revision {way.revision} can't change {self.name}: {'; '.join(dict.fromkeys(faults))}. "
                "Nothing was changed."
            )


def read(connection: sa.Connection, table: str) -> PresentTable:
    """Return a table as it is. Read-only. Raises ChangeError if it is not there."""
    if not sa.inspect(connection).has_table(table):
        raise ChangeError(f"There is no table {table}. Nothing was changed.")
    return _sqlite_table(connection, table) if is_sqlite(connection) else _other_table(connection, table)


def _sqlite_table(connection: sa.Connection, table: str) -> PresentTable:
    found = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND lower(name) = ?", (table.lower(),)
    ).one()
    info = connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(table)})").all()
    indexes = connection.exec_driver_sql(f"PRAGMA index_list({quoted(table)})").all()
    keys = [row for row in info if row.pk]
    uniques = [frozenset(row.name.lower() for row in keys)]
    for index in indexes:
        if index.unique and not index.partial:
            rows = connection.exec_driver_sql(f"PRAGMA index_info({quoted(index.name)})").all()
            uniques.append(frozenset((row.name or "").lower() for row in rows))
    return PresentTable(
        name=found.name,
        columns=tuple(_sqlite_column(row) for row in info if not row.hidden),
        has_rowid=not re.search(r"\bWITHOUT\s+ROWID\b[^)]*$", found.sql, re.IGNORECASE),
        uniques=tuple(each for each in uniques if each and "" not in each),
        sql=found.sql,
        rowid_is_column=len(keys) == 1 and keys[0].type.upper() == "INTEGER",
    )


def _sqlite_column(row: Any) -> PresentColumn:
    return PresentColumn(row.name, row.type, affinity_of(row.type), bool(row.notnull), row.dflt_value, is_simple=True)


def _other_table(connection: sa.Connection, table: str) -> PresentTable:
    inspector = sa.inspect(connection)
    uniques = [frozenset(inspector.get_pk_constraint(table)["constrained_columns"])]
    uniques += [
        frozenset(name or "" for name in index["column_names"])
        for index in inspector.get_indexes(table)
        if index["unique"] and not index.get("dialect_options", {}).get("postgresql_where")
    ]
    return PresentTable(
        name=table,
        columns=tuple(
            PresentColumn(
                column["name"],
                str(column["type"].compile(dialect=connection.dialect)),
                "BLOB",
                not column["nullable"],
                column.get("default"),
                is_simple=isinstance(column["type"], (sa.String, sa.Integer)),
                is_read_as_text=not isinstance(column["type"], _PYTHONS),
            )
            for column in inspector.get_columns(table)
            if not column.get("computed")
        ),
        has_rowid=False,
        uniques=tuple(each for each in uniques if each and "" not in each),
    )


def default_of(connection: sa.Connection, column: PresentColumn) -> Any:
    """Return what a row gets that names no value for the column; UNKNOWN if that is not always the same."""
    if column.default is None:
        return None
    if not _LITERAL.fullmatch(column.default.strip()):
        return UNKNOWN
    name = "vecmigrate_default"
    run(connection, f"CREATE TEMPORARY TABLE {name} (x {column.type} DEFAULT {column.default})")
    connection.exec_driver_sql(f"INSERT INTO {name} DEFAULT VALUES")
    found = connection.exec_driver_sql(f"SELECT x FROM {name}").scalar()
    connection.exec_driver_sql(f"DROP TABLE {name}")
    return found if found is None or type(found) in {int, str} else UNKNOWN
