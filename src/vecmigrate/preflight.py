"""The backup of the state just before a change, under the lock and before the first write."""

import logging
import os
from collections.abc import Collection
from contextlib import closing

from sqlalchemy import Connection

from vecmigrate import backups, history, manifests, series, sqlite_files
from vecmigrate.catalog import has_content
from vecmigrate.engine import Database, quick_check
from vecmigrate.errors import BackupError
from vecmigrate.settings import Settings

__all__ = ["back_up"]

log = logging.getLogger("vecmigrate")


def back_up(
    connection: Connection,
    database: Database,
    settings: Settings,
    *,
    database_id: str,
    revision: str | None,
    app_version: str | None,
    direction: str,
    written: Collection[str] | None = None,
) -> tuple[str | None, bool]:
    """Save the state before the change if it is to be saved; return the path of the backup, and whether it is one more.

    A run that fails again and again reuses its backup while the state is the same, else replaces its last one, so that
    it fills no disk. Where no backup is wanted, damage is looked for where the change writes, and not in what may be
    many times larger: in the tables ``written`` by its rehearsal, in lower case, or in all where that is not known.
    """
    if database.path is None:
        _refuse_unbacked(database, settings)
    if database.path is None or not has_content(connection):
        return None, False
    if settings.backup == "never":
        quick_check(database, tables=written)
        return None, False
    folder = settings.backup_folder(database.path)
    backups.prepare_folder(folder)
    for each in (folder, os.path.dirname(database.path)):
        backups.clean_temporary(each, database.path)
    kept = _reusable(connection, database.path, folder, database_id=database_id, revision=revision)
    is_new = kept is None
    try:
        kept = kept or backups.create(
            database.path,
            folder,
            database_id=database_id,
            revision=revision,
            app_version=app_version,
            reason=f"before {direction}",
            timeout=settings.lock_timeout,
        )
    except BackupError:
        quick_check(database)  # Damage of the database itself is the better message.
        raise
    log.info("Backup: %s", kept.path)
    return kept.path, is_new and not _replaces_others(database.path, folder, kept)


def _refuse_unbacked(database: Database, settings: Settings) -> None:
    if settings.backup == "always" and not database.is_sqlite:
        raise BackupError(
            f"backup = always, and a backup of {database} cannot be made here yet. Nothing was changed.",
            next_step="back it up with pg_dump, then run again with VECMIGRATE_BACKUP=never",
        )


def _replaces_others(path: str, folder: str, made: manifests.Backup) -> bool:
    with closing(sqlite_files.connect(path)) as live:
        return bool(series.thin(folder, live, made))


def _reusable(
    connection: Connection, path: str, folder: str, *, database_id: str, revision: str | None
) -> manifests.Backup | None:
    last = history.read(connection, limit=1)
    if not last or last[0].status == "success":
        return None
    # On a connection of its own: this one holds the lock, and reads nothing but what it has to.
    with closing(sqlite_files.connect(path)) as live:
        return backups.reusable(folder, live, revision=revision, database_id=database_id, database_path=path)
