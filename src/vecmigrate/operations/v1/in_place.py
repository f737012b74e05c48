"""PostgreSQL: the rows are staged, and the table is altered while it is empty, so that what hangs on it stays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

from vecmigrate.catalog import quoted
from vecmigrate.errors import NotOursError
from vecmigrate.operations.v1 import taken_away
from vecmigrate.operations.v1.cells import run
from vecmigrate.operations.v1.change import Way
from vecmigrate.operations.v1.exchange import Tables
from vecmigrate.operations.v1.present import PresentTable, read

__all__ = ["in_place"]

_NEW = "vecmigrate_new"
_REGCLASS = "CAST(? AS regclass)"


@dataclass
class _StagedTables(Tables):
    """The old table, which is read, and a temporary one of the new shape, in which the rows land."""

    def make_unique(self) -> None:
        """Make the unique indexes before rows land that they may refuse. Raises IntegrityError."""
        for sql in self.unique_indexes.values():
            run(self.connection, sql)

    def drop_unique(self) -> None:
        """Leave them: they go with the temporary table."""


@contextmanager
def in_place(connection: sa.Connection, operations: Operations, way: Way, source: PresentTable) -> Iterator[Tables]:
    """Yield the old table and the staged one; at the end the old one has the new shape and the staged rows.

    Raises NotOursError, before the first write, for a view that hangs on a column that goes or changes.
    """
    run(connection, f"LOCK TABLE {quoted(way.table)} IN ACCESS EXCLUSIVE MODE")
    _require_no_views(connection, way)
    before, indexes, rules = (
        taken_away.recall(connection, way),
        _indexes(connection, way.table),
        _rules(connection, way),
    )
    table = quoted(way.table)
    run(
        connection,
        f"CREATE TEMPORARY TABLE {_NEW} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY)",
    )
    _alter(operations, way, _NEW, before)
    target = read(connection, _NEW)
    kept = {name: sql for name, sql in indexes.items() if _stays(connection, way, name)} | before.indexes
    yield _StagedTables(connection, way.table, source, target, _unique(connection, way, kept) | _unique_again(before))
    children = _foreign_keys_onto(connection, way.table)
    triggers = _triggers(connection, way.table)
    for child, name, _ in children:
        run(connection, f"ALTER TABLE {child} DROP CONSTRAINT {quoted(name)}")
    run(connection, f"ALTER TABLE {table} DISABLE TRIGGER USER")
    run(connection, f"TRUNCATE {table}")
    _alter(operations, way, way.table, before)
    names = ", ".join(map(quoted, target.names))
    run(connection, f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {_NEW}")
    run(connection, f"DROP TABLE {_NEW}")
    for name, state in triggers:
        run(connection, f"ALTER TABLE {table} {state} TRIGGER {quoted(name)}")
    _put_back(connection, way, before)
    _remember(connection, way, indexes, rules)
    for child, name, sql in children:
        run(connection, f"ALTER TABLE {child} ADD CONSTRAINT {quoted(name)} {sql}")


def _alter(operations: Operations, way: Way, table: str, before: taken_away.TakenAway) -> None:
    """Change the columns of an empty table."""
    for column in way.gone:
        operations.drop_column(table, column.name)
    for old, new in way.turned:
        is_retyped = _type(operations, old) != _type(operations, new)
        if is_retyped:
            operations.alter_column(table, old.name, server_default=None)
        operations.alter_column(
            table,
            old.name,
            type_=new.type if is_retyped else None,
            nullable=new.nullable,
            postgresql_using=f"NULL::{_type(operations, new)}" if is_retyped else None,
        )
        if new.server_default is not None or old.server_default is not None:
            default: Any = None if new.server_default is None else new.server_default.arg  # type: ignore[attr-defined]
            operations.alter_column(table, old.name, server_default=default)
        if old.name != new.name:
            operations.alter_column(table, old.name, new_column_name=new.name)
        if new.unique and new.name not in before.columns:
            operations.create_unique_constraint(None, table, [new.name])
        if old.unique:
            _drop_unique(operations, table, new.name)
    for column in way.come:
        operations.add_column(table, column._copy())  # noqa: SLF001 - it goes into two tables


def _type(operations: Operations, column: sa.Column[Any]) -> str:
    return column.type.compile(dialect=operations.get_bind().dialect)


def _drop_unique(operations: Operations, table: str, column: str) -> None:
    for found in sa.inspect(operations.get_bind()).get_unique_constraints(table):
        if found["column_names"] == [column] and found["name"] is not None:
            operations.drop_constraint(found["name"], table, type_="unique")


def _found(connection: sa.Connection, query: str, table: str) -> list[Any]:
    return [tuple(row) for row in run(connection, query, (quoted(table),))]


def _require_no_views(connection: sa.Connection, way: Way) -> None:
    query = (
        "SELECT DISTINCT v.relname, a.attname FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid "
        "JOIN pg_class v ON v.oid = r.ev_class "
        "JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid "
        f"WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = {_REGCLASS} AND v.oid <> d.refobjid"
    )
    changed = {column.name for column in way.gone} | {old.name for old, _ in way.turned}
    found = _found(connection, query, way.table)
    views = sorted({view for view, column in found if column in changed})
    if views:
        raise NotOursError(
            f"These views hang on columns of {way.table} that change: {', '.join(views)}. Nothing was changed.",
            next_step="drop them, and make them again afterwards",
        )


def _indexes(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the SQL of the indexes of the table that belong to no constraint, by name."""
    query = (
        "SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        f"WHERE i.indrelid = {_REGCLASS} "
        "AND NOT EXISTS (SELECT 1 FROM pg_constraint n WHERE n.conindid = i.indexrelid) ORDER BY c.oid"
    )
    return dict(_found(connection, query, table))


