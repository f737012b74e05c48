"""A bare run of revision 001: its two functions, in the transaction and with the pragmas env.py gives them."""

import base64
import importlib.util
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from vecmigrate.operations.v1 import notes
from vecmigrate.schema import tool_metadata

ROOT = Path(__file__).parent.parent
EXAMPLES = int(os.environ.get("VECMIGRATE_EXAMPLES", "60"))

LEGACY = (
    "CREATE TABLE vector_stores (session_id TEXT PRIMARY KEY, vector_store_id TEXT NOT NULL, "
    "provider TEXT NOT NULL, expires_at INTEGER NOT NULL, protected INTEGER DEFAULT 0, "
    "created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL)"
)
STORES = (
    "CREATE TABLE stores (store_id TEXT PRIMARY KEY, store_type TEXT NOT NULL "
    "CHECK(store_type IN ('conversation','commit')), doc_count INTEGER NOT NULL DEFAULT 0, "
    "created_at TEXT NOT NULL, is_active INTEGER NOT NULL CHECK(is_active IN (0,1)))"
)
LEGACY_INDEXES = (
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
    "CREATE INDEX idx_vector_stores_expires ON vector_stores(expires_at)",
)
STORES_INDEX = "CREATE UNIQUE INDEX idx_active_store ON stores (store_type) WHERE is_active = 1"
STORES_VIEW = "CREATE VIEW active_stores AS SELECT store_id, store_type, doc_count FROM stores WHERE is_active = 1"
FOUND_UNIFIED = (
    'CREATE TABLE "vector_stores" (vector_store_id TEXT PRIMARY KEY, name TEXT UNIQUE, session_id TEXT UNIQUE, '
    "provider TEXT NOT NULL CHECK(provider IN ('openai', 'inmemory', 'pinecone', 'hnsw')), "
    "provider_metadata TEXT, is_protected INTEGER NOT NULL DEFAULT 0, is_active INTEGER NOT NULL DEFAULT 1, "
    "created_at INTEGER NOT NULL, expires_at INTEGER, updated_at INTEGER NOT NULL, "
    'document_count INTEGER DEFAULT 0, rollover_from TEXT REFERENCES "vector_stores"(vector_store_id), '
    "CHECK ((name IS NOT NULL AND session_id IS NULL) OR (name IS NULL AND session_id IS NOT NULL)))"
)
LOOSE_LEGACY = (
    "CREATE TABLE vector_stores (session_id, vector_store_id, provider, expires_at, protected, created_at, updated_at)"
)
LOOSE_UNIFIED = (
    "CREATE TABLE vector_stores (vector_store_id, name, session_id, provider, provider_metadata, is_protected, "
    "is_active, created_at, expires_at, updated_at, document_count, rollover_from)"
)
LOOSE_STORES = "CREATE TABLE stores (store_id, store_type, doc_count, created_at, is_active)"

LEGACY_COLUMNS = ["session_id", "vector_store_id", "provider", "expires_at", "protected", "created_at", "updated_at"]
UNIFIED_COLUMNS = [
    "vector_store_id",
    "name",
    "session_id",
    "provider",
    "provider_metadata",
    "is_protected",
    "is_active",
    "created_at",
    "expires_at",
    "updated_at",
    "document_count",
    "rollover_from",
]
STORES_COLUMNS = ["store_id", "store_type", "doc_count", "created_at", "is_active"]

Exact = tuple[str, bytes]


class Text(bytes):
    """Bytes that go into a database as text, whether they are UTF-8 or not."""

    def __repr__(self) -> str:
        return f"Text({super().__repr__()})"


