"""Whether the file of a database or of a backup is whole, and what its manifest says."""

import contextlib
import hashlib
import shutil
import sqlite3
from pathlib import Path

from vecmigrate import progress, soundness, sqlite_driver, sqlite_files
from vecmigrate.causes import described
from vecmigrate.errors import BackupError
from vecmigrate.manifests import Backup, command

__all__ = [
    "NO_ACCESS",
    "check_size",
    "check_sound",
    "copy_verified",
    "hashed",
    "is_damaged",
    "is_verified",
    "revision_in",
    "sha256",
    "verify",
]

_BLOCK_BYTES = 1 << 20

NO_ACCESS = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY})
"""What SQLite says of a file that it is kept from, whatever that holds."""


def is_verified(backup: Backup) -> bool:
    """Tell whether the data file has the size and hash of its manifest. Read-only."""
    try:
        path = Path(backup.path)
        same_size = path.is_file() and path.stat().st_size == backup.bytes
        return same_size and sha256(backup.path) == backup.sha256
    except OSError:
        return False


def verify(backup: Backup) -> None:
    """Raise BackupError, saying why, unless the data file is whole and what its manifest says. Read-only."""
    _check_file(backup, backup.path)


def copy_verified(backup: Backup, target: str) -> None:
    """Copy the data file over the file *target* and verify the copy: what is checked is what will be used."""
    try:
        shutil.copyfile(backup.path, target)
    except FileNotFoundError as error:
        raise _refused(backup, "the file is missing") from error
    except OSError as error:
        raise _refused(backup, f"it cannot be copied: {described(error)}") from error
    _check_file(backup, target)


def check_size(backup: Backup, path: str = "") -> None:
    """Raise BackupError unless the file *path*, or the data file, is as large as the manifest says. Read-only."""
    file = Path(path or backup.path)
    try:
        size = file.stat().st_size if file.is_file() else None
    except OSError as error:
        raise _refused(backup, f"it cannot be read: {described(error)}") from error
    if size is None:
        raise _refused(backup, "the file is missing")
    if size != backup.bytes:
        raise _refused(backup, f"its size is {size} bytes instead of {backup.bytes}")


def _check_file(backup: Backup, path: str) -> None:
    check_size(backup, path)
    try:
        if hashed(path) != backup.sha256:
            raise _refused(backup, "its sha256 differs from the manifest's")
    except OSError as error:
        raise _refused(backup, f"it cannot be read: {described(error)}") from error
    check_sound(backup, path)


def check_sound(backup: Backup, path: str) -> None:
    """Raise BackupError unless the database in the closed file *path* is whole, and the one of *backup*."""
    try:
        with contextlib.closing(sqlite_files.open_closed_file(path)) as connection:
            problems = soundness.problems(connection)
            inside = sqlite_files.identity(connection)
    except sqlite3.Error as error:
        raise _refused(backup, f"quick_check cannot read it: {described(error)}") from error
    if problems:
        raise _refused(backup, f"quick_check failed: {problems[0]}")
    if inside.database_id not in {None, backup.database_id}:
        raise _refused(backup, "it holds another database than its manifest says")
    if backup.revision != inside.revision:
        held, said = (revision or "base" for revision in (inside.revision, backup.revision))
        raise _refused(backup, f"it holds revision {held}, its manifest says {said}")


def _refused(backup: Backup, reason: str) -> BackupError:
    return BackupError(
        f"The backup {backup.path or backup.database_path} is not usable: {reason}. Nothing was changed.",
        next_step=command(backup.database_path, "backup", "list"),
    )


def revision_in(path: str) -> str | None:
    """Return the revision of the database in a closed file, None for base; see ``sqlite_files.Identity``."""
    with contextlib.closing(sqlite_files.open_closed_file(path)) as connection:
        return sqlite_files.identity(connection).revision


def sha256(path: str) -> str:
    """Return the hash of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashed(path: str) -> str:
    """Return the hash of a file, and tell how far that is."""
    digest = hashlib.sha256()
    size = Path(path).stat().st_size
    with progress.phase("verify", name=path, unit="bytes", total=size) as phase:
        if phase is None:
            return sha256(path)
        with Path(path).open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                phase.at(file.tell())
    return digest.hexdigest()


def is_damaged(database: str, deadline: float) -> bool:
    """Tell whether pages or records of a database that may be live are damaged. Changes nothing.

    Waits for others until *deadline*, a ``time.monotonic()``. Raises sqlite3.Error where that cannot be told.
    """
    # Closing a writable connection would write the WAL into a damaged database, and delete it.
    try:
        return _has_problems(database, "mode=ro", deadline)
    except sqlite3.Error as error:
        if sqlite_driver.result_code(error) not in NO_ACCESS:
            raise
    # A hot journal has to be rolled back before anything can be read.
    return _has_problems(database, "mode=rw", deadline)


def _has_problems(database: str, options: str, deadline: float) -> bool:
    def look() -> bool:
        with contextlib.closing(sqlite_files.connect(database, options=options)) as live:
            return bool(soundness.problems(live))

    try:
        return sqlite_files.patiently(look, deadline)
    except sqlite3.Error as error:
        is_newer = soundness.has_unknown_format(database) and not soundness.has_spoiled_format(database)
        if is_newer or not soundness.is_damage(error):
            raise
        return True
