"""A table in another shape and back again: no row is lost, and later edits stand."""

from typing import Any

import pytest
import sqlalchemy as sa

from operations import database, down, kept, rows, schema, up
from vecmigrate.operations import ChangeError

STORES = (
    "CREATE TABLE stores (id TEXT PRIMARY KEY, provider TEXT NOT NULL, metadata TEXT, "
    "size INTEGER DEFAULT 0, CHECK (size >= 0))"
)
NUMBERS = {"openai": 1, "pinecone": 2}
NAMES = {number: name for name, number in NUMBERS.items()}


def drop_and_retype(**more: Any) -> dict[str, Any]:
    return {
        "table": "stores",
        "revision": "003",
        "key": "id",
        "drop": [sa.Column("metadata", sa.Text)],
        "change": {
            "provider": (
                sa.Column("provider", sa.Text, nullable=False),
                sa.Column("provider", sa.Integer, nullable=False),
            )
        },
        "up": {"provider": lambda row: NUMBERS.get(row["provider"])},
        "down": {"provider": lambda row: NAMES.get(row["provider"])},
    } | more


def filled(connection: sa.Connection) -> None:
    values = [
        ("a", "openai", None, 1),
        ("b", "pinecone", "{}", 2),
        ("c", "hnsw", "x", 3),
        ("d", b"\x00\xff", 1.5, None),
        ("e", "openai", b"raw", 0),
        (None, "openai", None, 0),
        (None, "openai", "lost key", 0),
    ]
    connection.exec_driver_sql("INSERT INTO stores VALUES (?, ?, ?, ?)", values)
    connection.exec_driver_sql("DELETE FROM stores WHERE id = 'a'")
    connection.exec_driver_sql("INSERT INTO stores VALUES ('a2', 'openai', NULL, 7)")


@pytest.mark.parametrize("plain", [{}, {"provider": "provider IN ('openai', 'pinecone')"}], ids=["python", "sets"])
def test_up_and_down_gives_the_same_rows(plain: dict[str, str]) -> None:
    """Values, storage classes and rowids return, whether they went through Python or not, and nothing is kept."""
    with database(STORES) as connection:
        filled(connection)
        before, sql = rows(connection, "stores"), schema(connection)
        change = drop_and_retype(plain=plain)

        up(connection, change)
        landed = rows(connection, "stores")
        down(connection, change)

        assert before == rows(connection, "stores")
        assert sql == schema(connection)
        assert [] == kept(connection)

        up(connection, change)
        assert landed == rows(connection, "stores")
        down(connection, change)
        assert before == rows(connection, "stores")


def test_what_has_no_place_is_kept_with_its_reason() -> None:
    """A dropped value is kept beside its key; a row without a value where one is needed is set aside whole."""
    with database(STORES) as connection:
        filled(connection)
        up(connection, drop_and_retype())

        found = {(row["landed"], row["target_key"], row["reason"]) for row in kept(connection)}

    assert found == {
        (1, "b", "no column for metadata"),
        (1, "e", "no column for metadata"),
        (0, None, "provider: no value, and one is needed"),
        (0, None, "has no key by which to give back its values"),
    }


@pytest.mark.parametrize("plain", [{}, {"provider": "provider IN ('openai', 'pinecone')"}], ids=["python", "sets"])
def test_a_later_edit_wins_column_by_column(plain: dict[str, str]) -> None:
    """Who edits a column after the way up finds the edit after the way down, and the originals of the others."""
    change = drop_and_retype(plain=plain)
    with database(STORES) as connection:
        connection.exec_driver_sql("INSERT INTO stores VALUES ('a', 'openai', 'm', 1), ('b', 'openai', 'n', 2)")
        up(connection, change)
        connection.exec_driver_sql("UPDATE stores SET provider = 2, size = 9 WHERE id = 'a'")
        connection.exec_driver_sql("DELETE FROM stores WHERE id = 'b'")
        connection.exec_driver_sql("INSERT INTO stores VALUES ('c', 1, 3)")
        down(connection, change)

        found = connection.exec_driver_sql("SELECT * FROM stores ORDER BY id").all()
        assert [("a", "pinecone", "m", 9), ("c", "openai", None, 3)] == [tuple(row) for row in found]
        assert [] == kept(connection)


