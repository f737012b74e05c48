"""The triggers of revision 001 on PostgreSQL, where several services may write at once."""

import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import vecmigrate

ADD = sa.text("INSERT INTO stores VALUES (:store, :kind, :count, :at, 0)")
NOW = "2026-01-31T10:30:00+00:00"


@pytest.fixture
def engine(postgresql: sa.URL) -> sa.Engine:
    """Return an engine of a migrated database."""
    vecmigrate.upgrade(postgresql)
    return sa.create_engine(postgresql, poolclass=NullPool)


def add(connection: sa.Connection, store: str, *, kind: str = "commit", count: int = 0, at: str = NOW) -> None:
    connection.execute(ADD, {"store": store, "kind": kind, "count": count, "at": at})


def told(engine: sa.Engine, columns: str = "vector_store_id, name") -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text(f"SELECT {columns} FROM vector_stores ORDER BY vector_store_id")).all()
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    "at", ["2026-01-31 10:30:00", NOW, "2026-01-31T10:30:00.123456+00:00", "2026-01-31T11:30:00+01:00"]
)
def test_a_store_that_is_registered_is_a_named_one(at: str, engine: sa.Engine) -> None:
    """It has the name that the service itself would give, its time in whatever zone the session is, and its count."""
    with engine.begin() as connection:
        connection.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
        add(connection, "vs_a", count=7, at=at)

    columns = "vector_store_id, name, provider, is_protected, is_active, created_at, expires_at, document_count"
    assert [("vs_a", "project-commits-001", "openai", 1, 1, 1769855400, None, 7)] == told(engine, columns)


def test_each_type_counts_for_itself_and_names_taken_are_passed_over(engine: sa.Engine) -> None:
    """The number in the name is that of the store, where it is free."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO vector_stores (vector_store_id, name, provider, created_at, updated_at) "
                "VALUES ('vs_theirs', 'project-commits-002', 'hnsw', 1, 1)"
            )
        )
        for number in range(1, 4):
            add(connection, f"vs_t{number}")
            add(connection, f"vs_v{number}", kind="conversation")

    names = {str(row[0]): str(row[1]) for row in told(engine)}
    assert "project-commits-002" == names["vs_theirs"]
    assert "project-commits-001" == names["vs_t1"]
    assert [f"project-conversations-00{each}" for each in (1, 2, 3)] == [names[f"vs_v{each}"] for each in (1, 2, 3)]
    assert 7 == len(set(names.values()))


def test_documents_are_counted_in_both(engine: sa.Engine) -> None:
    """A count that changes in the register is carried over, and so is that of a store which the service told itself."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO vector_stores (vector_store_id, name, provider, created_at, updated_at) "
                "VALUES ('vs_b', 'theirs', 'hnsw', 1, 1)"
            )
        )
        add(connection, "vs_a")
        add(connection, "vs_b", count=3)
        connection.execute(sa.text("UPDATE stores SET doc_count = doc_count + 1"))

    assert [("vs_a", 1, "openai"), ("vs_b", 4, "hnsw")] == told(engine, "vector_store_id, document_count, provider")


@pytest.mark.parametrize("at", ["soon", "", "2026-02-30T00:00:00+00:00", "9999999999999999", "infinity", "now"])
def test_a_time_that_is_none_stops_no_insert(at: str, engine: sa.Engine) -> None:
    """The register takes the store, and the next one of its transaction is told."""
    with engine.begin() as connection:
        add(connection, "vs_a", at=at)
        add(connection, "vs_b")
        assert 2 == connection.scalar(sa.text("SELECT count(*) FROM stores"))

    assert "vs_b" in {row[0] for row in told(engine)}


@pytest.mark.parametrize(
    "obstacle",
    [
        "ALTER TABLE vector_stores ADD CONSTRAINT theirs CHECK (provider <> 'openai')",
        "ALTER TABLE vector_stores RENAME TO elsewhere",
        (
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
            "CREATE TRIGGER theirs BEFORE INSERT OR UPDATE ON vector_stores FOR EACH ROW EXECUTE FUNCTION no()"
        ),
    ],
    ids=["a constraint", "no table", "a trigger"],
)
def test_what_keeps_us_from_telling_a_store_stops_no_insert(obstacle: str, engine: sa.Engine) -> None:
    """Whatever fails in the trigger, the service's own statement and its transaction go on."""
    with engine.begin() as connection:
        connection.exec_driver_sql(obstacle)
    with engine.begin() as connection:
        add(connection, "vs_a")
        connection.execute(sa.text("UPDATE stores SET doc_count = 5"))

    with engine.connect() as connection:
        (row,) = connection.execute(sa.text("SELECT store_id, doc_count FROM stores"))
    assert ("vs_a", 5) == tuple(row)


def test_writers_at_once_get_names_of_their_own(engine: sa.Engine) -> None:
    """Four services register stores at the same time: each is told once, under a name that no other has."""
    start = threading.Barrier(4)

    def register(writer: int) -> None:
        start.wait()
        for number in range(10):
            with engine.begin() as connection:
                add(connection, f"vs_{writer}_{number}")

    writers = [threading.Thread(target=register, args=(each,)) for each in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    found = told(engine)
    assert 40 == len(found) == len({name for _, name in found})
    assert {f"vs_{writer}_{number}" for writer in range(4) for number in range(10)} == {store for store, _ in found}
