"""Backups of one SQLite database in a folder: written whole or not at all, found, verified, rotated.

A backup is a data file and, beside it, a manifest of the same name.
"""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vecmigrate import file_rights, sqlite_files, trust
from vecmigrate.causes import described
from vecmigrate.comparison import same_content
from vecmigrate.errors import BackupError, LockTimeoutError
from vecmigrate.manifests import (
    Backup,
    command,
    damaged,
    file_names,
    find,
    listing,
    manifest_of,
    manifests,
    own,
    recorded_id,
    stem_of,
    write,
)
from vecmigrate.scratch_files import clean_temporary, scratch
from vecmigrate.verification import check_size, check_sound, copy_verified, hashed, is_verified, revision_in, verify

__all__ = [
    "Backup",
    "check_room",
    "check_size",
    "clean_temporary",
    "command",
    "copy_verified",
    "create",
    "damaged",
    "discard",
    "find",
    "is_removed",
    "is_verified",
    "listing",
    "newest_verified",
    "prepare_folder",
    "recorded_id",
    "reusable",
    "rotate",
    "scratch",
    "verify",
]

log = logging.getLogger("vecmigrate")
_MARGIN = 1 << 16
_FEW = 3


def create(
    database: str,
    folder: str,
    *,
    database_id: str,
    revision: str | None,
    app_version: str | None,
    reason: str,
    timeout: float,
    source: sqlite3.Connection | None = None,
) -> Backup:
    """Write a verified backup of the committed state of *database* into *folder*.

    Takes no write lock: call it while another connection holds ``BEGIN IMMEDIATE`` and has written nothing,
    then no commit fits between the backup and the change. It reads on a connection of its own, or through
    *source*, which may be the one that holds an exclusive lock. Raises LockTimeoutError when the database
    stays unreadable for *timeout* seconds, BackupError for everything else; both leave nothing behind.
    """
    deadline = time.monotonic() + timeout
    prepare_folder(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_explained(database, folder))
        temporary = stack.enter_context(scratch(folder, database_id, database))
        connection = source or stack.enter_context(contextlib.closing(sqlite_files.connect(database)))
        size = sqlite_files.patiently(lambda: sqlite_files.content_size(connection), deadline)
        _check_content(size, database)
        check_room(folder, size, database=database)
        sqlite_files.copy_pages(connection, temporary, deadline=deadline)
        draft = Backup(
            name="",
            path=temporary,
            # Where the version table does not say it, None would pass it off as base.
            revision=revision or revision_in(temporary),
            app_version=app_version,
            created_at="",
            bytes=Path(temporary).stat().st_size,
            reason=reason,
            database_id=database_id,
            database_path=os.path.realpath(database),
            sha256=hashed(temporary),
            sequence=max((backup.sequence for backup, _ in manifests(folder) if backup), default=0) + 1,
            journal_mode=sqlite_files.pragma(connection, "journal_mode"),
        )
        check_sound(draft, temporary)
        return _publish(temporary, draft, folder)


