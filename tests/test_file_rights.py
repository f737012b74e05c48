"""Folders of others, and shares that cannot do what a disk can."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import legacy
import vecmigrate
from doors import run_cli, run_forked, url
from vecmigrate import file_rights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes and owners of POSIX")
OWNER = 12345
WITHOUT_CAPABILITIES = """
import ctypes, os, sys
if os.geteuid() == 0:
    # Root passes every check of permissions, by capabilities that it can give up.
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
from vecmigrate.cli import main
main()
"""


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk behave like a share: every file has the mode of the mount, and names cannot be synced."""
    really_chmod, really_sync = os.chmod, os.fsync

    def chmod(target: Any, _mode: int, **_: Any) -> None:
        really_chmod(target, 0o755)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        really_sync(descriptor)

    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(file_rights, "_logged", set())
    monkeypatch.setattr(file_rights, "_notes", [])


@pytest.mark.usefixtures("share")
def test_a_run_on_a_share_goes_on_and_says_what_it_has_not(
    released_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is migrated and backed up, the notes name the folder and what could not be set, and the log has each once."""
    report = vecmigrate.upgrade(url(released_file))
    again = vecmigrate.backup(url(released_file))

    assert report.backup is not None
    assert Path(again.path).exists()
    [modes, syncs] = sorted(note for note in report.notes if str(released_file.parent / "backups") in note)
    assert "cannot be synced (Invalid argument)" in modes
    assert "does not let the mode" in syncs
    logged = [record.getMessage() for record in caplog.records]
    assert len(set(logged)) == len(logged)
    assert set(report.notes) <= set(logged)


@pytest.mark.usefixtures("share")
def test_a_restore_on_a_share_works_too(released_file: Path) -> None:
    """Of a database that is gone as well."""
    made = vecmigrate.backup(url(released_file))
    for suffix in ("", "-wal", "-shm"):
        Path(f"{released_file}{suffix}").unlink(missing_ok=True)

    assert 0 == run_cli("--db-path", released_file, "restore", made.name).code
    assert 50 == len(legacy.rows(released_file, "sessions"))


def test_another_fault_of_a_disk_is_an_error(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a share has not is passed over: a sync that fails is a fault, and the message names its file."""

    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    done = run_cli("--db-path", released_file, "backup", "create")

    assert 1 == done.code
    assert "Input/output error" in done.err
    assert "make" not in done.err.rpartition("Next: ")[2]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_in_a_folder_of_a_service_belongs_to_that(released_file: Path) -> None:
    """A database restored where there was none, backups, their folder and the mirror: the service writes them too."""
    folder = released_file.parent
    for place in (folder, *folder.iterdir()):
        os.chown(place, OWNER, OWNER)
    vecmigrate.upgrade(url(released_file))
    vecmigrate.upgrade(url(folder / "fresh.sqlite3"))
    made = vecmigrate.backup(url(released_file))
    for suffix in ("", "-wal", "-shm"):
        Path(f"{released_file}{suffix}").unlink(missing_ok=True)
    vecmigrate.restore(url(released_file), name=made.name)

    assert [] == [str(each) for each in folder.rglob("*") if each.stat().st_uid != OWNER]
    assert folder / "backups" / ".gitignore" in set(folder.rglob("*"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_backup_folder_of_somebody_else_is_told_with_its_owner(released_file: Path) -> None:
    """The message says whose it is, and the command that gives it to this process."""
    folder = released_file.parent / "backups"
    folder.mkdir(mode=0o755)
    os.chown(folder, OWNER, OWNER)

    done = run_forked(WITHOUT_CAPABILITIES, "--db-path", released_file, "migrate")

    assert 1 == done.code
    assert f"{folder} belongs to user {OWNER}, and this process is root (0): sudo chown -R 0 {folder}" in done.err


def test_a_backup_folder_that_may_not_be_written_is_told(released_file: Path) -> None:
    """One's own needs no other owner, but another mode."""
    folder = released_file.parent / "backups"
    folder.mkdir(mode=0o500)

    done = run_forked(WITHOUT_CAPABILITIES, "--db-path", released_file, "migrate")

    assert 1 == done.code
    assert f"make {folder} writable, or set VECMIGRATE_BACKUP_DIR" in done.err
