"""The databases that the old services leave: with rows, and with their own tables, index and trigger around ours."""

import contextlib
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

__all__ = [
    "EPOCH",
    "LEGACY_SQL",
    "OLD_SCRIPT_SQL",
    "OUR_TABLES",
    "OUR_VIEW",
    "RELEASED_SQL",
    "SERVICE_TABLES",
    "SHAPES",
    "SOURCE_ROWS",
    "STORES_SQL",
    "build",
]

SHAPES = ("early", "legacy", "released", "old-script")
"""Only ``stores``; both tables of the first versions; what every released version leaves; what its own script left."""
EPOCH = 1753870000
"""The earliest time in the rows, in Unix seconds."""

SERVICE_TABLES = frozenset(
    {"sessions", "unified_sessions", "memory_meta", "sent_files", "touched", "schema_version"},
)
OUR_TABLES = frozenset(
    {"vector_stores", "stores", "vector_store_chunks", "embedding_models", "vector_store_embeddings"},
)
OUR_VIEW = "active_stores"

_FIRST_ACTIVE = 4
"""Of the rows of ``stores``, one of each type is written to now."""

_SERVICE_SQL = (
    "CREATE TABLE sessions(session_id TEXT PRIMARY KEY, response_id TEXT NOT NULL, updated_at INTEGER NOT NULL)",
    "CREATE INDEX idx_sessions_updated ON sessions(updated_at)",
    (
        "CREATE TABLE unified_sessions(project TEXT NOT NULL, tool TEXT NOT NULL, session_id TEXT NOT NULL, "
        "history TEXT, updated_at INTEGER, PRIMARY KEY(project, tool, session_id))"
    ),
    "CREATE TABLE memory_meta(key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE sent_files(session_id TEXT, file_path TEXT, size REAL, PRIMARY KEY(session_id, file_path))",
    "CREATE TABLE touched(n INTEGER)",
    "CREATE TRIGGER trg_sessions AFTER INSERT ON sessions BEGIN INSERT INTO touched VALUES(new.updated_at); END",
)
STORES_SQL = (
    (
        "CREATE TABLE stores (store_id TEXT PRIMARY KEY, "
        "store_type TEXT NOT NULL CHECK(store_type IN ('conversation','commit')), "
        "doc_count INTEGER NOT NULL DEFAULT 0, created_at TEXT NOT NULL, "
        "is_active INTEGER NOT NULL CHECK(is_active IN (0,1)))"
    ),
    "CREATE UNIQUE INDEX idx_active_store ON stores (store_type) WHERE is_active = 1",
    "CREATE VIEW active_stores AS SELECT store_id, store_type, doc_count FROM stores WHERE is_active = 1",
)
LEGACY_SQL = (
    (
        "CREATE TABLE vector_stores (session_id TEXT PRIMARY KEY, vector_store_id TEXT NOT NULL, "
        "provider TEXT NOT NULL, expires_at INTEGER NOT NULL, protected INTEGER DEFAULT 0, "
        "created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL)"
    ),
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
    "CREATE INDEX idx_vector_stores_expires ON vector_stores(expires_at)",
)
_UNIFIED_TABLE = (
    "CREATE TABLE {name} (vector_store_id TEXT PRIMARY KEY, name TEXT UNIQUE, session_id TEXT UNIQUE, "
    "provider TEXT NOT NULL CHECK(provider IN ('openai', 'inmemory', 'pinecone', 'hnsw')), "
    "provider_metadata TEXT, is_protected INTEGER NOT NULL DEFAULT 0, is_active INTEGER NOT NULL DEFAULT 1, "
    "created_at INTEGER NOT NULL, expires_at INTEGER, updated_at INTEGER NOT NULL, "
    "document_count INTEGER DEFAULT 0, rollover_from TEXT REFERENCES {name}(vector_store_id), "
    "CHECK ((name IS NOT NULL AND session_id IS NULL) OR (name IS NULL AND session_id IS NOT NULL)))"
)
_UNIFIED_INDEXES = (
    "CREATE INDEX idx_vs_session_id ON vector_stores(session_id)",
    "CREATE INDEX idx_vs_name ON vector_stores(name)",
    "CREATE INDEX idx_vs_expires_at ON vector_stores(expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX idx_vs_active_named ON vector_stores(name, is_active) WHERE name IS NOT NULL",
    "CREATE INDEX idx_vs_rollover ON vector_stores(rollover_from) WHERE rollover_from IS NOT NULL",
)
RELEASED_SQL = (
    _UNIFIED_TABLE.format(name="vector_stores"),
    *_UNIFIED_INDEXES,
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
)
OLD_SCRIPT_SQL = (_UNIFIED_TABLE.format(name='"vector_stores"'), *_UNIFIED_INDEXES)
_SCHEMA_VERSION_SQL = ("CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)",)


