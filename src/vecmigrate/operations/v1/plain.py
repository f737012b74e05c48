"""Plain rows, which move set by set, and odd ones, which go through Python."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import cells, codec_of, row_of
from vecmigrate.operations.v1.codec import RawText

__all__ = ["ODD", "condition", "is_not_odd", "is_plain", "mark_odd", "mark_undecodable", "odd_rows", "row_key"]

ODD = "vecmigrate_odd"
"""The temporary table of the keys (``row_key``) of odd rows."""

_UTF8_PAGE = 50_000
_MOST_JOINED = 16_000_000
_SQLITE = {
    "text": "typeof({c}) = 'text'",
    "text?": "typeof({c}) IN ('text', 'null')",
    "json?": "({c} IS NULL OR (typeof({c}) = 'text' AND json_valid({c}) AND instr(CAST({c} AS BLOB), x'00') = 0))",
    "flag": "typeof({c}) = 'integer' AND {c} IN (0, 1)",
    "integer": "typeof({c}) = 'integer'",
    "integer?": "typeof({c}) IN ('integer', 'null')",
}
_POSTGRESQL = {
    "text": "{c} IS NOT NULL",
    "text?": "TRUE",
    "json?": "{c} IS NULL",
    "flag": "{c} IN (0, 1)",
    "integer": "{c} IS NOT NULL",
    "integer?": "TRUE",
}


def condition(connection: sa.Connection, kinds: Mapping[str, str], *, table: str = "s") -> str:
    """Return the SQL condition that every column holds a plain value of its kind.

    Kinds are text, text?, json?, flag, integer, integer?; a question mark admits NULL.
    """
    conditions = _SQLITE if is_sqlite(connection) else _POSTGRESQL
    return " AND ".join(conditions[kind].format(c=f"{table}.{quoted(column)}") for column, kind in kinds.items())


def row_key(connection: sa.Connection) -> str:
    """Return the expression that tells the rows of a table named s apart."""
    return "s.rowid" if is_sqlite(connection) else "s.ctid"


@contextmanager
def odd_rows(connection: sa.Connection, *, numbered: bool = False) -> Iterator[None]:
    """Make the temporary table of odd rows, empty, and drop it at the end. It goes to disk where it is large.

    Its keys are those of ``row_key``, or numbers of the caller's own.
    """
    key = "INTEGER" if numbered or is_sqlite(connection) else "tid"
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {ODD} (key {key} PRIMARY KEY)")
    yield
    connection.exec_driver_sql(f"DROP TABLE {ODD}")


def is_not_odd(key: str) -> str:
    """Return the condition that the row with this key is plain."""
    return f"NOT EXISTS (SELECT 1 FROM {ODD} o WHERE o.key = {key})"


def is_plain(connection: sa.Connection, key: str) -> str:
    """Return the condition that a row is plain, by what is marked now: where no row is odd, none is looked up."""
    is_any = connection.exec_driver_sql(f"SELECT EXISTS (SELECT 1 FROM {ODD})").scalar()
    return is_not_odd(key) if is_any else "TRUE"


def mark_odd(connection: sa.Connection, key: str, rows: str, where: str, **values: Any) -> None:
    """Mark rows of a table, which is named s, for the way through Python."""
    query = f"INSERT INTO {ODD} (key) SELECT {key} FROM {rows} WHERE ({where}) AND {is_not_odd(key)}"
    connection.execute(sa.text(query), values)


def mark_undecodable(connection: sa.Connection, table: str, columns: Sequence[str]) -> None:
    """Mark the rows with text that is not UTF-8.

    Fetching the text as Python's str, which checks it, is several times faster than a condition in SQL. In
    a UTF-16 database it checks nothing, because SQLite makes some UTF-8 of anything.
    """
    if not is_sqlite(connection) or not columns:
        return
    # The DBAPI's own cursor: SQLAlchemy would wrap a million rows that nobody looks at.
    cursor: Any = connection.connection.cursor()
    name, is_utf8 = quoted(table), codec_of(connection) == "utf-8"
    failure = connection.dialect.loaded_dbapi.OperationalError
    texts = f"SELECT {', '.join(map(quoted, columns))} FROM {name} WHERE rowid BETWEEN ? AND ?"
    sizes = " + ".join(f"coalesce(length(CAST({quoted(column)} AS BLOB)), 0)" for column in columns)
    page = f"SELECT rowid AS r, {sizes} AS size FROM {name} WHERE rowid >= ? ORDER BY rowid LIMIT {_UTF8_PAGE}"
    bound = f"SELECT max(r), sum(size) FROM ({page})"
    # As one text, with something between the values so that no two become one character, it is decoded at once.
    joined = " || ' ' || ".join(f"coalesce({quoted(column)}, '')" for column in columns)
    whole = f"SELECT group_concat({joined}, ' ') FROM {name} WHERE rowid BETWEEN ? AND ?"
    low = cursor.execute(f"SELECT min(rowid) FROM {name}").fetchone()[0]
    while low is not None:
        high, size = cursor.execute(bound, (low,)).fetchone()
        try:
            if not is_utf8:
                _mark_undecodable_between(connection, table, columns, low, high)
            deque(cursor.execute(whole if size < _MOST_JOINED else texts, (low, high)), maxlen=0)
        except failure as error:
            # Only errors of SQLite itself have a code; text that can't be decoded is Python's.
            if hasattr(error, "sqlite_errorcode"):
                raise
            _mark_undecodable_between(connection, table, columns, low, high)
        low = cursor.execute(f"SELECT min(rowid) FROM {name} WHERE rowid > ?", (high,)).fetchone()[0]
    cursor.close()


def _mark_undecodable_between(
    connection: sa.Connection, table: str, columns: Sequence[str], low: int, high: int
) -> None:
    query = f"SELECT s.rowid, {cells(connection, columns)} FROM {quoted(table)} s WHERE s.rowid BETWEEN ? AND ?"
    codec = codec_of(connection)
    found = connection.exec_driver_sql(query, (low, high)).all()
    raw = [rowid for rowid, *values in found if RawText in map(type, row_of(columns, values, codec).values())]
    marked = f"INSERT INTO {ODD} (key) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM {ODD} o WHERE o.key = ?)"
    if raw:
        connection.exec_driver_sql(marked, [(rowid, rowid) for rowid in raw])
