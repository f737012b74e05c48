"""The way up: a table that was found becomes another one. Plain rows move set by set, the others through Python."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

from vecmigrate.catalog import is_sqlite, quoted, table_names
from vecmigrate.operations.v1 import plain
from vecmigrate.operations.v1.cache import large_cache
from vecmigrate.operations.v1.cells import count
from vecmigrate.operations.v1.contest import land, wanted_keys
from vecmigrate.operations.v1.found import Hanging, rebuild_external_content
from vecmigrate.operations.v1.kept_rows import KeptRows
from vecmigrate.operations.v1.ledger import Ledger, require_equal
from vecmigrate.operations.v1.pairing import Pairs
from vecmigrate.operations.v1.shapes import Conversion, Shape
from vecmigrate.operations.v1.staging import Stage

__all__ = ["convert_table"]

Add = Callable[[sa.Connection, str], None]


def convert_table(change: Conversion, *, add: Add) -> None:
    """Build the table anew from whichever shape it has, or from nothing, and keep what its rows can't tell.

    ``add`` is called once all rows have landed, with the name of the table in which they are by then, and may
    insert more. Rows keep their rowids. Indexes and triggers of the service are put back, external full-text indexes
    rebuilt. Raises RuntimeError if a row was lost or doubled.
    """
    connection = op.get_bind()
    shape = change.shape_of(connection)
    hanging = Hanging.on(connection, change.table) if shape else Hanging()
    for name in sorted(change.indexes) if shape else ():
        # The names of indexes are unique in the whole database.
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {quoted(name)}")
    new = f"vecmigrate_new_{change.table}"
    _load(change, connection, shape, new)
    with large_cache(connection):
        add(connection, new)
    _finish(change, connection, new)
    gone = set(shape.kinds) - set(change.kinds) if shape else set()
    hanging.put_back(connection, without=change.indexes, gone=gone)
    rebuild_external_content(connection, change.table)


def _load(change: Conversion, connection: sa.Connection, shape: Shape | None, new: str) -> None:
    """Land every row in the table *new*, which has no keys yet, or set it aside."""
    kept = KeptRows(connection, revision=change.revision)
    source = count(connection, change.table) if shape else 0
    ledger = Ledger(kept, "upgrade", source=source, tables=(change.table,))
    pairs, stage = Pairs(kept, "downgrade", change.table), Stage(change, kept, shape)
    with plain.odd_rows(connection):
        if shape:
            _load_plain(change, connection, shape, pairs, new)
            stage.stage_odd(shape, pairs)
        else:
            change.create(new, keyed=False)
        stage.stage_returning()
        if shape:
            with large_cache(connection):
                _pull(change, stage, shape, new)
        if not stage.is_empty():
            land(stage, new)
    stage.drop()
    pairs.drop()
    kept.forget_landed("downgrade", change.table)
    ledger.check(count(connection, new))


def _pull(change: Conversion, stage: Stage, shape: Shape, new: str) -> None:
    """Stage the plain rows that a staged one contests, and those that another table feeds."""
    if change.fed is not None:
        stage.pull(shape, new, change.fed.ids)
    if not stage.is_empty():
        stage.pull(shape, new, wanted_keys(stage, new))


def _load_plain(change: Conversion, connection: sa.Connection, shape: Shape, pairs: Pairs, new: str) -> None:
    """Move the rows that need no conversion and have keys of their own, and leave the others marked."""
    key, rows = plain.row_key(connection), f"{quoted(change.table)} s"
    is_plain = f"{plain.condition(connection, shape.kinds)} AND {shape.plain_there}"
    plain.mark_odd(connection, key, rows, f"({is_plain}) IS NOT TRUE")
    plain.mark_undecodable(
        connection, change.table, [each for each in shape.kinds if shape.kinds[each][:4] in {"text", "json"}]
    )
    if not pairs.is_empty():
        plain.mark_odd(connection, key, rows, f"s.{quoted(shape.key)} IN ({pairs.keys})")
    try:
        with connection.begin_nested():
            _copy_plain(change, connection, shape, new)
    except sa.exc.IntegrityError:
        _mark_twins(change, connection, shape)
        _copy_plain(change, connection, shape, new)
    moved = f"{rows} WHERE {plain.is_plain(connection, key)}"
    require_equal(connection, shape.kinds, (moved, {}), (quoted(new), shape.names), revision=change.revision)


def _copy_plain(change: Conversion, connection: sa.Connection, shape: Shape, new: str) -> None:
    """Copy the plain rows, then make sure that they differ in each key. Raises IntegrityError."""
    change.create(new, keyed=False)
    names, columns = change.column_list(list(shape.names.values())), change.column_list(shape.columns)
    order = ""
    if is_sqlite(connection):
        names, columns, order = f"rowid, {names}", f"s.rowid, {columns}", "ORDER BY s.rowid"
    is_plain = plain.is_plain(connection, plain.row_key(connection))
    rows = f"{quoted(change.table)} s WHERE {is_plain} {order}"
    connection.exec_driver_sql(f"INSERT INTO {quoted(new)} ({names}) SELECT {columns} FROM {rows}")
    unique = _unique_columns(connection, change.table)
    for column in (each for each in change.keys if each in shape.names.values()):
        if column == change.key or column not in unique:
            name = _index_name(new, column)
            connection.exec_driver_sql(f"CREATE UNIQUE INDEX {name} ON {quoted(new)} ({quoted(column)})")


def _index_name(new: str, column: str) -> str:
    return quoted(f"{new}_{column}")


def _unique_columns(connection: sa.Connection, table: str) -> set[str]:
    """Return the columns of which the table itself admits no value twice."""
    if is_sqlite(connection):
        query = (
            "SELECT min(lower(c.name)) FROM pragma_index_list(?) i, pragma_index_info(i.name) c "
            'WHERE i."unique" AND NOT i.partial GROUP BY i.name HAVING count(*) = 1'
        )
        return {name for (name,) in connection.exec_driver_sql(query, (table,)) if name}
    inspector = sa.inspect(connection)
    keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
    keys += [each["column_names"] for each in inspector.get_unique_constraints(table)]
    return {key[0] for key in keys if len(key) == 1}


def _mark_twins(change: Conversion, connection: sa.Connection, shape: Shape) -> None:
    key, rows = plain.row_key(connection), f"{quoted(change.table)} s"
    for column in (old for old, name in shape.names.items() if name in change.keys):
        name, among = quoted(column), plain.is_not_odd(key)
        twice = f"SELECT s.{name} FROM {rows} WHERE {among} GROUP BY s.{name} HAVING count(*) > 1"
        plain.mark_odd(connection, key, rows, f"s.{name} IN ({twice})")


def _finish(change: Conversion, connection: sa.Connection, new: str) -> None:
    """Put the loaded table into the place of the old one, with its keys and indexes."""
    if change.table in table_names(connection):
        op.drop_table(change.table)
    name = quoted(new)
    if is_sqlite(connection):
        # Of two tables that are alike but for their contents, SQLite copies the b-trees of rows and of indexes in
        # their order: https://sqlite.org/src/file?name=src/insert.c (xferOptimization). Rows keep their rowids, and
        # the primary key is built by sorting. The same rows inserted one by one take several times as long.
        primary = f"ON {name} ({quoted(change.key)})"
        connection.exec_driver_sql(f"CREATE UNIQUE INDEX IF NOT EXISTS {_index_name(new, change.key)} {primary}")
        change.create(change.table, keyed=True)
        _transfer(change, connection, name)
        op.drop_table(new)
    else:
        for column in change.keys:
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {_index_name(new, column)}")
        op.rename_table(new, change.table)
        op.create_primary_key(f"pk_{change.table}", change.table, [change.key])
    change.create_keys()
    change.create_indexes()


def _transfer(change: Conversion, connection: sa.Connection, source: str) -> None:
    target, columns = quoted(change.table), change.column_list()
    connection.exec_driver_sql(f"INSERT INTO {target} SELECT * FROM {source}")
    # New rowids would begin with 1 and have no gaps, so the ends tell whether they are the old ones.
    ends = "SELECT (SELECT count(*) FROM {0}), (SELECT min(rowid) FROM {0}), (SELECT max(rowid) FROM {0})"
    found, wanted = (connection.exec_driver_sql(ends.format(table)).one() for table in (target, source))
    if found != wanted:
        # This SQLite does not copy b-trees, and gave the rows new rowids.
        connection.exec_driver_sql(f"DELETE FROM {target}")
        rows = f"SELECT rowid, {columns} FROM {source} ORDER BY rowid"
        connection.exec_driver_sql(f"INSERT INTO {target} (rowid, {columns}) {rows}")
