"""Once a run is committed it has succeeded, whatever fails then: that is told, and the next run cleans up."""

import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import legacy
import vecmigrate
from doors import run_cli, upgrade, url
from ladder import HEAD
from vecmigrate import locks, sqlite_driver, sqlite_files
from vecmigrate.errors import DatabaseUnusableError
from vecmigrate.migrator import Migrator

FAULTS = [(".run-", errno.EIO), (".run-", errno.EACCES), (".tmp", errno.EIO), (".tmp", errno.EROFS)]
"""What cannot be removed, a marker or a temporary file, and what the system says of it."""


def reported(code: int, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


def refuse_unlinking(monkeypatch: pytest.MonkeyPatch, wanted: Callable[[str], bool], code: int) -> list[str]:
    """Let the system refuse to remove some files; return those that it has refused."""
    refused: list[str] = []
    real = os.unlink

    def unlink(path: Any, *arguments: Any, **options: Any) -> None:
        if wanted(os.fspath(path)) and os.path.lexists(path):
            refused.append(os.fspath(path))
            raise OSError(code, os.strerror(code), os.fspath(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    return refused


def leftovers(database: Path) -> list[str]:
    folders = [database.parent, database.parent / "backups"]
    found = [each.name for folder in folders if folder.exists() for each in folder.iterdir()]
    return [name for name in found if ".run-" in name or name.endswith(".tmp")]


@pytest.mark.parametrize("door", ["cli", "command", "service"])
def test_a_commit_that_reports_an_error_after_it_stands(
    door: str, released_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unlock that fails comes after the commit: the run's own records are in the table, and it is no failure."""
    real = locks._retry_while_busy

    def commit(connection: Any, statement: str, timeout: float, name: str) -> None:
        real(connection, statement, timeout, name)
        if statement == "COMMIT" and name == str(released_file):
            raise reported(sqlite3.SQLITE_IOERR_UNLOCK, "SQLITE_IOERR_UNLOCK")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "vecmigrate"):
        patched.setattr(locks, "_retry_while_busy", commit)
        if door == "service":
            assert "migrated" == vecmigrate.ensure_current(url(released_file)).state
        else:
            upgrade(door, released_file)
    assert HEAD == legacy.revision(released_file)
    assert [("success",)] == legacy.query(released_file, "SELECT DISTINCT status FROM vecmigrate_history")
    assert [] == leftovers(released_file)


def test_a_commit_that_fails_before_it_stands_is_a_failure(
    released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same error of a commit that came to nothing: the old state, exit 5."""
    before = legacy.rows(released_file, "vector_stores")
    real = locks._retry_while_busy
    done: list[str] = []

    def commit(connection: Any, statement: str, timeout: float, name: str) -> None:
        if statement == "COMMIT" and name == str(released_file) and not done:
            done.append(statement)
            raise reported(sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC")
        real(connection, statement, timeout, name)

    with monkeypatch.context() as patched:
        patched.setattr(locks, "_retry_while_busy", commit)
        result = run_cli("--db-path", released_file, "migrate")
    assert 5 == result.code, result.err
    assert "as it was before the run" in result.err
    assert before == legacy.rows(released_file, "vector_stores")


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("words", [["migrate"], ["restore"]])
def test_what_cannot_be_removed_afterwards_fails_nothing(
    fault: tuple[str, int],
    words: list[str],
    released_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A warning, exit 0, and the next run removes it."""
    what, code = fault
    if words == ["restore"]:
        vecmigrate.upgrade(url(released_file))
        words = ["restore", vecmigrate.backup(url(released_file)).name]
    with monkeypatch.context() as patched:
        refused = refuse_unlinking(patched, lambda path: what in path, code)
        result = run_cli("--db-path", released_file, *words)
    assert 0 == result.code, result.err
    assert [] != refused
    assert os.strerror(code) in caplog.text
    assert HEAD == legacy.revision(released_file)
    assert [] != leftovers(released_file)
    again = run_cli("--db-path", released_file, *words)
    assert 0 == again.code, again.err
    assert [("success",)] == legacy.query(released_file, "SELECT DISTINCT status FROM vecmigrate_history")
    assert [name for name in leftovers(released_file) if what == ".run-" or words[0] == "restore"] == []


def test_a_service_starts_where_only_the_cleaning_failed(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is migrated, so it is usable."""
    refuse_unlinking(monkeypatch, lambda path: ".run-" in path or path.endswith(".tmp"), errno.EIO)
    report = vecmigrate.ensure_current(url(released_file))
    assert "migrated" == report.state
    assert report.usable


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_restore_whose_last_step_reports_an_error_has_succeeded(
    mode: str, released_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database is looked at before anything is said: all of the new state is there."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, f"PRAGMA journal_mode = {mode}")
    name = vecmigrate.backup(url(released_file)).name
    legacy.execute(released_file, "CREATE TABLE since (a)")

    class Failing(sqlite_driver.Connection):
        def backup(self, target: sqlite3.Connection, **options: Any) -> None:
            super().backup(target, **options)
            if str(released_file) == target.execute("PRAGMA database_list").fetchone()[2]:
                raise reported(sqlite3.SQLITE_IOERR_UNLOCK, "SQLITE_IOERR_UNLOCK")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_files, "Connection", Failing)
        result = run_cli("--db-path", released_file, "restore", name)
    assert 0 == result.code, result.err
    assert "is restored. What came after that failed" in caplog.text
    assert "since" not in legacy.tables(released_file)
    assert [] == leftovers(released_file)
    assert ("success",) == legacy.query(released_file, "SELECT status FROM vecmigrate_history ORDER BY id DESC")[0]


def test_what_is_told_after_a_run_fails_nothing(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has ended well, whether or not it can be read what is left to embed."""
    error = DatabaseUnusableError("SQLite was refused it.", next_step="run it again")
    monkeypatch.setattr(Migrator, "reembedding", mock.Mock(side_effect=error))

    result = run_cli("--db-path", released_file, "migrate")

    assert (0, HEAD) == (result.code, legacy.revision(released_file))
    assert "could not be read: SQLite was refused it." in result.err
