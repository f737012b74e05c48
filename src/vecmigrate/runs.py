"""One run: lock, plan, checks, backup, steps, records, in one transaction."""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep, StampStep
from alembic.script import ScriptDirectory
from packaging.version import InvalidVersion, Version
from sqlalchemy import Connection, column, func, inspect, select
from sqlalchemy import table as sa_table

from vecmigrate import adoption, backups, history, manifests, meta
from vecmigrate.dependents import Survey, rehearse
from vecmigrate.engine import Database, has_content, quick_check, reading, schema_copy, writing
from vecmigrate.errors import (
    AheadError,
    DatabaseUnusableError,
    NeedsPersonError,
    NotOursError,
    RunFailedError,
    VecmigrateError,
    WouldLoseRowsError,
)
from vecmigrate.locks import WatchedTransaction, is_interrupted
from vecmigrate.revisions import Revision, Revisions
from vecmigrate.schema import HISTORY, META, PRESERVED, VERSION_TABLE, tool_metadata
from vecmigrate.settings import Settings

__all__ = [
    "Report",
    "Run",
    "ahead",
    "current_heads",
    "direction_of",
    "revision_of",
    "settle",
    "settle_if_readable",
    "write_mirror",
]

log = logging.getLogger("vecmigrate")

Steps = Sequence[MigrationStep]


@dataclass
class Report:
    """What a run did, filled in while it goes on. Revisions are None for base, paths are absolute."""

    from_revision: str | None = None
    to_revision: str | None = None
    applied: list[str] = field(default_factory=list)
    reverted: list[str] = field(default_factory=list)
    backup: str | None = None
    created: bool = False
    waited: bool = False
    converted: int = 0
    set_aside: int = 0
    duration_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def direction_of(step: MigrationStep) -> str:
    if isinstance(step, StampStep):
        return "stamp"
    return "upgrade" if step.is_upgrade else "downgrade"


def revision_of(step: MigrationStep) -> str | None:
    """Return the revision a step belongs to: the one it applies, reverts or stamps; None for base."""
    return target_of(step) if step.is_upgrade or isinstance(step, StampStep) else step.from_revisions_no_deps[0]


def target_of(step: MigrationStep) -> str | None:
    """Return the revision a step leads to, None for base."""
    return next(iter(step.to_revisions_no_deps), None)


