"""Revision 001 on PostgreSQL, with the rows that its types admit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.pool import NullPool

from revision_001 import UNIFIED_COLUMNS, revision
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
            revision._create_legacy_vector_stores()
            revision._create_legacy_indexes()
            revision._create_legacy_stores()

    @contextmanager
    def run(self) -> Iterator[sa.Connection]:
        with (
            self.engine.begin() as connection,
            Operations.context(MigrationContext.configure(connection)),
        ):
            yield connection

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
    assert [row[:3] for row in first if row[0] != "h1"] == [
        ("h2", "project-conversations-002", None),
        ("h3", "project-conversations-001", None),
        ("h5", "project-commits-001", None),
        ("v1", None, "s1"),
        ("v2", None, "s2"),
        ("v3", None, "s3"),
    ]
    assert [(row[2], row[5]) for row in first if row[0] == "h1"] == [("s6", 1)]
    assert sorted(row[0] for row in server.all("SELECT landed FROM vecmigrate_preserved")) == [
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        1,
        1,
    ]
    server.downgrade()
    assert (sorted(SESSIONS), sorted(STORES)) == server.legacy()
    server.upgrade()
    assert first == server.unified()


def test_down_and_up(server: Server) -> None:
    """What the legacy tables can't hold waits, what they can't tell returns, and edits win."""
    server.upgrade()
    full = ("vx", None, "sx", "new", '{"a": 1}', 1, 1, 1, 2, 3, 4, "v0")
    rows = [full, ("vn", "named", None, "p", None, 0, 1, 1, None, 1, 0, None), ("vi", None, "si", "p", *[None] * 8)]
    rows[2] = (*rows[2][:5], 0, 0, 1, 5, 1, 0, None)
    server.execute(f"INSERT INTO vector_stores VALUES ({', '.join(['%s'] * 12)})", rows)
    server.execute("UPDATE vector_stores SET document_count = 50 WHERE vector_store_id = 'h2'")
    above = server.unified()
    server.downgrade()
    assert server.all("SELECT store_id, doc_count FROM stores WHERE doc_count > 9") == [("h2", 50)]
    server.upgrade()
    assert above == server.unified()


def test_a_recreated_stores_merges(server: Server) -> None:
    """``merge_stores`` brings the rows of a ``stores`` that is there again."""
    server.upgrade()
    server.execute(
        "CREATE TABLE stores (store_id text, store_type text, doc_count int, created_at text, is_active int)"
    )
    server.execute("INSERT INTO stores VALUES (%s, %s, %s, %s, %s)", [("h9", "commit", 1, "2025-06-10", 1)])
    with server.run() as connection:
        revision.merge_stores(connection)
    assert [row[:2] for row in server.unified() if row[0] == "h9"] == [("h9", "project-commits-002")]
    assert server.all("SELECT 1 FROM pg_tables WHERE tablename = 'stores'") == []


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
