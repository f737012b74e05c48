"""Measure the change of an embedding model, as ratios.

Run it by itself: ``python tests/benchmarks/bench_reembed.py [CHUNKS]``, a million by default. Told are medians of
three, and what they are measured against; it exits with 1 when a goal is missed. The goals are those of a disk: where
TMPDIR is in memory, ``executemany`` has no commit to wait for.

- 002 and 003, and the whole run of both without a backup, with CHUNKS embeddings against ten thousand: at most 1.5
- ``reembed`` with an embedder that costs nothing against ``executemany`` of the same bytes, in the same batches and
  with the same commits: at most 2.5
- one worker with an embedder of 20 ms a batch against two: at least 1.8
- counting what is left against one pass over the key: at most 1.5
"""

import contextlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

import vecmigrate
from vecmigrate import settings
from vecmigrate.access import Access
from vecmigrate.embedding import models
from vecmigrate.embedding.reembed import reembed
from vecmigrate.engine import reading

ROUNDS = 3
FEW = 10_000
WRITTEN = 12_800
BATCH = 64
OLD = "sentence-transformers/all-MiniLM-L6-v2"
NEW = "Salesforce/SFR-Embedding-Code-400M_R"
CHUNKS = """
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
    INSERT INTO vector_store_chunks SELECT printf('chunk-%012d', i), 'vs', 'f.py', i, i + 9, printf('text %d', i) FROM n
"""
VECTORS = "INSERT INTO vector_store_embeddings SELECT ?, chunk_id, zeroblob(?) FROM vector_store_chunks"
ADD = "INSERT INTO vector_store_embeddings (model, chunk_id, vector) VALUES (?, ?, ?)"


def tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is its output


def url(path: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(path))


def access(path: Path) -> Access:
    return Access(settings.resolve({"database_url": url(path)}, {}))


def build(path: Path, chunks: int, *, old_bytes: int = 64) -> Path:
    """Make a database at 001 with chunks and a vector of the old model for each, short for the sake of the disk."""
    vecmigrate.upgrade(url(path), "001", backup="never")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("BEGIN")
        connection.execute(CHUNKS, (chunks,))
        connection.execute(VECTORS, (OLD, old_bytes))
        connection.execute("COMMIT")
    return path


def median(measure: Callable[[], float], rounds: int = ROUNDS) -> float:
    return statistics.median(measure() for _ in range(rounds))


def changing(path: Path) -> tuple[float, float]:
    """Return the seconds that the history tells of 002 and 003, and those of the whole run, and go back."""
    began = time.perf_counter()
    vecmigrate.upgrade(url(path), backup="never")
    whole_run = time.perf_counter() - began
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = "SELECT sum(duration_seconds) FROM (SELECT * FROM vecmigrate_history ORDER BY id DESC LIMIT 2)"
        seconds = float(connection.execute(query).fetchone()[0])
    vecmigrate.rollback(url(path), to_version="001", backup="never")
    return seconds, whole_run


def growth(many: Path, few: Path) -> float:
    """Return how much longer the change takes with many embeddings: its steps or the whole run, which is more."""
    of_many, of_few = ([changing(path) for _ in range(ROUNDS)] for path in (many, few))
    medians = [[statistics.median(each[at] for each in found) for found in (of_many, of_few)] for at in (0, 1)]
    return max(one / other for one, other in medians)


def free(texts: list[str]) -> list[bytes]:
    """Embed for next to nothing: bytes that are finite numbers, and differ."""
    return [int(text.removeprefix("text ")).to_bytes(4, "little") + b"\0\0\0?" * 767 for text in texts]


@contextlib.contextmanager
def copied(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        yield Path(shutil.copy(path, folder))


def bare(path: Path) -> float:
    """Return the seconds of ``executemany`` alone: the same bytes, batches and commits, and the chunks read."""
    with copied(path) as copy, contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        began = time.perf_counter()
        rows = connection.execute("SELECT chunk_id, content FROM vector_store_chunks ORDER BY chunk_id").fetchall()
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            vectors = free([text for _, text in batch])
            connection.execute("BEGIN IMMEDIATE")
            ready = [(NEW, chunk, vector) for (chunk, _), vector in zip(batch, vectors, strict=True)]
            connection.executemany(ADD, ready)
            connection.execute("COMMIT")
        return time.perf_counter() - began


def whole(path: Path) -> float:
    with copied(path) as copy:
        chosen = access(copy)
        began = time.perf_counter()
        assert reembed(chosen, free, batch_size=BATCH).swapped
        return time.perf_counter() - began


def slow(texts: list[str]) -> list[bytes]:
    time.sleep(0.02)
    return free(texts)


def working(path: str) -> None:
    """Be a worker: wait for the word to begin, and tell how long it took."""
    chosen = access(Path(path))
    chosen.revisions()
    tell("ready")
    sys.stdin.readline()
    reembed(chosen, slow, batch_size=BATCH)


def workers(path: Path, count: int) -> float:
    with copied(path) as copy:
        command = [sys.executable, __file__, "worker", str(copy)]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        for each in started:
            assert each.stdout is not None
            each.stdout.readline()
        began = time.perf_counter()
        for each in started:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in started:
            each.communicate()
        took = time.perf_counter() - began
        assert [0] * count == [each.returncode for each in started]
        return took


def counting(path: Path) -> tuple[float, float]:
    """Return the seconds of counting what is left, and of one pass over the key, each key read once in its order."""

    def count() -> float:
        with reading(access(path).database) as connection:
            began = time.perf_counter()
            models.missing(connection, NEW)
            return time.perf_counter() - began

    def one_pass() -> float:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            began = time.perf_counter()
            for _ in connection.execute("SELECT chunk_id FROM vector_store_chunks ORDER BY chunk_id"):
                pass
            return time.perf_counter() - began

    return median(count), median(one_pass)


def main(chunks: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, few = build(folder / "many.sqlite3", chunks), build(folder / "few.sqlite3", FEW)
        change = growth(many, few)
        vecmigrate.upgrade(url(many), backup="never")
        with contextlib.closing(sqlite3.connect(many)) as connection, connection:
            half = f"{VECTORS} WHERE rowid % 2"
            connection.execute(half, (NEW, 64))
        count, one_pass = counting(many)
        vecmigrate.upgrade(url(small := build(folder / "small.sqlite3", WRITTEN, old_bytes=1536)), backup="never")
        cost = median(lambda: whole(small)) / median(lambda: bare(small))
        share = median(lambda: workers(small, 1)) / median(lambda: workers(small, 2))
    tell(f"change of the model, {chunks:,} embeddings against {FEW:,}: {change:.2f} (at most 1.5)")
    tell(f"counting what is left of {chunks:,}: {count / one_pass:.2f} of one pass over the key (at most 1.5)")
    tell(f"reembed, {WRITTEN:,} chunks: {cost:.2f} times executemany (at most 2.5)")
    tell(f"two workers: {share:.2f} times as fast as one (at least 1.8)")
    return int(change > 1.5 or count / one_pass > 1.5 or cost > 2.5 or share < 1.8)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        working(sys.argv[2])
    else:
        raise SystemExit(main(int((sys.argv[1:] or ["1000000"])[0])))
