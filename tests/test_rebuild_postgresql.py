"""The operations on PostgreSQL: the same promises, with the table itself and what hangs on it left in place."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from operations import down, in_script, kept, up
from vecmigrate import operations
from vecmigrate.errors import NotOursError
from vecmigrate.operations.v1.cells import run
from vecmigrate.schema import tool_metadata

pytestmark = pytest.mark.xdist_group("postgresql")

NUMBERS = {"openai": 1, "pinecone": 2}
NAMES = {number: name for name, number in NUMBERS.items()}


@pytest.fixture
def connection(postgresql: sa.URL) -> Iterator[sa.Connection]:
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.connect() as found, found.begin():
        tool_metadata.create_all(found)
        found.exec_driver_sql(
            "CREATE TABLE stores (id TEXT PRIMARY KEY, provider TEXT NOT NULL, metadata TEXT, size BIGINT DEFAULT 0, "
            "seen TIMESTAMPTZ, ratio NUMERIC, data JSONB, CONSTRAINT sized CHECK (size >= 0 OR metadata IS NULL))"
        )
        found.exec_driver_sql("CREATE INDEX on_metadata ON stores (metadata)")
        found.exec_driver_sql("CREATE UNIQUE INDEX on_size ON stores (size) WHERE size > 100")
        found.exec_driver_sql("CREATE TABLE files (id INTEGER, store TEXT REFERENCES stores (id) ON DELETE CASCADE)")
        found.exec_driver_sql("CREATE VIEW sizes AS SELECT id, size FROM stores")
        run(
            found,
            "INSERT INTO stores VALUES ('a', 'openai', 'm', 1, now(), 1.50, '{\"a\": [1]}'), "
            "('b', 'pinecone', NULL, 2, NULL, NULL, NULL), ('c', 'openai', '100% ?', NULL, NULL, 2, NULL)",
        )
        found.exec_driver_sql("INSERT INTO files VALUES (1, 'a'), (2, 'b')")
        yield found


def change(**more: Any) -> dict[str, Any]:
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


def found(
    connection: sa.Connection, columns: str = "id, provider, metadata, size, seen, ratio::text, data::text"
) -> Any:
    return connection.exec_driver_sql(f"SELECT {columns} FROM stores ORDER BY id").all()


def hanging(connection: sa.Connection) -> Any:
    """Return the indexes, constraints and the view, as PostgreSQL tells them."""
    indexes = connection.exec_driver_sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'stores' ORDER BY 1").all()
    rules = connection.exec_driver_sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid IN ('stores'::regclass, "
        "'files'::regclass) ORDER BY 1"
    ).all()
    return indexes, rules, connection.exec_driver_sql("SELECT * FROM sizes ORDER BY id").all()


@pytest.mark.parametrize("plain", [{}, {"provider": "provider IN ('openai', 'pinecone')"}], ids=["python", "sets"])
def test_up_and_down_gives_the_same_rows_and_everything_that_hangs_on_them(
    connection: sa.Connection, plain: dict[str, str]
) -> None:
    """Values return with their types, and indexes, rules, views and the rows of child tables are as they were."""
    before, around = found(connection), hanging(connection)
    for _ in range(2):
        up(connection, change(plain=plain))
        assert [("a", 1), ("b", 2), ("c", 1)] == found(connection, "id, provider")
        assert [1, 2] == connection.exec_driver_sql("SELECT id FROM files ORDER BY id").scalars().all()
        down(connection, change(plain=plain))
        assert before == found(connection)
        assert around == hanging(connection)
        assert [] == kept(connection)


def test_a_row_that_cannot_land_is_set_aside_and_comes_back(connection: sa.Connection) -> None:
    """It has no value where one is needed; its time, number and JSON return exactly."""
    connection.exec_driver_sql("DELETE FROM files")
    connection.exec_driver_sql("UPDATE stores SET provider = 'other' WHERE id = 'a'")
    before = found(connection)
    up(connection, change())
    assert [("b", 2), ("c", 1)] == found(connection, "id, provider")
    connection.exec_driver_sql("UPDATE stores SET provider = 2 WHERE id = 'c'")
    down(connection, change())
    assert [*before[:2], ("c", "pinecone", *before[2][2:])] == found(connection)
    assert [] == kept(connection)


def test_rows_that_a_new_rule_refuses_wait(connection: sa.Connection) -> None:
    """Two rows get the same unique value: one lands, the other waits, and returns."""
    connection.exec_driver_sql("DELETE FROM files")
    unique = {
        "table": "stores",
        "revision": "003",
        "key": "id",
        "change": {
            "provider": (sa.Column("provider", sa.Text, nullable=False), sa.Column("provider", sa.Integer, unique=True))
        },
        "up": {"provider": lambda row: len(row["provider"])},
        "down": {"provider": lambda row: "x" * row["provider"]},
    }
    before, around = found(connection), hanging(connection)
    up(connection, unique)
    assert 2 == len(at_new := found(connection, "id, provider"))
    down(connection, unique)
    assert (before, around) == (found(connection), hanging(connection))
    up(connection, unique)
    assert at_new == found(connection, "id, provider")


def test_a_view_on_a_column_that_goes_is_named_before_anything_is_written(connection: sa.Connection) -> None:
    """PostgreSQL can't change a column under a view; the view's name is told."""
    connection.exec_driver_sql("CREATE VIEW everything AS SELECT * FROM stores")
    before = found(connection)

    with pytest.raises(NotOursError, match="everything"):
        up(connection, change())
    assert before == found(connection)


def test_all_rows_of_a_table_are_kept_and_put_back(connection: sa.Connection) -> None:
    """Also times, numbers with their zeros, and JSON."""
    before = found(connection)
    in_script(connection, lambda: operations.keep_rows("stores", revision="003"))
    connection.exec_driver_sql("DELETE FROM files")
    connection.exec_driver_sql("DELETE FROM stores")
    in_script(connection, lambda: operations.return_rows("stores", revision="003"))

    assert before == found(connection)
    assert [] == kept(connection)
