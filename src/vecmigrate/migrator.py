"""Plan, upgrade, roll back, restore: the one caller of ``alembic.command``."""

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, func, inspect, select

from vecmigrate import adoption, backups, embeddings, history, manifests, meta, records, restoring
from vecmigrate.carrying import carry_over
from vecmigrate.catalog import has_content
from vecmigrate.engine import Database, locate, reading, writing
from vecmigrate.errors import (
    AheadError,
    BackupError,
    DatabaseUnusableError,
    NeedsPersonError,
    RunFailedError,
    TargetError,
    VecmigrateError,
)
from vecmigrate.heads import current_heads, one_of
from vecmigrate.journal import Report
from vecmigrate.revisions import Revision, Revisions, load
from vecmigrate.schema import PRESERVED
from vecmigrate.scripts_folder import script_location
from vecmigrate.settings import Settings

__all__ = ["Migrator", "Plan", "Status", "alembic_config", "app_version_rows"]

_one_at_a_time = threading.RLock()
"""Alembic's context is a module global: threads that ran commands at once would share it."""


def alembic_config(settings: Settings | None = None, **attributes: Any) -> Config:
    """Return a configuration for ``alembic.command`` that finds the revision scripts of this package."""
    config = Config()
    config.set_main_option("script_location", script_location().replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    if settings is not None:
        config.attributes["vecmigrate_settings"] = settings
    config.attributes.update(attributes)
    return config


@dataclass(frozen=True)
class Status:
    """What is known of a database. ``state`` is absent, unversioned, pending, current or ahead."""

    database: str
    dialect: str
    state: str
    revision: str | None
    app_version: str | None
    head: str
    pending: list[str] = field(default_factory=list)
    last_run: dict[str, Any] | None = None
    last_backup: dict[str, Any] | None = None
    preserved_rows: dict[str, int] = field(default_factory=lambda: {"converted": 0, "set_aside": 0})
    reembed: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What a run would do. Revisions are None for base."""

    from_revision: str | None
    to_revision: str | None
    steps: list[Revision]
    direction: str
    backup_folder: str | None
    note: str | None


class Migrator:
    """The operations on one database. Nothing is opened before a method is called."""

    def __init__(self, settings: Settings, *, app_version: str | None = None) -> None:
        self.settings = settings
        self._app_version = app_version
        self.database: Database = locate(settings.database_url)

    # What only reads.

    def revisions(self) -> Revisions:
        """Read the revision scripts and the app-version map. Read-only."""
        with _one_at_a_time:
            return load(alembic_config())

    def status(self) -> Status:
        """Return what is known of the database; an absent one is reported, not created. Read-only."""
        known = self.revisions()
        base: dict[str, Any] = {"database": str(self.database), "dialect": self.database.dialect, "head": known.head}
        if self.database.is_absent():
            self._require_folder()
            return Status(**base, state="absent", revision=None, app_version=None, pending=list(known.ids))
        with reading(self.database) as connection:
            return self._status_of(connection, known, base)

    def _status_of(self, connection: Connection, known: Revisions, base: dict[str, Any]) -> Status:
        notes: list[str] = []
        described = meta.read(connection)
        try:
            revision = self._revision(connection, known)
        except AheadError as error:
            revision, state, pending, version = error.revision, "ahead", [], error.app_version
            notes.append(f"{error.message} Next: {error.next_step}")
        else:
            pending = list(known.ids[known.position(revision) + 1 :])
            state = "unversioned" if revision is None else "pending" if pending else "current"
            version = known.app_version(revision)
            notes += self._leftovers(connection, revision)
        attempts = history.read(connection, limit=1)
        return Status(
            **base,
            state=state,
            revision=revision,
            app_version=version,
            pending=pending,
            last_run=attempts[-1].entry() if attempts else None,
            last_backup=self._last_backup(described.get("database_id")),
            preserved_rows=_preserved_counts(connection),
            reembed=embeddings.remaining(connection),
            notes=notes,
        )

    def _leftovers(self, connection: Connection, revision: str | None) -> list[str]:
        if revision is None or revision < "001" or (count := adoption.leftover_stores(connection)) is None:
            return []
        return [
            f"An older service made the table stores again ({count} rows); the next run merges it into vector_stores."
        ]

    def _last_backup(self, database_id: str | None) -> dict[str, Any] | None:
        if self.database.path is None or database_id is None:
            return None
        found = self.list_backups(database_id=database_id)
        return found[0].as_dict(verified=backups.is_verified(found[0])) if found else None

    def _require_folder(self) -> None:
        path = self.database.path
        if path is not None and not os.path.isdir(os.path.dirname(path)):
            raise DatabaseUnusableError(
                f"{path} does not exist, and its folder does not either. Nothing was changed.",
                next_step=f"create {os.path.dirname(path)}, then run it again",
            )

    def current(self, known: Revisions) -> str | None:
        """Return the revision of the database, None for base or an absent one. Read-only."""
        if self.database.is_absent():
            self._require_folder()
            return None
        with reading(self.database) as connection:
            return self._revision(connection, known)

    def _revision(self, connection: Connection, known: Revisions) -> str | None:
        return one_of(current_heads(connection, known, app_version=self._app_version))

    def attempts(self, *, limit: int | None = None) -> list[history.Attempt]:
        """Return the newest attempts, oldest first. Read-only."""
        with reading(self.database) as connection:
            return history.read(connection, limit=limit)

    def listing(self) -> list[dict[str, Any]]:
        """Return every revision with its newest attempt. Read-only; an absent database has none applied."""
        known = self.revisions()
        if self.database.is_absent():
            self._require_folder()
            return [_listed(each, None, is_applied=False, is_current=False) for each in known.ordered]
        with reading(self.database) as connection:
            attempts = {each.revision: each for each in history.read(connection) if each.direction != "restore"}
            try:
                position = known.position(self._revision(connection, known))
            except AheadError:
                position = len(known.ordered)
        return [
            _listed(each, attempts.get(each.id), is_applied=index <= position, is_current=index == position)
            for index, each in enumerate(known.ordered)
        ]

    def preserved(self, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Return rows kept aside, newest first, with their contents. Read-only."""
        with reading(self.database) as connection:
            if not _has_table(connection, PRESERVED.name):
                return []
            query = select(PRESERVED).order_by(PRESERVED.c.id.desc()).limit(limit)
            return [_preserved_row(dict(row)) for row in connection.execute(query).mappings()]

    def plan_upgrade(self, target: str = "head", *, version: str | None = None) -> Plan:
        """Return what ``upgrade`` would do. Read-only."""
        known = self.revisions()
        current = self.current(known)
        wanted, note = self._target(known, target, version, current)
        steps = known.ordered[known.position(current) + 1 : known.position(wanted) + 1]
        return self._plan(current, wanted if steps else current, steps, "upgrade", note)

    def plan_rollback(self, target: str) -> Plan:
        """Return what ``rollback`` would do. Read-only. Raises TargetError for a target above the database."""
        known = self.revisions()
        current = self.current(known)
        wanted, note = known.resolve(target, current=current)
        if known.position(wanted) > known.position(current):
            raise TargetError(
                f"{target} is revision {wanted}, above {current or 'base'}, the database's. Nothing was changed.",
                next_step=f"vecmigrate {self.database.option} migrate --target {target}",
            )
        steps = known.ordered[known.position(wanted) + 1 : known.position(current) + 1][::-1]
        return self._plan(current, wanted, steps, "downgrade", note)

    def _plan(
        self, current: str | None, wanted: str | None, steps: Sequence[Revision], direction: str, note: str | None
    ) -> Plan:
        backed_up = steps and self.settings.backup != "never" and self.database.path and not self.database.is_absent()
        folder = self.settings.backup_folder(self.database.path) if backed_up and self.database.path else None
        return Plan(current, wanted, list(steps), direction, folder, note)

    def _target(
        self, known: Revisions, target: str, version: str | None, current: str | None
    ) -> tuple[str | None, str | None]:
        if version is None:
            return known.resolve(target, current=current)
        entry, note = known.versions.resolve(version)
        return entry.revision, note

    # What writes.

    def upgrade(self, target: str = "head", *, version: str | None = None, force: bool = False) -> Report:
        """Upgrade to a target, behind the safety net; at the target or above, do nothing.

        With ``force`` the target's revision runs again: down to just before it and up to where the
        database was, in one transaction. Raises VecmigrateError.
        """
        try:
            plan = self.plan_upgrade(target, version=version)
        except AheadError as error:
            if not error.compatible:
                raise
            return Report(error.revision, error.revision, is_ahead=True, notes=[error.message])
        report = Report(from_revision=plan.from_revision, to_revision=plan.from_revision)
        report.notes += [plan.note] if plan.note else []
        if force and not plan.steps:
            return self._force(target, version, report)
        # With nothing to apply this still settles what a killed run or an older service left behind.
        revision = plan.to_revision if plan.steps else plan.from_revision
        if revision is not None:
            self._call(command.upgrade, revision, report)
        return report

    def _force(self, target: str, version: str | None, report: Report) -> Report:
        known = self.revisions()
        current = self.current(known)
        wanted, _ = self._target(known, target, version, current)
        if wanted is None:
            raise TargetError(
                "base is no revision that could run again. Nothing was changed.",
                next_step=f"vecmigrate {self.database.option} migrate --force --target head",
            )
        before = known.position(wanted) - 1
        down_to = known.ids[before] if before >= 0 else "base"
        self._call(command.upgrade, "heads", report, vecmigrate_force=down_to)
        return report

    def rollback(self, target: str, *, allow_data_loss: bool = False) -> Report:
        """Downgrade to a target by the downgrade scripts. Raises VecmigrateError."""
        plan = self.plan_rollback(target)
        report = Report(from_revision=plan.from_revision, to_revision=plan.from_revision)
        if plan.steps:
            switches = {"allow_data_loss": "yes"} if allow_data_loss else {}
            self._call(command.downgrade, plan.to_revision or "base", report, vecmigrate_switches=switches)
        return report

    def _call(self, call: Any, revision: str, report: Report, **attributes: Any) -> None:
        config = alembic_config(self.settings, vecmigrate_report=report, **attributes)
        with _one_at_a_time:
            try:
                call(config, revision)
            except CommandError as error:
                if isinstance(error.__cause__, VecmigrateError):
                    raise error.__cause__ from error.__cause__.__cause__
                raise RunFailedError(
                    f"{error}. Nothing was changed.", next_step=f"vecmigrate {self.database.option} status"
                ) from error

    def stamp(self, revision: str) -> None:
        """Record a revision without running it. Raises VecmigrateError if its tables are not there."""
        self._call(command.stamp, revision, Report())

    # Backups.

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
        if self.database.is_absent():
            return None
        try:
            with reading(self.database) as connection:
                known = meta.read(connection).get("database_id")
        except DatabaseUnusableError:
            return None
        # A sound database that was never migrated must not take the backups of one with the same name.
        folder = self.settings.backup_folder(path)
        return known or manifests.recorded_id(folder, database_path=path) or meta.new_database_id()

    def list_backups(self, *, database_id: str | None = None) -> list[manifests.Backup]:
        """Return the backups of this database, newest first. Reads manifests only."""
        path = self._file()
        return manifests.listing(
            self.settings.backup_folder(path), database_id=database_id or self._identity(), database_path=path
        )

    def find_backup(self, name: str) -> manifests.Backup:
        path = self._file()
        folder = self.settings.backup_folder(path)
        return manifests.find(name, folder, database_id=self._identity(), database_path=path)

    def create_backup(self, reason: str = "manual") -> manifests.Backup:
        """Back up the present state under the write lock. Raises BackupError."""
        path, known = self._file(), self.revisions()
        if self.database.is_absent():
            raise BackupError(
                f"{path} does not exist, so there is nothing to back up. Nothing was changed.",
                next_step=f"vecmigrate {self.database.option} migrate",
            )
        folder = self.settings.backup_folder(path)
        with _one_at_a_time, writing(self.database, lock_timeout=self.settings.lock_timeout) as connection:
            revision = self._revision_even_if_ahead(connection, known)
            described = meta.read(connection)
            if not has_content(connection):
                raise BackupError(
                    f"{path} is empty, so there is nothing to back up. Nothing was changed.",
                    next_step=f"vecmigrate {self.database.option} migrate",
                )
            database_id = self._identity() or meta.new_database_id()
            backups.prepare_folder(folder)
            made = backups.create(
                path,
                folder,
                database_id=database_id,
                revision=revision,
                app_version=described.get("app_version") or known.app_version(None),
                reason=reason,
                timeout=self.settings.lock_timeout,
            )
        self._rotate(made.database_id, known)
        return made

    def _revision_even_if_ahead(self, connection: Connection, known: Revisions) -> str | None:
        try:
            return self._revision(connection, known)
        except AheadError as error:
            return error.revision

    def _rotate(self, database_id: str, known: Revisions, *, keep: int | None = None) -> list[str]:
        path = self._file()
        return backups.rotate(
            self.settings.backup_folder(path),
            keep=keep or self.settings.keep_backups,
            database_id=database_id,
            database_path=path,
            head=known.head,
            order=known.ids,
        )

    def verified_backups(self) -> list[dict[str, Any]]:
        """Return the backups of this database, newest first, each file's hash checked. Read-only."""
        return [each.as_dict(verified=backups.is_verified(each)) for each in self.list_backups()]

    def verify_backups(self, name: str | None = None) -> list[dict[str, Any]]:
        """Check hash, integrity and identity of one backup or all; a fault is in ``problem``. Read-only."""
        chosen = [self.find_backup(name)] if name else self.list_backups()
        return [_verified(each) for each in chosen]

    def prune_backups(self, *, keep: int | None = None) -> list[str]:
        """Remove all but the newest backups of this database; return the names removed."""
        found = self.list_backups()
        return self._rotate(found[0].database_id, self.revisions(), keep=keep) if found else []

    def backup_of(self, target: str, *, name: str | None = None) -> manifests.Backup:
        """Return the newest verified backup of a revision, or the named one if it is of that revision.

        Raises BackupError if there is none. Read-only.
        """
        path, known = self._file(), self.revisions()
        wanted, _ = known.resolve(target, current=None)
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

    def restore(self, backup: manifests.Backup) -> Report:
        """Put a verified backup in place of the present state, which is saved first; history survives.

        Raises BackupError, LockTimeoutError, RestoreFailedError.
        """
        path, known, began = self._file(), self.revisions(), time.monotonic()
        report = Report(from_revision=self._readable_revision(known), to_revision=backup.revision)
        with _one_at_a_time:
            records.settle_if_readable(self.database, self.settings)
            done = restoring.restore(
                path,
                backup,
                folder=self.settings.backup_folder(path),
                database_id=self._identity(),
                timeout=self.settings.lock_timeout,
                carry=partial(carry_over, restored=backup, known=known),
            )
        report.backup = done.saved.path if done.saved else None
        report.created = done.saved is None and done.moved_aside is None
        if done.moved_aside:
            report.notes.append(f"The damaged file was moved aside: {done.moved_aside}")
        records.write_mirror(self.database, self.settings, token=meta.new_database_id())
        self._rotate(backup.database_id, known)
        report.duration_seconds = time.monotonic() - began
        return report

    def _readable_revision(self, known: Revisions) -> str | None:
        try:
            return self.current(known)
        except AheadError as error:
            return error.revision
        except (DatabaseUnusableError, NeedsPersonError):
            return None

    def rebuild_mirror(self) -> str:
        """Write the mirror anew from the table; return its path."""
        path = self.settings.mirror(self._file())
        history.write_mirror(path, self.attempts(limit=history.MIRROR_LIMIT), token=meta.new_database_id())
        return path

    def clear_history(self) -> int:
        """Forget every attempt; the schema, its revision and its identity stay. Return how many."""
        with _one_at_a_time, writing(self.database, lock_timeout=self.settings.lock_timeout) as connection:
            count = history.clear(connection)
        if self.database.path:
            self.rebuild_mirror()
        return count


def _preserved_row(row: dict[str, Any]) -> dict[str, Any]:
    decoded = {name: json.loads(row[name]) for name in ("row", "converted") if row[name] is not None}
    return row | decoded


def _preserved_counts(connection: Connection) -> dict[str, int]:
    counts: Mapping[int, int] = {}
    if _has_table(connection, PRESERVED.name):
        query = select(PRESERVED.c.landed, func.count()).group_by(PRESERVED.c.landed)
        counts = {row[0]: row[1] for row in connection.execute(query)}
    return {"converted": counts.get(1, 0), "set_aside": counts.get(0, 0)}


def _has_table(connection: Connection, name: str) -> bool:
    return inspect(connection).has_table(name)


def _verified(backup: manifests.Backup) -> dict[str, Any]:
    try:
        backups.verify(backup)
    except BackupError as error:
        return backup.as_dict(verified=False) | {"problem": error.message}
    return backup.as_dict(verified=True) | {"problem": None}


def _listed(
    revision: Revision, attempt: history.Attempt | None, *, is_applied: bool, is_current: bool
) -> dict[str, Any]:
    """Return a line of ``list``: an applied revision counts as success, one not applied as pending or failed."""
    status = "success" if is_applied else "pending"
    if attempt and not is_applied and attempt.status in {"failed", "interrupted"}:
        status = attempt.status
    ran = attempt if attempt and (is_applied or status != "pending") else None
    return {
        "revision": revision.id,
        "app_version": revision.app_version,
        "name": revision.name,
        "status": status,
        "executed_at": ran.executed_at if ran else None,
        "duration_seconds": ran.duration_seconds if ran else None,
        "current": is_current,
    }


def app_version_rows(version: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
    """Return the app-version map, or the entry of one version and a note. Read-only."""
    with _one_at_a_time:
        versions = load(alembic_config()).versions
    entries, note = list(versions.entries), None
    if version is not None:
        entry, note = versions.resolve(version)
        entries = [entry]
    return [
        {
            "app_version": str(each.version),
            "revision": each.revision,
            "compatible_from": str(each.compatible_from),
        }
        for each in entries
    ], note