def test_values_of_an_added_column_return_on_the_next_way_up() -> None:
    """Down drops the column, up gives its values back; a row deleted in between stays deleted."""
    change = {
        "table": "stores",
        "revision": "003",
        "key": "id",
        "add": [sa.Column("tags", sa.Text), sa.Column("rank", sa.Integer, nullable=False, server_default="5")],
    }
    with database(STORES) as connection:
        connection.exec_driver_sql(
            "INSERT INTO stores VALUES ('a', 'x', 'm', 1), ('b', 'x', 'n', 2), ('c', 'x', 'o', 3)"
        )
        up(connection, change)
        connection.exec_driver_sql("UPDATE stores SET tags = 'red' WHERE id = 'a'")
        connection.exec_driver_sql("UPDATE stores SET rank = 7.5 WHERE id = 'b'")
        connection.exec_driver_sql("UPDATE stores SET tags = 'blue' WHERE id = 'c'")
        at_new = rows(connection, "stores")
        down(connection, change)
        up(connection, change)
        assert at_new == rows(connection, "stores")
        assert [] == kept(connection)
        down(connection, change)
        connection.exec_driver_sql("DELETE FROM stores WHERE id = 'a'")
        up(connection, change)
        assert at_new[1:] == rows(connection, "stores")


def test_indexes_triggers_views_and_numbers_of_the_service_stay() -> None:
    """What hangs on the table is as it was, also its AUTOINCREMENT; an index on a dropped column returns with it."""
    table = (
        "CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT COLLATE NOCASE UNIQUE, -- so, here\n"
        "note TEXT, doubled INTEGER GENERATED ALWAYS AS (id * 2) VIRTUAL, "
        "parent INTEGER REFERENCES items(id), CONSTRAINT short CHECK (length(note) < 10 AND note <> 'name, note'))"
    )
    change = {"table": "items", "revision": "003", "key": "id", "drop": [sa.Column("note", sa.Text)]}
    with database(
        table,
        "CREATE INDEX on_note ON items (note)",
        "CREATE UNIQUE INDEX on_parent ON items (parent, name) WHERE parent > 0",
        "CREATE TABLE log (name)",
        "CREATE TRIGGER logged AFTER INSERT ON items BEGIN INSERT INTO log VALUES (new.name); END",
        "CREATE VIEW names AS SELECT name FROM items",
        "INSERT INTO items (name, note) VALUES ('a', 'x'), ('b', NULL), ('c', 'y')",
        "DELETE FROM items WHERE name = 'c'",
    ) as connection:
        before, sql = rows(connection, "items"), schema(connection)
        up(connection, change)

        assert sql.keys() - {"on_note"} == schema(connection).keys()
        assert sql["on_parent"] == schema(connection)["on_parent"]
        connection.exec_driver_sql("INSERT INTO items (name) VALUES ('d')")
        assert 4 == connection.exec_driver_sql("SELECT id FROM items WHERE name = 'D'").scalar()
        assert ["a", "b", "c", "d"] == connection.exec_driver_sql("SELECT name FROM log").scalars().all()
        connection.exec_driver_sql("DELETE FROM items WHERE id = 4")

        down(connection, change)
        assert before == rows(connection, "items")
        assert sql == schema(connection)


def test_a_row_that_a_new_rule_refuses_waits() -> None:
    """Of two rows for a new unique value the first lands; the other is set aside, returns, and waits again."""
    change = {
        "table": "stores",
        "revision": "003",
        "key": "id",
        "change": {
            "provider": (sa.Column("provider", sa.Text, nullable=False), sa.Column("provider", sa.Integer, unique=True))
        },
        "up": {"provider": lambda row: len(row["provider"])},
        "down": {"provider": lambda row: "x" * row["provider"]},
    }
    with database(STORES) as connection:
        connection.exec_driver_sql(
            "INSERT INTO stores VALUES ('a', 'one', 'm', 1), ('b', 'two', 'n', 2), ('c', 'three', 'o', 3)"
        )
        before = rows(connection, "stores")
        up(connection, change)
        at_new = rows(connection, "stores")
        assert [1, 3] == [row[0] for row in at_new]
        assert ["refused by the rules of the table"] == [row["reason"] for row in kept(connection) if not row["landed"]]

        down(connection, change)
        assert before == rows(connection, "stores")
        up(connection, change)
        assert at_new == rows(connection, "stores")
        down(connection, change)
        assert before == rows(connection, "stores")


def unique_lengths() -> dict[str, Any]:
    return {
        "table": "stores",
        "revision": "003",
        "key": "id",
        "change": {"size": (sa.Column("size", sa.Integer), sa.Column("size", sa.Integer, unique=True))},
    }


def test_a_row_lands_when_the_one_that_had_its_key_is_gone_before_the_way_up() -> None:
    """What kept it out is gone since it went back, so it lands although nobody edited it."""
    with database(STORES) as connection:
        connection.exec_driver_sql("INSERT INTO stores VALUES ('a', 'x', NULL, 1), ('b', 'x', NULL, 1)")
        up(connection, unique_lengths())
        down(connection, unique_lengths())
        connection.exec_driver_sql("DELETE FROM stores WHERE id = 'a'")
        up(connection, unique_lengths())

        assert ["b"] == connection.exec_driver_sql("SELECT id FROM stores").scalars().all()
        assert [] == kept(connection)


