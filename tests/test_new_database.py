"""A database that is not there yet comes whole or not at all, and nothing is recorded where there is none."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import legacy
import vecmigrate
from doors import run_cli, url
from ladder import HEAD, REVISIONS
from scripts import Scripts
from vecmigrate import scratch_files, sqlite_files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "service"
    made.mkdir()
    return made


def test_a_first_run_that_fails_leaves_no_file(folder: Path, scripts: Scripts) -> None:
    """A file of records alone would pass for a database with nothing in it."""
    scripts.add("raise RuntimeError('no')")
    database = folder / "sessions.sqlite3"
    result = run_cli("--db-path", database, "migrate")
    assert 5 == result.code, result.err
    assert "Next: correct the cause and run it again" in result.err
    assert [] == names(folder)


def test_a_first_run_that_is_killed_is_told_of_by_the_next(folder: Path, scripts: Scripts) -> None:
    """Until then there is no file, whatever was under way; what was killed leaves nothing behind."""
    # Not in the rehearsal, which has its own database in memory, and nothing begun.
    added = scripts.add(
        """
        op.execute('CREATE TABLE t (a)')
        if op.get_bind().exec_driver_sql('PRAGMA database_list').first()[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    database = folder / "sessions.sqlite3"
    code = "import sys\nfrom vecmigrate import scripts_folder\nscripts_folder._HERE = sys.argv.pop(1)\n"
    code += "from vecmigrate.cli import main\nmain()"
    package = added.parent.parent.parent
    words = [sys.executable, "-c", code, str(package), "--db-path", str(database), "migrate"]
    assert -9 == subprocess.run(words, check=False).returncode
    assert not database.exists()
    added.unlink()
    assert "absent" == vecmigrate.status(url(database)).state
    vecmigrate.upgrade(url(database))
    statuses = legacy.query(database, "SELECT status FROM vecmigrate_history ORDER BY id")
    assert [("interrupted",), *[("success",)] * len(REVISIONS)] == statuses
    assert ["sessions.migrations.json", "sessions.sqlite3"] == names(folder)


def test_a_file_that_somebody_makes_meanwhile_is_kept(folder: Path, scripts: Scripts) -> None:
    """The run begins anew, on what is there now."""
    database = folder / "sessions.sqlite3"
    scripts.add(
        f"""
        import sqlite3
        if not os.path.exists({str(database)!r}):
            other = sqlite3.connect({str(database)!r})
            other.executescript("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)")
            other.close()
        """
    )
    report = vecmigrate.upgrade(url(database))
    assert len(REVISIONS) + 1 == len(report.applied)
    assert not report.created
    assert [(1,)] == legacy.query(database, "SELECT a FROM theirs")
    assert ["backups", "sessions.migrations.json", "sessions.sqlite3"] == names(folder)
    assert [("success",)] == legacy.query(database, "SELECT DISTINCT status FROM vecmigrate_history")


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_it_has_the_mode_that_sqlite_gives(folder: Path) -> None:
    """A service that runs as another user of the group reads it as it always did."""
    with sqlite3.connect(folder / "plain.sqlite3") as plain:
        plain.execute("CREATE TABLE t (a)")
    plain.close()
    vecmigrate.upgrade(url(folder / "sessions.sqlite3"))
    assert (folder / "plain.sqlite3").stat().st_mode == (folder / "sessions.sqlite3").stat().st_mode


def broken_off(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, folder: Path) -> None:
    """Let a call fail that concerns a file below a folder, as on a disk with a fault."""
    real = getattr(place, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        if any(str(folder) in str(each) for each in arguments):
            raise OSError(5, "Input/output error", str(arguments[0]))
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, fail)


FAULTS = {
    "copying the backup": (shutil, "copyfile"),
    "making the copy": (sqlite_files, "copy_pages"),
    "syncing the copy": (sqlite_files, "sync"),
    "naming it": (sqlite_files, "rename_to_new"),
}


@pytest.mark.parametrize(("place", "name"), FAULTS.values(), ids=FAULTS)
def test_a_restore_over_a_missing_file_that_fails_leaves_it_missing(
    place: Any, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service does not start on an empty database, and the next restore brings everything back."""
    database = legacy.build(folder / "sessions.sqlite3", "released")
    vecmigrate.upgrade(url(database))
    backup = vecmigrate.backup(url(database)).name
    rows = legacy.rows(database, "vector_stores")
    database.unlink()
    before = names(folder)
    with monkeypatch.context() as patched:
        broken_off(patched, place, name, folder)
        result = run_cli("--db-path", database, "restore", backup)
    assert 1 == result.code, result.err
    assert "Input/output error" in result.err
    assert "Unexpected" not in result.err
    assert before == names(folder)
    assert 0 == run_cli("--db-path", database, "restore", backup).code
    assert rows == legacy.rows(database, "vector_stores")
    assert HEAD == legacy.revision(database)


def test_cleaning_beside_a_database_never_takes_the_database(folder: Path) -> None:
    """A database that was linked into place may still have its temporary name, and be called as a backup is."""
    database = folder / "app-20250102T030405.000006Z-001.sqlite3"
    with scratch_files.scratch(str(folder), "0" * 32, str(database)) as temporary:
        Path(temporary).write_bytes(b"database")
        os.link(temporary, database)
        scratch_files.clean_temporary(str(folder), str(database))
        assert [database.name] == names(folder)
