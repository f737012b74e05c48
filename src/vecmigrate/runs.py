"""One run: lock, plan, checks, backup, steps, records, in one transaction."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from alembic.runtime.migration import MigrationContext, MigrationStep, StampStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from vecmigrate import adoption, bystanders, checks, edited_scripts, history, locks, meta, preserved, records, triggers
from vecmigrate.catalog import has_content
from vecmigrate.causes import described
from vecmigrate.dependents import Survey, rehearse
from vecmigrate.engine import Database, reading, scratch, translated, writing
from vecmigrate.errors import (
    BackupError,
    DatabaseUnusableError,
    LockTimeoutError,
    NotOursError,
    PrecheckError,
    RunFailedError,
    VecmigrateError,
    WouldLoseRowsError,
)
from vecmigrate.heads import one_of, require_at
from vecmigrate.identity import identity_for
from vecmigrate.journal import Journal, Report
from vecmigrate.locks import WatchedTransaction, end_behind, ends_process, is_interrupted, let_go
from vecmigrate.loss_guard import LossGuard
from vecmigrate.new_database import MadeMeanwhileError
from vecmigrate.operations.v1.notes import ELSEWHERE, NOTES
from vecmigrate.preflight import back_up
from vecmigrate.revisions import Revisions
from vecmigrate.run_end import discard, is_committed, rotate
from vecmigrate.schema import tool_metadata
from vecmigrate.settings import Settings
from vecmigrate.shapes import Shapes
from vecmigrate.steps import Steps, direction_of, origin_of, revision_of, run_scripts, script_of, target_of
from vecmigrate.watch import RehearsedError, Watch

__all__ = ["Run"]

_PROMPTLY = 1.0

_REFUSALS = (NotOursError, PrecheckError, WouldLoseRowsError)
_REFUSALS_BEFORE = (*_REFUSALS, BackupError, DatabaseUnusableError, LockTimeoutError)
"""What is no attempt, the second before the first write: nothing is recorded."""


class Run:
    """A change of one database by a plan that is made again once the lock is held.

    ``heads`` reads the present heads, ``plan`` turns them into steps, ``apply`` runs Alembic over a
    connection with a function that yields steps.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        revisions: Revisions,
        *,
        script: ScriptDirectory,
        heads: Callable[[Connection], tuple[str, ...]],
        plan: Callable[[tuple[str, ...]], Steps],
        apply: Callable[[Connection, Callable[[object, MigrationContext], Iterator[MigrationStep]]], None],
        report: Report,
        allow_data_loss: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.database = database
        self.settings = settings
        self.revisions = revisions
        self.report = report
        self._script = script
        self._heads = heads
        self._plan = plan
        self._apply = apply
        self._allow_data_loss = allow_data_loss
        self._watch = watch or Watch()
        self._journal = Journal(report, revisions)
        self._database_id = ""
        self._steps: Steps = ()
        self._shapes = Shapes(script, None)
        self._written: frozenset[str] | None = None
        self._begun = self._changing = self._is_complete = self._has_new_backup = False

    def execute(self) -> None:
        """Run the plan, or do nothing and write nothing if there is nothing to do."""
        began, handled = time.monotonic(), sys.exc_info()[1]
        self.report.created = self.database.is_absent()
        is_planned = self._is_planned()
        if not is_planned and not self._has_leftovers():
            if not self.report.created:
                records.mend_mirror(self.database, self.settings)
            return
        try:
            while not self._try():
                pass
        except BaseException as error:
            ended = end_behind(error, handled=handled) or error
            if self._begun:
                ended = self._ended_by(ended)
            if ended is error:
                raise
            raise ended from error
        finally:
            self.report.duration_seconds = time.monotonic() - began
        self.report.waited = is_planned and not self._begun
        if self._begun:
            self._finish()

    def _try(self) -> bool:
        """Run under the lock; return False to try again, because a run died while this one waited for it."""
        records.settle(self.database, self.settings)
        try:
            return self._try_under_lock()
        except MadeMeanwhileError:
            records.forget(self.database, self._journal.marker(self._database_id))
            self._begun = self._changing = self._is_complete = False
            self._journal.begin_anew()
            return False
        except RehearsedError:
            return True
        except Exception as error:
            let_go(error)
            if not self._is_complete or not is_committed(self.database, self.settings, self._journal.run_id, error):
                raise
            return True

    def _try_under_lock(self) -> bool:
        with writing(self.database, lock_timeout=self.settings.lock_timeout) as connection:
            with translated(self.database):
                # What died before there was a database is recorded with the first run.
                if not self.database.is_absent() and records.has_died(connection, self.database):
                    return False
                begins = self._prepare(connection)
            if begins:
                self._change(connection)
                self._is_complete = True
        return True

    def _is_planned(self) -> bool:
        if self.report.created:
            # Looking first keeps a faulty target, and a stamp without tables, from creating a file.
            steps = self._plan(())
            with scratch() as empty:
                checks.require_stampable(empty, self.database, self._shapes_of(steps), steps)
            return bool(steps)
        with reading(self.database, timeout=self.settings.lock_timeout) as connection:
            heads = self._heads(connection)
            self.report.from_revision = self.report.to_revision = one_of(heads)
            return bool(self._plan(heads))

    def _has_leftovers(self) -> bool:
        """Tell whether a killed run left something behind. Read-only."""
        if self.database.path is None or self.database.is_absent():
            return False
        with translated(self.database):
            return bool(history.markers(self.database.path))

    def _shapes_of(self, steps: Steps) -> Shapes:
        """Return what the scripts make, up to the highest revision that the steps touch."""
        touched = {origin_of(step) for step in steps} | {target_of(step) for step in steps}
        return Shapes(self._script, max(touched, key=self.revisions.position, default=None))

    def _prepare(self, connection: Connection) -> bool:
        """Plan again under the lock, and do all that can refuse the run or must precede its first write."""
        heads = self._heads(connection)
        self.report.from_revision = self.report.to_revision = one_of(heads)
        self._steps = self._plan(heads)
        if not self._steps:
            return False
        self._journal.plan(self._steps)
        self._shapes = self._shapes_of(self._steps)
        # Somebody else may have made the file since it was looked for.
        self.report.created = self.report.created and not has_content(connection)
        bystanders.require_none(connection)
        self._require_fit(connection)
        self._database_id = identity_for(connection, self.database, self.settings, self.report)
        self._begun = True
        self._write_marker()
        self._watch.begin(connection, self._shapes)
        self.report.backup, self._has_new_backup = self._back_up(connection)
        self._write_marker()
        return True

    def _require_fit(self, connection: Connection) -> None:
        """Refuse the run where the database, or what else is in it, does not let it. Read-only."""
        if any(isinstance(step, StampStep) for step in self._steps):
            checks.require_stampable(connection, self.database, self._shapes, self._steps)
            return
        pending = [script for step in self._steps if step.is_upgrade and (script := script_of(step))]
        adoption.require_known_shapes(connection, self._shapes, self.report.from_revision, pending)
        checks.require_no_problems(connection, self.database, pending)
        checks.require_working(self._shapes, self._steps)
        if not self._allow_data_loss:
            checks.require_no_edited(connection, self.database, self.revisions, self._steps)
            checks.require_base_is_empty(connection, self.database, self._shapes, self._steps)
        applied = self.revisions.upto(self.report.from_revision)
        edited = edited_scripts.edited(applied, history.read(connection) if applied else ())
        self.report.notes += edited_scripts.told(edited)

        def change(copy: Connection) -> None:
            tool_metadata.create_all(copy)
            adoption.put(copy, adoption.rows(connection))
            meta.write(copy, meta.read(connection))
            run_scripts(copy, self._script, self._steps, before=lambda step: self._adopt(copy, step))

        self._written = rehearse(connection, self._shapes, change)

    def _back_up(self, connection: Connection) -> tuple[str | None, bool]:
        if self.database.path is None and self.database.is_sqlite:
            self.report.notes.append("A database in memory is migrated without a backup.")
        if self.report.created:
            return None, False
        return back_up(
            connection,
            self.database,
            self.settings,
            database_id=self._database_id,
            revision=self.report.from_revision,
            app_version=self.revisions.app_version(self.report.from_revision),
            direction=self._journal.direction,
            written=self._written,
        )

    def _write_marker(self) -> None:
        if self.database.path:
            self._journal.marker(self._database_id).write(self.database.path)

    def _change(self, connection: Connection) -> None:
        before = Survey(connection, self._shapes)
        self._changing = True
        tool_metadata.create_all(connection)
        meta.write(connection, {"database_id": self._database_id})
        if self.report.created:
            records.record_dead(connection, self.database, alive=self._journal.run_id)
        with WatchedTransaction(connection) as transaction:
            try:
                self._apply(connection, lambda _heads, context: self._guarded(connection, context, transaction))
            except Exception as error:
                # An attempt to end the transaction was refused; what the script made of that says less.
                transaction.note(error)
                checks.require_untouched(transaction, self.database, self._journal.failing_revision())
                raise
            checks.require_open(transaction, self.database, self._journal.failing_revision())
        before.require_unbroken_by(Survey(connection, self._shapes))
        newest = self.revisions.get(self.report.to_revision)
        if newest is None:
            adoption.forget(connection)
        app_version = self.revisions.app_version(self.report.to_revision)
        compatible_from = newest.compatible_from if newest else None
        meta.write(connection, {"app_version": app_version, "compatible_from": compatible_from})
        history.add(connection, self._journal.attempts)
        require_at(connection, self.report.to_revision, database=str(self.database))
        self._watch.end(connection)

    def _adopt(self, connection: Connection, step: MigrationStep) -> None:
        """Keep what a script finds of the tables that it adopts."""
        if origin_of(step) is None:
            for each in self._shapes.scripts():
                adoption.adopt(connection, self._shapes, each, None)
        if step.is_upgrade and (script := script_of(step)):
            adoption.adopt(connection, self._shapes, script, origin_of(step))

    def _guarded(
        self, connection: Connection, context: MigrationContext, transaction: WatchedTransaction
    ) -> Iterator[MigrationStep]:
        guard = LossGuard(connection, self._shapes)
        for step in self._steps:
            self._journal.begin_step()
            guard.begin_step()
            kept = revision_of(step), direction_of(step)
            before = preserved.counts_of(connection, *kept)
            self._begin_step(connection, step)
            self._watch.begin_step(connection, *kept)
            with triggers.kept(connection, revision_of(step)), guard.telling(step):
                yield step
            checks.require_open(transaction, self.database, revision_of(step))
            lost = guard.end_step(context.opts.pop(ELSEWHERE, {}))
            if not self._allow_data_loss:
                checks.require_rows_kept(self.database, step, lost)
            converted, set_aside = preserved.added(before, preserved.counts_of(connection, *kept))
            self._journal.end_step(step, converted=converted, set_aside=set_aside, notes=context.opts.pop(NOTES, ()))
            self._watch.end_step(connection, self._journal.attempts[-1])

    def _begin_step(self, connection: Connection, step: MigrationStep) -> None:
        script = script_of(step) if step.is_upgrade else None
        if script is not None and step is not self._steps[0]:
            # What the scripts below it made was not there when all were asked.
            checks.require_no_problems(connection, self.database, [script])
        self._adopt(connection, step)

    def _ended_by(self, error: BaseException) -> BaseException:
        """Record how the run ended, after the rollback, and return what to raise."""
        self.report.take_back()
        let_go(error)
        if isinstance(error, _REFUSALS if self._changing else _REFUSALS_BEFORE):
            self._leave_nothing()
            return error
        is_signal = ends_process(error)
        if is_signal or is_interrupted(error):
            # Who holds the lock by now records it too, so nobody has to wait for that.
            wait = min(self.settings.lock_timeout, _PROMPTLY)
            self._record(self._journal.failed("interrupted", "Stopped by a signal"), wait=wait)
            return error if is_signal else KeyboardInterrupt()
        if locks.is_busy(error):
            error = locks.lock_timed_out(str(self.database), self.settings.lock_timeout)
        # What is left of these is a commit that the database refused.
        refused = error.__cause__ if isinstance(error, DatabaseUnusableError) else None
        why = described(refused or error)
        # Who waited for the lock in vain need not wait for it once more.
        wait = _PROMPTLY if isinstance(error, LockTimeoutError) else self.settings.lock_timeout
        note = self._record(self._journal.failed("failed", why), wait=min(self.settings.lock_timeout, wait))
        if isinstance(error, VecmigrateError) and refused is None:
            error.backup = self.report.backup
            return error
        return RunFailedError(
            f"Revision {self._journal.failing_revision()} failed: {why}. "
            f"The database {self.database} is as it was before the run.{note}",
            # Where there is no database, there is no history.
            next_step=("" if self.report.created else f"vecmigrate {self.database.option} history, then ")
            + "correct the cause and run it again",
            backup=self.report.backup,
        )

    def _record(self, attempts: Sequence[history.Attempt], *, wait: float) -> str:
        """Record how the run ended; return a note for the user if that failed too."""
        if self._watch.is_rolled_back:
            return ""
        marker = self._journal.marker(self._database_id)
        is_recorded = records.record_end(self.database, self.settings, marker, attempts, wait=wait)
        return "" if is_recorded else " The failure could not be recorded; the next run does it."

    def _leave_nothing(self) -> None:
        """Remove what a run has made that is refused after all: who tries again and again would fill the disk."""
        records.forget(self.database, self._journal.marker(self._database_id))
        if self._has_new_backup:
            discard(self.report.backup)
        self.report.backup = None

    def _finish(self) -> None:
        self.report.notes += self._journal.notes
        records.write_mirror(self.database, self.settings, token=self._journal.run_id)
        records.forget(self.database, self._journal.marker(self._database_id))
        records.settle_afterwards(self.database, self.settings)
        if self.report.backup and self.database.path:
            rotate(self.database.path, self.settings, self.revisions, self.report.backup, self._database_id)