def build(path: Path, shape: str) -> Path:
    """Make the database of a shape as a new file, in WAL mode, and return its path."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("BEGIN")
        _run(connection, _SERVICE_SQL)
        _add_service_rows(connection)
        _ADDERS[shape](connection)
        connection.execute("COMMIT")
    return path


def _run(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(statement)


def _add_service_rows(connection: sqlite3.Connection) -> None:
    for n in range(50):
        connection.execute("INSERT INTO sessions VALUES (?, ?, ?)", (f"s-{n}", f"resp_{n}", EPOCH + n))
        history = f'[{{"role": "user", "content": "h\\u00e9 {n}"}}]'
        connection.execute(
            "INSERT INTO unified_sessions VALUES ('p', 'tool', ?, ?, ?)",
            (f"s-{n}", history, EPOCH + n),
        )
        session = f"s-{n}" if n % 7 else None
        connection.execute("INSERT INTO sent_files VALUES (?, ?, ?)", (session, f"/src/{n}.py", n * 1.5))
    connection.execute("INSERT INTO memory_meta VALUES ('schema', '1')")


def _add_stores(connection: sqlite3.Connection) -> None:
    _run(connection, STORES_SQL)
    for n in range(6):
        created = datetime(2025, 6, 10 + n, 10, 30, microsecond=n if n % 3 else 0, tzinfo=UTC)
        kind = "conversation" if n % 2 else "commit"
        row = (f"vs_hist_{n:03d}", kind, n * 100, created.isoformat(), int(n >= _FIRST_ACTIVE))
        connection.execute("INSERT INTO stores VALUES (?, ?, ?, ?, ?)", row)


def _add_legacy(connection: sqlite3.Connection) -> None:
    _run(connection, LEGACY_SQL)
    for n in range(150):
        provider = ("openai", "hnsw", "inmemory", "pinecone")[n % 4]
        times = (EPOCH + 7200 + n, int(n % 5 == 0), EPOCH + n, EPOCH + 2 * n)
        row = (f"session-{n:05d}", f"vs_{n:05d}", provider, *times)
        connection.execute("INSERT INTO vector_stores VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    _add_stores(connection)


def _add_unified_rows(connection: sqlite3.Connection) -> None:
    for n in range(150):
        is_named = n % 10 == 0
        row = (
            f"vs_u{n:05d}",
            f"project-conversations-{n // 10 + 1:03d}" if is_named else None,
            None if is_named else f"usession-{n:05d}",
            "hnsw" if n % 2 else "openai",
            f'{{"region": "eu", "n": {n}}}' if n % 3 == 0 else None,
            int(is_named),
            int(n % 11 != 0),
            EPOCH + n,
            None if is_named else EPOCH + 9000 + n,
            EPOCH + 3 * n,
            n if is_named else 0,
            f"vs_u{n - 10:05d}" if is_named and n else None,
        )
        connection.execute(f"INSERT INTO vector_stores VALUES ({', '.join('?' * len(row))})", row)


def _add_released(connection: sqlite3.Connection) -> None:
    _run(connection, RELEASED_SQL)
    _add_unified_rows(connection)
    _add_stores(connection)


def _add_old_script(connection: sqlite3.Connection) -> None:
    _run(connection, OLD_SCRIPT_SQL)
    _add_unified_rows(connection)
    _add_stores(connection)
    _run(connection, _SCHEMA_VERSION_SQL)
    connection.execute("INSERT INTO schema_version VALUES (1, ?)", (EPOCH,))


_ADDERS = {"early": _add_stores, "legacy": _add_legacy, "released": _add_released, "old-script": _add_old_script}

SOURCE_ROWS = {"early": 6, "legacy": 156, "released": 156, "old-script": 156}
"""How many rows of ``vector_stores`` and ``stores`` each shape holds."""