def test_a_row_stays_aside_when_the_one_that_had_its_key_was_gone_already() -> None:
    """Down and up again makes no row that was not there before; an edit lets it land."""
    with database(STORES) as connection:
        connection.exec_driver_sql("INSERT INTO stores VALUES ('a', 'x', NULL, 1), ('b', 'x', NULL, 1)")
        up(connection, unique_lengths())
        connection.exec_driver_sql("DELETE FROM stores WHERE id = 'a'")
        down(connection, unique_lengths())
        up(connection, unique_lengths())
        assert [] == rows(connection, "stores")

        down(connection, unique_lengths())
        connection.exec_driver_sql("UPDATE stores SET provider = 'y' WHERE id = 'b'")
        up(connection, unique_lengths())
        assert ["b"] == connection.exec_driver_sql("SELECT id FROM stores").scalars().all()


def test_composite_keys_and_tables_without_rowid() -> None:
    """A key of several columns finds its rows again, in a table without rowids too."""
    change = {"table": "pairs", "revision": "003", "key": ("a", "b"), "drop": [sa.Column("x", sa.LargeBinary)]}
    with database("CREATE TABLE pairs (a TEXT, b INTEGER, x BLOB, y, PRIMARY KEY (a, b)) WITHOUT ROWID") as connection:
        values = [("k", 1, b"v", 1), ("k", 2, "t\0t", 2), ('q"|,', 1, None, None), ("é", 1, 7, 1.5)]
        connection.exec_driver_sql("INSERT INTO pairs VALUES (?, ?, ?, ?)", values)
        connection.exec_driver_sql("CREATE VIEW w AS SELECT a FROM pairs")
        before = connection.exec_driver_sql("SELECT *, typeof(x) FROM pairs").all()
        sql = schema(connection)
        up(connection, change)
        assert 3 == len(kept(connection))
        down(connection, change)
        assert before == connection.exec_driver_sql("SELECT *, typeof(x) FROM pairs").all()
        assert (sql, []) == (schema(connection), kept(connection))


def test_several_changes_of_one_table_in_one_revision_and_in_the_next() -> None:
    """Each change finds its own kept rows, down in the reverse order."""
    first = {"table": "stores", "revision": "003", "key": "id", "drop": [sa.Column("metadata", sa.Text)]}
    second = {
        "table": "stores",
        "revision": "003",
        "key": "id",
        "drop": [sa.Column("size", sa.Integer, server_default="0")],
    }
    third = {
        "table": "stores",
        "revision": "004",
        "key": "id",
        "change": {"id": (sa.Column("id", sa.Text), sa.Column("store_id", sa.Text))},
        "add": [sa.Column("note", sa.Text)],
    }
    with database(STORES) as connection:
        connection.exec_driver_sql(
            "INSERT INTO stores VALUES ('a', 'x', 'm', 4), ('b', 'x', NULL, 0), ('c', 'x', 'o', NULL)"
        )
        before, sql = rows(connection, "stores"), schema(connection)
        for change in (first, second, third):
            up(connection, change)
        connection.exec_driver_sql("UPDATE stores SET note = 'n' WHERE store_id = 'b'")
        at_new = rows(connection, "stores")
        for _ in range(2):
            for change in (third, second, first):
                down(connection, change)
            assert before == rows(connection, "stores")
            assert sql == schema(connection)
            for change in (first, second, third):
                up(connection, change)
            assert at_new == rows(connection, "stores")


@pytest.mark.parametrize(
    ("faulty", "says"),
    [
        ({"drop": [sa.Column("nothing", sa.Text)]}, "there is no column nothing"),
        ({"key": "other"}, "there is no column other"),
        ({"key": "size"}, "the key (size) is not unique"),
        ({"add": [sa.Column("size", sa.Integer)]}, "there is a column size already"),
        ({"up": {}}, "up needs a function for provider"),
        ({"down": {}}, "down needs a function for provider"),
        ({"up": {"provider": len, "x": len}}, "up has x, which it does not make"),
        ({"plain": {"size": "TRUE"}}, "plain has size, which is not changed"),
        ({"drop": [sa.Column("id", sa.Text)]}, "the key id would be dropped"),
        ({"table": "gone"}, "There is no table gone"),
        ({"drop": [], "change": {}, "up": {}, "down": {}}, "nothing changes"),
        ({"add": [sa.Column("x", sa.Text, nullable=False)]}, "x may not be NULL and has no default"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(faulty: dict[str, Any], says: str) -> None:
    """The error says what is wrong, and the database is as it was."""
    with database(STORES) as connection:
        filled(connection)
        before, sql = rows(connection, "stores"), schema(connection)

        with pytest.raises(ChangeError) as caught:
            up(connection, drop_and_retype(**faulty))

        assert says in str(caught.value)
        assert (before, sql, []) == (rows(connection, "stores"), schema(connection), kept(connection))
