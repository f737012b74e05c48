"""Measure revision 001 on many clean rows, against a bare sorted ``INSERT ... SELECT`` with its indexes.

Run it by itself: ``python tests/benchmarks/bench_conversion.py [ROWS]``, a million by default. Each measurement
is a process of its own on a copy of the same file, taken alternately; told are medians, their ratio, and the
peak of memory, also at a tenth of the rows. It exits with 1 when a goal is missed.
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
from pathlib import Path

ROUNDS = 3
MOST_TIMES = 2.0
MOST_GROWTH = 1.2

LEGACY = (
    (
        "CREATE TABLE vector_stores (session_id TEXT PRIMARY KEY, vector_store_id TEXT NOT NULL, "
        "provider TEXT NOT NULL, expires_at INTEGER NOT NULL, protected INTEGER DEFAULT 0, "
        "created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL)"
    ),
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
    "CREATE INDEX idx_vector_stores_expires ON vector_stores(expires_at)",
)
# Ids in no order, as those that providers give.
ROWS = """
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
    INSERT INTO vector_stores
    SELECT printf('session-%08d', i), printf('vs_%08x%08x', (i * 2654435761) & 4294967295, i), 'openai',
        1753870000 + i, i % 5 = 0, 1753860000 + i, 1753865000 + i
    FROM n
"""
BARE = (
    (
        "CREATE TABLE new_vector_stores (vector_store_id TEXT NOT NULL PRIMARY KEY, name TEXT, session_id TEXT, "
        "provider TEXT NOT NULL, provider_metadata TEXT, is_protected INTEGER NOT NULL DEFAULT 0, "
        "is_active INTEGER NOT NULL DEFAULT 1, created_at INTEGER NOT NULL, expires_at INTEGER, "
        "updated_at INTEGER NOT NULL, document_count INTEGER DEFAULT 0, rollover_from TEXT, "
        "CHECK ((name IS NULL) <> (session_id IS NULL)))"
    ),
    (
        "INSERT INTO new_vector_stores (vector_store_id, session_id, provider, is_protected, created_at, expires_at, "
        "updated_at) SELECT vector_store_id, session_id, provider, protected, created_at, expires_at, updated_at "
        "FROM vector_stores ORDER BY vector_store_id"
    ),
    "DROP TABLE vector_stores",
    "ALTER TABLE new_vector_stores RENAME TO vector_stores",
    "CREATE UNIQUE INDEX uq_vector_stores_name ON vector_stores(name)",
    "CREATE UNIQUE INDEX uq_vector_stores_session_id ON vector_stores(session_id)",
    "CREATE INDEX idx_vector_stores_updated ON vector_stores(updated_at)",
    "CREATE INDEX idx_vs_expires_at ON vector_stores(expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX idx_vs_active_named ON vector_stores(name, is_active) WHERE name IS NOT NULL",
    "CREATE INDEX idx_vs_rollover ON vector_stores(rollover_from) WHERE rollover_from IS NOT NULL",
)


def build(path: Path, rows: int) -> Path:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("BEGIN")
        for statement in LEGACY:
            connection.execute(statement)
        connection.execute(ROWS, (rows,))
        connection.execute("COMMIT")
    return path


def bare(path: str) -> float:
    """Return the seconds of the statements alone, in one transaction, with the settings of a run."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = FAST")
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        for statement in BARE:
            connection.execute(statement)
        connection.execute("COMMIT")
        return time.perf_counter() - began


def revision(path: str) -> float:
    """Return the seconds that the history tells of revision 001, without lock, backup and records."""
    import vecmigrate  # noqa: PLC0415 - the bare process does without

    vecmigrate.upgrade(f"sqlite:///{path}", "1", backup="never")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = "SELECT duration_seconds FROM vecmigrate_history WHERE revision = '001'"
        return float(connection.execute(query).fetchone()[0])


def run(path: str) -> float:
    """Return the seconds of a whole run to 001 with all its safety, the backup too."""
    import vecmigrate  # noqa: PLC0415 - the same

    began = time.perf_counter()
    vecmigrate.upgrade(f"sqlite:///{path}", "1")
    return time.perf_counter() - began


WORK = {"bare": bare, "revision": revision, "run": run}


def measure(name: str, source: Path) -> tuple[float, int]:
    """Return seconds and peak memory in KiB of a piece of work on a copy of a file, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        path = shutil.copy(source, folder)
        done = subprocess.run(
            [sys.executable, __file__, name, str(path)], check=True, stdout=subprocess.PIPE, text=True
        )
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def medians(source: Path, rounds: int) -> dict[str, tuple[float, int]]:
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in WORK}
    for _ in range(rounds):
        for name in WORK:
            found[name].append(measure(name, source))
    return {
        name: (statistics.median(each[0] for each in values), max(each[1] for each in values))
        for name, values in found.items()
    }


def main(rows: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        many = medians(build(Path(folder) / "many.sqlite3", rows), ROUNDS)
        few = medians(build(Path(folder) / "few.sqlite3", rows // 10), 1)
    times = {name: seconds / many["bare"][0] for name, (seconds, _) in many.items()}
    growth = many["revision"][1] / few["revision"][1]
    print(f"{rows} rows")  # noqa: T201 - this is its output
    for name, (seconds, memory) in many.items():
        print(f"  {name:10} {seconds:8.2f} s  {times[name]:6.2f} times bare  {memory / 1024:7.0f} MiB")  # noqa: T201
    print(f"  revision: at most {MOST_TIMES} times bare; memory {growth:.2f} times that of a tenth (at most 1.2)")  # noqa: T201
    return int(times["revision"] > MOST_TIMES or growth > MOST_GROWTH)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WORK:
        taken = WORK[sys.argv[1]](sys.argv[2])
        print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))  # noqa: T201 - the answer
    else:
        raise SystemExit(main(int((sys.argv[1:] or ["1000000"])[0])))
