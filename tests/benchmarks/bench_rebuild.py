"""rebuild_table and restore_table against the plain way: INSERT ... SELECT, drop and rename, in the same run.

Run it by itself: ``python tests/benchmarks/bench_rebuild.py [ROWS]``. It prints seconds and ratios.
"""

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent.parent))

from operations import down, up
from vecmigrate.engine import locate, writing
from vecmigrate.schema import tool_metadata

TABLE = (
    "CREATE TABLE stores (id TEXT PRIMARY KEY, name TEXT, provider TEXT NOT NULL, metadata TEXT, "
    "created_at INTEGER NOT NULL)"
)
NUMBERS = {"openai": 1, "pinecone": 2}
NAMES = {number: name for name, number in NUMBERS.items()}
DROP = {"table": "stores", "revision": "003", "key": "id", "drop": [sa.Column("metadata", sa.Text)]}
RETYPE: dict[str, Any] = {
    "table": "stores",
    "revision": "003",
    "key": "id",
    "change": {
        "provider": (sa.Column("provider", sa.Text, nullable=False), sa.Column("provider", sa.Integer, nullable=False))
    },
    "up": {"provider": lambda row: NUMBERS.get(row["provider"])},
    "down": {"provider": lambda row: NAMES.get(row["provider"])},
}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "drop a column that is empty": (DROP, 0),
    "drop a column, 1% of it kept": (DROP, 100),
    "drop a column, all of it kept": (DROP, 1),
    "retype a column, set by set": (RETYPE | {"plain": {"provider": "provider IN ('openai', 'pinecone')"}}, 0),
    "retype a column, row by row": (RETYPE, 0),
}


def filled(path: Path, rows: int, every: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(TABLE)
    values = (
        (f"{n * 7919 % rows:032x}", f"n{n}", "openai", "{}" if every and n % every == 0 else None, n)
        for n in range(rows)
    )
    connection.executemany("INSERT INTO stores VALUES (?, ?, ?, ?, ?)", values)
    connection.execute("CREATE INDEX on_created ON stores (created_at)")
    connection.commit()
    connection.close()


def plain(path: Path) -> None:
    """Do it the way of most migrations: copy into a new table, drop, rename, make the index again."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(TABLE.replace("TABLE stores", "TABLE new_stores").replace("metadata TEXT, ", ""))
    connection.execute("INSERT INTO new_stores SELECT id, name, provider, created_at FROM stores")
    connection.execute("DROP TABLE stores")
    connection.execute("ALTER TABLE new_stores RENAME TO stores")
    connection.execute("CREATE INDEX on_created ON stores (created_at)")
    connection.execute("COMMIT")
    connection.close()


def operation(path: Path, change: dict[str, Any], run: Callable[[sa.Connection, dict[str, Any]], None]) -> None:
    with writing(locate(path), lock_timeout=5) as connection:
        tool_metadata.create_all(connection)
        run(connection, change)


def timed(call: Callable[..., None], *arguments: Any) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "plain.sqlite3"
        filled(base, rows, 0)
        old_way = timed(plain, base)
        print(f"{rows} rows, the plain way: {old_way:.2f} s")  # noqa: T201 - a program of its own
        for name, (change, every) in CASES.items():
            path = Path(folder) / f"{name.replace(' ', '-')}.sqlite3"
            filled(path, rows, every)
            there, back = timed(operation, path, change, up), timed(operation, path, change, down)
            print(f"{name}: up {there / old_way:.2f}, down {back / old_way:.2f}")  # noqa: T201
            path.unlink()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
