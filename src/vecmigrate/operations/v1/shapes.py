"""The shapes in which a table may be found, and what becomes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from vecmigrate.catalog import column_names, is_sqlite, quoted, table_names
from vecmigrate.operations.v1 import cells as exact
from vecmigrate.operations.v1.codec import RawText, Row, same, same_row
from vecmigrate.operations.v1.readers import UnfitError

__all__ = ["Conversion", "Fed", "Shape", "merged"]


@dataclass(frozen=True)
class Shape:
    """A table as it was found. ``kinds`` names each column with what a plain value in it is (``plain.condition``).

    ``convert`` turns a row into one of the new table and notes what it had to read; ``restore`` is its way back.
    Both raise UnfitError for a row that has no place there. ``renamed`` names columns of another name in the new
    table. A plain row goes set by set where ``plain_there`` (SQL over a row named s) is true, and comes back so where
    ``plain_back`` is true of its row in the new table.
    """

    key: str
    kinds: Mapping[str, str]
    convert: Callable[[Row, list[str]], Row]
    restore: Callable[[Row], Row]
    renamed: Mapping[str, str] = field(default_factory=dict)
    plain_there: str = "TRUE"
    plain_back: str = "TRUE"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    @property
    def names(self) -> dict[str, str]:
        """Return the columns with their names in the new table."""
        return {column: self.renamed.get(column, column) for column in self.kinds}

    def converted(self, row: Row, notes: list[str] | None = None) -> Row:
        """Return the row of the new table. Raises UnfitError."""
        for column, value in row.items():
            if type(value) is RawText:
                raise UnfitError(f"{column}: text that is not UTF-8")
        return self.convert(row, [] if notes is None else notes)

    def meant(self, row: Row) -> Row | None:
        try:
            return self.converted(row)
        except UnfitError:
            return None


@dataclass(frozen=True)
class Fed:
    """A column of the new table whose value another table tells for some rows.

    ``query`` is a scalar subquery over a row named s of either table, NULL where the other table tells nothing;
    ``name`` is the column of that value in a row on its way up. Where the column is still what the other table
    says, nobody has edited it.
    """

    column: str
    name: str
    query: str
    ids: str
    """A query of the values of the first key that have a value there."""
    read: Callable[[Any], Any]
    """Returns what ``column`` becomes of a value of the other table."""


@dataclass(frozen=True)
class Conversion:
    """A table that is built anew: from one of some ``shapes`` into one with ``kinds``, and back.

    ``keys`` are its unique columns, the primary key first. Of rows that want one key, the one with the greatest
    ``rank`` (four values that tell its worth from the new row and the old one) lands, and the others are set aside.
    ``create`` makes the new table under a name, with or without its primary key, and nothing else;
    ``create_keys`` the other unique indexes, ``create_indexes`` the rest.
    """

    table: str
    revision: str
    kinds: Mapping[str, str]
    keys: Sequence[str]
    shapes: Sequence[Shape]
    rank: Callable[[Row, Row], tuple[int, int, int, str]]
    create: Callable[..., None]
    create_keys: Callable[[], None]
    create_indexes: Callable[[], None]
    indexes: frozenset[str]
    """The names of the indexes that these make, and of those of the old table that go with it."""
    fed: Fed | None = None
    require: Callable[[Row], None] = lambda _row: None
    """Raises UnfitError for a row that breaks a CHECK of the new table."""

    @property
    def key(self) -> str:
        return self.keys[0]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    @property
    def texts(self) -> list[str]:
        return [column for column, kind in self.kinds.items() if kind.startswith(("text", "json"))]

    def shape_of(self, connection: sa.Connection) -> Shape | None:
        """Return the shape of the table, None if there is none. Raises RuntimeError for an unknown one."""
        if self.table not in table_names(connection):
            return None
        columns = column_names(connection, self.table)
        for shape in self.shapes:
            if columns == set(shape.kinds):
                return shape
        raise RuntimeError(f"The table {self.table} has none of the shapes that revision {self.revision} knows.")

    def selected(self, connection: sa.Connection, columns: Sequence[str]) -> str:
        """Return what to select of a row named s, with what feeds it, for ``read``."""
        found = exact.cells(connection, columns)
        if self.fed is None:
            return found
        query = self.fed.query
        if not is_sqlite(connection):
            return f"{found}, {query}"
        return f"{found}, typeof({query}), CASE typeof({query}) WHEN 'text' THEN CAST({query} AS BLOB) ELSE {query} END"

    def read(self, columns: Sequence[str], values: Sequence[Any], codec: str | None) -> Row:
        """Return the row that was selected, with what feeds it if anything does."""
        if self.fed is None:
            return exact.row_of(columns, values, codec)
        row = exact.row_of((*columns, self.fed.name), values, codec)
        if row[self.fed.name] is None:
            del row[self.fed.name]
        return row

    def without_fed(self, row: Row) -> Row:
        return {column: value for column, value in row.items() if self.fed is None or column != self.fed.name}

    def column_list(self, columns: Sequence[str] | None = None) -> str:
        return ", ".join(quoted(column) for column in columns or self.columns)


def merged(turn: Callable[[Row], Row], present: Row, *, original: Row, became: Row) -> Row:
    """Return *original*, but the present meaning in the columns that were edited since it *became* another row.

    ``turn`` gives the meaning of such a row. Raises UnfitError.
    """
    if same_row(present, became):
        return original
    now = turn(present)
    try:
        then = turn(became)
    except UnfitError:
        return now
    return {column: original[column] if same(now[column], then[column]) else now[column] for column in now}
