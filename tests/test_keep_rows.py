"""Whole tables: kept before they are dropped, put back after they are made again."""

import pytest

from operations import database, in_script, kept, rows
from vecmigrate import operations
from vecmigrate.operations import ChangeError
from vecmigrate.operations.v1.cells import insert
from vecmigrate.operations.v1.codec import RawText

TABLES = {
    "rowids": "CREATE TABLE t (k TEXT, v)",
    "integer key": "CREATE TABLE t (k INTEGER PRIMARY KEY, v)",
    "without rowid": "CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID",
}
VALUES = [None, 1, 1.5, float("inf"), "text", "n\0l", b"blob", RawText(b"\xff"), ""]


@pytest.mark.parametrize("shape", TABLES)
def test_every_row_returns_exact_and_where_it_was(shape: str) -> None:
    """Values, storage classes and rowids are the same, and nothing stays behind."""
    order = "k" if shape == "without rowid" else "rowid"
    with database(TABLES[shape]) as connection:
        insert(connection, "t", ("k", "v"), [(number * 3, value) for number, value in enumerate(VALUES)])
        query = "SELECT k, typeof(v), CAST(v AS BLOB) FROM t ORDER BY k"
        if shape != "without rowid":
            connection.exec_driver_sql("DELETE FROM t WHERE v = 1.5")
            before: object = rows(connection, "t", order=order)
        else:
            before = connection.exec_driver_sql(query).all()
        count = connection.exec_driver_sql("SELECT count(*) FROM t").scalar()
        in_script(connection, lambda: operations.keep_rows("t", revision="003"))
        connection.exec_driver_sql("DROP TABLE t")
        assert count == len(kept(connection))
        connection.exec_driver_sql(TABLES[shape])
        in_script(connection, lambda: operations.return_rows("t", revision="003"))

        after = (
            connection.exec_driver_sql(query).all() if shape == "without rowid" else rows(connection, "t", order=order)
        )
        assert before == after
        assert [] == kept(connection)


def test_a_row_that_the_table_refuses_stays_kept() -> None:
    """It comes back by a later run, when its key is free."""
    with database("CREATE TABLE t (k TEXT PRIMARY KEY)", "INSERT INTO t VALUES ('a'), ('b')") as connection:
        in_script(connection, lambda: operations.keep_rows("t", revision="003"))
        connection.exec_driver_sql("DELETE FROM t WHERE k = 'b'")
        in_script(connection, lambda: operations.return_rows("t", revision="003"))

        assert ['{"k":"a"}'] == [row["row"] for row in kept(connection)]
        connection.exec_driver_sql("DELETE FROM t")
        in_script(connection, lambda: operations.return_rows("t", revision="003"))
        assert [] == kept(connection)
        assert ["a"] == connection.exec_driver_sql("SELECT k FROM t").scalars().all()


def test_a_table_that_is_not_there_is_a_mistake() -> None:
    """The error names it, and nothing is written."""
    with database() as connection, pytest.raises(ChangeError, match="There is no table t"):
        in_script(connection, lambda: operations.keep_rows("t", revision="003"))


@pytest.mark.parametrize("values", ["('a'), ('b')", ""], ids=["with rows", "empty"])
def test_a_script_learns_whether_a_table_was_kept(values: str) -> None:
    """Its own rows go into a new table once: what somebody deleted since does not come back with them."""
    told: list[bool] = []
    with database("CREATE TABLE t (k TEXT PRIMARY KEY)") as connection:
        in_script(connection, lambda: told.append(operations.return_rows("t", revision="003")))
        if values:
            connection.exec_driver_sql(f"INSERT INTO t VALUES {values}")
        for _ in range(2):
            in_script(connection, lambda: operations.keep_rows("t", revision="003"))
            connection.exec_driver_sql("DELETE FROM t")
            in_script(connection, lambda: told.append(operations.return_rows("t", revision="003")))

        assert [False, True, True] == told
        assert [] == kept(connection)
