"""The backups of a database: missing, damaged, not readable, or none since the last change."""

import os
from datetime import UTC, datetime

from vecmigrate import backups, damaged_bytes, manifests
from vecmigrate.errors import BackupError
from vecmigrate.manifests import Backup, manifest_of
from vecmigrate.shell import moving, quoted, removing
from vecmigrate.sqlite_files import SUFFIX
from vecmigrate.tools.finding import ERROR, NOTE, Finding, Findings, Subject

__all__ = ["damaged", "missing", "stale", "unreadable"]


def missing(subject: Subject) -> Findings:
    """Tell of manifests whose data file is gone, and of a last change whose backup is, with all others."""
    gone = [each for each in subject.backups if not os.path.lexists(each.path)]
    for backup in gone:
        step = removing(manifest_of(backup.path))
        if len(gone) == len(subject.backups):
            step += " && " + subject.command("backup", "create")
        message = f"The backup {backup.path} is gone; only its manifest is there, which the command removes."
        yield Finding("backup-missing", ERROR, message, step)
    last = subject.last_change
    made = last.metadata.get("backup_path") if last and not subject.backups else None
    if isinstance(made, str) and not os.path.exists(made):
        message = f"The backup of the last change, {made}, is gone, and there is no other one."
        yield Finding("backup-missing", ERROR, message, subject.command("backup", "create"))


def unreadable(subject: Subject) -> Findings:
    """Tell of backups and manifests that this user cannot read, and of a folder that cannot be listed."""
    if subject.path is None:
        return
    places = [backup.path for backup in subject.backups]
    places += [os.path.join(subject.folder, name) for name in manifests.damaged(subject.folder)]
    for path in filter(_is_kept_from, places):
        mine = os.stat(path).st_uid == os.geteuid() if hasattr(os, "geteuid") else True
        chmod = f"chmod u+rw -- {quoted(path)}"
        step = chmod if mine else f"let root give you the file: chown {os.geteuid()} -- {quoted(path)}"
        yield Finding("backup-unreadable", ERROR, f"{path} cannot be read by this user.", step)


def _is_kept_from(path: str) -> bool:
    by_effective_user = os.access in os.supports_effective_ids
    return os.path.lexists(path) and not os.access(path, os.R_OK, effective_ids=by_effective_user)


def damaged(subject: Subject) -> Findings:
    """Tell of backups that are not what their manifest says, of manifests that say nothing, and of lone data files.

    The commands move them aside and remove nothing: who wants to may still look into them.
    """
    if subject.path is None:
        return
    budget = subject.QUICK_BYTES
    for backup in subject.backups:
        if not os.path.lexists(backup.path) or _is_kept_from(backup.path):
            continue
        budget -= backup.bytes
        if problem := _problem(backup, whole=subject.deep or budget >= 0):
            yield _aside(problem, backup.path, manifest_of(backup.path))
    for name in manifests.damaged(subject.folder):
        path = os.path.join(subject.folder, name)
        data = path.removesuffix(".json") + SUFFIX
        if not _is_kept_from(path):
            both = [each for each in (data, path) if os.path.lexists(each)]
            yield _aside(f"The manifest {path} cannot be read, so its backup is listed nowhere.", *both)
    saved = set(map(os.path.basename, damaged_bytes.saved(subject.path, subject.folder)))
    for path in manifests.unlisted(subject.folder, subject.path):
        # What a restore has saved of a damaged database has no manifest.
        if os.path.basename(path) in saved:
            continue
        yield _aside(f"The backup {path} has lost its manifest, so it is listed nowhere.", path)


def _problem(backup: Backup, *, whole: bool) -> str | None:
    try:
        if whole:
            backups.verify(backup)
        else:
            backups.check_size(backup)
    except BackupError as error:
        return error.message.removesuffix(" Nothing was changed.")
    return None


def _aside(message: str, *paths: str) -> Finding:
    step = " && ".join(moving([path], f"{path}.damaged") for path in paths)
    return Finding("backup-damaged", ERROR, f"{message} The command moves it aside.", step)


def stale(subject: Subject) -> Findings:
    """Tell where no backup is newer than the last change: the one of a run holds the state before it."""
    last = subject.last_change
    if (
        subject.path is None
        or last is None
        or any(_moment(each.created_at) > _moment(last.executed_at) for each in subject.backups)
    ):
        return
    message = f"There is no backup since the last change ({last.migration_id}, {last.direction}) of {last.executed_at}."
    yield Finding("backup-stale", NOTE, message, subject.command("backup", "create"), times=(last.executed_at,))


def _moment(text: str) -> datetime:
    """Return a time of a manifest or of the history; anybody may have written either."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
