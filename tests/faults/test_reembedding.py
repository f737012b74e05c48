"""Re-embedding that is killed, starved, locked out and overtaken: every vector is of its text, and it goes on."""

import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import embedding
import legacy
import vecmigrate
from embedding import NEW, NOT_SWAPPED, OLD, STATES, SWAPPED, access, embed, untrue, vectors
from faults import harness
from faults.harness import ROUNDS, Child, die_at, limited, small_disk, start, tried
from vecmigrate.embedding import claims
from vecmigrate.embedding.reembed import reembed

SIGKILL = -9
CHUNKS = 500 * ROUNDS
"""A hundred thousand at the 200 rounds that the page is written with."""
KIND = "Re-embedding"


def work(database: str, lease: float = 1.0, pause: float = 0.0, batch: int = 3) -> None:
    """Be a worker with a short lease, and an embedder that takes its time."""
    claims.SHORTEST = lease

    def embedder(texts: list[str]) -> list[list[float]]:
        print("embedding", flush=True)  # noqa: T201 - the test waits for it
        time.sleep(pause)
        return embed(texts)

    reembed(access(Path(database)), embedder, batch_size=batch)


def command(database: str, folder: str, *words: str, lease: float = 1.0) -> None:
    """Be the command, with an embedder from a folder."""
    claims.SHORTEST = lease
    os.chdir(folder)
    sys.path.insert(0, folder)
    harness.run_cli("--db-path", database, "reembed", "--embedder", "its_embedder:embed", "--batch-size", "5", *words)


def embedder_file(folder: Path, pause: float) -> None:
    """Write a module that tells when it is called, and takes so many seconds."""
    lines = ["import time", "import embedding", "def embed(texts):", "    print('embedding', flush=True)"]
    lines += [f"    time.sleep({pause})", "    return embedding.embed(texts)"]
    (folder / "its_embedder.py").write_text("\n".join(lines), encoding="utf-8")


def finish(database: Path) -> None:
    """Go on, and require that nothing is missing, nothing untrue, and the models have swapped."""
    reembed(access(database), embed)
    assert [("ok",)] == legacy.query(database, "PRAGMA integrity_check")
    assert [] == untrue(database)
    assert [(0,)] == legacy.query(
        database,
        "SELECT count(*) FROM vector_store_chunks WHERE chunk_id NOT IN "
        f"(SELECT chunk_id FROM vector_store_embeddings WHERE model = '{NEW}')",
    )
    assert SWAPPED == embedding.query(database, STATES)
    assert [] == legacy.query(database, "SELECT * FROM vecmigrate_claims")


def chosen(steps: int, rounds: int) -> list[int]:
    if rounds * 2 >= steps:
        return list(range(1, steps + 1))
    return sorted({1 + round(n * (steps - 1) / max(1, rounds - 1)) for n in range(rounds)})


def test_a_kill_at_any_step_of_a_batch_and_of_the_swap(mode: str, tmp_path: Path) -> None:
    """Whatever the step: vectors are true, at most one batch is embedded twice, and the next call ends it."""
    template = embedding.build(tmp_path / "template.sqlite3", 8, mode=mode)
    noted = tmp_path / "steps"

    def run(step: int, folder: Path) -> tuple[Path, Child]:
        folder.mkdir()
        with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(folder / "s.sqlite3")) as target:
            source.backup(target)
        legacy.execute(folder / "s.sqlite3", f"PRAGMA journal_mode = {mode}")
        return folder / "s.sqlite3", start(die_at, step, str(folder), str(noted), work, str(folder / "s.sqlite3"))

    _, child = run(0, tmp_path / "count")
    assert 0 == child.wait(), child.output
    steps = noted.read_text(encoding="utf-8").split("\n")
    picked = chosen(len(steps), ROUNDS * 2)
    for step in picked:
        database, child = run(step, tmp_path / f"{step:04d}")
        assert SIGKILL == child.wait(), child.output
        assert [] == untrue(database)
        states = embedding.query(database, STATES)
        assert states in (NOT_SWAPPED, SWAPPED)
        assert states == NOT_SWAPPED or vectors(database) == 8
        before = vectors(database)
        finish(database)
        assert before in {0, 3, 6, 8}
        outcome = "swapped" if states == SWAPPED else f"{before} of 8 vectors kept"
        tried(KIND, f"SIGKILL at {len(picked)} of the {len(steps)} steps of a re-embedding, {mode}", outcome)
        shutil.rmtree(database.parent)


