"""Disks that are full or forbidden: the old state or the new one, no partial file, and a message that helps."""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli
from faults import harness
from faults.harness import ROUNDS, Subject, bound_by_modes, go, limited, small_disk, start, tried
from ladder import REVISIONS


def own_files(database: Path) -> dict[str, tuple[int, int, str]]:
    """Return what stands beside a database, but for the sidecars that SQLite makes for any reader."""
    sidecars = {f"{database.name}-wal", f"{database.name}-shm"}
    return {name: entry for name, entry in legacy.tree(database.parent).items() if name not in sidecars}


def levels(size: int, rounds: int) -> list[int]:
    """Return sizes in KiB from next to nothing to more than a run needs."""
    most = size * 3 // 1024
    return sorted({4 + (most - 4) * n // max(1, rounds - 1) for n in range(rounds)})


@pytest.mark.parametrize("door", ["cli", "alembic"])
def test_files_that_cannot_grow(door: str, mode: str, big: Subject, tmp_path: Path) -> None:
    """However little fits, in backup, journal, database or mirror: old or new, and nothing half-written."""
    for kib in levels(big.template.stat().st_size, ROUNDS):
        database = big.copy(tmp_path / str(kib))
        child = start(limited, kib, go, door, str(database))
        code = child.wait()

        assert code in ({0, 1, 5, 6} if door == "cli" else {0, 255}), child.output
        harness.require_explained(child.output)
        outcome = big.state(database)
        assert (code == 0) == (outcome == "new state")
        harness.require_whole_backups(database)
        vecmigrate.upgrade(harness.url(database))
        assert big.after == harness.contents(database)
        harness.require_tidy(database)
        tried("Disks", f"no file may grow beyond 4 KiB to 3 times the database, {door} door, {mode}", outcome)
        shutil.rmtree(database.parent)


def test_a_disk_that_fills_up(mode: str, big: Subject, tmp_path: Path) -> None:
    """On a small disk of its own, whatever is left free: old or new, and once there is room, it goes on."""
    size = big.template.stat().st_size // 1024
    for number in range(max(2, ROUNDS // 2)):
        room = size * 11 // 10 + size * 4 * number // max(2, ROUNDS // 2 - 1)
        with small_disk(tmp_path / "disk", room) as is_mounted:
            database = Path(shutil.copy(big.template, tmp_path / "disk" / "sessions.sqlite3"))
            child = start(go, "cli", str(database)) if is_mounted else start(limited, size, go, "cli", str(database))
            code = child.wait()
            assert code in {0, 1, 5, 6}, child.output
            harness.require_explained(child.output)
            outcome = big.state(database)
            assert (code == 0) == (outcome == "new state")
            harness.require_whole_backups(database)
            moved = Path(shutil.copytree(tmp_path / "disk", tmp_path / f"moved-{number}")) / database.name
            if not is_mounted:
                shutil.rmtree(tmp_path / "disk")
        vecmigrate.upgrade(harness.url(moved))
        assert big.after == harness.contents(moved)
        disk = "a disk of 1.1 to 5 times the database" if is_mounted else "files of at most the database's size"
        tried("Disks", f"{disk}, {mode}", outcome)


def test_too_little_room_for_the_backup_is_told_before_the_first_write(big: Subject, tmp_path: Path) -> None:
    """The message names the folder and the bytes needed, and nothing was written."""
    database = big.copy(tmp_path / "service")
    with small_disk(tmp_path / "disk", 512) as is_mounted:
        folder = str(tmp_path / "disk")
        environ = {"VECMIGRATE_BACKUP_DIR": folder}
        child = start(go, "cli", str(database), environ=environ) if is_mounted else None
        code = child.wait() if child else start(limited, 512, go, "cli", str(database), environ=environ).wait()
        assert 1 == code
        if child:
            assert f"{folder} needs " in child.output
            assert " bytes free and has " in child.output
        assert [] == [each for each in (tmp_path / "disk").iterdir() if each.name != ".gitignore"]
    assert "old state" == big.state(database)
    assert "vecmigrate_history" not in legacy.tables(database)
    tried("Disks", "too little room for the backup", "exit 1, nothing written")


@pytest.mark.parametrize("what", ["file", "folder", "both"])
def test_what_is_read_only_is_refused(what: str, small: Subject, tmp_path: Path) -> None:
    """A file or folder that this user may not write is named, and stays as it was."""
    database = small.copy(tmp_path / "service")
    if what in {"file", "both"}:
        database.chmod(0o444)
    if what in {"folder", "both"}:
        database.parent.chmod(0o555)
    before = own_files(database)

    child = start(bound_by_modes, go, "cli", str(database))
    assert 1 == child.wait(), child.output
    harness.require_explained(child.output)
    assert str(database.parent) in child.output
    assert "Nothing was changed." in child.output
    assert "Next: " in child.output
    assert before == own_files(database)
    database.parent.chmod(0o755)
    database.chmod(0o644)
    tried("Disks", f"read-only {what}", "exit 1, nothing written")


@pytest.mark.parametrize("mode", ["wal"], indirect=True)
@pytest.mark.parametrize("is_mended_in_part", [False, True])
def test_what_is_told_of_a_read_only_database_is_enough(
    small: Subject, tmp_path: Path, *, is_mended_in_part: bool
) -> None:
    """Once the named places are writable, the run succeeds: SQLite's own files beside the database are among them."""
    database = small.copy(tmp_path / "service")
    database.chmod(0o444)
    assert 0 == start(bound_by_modes, harness.run_cli, "--db-path", str(database), "status").wait()
    if is_mended_in_part:
        # Reading left no sidecars of that mode behind.
        database.chmod(0o644)
        assert 0 == start(bound_by_modes, go, "cli", str(database)).wait()
        assert small.after == harness.contents(database)
        tried("Disks", "read-only file, made writable after it was read", "new state")
        return
    child = start(bound_by_modes, go, "cli", str(database))
    assert 1 == child.wait(), child.output

    named = re.search(r"Next: make (.*) writable, then run it again", child.output)
    assert named, child.output
    for place in named[1].split(" and "):
        Path(place).chmod(0o644)
    again = start(bound_by_modes, go, "cli", str(database))
    assert 0 == again.wait(), again.output
    assert small.after == harness.contents(database)
    tried("Disks", "read-only file, made writable as told", "new state")


def test_an_unwritable_backup_folder_stops_the_run(small: Subject, tmp_path: Path) -> None:
    """Without a backup nothing is changed, and the folder is named."""
    database = small.copy(tmp_path / "service")
    folder = tmp_path / "kept"
    folder.mkdir()
    folder.chmod(0o555)

    child = start(bound_by_modes, go, "cli", str(database), environ={"VECMIGRATE_BACKUP_DIR": str(folder)})
    assert 1 == child.wait(), child.output
    assert str(folder) in child.output
    harness.require_explained(child.output)
    assert [] == list(folder.iterdir())
    assert "old state" == small.state(database)
    assert {database.name} == {each.name for each in database.parent.iterdir()}
    tried("Disks", "a backup folder that cannot be written", "exit 1, nothing written")


@pytest.mark.parametrize("obstacle", ["folder", "no folder", "full"])
def test_a_mirror_that_fails_is_told_and_healed(obstacle: str, small: Subject, tmp_path: Path) -> None:
    """The migration succeeds all the same, and the next run writes the mirror."""
    database = small.copy(tmp_path / "service")
    mirror = tmp_path / "elsewhere" / "mirror.json"
    if obstacle == "folder":
        mirror.mkdir(parents=True)
    environ = {"VECMIGRATE_HISTORY_FILE": str(mirror)}
    if obstacle == "full":
        mirror = Path("/dev/full/mirror.json")
        environ = {"VECMIGRATE_HISTORY_FILE": str(mirror)}
    child = start(go, "cli", str(database), environ=environ)

    assert 0 == child.wait(), child.output
    assert f"The mirror {mirror} could not be written" in child.output
    assert small.after == harness.contents(database)
    vecmigrate.upgrade(harness.url(database))
    harness.require_tidy(database)
    tried("Disks", "a mirror that cannot be written", "new state, told, healed by the next run")


def read_again_and_again(mirror: str) -> None:
    """Read a mirror for ever; exit with 1 on one that is not whole."""
    for number in itertools.count():
        if number == 1:
            sys.stdout.write("reading\n")
            sys.stdout.flush()
        json.loads(Path(mirror).read_text(encoding="utf-8"))


def test_nobody_ever_reads_half_a_mirror(small: Subject, tmp_path: Path) -> None:
    """The mirror is replaced, never written in place, so that whoever reads it meanwhile has the old or the new."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    child = start(read_again_and_again, str(database.with_suffix(".migrations.json")))
    child.await_output("reading")
    for _ in range(20):
        vecmigrate.upgrade(harness.url(database), force=True, backup="never")
        tried("Disks", "a mirror that is read while it is replaced", "the old one or the new one")
    assert child.process.is_alive(), child.output
    child.kill()


def test_a_restore_without_room_is_in_the_history(mode: str, big: Subject, tmp_path: Path) -> None:
    """What was saved before it stays, the database is as it was, and the attempt is told as failed."""
    database = big.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    backup = vecmigrate.backup(harness.url(database))
    legacy.execute(database, "PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE vector_stores SET updated_at = 4")
    before = harness.contents(database)

    # Room for the copy that is saved first, but not for the journal or WAL, which hold more than the pages.
    child = start(
        limited, backup.bytes // 1024 + 4, harness.run_cli, "--db-path", str(database), "restore", backup.name
    )

    assert child.wait() in {1, 5}, child.output
    harness.require_explained(child.output)
    assert before == harness.contents(database)
    assert [("restore", "failed")] == legacy.query(
        database, "SELECT direction, status FROM vecmigrate_history ORDER BY id DESC LIMIT 1"
    )
    assert "failed" == harness.mirror_entries(database)[-1]["status"]
    harness.require_tidy(database)
    vecmigrate.restore(harness.url(database), name=backup.name)
    assert "success" == harness.statuses(database)[-1]
    tried("Disks", f"no room for the journal of a restore, {mode}", "exit 1, old state, recorded as failed")


def test_a_missing_folder_of_the_database_is_named(tmp_path: Path) -> None:
    """Neither the folder nor the file is made."""
    result = run_cli("--db-path", tmp_path / "absent" / "sessions.sqlite3", "migrate")
    assert 1 == result.code
    assert str(tmp_path / "absent") in result.err
    assert [] == list(tmp_path.iterdir())
    tried("Disks", "a folder of the database that is not there", "exit 1, nothing made")


def test_a_history_that_cannot_be_cleared_for_lack_of_room(mode: str, small: Subject, tmp_path: Path) -> None:
    """It is told as the state of the disk, and what was to be forgotten is there still."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    child = start(limited, 1, harness.run_cli, "--db-path", str(database), "history", "--clear", "--yes")
    assert 1 == child.wait(), child.output
    harness.require_explained(child.output)
    assert "Unexpected" not in child.output
    assert "Nothing was changed." in child.output
    assert ["success"] * len(REVISIONS) == harness.statuses(database)
    tried("Disks", f"no room to clear the history, {mode}", "exit 1, nothing changed")


@pytest.mark.parametrize("words", [["status"], ["list"], ["history"], ["backup", "list"]])
def test_readers_read_a_closed_database_where_nothing_may_be_written(
    words: list[str], mode: str, small: Subject, tmp_path: Path
) -> None:
    """A WAL database needs sidecars of its readers only while somebody has it open."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    assert not database.with_name(f"{database.name}-wal").exists()
    database.chmod(0o444)
    database.parent.chmod(0o555)
    before = own_files(database)
    try:
        child = start(bound_by_modes, harness.run_cli, "--db-path", str(database), *words)
        assert 0 == child.wait(), child.output
    finally:
        database.parent.chmod(0o755)
    assert before == own_files(database)
    tried("Disks", f"a closed database on a disk that is read-only, {mode}", "read")
