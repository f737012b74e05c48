"""Landing: rows go into a table, and those that its rules refuse are told."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import driver_sql, insert
from vecmigrate.operations.v1.codec import Row

__all__ = ["Landing"]

_REFUSALS = (sa.exc.IntegrityError, sa.exc.DataError)


class Landing:
    """Where rows land. ``rowid`` is by which name the table has it, None if it has none."""

    def __init__(self, connection: sa.Connection, table: str, *, rowid: str | None) -> None:
        self._connection = connection
        self._table = table
        self._rowid = rowid

    def admitted(self, rows: Sequence[Row], rowids: Sequence[int | None]) -> list[bool]:
        """Insert the rows that the table admits, under their rowids, and return which they are."""
        found = [False] * len(rows)
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, row in enumerate(rows):
            groups.setdefault(tuple(row), []).append(position)
        for columns, positions in groups.items():
            for position, is_in in zip(positions, self._admit(columns, rows, rowids, positions), strict=True):
                found[position] = is_in
        return found

    def _admit(
        self, columns: Sequence[str], rows: Sequence[Row], rowids: Sequence[int | None], positions: Sequence[int]
    ) -> list[bool]:
        names, values = list(columns), [tuple(rows[position].values()) for position in positions]
        if self._rowid is not None:
            names.append(self._rowid)
            values = [(*row, rowids[position]) for row, position in zip(values, positions, strict=True)]
        return self._admitted(names, values)

    def _admitted(self, names: Sequence[str], values: Sequence[Sequence[Any]]) -> list[bool]:
        try:
            with self._connection.begin_nested():
                insert(self._connection, self._table, names, values)
        except _REFUSALS:
            if len(values) == 1:
                return [False]
            if is_sqlite(self._connection):
                # A statement that fails there undoes itself, and going back to a savepoint is slow.
                return [self._is_admitted(names, row) for row in values]
            middle = len(values) // 2
            return self._admitted(names, values[:middle]) + self._admitted(names, values[middle:])
        return [True] * len(values)

    def _is_admitted(self, names: Sequence[str], row: Sequence[Any]) -> bool:
        try:
            insert(self._connection, self._table, names, [row])
        except _REFUSALS:
            return False
        return True

    def free_rowids(self, rowids: Sequence[int | None]) -> list[int | None]:
        """Return the rowids that no other row has, None for the others: those get a new one."""
        if self._rowid is None or not is_sqlite(self._connection):
            return [None] * len(rowids)
        wanted = sorted({rowid for rowid in rowids if rowid is not None})
        marks, name = ", ".join("?" * len(wanted)), quoted(self._rowid)
        query = f"SELECT {name} FROM {quoted(self._table)} WHERE {name} IN ({marks})"
        found = self._connection.exec_driver_sql(driver_sql(self._connection, query), tuple(wanted) or None)
        taken: set[int | None] = {row[0] for row in found}
        free: list[int | None] = []
        for rowid in rowids:
            free.append(None if rowid in taken else rowid)
            taken.add(rowid)
        return free
