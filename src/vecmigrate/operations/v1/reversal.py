"""The way down: a converted table goes back to the shape, and to the very SQL, that was found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic import op

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1 import plain
from vecmigrate.operations.v1.admission import REFUSED, Admission
from vecmigrate.operations.v1.cache import large_cache
from vecmigrate.operations.v1.cells import cells, codec_of, count, fetched, insert_into, row_of
from vecmigrate.operations.v1.codec import Row, key_text, same
from vecmigrate.operations.v1.found import Found, Hanging, rebuild_external_content
from vecmigrate.operations.v1.kept_rows import Entry, KeptRow, KeptRows
from vecmigrate.operations.v1.ledger import Ledger, require_equal
from vecmigrate.operations.v1.readers import UnfitError
from vecmigrate.operations.v1.set_aside import BEFORE, SetAside
from vecmigrate.operations.v1.shapes import Conversion, Shape, merged

__all__ = ["revert_table"]

_REFUSED_ROWS = "vecmigrate_refused"
_KEEPING = {True: {"", "TEXT"}, False: {"", "TEXT", "INT", "NUM"}}
"""Declared types that keep text, and integers, as they are or as text."""


def revert_table(
    change: Conversion,
    shape: Shape | None,
    found: Found,
    *,
    create: Callable[[], None],
    create_keys: Callable[[], None],
    create_indexes: Callable[[], None],
    leaving: str,
) -> None:
    """Give the table the shape and the SQL that was found, and set aside what that shape can't tell.

    ``shape`` None: none was found, and none stays. ``create``, ``create_keys`` and ``create_indexes`` make the table
    where no SQL is kept, its keys once the rows that need no Python have landed. ``leaving`` is a condition (SQL) on
    rows, named s, that go and are kept elsewhere. Rows keep their rowids. Raises RuntimeError if a row was lost or
    doubled.
    """
    connection = op.get_bind()
    hanging = Hanging.on(connection, change.table)
    way = Way(change, connection)
    before = way.copy(leaving)
    ledger = Ledger(way.kept, "downgrade", source=before, tables=(change.table,))
    op.drop_table(change.table)
    if shape is None:
        way.set_all_aside()
        landed = 0
    else:
        _create_found(connection, found, create)
        with large_cache(connection), plain.odd_rows(connection, numbered=True):
            way.move_back(shape, create_keys if not found.table else None)
        landed = count(connection, change.table)
    way.kept.forget_landed("upgrade", change.table)
    ledger.check(landed)
    connection.exec_driver_sql(f"DROP TABLE {BEFORE}")
    if shape is None:
        return
    if not found.table:
        create_indexes()
    for sql in found.other_indexes:
        connection.exec_driver_sql(sql)
    ours = change.indexes | {name for name, _ in found.indexes}
    hanging.put_back(connection, without=ours, gone=set(change.kinds) - set(shape.kinds))
    rebuild_external_content(connection, change.table)


def _create_found(connection: sa.Connection, found: Found, create: Callable[[], None]) -> None:
    """Create the table under its own name: a renamed one would keep other SQL."""
    if not found.table:
        create()
        return
    # These decide which rows are admitted; the others are built faster after the rows.
    for sql in (found.table, *found.unique_indexes):
        connection.exec_driver_sql(sql)


@dataclass(frozen=True)
class Return:
    """A row on its way back, with the row it becomes in the found table."""

    number: int
    row: Row
    fed: Row
    becomes: Row
    kept: KeptRow | None


class Way:
    """The rows of one way down. They stand in a temporary table meanwhile, under their rowids."""

    def __init__(self, change: Conversion, connection: sa.Connection) -> None:
        self.change, self.connection = change, connection
        self.kept = KeptRows(connection, revision=change.revision)
        self.codec = codec_of(connection)
        self.keeps_rowids = is_sqlite(connection)
        self.last_rowid = 0

    def copy(self, leaving: str) -> int:
        """Copy the rows that stay, and return how many."""
        serial, big = ("INTEGER", "INTEGER") if self.keeps_rowids else ("SERIAL", "BIGINT")
        typed = ", ".join(
            f"{quoted(column)} {'TEXT' if column in self.change.texts else big}" for column in self.change.columns
        )
        self.connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {BEFORE} (pos {serial} PRIMARY KEY, {typed})")
        columns = self.change.column_list()
        names, values, order = columns, columns, ""
        if self.keeps_rowids:
            names, values, order = f"pos, {columns}", f"s.rowid, {columns}", "ORDER BY s.rowid"
        rows = f"FROM {quoted(self.change.table)} s WHERE ({leaving}) IS NOT TRUE {order}"
        self.connection.exec_driver_sql(f"INSERT INTO {BEFORE} ({names}) SELECT {values} {rows}")
        self.last_rowid = int(self.connection.exec_driver_sql(f"SELECT max(pos) FROM {BEFORE}").scalar() or 0)
        return count(self.connection, BEFORE)

    def set_all_aside(self) -> None:
        """Set every row aside: no table was found that could hold them."""
        columns, reason = self.change.columns, "no older table was there"
        query = f"SELECT s.pos, {cells(self.connection, columns)} FROM {BEFORE} s ORDER BY s.pos"
        for page in fetched(self.connection, query):
            rows = [(number, row_of(columns, values, self.codec)) for number, *values in page]
            records = self.kept.of("upgrade", (row[self.change.key] for _, row in rows))
            self.kept.add(
                [self._aside(number, row, self._record_of(None, row, records), reason) for number, row in rows]
            )

    def move_back(self, shape: Shape, create_keys: Callable[[], None] | None) -> None:
        self._run(f"CREATE TEMPORARY TABLE {_REFUSED_ROWS} (pos INTEGER PRIMARY KEY)")
        self._move_plain(shape)
        if create_keys is not None:
            create_keys()
        admission = Admission(self.connection, self.change.table, shape)
        self._move_odd(shape, admission)
        SetAside(self.change, self.kept, shape, last_rowid=self.last_rowid).move_back(admission)
        self._run(f"DROP TABLE {_REFUSED_ROWS}")

    def _move_plain(self, shape: Shape) -> None:
        key, rows = "s.pos", f"{BEFORE} s"
        names = shape.names
        condition = plain.condition(self.connection, {names[each]: kind for each, kind in shape.kinds.items()})
        fits = f"{condition} AND {shape.plain_back}" if self._keeps_plain(shape) else "FALSE"
        plain.mark_odd(self.connection, key, rows, f"({fits}) IS NOT TRUE")
        plain.mark_undecodable(self.connection, BEFORE, self.change.texts)
        landed = (
            "SELECT p.target_key FROM vecmigrate_preserved p WHERE p.revision = :revision AND p.direction = 'upgrade' "
            "AND p.landed = 1 AND p.target_key IS NOT NULL"
        )
        is_kept = f"s.{quoted(self.change.key)} IN ({landed})"
        plain.mark_odd(self.connection, key, rows, is_kept, revision=self.change.revision)
        self._copy_plain(shape)
        refused = f"s.pos IN (SELECT r.pos FROM {_REFUSED_ROWS} r)"
        moved = f"{rows} WHERE {plain.is_plain(self.connection, key)} AND NOT {refused}"
        table = quoted(self.change.table)
        require_equal(self.connection, shape.kinds, (moved, names), (table, {}), revision=self.change.revision)

    def _keeps_plain(self, shape: Shape) -> bool:
        """Tell whether every column of the found table keeps what a plain row has there, as it is or as text."""
        if not self.keeps_rowids:
            return True
        table = quoted(self.change.table)
        # Of a column's declared type, a table that is made of a query keeps but the affinity.
        self.connection.exec_driver_sql(f"CREATE TEMPORARY TABLE vecmigrate_like AS SELECT * FROM {table} LIMIT 0")
        info = self.connection.exec_driver_sql("PRAGMA table_info(vecmigrate_like)").all()
        self.connection.exec_driver_sql("DROP TABLE vecmigrate_like")
        types = {column.name.lower(): column.type for column in info}
        is_text = {column: kind.startswith(("text", "json")) for column, kind in shape.kinds.items()}
        return all(types[column] in _KEEPING[is_text[column]] for column in shape.kinds)

    def _copy_plain(self, shape: Shape) -> None:
        """Copy the plain rows that the found table admits; set aside those that its rules refuse."""
        table, is_plain = quoted(self.change.table), plain.is_plain(self.connection, "s.pos")
        names, values = self.change.column_list(shape.columns), self.change.column_list(list(shape.names.values()))
        rows = f"FROM {BEFORE} s WHERE {is_plain}"
        if not self.keeps_rowids:
            self._run(f"{insert_into(self.connection, self.change.table)} ({names}) SELECT {values} {rows}")
            return
        rows += " ORDER BY s.pos"
        # What is refused is found right here, by its rowid, and set aside: no row is lost by this.
        self._run(f"INSERT OR IGNORE INTO {table} (rowid, {names}) SELECT s.pos, {values} {rows}")
        wanted = self._run(f"SELECT count(*) FROM {BEFORE} s WHERE {is_plain}").scalar()
        if wanted != count(self.connection, self.change.table):
            refused = f"NOT EXISTS (SELECT 1 FROM {table} t WHERE t.rowid = s.pos)"
            self._run(f"INSERT INTO {_REFUSED_ROWS} (pos) SELECT s.pos FROM {BEFORE} s WHERE {is_plain} AND {refused}")
            self._set_refused_aside()

    def _set_refused_aside(self) -> None:
        columns = self.change.columns
        rows = f"{_REFUSED_ROWS} r JOIN {BEFORE} s ON s.pos = r.pos ORDER BY s.pos"
        for page in fetched(self.connection, f"SELECT s.pos, {cells(self.connection, columns)} FROM {rows}"):
            found = [(number, row_of(columns, values, self.codec)) for number, *values in page]
            self.kept.add([self._aside(number, row, None, REFUSED) for number, row in found])

    def _move_odd(self, shape: Shape, admission: Admission) -> None:
        columns = self.change.columns
        query = (
            f"SELECT s.pos, {self.change.selected(self.connection, columns)} FROM {plain.ODD} o "
            f"JOIN {BEFORE} s ON s.pos = o.key ORDER BY s.pos"
        )
        for page in fetched(self.connection, query):
            rows = [(number, self.change.read(columns, values, self.codec)) for number, *values in page]
            records = self.kept.of("upgrade", (row[self.change.key] for _, row in rows))
            returns, entries = [], []
            for number, found in rows:
                row = self.change.without_fed(found)
                record = self._record_of(shape, row, records)
                try:
                    returns.append(self._return_of(shape, number, found, record))
                except UnfitError as unfit:
                    entries.append(self._aside(number, row, record, str(unfit)))
            stored = admission.admit([(each.number, each.becomes) for each in returns])
            for each in returns:
                if each.number in stored:
                    entries += self._entry(shape, each, stored[each.number])
                else:
                    entries.append(self._aside(each.number, each.row, each.kept, admission.refusal(each.becomes)))
            self.kept.add(entries)

    def _record_of(self, shape: Shape | None, row: Row, records: dict[str, list[KeptRow]]) -> KeptRow | None:
        for record in records.get(key_text(row[self.change.key]), ()):
            is_its = same(record.converted[self.change.key], row[self.change.key])
            if is_its and (shape is None or record.row.keys() == set(shape.kinds)):
                return record
        return None

    def _return_of(self, shape: Shape, number: int, found: Row, record: KeptRow | None) -> Return:
        row = self.change.without_fed(found)
        fed = {name: value for name, value in found.items() if name not in row}
        if record is None:
            return Return(number, row, fed, shape.restore(row), None)
        became, present = record.converted, dict(row)
        told = self._told_by(fed)
        if told is not None and same(told, row[self.change.fed.column]):  # type: ignore[union-attr]
            # Another table tells this value, so nobody has edited it.
            present[self.change.fed.column] = became[self.change.fed.column]  # type: ignore[union-attr]
        shape.restore(row)
        becomes = merged(shape.restore, present, original=record.row, became=became)
        return Return(number, row, fed, becomes, record)

    def _entry(self, shape: Shape, each: Return, stored: Row) -> list[Entry]:
        """Return what must be kept so that the way up gives the row again."""
        reason = self._loss(shape, each.row, stored | each.fed)
        if reason is None:
            return []
        key, converted = stored[shape.key], stored | each.fed
        return [self.kept.landed("downgrade", self.change.table, each.row, reason, target_key=key, converted=converted)]

    def _loss(self, shape: Shape, row: Row, becomes: Row) -> str | None:
        try:
            again = shape.converted(becomes)
        except UnfitError as unfit:
            return str(unfit)
        lost = [column for column in row if not same(again[column], row[column])]
        return f"the older table can't tell: {', '.join(lost)}" if lost else None

    def _aside(self, number: int, row: Row, record: KeptRow | None, reason: str) -> Entry:
        memory = record.as_memory() if record else None
        rowid = number if self.keeps_rowids else None
        return self.kept.aside("downgrade", self.change.table, row, reason, memory=memory, rowid=rowid)

    def _told_by(self, fed: Row) -> Any:
        """Return what the other table tells of a row, None if nothing."""
        fed_by = self.change.fed
        return fed_by.read(fed[fed_by.name]) if fed_by is not None and fed else None

    def _run(self, statement: str) -> sa.CursorResult[Any]:
        return self.connection.exec_driver_sql(statement)