def change(database: str) -> None:
    """Add, change, replace and delete chunks until the models have swapped."""
    dice = random.Random(0)  # noqa: S311 - it must be the same each time
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        for number in range(10**9):
            if vecmigrate.active_model(connection) == NEW:
                return
            chosen_chunk = f"c{dice.randrange(CHUNKS):07d}"
            text = f"changed {number}"
            if number % 4 == 0:
                connection.execute(
                    "UPDATE vector_store_chunks SET content = ? WHERE chunk_id = ?", (text, chosen_chunk)
                )
            elif number % 4 == 1:
                row = (chosen_chunk, "f.py", text)
                connection.execute("INSERT OR REPLACE INTO vector_store_chunks VALUES (?, 'vs', ?, 1, 9, ?)", row)
            elif number % 4 == 2:
                row = (f"new-{number}", "f.py", text)
                connection.execute("INSERT INTO vector_store_chunks VALUES (?, 'vs', ?, 1, 9, ?)", row)
            else:
                connection.execute("DELETE FROM vector_store_chunks WHERE chunk_id = ?", (f"new-{number - 1 - 8}",))
            # By fits and starts, as people work; a chunk that changes while the last one is embedded holds up the swap.
            time.sleep(2 if number % 40 == 39 else 0.02)


def search(database: str) -> None:
    """Search until the models have swapped: every search gets vectors of one model, and of it all that there are."""
    sizes = {OLD: 384 * 4, NEW: 768 * 4}
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        for number in range(10**9):
            connection.execute("BEGIN")
            model = vecmigrate.active_model(connection)
            query = "SELECT length(vector) FROM vector_store_embeddings WHERE model = ? LIMIT 1000 OFFSET ?"
            found = {size for (size,) in connection.execute(query, (model, number % 7))}
            missing = 0
            if model == NEW:
                (missing,) = connection.execute(
                    "SELECT count(*) FROM vector_store_chunks AS c WHERE NOT EXISTS (SELECT 1 FROM "
                    "vector_store_embeddings AS e WHERE e.model = ? AND e.chunk_id = c.chunk_id)",
                    (NEW,),
                ).fetchone()
            connection.execute("COMMIT")
            assert model is not None
            assert {sizes[model]} == found
            assert 0 == missing
            if model == NEW:
                return
            time.sleep(0.01)


