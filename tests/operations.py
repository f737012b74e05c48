"""A bare run of operations: in the transaction and with the pragmas that env.py gives a revision script."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from vecmigrate import operations
from vecmigrate.engine import scratch
from vecmigrate.operations.v1.cells import cells, codec_of, row_of
from vecmigrate.operations.v1.codec import Row, encoded
from vecmigrate.schema import tool_metadata

State = dict[Any, Row]
"""The rows of a table by their rowid, or by their number where there is none."""


@contextmanager
def database(*statements: str) -> Iterator[sa.Connection]:
    """Open an empty SQLite database with the tables of the tool, and run statements on it."""
    with scratch() as connection:
        tool_metadata.create_all(connection)
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield connection


def in_script(connection: sa.Connection, change: Callable[[], object]) -> None:
    """Call a function as Alembic calls ``upgrade`` and ``downgrade`` of a script."""
    context = MigrationContext.configure(connection, opts={"transactional_ddl": True})
    with Operations.context(context):
        change()


def up(connection: sa.Connection, change: dict[str, Any]) -> None:
    in_script(connection, lambda: operations.rebuild_table(**change))


def down(connection: sa.Connection, change: dict[str, Any]) -> None:
    in_script(connection, lambda: operations.restore_table(**change))


def rows(connection: sa.Connection, table: str, *, order: str = "rowid") -> list[tuple[Any, ...]]:
    """Return the rows exact, each with its rowid first (on SQLite), values as they stand in JSON with their type."""
    columns = [row["name"] for row in sa.inspect(connection).get_columns(table)]
    codec = codec_of(connection)
    key = "s.rowid" if codec else "NULL"
    query = f"SELECT {key}, {cells(connection, columns)} FROM {table} s ORDER BY {order}"
    found = connection.exec_driver_sql(query).all()
    return [(each[0], *_exact(row_of(columns, each[1:], codec))) for each in found]


def _exact(row: Row) -> Iterator[tuple[str, str, Any]]:
    for name, value in row.items():
        yield name, type(value).__name__, encoded(value)


def kept(connection: sa.Connection) -> list[dict[str, Any]]:
    """Return what vecmigrate_preserved holds, without times and ids."""
    query = "SELECT * FROM vecmigrate_preserved ORDER BY id"
    found = connection.exec_driver_sql(query).mappings()
    return [{name: value for name, value in row.items() if name not in {"id", "preserved_at"}} for row in found]


def schema(connection: sa.Connection) -> dict[str, str]:
    """Return the SQL of everything, without the quotes that a rename puts around a name."""
    query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'vecmigrate%' AND sql IS NOT NULL"
    return {row.name: row.sql.replace('"', "") for row in connection.exec_driver_sql(query)}
