"""From every state that rows and edits lead to, there and back gives the same rows."""

import os
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operations import database, down, kept, rows, up
from vecmigrate.operations.v1.cells import insert
from vecmigrate.operations.v1.codec import RawText

EXAMPLES = max(5, int(os.environ.get("VECMIGRATE_EXAMPLES", "60")) // 10)
"""Of each of the twenty pairs of a table and a change."""
TABLES = {
    "text key": "CREATE TABLE t (k TEXT PRIMARY KEY, a, b TEXT, c INTEGER DEFAULT 3, d NUMERIC UNIQUE)",
    "integer key": "CREATE TABLE t (k INTEGER PRIMARY KEY, a, b TEXT, c INTEGER DEFAULT 3, d NUMERIC UNIQUE)",
    "loose": "CREATE TABLE t (k PRIMARY KEY, a, b, c DEFAULT 3, d UNIQUE)",
    "two keys": "CREATE TABLE t (k TEXT, a, b TEXT, c INTEGER DEFAULT 3, d NUMERIC UNIQUE, UNIQUE (k, d))",
}
CELLS = st.one_of(
    st.sampled_from([None, 0, 1, 1.0, 2.5, "1", "x", "X", "", "n\0l", b"x", b"\xff", RawText(b"\xff"), 2**62, "é"]),
    st.integers(0, 3),
    st.sampled_from(["aa", "bb", "cc"]),
)


def doubled(value: Any) -> Any:
    return value * 2 if isinstance(value, (int, str)) and len(str(value)) < 9 else None


def halved(value: Any) -> Any:
    if isinstance(value, int):
        return value // 2
    return value[: len(value) // 2] if isinstance(value, str) else None


CHANGES: dict[str, dict[str, Any]] = {
    "drop": {"drop": [sa.Column("a", sa.Text), sa.Column("c", sa.Integer, server_default="3")]},
    "add": {"add": [sa.Column("e", sa.Text), sa.Column("f", sa.Integer, nullable=False, server_default="1")]},
    "retype": {
        "change": {"b": (sa.Column("b", sa.Text), sa.Column("b", sa.Integer, nullable=False))},
        "up": {"b": lambda row: doubled(row["b"])},
        "down": {"b": lambda row: halved(row["b"])},
        "plain": {"b": "b IN ('x', 'aa')"},
    },
    "unique": {
        "change": {"b": (sa.Column("b", sa.Text), sa.Column("g", sa.Text, unique=True))},
        "up": {"g": lambda row: row["b"] and str(row["b"]).lower()},
        "down": {"b": lambda row: row["g"]},
        "drop": [sa.Column("a", sa.Text)],
    },
    "rename and split": {
        "change": {"c": (sa.Column("c", sa.Integer), sa.Column("h", sa.Integer))},
        "drop": [sa.Column("b", sa.Text)],
        "add": [sa.Column("e", sa.Text), sa.Column("f", sa.Text)],
        "up": {"e": lambda row: str(row["b"])[:1], "f": lambda row: str(row["b"])[1:]},
        "down": {"b": lambda row: str(row["e"]) + str(row["f"])},
    },
}
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "update", "delete", "replace"]),
        st.integers(0, 9),
        st.lists(CELLS, min_size=6, max_size=6),
    ),
    max_size=4,
)


def edit(connection: sa.Connection, what: str, place: int, values: list[Any]) -> None:
    """Change one row as a service would; what the table refuses is left out."""
    columns = [column["name"] for column in sa.inspect(connection).get_columns("t")]
    found = connection.exec_driver_sql("SELECT rowid FROM t ORDER BY rowid").scalars().all()
    rowid = found[place % len(found)] if found else None
    row = dict(zip(columns, values, strict=False))
    try:
        with connection.begin_nested():
            if what == "delete" or (what == "replace" and rowid):
                connection.exec_driver_sql("DELETE FROM t WHERE rowid = ?", (rowid,))
            if what in {"insert", "replace"}:
                insert(connection, "t", tuple(row), [tuple(row.values())])
            elif what == "update" and rowid and not isinstance(values[0], RawText):
                column = columns[1 + place % (len(columns) - 1)]
                connection.exec_driver_sql(f"UPDATE t SET {column} = ? WHERE rowid = ?", (values[0], rowid))
    except sa.exc.IntegrityError:
        pass


def waiting(connection: sa.Connection) -> int:
    return sum(1 for row in kept(connection) if not row["landed"])


@pytest.mark.parametrize("shape", TABLES)
@pytest.mark.parametrize("name", CHANGES)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.lists(st.lists(CELLS, min_size=5, max_size=5), max_size=7), steps=st.lists(EDITS, max_size=4))
def test_there_and_back_gives_the_same_rows_from_every_state(
    name: str, shape: str, data: list[list[Any]], steps: list[Any]
) -> None:
    """Up and down from the old shape, down and up from the new one, after any edits: the rows are the same."""
    key: Any = ("k", "d") if shape == "two keys" else "k"
    change = {"table": "t", "revision": "003", "key": key} | CHANGES[name]
    with database(TABLES[shape]) as connection:
        for values in data:
            edit(connection, "insert", 0, values)
        ways = [up, down]
        for edits in [[], *steps]:
            for each in edits:
                edit(connection, *each)
            before, aside = rows(connection, "t"), waiting(connection)
            ways[0](connection, change)
            ways[1](connection, change)
            after, returned = rows(connection, "t"), aside - waiting(connection)
            # What stayed aside because another row had its key may come back now that this one is gone.
            assert (len(before) + returned, True) == (len(after), all(row in after for row in before))
            assert returned == 0 or edits
            ways[0](connection, change)
            ways.reverse()
