"""Measure revision 001 on many rows against the old way, as ratios in one run.

The old way is what the replaced services did: ``INSERT ... SELECT`` in source order into a table with its
constraints and redundant indexes, then drop and rename, with default settings. Ours is a whole run with all its
safety, the backup too: up with plain rows, up with one odd row in a hundred, down, and down where the found table
refuses one row in a thousand, told against down without.

Run it by itself: ``python tests/benchmarks/bench_conversion.py [ROWS]``, a million by default, a tenth of them in
``stores``. Each measurement is a process of its own on a copy of the same file, taken in turn; told are medians, and
the peak of memory, also at a tenth of the rows. It exits with 1 when a goal is missed.
"""

import contextlib
import json
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 3
GOALS = {"up": 0.35, "up, 1% odd": 0.45, "down": 0.5}
MOST_TIMES_REFUSED = 2.0
MOST_GROWTH = 1.2

UNIFIED = """
    CREATE TABLE {name} (vector_store_id TEXT PRIMARY KEY, name TEXT UNIQUE, session_id TEXT UNIQUE,
        provider TEXT NOT NULL {check}, provider_metadata TEXT, is_protected INTEGER NOT NULL DEFAULT 0,
        is_active INTEGER NOT NULL DEFAULT 1, created_at INTEGER NOT NULL, expires_at INTEGER,
        updated_at INTEGER NOT NULL, document_count INTEGER DEFAULT 0, rollover_from TEXT,
        CHECK ((name IS NULL) <> (session_id IS NULL)))
"""
LEGACY = (
    (
        "CREATE TABLE vector_stores (session_id TEXT PRIMARY KEY, vector_store_id TEXT NOT NULL, "
        "provider TEXT NOT NULL, expires_at INTEGER NOT NULL, protected INTEGER DEFAULT 0, "
        "created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL)"
    ),
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
    "CREATE INDEX idx_vector_stores_expires ON vector_stores(expires_at)",
)
STORES = (
    (
        "CREATE TABLE stores (store_id TEXT PRIMARY KEY, store_type TEXT NOT NULL "
        "CHECK(store_type IN ('conversation','commit')), doc_count INTEGER NOT NULL DEFAULT 0, "
        "created_at TEXT NOT NULL, is_active INTEGER NOT NULL CHECK(is_active IN (0,1)))"
    ),
    "CREATE UNIQUE INDEX idx_active_store ON stores (store_type) WHERE is_active = 1",
)
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
# Ids in no order, as services and providers give them.
SESSIONS = f"""
    {NUMBERS} INSERT INTO vector_stores
    SELECT 'sess-' || lower(hex(randomblob(12))), 'vs_' || lower(hex(randomblob(12))), 'openai', 1753870000 + i,
        CASE WHEN i % 100 < {{odd}} THEN 'true' ELSE i % 5 = 0 END, 1753860000 + i, 1753865000 + i FROM n
"""
REGISTER = f"""
    {NUMBERS} INSERT INTO stores
    SELECT 'vs_' || lower(hex(randomblob(12))), CASE i % 3 WHEN 0 THEN 'commit' ELSE 'conversation' END, i % 100,
        strftime('%Y-%m-%dT%H:%M:%S', 1753870000 + (i * 7919) % 1000000, 'unixepoch') || '.123456+00:00', 0 FROM n
"""
FOUND_UNIFIED = f"""
    {NUMBERS} INSERT INTO vector_stores (vector_store_id, session_id, provider, created_at, expires_at, updated_at)
    SELECT 'vs_' || lower(hex(randomblob(12))), 'sess-' || lower(hex(randomblob(12))), 'openai', 1753860000 + i,
        1753870000 + i, 1753865000 + i FROM n
"""
OLD_WAY = (
    UNIFIED.format(name="unified", check=""),
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
        "SELECT store_id, 'project-' || store_type || 's-' || printf('%03d', row_number() OVER (PARTITION BY "
        "store_type ORDER BY created_at, store_id)), 'openai', 1, strftime('%s', created_at), "
        "strftime('%s', created_at), doc_count FROM stores"
    ),
    "DROP TABLE vector_stores",
    "ALTER TABLE unified RENAME TO vector_stores",
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
)


