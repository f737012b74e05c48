"""Many at once: one migrates, the others wait, and nobody fails for it."""

import contextlib
import itertools
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

import legacy
import vecmigrate
from faults import harness
from faults.harness import DOORS, MODES, ROUNDS, Subject, go, start, tried, wait_until
from faults.slow import changed_scripts, slow_scripts, with_scripts
from ladder import BELOW_HEAD, HEAD, REVISIONS
from processes import FORKSERVER

CROWD = 20
THREADS = 8


def at_barrier(barrier: Barrier, action: Callable[..., Any], *arguments: Any) -> None:
    barrier.wait(60)
    action(*arguments)


def crowd(database: Path) -> None:
    """Let twenty processes start together through all doors, and fail if one fails."""
    barrier = FORKSERVER.Barrier(CROWD)
    doors = itertools.islice(itertools.cycle(DOORS), CROWD)
    children = [start(at_barrier, barrier, go, door, str(database)) for door in doors]
    assert [(0, "")] * CROWD == [
        (child.wait(120), child.output if child.process.exitcode else "") for child in children
    ]


@pytest.mark.parametrize("number", range(max(1, ROUNDS // 10)))
def test_twenty_processes_on_a_legacy_file(number: int, mode: str, small: Subject, tmp_path: Path) -> None:
    """One migrates, nineteen find nothing to do: each revision once, one backup, no error."""
    database = small.copy(tmp_path / "service")
    crowd(database)

    assert small.after == harness.contents(database)
    assert ["success"] * len(REVISIONS) == harness.statuses(database)
    assert 1 == len(harness.backup_files(database))
    harness.require_tidy(database)
    tried("Crowds", f"20 processes at once on a legacy file, {mode}", "each revision once, one backup, no error")
    del number


@pytest.mark.parametrize("number", range(max(1, ROUNDS // 10)))
@pytest.mark.parametrize("journal", MODES)
def test_twenty_processes_on_a_fresh_file(journal: str, number: int, tmp_path: Path) -> None:
    """One makes the database, nineteen find it made."""
    database = tmp_path / "sessions.sqlite3"
    if journal == "wal":
        legacy.execute(database, "PRAGMA journal_mode = wal")
    crowd(database)

    assert HEAD == legacy.revision(database)
    assert ["success"] * len(REVISIONS) == harness.statuses(database)
    harness.require_tidy(database)
    tried("Crowds", f"20 processes at once on a fresh file, {journal}", "each revision once, no error")
    del number


@pytest.mark.parametrize("number", range(max(1, ROUNDS // 10)))
def test_copies_of_one_database_at_once(number: int, mode: str, small: Subject, tmp_path: Path) -> None:
    """Copies have one identity and one backup folder: none takes the temporary files of another for its own."""
    template = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(template), BELOW_HEAD)
    copies = [template.with_name(f"tenant{each}.sqlite3") for each in range(8)]
    for copy in copies:
        shutil.copy(template, copy)
    barrier = FORKSERVER.Barrier(len(copies))
    children = [start(at_barrier, barrier, go, "service", str(copy)) for copy in copies]
    assert [(0, "")] * 8 == [(child.wait(120), child.output if child.process.exitcode else "") for child in children]

    for copy in copies:
        assert small.after == harness.contents(copy)
        assert 1 == len([each for each in harness.backup_files(copy) if each.name.startswith(f"{copy.stem}-")])
    harness.require_whole_backups(template)
    tried("Crowds", f"8 copies of one database at once, {mode}", "each backed up and migrated, no error")
    del number


@pytest.mark.parametrize("number", range(max(2, ROUNDS // 10)))
def test_six_restores_over_a_damaged_file(number: int, mode: str, small: Subject, tmp_path: Path) -> None:
    """The damaged file is exchanged once; those that come later save what the first has restored, and replace it."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    name = harness.backup_files(database)[0].name
    damaged = database.read_bytes()[:9000]
    database.write_bytes(damaged)
    barrier = FORKSERVER.Barrier(6)
    words = ("--db-path", str(database), "restore", name)
    children = [start(at_barrier, barrier, harness.run_cli, *words) for _ in range(6)]
    assert [(0, "")] * 6 == [(child.wait(120), child.output if child.process.exitcode else "") for child in children]

    assert small.before == harness.contents(database)
    aside = [each for each in database.parent.iterdir() if ".damaged-" in each.name]
    assert [damaged] == [each.read_bytes() for each in aside if not each.name.endswith(("-wal", "-shm"))]
    harness.require_whole_backups(database)
    tried("Crowds", f"6 restores at once over a damaged file, {mode}", "exchanged once, no error")
    del number


PAUSES_ON_ITS_WAY_DOWN = """
_downgrade = downgrade


def downgrade():
    _downgrade()
    if op.get_bind().exec_driver_sql("SELECT count(*) FROM sessions").scalar():
        import time

        print("going down", flush=True)
        time.sleep(2)
"""


@pytest.mark.parametrize("target", ["base", BELOW_HEAD])
def test_a_forced_run_behind_a_rollback_is_a_plain_one(target: str, small: Subject, tmp_path: Path) -> None:
    """What was planned before the lock is not what is done: the revision that is pending by then is run."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    scripts = str(changed_scripts(tmp_path / "scripts", PAUSES_ON_ITS_WAY_DOWN))
    words = ("--db-path", str(database))
    down = start(with_scripts, scripts, harness.run_cli, *words, "rollback", "--to-version", target, "--yes")
    down.await_output("going down")
    forced = start(with_scripts, scripts, harness.run_cli, *words, "migrate", "--force")

    assert 0 == down.wait(), down.output
    assert 0 == forced.wait(), forced.output
    assert small.after == harness.contents(database)
    tried("Crowds", f"migrate --force that waits behind a rollback to {target}", "plain migrate, new state")


@pytest.mark.parametrize("number", range(max(1, ROUNDS // 10)))
@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_a_crowd_after_a_kill_settles_it_once(number: int, mode: str, small: Subject, tmp_path: Path) -> None:
    """The run that died is told of once, whoever finds it first."""
    database = small.copy(tmp_path / "service")
    child = start(harness.die_at, 100, str(database.parent), str(tmp_path / "counted"), go, "service", str(database))
    assert child.wait() == -9
    assert harness.has_begun(database)
    crowd(database)

    assert ["interrupted", *["success"] * len(REVISIONS)] == harness.statuses(database)
    assert 1 == len(harness.backup_files(database))
    harness.require_tidy(database)
    tried("Crowds", f"20 processes at once after a kill, {mode}", "told of once, each revision once, no error")
    del number


@pytest.mark.parametrize("number", ["SIGKILL", "SIGINT"])
def test_who_waits_for_a_run_that_ends_settles_it(number: str, mode: str, small: Subject, tmp_path: Path) -> None:
    """The next holder of the lock tells of a run that ended while it waited, and uses its backup."""
    database = small.copy(tmp_path / "service")
    scripts = str(slow_scripts(tmp_path / "scripts", 8_000_000))
    with legacy.opened(database) as holder:
        holder.execute("BEGIN IMMEDIATE")
        waiting = [start(with_scripts, scripts, go, door, str(database)) for door in ("cli", "cli", "service")]
        time.sleep(2)
    wait_until(lambda: any("in the long statement" in child.output for child in waiting))
    (first,) = [child for child in waiting if "in the long statement" in child.output]
    first.signal(signal.Signals[number])
    for child in waiting:
        expected = {-9} if number == "SIGKILL" else {130, -2, 1}
        assert child.wait() in (expected if child is first else {0}), child.output

    assert small.after == harness.contents(database)
    assert ["interrupted", *["success"] * len(REVISIONS)] == [
        each for each in harness.statuses(database) if each != "skipped"
    ]
    assert 1 == len(harness.backup_files(database))
    harness.require_tidy(database)
    tried("Crowds", f"waiting for a run that is ended by {number}, {mode}", "told of, its backup used, new state")


def in_threads(databases: list[str]) -> None:
    """Let threads migrate and ask in one process; fail if one of them fails."""
    barrier = threading.Barrier(len(databases))

    def one(database: str) -> str | None:
        barrier.wait()
        vecmigrate.status(f"sqlite:///{database}")
        vecmigrate.upgrade(f"sqlite:///{database}")
        assert vecmigrate.ensure_current(f"sqlite:///{database}").usable
        return vecmigrate.status(f"sqlite:///{database}").revision

    with ThreadPoolExecutor(len(databases)) as pool:
        found = list(pool.map(one, databases))
    sys.exit(0 if found == [HEAD] * len(databases) else str(found))


@pytest.mark.parametrize("databases", [1, THREADS])
def test_eight_threads_of_one_process(databases: int, mode: str, small: Subject, tmp_path: Path) -> None:
    """The functions of the package serialise themselves, on the same database and on separate ones."""
    made = [small.copy(tmp_path / str(number)) for number in range(databases)]
    for _ in range(max(1, ROUNDS // 50)):
        child = start(in_threads, [str(each) for each in itertools.islice(itertools.cycle(made), THREADS)])
        assert 0 == child.wait(), child.output
        tried("Crowds", f"8 threads on {databases} database{'s' * (databases > 1)}, {mode}", "no error")

    for database in made:
        assert small.after == harness.contents(database)
        assert ["success"] * len(REVISIONS) == harness.statuses(database)
        harness.require_tidy(database)


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_lock_held_too_long_is_told(lock: str, small: Subject, tmp_path: Path) -> None:
    """After the time given, exit 4, the wait is named, and nothing is written."""
    database = small.copy(tmp_path / "service")
    with legacy.opened(database) as holder:
        holder.execute(f"BEGIN {lock}")
        child = start(go, "cli", str(database), environ={"VECMIGRATE_LOCK_TIMEOUT": "0.7"})
        assert 4 == child.wait(), child.output
    assert "still locked by another process after 0.7 seconds of waiting" in child.output
    assert "VECMIGRATE_LOCK_TIMEOUT" in child.output
    assert [database] == list(database.parent.iterdir()) or "wal" in str(list(database.parent.iterdir()))
    assert "old state" == small.state(database)
    tried("Crowds", "a lock held beyond lock_timeout", "exit 4, the wait is named")


@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_a_commit_that_readers_hold_up_is_an_attempt(small: Subject, tmp_path: Path) -> None:
    """In rollback-journal mode nobody commits beside a reader: exit 4, rolled back, and in the history."""
    database = small.copy(tmp_path / "service")
    with legacy.opened(database) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM sessions").fetchone()
        child = start(go, "cli", str(database), environ={"VECMIGRATE_LOCK_TIMEOUT": "0.5"})
        assert 4 == child.wait(), child.output
    assert f"Backup: {harness.backup_files(database)[0]}" in child.output
    assert "old state" == small.state(database)
    # The record could not be committed either, so the next run finds the marker.
    vecmigrate.upgrade(harness.url(database))
    assert ["interrupted", *["success"] * len(REVISIONS)] == harness.statuses(database)
    harness.require_tidy(database)
    tried("Crowds", "a reader that does not end, at the commit", "exit 4, old state, told of by the next run")


@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_a_lock_held_shorter_than_the_timeout_is_waited_for(small: Subject, tmp_path: Path) -> None:
    """Also an exclusive lock, under which nobody can even read, is waited for as long as was asked."""
    database = small.copy(tmp_path / "service")
    with legacy.opened(database) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        child = start(go, "cli", str(database))
        time.sleep(6)
        assert child.process.is_alive(), child.output
        holder.execute("ROLLBACK")
    assert 0 == child.wait(), child.output
    assert small.after == harness.contents(database)
    tried("Crowds", "an exclusive lock held for 6 s", "waited for, then new state")


def write_without_pause(database: str, acknowledged: str) -> None:
    """Insert rows for ever, noting each one once its commit was acknowledged.

    Each row tells, by how many version tables there were, whether it came before the migration or after it.
    """
    insert = "INSERT INTO memory_meta SELECT ?, count(*) FROM sqlite_master WHERE name = 'vecmigrate_version'"
    with (
        contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=60)) as connection,
        Path(acknowledged).open("w", encoding="utf-8", buffering=1) as notes,
    ):
        for number in itertools.count():
            connection.execute(insert, (f"busy-{number}",))
            notes.write(f"busy-{number}\n")


def test_a_writer_that_never_pauses_loses_nothing(mode: str, big: Subject, tmp_path: Path) -> None:
    """Every acknowledged commit is there afterwards, and the backup has exactly those from before the run."""
    for number in range(max(1, ROUNDS // 20)):
        database, notes = big.copy(tmp_path / str(number)), tmp_path / f"notes-{number}"
        writer = start(write_without_pause, str(database), str(notes))
        wait_until(lambda notes=notes: notes.exists() and notes.stat().st_size > 1000)  # type: ignore[misc]
        migrated = start(go, "cli", str(database)).wait()
        size = notes.stat().st_size
        wait_until(lambda notes=notes, size=size: notes.stat().st_size > size)  # type: ignore[misc]
        writer.kill()

        assert 0 == migrated
        promised = set(notes.read_text(encoding="utf-8").splitlines()[:-1])
        held = {str(key) for (key,) in legacy.query(database, "SELECT key FROM memory_meta")}
        assert promised <= held
        before = legacy.query(database, "SELECT key FROM memory_meta WHERE value = '0' ORDER BY rowid")
        saved = "SELECT key FROM memory_meta WHERE key LIKE 'busy-%' ORDER BY rowid"
        assert before == legacy.query(harness.backup_files(database)[0], saved)
        assert HEAD == legacy.revision(database)
        assert [("ok",)] == legacy.query(database, "PRAGMA integrity_check")
        tried("Crowds", f"a writer that never pauses, {mode}", "no acknowledged commit lost")
