"""Revision 001 on PostgreSQL, with the rows that its types admit."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.pool import NullPool

from revision_001 import UNIFIED_COLUMNS, revision
from vecmigrate.operations.v1 import notes
from vecmigrate.schema import tool_metadata

SESSIONS = [
    ("s1", "v1", "openai", 200, 0, 100, 150),
    ("s2", "v2", "hnsw", 200, None, 100, 150),
    ("s3", "v3", "openai", 200, 2, 100, 150),
    ("s4", "v3", "openai", 200, 0, 100, 999),
    ("s5", "v3", "openai", 200, 2, 100, 149),
    ("s6", "h1", "openai", 200, 1, 100, 150),
]
STORES = [
    ("h1", "conversation", 1, "2025-06-10T10:30:00Z", 0),
    ("h2", "conversation", 2, "2025-06-10 12:00:00+02:00", 0),
    ("h3", "conversation", 3, "2025-06-10T09:59:59.5", 1),
    ("h4", "commit", 4, "when?", 1),
    ("h5", "commit", 5, "2999-01-01", 0),
]


class Server:
    def __init__(self, url: sa.URL) -> None:
        self.engine = sa.create_engine(url, poolclass=NullPool)
        with self.run() as connection:
            tool_metadata.create_all(connection)
            revision.create_legacy()
            revision.create_legacy_indexes()
            revision.create_stores()

    @contextmanager
    def run(self) -> Iterator[sa.Connection]:
        with self.engine.begin() as connection:
            context = MigrationContext.configure(connection)
            with Operations.context(context):
                yield connection
            self.notes = context.opts.get(notes.NOTES, [])

    def upgrade(self) -> None:
        with self.run():
            revision.upgrade()

    def downgrade(self) -> None:
        with self.run():
            revision.downgrade()

    def execute(self, statement: str, rows: list[tuple[Any, ...]] | None = None) -> None:
        with self.engine.begin() as connection:
            for row in rows or [()]:
                connection.exec_driver_sql(statement, row)

    def all(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def legacy(self) -> tuple[Any, ...]:
        return self.all("SELECT * FROM vector_stores ORDER BY 1"), self.all("SELECT * FROM stores ORDER BY 1")

    def stores(self) -> list[tuple[Any, ...]]:
        return self.all("SELECT * FROM stores ORDER BY 1")

    def tables(self) -> list[tuple[Any, ...]]:
        return self.all("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")

    def unified(self) -> list[tuple[Any, ...]]:
        return self.all(f"SELECT {', '.join(UNIFIED_COLUMNS)} FROM vector_stores ORDER BY 1")


@pytest.fixture
def server(postgresql: sa.URL) -> Server:
    found = Server(postgresql)
    found.execute("INSERT INTO vector_stores VALUES (%s, %s, %s, %s, %s, %s, %s)", SESSIONS)
    found.execute("INSERT INTO stores VALUES (%s, %s, %s, %s, %s)", STORES)
    return found


def test_up_down_and_up(server: Server) -> None:
    """Odd rows are converted or set aside, times beyond 2038 land, all come back, and up again gives the same."""
    server.upgrade()
    first = server.unified()
    assert [(*row[:3], row[10]) for row in first] == [
        ("h1", None, "s6", 1),
        ("h2", "project-conversations-002", None, 2),
        ("h3", "project-conversations-001", None, 3),
        ("h5", "project-commits-001", None, 5),
        ("v1", None, "s1", 0),
        ("v2", None, "s2", 0),
        ("v3", None, "s3", 0),
    ]
    assert server.legacy()[1] == sorted(STORES)
    kept = server.all("SELECT target_key, landed FROM vecmigrate_preserved ORDER BY landed, target_key")
    assert kept == [(None, 0), (None, 0), ("h1", 1), ("v2", 1), ("v3", 1)]
    assert server.notes == [
        "Rows that stay in stores alone, because they can't be told as named stores: created_at: no clear time: 1"
    ]
    server.downgrade()
    assert (sorted(SESSIONS), sorted(STORES)) == (sorted(server.all("SELECT * FROM vector_stores")), server.stores())
    server.upgrade()
    assert first == server.unified()


def test_down_and_up(server: Server) -> None:
    """What the legacy tables can't hold waits, what they can't tell returns, and edits win."""
    server.upgrade()
    full = ("vx", None, "sx", "new", '{"a": 1}', 1, 1, 1, 2, 3, 4, "v0")
    rows = [full, ("vn", "named", None, "p", None, 0, 1, 1, None, 1, 0, None), ("vi", None, "si", "p", *[None] * 8)]
    rows[2] = (*rows[2][:5], 0, 0, 1, 5, 1, 0, None)
    server.execute(f"INSERT INTO vector_stores VALUES ({', '.join(['%s'] * 12)})", rows)
    server.execute("UPDATE vector_stores SET document_count = 50 WHERE vector_store_id IN ('h1', 'h2')")
    server.execute("DELETE FROM vector_stores WHERE vector_store_id = 'h5'")
    above = server.unified()
    for _ in range(2):
        server.downgrade()
        assert server.stores() == sorted(STORES)
        server.upgrade()
        assert above == server.unified()


def test_down_to_what_the_service_had_unified(postgresql: sa.URL) -> None:
    """A unified table stays one, without what came out of stores; where none was, none stays."""
    server = Server(postgresql)
    server.execute("DROP TABLE vector_stores")
    server.execute("DROP TABLE stores")
    before = server.tables()
    server.upgrade()
    server.downgrade()
    assert before == server.tables()
    with server.run():
        revision.create_found_unified()
    server.upgrade()
    server.execute("INSERT INTO stores VALUES (%s, %s, %s, %s, %s)", STORES[:3])
    own = ("v1", "named", None, "p", None, 0, 1, 1, None, 1, 0, None)
    server.execute(f"INSERT INTO vector_stores VALUES ({', '.join(['%s'] * 12)})", [own])
    above = server.unified()
    server.downgrade()
    assert server.unified() == [own]
    server.upgrade()
    assert above == server.unified()


TRIGGERED = [
    ("2025-06-10T10:30:00.9+00:00", "project-conversations-004", 1749551400),
    ("2025-06-10 12:30:00+02:00", "project-conversations-004", 1749551400),
    ("2025-06-10 10:30:00", "project-conversations-004", 1749551400),
    ("2025-06-10", "project-conversations-004", 1749513600),
    ("1749551400", "project-conversations-004", 1749551400),
    ("once", None, None),
    ("2025-02-30", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("created_at", "name", "seconds"), TRIGGERED)
def test_a_row_added_to_stores_becomes_a_named_store(
    server: Server, created_at: str, name: str | None, seconds: int | None
) -> None:
    """The trigger gives it the number that the service itself would give; without a clear time it stays alone."""
    server.upgrade()
    server.execute(
        "SET TIME ZONE 'Asia/Tokyo'; INSERT INTO stores VALUES ('h9', 'conversation', 7, '" + created_at + "', 0)"
    )
    expected = [] if name is None else [("h9", name, 1, 1, seconds, None, 7)]
    query = "SELECT vector_store_id, name, is_protected, is_active, created_at, expires_at, document_count"
    assert server.all(f"{query} FROM vector_stores WHERE vector_store_id = 'h9'") == expected
    server.execute("UPDATE stores SET doc_count = doc_count + 1")
    counts = server.all("SELECT document_count FROM vector_stores WHERE vector_store_id IN ('h2', 'h9') ORDER BY 1")
    assert counts == [(3,), *([(8,)] if name else [])]


def test_two_writers_at_once_get_two_names(server: Server) -> None:
    """Whoever commits later takes the next number."""
    server.upgrade()
    insert = sa.text("INSERT INTO stores VALUES (:id, 'conversation', 0, '2030-01-01', 0)")
    with server.engine.connect() as one, ThreadPoolExecutor(1) as pool:
        one.execute(insert, {"id": "a"})
        with server.engine.connect() as other:
            waiting = pool.submit(other.execute, insert, {"id": "b"})
            time.sleep(0.3)
            one.commit()
            waiting.result()
            other.commit()
    names = server.all("SELECT vector_store_id, name FROM vector_stores WHERE vector_store_id IN ('a', 'b') ORDER BY 1")
    assert names == [("a", "project-conversations-004"), ("b", "project-conversations-005")]


def test_a_failing_trigger_does_not_stop_the_service(server: Server) -> None:
    """Its register is stores: a row goes in whatever has become of vector_stores."""
    server.upgrade()
    server.execute("ALTER TABLE vector_stores RENAME TO elsewhere")
    server.execute("INSERT INTO stores VALUES ('h9', 'commit', 0, '2030-01-01', 0)")
    server.execute("UPDATE stores SET doc_count = 5 WHERE store_id = 'h9'")
    assert server.all("SELECT doc_count FROM stores WHERE store_id = 'h9'") == [(5,)]


def test_indexes_and_triggers_of_the_service_stay(server: Server) -> None:
    """What hangs on the table is made again on both ways."""
    server.execute("CREATE TABLE log (id text)")
    server.execute(
        "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (new.provider); "
        "RETURN NULL; END $$"
    )
    server.execute("CREATE TRIGGER seen AFTER INSERT ON vector_stores FOR EACH ROW EXECUTE FUNCTION seen()")
    server.execute("CREATE INDEX by_provider ON vector_stores (lower(provider)) WHERE provider <> ''")
    hanging = (
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'by_provider' UNION ALL SELECT pg_get_triggerdef(oid) "
        "FROM pg_trigger WHERE tgname = 'seen' AND tgrelid = 'vector_stores'::regclass"
    )
    before = server.all(hanging)
    for step in (server.upgrade, server.downgrade):
        step()
        assert before == server.all(hanging)
    assert server.all("SELECT * FROM log") == []


def test_many_odd_rows_go_page_by_page(server: Server) -> None:
    """More rows than one page land and come back."""
    server.execute("DELETE FROM vector_stores")
    server.execute(
        "INSERT INTO vector_stores SELECT 's' || n, 'v' || n / 2, 'p', n, CASE n %% 3 WHEN 1 THEN 1 END, n, n "
        "FROM generate_series(1, 5000) AS n"
    )
    before = server.legacy()
    server.upgrade()
    assert server.all("SELECT count(*) FROM vector_stores WHERE session_id IS NOT NULL") == [(2501,)]
    server.downgrade()
    assert before == server.legacy()
