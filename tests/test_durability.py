"""What is told as done outlives a loss of power: what has to be synced is, before the next step."""

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

import legacy
import vecmigrate
from doors import run_cli, url
from scripts import Scripts
from vecmigrate import sqlite_driver, sqlite_files

EXTRA = 3
pytestmark = pytest.mark.skipif(os.name == "nt", reason="there folders are not synced")


class Names:
    """The names that are given in folders, and the syncs of those, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                self.events.append(("sync", f"{status.st_ino}"))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        for name, which in (("mkdir", 0), ("link", 1), ("replace", 1), ("rename", 1)):
            monkeypatch.setattr(os, name, self._noting(getattr(os, name), which))

    def _noting(self, call: Any, which: int) -> Any:
        def noting(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            self.events.append(("name", os.fspath(arguments[which])))
            return result

        return noting

    def unsynced(self, below: Path) -> list[str]:
        """Return the names that were still not synced when the next one was given, or at the end."""
        given = [(at, path) for at, (what, path) in enumerate(self.events) if what == "name" and str(below) in path]
        assert given
        ends = [at for at, _ in given[1:]] + [len(self.events)]
        return [path for (at, path), end in zip(given, ends, strict=True) if not self._is_synced(path, at, end)]

    def _is_synced(self, path: str, at: int, end: int) -> bool:
        folder = os.stat(os.path.dirname(path)).st_ino
        return ("sync", f"{folder}") in self.events[at:end]


@pytest.mark.parametrize("words", [["migrate"], ["backup", "create"]])
def test_every_name_is_synced_before_the_next_is_given(
    words: list[str], released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders that are made, the data of a backup, its manifest, the marker of a run, and the mirror."""
    names = Names(monkeypatch)
    assert 0 == run_cli("--db-path", released_file, *words).code
    monkeypatch.undo()
    assert [] == names.unsynced(released_file.parent)
    assert len({path for what, path in names.events if what == "name"}) >= 3


@pytest.mark.parametrize("loss", ["missing", "damaged"])
def test_every_name_of_a_restore_is_synced(loss: str, released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the database itself gets its name anew."""
    vecmigrate.upgrade(url(released_file))
    name = vecmigrate.backup(url(released_file)).name
    released_file.unlink()
    if loss == "damaged":
        released_file.write_bytes(b"damaged" * 1000)
    names = Names(monkeypatch)
    assert 0 == run_cli("--db-path", released_file, "restore", name).code
    monkeypatch.undo()
    assert [] == names.unsynced(released_file.parent)


def test_the_first_run_syncs_the_name_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built beside its place, so that it has its name only once it is whole."""
    names = Names(monkeypatch)
    assert 0 == run_cli("--db-path", tmp_path / "sessions.sqlite3", "migrate").code
    monkeypatch.undo()
    assert [] == names.unsynced(tmp_path)


def test_a_run_has_sqlite_sync_the_folder_of_its_journal(released_file: Path, scripts: Scripts) -> None:
    """Else a loss of power may bring the journal back, which rolls back what was told as done."""
    scripts.add(f"assert {EXTRA} == op.get_bind().exec_driver_sql('PRAGMA synchronous').scalar()")
    legacy.execute(released_file, "PRAGMA journal_mode = delete")
    vecmigrate.upgrade(url(released_file))


def test_a_restore_has_sqlite_sync_the_folder_of_its_journal(
    released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run has."""
    vecmigrate.upgrade(url(released_file))
    name = vecmigrate.backup(url(released_file)).name
    levels: list[int] = []

    class Watched(sqlite_driver.Connection):
        def backup(self, target: sqlite3.Connection, **options: Any) -> None:
            if str(released_file) == target.execute("PRAGMA database_list").fetchone()[2]:
                levels.append(target.execute("PRAGMA synchronous").fetchone()[0])
            super().backup(target, **options)

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_files, "Connection", Watched)
        assert 0 == run_cli("--db-path", released_file, "restore", name).code
    assert [EXTRA] == levels
