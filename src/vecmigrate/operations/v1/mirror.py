"""What a table makes of values: SQLite turns some into others, by the type of the column."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import cells, codec_of, insert, row_of
from vecmigrate.operations.v1.codec import RawText, Row
from vecmigrate.operations.v1.present import PresentTable

__all__ = ["Mirror", "keeps", "keeps_sql"]

_KEPT: dict[str, set[type]] = {
    "TEXT": {str, bytes, RawText},
    "INTEGER": {int, bytes},
    "NUMERIC": {int, bytes},
    "REAL": {float, bytes},
    "BLOB": {int, float, str, bytes, RawText},
}
_KEPT_SQL = {
    "TEXT": "typeof({c}) IN ('text', 'blob', 'null')",
    "INTEGER": "typeof({c}) IN ('integer', 'blob', 'null')",
    "NUMERIC": "typeof({c}) IN ('integer', 'blob', 'null')",
    "REAL": "typeof({c}) IN ('real', 'blob', 'null')",
    "BLOB": "TRUE",
}


def keeps(affinity: str, value: Any) -> bool:
    """Tell whether a column surely keeps a value as it is. NaN becomes NULL everywhere."""
    if value is None:
        return True
    return type(value) in _KEPT[affinity] and not (type(value) is float and math.isnan(value))


def keeps_sql(affinity: str, column: str) -> str:
    """Return the condition that a column of this affinity surely keeps what *column* holds."""
    return _KEPT_SQL[affinity].format(c=column)


class Mirror:
    """A temporary table without rules, whose columns turn values into others as those of *table* do.

    Only the values of *columns* may be others than the table holds already.
    """

    def __init__(self, connection: sa.Connection, name: str, table: PresentTable, columns: Sequence[str]) -> None:
        self._connection = connection
        self._name = f"vecmigrate_as_{name}"
        self._affinities = {column.name: column.affinity for column in table.columns}
        self._checked = [(column, table.column(column).affinity) for column in columns]
        self._is_needed = is_sqlite(connection)
        self._codec = codec_of(connection)

    def __enter__(self) -> Self:
        if self._is_needed:
            columns = ", ".join(f"{quoted(name)} {affinity}" for name, affinity in self._affinities.items())
            self._connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {self._name} ({columns})")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._is_needed:
            with suppress(sa.exc.DBAPIError):  # After a failure, nothing but that failure is to be told.
                self._connection.exec_driver_sql(f"DROP TABLE IF EXISTS {self._name}")

    def stored(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows as the table keeps them."""
        if not self._is_needed:
            return list(rows)
        return [row if self._is_kept(row) else self._pass(row) for row in rows]

    def _is_kept(self, row: Row) -> bool:
        return all(keeps(affinity, row.get(column)) for column, affinity in self._checked)

    def _pass(self, row: Row) -> Row:
        insert(self._connection, self._name, tuple(row), [tuple(row.values())])
        query = f"SELECT {cells(self._connection, row)} FROM {self._name} s"
        found = row_of(row, self._connection.exec_driver_sql(query).one(), self._codec)
        self._connection.exec_driver_sql(f"DELETE FROM {self._name}")
        return found