@contextlib.contextmanager
def _explained(database: str, folder: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if sqlite_files.is_busy(error):
            raise LockTimeoutError(
                f"{database} is in use by another process, longer than the timeout. Nothing was changed.",
                next_step="wait for that process or stop it, then: " + command(database, "status"),
            ) from error
        raise BackupError(
            f"No backup of {database} could be written to {folder}: {described(error)}. Nothing was changed.",
            next_step=f"{file_rights.how_to_write(folder, error)}, then: " + command(database, "backup", "create"),
        ) from error


def _check_content(size: int, database: str) -> None:
    if not size:
        raise BackupError(
            f"{database} is empty: there is nothing to back up. Nothing was changed.",
            next_step=command(database, "status"),
        )


def check_room(folder: str, needed: int, *, database: str) -> None:
    """Raise BackupError, naming *folder* and the bytes, where its disk has no room for so many more."""
    free = shutil.disk_usage(folder).free
    needed += _MARGIN
    if free < needed:
        step = f"free {needed - free} bytes there"
        if os.path.realpath(folder) != os.path.dirname(os.path.realpath(database)):
            step += ", or set VECMIGRATE_BACKUP_DIR to a folder on another disk"
        if _can_be_pruned(folder, database):
            step += ", for example with: " + command(database, "backup", "prune", "--keep", str(_FEW))
        raise BackupError(
            f"{folder} needs {needed} bytes free and has {free}. Nothing was changed.",
            next_step=step,
        )


def _can_be_pruned(folder: str, database: str) -> bool:
    found = own(folder, database_id=recorded_id(folder, database_path=database), database_path=database)
    return len(found) > _FEW


def _publish(temporary: str, draft: Backup, folder: str) -> Backup:
    # The data is complete before it gets its name and the manifest comes last: a crash leaves at worst a data
    # file that no listing shows, a second name of the temporary one, by which clean_temporary knows it.
    mine, moment = Path(temporary).stat(), datetime.now(UTC)
    while True:
        backup = _named(draft, folder, moment)
        try:
            if _claim_name(temporary, backup):
                _describe(backup, folder)
                return backup
        except BaseException:
            # It may have come from the outside right after the name was ours.
            if os.path.lexists(backup.path) and os.path.samestat(mine, os.lstat(backup.path)):
                discard(backup.path)
            raise
        moment += timedelta(microseconds=1)


def _named(draft: Backup, folder: str, moment: datetime) -> Backup:
    label = re.sub(r"[^A-Za-z0-9_.]", "_", draft.revision or "base")[:60]
    name = f"{stem_of(draft.database_path)}-{moment:%Y%m%dT%H%M%S.%f}Z-{label}{sqlite_files.SUFFIX}"
    path = str(Path(folder).absolute() / name)
    return replace(draft, name=name, path=path, created_at=moment.isoformat(timespec="microseconds"))


def _claim_name(temporary: str, backup: Backup) -> bool:
    if os.path.lexists(manifest_of(backup.path)) or not sqlite_files.rename_to_new(temporary, backup.path):
        return False
    # Else a loss of power could leave the manifest, and not the name of the data that it tells of.
    sqlite_files.sync_folder(os.path.dirname(backup.path))
    return True


def _describe(backup: Backup, folder: str) -> None:
    with scratch(folder, backup.database_id, backup.database_path) as manifest:
        write(backup, manifest)
        sqlite_files.sync(manifest)
        Path(manifest).replace(manifest_of(backup.path))
    sqlite_files.sync_folder(folder)


def discard(path: str) -> None:
    """Remove the backup whose data file this is. Raises OSError."""
    # The data first: a manifest alone is listed and fails verification, data alone would lie there for ever.
    Path(path).unlink(missing_ok=True)
    Path(manifest_of(path)).unlink(missing_ok=True)


def prepare_folder(folder: str) -> None:
    """Create the backup folder (0700, ignored by git) where there is none; leave an existing one alone.

    Raises BackupError, and leaves nothing behind then.
    """
    path = Path(folder)
    if path.is_dir() and not _is_half_made(path):
        trust.warn(folder)
        return
    new = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in reversed(new):
            _take_over(made)
        if new:
            file_rights.keep_private(folder, 0o700, path=folder)
        with open(path / ".gitignore", "w", encoding="utf-8") as ignore:
            file_rights.belong_to_folder(ignore.fileno(), str(path / ".gitignore"))
            ignore.write("*\n")
        for each in new:
            sqlite_files.sync_folder(str(each.parent))
    except BaseException as error:
        _unmake(path, new)
        if not isinstance(error, OSError):
            raise
        raise BackupError(
            f"The backup folder {folder} could not be created: {described(error)}. Nothing was changed.",
            next_step=f"{file_rights.how_to_write(_standing(path), error)}, then run the same again",
        ) from error


def _standing(path: Path) -> str:
    """Return a folder, or the nearest one above it that is there."""
    return str(next(each for each in (path, *path.absolute().parents) if each.exists()))


def _take_over(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        file_rights.belong_to_folder(descriptor, str(folder))
    finally:
        os.close(descriptor)


def _is_half_made(path: Path) -> bool:
    """Tell whether a folder holds an empty .gitignore and nothing else, which only a run that was killed leaves."""
    return file_names(str(path)) == {".gitignore"} and not (path / ".gitignore").stat().st_size


def _unmake(path: Path, new: Sequence[Path]) -> None:
    # What somebody else has put there by now stays, with its folder.
    with contextlib.suppress(OSError):
        if new and file_names(str(path)) == {".gitignore"}:
            (path / ".gitignore").unlink()
        for each in new:
            each.rmdir()


def newest_verified(folder: str, revision: str | None, *, database_id: str | None, database_path: str) -> Backup | None:
    """Return the newest backup of *revision* that stands every check, or None; see ``own``. Read-only."""
    for backup in own(folder, database_id=database_id, database_path=database_path):
        with contextlib.suppress(BackupError):
            if backup.revision == revision:
                verify(backup)
                return backup
    return None


def rotate(
    folder: str,
    *,
    keep: int,
    database_id: str | None,
    database_path: str,
    head: str | None,
    order: Sequence[str],
    stuck: list[str] | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Remove this database's oldest backups beyond *keep* and return their names; only that with *dry_run*.

    The newest verified one of each revision below *head* always stays: *order* has the revisions from base
    to head, and None is below them all; one whose revision is unknown leads to none of them. Backups of other
    databases, and of copies of this one, are neither counted nor touched. The paths of those that could not be
    removed are added to *stuck*.
    """
    backups = own(folder, database_id=database_id, database_path=database_path)
    surplus = backups[max(keep, 0) :]
    if not surplus:
        return []
    above = {sqlite_files.UNKNOWN, *(order[order.index(head) :] if head in order else {head} - {None})}
    ways_back = []
    for revision in {backup.revision for backup in surplus} - above:
        of_revision = (backup for backup in backups if backup.revision == revision)
        ways_back.append(next((backup for backup in of_revision if is_verified(backup)), None))
    doomed = [backup for backup in reversed(surplus) if backup not in ways_back]
    removed = [backup for backup in doomed if dry_run or is_removed(backup)]
    if stuck is not None:
        stuck += [backup.path for backup in doomed if backup not in removed]
    return [backup.name for backup in removed]


def is_removed(backup: Backup) -> bool:
    """Remove a backup; where that cannot be, log it, because the next one may go all the same."""
    try:
        discard(backup.path)
    except OSError as error:
        log.warning("The old backup %s could not be removed: %s", backup.path, described(error))
        return False
    return True


def reusable(
    folder: str, live: sqlite3.Connection, *, revision: str | None, database_id: str, database_path: str
) -> Backup | None:
    """Return the newest backup if it is sound and still holds what the database does, else None. Read-only."""
    newest = next(iter(own(folder, database_id=database_id, database_path=database_path)), None)
    is_same = (
        newest is not None
        and newest.revision in {revision, revision or sqlite_files.UNKNOWN}
        and is_verified(newest)
        and same_content(newest.path, live)
    )
    return newest if is_same else None
