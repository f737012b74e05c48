"""What can be told of a database without changing anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from vecmigrate import adoption, backups, edited_scripts, history, lost, meta, preserved
from vecmigrate.access import alembic_config, one_at_a_time
from vecmigrate.archive import Archive
from vecmigrate.embedding import models
from vecmigrate.engine import reading
from vecmigrate.errors import AheadError, BackupError
from vecmigrate.revisions import Revision, Revisions, load

__all__ = ["Overview", "Status", "app_version_rows"]


@dataclass(frozen=True)
class Status:
    """What is known of a database. ``state`` is absent, unversioned, pending, current or ahead.

    ``compatible`` tells of one that is ahead whether this version may run on it, and is None of every other.
    """

    database: str
    dialect: str
    state: str
    revision: str | None
    app_version: str | None
    head: str
    compatible: bool | None = None
    pending: list[str] = field(default_factory=list)
    last_run: dict[str, Any] | None = None
    last_backup: dict[str, Any] | None = None
    preserved_rows: dict[str, int] = field(default_factory=lambda: {"converted": 0, "set_aside": 0})
    reembed: dict[str, Any] | None = None
    embedding: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


class Overview(Archive):
    """Read-only operations; an absent database is reported, not created."""

    def status(self) -> Status:
        """Return what is known of the database; an absent one is reported, not created. Read-only."""
        known = self.revisions()
        base: dict[str, Any] = {"database": str(self.database), "dialect": self.database.dialect, "head": known.head}
        if self.database.is_absent():
            self.require_folder()
            return Status(
                **base,
                state="absent",
                revision=None,
                app_version=None,
                pending=list(known.ids),
                last_backup=self._last_backup(None),
                notes=self._losses(),
            )
        with self._looking() as connection:
            database_id = meta.read(connection).get("database_id")
            found = self._status_of(connection, known, base)
        # To hash it may take long, and in rollback-journal mode nobody can commit beside a reader.
        try:
            return replace(found, last_backup=self._last_backup(database_id))
        except BackupError as error:
            return replace(found, notes=[*found.notes, error.message])

    def _losses(self) -> list[str]:
        """Return what to tell of an absent database that backups are left of."""
        path, folder = self._file(), self.backup_folder()
        if left := lost.last_of_another(folder, path):
            return [f"There are backups of a database that was here. Next: {lost.restoring(left)}"]
        listed = f"vecmigrate {self.database.option} backup list"
        return [f"There are backups of it, none of them sound. Next: {listed}"] if self.list_backups() else []

    @contextmanager
    def _looking(self) -> Iterator[Connection]:
        self._require_not_lost()
        with reading(self.database, timeout=self.settings.lock_timeout) as connection:
            adoption.require_own_tables(connection)
            yield connection

    def _require_not_lost(self) -> None:
        """Name the backups where the database is gone: to make an empty one would be the wrong advice."""
        if self.database.path and self.database.is_absent():
            lost.require_none(self.backup_folder(), self.database.path)

    def _status_of(self, connection: Connection, known: Revisions, base: dict[str, Any]) -> Status:
        notes: list[str] = []
        compatible = None
        try:
            revision = self.revision(connection, known)
        except AheadError as error:
            revision, state, pending, version = error.revision, "ahead", [], error.app_version
            compatible = error.compatible
            notes.append(f"{error.message} Next: {error.next_step}")
        else:
            pending = list(known.ids[known.position(revision) + 1 :])
            state = "unversioned" if revision is None else "pending" if pending else "current"
            version = known.app_version(revision)
            notes += edited_scripts.told(edited_scripts.edited(known.upto(revision), history.read(connection)))
        attempts = history.read(connection, limit=1)
        return Status(
            **base,
            state=state,
            revision=revision,
            app_version=version,
            compatible=compatible,
            pending=pending,
            last_run=attempts[-1].entry() if attempts else None,
            preserved_rows=dict(zip(("converted", "set_aside"), preserved.counts(connection), strict=True)),
            reembed=models.remaining(connection),
            embedding=models.states(connection),
            notes=notes,
        )

    def _last_backup(self, database_id: str | None) -> dict[str, Any] | None:
        if self.database.path is None:
            return None
        found = self.list_backups(database_id=database_id)
        return found[0].as_dict(verified=backups.is_verified(found[0])) if found else None

    def attempts(self, *, limit: int | None = None) -> list[history.Attempt]:
        """Return the newest attempts, oldest first. Read-only."""
        with self._looking() as connection:
            return history.read(connection, limit=limit)

    def listing(self) -> list[dict[str, Any]]:
        """Return every revision with its newest attempt. Read-only; an absent database has none applied."""
        known = self.revisions()
        if self.database.is_absent():
            self.require_folder()
            return [_listed(each, None, is_applied=False, is_current=False) for each in known.ordered]
        with self._looking() as connection:
            attempts = [each for each in history.read(connection) if each.direction != "restore"]
            try:
                position = known.position(self.revision(connection, known))
            except AheadError:
                position = len(known.ordered)
        edited = edited_scripts.edited(known.ordered[: position + 1], attempts)
        newest = {each.revision: each for each in attempts}
        # An attempt to revert it that failed tells nothing of when it was applied.
        made = {each.revision: each for each in attempts if each.status == "success" and each.direction != "downgrade"}
        return [
            _listed(
                each,
                (made if index <= position else newest).get(each.id),
                is_applied=index <= position,
                is_current=index == position,
                is_edited=each in edited,
            )
            for index, each in enumerate(known.ordered)
        ]

    def reembedding(self) -> dict[str, Any] | None:
        """Return the model being built and how many chunks lack a vector of it, None where there is none. Read-only."""
        with self._looking() as connection:
            return models.remaining(connection)

    def preserved(self, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Return rows kept aside, newest first, with their contents. Read-only."""
        with self._looking() as connection:
            return preserved.rows(connection, limit=limit)


def _listed(
    revision: Revision,
    attempt: history.Attempt | None,
    *,
    is_applied: bool,
    is_current: bool,
    is_edited: bool = False,
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
        "edited": is_edited,
        "depends_on": list(revision.depends_on),
    }


def app_version_rows(version: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
    """Return the app-version map, or the entry of one version and a note. Read-only."""
    with one_at_a_time:
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
