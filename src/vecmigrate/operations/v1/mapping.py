"""What single values of a column become, worked out once for each value, so that rows can move set by set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import cells, codec_of, fetched, insert, row_of, run
from vecmigrate.operations.v1.change import Turned, Way
from vecmigrate.operations.v1.codec import RawText, same
from vecmigrate.operations.v1.mirror import keeps
from vecmigrate.operations.v1.present import PresentTable

__all__ = ["Mapping", "mappings"]


@dataclass(frozen=True)
class Mapping:
    """The temporary table *name* with the columns ``old`` and ``new``, for the column *source* of the source."""

    name: str
    source: str
    target: str
    is_sqlite: bool

    def match(self, table: str = "s") -> str:
        """Return the condition that joins the mapping with its rows."""
        found = f"{self.name}.old = {table}.{quoted(self.source)}"
        # In SQLite 1 equals 1.0; a text column may compare regardless of case, but old compares exactly.
        return (
            f"{found} AND typeof({self.name}.old) = typeof({table}.{quoted(self.source)})" if self.is_sqlite else found
        )


@contextmanager
def mappings(
    connection: sa.Connection, way: Way, rows: str, source: PresentTable, target: PresentTable
) -> Iterator[list[Mapping]]:
    """Make the mappings of the columns that have a plain condition, and drop them at the end."""
    made = []
    for position, (old, new) in enumerate(way.turned):
        if old.name in way.plain:
            mapping = Mapping(f"vecmigrate_map_{position}", old.name, new.name, is_sqlite(connection))
            _fill(connection, way, mapping, rows, source=source, target=target)
            made.append(mapping)
    yield made
    for mapping in made:
        run(connection, f"DROP TABLE {mapping.name}")


def _fill(
    connection: sa.Connection, way: Way, mapping: Mapping, rows: str, *, source: PresentTable, target: PresentTable
) -> None:
    turned = next(each for each in way.turned if each[0].name == mapping.source)
    old, new = source.column(turned[0].name), target.column(turned[1].name)
    types = (old.affinity, new.affinity) if mapping.is_sqlite else (old.type, new.type)
    run(connection, f"CREATE TEMPORARY TABLE {mapping.name} (old {types[0]} UNIQUE, new {types[1]})")
    column, binary = quoted(old.name), " COLLATE BINARY" if mapping.is_sqlite else ""
    where = f" WHERE ({way.plain[old.name]})" if way.plain_is_source else ""
    distinct = f"(SELECT DISTINCT {column}{binary} AS {column} FROM {rows}{where})"
    codec = codec_of(connection)
    for page in fetched(connection, f"SELECT {cells(connection, (old.name,))} FROM {distinct} s"):
        found = [row_of((old.name,), values, codec)[old.name] for values in page]
        pairs = [(value, became) for value in found for became in _became(way, turned, value, source, target)]
        if pairs:
            insert(connection, mapping.name, ("old", "new"), pairs)
    if not way.plain_is_source:
        # The condition is about the values of the table before the change, which here is the target.
        among = f"(SELECT {mapping.name}.new AS {quoted(new.name)}) t"
        run(
            connection,
            f"DELETE FROM {mapping.name} WHERE NOT coalesce((SELECT ({way.plain[old.name]}) FROM {among}), FALSE)",
        )


def _became(way: Way, turned: Turned, value: object, source: PresentTable, target: PresentTable) -> Iterator[object]:
    """Yield what a value becomes, if that is something, and the way back gives the value again.

    A function that needs more than this value, or that does not know it, will be asked about the whole row.
    """
    old, new = turned[0].name, turned[1].name
    if value is None or isinstance(value, RawText):
        return
    forward, backward = way.forward.get(new), way.backward.get(old)
    try:
        became = forward({old: value}) if forward else value
        again = backward({new: became}) if backward else became
    except Exception:  # noqa: BLE001 - the same function is called with the whole row then, and its error raised
        return
    is_stored = keeps(target.column(new).affinity, became) and keeps(source.column(old).affinity, again)
    if became is not None and is_stored and same(again, value):
        yield became