def _rules(connection: sa.Connection, way: Way) -> dict[str, str]:
    """Return the constraints of the table, by name; those of NOT NULL belong to their columns."""
    query = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        f"WHERE conrelid = {_REGCLASS} AND contype IN ('c', 'u', 'f', 'p', 'x') ORDER BY oid"
    )
    return dict(_found(connection, query, way.table))


def _stays(connection: sa.Connection, way: Way, index: str) -> bool:
    query = (
        "SELECT 1 FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid "
        f"WHERE d.classid = 'pg_class'::regclass AND d.objid = {_REGCLASS} AND d.refobjid = {_REGCLASS} "
        "AND a.attname = ANY (?)"
    )
    gone = [column.name for column in way.gone]
    return run(connection, query, (quoted(index), quoted(way.table), gone)).first() is None


def _unique(connection: sa.Connection, way: Way, indexes: dict[str, str]) -> dict[str, str]:
    """Return the SQL that makes the staged table as unique as the table will be."""
    found = {}
    for name, sql in indexes.items():
        head, using, columns = sql.partition(" USING ")
        if head.startswith("CREATE UNIQUE INDEX") and not _names_turned(way, columns):
            found[name] = f"CREATE UNIQUE INDEX ON {_NEW}{using}{columns}"
    gone = {column.name for column in way.gone}
    not_unique_any_more = [[old.name] for old, new in way.turned if old.unique and not new.unique]
    inspector = sa.inspect(connection)
    constraints: list[tuple[str, Sequence[str]]] = [
        (str(each["name"]), each["column_names"]) for each in inspector.get_unique_constraints(way.table)
    ]
    constraints.append(("key", inspector.get_pk_constraint(way.table)["constrained_columns"]))
    for name, columns_of in constraints:
        if columns_of and not gone & set(columns_of) and list(columns_of) not in not_unique_any_more:
            names = ", ".join(quoted(way.names.get(column, column)) for column in columns_of)
            found[f"constraint {name}"] = f"CREATE UNIQUE INDEX ON {_NEW} ({names})"
    return found


def _unique_again(before: taken_away.TakenAway) -> dict[str, str]:
    """Return the SQL of the unique constraints that the table gets back."""
    found = (entry.partition(" ") for entry in before.constraints)
    return {
        f"again {name}": f"CREATE UNIQUE INDEX ON {_NEW} {sql.removeprefix('UNIQUE ')}"
        for name, _, sql in found
        if sql.startswith("UNIQUE (")
    }


def _names_turned(way: Way, columns: str) -> bool:
    return any(old != new and old in columns for old, new in way.names.items())


def _foreign_keys_onto(connection: sa.Connection, table: str) -> list[tuple[str, str, str]]:
    """Return the foreign keys of other tables onto this one: the child, quoted, the name and the SQL."""
    query = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        f"WHERE contype = 'f' AND confrelid = {_REGCLASS} AND conrelid <> confrelid ORDER BY oid"
    )
    return [(child, name, sql) for child, name, sql in _found(connection, query, table)]


def _triggers(connection: sa.Connection, table: str) -> list[tuple[str, str]]:
    """Return the triggers with the word that gives each its present state again."""
    words = {"O": "ENABLE", "D": "DISABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}
    query = f"SELECT tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = {_REGCLASS}"
    return [(name, words[state]) for name, state in _found(connection, query, table)]


def _put_back(connection: sa.Connection, way: Way, before: taken_away.TakenAway) -> None:
    """Make the indexes and constraints again that the opposite way took away with their columns."""
    present = _rules(connection, way)
    for entry in before.constraints:
        name, _, sql = entry.partition(" ")
        if sql not in present.values():
            run(connection, f"ALTER TABLE {quoted(way.table)} ADD CONSTRAINT {quoted(name)} {sql}")
    for sql in before.indexes.values():
        run(connection, sql)


def _remember(connection: sa.Connection, way: Way, indexes: dict[str, str], rules: dict[str, str]) -> None:
    present, left = _indexes(connection, way.table), _rules(connection, way)
    gone = taken_away.TakenAway(
        columns={name: {} for name in way.touched},
        constraints=[f"{name} {sql}" for name, sql in rules.items() if name not in left],
        indexes={name: sql for name, sql in indexes.items() if name not in present},
    )
    taken_away.forget(connection, way, way.opposite)
    taken_away.remember(connection, way, gone)