def test_two_workers_one_of_them_killed_again_and_again(tmp_path: Path) -> None:
    """While a third process changes chunks and a fourth searches, all ends with every vector of its own text."""
    database = embedding.build(tmp_path / "service.sqlite3", CHUNKS)
    batch = max(8, min(64, CHUNKS // 40))
    changing, searching = start(change, str(database)), start(search, str(database))
    steady = start(work, str(database), 2.0, 0.05, batch)
    dice, kills = random.Random(1), 0  # noqa: S311 - it must be the same each time
    try:
        while steady.process.exitcode is None:
            victim = start(work, str(database), 2.0, 0.05, batch)
            victim.process.join(dice.uniform(0.3, 2.5))
            if victim.process.exitcode is None and victim.kill() == SIGKILL:
                kills += 1
            if {changing.process.exitcode, searching.process.exitcode} - {None, 0}:
                break
        for child in (searching, changing, steady):
            assert 0 == child.wait(), child.output[-2000:]
    finally:
        for child in (searching, changing, steady):
            child.kill()
    assert kills > 0
    assert SWAPPED == embedding.query(database, STATES)
    # What came after the swap has no vector yet, and is the service's affair; what has one has its own.
    assert untrue(database) == changed_since_the_swap(database)

    began = time.monotonic()
    vecmigrate.rollback(database, to_version="001", backup="never")
    took = time.monotonic() - began
    ten = embedding.build(tmp_path / "ten.sqlite3", 10)
    reembed(access(ten), embed)
    began = time.monotonic()
    vecmigrate.rollback(ten, to_version="001", backup="never")
    assert took < 2 * (time.monotonic() - began) + 0.5
    assert [(OLD,)] == embedding.query(database, "SELECT name FROM embedding_models WHERE state = 'active'")
    what = f"two workers, one killed again and again, {CHUNKS:,} chunks that are changed and searched meanwhile"
    tried(KIND, what, f"every vector of its text, no search failed ({kills} kills)")


def changed_since_the_swap(database: Path) -> list[str]:
    """Return the chunks that the process which changes them changed once more after the models had swapped."""
    rows = embedding.query(
        database, "SELECT max(rowid), chunk_id FROM vector_store_chunks WHERE content LIKE 'changed%'"
    )
    stale = untrue(database)
    # At most one: it looks which model is active before each change.
    assert len(stale) <= 1
    assert rows
    return stale


def test_the_chunks_of_a_dead_worker_are_taken_over(mode: str, tmp_path: Path) -> None:
    """When its lease has run out, and not before, the other one embeds them."""
    database = embedding.build(tmp_path / "service.sqlite3", 10, mode=mode)
    dead = start(work, str(database), 2.0, 60.0, 5)
    dead.await_output("embedding")
    assert SIGKILL == dead.kill()
    began = time.monotonic()
    finish(database)
    assert 0.5 < time.monotonic() - began < 30
    tried(KIND, f"a worker that dies with a batch in flight, {mode}", "taken over when its lease had run out")


def test_an_embedder_that_hangs_loses_its_claims(tmp_path: Path) -> None:
    """The other worker ends the work; the one that hung writes nothing more, and ends well when it wakes up."""
    database = embedding.build(tmp_path / "service.sqlite3", 10)
    hanging = start(work, str(database), 1.0, 60.0, 5)
    hanging.await_output("embedding")
    hanging.signal(signal.SIGSTOP)
    finish(database)
    hanging.signal(signal.SIGCONT)
    hanging.kill()
    tried(KIND, "an embedder that hangs", "its chunks taken over, all vectors true")


def test_a_worker_that_wakes_up_late_writes_nothing(tmp_path: Path) -> None:
    """Its chunks are somebody else's by then, also where they have changed."""
    database = embedding.build(tmp_path / "service.sqlite3", 10)
    late = start(work, str(database), 1.0, 5.0, 5)
    late.await_output("embedding")
    legacy.execute(database, "UPDATE vector_store_chunks SET content = 'another text ' || chunk_id")
    finish(database)
    assert 0 == late.wait(), late.output
    assert [] == untrue(database)
    tried(KIND, "a worker that is late", "nothing written of its batch")


@pytest.mark.parametrize("ahead", [1000, 10**6])
def test_a_clock_that_is_set_back_holds_up_nobody(ahead: int, tmp_path: Path) -> None:
    """A claim of a dead worker that was written by a clock far ahead is no claim."""
    database = embedding.build(tmp_path / "service.sqlite3", 10)
    dead = start(work, str(database), 2.0, 60.0, 5)
    dead.await_output("embedding")
    dead.kill()
    legacy.execute(database, f"UPDATE vecmigrate_claims SET until = until + {ahead}")
    began = time.monotonic()
    finish(database)
    assert time.monotonic() - began < 30
    tried(KIND, "claims of a clock that was set back", "taken over at once")


def test_a_disk_that_is_full_keeps_what_was_done(mode: str, tmp_path: Path) -> None:
    """The error says that the disk is full and that vectors are kept; once there is room, it goes on."""
    template = embedding.build(tmp_path / "template.sqlite3", 400, mode=mode)
    legacy.execute(template, "PRAGMA wal_checkpoint(TRUNCATE)")
    embedder_file(tmp_path, 0.0)
    size = template.stat().st_size // 1024
    for number in range(max(2, ROUNDS // 2)):
        room = size + 200 + 300 * number
        with small_disk(tmp_path / "disk", room) as is_mounted:
            database = Path(shutil.copy(template, tmp_path / "disk" / "service.sqlite3"))
            words = (command, str(database), str(tmp_path))
            child = start(*words) if is_mounted else start(limited, room, *words)
            code = child.wait()
            assert 1 == code, child.output
            harness.require_explained(child.output)
            assert "no room" in child.output or "cannot be used" in child.output
            moved = Path(shutil.copytree(tmp_path / "disk", tmp_path / f"moved-{number}")) / database.name
        assert [] == untrue(moved)
        kept = vectors(moved)
        claims_left = f"UPDATE vecmigrate_claims SET until = 1 WHERE model = '{NEW}'"
        legacy.execute(moved, claims_left)
        finish(moved)
        tried(KIND, f"a disk that fills up, {mode}", "some vectors kept" if kept else "nothing written")


def hold(database: str, seconds: float) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        print("held", flush=True)  # noqa: T201 - the test waits for it
        time.sleep(seconds)
        connection.execute("ROLLBACK")


@pytest.mark.parametrize(("seconds", "code"), [(1.5, 0), (20.0, 4)])
def test_a_locked_database_is_waited_for(seconds: float, code: int, mode: str, tmp_path: Path) -> None:
    """A lock that ends is waited for; one that does not ends it with exit code 4, and it goes on later."""
    database = embedding.build(tmp_path / "service.sqlite3", 10, mode=mode)
    embedder_file(tmp_path, 0.0)
    holder = start(hold, str(database), seconds)
    holder.await_output("held")
    worker = start(command, str(database), str(tmp_path), environ={"VECMIGRATE_LOCK_TIMEOUT": "4"})
    assert code == worker.wait(), worker.output
    harness.require_explained(worker.output)
    holder.kill()
    finish(database)
    tried(KIND, f"a database locked for {seconds:g} s, {mode}", "waited for" if code == 0 else "exit 4, goes on later")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_batch_in_flight(number: signal.Signals, tmp_path: Path) -> None:
    """With 130 or 143, the batch written, no claim left; the next call goes on."""
    database = embedding.build(tmp_path / "service.sqlite3", 20)
    embedder_file(tmp_path, 1.0)
    worker = start(command, str(database), str(tmp_path))
    worker.await_output("embedding")
    worker.signal(number)
    worker.await_output("once more to stop at once")
    assert 128 + number == worker.wait(), worker.output
    harness.require_explained(worker.output)
    assert "5 vectors made are kept" in worker.output
    assert 5 == vectors(database)
    assert [] == legacy.query(database, "SELECT * FROM vecmigrate_claims")
    finish(database)
    tried(KIND, f"{number.name} while a batch is in flight", "written, then ended")


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """An embedder that hangs is not waited for, its claims are given up, and nothing of the batch is written."""
    database = embedding.build(tmp_path / "service.sqlite3", 20)
    embedder_file(tmp_path, 60.0)
    worker = start(command, str(database), str(tmp_path))
    worker.await_output("embedding")
    worker.signal(signal.SIGTERM)
    worker.await_output("once more")
    worker.signal(signal.SIGTERM)
    assert 143 == worker.wait(), worker.output
    harness.require_explained(worker.output)
    assert 0 == vectors(database)
    finish(database)
    tried(KIND, "a second signal while an embedder hangs", "ended at once, claims given up")


def back_and_up(database: Path) -> None:
    vecmigrate.rollback(database, to_version="002", backup="never")
    vecmigrate.upgrade(database, backup="never")


def back(database: Path) -> None:
    vecmigrate.rollback(database, to_version="001", backup="never")


def restored(database: Path) -> None:
    vecmigrate.restore(database, name=vecmigrate.backup(database).name)


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a rollback": (back, "revision"),
    "a restore": (restored, "restored"),
    "a model that is retired": (
        lambda database: legacy.execute(
            database, f"UPDATE embedding_models SET state = 'retired' WHERE name = '{NEW}'"
        ),
        "retired",
    ),
    "a model that is gone": (
        lambda database: legacy.execute(database, f"DELETE FROM embedding_models WHERE name = '{NEW}'"),
        "gone",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_others_do_with_the_database_ends_it(what: str, tmp_path: Path) -> None:
    """The batch in flight is not written, what was done is kept, the error says what happened, and it goes on later."""
    database = embedding.build(tmp_path / "service.sqlite3", 20)
    embedder_file(tmp_path, 1.0)
    reembed(access(database), embed, limit=5)
    worker = start(command, str(database), str(tmp_path))
    worker.await_output("embedding")
    action, message = CHANGES[what]
    action(database)
    assert 1 == worker.wait(), worker.output
    harness.require_explained(worker.output)
    assert message in worker.output
    assert 5 == vectors(database)
    if what == "a rollback":
        vecmigrate.upgrade(database, backup="never")
    elif what != "a restore":
        legacy.execute(database, f"INSERT OR REPLACE INTO embedding_models VALUES ('{NEW}', 768, 'building', NULL)")
    legacy.execute(database, "UPDATE vecmigrate_claims SET until = 1")
    finish(database)
    tried(KIND, f"{what} while a worker is at it", "told, nothing written, goes on later")


def test_a_run_meanwhile_goes_between_two_batches(tmp_path: Path) -> None:
    """A revision that runs again while a worker is at it neither fails nor mixes anything."""
    database = embedding.build(tmp_path / "service.sqlite3", 60)
    worker = start(work, str(database), 5.0, 0.2, 5)
    worker.await_output("embedding")
    for _ in range(ROUNDS):
        back_and_up(database)
        tried(KIND, "revision 003 down and up again between two batches", "run, all vectors true")
    worker.wait()
    assert [] == untrue(database)
    legacy.execute(database, "UPDATE vecmigrate_claims SET until = 1")
    finish(database)


def test_the_file_is_not_made_again(tmp_path: Path) -> None:
    """A database that is moved away ends the worker, and none is made in its place."""
    database = embedding.build(tmp_path / "service.sqlite3", 20)
    embedder_file(tmp_path, 1.0)
    worker = start(command, str(database), str(tmp_path))
    worker.await_output("embedding")
    for each in list(tmp_path.glob("service.sqlite3*")):
        each.rename(each.with_name(f"moved-{each.name}"))
    assert 1 == worker.wait(), worker.output
    assert not database.exists()
    tried(KIND, "a database that is moved away", "exit 1, none made in its place")
