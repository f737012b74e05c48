"""Reading and writing rows exactly, whatever SQLite holds in a column."""

from collections.abc import Iterable, Iterator, Sequence
from sys import getsizeof
from typing import Any, TypeVar

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.codec import RawText, Row, decoded_text

__all__ = [
    "PAGE",
    "cells",
    "codec_of",
    "count",
    "driver_sql",
    "emptied",
    "fetched",
    "fetched_by_key",
    "insert",
    "insert_into",
    "row_of",
    "run",
]

_T = TypeVar("_T")

PAGE = 1000
"""Rows that are held in memory at once."""
PAGE_BYTES = 4_000_000
"""A page ends early with the row that makes it this large, so that a row with a huge value is the last of its page."""


def codec_of(connection: sa.Connection) -> str | None:
    """Return how SQLite encodes text in this database, None elsewhere."""
    if not is_sqlite(connection):
        return None
    return str(connection.exec_driver_sql("PRAGMA encoding").scalar_one()).lower()


def cells(connection: sa.Connection, columns: Iterable[str], *, table: str = "s") -> str:
    """Return what to select from *table* (its alias) so that ``row_of`` can tell every value exactly."""
    names = [f"{table}.{quoted(column)}" for column in columns]
    if not is_sqlite(connection):
        return ", ".join(names)
    return ", ".join(
        f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END" for name in names
    )


def row_of(columns: Iterable[str], values: Sequence[Any], codec: str | None) -> Row:
    """Return the row that was fetched by ``cells``."""
    if codec is None:
        return dict(zip(columns, values, strict=True))
    return {
        column: decoded_text(value, codec) if kind == "text" else value
        for column, kind, value in zip(columns, values[::2], values[1::2], strict=True)
    }


def driver_sql(connection: sa.Connection, statement: str) -> str:
    """Return a statement with ``?`` for its values as the driver wants it. It may hold no other ``?``."""
    return statement if is_sqlite(connection) else statement.replace("%", "%%").replace("?", "%s")


def run(connection: sa.Connection, statement: str, values: Sequence[Any] = ()) -> sa.CursorResult[Any]:
    """Run a statement, with ``?`` for its values if it has any."""
    if values:
        return connection.exec_driver_sql(driver_sql(connection, statement), tuple(values))
    return connection.exec_driver_sql(statement if is_sqlite(connection) else statement.replace("%", "%%"))


def fetched(connection: sa.Connection, query: str, values: Sequence[Any] = ()) -> Iterator[list[Sequence[Any]]]:
    """Yield the result of a query in pages. The tables that are read must not change meanwhile."""
    statement, options = driver_sql(connection, query), {"stream_results": True, "max_row_buffer": PAGE}
    with connection.exec_driver_sql(statement, tuple(values) or None, execution_options=options) as result:
        # The iterator of the result itself would hold the last row.
        yield from _pages(iter(result.fetchone, None))


def fetched_by_key(connection: sa.Connection, query: str, key: str) -> Iterator[list[Sequence[Any]]]:
    """Yield the result of a query, which has no WHERE, in the order of *key*, its first column, in pages.

    Each page is a query of its own: tables may change meanwhile, and the database holds no row while one is used.
    """
    order, further = f"ORDER BY {key} LIMIT {PAGE}", ""
    values: tuple[Any, ...] = ()
    while True:
        with run(connection, f"{query} {further} {order}", values) as result:
            found = [next(_pages(iter(result.fetchone, None)), [])]
        if not found[0]:
            return
        further, values = f"WHERE {key} > ?", (found[0][-1][0],)
        yield found.pop()


def _pages(found: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    """Yield rows in pages, and keep none: who empties a page has the memory of a huge row back."""
    whole: list[list[Sequence[Any]]] = [[]]
    size = 0
    for row in found:
        whole[0].append(row)
        size += sum(map(getsizeof, row))
        del row
        if len(whole[0]) == PAGE or size >= PAGE_BYTES:
            yield whole.pop()
            whole.append([])
            size = 0
    if whole[0]:
        yield whole.pop()


def emptied(page: list[_T]) -> Iterator[_T]:
    """Yield what is in a page and take it out: whatever nobody else holds by then frees its memory."""
    page.reverse()
    while page:
        yield page.pop()


def count(connection: sa.Connection, table: str) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {quoted(table)}").scalar_one())


def insert_into(connection: sa.Connection, table: str, *, refused: str = "ABORT") -> str:
    """Return the beginning of an INSERT that ends with an error if a row breaks a rule of the table.

    A table that was found may have ON CONFLICT clauses of its own, which would drop rows silently. On SQLite,
    ``refused="IGNORE"`` leaves such rows out, for who looks afterwards which ones are there.
    """
    return f"INSERT {f'OR {refused} ' if is_sqlite(connection) else ''}INTO {quoted(table)}"


def insert(
    connection: sa.Connection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    refused: str = "ABORT",
) -> None:
    """Insert rows, exact in value and storage class, as tuples in the order of *columns*."""
    names = ", ".join(map(quoted, columns))
    into = f"{insert_into(connection, table, refused=refused)} ({names}) VALUES"
    plain = [row for row in rows if RawText not in map(type, row)]
    if plain:
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(driver_sql(connection, f"{into} ({marks})"), [tuple(row) for row in plain])
    for row in rows if len(plain) < len(rows) else ():
        if RawText in map(type, row):
            # Only of a literal does SQLite take the bytes as they are, whatever the encoding of the database.
            values = ", ".join(f"CAST(x'{value.hex()}' AS TEXT)" if type(value) is RawText else "?" for value in row)
            rest = tuple(value for value in row if type(value) is not RawText)
            connection.exec_driver_sql(f"{into} ({values})", rest)
