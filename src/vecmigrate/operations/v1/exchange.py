"""SQLite: the table is built new beside the old one, which then goes, and what hung on it is put back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

from vecmigrate.catalog import quoted
from vecmigrate.operations.v1 import taken_away
from vecmigrate.operations.v1.change import ChangeError, Way, affinity
from vecmigrate.operations.v1.columns import changed, made
from vecmigrate.operations.v1.definition import Definition, Part, mentions, parsed, renamed
from vecmigrate.operations.v1.present import PresentTable, read

__all__ = ["Tables", "exchange"]

_STAGED = "vecmigrate_source"


@dataclass
class Tables:
    """The two sides of a change while rows move: ``rows`` is the name of the table that is read."""

    connection: sa.Connection
    rows: str
    source: PresentTable
    target: PresentTable
    unique_indexes: Mapping[str, str] = field(default_factory=dict)

    def make_unique(self) -> None:
        """Make the unique indexes before rows land that they may refuse. Raises IntegrityError."""
        for position, sql in enumerate(self.unique_indexes.values()):
            self.connection.exec_driver_sql(_index_on(self.target.name, f"vecmigrate_unique_{position}", sql))

    def drop_unique(self) -> None:
        """Drop these indexes again: with their own names and SQL they are made at the end."""
        for position in range(len(self.unique_indexes)):
            self.connection.exec_driver_sql(f"DROP INDEX IF EXISTS vecmigrate_unique_{position}")


def _index_on(table: str, name: str, sql: str) -> str:
    """Return the SQL of an index under another name and on another table."""
    columns = sql[sql.index("(") :]
    return f"CREATE UNIQUE INDEX {quoted(name)} ON {quoted(table)} {columns}"


@contextmanager
def exchange(connection: sa.Connection, operations: Operations, way: Way, source: PresentTable) -> Iterator[Tables]:
    """Yield the old table and the new one; at the end the new one stands in its place, with all that hung on it."""
    before = taken_away.recall(connection, way)
    gone = taken_away.TakenAway()
    definition = _target(operations, way, parsed(source.sql), before, gone)
    indexes = _hanging(connection, "index", source.name)
    triggers = _hanging(connection, "trigger", source.name)
    sequence = _sequence(connection, source.name)
    for name in indexes:
        connection.exec_driver_sql(f"DROP INDEX {quoted(name)}")
    kept_indexes = _carried(way, indexes, gone) | before.indexes
    new = f"vecmigrate_new_{source.name}"
    connection.exec_driver_sql(definition.sql(new))
    unique = {name: sql for name, sql in kept_indexes.items() if sql.upper().split()[1] == "UNIQUE"}
    yield Tables(connection, _readable(connection, source), source, read(connection, new), unique)
    connection.exec_driver_sql(f"DROP TABLE {quoted(source.name)}")
    connection.exec_driver_sql(f"ALTER TABLE {quoted(new)} RENAME TO {quoted(source.name)}")
    for sql in (*kept_indexes.values(), *triggers.values()):
        connection.exec_driver_sql(sql)
    _restore_sequence(connection, source.name, sequence)
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_STAGED}")
    taken_away.forget(connection, way, way.opposite)
    taken_away.remember(connection, way, gone)


def _readable(connection: sa.Connection, source: PresentTable) -> str:
    """Return where the rows can be read by a rowid: a table without one is copied first."""
    if source.has_rowid:
        return source.name
    names = ", ".join(map(quoted, source.names))
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_STAGED} AS SELECT {names} FROM {quoted(source.name)}")
    return _STAGED


def _hanging(connection: sa.Connection, type_: str, table: str) -> dict[str, str]:
    query = (
        "SELECT name, sql FROM sqlite_master WHERE type = ? AND lower(tbl_name) = ? AND sql IS NOT NULL ORDER BY rowid"
    )
    return {row.name: row.sql for row in connection.exec_driver_sql(query, (type_, table.lower()))}


def _carried(way: Way, indexes: Mapping[str, str], gone: taken_away.TakenAway) -> dict[str, str]:
    """Return the indexes that stay; those on columns that go, go with them, and are remembered."""
    carried = {}
    for name, sql in indexes.items():
        columns = sql[sql.index("(") :]
        if mentions(columns, [column.name for column in way.gone]):
            gone.indexes[name] = sql
        else:
            carried[name] = sql[: sql.index("(")] + renamed(columns, way.names)
    return carried


def _sequence(connection: sa.Connection, table: str) -> int | None:
    """Return the highest number that AUTOINCREMENT gave, which goes with a dropped table."""
    has_any = "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"
    if connection.exec_driver_sql(has_any).first() is None:
        return None
    return connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).scalar()


def _restore_sequence(connection: sa.Connection, table: str, sequence: int | None) -> None:
    if sequence is None:
        return
    connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
    connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, sequence))


def _target(
    operations: Operations, way: Way, present: Definition, before: taken_away.TakenAway, gone: taken_away.TakenAway
) -> Definition:
    """Return the definition of the new table, and note in *gone* what it takes away."""
    lost = present.constraints_on(column.name for column in way.gone) + _checks(way, present)
    own = {sql for old, _ in way.turned for sql in _rules(operations, way, old)}
    lost += [part for part in present.parts if part.sql.strip() in own and part not in lost]
    gone.constraints = [part.sql for part in lost]
    for name in way.touched:
        position = present.columns.index(name.lower())
        gone.columns[name] = {"sql": present.column(name).sql, "after": present.before(name), "position": position}
    result = present.less(lost).without(column.name for column in way.gone)
    _require_independent(way, result)
    result = result.mapped(lambda part: _turned(operations, way, part, before))
    rules = [sql for _, new in way.turned if new.name not in before.columns for sql in _rules(operations, way, new)]
    result = result.with_constraints(map(Part, rules))
    for column in sorted(way.come, key=lambda column: before.columns.get(column.name, {"position": -1})["position"]):
        made_parts = made(operations, way.table, [column])
        known = before.columns.get(column.name)
        part = Part(known["sql"]) if known else made_parts.column(column.name)
        is_first = known is not None and known["after"] is None
        result = result.with_column(part, after=known["after"] if known else None, first=is_first)
        if not known:
            result = result.with_constraints(part for part in made_parts.parts if part.column is None)
    return result.with_constraints(Part(sql) for sql in before.constraints)


def _rules(operations: Operations, way: Way, column: sa.Column[Any]) -> list[str]:
    """Return the constraints that a column brings with it, except for a primary key, which stays as it is."""
    parts = made(operations, way.table, [column]).parts
    found = [part.sql.strip() for part in parts if part.column is None]
    return [sql for sql in found if "PRIMARY KEY" not in sql.upper()]


def _checks(way: Way, present: Definition) -> list[Part]:
    """Return the CHECKs of the table on columns whose values become others."""
    retyped = [old.name for old, new in way.turned if affinity(old) != affinity(new)]
    gone = [column.name for column in way.gone]
    found = present.constraints_on(retyped)
    return [part for part in found if "CHECK" in part.sql.upper().split("(")[0] and not mentions(part.sql, gone)]


def _turned(operations: Operations, way: Way, part: Part, before: taken_away.TakenAway) -> Part:
    for old, new in way.turned:
        if part.column == old.name.lower():
            known = before.columns.get(new.name)
            return Part(known["sql"]) if known else changed(operations, way.table, (old, new), part)
    return replace(part, sql=renamed(part.sql, way.names))


def _require_independent(way: Way, definition: Definition) -> None:
    gone = [column.name for column in way.gone]
    faults = [
        f"the column {part.column} is made of one that goes" for part in definition.parts if mentions(part.sql, gone)
    ]
    if faults:
        raise ChangeError(
            f"Revision {way.revision} can't change {way.table}: {'; '.join(faults)}. Nothing was changed."
        )