class Run:
    """A change of one database by a plan that is made again once the lock is held.

    ``plan`` turns the present heads into steps, ``apply`` runs Alembic over a connection with a
    function that yields steps.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        revisions: Revisions,
        *,
        script: ScriptDirectory,
        plan: Callable[[tuple[str, ...]], Steps],
        apply: Callable[[Connection, Callable[..., Iterator[MigrationStep]]], None],
        report: Report,
        allow_data_loss: bool = False,
    ) -> None:
        self.database = database
        self.settings = settings
        self.revisions = revisions
        self.report = report
        self._script = script
        self._plan = plan
        self._apply = apply
        self._allow_data_loss = allow_data_loss
        self._id = uuid.uuid4().hex
        self._database_id = ""
        self._steps: Steps = ()
        self._attempts: list[history.Attempt] = []
        self._started_at = history.now()
        self._step_began = time.monotonic()
        self._done = 0
        self._begun = False

    def execute(self) -> None:
        """Run the plan, or do nothing and write nothing if there is nothing to do."""
        began = time.monotonic()
        self.report.created = self.database.is_absent()
        if not self.report.created and not self._has_work():
            return
        settle(self.database, self.settings)
        try:
            with writing(self.database, lock_timeout=self.settings.lock_timeout) as connection:
                if self._prepare(connection):
                    self._change(connection)
        except BaseException as error:
            if self._begun:
                raise self._ended_by(error) from error
            self._remove_created_file()
            raise
        finally:
            self.report.duration_seconds = time.monotonic() - began
        if self._begun:
            self._finish()

    def _has_work(self) -> bool:
        with reading(self.database) as connection:
            heads = current_heads(connection, self.revisions)
            self.report.from_revision = self.report.to_revision = _one(heads)
            if self._plan(heads):
                return True
            has_leftovers = _at_unified(heads) and adoption.leftover_stores(connection) is not None
            return has_leftovers or bool(self.database.path and history.markers(self.database.path))

    def _prepare(self, connection: Connection) -> bool:
        """Plan again under the lock, and do all that can refuse the run or must precede its first write."""
        heads = current_heads(connection, self.revisions)
        self.report.from_revision = self.report.to_revision = _one(heads)
        self._steps = self._plan(heads)
        leftover = _at_unified(heads) and adoption.leftover_stores(connection) is not None
        if not self._steps and not leftover:
            self.report.waited = True
            return False
        adoption.require_known_shapes(connection, _one(heads))
        self._require_fitting(connection)
        self._require_no_loss(connection)
        self._database_id = self._identity(connection)
        self._back_up(connection)
        self._begun = True
        if self.database.path:
            self._marker().write(self.database.path)
        return True

    def _require_fitting(self, connection: Connection) -> None:
        stamps = [step for step in self._steps if isinstance(step, StampStep)]
        if stamps:
            self._require_stampable(connection, revision_of(stamps[-1]))
            return
        steps = self._steps

        def change(copy: Connection) -> None:
            tool_metadata.create_all(copy)
            adoption.put(copy, adoption.rows(connection))
            self._adopt(copy)
            self._merge_leftovers(copy)
            _run_scripts(copy, steps)

        rehearse(connection, change)

    def _require_stampable(self, connection: Connection, revision: str | None) -> None:
        """Refuse to stamp a revision whose tables are not there: later runs would fail on it."""
        if revision is None:
            return
        with schema_copy(connection, empty=True) as copy:
            if copy is None:
                return
            tool_metadata.create_all(copy)
            _run_scripts(copy, list(self._script._upgrade_revs(revision, "base")))  # noqa: SLF001
            missing = adoption.missing_tables(connection, copy)
        if missing:
            raise NeedsPersonError(
                f"{self.database} cannot be stamped {revision}: it lacks {', '.join(missing)}. Nothing was changed.",
                next_step=f"vecmigrate {self.database.option} migrate --target {revision}",
            )

    def _require_no_loss(self, connection: Connection) -> None:
        goes_to_base = bool(self._steps) and target_of(self._steps[-1]) is None
        if goes_to_base and not isinstance(self._steps[-1], StampStep) and not self._allow_data_loss:
            self._refuse_loss(adoption.rows_dropped_at_base(connection))

    def _refuse_loss(self, counts: dict[str, int]) -> None:
        if counts and not self._allow_data_loss:
            listed = ", ".join(f"{table} ({count} rows)" for table, count in counts.items())
            raise WouldLoseRowsError(
                f"base would drop {listed}. Nothing was changed.",
                next_step=f"vecmigrate {self.database.option} rollback --to-version base --yes "
                "(alembic -x allow_data_loss=yes downgrade base), which backs them up first",
            )

    def _identity(self, connection: Connection) -> str:
        known = meta.read(connection).get("database_id")
        if known is None and self.database.path:
            folder = self.settings.backup_folder(self.database.path)
            known = manifests.recorded_id(folder, database_path=self.database.path)
        return known or meta.new_database_id()

    def _back_up(self, connection: Connection) -> None:
        if self.report.created or self.database.path is None or not has_content(connection):
            return
        quick_check(connection, self.database)
        if self.settings.backup == "never":
            return
        folder = self.settings.backup_folder(self.database.path)
        backups.prepare_folder(folder)
        backups.clean_temporary(folder, self._database_id)
        kept = self._reusable_backup(connection, folder)
        if kept is None:
            kept = backups.create(
                self.database.path,
                folder,
                database_id=self._database_id,
                revision=self.report.from_revision,
                app_version=self.revisions.app_version(self.report.from_revision),
                reason=f"before {self._direction()}",
                timeout=self.settings.lock_timeout,
            )
        self.report.backup = kept.path

    def _reusable_backup(self, connection: Connection, folder: str) -> manifests.Backup | None:
        """Return the backup of a run that failed from this very state, so that a crash loop fills no disk."""
        last = history.read(connection, limit=1)
        if not last or last[0].status == "success" or self.database.path is None:
            return None
        kept = manifests.listing(folder, database_id=self._database_id, database_path=self.database.path)
        for backup in kept[:1]:
            if (
                backup.revision == self.report.from_revision
                and backups.is_verified(backup)
                and backups.same_content(backup.path, self.database.path)
            ):
                return backup
        return None

    def _direction(self) -> str:
        return direction_of(self._steps[-1]) if self._steps else "upgrade"

    def _marker(self) -> history.Marker:
        steps = [
            {"revision": revision_of(step), "direction": direction_of(step)}
            | {"migration_id": self._named(step).migration_id, "version": self._named(step).app_version}
            | {"name": self._named(step).name}
            for step in self._steps
        ]
        return history.Marker(
            run_id=self._id,
            database_id=self._database_id,
            started_at=self._started_at.isoformat(),
            direction=self._direction(),
            steps=steps,
            backup=self.report.backup,
        )

    def _change(self, connection: Connection) -> None:
        before = Survey(connection)
        tool_metadata.create_all(connection)
        meta.write(connection, {"database_id": self._database_id})
        self._adopt(connection)
        with WatchedTransaction(connection) as transaction:
            self._merge_leftovers(connection)
            self._apply(connection, lambda _heads, _context: self._guarded(connection, transaction))
            self._require_open(transaction)
        before.require_unbroken_by(Survey(connection))
        newest = self.revisions.get(self.report.to_revision)
        if newest is None:
            adoption.forget(connection)
        meta.write(
            connection,
            {
                "app_version": self.revisions.app_version(self.report.to_revision),
                "compatible_from": newest.compatible_from if newest else None,
            },
        )
        history.add(connection, self._attempts)

    def _adopt(self, connection: Connection) -> None:
        starts_up = bool(self._steps) and self._steps[0].is_upgrade
        if self.report.from_revision is None:
            adoption.adopt(connection)
        elif starts_up and self.report.from_revision == self.revisions.ids[0]:
            adoption.refresh(connection)

    def _merge_leftovers(self, connection: Connection) -> None:
        """Merge what an older service made again, by the script of the revision that replaced it."""
        if not _at_unified(tuple(filter(None, [self.report.from_revision]))):
            return
        if adoption.leftover_stores(connection) is not None:
            self._script.get_revision("001").module.merge_stores(connection)

    def _guarded(self, connection: Connection, transaction: WatchedTransaction) -> Iterator[MigrationStep]:
        for step in self._steps:
            self._step_began = time.monotonic()
            before = _preserved(connection, step)
            if not step.is_upgrade and target_of(step) is None and not isinstance(step, StampStep):
                self._refuse_loss(adoption.rows_dropped_at_base(connection))
            yield step
            self._require_open(transaction)
            converted, set_aside = (
                after - earlier for after, earlier in zip(_preserved(connection, step), before, strict=True)
            )
            self._note_step(step, converted=converted, set_aside=set_aside)

    def _require_open(self, transaction: WatchedTransaction) -> None:
        if not transaction.is_open():
            raise NeedsPersonError(
                "A revision ended or began a transaction of its own, or the database ended it (a full disk).",
                next_step="take COMMIT, BEGIN and executescript out of the revision script, then run it again",
            )

    def _note_step(self, step: MigrationStep, *, converted: int, set_aside: int) -> None:
        revision = revision_of(step)
        self._done += 1
        self.report.converted += converted
        self.report.set_aside += set_aside
        self.report.to_revision = target_of(step)
        if revision is not None and not isinstance(step, StampStep):
            (self.report.applied if step.is_upgrade else self.report.reverted).append(revision)
        rows = {"converted": converted, "set_aside": set_aside}
        verb = {"upgrade": "Upgraded", "downgrade": "Downgraded", "stamp": "Stamped"}[direction_of(step)]
        message = f"{verb}: {converted} rows converted, {set_aside} set aside"
        self._attempts.append(self._attempt(step, "success", message, rows=rows))

    def _named(self, step: MigrationStep) -> Revision:
        revision = revision_of(step)
        return self.revisions.get(revision) or Revision(revision or "base", revision or "base", None, None)

    def _attempt(self, step: MigrationStep, status: str, message: str, **metadata: Any) -> history.Attempt:
        named = self._named(step)
        return history.Attempt(
            migration_id=named.migration_id,
            revision=revision_of(step),
            version=named.app_version,
            name=named.name,
            direction=direction_of(step),
            status=status,
            message=message,
            executed_at=history.now().isoformat(),
            duration_seconds=round(time.monotonic() - self._step_began, 6),
            metadata={"run_id": self._id, "backup_path": self.report.backup} | metadata,
        )

    def _ended_by(self, error: BaseException) -> BaseException:
        """Record how the run ended, after the rollback, and return what to raise."""
        self._reset_report()
        if isinstance(error, (NotOursError, WouldLoseRowsError)):
            self._remove_marker()
            return error
        interrupted = isinstance(error, KeyboardInterrupt) or is_interrupted(error)
        status, why = ("interrupted", "Stopped by a signal") if interrupted else ("failed", _described(error))
        note = self._record(self._records_of_failure(status, why))
        if interrupted:
            return error if isinstance(error, KeyboardInterrupt) else KeyboardInterrupt()
        if isinstance(error, VecmigrateError):
            error.backup = self.report.backup
            return error
        return RunFailedError(
            f"Revision {self._failing_revision()} failed: {why}. "
            f"The database {self.database} is as it was before the run.{note}",
            next_step=f"vecmigrate {self.database.option} history, then correct the cause and run it again",
            backup=self.report.backup,
        )

    def _failing_revision(self) -> str | None:
        return revision_of(self._steps[min(self._done, len(self._steps) - 1)]) if self._steps else "001"

    def _records_of_failure(self, status: str, why: str) -> list[history.Attempt]:
        name = self._failing_revision()
        undone = [
            replace(each, status="skipped", message=f"rolled back with {name}") for each in self._attempts[: self._done]
        ]
        if not self._steps:
            return []
        step = self._steps[min(self._done, len(self._steps) - 1)]
        return [*undone, self._attempt(step, status, f"{why}; rolled back", error=why)]

    def _reset_report(self) -> None:
        report = self.report
        report.applied, report.reverted, report.to_revision = [], [], report.from_revision
        report.converted = report.set_aside = 0

    def _record(self, records: Sequence[history.Attempt]) -> str:
        """Record in a transaction of its own; return a note for the user if that failed too."""
        try:
            with writing(self.database, lock_timeout=self.settings.lock_timeout) as connection:
                _make_record_tables(connection)
                meta.write(connection, {"database_id": self._database_id})
                history.drop_run(connection, self._id)
                history.add(connection, records)
        except (VecmigrateError, OSError) as error:
            log.warning("The failure could not be recorded (%s); the next run records it.", type(error).__name__)
            return " The failure could not be recorded; the next run does it."
        self._remove_marker()
        write_mirror(self.database, self.settings, token=self._id)
        return ""

    def _remove_marker(self) -> None:
        if self.database.path:
            self._marker().remove(self.database.path)

    def _remove_created_file(self) -> None:
        """A refusal leaves no empty file where there was none."""
        if self.report.created and self.database.path and self.database.is_absent():
            history.remove(self.database.path)

    def _finish(self) -> None:
        write_mirror(self.database, self.settings, token=self._id)
        self._remove_marker()
        if self.report.backup and self.database.path:
            backups.rotate(
                os.path.dirname(self.report.backup),
                keep=self.settings.keep_backups,
                database_id=self._database_id,
                database_path=self.database.path,
                head=self.report.to_revision,
                order=self.revisions.ids,
            )


def _one(heads: Iterable[str]) -> str | None:
    return next(iter(heads), None)


def _at_unified(heads: Sequence[str]) -> bool:
    return bool(heads) and heads[0] >= "001"


def _described(error: BaseException) -> str:
    """Return the cause in one line, without parameters or values, which are contents of rows."""
    if isinstance(error, VecmigrateError):
        return error.message
    cause = getattr(error, "orig", None) or error
    primary = getattr(getattr(cause, "diag", None), "message_primary", None)
    quotes_values = isinstance(cause, (ValueError, TypeError, LookupError))
    text = primary or ("" if quotes_values else str(cause))
    return ": ".join(filter(None, [type(cause).__name__, text.strip().partition("\n")[0]]))


def current_heads(connection: Connection, revisions: Revisions) -> tuple[str, ...]:
    """Return the revision of a database as Alembic's heads. Read-only.

    Raises AheadError for a revision that this version does not know, NeedsPersonError for several.
    """
    if not inspect(connection).has_table(VERSION_TABLE):
        return ()
    version = sa_table(VERSION_TABLE, column("version_num"))
    heads = tuple(str(head) for head in connection.scalars(select(version.c.version_num)))
    if len(heads) > 1:
        raise NeedsPersonError(
            f"The table {VERSION_TABLE} names {len(heads)} revisions, and there must be one. Nothing was changed.",
            next_step=f"look at the tables, then keep the row that fits them: DELETE FROM {VERSION_TABLE} WHERE ...",
        )
    if heads and heads[0] not in revisions.ids:
        raise ahead(heads[0], meta.read(connection), revisions)
    return heads


def ahead(revision: str, known: dict[str, str], revisions: Revisions, app_version: str | None = None) -> AheadError:
    """Return the error for a database at a revision of a newer version."""
    mine = app_version or str(revisions.versions.newest.version)
    writer, oldest = known.get("app_version"), known.get("compatible_from")
    compatible = _is_compatible(mine, oldest)
    wanted = writer or "the version that wrote it"
    return AheadError(
        f"The database is at revision {revision}, written by app version {writer or 'unknown'}; this is {mine}, "
        f"which knows revisions up to {revisions.head}"
        + (f" and may still run on it (compatible from {oldest})." if compatible else " and must not run on it.")
        + " Nothing was changed.",
        next_step=f"install app version {wanted}, or go back: vecmigrate rollback --to-version "
        f"{revisions.head} --from-backup",
        revision=revision,
        app_version=writer,
        compatible=compatible,
    )


def _is_compatible(mine: str, oldest: str | None) -> bool:
    try:
        return oldest is not None and Version(mine) >= Version(oldest)
    except InvalidVersion:
        return False


def _preserved(connection: Connection, step: MigrationStep) -> tuple[int, int]:
    """Return how many rows a revision keeps, in this direction, as converted and as set aside."""
    query = (
        select(PRESERVED.c.landed, func.count())
        .where(PRESERVED.c.revision == revision_of(step), PRESERVED.c.direction == direction_of(step))
        .group_by(PRESERVED.c.landed)
    )
    counts: dict[int, int] = dict(connection.execute(query).tuples().all())
    return counts.get(1, 0), counts.get(0, 0)


def _run_scripts(connection: Connection, steps: Steps) -> None:
    with Operations.context(MigrationContext.configure(connection)):
        for step in steps:
            step.migration_fn()


def _make_record_tables(connection: Connection) -> None:
    """Make only what a record needs, so that the database stays what its backup holds."""
    tool_metadata.create_all(connection, tables=[HISTORY, META])


def settle(database: Database, settings: Settings) -> None:
    """Record runs whose process died, and remove what they left behind. Writes only if there were any."""
    if database.path is None or database.is_absent() or not (left := history.markers(database.path)):
        return
    with writing(database, lock_timeout=settings.lock_timeout) as connection:
        left = history.markers(database.path)
        known = {attempt.metadata.get("run_id") for attempt in history.read(connection, limit=history.MIRROR_LIMIT)}
        died = [marker for marker in left if marker.run_id not in known and marker.steps]
        if died:
            _make_record_tables(connection)
            if "database_id" not in meta.read(connection):
                meta.write(connection, {"database_id": died[-1].database_id})
            history.add(connection, [_interrupted(marker) for marker in died])
    for marker in left:
        if marker.database_id:
            backups.clean_temporary(settings.backup_folder(database.path), marker.database_id)
        history.remove(history.temporary_name(settings.mirror(database.path), marker.run_id))
        marker.remove(database.path)


def settle_if_readable(database: Database, settings: Settings) -> None:
    """Settle before a restore, which must also work on a database that cannot be read any more."""
    with suppress(DatabaseUnusableError):
        settle(database, settings)


def _interrupted(marker: history.Marker) -> history.Attempt:
    first = marker.steps[0]
    planned = ", ".join(str(step["revision"]) for step in marker.steps)
    return history.Attempt(
        migration_id=first["migration_id"],
        revision=first["revision"],
        version=first["version"],
        name=first["name"],
        direction=first["direction"],
        status="interrupted",
        message=f"The process died during the run ({planned}); nothing of it was committed",
        executed_at=marker.started_at,
        duration_seconds=0.0,
        metadata={"run_id": marker.run_id, "backup_path": marker.backup},
    )


def write_mirror(database: Database, settings: Settings, *, token: str) -> None:
    """Write the mirror from the table; a failure is logged, and healed by the next run.

    The table is looked at again afterwards, because another process may have added to it meanwhile.
    """
    if database.path is None:
        return
    path, written = settings.mirror(database.path), -1
    try:
        while True:
            with reading(database) as connection:
                newest = history.newest_id(connection)
                if newest == written:
                    return
                attempts = history.read(connection, limit=history.MIRROR_LIMIT)
            history.write_mirror(path, attempts, token=token)
            written = newest
    except (OSError, VecmigrateError) as error:
        log.warning("The mirror %s could not be written (%s); the next run does it.", path, type(error).__name__)
