"""The backups of one database, and the way back from them."""

import logging
import os
import sqlite3
import time
import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from vecmigrate import backups, bystanders, file_rights, history, lost, manifests, meta, records, restoring
from vecmigrate.access import Access, one_at_a_time
from vecmigrate.carrying import carry_over, restored
from vecmigrate.catalog import has_content
from vecmigrate.engine import quick_check, reading, translated, writing
from vecmigrate.errors import AheadError, BackupError, DatabaseUnusableError, NeedsPersonError, VecmigrateError
from vecmigrate.journal import Report
from vecmigrate.restore_errors import RestoreErrors
from vecmigrate.revisions import Revisions
from vecmigrate.run_end import only_told

__all__ = ["Archive"]

log = logging.getLogger("vecmigrate")


class Archive(Access):
    """Operations on backups. Only SQLite files have them here."""

    def _file(self) -> str:
        if self.database.path is None:
            raise BackupError(
                f"{self.database} is not an SQLite file, and only those are backed up here. Nothing was changed.",
                next_step="use the tools of the server, such as pg_dump",
            )
        return self.database.path

    def _identity(self) -> str | None:
        """Return the identity of the database; None where the file is absent or damaged, so its path decides."""
        path = self._file()
        try:
            if self.database.is_absent():
                return None
            with reading(self.database, timeout=self.settings.lock_timeout) as connection:
                known = meta.read(connection).get("database_id")
        except DatabaseUnusableError:
            return None
        # A sound database that was never migrated must not take the backups of one with the same name.
        folder = self.settings.backup_folder(path)
        return known or manifests.id_before_first_run(folder, database_path=path) or meta.new_database_id()

    def list_backups(self, *, database_id: str | None = None) -> list[manifests.Backup]:
        """Return the backups of this database, newest first. Reads manifests only."""
        path = self._file()
        return manifests.listing(
            self.settings.backup_folder(path), database_id=database_id or self._identity(), database_path=path
        )

    def backup_folder(self) -> str:
        return self.settings.backup_folder(self._file())

    def damaged_manifests(self) -> list[str]:
        """Return the names of manifests that cannot be read, whose backups are listed nowhere. Read-only."""
        return manifests.damaged(self.backup_folder())

    def foreign_backups(self) -> list[manifests.Backup]:
        """Return the backups of this path that are listed nowhere, because the database says it is another one."""
        return manifests.of_another(self.backup_folder(), self._identity(), self._file())

    def find_backup(self, name: str) -> manifests.Backup:
        path = self._file()
        folder = self.settings.backup_folder(path)
        return manifests.find(name, folder, database_id=self._identity(), database_path=path)

    def create_backup(self, reason: str = manifests.BY_HAND) -> manifests.Backup:
        """Back up the present state under the write lock. Raises BackupError, DatabaseUnusableError."""
        path, known = self._file(), self.revisions()
        if self.database.is_absent():
            lost.require_none(self.backup_folder(), path)
            raise self._nothing_in("does not exist")
        lock = writing(self.database, lock_timeout=self.settings.lock_timeout)
        with one_at_a_time, translated(self.database), lock as connection:
            revision = self._revision_even_if_ahead(connection, known)
            app_version = meta.read(connection).get("app_version") or known.app_version(None)
            if not has_content(connection):
                raise self._nothing_in("is empty")
            try:
                made = self._create(path, revision, app_version, reason)
            except BackupError:
                quick_check(self.database)  # Damage of the database itself is the better message.
                raise
        self._rotate_if_possible(made.database_id, known)
        return made

    def _nothing_in(self, why: str) -> BackupError:
        return BackupError(
            f"{self.database} {why}, so there is nothing to back up. Nothing was changed.",
            next_step=f"vecmigrate {self.database.option} migrate",
        )

    def _create(self, path: str, revision: str | None, app_version: str | None, reason: str) -> manifests.Backup:
        folder, database_id = self.settings.backup_folder(path), self._identity() or meta.new_database_id()
        backups.prepare_folder(folder)
        records.clean_leftovers(self.database, self.settings)
        return backups.create(
            path,
            folder,
            database_id=database_id,
            revision=revision,
            app_version=app_version,
            reason=reason,
            timeout=self.settings.lock_timeout,
        )

    def _revision_even_if_ahead(self, connection: Connection, known: Revisions) -> str | None:
        try:
            return self.revision(connection, known)
        except AheadError as error:
            return error.revision

    def _rotate(
        self,
        database_id: str,
        known: Revisions,
        *,
        keep: int | None = None,
        stuck: list[str] | None = None,
        dry_run: bool = False,
    ) -> list[str]:
        path = self._file()
        return backups.rotate(
            self.settings.backup_folder(path),
            keep=keep or self.settings.keep_backups,
            database_id=database_id,
            database_path=path,
            head=known.head,
            order=known.ids,
            stuck=stuck,
            dry_run=dry_run,
        )

    def _rotate_if_possible(self, database_id: str, known: Revisions) -> None:
        with only_told("Old backups"):
            self._rotate(database_id, known)

    def verified_backups(self) -> list[dict[str, Any]]:
        """Return the backups of this database, newest first, each file's hash checked. Read-only."""
        return [each.as_dict(verified=backups.is_verified(each)) for each in self.list_backups()]

    def verify_backups(self, name: str | None = None) -> list[dict[str, Any]]:
        """Check hash, integrity and identity of one backup or all; a fault is in ``problem``. Read-only."""
        chosen = [self.find_backup(name)] if name else self.list_backups()
        return [_verified(each) for each in chosen]

    def prune_backups(self, *, keep: int | None = None, dry_run: bool = False) -> list[str]:
        """Remove all but the newest backups of this database; return the names removed, with ``dry_run`` only that.

        Raises BackupError, after the others are gone, where one could not be removed.
        """
        found = self.list_backups()
        stuck: list[str] = []
        removed: list[str] = []
        if found:
            removed = self._rotate(found[0].database_id, self.revisions(), keep=keep, stuck=stuck, dry_run=dry_run)
        if stuck:
            raise BackupError(
                f"These old backups could not be removed: {', '.join(stuck)}. Removed: {len(removed)}. "
                "The database is as it was.",
                next_step=f"look at these files, then: vecmigrate {self.database.option} backup prune",
            )
        return removed

    def backup_of(self, target: str, *, name: str | None = None) -> manifests.Backup:
        """Return the newest verified backup of a revision, or the named one if it is of that revision.

        Raises BackupError if there is none. Read-only.
        """
        path, known = self._file(), self.revisions()
        wanted, _ = known.resolve(target, current=self._readable_revision(known))
        folder = self.settings.backup_folder(path)
        if name is None:
            found = backups.newest_verified(folder, wanted, database_id=self._identity(), database_path=path)
        else:
            found = self.find_backup(name)
        if found is None or found.revision != wanted:
            what = f"The backup {name} is not" if name else "There is no verified backup"
            raise BackupError(
                f"{what} of {path} at revision {wanted or 'base'} in {folder}. Nothing was changed.",
                next_step=f"vecmigrate {self.database.option} backup list",
            )
        return found

    def rehearse_restore(self, backup: manifests.Backup) -> Report:
        """Return where ``restore`` would lead, once the backup stands every check. Read-only. Raises as that does."""
        path, known = self._file(), self.revisions()
        # The manifest may know another path: the database was moved since.
        backup = replace(backup, database_path=path)
        bystanders.require_none_in(backup)
        backups.verify(backup)
        mine = None if self.database.is_absent() else self._identity()
        RestoreErrors(
            path=path, backup=backup, folder=self.backup_folder(), timeout=self.settings.lock_timeout
        ).refuse_foreign(mine)
        backups.check_room(os.path.dirname(path), 2 * backup.bytes, database=path)
        return Report(from_revision=self._readable_revision(known), to_revision=backup.revision)

    def restore(self, backup: manifests.Backup) -> Report:
        """Put a verified backup in place of the present state, which is saved first; history survives.

        Raises BackupError, LockTimeoutError, RestoreFailedError.
        """
        path, known, began = self._file(), self.revisions(), time.monotonic()
        report = Report(from_revision=self._readable_revision(known), to_revision=backup.revision)
        marker, has_begun = _marker(backup, known), False

        def carry(old: sqlite3.Connection | None, new: sqlite3.Connection, saved: manifests.Backup | None) -> None:
            nonlocal marker, has_begun
            has_begun = True
            marker = replace(marker, backup=saved.path if saved else None)
            marker.write(path)
            note = carry_over(old, new, saved, backup=backup, known=known, run_id=marker.run_id)
            report.notes += [note] if note else []

        bystanders.require_none_in(backup)
        with one_at_a_time:
            records.settle_if_readable(self.database, self.settings)
            try:
                done = restoring.restore(
                    path,
                    backup,
                    folder=self.settings.backup_folder(path),
                    database_id=self._identity(),
                    timeout=self.settings.lock_timeout,
                    carry=carry,
                )
            except VecmigrateError as error:
                if has_begun:
                    records.record_failed(self.database, self.settings, marker, error.message)
                raise
        report.backup = done.saved.path if done.saved else None
        report.created = done.saved is None and done.moved_aside is None
        if done.moved_aside:
            report.notes.append(f"The damaged file was moved aside: {done.moved_aside}")
        if done.bytes_in:
            report.notes.append(f"Its bytes are saved: {done.bytes_in}")
        self._finish(marker, backup.database_id, known)
        report.note_logged(file_rights.taken())
        report.duration_seconds = time.monotonic() - began
        return report

    def _finish(self, marker: history.Marker, database_id: str, known: Revisions) -> None:
        """Mirror the restored history, and remove what this restore and killed ones have left."""
        records.write_mirror(self.database, self.settings, token=meta.new_database_id())
        records.forget(self.database, marker)
        records.settle_afterwards(self.database, self.settings)
        self._rotate_if_possible(database_id, known)

    def _readable_revision(self, known: Revisions) -> str | None:
        try:
            return self.current(known)
        except AheadError as error:
            return error.revision
        except (DatabaseUnusableError, NeedsPersonError):
            return None


def _marker(backup: manifests.Backup, known: Revisions) -> history.Marker:
    """Return the marker that tells the next run of a restore, should its process die."""
    attempt = restored(backup, None, known)
    step = {name: getattr(attempt, name) for name in ("revision", "direction", "migration_id", "version", "name")}
    return history.Marker(
        run_id=uuid.uuid4().hex,
        database_id=backup.database_id,
        started_at=attempt.executed_at,
        direction=attempt.direction,
        steps=[step],
        backup=None,
    )


def _verified(backup: manifests.Backup) -> dict[str, Any]:
    try:
        backups.verify(backup)
    except BackupError as error:
        return backup.as_dict(verified=False) | {"problem": error.message}
    return backup.as_dict(verified=True) | {"problem": None}
