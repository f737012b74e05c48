"""MCP The Force as it is released, up to 1.3.0, as far as its database sees it: the statements of its life.

It knows nothing of any migration. Two connections, as it has them: one for the table ``vector_stores``, one for its
history, which it keeps in ``stores``. Providers are left out: each store that it makes is there.
"""

import itertools
import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

CONVERSATION, COMMIT = "conversation", "commit"
TTL = 7200
MONTH = 30 * 24 * 60 * 60

_VECTOR_STORES = (
    (
        "CREATE TABLE IF NOT EXISTS vector_stores (vector_store_id TEXT PRIMARY KEY, name TEXT UNIQUE, "
        "session_id TEXT UNIQUE, provider TEXT NOT NULL CHECK(provider IN ('openai', 'inmemory', 'pinecone', 'hnsw')), "
        "provider_metadata TEXT, is_protected INTEGER NOT NULL DEFAULT 0, is_active INTEGER NOT NULL DEFAULT 1, "
        "created_at INTEGER NOT NULL, expires_at INTEGER, updated_at INTEGER NOT NULL, "
        "document_count INTEGER DEFAULT 0, rollover_from TEXT REFERENCES vector_stores(vector_store_id), "
        "CHECK ((name IS NOT NULL AND session_id IS NULL) OR (name IS NULL AND session_id IS NOT NULL)))"
    ),
    "CREATE INDEX IF NOT EXISTS idx_vector_stores_updated ON vector_stores(updated_at)",
    "CREATE INDEX IF NOT EXISTS idx_vs_session_id ON vector_stores(session_id)",
    "CREATE INDEX IF NOT EXISTS idx_vs_name ON vector_stores(name)",
    "CREATE INDEX IF NOT EXISTS idx_vs_expires_at ON vector_stores(expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS idx_vs_active_named ON vector_stores(name, is_active) WHERE name IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS idx_vs_rollover ON vector_stores(rollover_from) WHERE rollover_from IS NOT NULL",
)
_STORES = """
    PRAGMA journal_mode=WAL;
    PRAGMA synchronous=NORMAL;
    PRAGMA busy_timeout=5000;
    CREATE TABLE IF NOT EXISTS stores (
        store_id TEXT PRIMARY KEY,
        store_type TEXT NOT NULL CHECK(store_type IN ('conversation','commit')),
        doc_count INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL,
        is_active INTEGER NOT NULL CHECK(is_active IN (0,1))
    );
    CREATE UNIQUE INDEX IF NOT EXISTS idx_active_store ON stores (store_type) WHERE is_active = 1;
    CREATE TABLE IF NOT EXISTS history_meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE VIEW IF NOT EXISTS active_stores AS
      SELECT store_type, store_id, doc_count FROM stores WHERE is_active = 1;
"""
_REGISTER = (
    "INSERT OR REPLACE INTO vector_stores (vector_store_id, name, session_id, provider, provider_metadata, "
    "is_protected, is_active, created_at, expires_at, updated_at, document_count, rollover_from) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_BY_ID = (
    "SELECT vector_store_id, name, session_id, provider, provider_metadata, is_protected, is_active, created_at, "
    "expires_at, updated_at, document_count, rollover_from FROM vector_stores WHERE vector_store_id = ? "
    "AND is_active = 1"
)
_EXPIRED = (
    "SELECT vector_store_id, name, session_id, provider FROM vector_stores WHERE expires_at IS NOT NULL "
    "AND expires_at < ? AND is_protected = 0 AND is_active = 1 ORDER BY expires_at LIMIT 100"
)
_REUSABLE = (
    "SELECT vector_store_id FROM vector_stores WHERE session_id = ? AND is_active = 1 AND "
    "(expires_at IS NULL OR expires_at > ? OR is_protected = 1)"
)


