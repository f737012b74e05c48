"""The operations as SQL scripts: the way of an empty database, which stops where there are rows."""

import io
import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from vecmigrate import operations

TABLE = "CREATE TABLE stores (id TEXT PRIMARY KEY, provider TEXT NOT NULL, metadata TEXT, size INTEGER)"
CHANGE: dict[str, Any] = {
    "table": "stores",
    "revision": "004",
    "key": "id",
    "add": [sa.Column("tags", sa.Text)],
    "drop": [sa.Column("metadata", sa.Text)],
    "change": {
        "provider": (sa.Column("provider", sa.Text, nullable=False), sa.Column("provider", sa.Integer, nullable=False)),
        "size": (sa.Column("size", sa.Integer), sa.Column("bytes", sa.Integer)),
    },
    "up": {"provider": lambda row: len(row["provider"])},
    "down": {"provider": lambda row: "x" * row["provider"]},
}


def scripted(dialect: str, call: Any) -> str:
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name=dialect, opts={"as_sql": True, "literal_binds": True, "output_buffer": buffer}
    )
    with Operations.context(context):
        call()
    return buffer.getvalue()


def columns(connection: sqlite3.Connection) -> dict[str, tuple[str, int]]:
    return {row[1]: (row[2], row[3]) for row in connection.execute("PRAGMA table_info(stores)")}


def test_a_script_changes_an_empty_table_there_and_back() -> None:
    """Names, types and NOT NULL are those of the change, and then again those from before."""
    connection = sqlite3.connect(":memory:")
    connection.execute(TABLE)
    before = columns(connection)

    connection.executescript(scripted("sqlite", lambda: operations.rebuild_table(**CHANGE)))
    assert {
        "id": ("TEXT", 0),
        "bytes": ("INTEGER", 0),
        "provider": ("INTEGER", 1),
        "tags": ("TEXT", 0),
    } == columns(connection)
    connection.executescript(scripted("sqlite", lambda: operations.restore_table(**CHANGE)))
    assert before == columns(connection)
    connection.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda: operations.rebuild_table(**CHANGE),
        lambda: operations.restore_table(**CHANGE),
        lambda: operations.keep_rows("stores", revision="004"),
    ],
    ids=["rebuild", "restore", "keep"],
)
def test_a_script_stops_where_there_are_rows(call: Any) -> None:
    """The first statements fail, by a rule whose name says why, and the table is as it was."""
    connection = sqlite3.connect(":memory:")
    connection.execute(TABLE)
    connection.execute("INSERT INTO stores VALUES ('a', 'openai', NULL, NULL)")
    before = columns(connection)

    with pytest.raises(sqlite3.IntegrityError, match="ck_vecmigrate_sql_is_for_an_empty_database"):
        connection.executescript(scripted("sqlite", call))
    assert before == columns(connection)
    connection.close()


def test_a_script_for_postgresql_has_the_same_guard() -> None:
    """It is plain SQL that needs no Python."""
    script = scripted("postgresql", lambda: operations.rebuild_table(**CHANGE))

    assert "SELECT count(*) FROM stores" in script
    assert "ALTER TABLE stores DROP COLUMN metadata" in script
    assert "ALTER TABLE stores ADD COLUMN tags TEXT" in script
