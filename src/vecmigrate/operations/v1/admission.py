"""What a found table admits of the rows that go back into it, one by one, and as what it keeps them."""

from collections.abc import Sequence

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import cells, codec_of, insert, row_of
from vecmigrate.operations.v1.codec import Row
from vecmigrate.operations.v1.shapes import Shape

__all__ = ["REFUSED", "Admission"]

REFUSED = "refused by the rules of the older table"


class Admission:
    """The way into a found table of a shape, for rows that have numbers: their rowids, where there are any."""

    def __init__(self, connection: sa.Connection, table: str, shape: Shape) -> None:
        self.connection, self.table, self.shape = connection, table, shape
        self._codec = codec_of(connection)
        columns = sa.inspect(connection).get_columns(table)
        self._needed = [column["name"].lower() for column in columns if not column["nullable"]]

    def admit(self, rows: Sequence[tuple[int, Row]]) -> dict[int, Row]:
        """Insert the rows that the found table admits, and return them by number, as it keeps them.

        A column of the found table may have another type than what goes into it.
        """
        numbered = dict(rows)
        if not numbered:
            return {}
        if not is_sqlite(self.connection):
            return {number: numbered[number] for number in self._admit_halves(list(numbered.items()))}
        columns, table = self.shape.columns, self.table
        values = [(number, *(row[column] for column in columns)) for number, row in numbered.items()]
        insert(self.connection, table, ("rowid", *columns), values, refused="IGNORE")
        marks = ", ".join("?" * len(numbered))
        query = f"SELECT s.rowid, {cells(self.connection, columns)} FROM {quoted(table)} s WHERE s.rowid IN ({marks})"
        stored = self.connection.exec_driver_sql(query, tuple(numbered)).all()
        return {number: row_of(columns, found, self._codec) for number, *found in stored}

    def _admit_halves(self, rows: list[tuple[int, Row]]) -> list[int]:
        """Insert what can be inserted, half by half, and return the numbers of these rows."""
        if not rows:
            return []
        try:
            with self.connection.begin_nested():
                values = [tuple(row[column] for column in self.shape.columns) for _, row in rows]
                insert(self.connection, self.table, self.shape.columns, values)
        except (sa.exc.IntegrityError, sa.exc.DataError):
            middle = len(rows) // 2
            return self._admit_halves(rows[:middle]) + self._admit_halves(rows[middle:]) if middle else []
        return [number for number, _ in rows]

    def refusal(self, row: Row) -> str:
        """Return why the found table does not admit a row."""
        empty = [column for column in self._needed if row[column] is None]
        return f"{empty[0]}: the older table needs one" if empty else REFUSED