def load_revision() -> ModuleType:
    path = ROOT / "alembic" / "versions" / "001_unified_vector_stores.py"
    spec = importlib.util.spec_from_file_location("revision_001_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


revision = load_revision()


class Database:
    """A database at 000 or 001; what ``adopt`` finds is what downgrade must give back."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self.engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.StaticPool)
        self.notes: list[str] = []
        self.elsewhere: dict[str, int] = {}
        sa.event.listen(self.engine, "connect", _on_connect)
        sa.event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with self.engine.begin() as connection:
            tool_metadata.create_all(connection)

    def close(self) -> None:
        self.engine.dispose()

    @property
    def raw(self) -> sqlite3.Connection:
        found = self.engine.raw_connection().driver_connection
        assert isinstance(found, sqlite3.Connection)
        return found

    def execute(self, *statements: str) -> None:
        for statement in statements:
            self.raw.execute(statement)

    def adopt(self) -> None:
        """Keep the SQL of what is there, as adoption does."""
        self.execute(
            "DELETE FROM vecmigrate_adopted",
            "INSERT INTO vecmigrate_adopted SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql NOT NULL "
            "AND type IN ('table', 'index', 'view') AND tbl_name IN ('vector_stores', 'stores', 'active_stores')",
        )

    def insert(self, table: str, columns: Sequence[str], *rows: Iterable[Any]) -> None:
        for row in map(list, rows):
            # Only of a literal does SQLite take the bytes as they are, whatever the encoding of the database.
            places = ", ".join(f"CAST(x'{value.hex()}' AS TEXT)" if isinstance(value, Text) else "?" for value in row)
            plain = [value for value in row if not isinstance(value, Text)]
            self.raw.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", plain)

    def upgrade(self) -> None:
        with self.run():
            revision.upgrade()

    def downgrade(self) -> None:
        with self.run():
            revision.downgrade()

    @contextmanager
    def run(self) -> Iterator[sa.Connection]:
        with self.engine.begin() as connection:
            context = MigrationContext.configure(connection)
            with Operations.context(context):
                yield connection
            self.notes = context.opts.get(notes.NOTES, [])
            self.elsewhere = context.opts.get(notes.ELSEWHERE, {})
            assert connection.connection.driver_connection.in_transaction  # type: ignore[union-attr]
            leftovers = connection.exec_driver_sql("SELECT name FROM sqlite_temp_master").all()
            assert leftovers == []

    def all(self, query: str) -> list[tuple[Any, ...]]:
        return self.raw.execute(query).fetchall()

    def exact(self, table: str) -> list[tuple[Exact, ...]]:
        """Return every row by value and storage class, sorted; nothing where there is no table."""
        columns = [row[1] for row in self.all(f"PRAGMA table_info({table})")]
        if not columns:
            return []
        cells = ", ".join(
            f"typeof({column}), CASE WHEN typeof({column}) = 'text' THEN CAST({column} AS BLOB) ELSE {column} END"
            for column in columns
        )
        return sorted(
            tuple((kind, repr(value).encode()) for kind, value in zip(row[::2], row[1::2], strict=True))
            for row in self.all(f"SELECT {cells} FROM {table}")
        )

    def sql(self) -> dict[str, str]:
        """Return the SQL of every object but those of the tool."""
        rows = self.all("SELECT type || ' ' || name, sql FROM sqlite_master WHERE name NOT LIKE '%vecmigrate%'")
        return dict(rows)

    def kept(self) -> list[tuple[str, str, int, str | None, str, dict[str, Any]]]:
        """Return direction, table, landed, key, reason and row of what is preserved."""
        rows = self.all(
            'SELECT direction, source_table, landed, target_key, reason, "row" FROM vecmigrate_preserved ORDER BY id'
        )
        return [(*row[:5], json.loads(row[5])) for row in rows]

    def rowids(self, table: str, key: str) -> dict[Any, int]:
        return dict(self.all(f"SELECT {key}, rowid FROM {table}"))

    def columns(self, table: str) -> set[str]:
        return {row[1] for row in self.all(f"PRAGMA table_info({table})")}


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA legacy_alter_table = ON")


def blob(data: bytes) -> str:
    return base64.b64encode(data).decode()
