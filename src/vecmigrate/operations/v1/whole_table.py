"""All rows of a table: kept before it is dropped, put back after it is made again."""

from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from alembic.operations import Operations

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1 import json_sql, plain
from vecmigrate.operations.v1.cells import codec_of, count, emptied, fetched, fetched_by_key, row_of, run
from vecmigrate.operations.v1.codec import Row
from vecmigrate.operations.v1.kept_rows import RESTORE, KeptRow, KeptRows
from vecmigrate.operations.v1.landing import Landing
from vecmigrate.operations.v1.present import PresentTable, read

__all__ = ["keep", "put_back"]

_OPERATION = "table"
_DIRECTIONS = ("upgrade", "downgrade")
_META = sa.table("vecmigrate_meta", sa.column("key", sa.Text), sa.column("value", sa.Text))


def _direction(operations: Operations, revision: str) -> str:
    """Return which way a script is going: on the way down, its revision is still the present one."""
    connection = operations.get_bind()
    table = operations.migration_context.version_table
    if not sa.inspect(connection).has_table(table):
        return "upgrade"
    present = connection.execute(sa.text(f"SELECT version_num FROM {quoted(table)}")).scalars().all()
    return "downgrade" if revision in present else "upgrade"


def keep(operations: Operations, table: str, revision: str) -> None:
    """Keep every row of a table, exact, with its rowid. Raises ChangeError if there is no such table."""
    connection = operations.get_bind()
    present = read(connection, table)
    kept = KeptRows(connection, revision=revision, operation=_OPERATION)
    direction = _direction(operations, revision)
    before = kept.count(direction, table, landed=0)
    with plain.odd_rows(connection):
        _mark_odd(connection, present)
        _keep_simple(kept, present, table, direction)
        _keep_odd(kept, present, table, direction)
    found, wanted = kept.count(direction, table, landed=0) - before, count(connection, present.name)
    if found != wanted:
        raise RuntimeError(f"Revision {revision} would have lost rows of {table}: of {wanted}, {found} were kept.")
    _forget(connection, table, revision)
    connection.execute(_META.insert().values(key=_mark(table, revision), value=str(wanted)))


def _mark(table: str, revision: str) -> str:
    """Return the key that tells of a table which was kept, also where it had no row."""
    return f"{revision}_kept_{table}"


def _forget(connection: sa.Connection, table: str, revision: str) -> bool:
    return bool(connection.execute(_META.delete().where(_META.c.key == _mark(table, revision))).rowcount)


def _mark_odd(connection: sa.Connection, present: PresentTable) -> None:
    if not present.has_rowid and is_sqlite(connection):
        return
    key, rows = plain.row_key(connection), f"{quoted(present.name)} s"
    simple = json_sql.is_simple(connection, present.columns)
    run(connection, f"INSERT INTO {plain.ODD} (key) SELECT {key} FROM {rows} WHERE NOT ({simple})")
    plain.mark_undecodable(connection, present.name, present.names)


def _keep_simple(kept: KeptRows, present: PresentTable, table: str, direction: str) -> None:
    connection = kept.connection
    if not present.has_rowid and is_sqlite(connection):
        return
    key = plain.row_key(connection)
    row = json_sql.json_row(connection, [(name, f"s.{quoted(name)}") for name in present.names])
    rowid = key if present.has_rowid else "CAST(NULL AS INTEGER)"
    texts = ", ".join(["CAST(? AS TEXT)"] * 3)
    run(
        connection,
        "INSERT INTO vecmigrate_preserved (revision, direction, source_table, treatment, operation, preserved_at, "
        f"landed, row, reason, source_rowid) SELECT {texts}, {texts}, 0, {row}, 'the table goes', {rowid} "
        f"FROM {quoted(present.name)} s WHERE {plain.is_not_odd(key)} ORDER BY {key}",
        (kept.revision, direction, table, RESTORE, kept.operation, kept.now),
    )


def _keep_odd(kept: KeptRows, present: PresentTable, table: str, direction: str) -> None:
    for page in _odd_pages(kept.connection, present):
        kept.add([kept.aside(direction, table, row, "the table goes", rowid=rowid) for rowid, row in emptied(page)])


def _odd_pages(connection: sa.Connection, present: PresentTable) -> Iterator[list[tuple[int | None, Row]]]:
    codec, columns = codec_of(connection), present.names
    chosen = f"SELECT %s, {present.cells(connection)} FROM {quoted(present.name)} s"
    if not present.has_rowid and codec is not None:
        for page in fetched(connection, chosen % "NULL"):
            yield [(None, row_of(columns, values, codec)) for _, *values in emptied(page)]
        return
    query = f"{chosen % 'o.key'} JOIN {plain.ODD} o ON o.key = {plain.row_key(connection)}"
    for page in fetched_by_key(connection, query, "o.key"):
        is_number = present.has_rowid
        yield [(key if is_number else None, row_of(columns, values, codec)) for key, *values in emptied(page)]


def put_back(operations: Operations, table: str, revision: str) -> bool:
    """Put back what ``keep`` kept, where the table as it is now admits it; what it refuses stays kept.

    Returns whether the table was kept at all: where it was, nobody has to fill it, also if it was empty.
    """
    connection = operations.get_bind()
    present = read(connection, table)
    kept = KeptRows(connection, revision=revision, operation=_OPERATION)
    rowid = "rowid" if present.has_rowid and not present.rowid_is_column else None
    landing, names = Landing(connection, present.name, rowid=rowid), set(present.names)
    for direction in _DIRECTIONS:
        for page in kept.pages(direction, table, landed=0):
            known = [each for each in page if each.row.keys() <= names]
            _land(kept, landing, list(reversed(known)))
    return _forget(connection, table, revision)


def _land(kept: KeptRows, landing: Landing, page: Sequence[KeptRow]) -> None:
    rowids = landing.free_rowids([each.source_rowid for each in page])
    order = sorted(range(len(page)), key=lambda position: rowids[position] is None)
    rows = [page[position].row for position in order]
    admitted = landing.admitted(rows, [rowids[position] for position in order])
    kept.forget(page[position].id for position, is_in in zip(order, admitted, strict=True) if is_in)
