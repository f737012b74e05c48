"""The same revisions on a real PostgreSQL server."""

import json
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.pool import NullPool

import vecmigrate
from doors import run_cli
from ladder import NEXT, REVISIONS
from scripts import Scripts
from vecmigrate.errors import LockTimeoutError, WouldLoseRowsError

TABLES = {"embedding_models", "stores", "vector_store_chunks", "vector_store_embeddings", "vector_stores"}
SESSIONS = (
    "CREATE TABLE vector_stores (session_id TEXT PRIMARY KEY, vector_store_id TEXT NOT NULL, "
    "provider TEXT NOT NULL, expires_at BIGINT NOT NULL, protected INTEGER DEFAULT 0, "
    "created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)"
)
STORES = (
    "CREATE TABLE stores (store_id TEXT PRIMARY KEY, store_type TEXT NOT NULL, "
    "doc_count BIGINT NOT NULL DEFAULT 0, created_at TEXT NOT NULL, is_active INTEGER NOT NULL)"
)


def run(url: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def query(url: sa.URL, statement: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def tables(url: sa.URL) -> set[str]:
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return {name for name in sa.inspect(connection).get_table_names() if not name.startswith("vecmigrate_")}


def full(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def test_head_base_and_head_again(postgresql: sa.URL) -> None:
    """A fresh database goes up, all the way down, and up again, by plain Alembic's functions."""
    config = vecmigrate.alembic_config(postgresql)

    command.upgrade(config, "head")
    assert TABLES == tables(postgresql)
    command.check(config)
    command.downgrade(config, "base")
    assert set() == tables(postgresql)
    command.upgrade(config, "head")

    assert TABLES == tables(postgresql)
    command.check(config)
    assert "current" == vecmigrate.status(postgresql).state
    statuses = query(postgresql, "SELECT DISTINCT status, count(*) FROM vecmigrate_history GROUP BY 1")
    assert [("success", 3 * len(REVISIONS))] == statuses


def test_rows_go_through_001_both_ways(postgresql: sa.URL) -> None:
    """Legacy rows become unified ones, and come back as they were."""
    vecmigrate.upgrade(postgresql, "000")
    run(
        postgresql,
        SESSIONS,
        STORES,
        "INSERT INTO vector_stores SELECT 's-' || n, 'vs-' || n, 'openai', 2000 + n, mod(n, 2), 1000 + n, 1500 + n "
        "FROM generate_series(1, 50) AS n",
        "INSERT INTO stores SELECT 'h-' || lpad(n::text, 4, '0'), 'commit', n, '2025-06-10T10:30:00.000001+00:00', 0 "
        "FROM generate_series(1, 1002) AS n",
        "INSERT INTO stores VALUES ('h-last', 'conversation', 5, '2025-06-11T10:30:00Z', 1)",
    )
    sessions, stores = (query(postgresql, f"SELECT * FROM {name} ORDER BY 1") for name in ("vector_stores", "stores"))

    report = vecmigrate.upgrade(postgresql)

    assert (0, 0) == (report.converted, report.set_aside)
    assert [(1053,)] == query(postgresql, "SELECT count(*) FROM vector_stores")
    named = "SELECT name, document_count FROM vector_stores WHERE vector_store_id = "
    assert [("project-commits-1001", 1001)] == query(postgresql, f"{named}'h-1001'")
    assert [("project-conversations-001", 5)] == query(postgresql, f"{named}'h-last'")

    at_head = query(postgresql, "SELECT * FROM vector_stores ORDER BY 1")
    vecmigrate.rollback(postgresql, to_version="0")

    assert sessions == query(postgresql, "SELECT * FROM vector_stores ORDER BY 1")
    assert stores == query(postgresql, "SELECT * FROM stores ORDER BY 1")
    vecmigrate.upgrade(postgresql)
    assert at_head == query(postgresql, "SELECT * FROM vector_stores ORDER BY 1")


def test_base_with_rows_needs_a_word(postgresql: sa.URL) -> None:
    """Rows of tables that we made stop the way to base."""
    vecmigrate.upgrade(postgresql)
    run(postgresql, "INSERT INTO vector_store_chunks VALUES ('c', NULL, 'f', 1, 2, 'text')")

    with pytest.raises(WouldLoseRowsError, match=r"vector_store_chunks \(1 rows\)"):
        vecmigrate.rollback(postgresql, to_version="base")
    assert TABLES == tables(postgresql)
    vecmigrate.rollback(postgresql, to_version="base", allow_data_loss=True)

    assert set() == tables(postgresql)


def test_tables_of_the_service_are_untouched(postgresql: sa.URL) -> None:
    """The service's own tables are beside ours, and Alembic's check does not propose to drop them."""
    run(postgresql, "CREATE TABLE sessions (id TEXT PRIMARY KEY)", "INSERT INTO sessions VALUES ('a')")

    vecmigrate.upgrade(postgresql)
    command.check(vecmigrate.alembic_config(postgresql))
    vecmigrate.rollback(postgresql, to_version="base")

    assert [("a",)] == query(postgresql, "SELECT id FROM sessions")


BOOT = """
import json, sys, vecmigrate
print(json.dumps(vecmigrate.ensure_current(sys.argv[1], on_failure="raise").state))
"""


def test_of_four_processes_one_migrates(postgresql: sa.URL) -> None:
    """Four processes at once on one fresh database all succeed, and each revision is applied once."""
    started = [
        subprocess.Popen([sys.executable, "-c", BOOT, full(postgresql)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    states = [json.loads(process.communicate(timeout=120)[0]) for process in started]

    assert [0] * 4 == [process.returncode for process in started]
    assert 1 == states.count("migrated")
    assert set(states) <= {"migrated", "waited", "current"}
    applied = query(postgresql, "SELECT revision, status FROM vecmigrate_history ORDER BY id")
    assert [(revision, "success") for revision in REVISIONS] == applied


def test_a_lock_held_too_long_is_an_error(postgresql: sa.URL) -> None:
    """While another transaction holds the lock, a run gives up after lock_timeout, and changes nothing."""
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.begin() as holder:
        holder.exec_driver_sql(f"SELECT pg_advisory_xact_lock({0x7665636D})")
        with pytest.raises(LockTimeoutError):
            vecmigrate.upgrade(postgresql, lock_timeout=0.2)

    assert set() == tables(postgresql)


def test_a_failing_revision_leaves_the_old_state(postgresql: sa.URL, scripts: Scripts) -> None:
    """On a server too, a failure undoes the whole run and is recorded."""
    scripts.add('op.execute("CREATE TABLE half (x INTEGER)")\nraise RuntimeError("wrong")')

    with pytest.raises(vecmigrate.VecmigrateError, match=f"Revision {NEXT} failed"):
        vecmigrate.upgrade(postgresql)

    assert set() == tables(postgresql)
    recorded = query(postgresql, "SELECT revision, status FROM vecmigrate_history ORDER BY id")
    assert [*((revision, "skipped") for revision in REVISIONS), (NEXT, "failed")] == recorded


def test_002_waits_for_the_chunks(postgresql: sa.URL) -> None:
    """With chunks the new model is being built; without, it is active at once; down swaps back."""
    vecmigrate.upgrade(postgresql, "001")
    run(postgresql, "INSERT INTO vector_store_chunks VALUES ('c', NULL, 'f', 1, 2, 'text')")

    vecmigrate.upgrade(postgresql)
    states = query(postgresql, "SELECT dimensions, state FROM embedding_models ORDER BY 1")
    assert [(384, "active"), (768, "building")] == states
    vecmigrate.rollback(postgresql, to_version="001")

    assert [(384, "active")] == query(postgresql, "SELECT dimensions, state FROM embedding_models")


@pytest.mark.parametrize("table", ["vecmigrate_history", "vecmigrate_version", "vector_stores"])
@pytest.mark.parametrize(
    "words", [("status",), ("rollback", "--to-version", "0"), ("migrate", "--force")], ids=" ".join
)
def test_a_table_that_stays_locked_is_not_waited_for_for_ever(
    words: tuple[str, ...], table: str, postgresql: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lock it is that another session holds, lock_timeout ends the wait, and nothing is changed."""
    vecmigrate.upgrade(postgresql)
    monkeypatch.setenv("VECMIGRATE_LOCK_TIMEOUT", "0.3")
    with sa.create_engine(postgresql, poolclass=NullPool).begin() as other:
        other.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        result = run_cli("--database-url", full(postgresql), *words)

    assert (0 if (words, table) == (("status",), "vector_stores") else 4) == result.code, result.err
    assert "current" == vecmigrate.status(postgresql).state
