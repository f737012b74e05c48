"""Databases that are gone, of which a path has nothing left but their backups."""

import os

from vecmigrate.errors import BackupError, DatabaseUnusableError
from vecmigrate.manifests import Backup, command, listing
from vecmigrate.verification import is_verified

__all__ = ["last_of_another", "note_on_another", "require_none", "restoring"]


def last_of_another(folder: str, database_path: str, *, database_id: str | None = None) -> Backup | None:
    """Return the newest sound backup of a database at this path other than *database_id*, or None. Read-only."""
    return _newest_sound(_of_others(folder, database_path, database_id))


def _of_others(folder: str, database_path: str, database_id: str | None) -> list[Backup]:
    path = os.path.realpath(database_path)
    try:
        found = listing(folder, database_id=None, database_path=path)
    except BackupError:
        # Whoever needs the folder fails by it.
        return []
    return [each for each in found if each.database_path == path and each.database_id != database_id]


def _newest_sound(backups: list[Backup]) -> Backup | None:
    return next((each for each in backups if is_verified(each)), None)


def restoring(backup: Backup) -> str:
    """Return the command that puts a backup where its database was."""
    return command(backup.database_path, "restore", backup.name)


def require_none(folder: str, database_path: str) -> None:
    """Raise DatabaseUnusableError, for a path without a database, where a backup of one is left. Read-only."""
    if left := last_of_another(folder, database_path):
        what = "is an empty file" if os.path.exists(database_path) else "does not exist"
        raise DatabaseUnusableError(
            f"{database_path} {what}, and there are backups of a database that was there. Nothing was changed.",
            next_step=restoring(left),
        )


def note_on_another(folder: str, database_path: str, *, database_id: str | None, is_new: bool) -> str | None:
    """Return what to tell of a database that nothing but backups are left of; None if there was none. Read-only."""
    others = _of_others(folder, database_path, database_id)
    if not others:
        return None
    what = "has no database, and a new, empty one is made" if is_new else "is not the database it was"
    left = _newest_sound(others)
    if left is None:
        listed = command(database_path, "backup", "verify")
        return (
            f"{database_path} {what}: the backups in {folder} are of one that was there before, and none of them is "
            f"sound. What is wrong with each: {listed}"
        )
    return (
        f"{database_path} {what}: the backups in {folder} are of one that was there before. If that one was lost, stop "
        f"what uses the new file and move it aside, with its -wal and -shm if there are any, then: {restoring(left)}"
    )