class ReleasedService:
    """One process of the service on a database. Starting it raises sqlite3.Error where the tables do not suit it.

    ``mark`` is part of the ids of the stores it makes, so that two lives with one mark can be compared; ``rollover``
    is how many documents a store of the history takes.
    """

    def __init__(self, path: Path | str, *, mark: str, rollover: int = 3, provider: str = "openai") -> None:
        self.mark = mark
        self.rollover = rollover
        self.provider = provider
        self._numbers = itertools.count()
        self._cache = sqlite3.connect(path, detect_types=sqlite3.PARSE_DECLTYPES)
        self._history = sqlite3.connect(path, detect_types=sqlite3.PARSE_DECLTYPES)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        with self._cache as connection:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
                connection.execute(f"PRAGMA {pragma}")
            for statement in _VECTOR_STORES:
                connection.execute(statement)
        with self._history as connection:
            connection.executescript(_STORES)
            if connection.execute("SELECT COUNT(*) FROM history_meta").fetchone()[0] == 0:
                now = datetime.now(UTC).isoformat()
                values = [("created_at", now), ("last_gc", now)]
                connection.executemany("INSERT INTO history_meta(key, value) VALUES(?, ?)", values)

    def close(self) -> None:
        self._cache.close()
        self._history.close()

    def _new_id(self) -> str:
        return f"vs_{self.mark}_{next(self._numbers):04d}"

    # The history.

    def save_conversation(self) -> str:
        """Save one conversation, in a store that is made or rolled over to if need be; return the store."""
        active, count = self._active(CONVERSATION)
        store = active if active and count < self.rollover else self._next_conversation_store(active)
        self._count(CONVERSATION)
        return store

    def _next_conversation_store(self, active: str | None) -> str:
        store = self._new_id()
        number = self._stores_of(CONVERSATION) + 1 if active else 1
        self._register(store, name=f"project-conversations-{number:03d}", is_protected=True, rollover_from=active)
        with self._history as connection:
            if active:
                connection.execute("UPDATE stores SET is_active = 0 WHERE store_type = ?", (CONVERSATION,))
            connection.execute(
                "INSERT INTO stores (store_id, store_type, doc_count, created_at, is_active) "
                "VALUES (?, ?, 0, datetime('now'), 1)",
                (store, CONVERSATION),
            )
        return store

    def save_commit(self) -> str:
        """Save one commit; such a store is made known in ``stores`` alone."""
        active, count = self._active(COMMIT)
        store = active if active and count < self.rollover else self._next_commit_store(active)
        self._count(COMMIT)
        return store

    def _next_commit_store(self, active: str | None) -> str:
        # Its number is only part of the name that the provider gets.
        self._stores_of(COMMIT)
        store = self._new_id()
        with self._history as connection:
            if active:
                connection.execute("UPDATE stores SET is_active = 0 WHERE store_type = ? AND is_active = 1", (COMMIT,))
            connection.execute(
                "INSERT INTO stores(store_id, store_type, doc_count, created_at, is_active) VALUES(?, ?, 0, ?, 1)",
                (store, COMMIT, datetime.now(UTC).isoformat()),
            )
        return store

    def _active(self, kind: str) -> tuple[str | None, int]:
        query = "SELECT store_id, doc_count FROM stores WHERE store_type = ? AND is_active = 1"
        row = self._history.execute(query, (kind,)).fetchone()
        return row or (None, 0)

    def _stores_of(self, kind: str) -> int:
        query = "SELECT COUNT(*) FROM stores WHERE store_type = ?"
        return int(self._history.execute(query, (kind,)).fetchone()[0])

    def _count(self, kind: str) -> None:
        with self._history as connection:
            connection.execute(
                "UPDATE stores SET doc_count = doc_count + 1 WHERE store_type = ? AND is_active = 1", (kind,)
            )

    def search(self, *kinds: str) -> set[tuple[str, str]]:
        """Return (type, store) of the history that a search reaches: what ``vector_stores`` tells and may be searched.

        Raises as the service does where the metadata of a store are no JSON.
        """
        kinds = kinds or (CONVERSATION, COMMIT)
        marks = ",".join("?" * len(kinds))
        query = f"SELECT store_type, store_id FROM stores WHERE store_type IN ({marks})"
        return {(kind, store) for kind, store in self._history.execute(query, kinds).fetchall() if self._found(store)}

    def _found(self, store: str) -> bool:
        with self._cache as connection:
            row = connection.execute(_BY_ID, (store,)).fetchone()
        if row and row[4]:
            json.loads(row[4])
        return row is not None

    # Sessions.

    def open_session(self, session: str, *, ttl: int | None = None, protected: bool = False) -> str:
        """Return the store of a session: the one it has, whose lease is renewed, or a new one."""
        now = int(time.time())
        with self._cache as connection:
            rows = connection.execute(_REUSABLE, (session, now)).fetchall()
        if rows:
            self.renew(session)
            return str(rows[0][0])
        store = self._new_id()
        self._register(store, session=session, ttl=ttl, is_protected=protected)
        return store

    def renew(self, session: str) -> bool:
        now = int(time.time())
        with self._cache as connection:
            connection.execute(
                "UPDATE vector_stores SET expires_at = ?, updated_at = ? WHERE session_id = ?",
                (now + TTL, now, session),
            )
        return self._has_changed()

    def _has_changed(self) -> bool:
        with self._cache as connection:
            return bool(connection.execute("SELECT changes() AS count").fetchone()[0])

    def _register(
        self,
        store: str,
        *,
        name: str | None = None,
        session: str | None = None,
        ttl: int | None = None,
        is_protected: bool = False,
        rollover_from: str | None = None,
    ) -> None:
        now = int(time.time())
        expires = now + (TTL if ttl is None else ttl) if session else None
        times = (int(is_protected), 1, now, expires, now, 0, rollover_from)
        with self._cache as connection:
            connection.execute(_REGISTER, (store, name, session, self.provider, None, *times))

    def deactivate(self, store: str) -> bool:
        with self._cache as connection:
            connection.execute(
                "UPDATE vector_stores SET is_active = 0, updated_at = ? WHERE vector_store_id = ?",
                (int(time.time()), store),
            )
        return self._has_changed()

    # Cleaning.

    def clean(self) -> int:
        """Remove what has expired, and if there was any, whatever is older than a month; return how many expired.

        A row of a provider that the service does not know stops it, each time.
        """
        now = int(time.time())
        with self._cache as connection:
            expired = connection.execute(_EXPIRED, (now,)).fetchall()
        if not expired:
            return 0
        for store, _, _, provider in expired:
            if provider not in {"openai", "inmemory", "pinecone", "hnsw"}:
                raise LookupError(provider)
            with self._cache as connection:
                connection.execute("DELETE FROM vector_stores WHERE vector_store_id = ?", (store,))
        with self._cache as connection:
            connection.execute("DELETE FROM vector_stores WHERE created_at < ?", (now - MONTH,))
        return len(expired)

    def purge(self) -> None:
        """Do what it does after two in a hundred registrations: forget what was not touched for two hours."""
        with self._cache as connection:
            connection.execute("DELETE FROM vector_stores WHERE updated_at < ?", (int(time.time()) - TTL,))


def live(path: Path | str, *, mark: str) -> set[tuple[str, str]]:
    """Start the service, let it work through a day, end it, and return what its last search found."""
    with closing(ReleasedService(path, mark=mark)) as service:
        for number in range(8):
            service.save_conversation()
            service.save_commit()
            service.open_session(f"{mark}-{number}", ttl=-10 if number % 3 == 0 else None, protected=number == 7)
        service.open_session(f"{mark}-1")
        service.renew(f"{mark}-2")
        service.clean()
        return service.search()
