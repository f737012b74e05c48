"""What the opposite way kept of rows that landed, brought beside the rows that have these keys now."""

from collections.abc import Iterator
from contextlib import contextmanager

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import PAGE, insert, run
from vecmigrate.operations.v1.change import Way
from vecmigrate.operations.v1.json_sql import read_value, value_is_simple
from vecmigrate.operations.v1.kept_rows import READ, RESTORE, KeptRow, KeptRows
from vecmigrate.operations.v1.present import PresentTable

__all__ = ["RETURNS", "Returns", "returns"]

RETURNS = "vecmigrate_returns"
"""The temporary table: the id of each record, whether the database can read it by itself, and the key."""


class Returns:
    """The records of the opposite way; ``any`` tells whether there are some."""

    def __init__(self, kept: KeptRows, way: Way, source: PresentTable) -> None:
        self._kept, self._way, self._source = kept, way, source
        self._connection = kept.connection
        self._is_sqlite = is_sqlite(kept.connection)
        self.name = RETURNS
        self.any = False

    @property
    def keys(self) -> list[str]:
        return [f"k{position}" for position in range(len(self._way.key))]

    def match(self, source: str = "s") -> str:
        """Return the condition that joins a record, named r, with its row."""
        pairs = zip(self.keys, self._way.key, strict=True)
        return " AND ".join(f"r.{key} = {source}.{quoted(column)}" for key, column in pairs)

    def load(self) -> None:
        types = [self._type(column) for column in self._way.key]
        columns = ", ".join(f"{key} {type_} NOT NULL" for key, type_ in zip(self.keys, types, strict=True))
        names = ", ".join(self.keys)
        run(
            self._connection,
            f"CREATE TEMPORARY TABLE {RETURNS} (id INTEGER PRIMARY KEY, is_plain INTEGER, {columns}, UNIQUE ({names}))",
        )
        self._load_simple(types)
        self._load_others()
        self.any = bool(run(self._connection, f"SELECT EXISTS (SELECT 1 FROM {RETURNS})").scalar())

    def _type(self, column: str) -> str:
        found = self._source.column(column)
        return found.affinity if self._is_sqlite else found.type

    @property
    def _chosen(self) -> str:
        return (
            "FROM vecmigrate_preserved p WHERE p.revision = ? AND p.operation = ? AND p.direction = ? "
            "AND p.source_table = ? AND p.landed = 1"
        )

    @property
    def _values(self) -> tuple[object, ...]:
        return self._kept.revision, self._kept.operation, self._way.opposite, self._way.table

    def _keys_are_simple(self) -> str:
        keys = [value_is_simple(self._connection, "p.converted", column) for column in self._way.key]
        return " AND ".join(keys)

    def _is_plain(self) -> str:
        if self._way.has_functions or self._way.turned:
            return "FALSE"
        come = [value_is_simple(self._connection, "p.row", column.name) for column in self._way.come]
        return " AND ".join([f"p.treatment = '{RESTORE}'", "p.memory IS NULL", *come])

    def _load_simple(self, types: list[str]) -> None:
        keys = [
            read_value(self._connection, "p.converted", column, type_)
            for column, type_ in zip(self._way.key, types, strict=True)
        ]
        is_plain = f"CASE WHEN {self._is_plain()} THEN 1 ELSE 0 END"
        into, ending = ("INSERT OR IGNORE", "") if self._is_sqlite else ("INSERT", " ON CONFLICT DO NOTHING")
        # The newest record of a key counts, should somebody have written another one.
        run(
            self._connection,
            f"{into} INTO {RETURNS} (id, is_plain, {', '.join(self.keys)}) SELECT p.id, {is_plain}, {', '.join(keys)} "
            f"{self._chosen} AND {self._keys_are_simple()} ORDER BY p.id DESC{ending}",
            self._values,
        )

    def _load_others(self) -> None:
        last = 0
        query = (
            f"SELECT {READ} {self._chosen} AND NOT ({self._keys_are_simple()}) AND p.id > ? ORDER BY p.id LIMIT {PAGE}"
        )
        while page := [KeptRow._make(row) for row in run(self._connection, query, (*self._values, last))]:
            rows = [(each.id, 0, *(each.converted[column] for column in self._way.key)) for each in page]
            insert(self._connection, RETURNS, ("id", "is_plain", *self.keys), rows)
            last = page[-1].id


@contextmanager
def returns(kept: KeptRows, way: Way, source: PresentTable) -> Iterator[Returns]:
    """Make the temporary table of the records, and drop it at the end."""
    found = Returns(kept, way, source)
    found.load()
    yield found
    run(kept.connection, f"DROP TABLE {RETURNS}")