def filled(path: Path, *statements: str | tuple[str, tuple[int, ...]]) -> Path:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("BEGIN")
        for each in statements:
            connection.execute(*(each if isinstance(each, tuple) else (each,)))
        connection.execute("COMMIT")
    return path


def legacy_file(path: Path, rows: int, *, odd: int = 0) -> Path:
    sessions, register = rows - rows // 10, rows // 10
    fill = (SESSIONS.format(odd=odd), (sessions,)), (REGISTER, (register,))
    return filled(path, *LEGACY, *STORES, *fill)


def unified_file(path: Path, rows: int) -> Path:
    check = "CHECK(provider IN ('openai', 'inmemory', 'pinecone', 'hnsw'))"
    return filled(path, UNIFIED.format(name="vector_stores", check=check), (FOUND_UNIFIED, (rows,)))


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def old_way(path: str) -> float:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:

        def work() -> None:
            connection.execute("BEGIN")
            for statement in OLD_WAY:
                connection.execute(statement)
            connection.execute("COMMIT")

        return seconds_of(work)


def up(path: str) -> float:
    """Return the seconds of a whole run to 001 with all its safety, the backup too."""
    import vecmigrate  # noqa: PLC0415 - the old way does without

    return seconds_of(lambda: vecmigrate.upgrade(f"sqlite:///{path}", "1"))


def down(path: str, *edits: str) -> float:
    import vecmigrate  # noqa: PLC0415 - the same

    vecmigrate.upgrade(f"sqlite:///{path}", "1", backup="never")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in edits:
            connection.execute(statement)
    return seconds_of(lambda: vecmigrate.rollback(f"sqlite:///{path}", to_version="000"))


def down_refused(path: str) -> float:
    return down(path, "UPDATE vector_stores SET provider = 'chroma' WHERE rowid % 1000 = 0")


WORK = {"old way": old_way, "up": up, "down": down, "refused": down_refused}


def measure(name: str, source: Path) -> tuple[float, int]:
    """Return seconds and peak memory in KiB of a piece of work on a copy of a file, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        path = shutil.copy(source, folder)
        done = subprocess.run(
            [sys.executable, __file__, name, str(path)], check=True, stdout=subprocess.PIPE, text=True
        )
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def medians(files: dict[str, tuple[str, Path]], rounds: int) -> dict[str, tuple[float, int]]:
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, (work, source) in files.items():
            found[name].append(measure(work, source))
    return {
        name: (statistics.median(each[0] for each in values), max(each[1] for each in values))
        for name, values in found.items()
    }


def main(rows: int, rounds: int = ROUNDS) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, odd = legacy_file(folder / "plain.db", rows), legacy_file(folder / "odd.db", rows, odd=1)
        unified, few = unified_file(folder / "unified.db", rows), legacy_file(folder / "few.db", rows // 10)
        files = {"old way": ("old way", plain), "up": ("up", plain), "up, 1% odd": ("up", odd), "down": ("down", plain)}
        files |= {"down, unified": ("down", unified), "down, 0.1% refused": ("refused", unified)}
        found = medians(files, rounds)
        memory = found["up"][1] / measure("up", few)[1]
    times = {each: seconds / found["old way"][0] for each, (seconds, _) in found.items()}
    refused = found["down, 0.1% refused"][0] / found["down, unified"][0]
    print(f"{rows} rows")  # noqa: T201 - this is its output
    for each, (seconds, peak) in found.items():
        goal = f"  goal {GOALS[each]}" if each in GOALS else ""
        print(f"  {each:20} {seconds:7.2f} s  {times[each]:5.2f} of the old way  {peak / 1024:5.0f} MiB{goal}")  # noqa: T201
    print(f"  refused: {refused:.2f} times down without (at most {MOST_TIMES_REFUSED}); memory {memory:.2f} times")  # noqa: T201
    is_missed = any(times[each] > goal for each, goal in GOALS.items())
    return int(is_missed or refused > MOST_TIMES_REFUSED or memory > MOST_GROWTH)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WORK:
        taken = WORK[sys.argv[1]](sys.argv[2])
        print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))  # noqa: T201 - the answer
    else:
        raise SystemExit(main(int((sys.argv[1:] or ["1000000"])[0])))
