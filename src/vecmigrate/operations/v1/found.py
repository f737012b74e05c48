"""What was found: the SQL of a table before the ladder, and what of the service hangs on it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, objects, quoted, table_names
from vecmigrate.errors import NotOursError
from vecmigrate.operations.v1.cells import count
from vecmigrate.schema import ADOPTED

__all__ = ["Found", "Hanging", "drop_if_empty", "found_sql", "is_there", "rebuild_external_content"]


@dataclass(frozen=True)
class Found:
    """The SQL of a table and of its indexes as they were found; empty on PostgreSQL, which keeps no SQL."""

    table: str
    indexes: tuple[tuple[str, str], ...]

    @property
    def unique_indexes(self) -> tuple[str, ...]:
        """Return those that decide which rows are admitted."""
        return tuple(sql for _, sql in self.indexes if _is_unique(sql))

    @property
    def other_indexes(self) -> tuple[str, ...]:
        return tuple(sql for _, sql in self.indexes if not _is_unique(sql))


def is_there(connection: sa.Connection, table: str) -> bool:
    """Tell whether there is a table of this name. Read-only."""
    return table in table_names(connection)


def drop_if_empty(connection: sa.Connection, table: str, *, view: str) -> None:
    """Drop a table that holds no row, and with it the view of a service that shows nothing without it."""
    if not is_there(connection, table) or count(connection, table):
        return
    has_view = view in {name.lower() for name in sa.inspect(connection).get_view_names()}
    if not is_sqlite(connection):
        if has_view:
            connection.exec_driver_sql(f"DROP VIEW {quoted(view)}")
        connection.exec_driver_sql(f"DROP TABLE {quoted(table)}")
        return
    connection.exec_driver_sql(f"DROP TABLE {quoted(table)}")
    try:
        connection.exec_driver_sql(f"EXPLAIN SELECT * FROM {quoted(view)}" if has_view else "SELECT 1").close()
    except sa.exc.OperationalError:
        connection.exec_driver_sql(f"DROP VIEW {quoted(view)}")


def found_sql(connection: sa.Connection, table: str) -> Found:
    """Return what is kept of a table that was found. Read-only."""
    if not is_sqlite(connection):
        return Found("", ())
    rows = connection.execute(sa.select(ADOPTED).order_by(ADOPTED.c.name)).all()
    ours = [row for row in rows if row.sql and row.table_name.lower() == table]
    tables = [row.sql for row in ours if row.type == "table"]
    return Found("".join(tables), tuple((row.name.lower(), row.sql) for row in ours if row.type == "index"))


def _is_unique(sql: str) -> bool:
    return bool(re.match(r"\s*CREATE\s+UNIQUE\b", sql, re.IGNORECASE))


_POSTGRESQL_INDEXES = """
    SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = to_regclass(%s) AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)
    ORDER BY c.oid
"""
_POSTGRESQL_TRIGGERS = """
    SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE t.tgrelid = to_regclass(%s) AND NOT t.tgisinternal
    ORDER BY t.oid
"""


@dataclass(frozen=True)
class Hanging:
    """The SQL of indexes and triggers on a table, which go with it."""

    indexes: tuple[tuple[str, str], ...] = ()
    triggers: tuple[str, ...] = ()

    @classmethod
    def on(cls, connection: sa.Connection, table: str) -> "Hanging":
        if not is_sqlite(connection):
            indexes, triggers = (
                connection.exec_driver_sql(query, (quoted(table),)).all()
                for query in (_POSTGRESQL_INDEXES, _POSTGRESQL_TRIGGERS)
            )
            return cls(tuple((name, sql) for name, sql in indexes), tuple(sql for (sql,) in triggers))
        on_table = [each for each in objects(connection) if each.sql and each.table.lower() == table]
        return cls(
            tuple((each.name.lower(), each.sql) for each in on_table if each.type == "index"),
            tuple(each.sql for each in on_table if each.type == "trigger"),
        )

    def put_back(self, connection: sa.Connection, *, without: Iterable[str], gone: set[str]) -> None:
        """Make them again, but for the indexes named in *without* and those on columns that are gone."""
        mentions = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(gone)))})\b", re.IGNORECASE)
        skipped = set(without)
        for name, sql in self.indexes:
            if name not in skipped and not (gone and mentions.search(sql)):
                connection.exec_driver_sql(sql)
        for sql in self.triggers:
            connection.exec_driver_sql(sql)


def rebuild_external_content(connection: sa.Connection, table: str) -> None:
    """Rebuild the full-text indexes of the service whose content is the table: its triggers did not see the change.

    Raises NotOursError that names one which does not fit the table as it is now.
    """
    if not is_sqlite(connection) or table not in table_names(connection):
        return
    content = re.compile(
        rf"\bUSING\s+fts[345]\b.*\bcontent\s*=\s*['\"\[`]?{re.escape(table)}['\"\]`]?\s*[,)]", re.IGNORECASE | re.DOTALL
    )
    for each in objects(connection):
        if each.type == "table" and content.search(each.sql):
            name = quoted(each.name)
            try:
                connection.exec_driver_sql(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")
            except sa.exc.OperationalError as error:
                raise NotOursError(
                    f"The full-text index {each.name} of the service has the content of {table} and does not fit it "
                    f"any more ({error.orig}). Nothing was changed.",
                    next_step=f"drop {each.name} (and make it again afterwards), then run it again",
                ) from error
