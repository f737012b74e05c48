"""One run: lock, plan, checks, backup, steps, records, in one transaction."""

import time
from collections.abc import Callable, Iterator, Sequence

from alembic.runtime.migration import MigrationStep, StampStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from vecmigrate import adoption, bystanders, history, meta, preserved, records
from vecmigrate.catalog import has_content
from vecmigrate.causes import described
from vecmigrate.dependents import Survey, rehearse
from vecmigrate.engine import Database, reading, scratch, translated, writing
from vecmigrate.errors import (
    BackupError,
    DatabaseUnusableError,
    LockTimeoutError,
    NeedsPersonError,
    NotOursError,
    RunFailedError,
    VecmigrateError,
    WouldLoseRowsError,
)
from vecmigrate.heads import one_of, require_at
from vecmigrate.identity import identity_for
from vecmigrate.journal import Journal, Report, direction_of, revision_of
from vecmigrate.locks import WatchedTransaction, ends_process, is_interrupted, let_go
from vecmigrate.new_database import MadeMeanwhileError
from vecmigrate.preflight import Steps, back_up, drops_tables, require_no_loss, require_stampable, run_scripts
from vecmigrate.revisions import Revisions
from vecmigrate.run_end import discard, is_committed, rotate
from vecmigrate.schema import tool_metadata
from vecmigrate.settings import Settings

__all__ = ["Run"]

_PROMPTLY = 1.0

_REFUSALS = (NotOursError, WouldLoseRowsError)
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
        apply: Callable[[Connection, Callable[..., Iterator[MigrationStep]]], None],
        report: Report,
        allow_data_loss: bool = False,
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
        self._journal = Journal(report, revisions)
        self._database_id = ""
        self._steps: Steps = ()
        self._begun = self._changing = self._is_complete = self._has_new_backup = False

    def execute(self) -> None:
        """Run the plan, or do nothing and write nothing if there is nothing to do."""
        began = time.monotonic()
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
            if not self._begun or (ended := self._ended_by(error)) is error:
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
        except Exception as error:
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
            with scratch() as empty:
                require_stampable(empty, self.database, self._script, steps := self._plan(()))
            return bool(steps)
        with reading(self.database, timeout=self.settings.lock_timeout) as connection:
            heads = self._heads(connection)
            self.report.from_revision = self.report.to_revision = one_of(heads)
            return bool(self._plan(heads))

    def _has_leftovers(self) -> bool:
        """Tell whether an older service or a killed run left something behind. Read-only."""
        if self.database.is_absent():
            return False
        with translated(self.database):
            if self.database.path and history.markers(self.database.path):
                return True
        with reading(self.database, timeout=self.settings.lock_timeout) as connection:
            return adoption.leftover_stores(connection, self.report.from_revision) is not None

    def _prepare(self, connection: Connection) -> bool:
        """Plan again under the lock, and do all that can refuse the run or must precede its first write."""
        heads = self._heads(connection)
        self.report.from_revision = self.report.to_revision = one_of(heads)
        self._steps = self._plan(heads)
        self._journal.plan(self._steps)
        if not self._steps and adoption.leftover_stores(connection, one_of(heads)) is None:
            return False
        # Somebody else may have made the file since it was looked for.
        self.report.created = self.report.created and not has_content(connection)
        bystanders.require_none(connection)
        adoption.require_known_shapes(connection, self.report.from_revision)
        self._require_fitting(connection)
        self._refuse_loss(connection, at_end=True)
        self._database_id = identity_for(connection, self.database, self.settings, self.report)
        self._begun = True
        self._write_marker()
        self.report.backup, self._has_new_backup = self._back_up(connection)
        self._write_marker()
        return True

    def _require_fitting(self, connection: Connection) -> None:
        """Refuse a stamp onto tables that are not there, and a change that breaks what hangs on ours."""
        if any(isinstance(step, StampStep) for step in self._steps):
            require_stampable(connection, self.database, self._script, self._steps)
            return

        def change(copy: Connection) -> None:
            tool_metadata.create_all(copy)
            adoption.put(copy, adoption.rows(connection))
            self._adopt(copy)
            self._merge_leftovers(copy)
            run_scripts(copy, self._steps)

        rehearse(connection, change)

    def _refuse_loss(self, connection: Connection, *, at_end: bool = False) -> None:
        """Refuse base where it would drop rows: before the run by its last step, in it before that step."""
        last = self._steps[-1] if at_end and self._steps else None
        if self._allow_data_loss or (at_end and (last is None or not drops_tables(last))):
            return
        require_no_loss(connection, self.database)

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
        )

    def _write_marker(self) -> None:
        if self.database.path:
            self._journal.marker(self._database_id).write(self.database.path)

    def _change(self, connection: Connection) -> None:
        before = Survey(connection)
        self._changing = True
        tool_metadata.create_all(connection)
        meta.write(connection, {"database_id": self._database_id})
        if self.report.created:
            records.record_dead(connection, self.database)
        self._adopt(connection)
        with WatchedTransaction(connection) as transaction:
            try:
                self._merge(connection)
                self._apply(connection, lambda _heads, _context: self._guarded(connection, transaction))
            except Exception as error:
                # An attempt to end the transaction was refused; what the script made of that says less.
                transaction.note(error)
                self._require_untouched(transaction)
                raise
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
        history.add(connection, self._journal.attempts)
        require_at(connection, self.report.to_revision, database=str(self.database))

    def _adopt(self, connection: Connection) -> None:
        starts_up = bool(self._steps) and self._steps[0].is_upgrade
        if self.report.from_revision is None:
            adoption.adopt(connection)
        elif starts_up and self.report.from_revision == self.revisions.ids[0]:
            adoption.refresh(connection)

    def _merge_leftovers(self, connection: Connection) -> bool:
        """Merge what an older service made again, by the script of the revision that replaced it."""
        if adoption.leftover_stores(connection, self.report.from_revision) is None:
            return False
        self._script.get_revision("001").module.merge_stores(connection)
        return True

    def _merge(self, connection: Connection) -> None:
        before = preserved.counts_of(connection, "001", "upgrade")
        if self._merge_leftovers(connection):
            converted, set_aside = preserved.added(before, preserved.counts_of(connection, "001", "upgrade"))
            self._journal.end_merge(converted=converted, set_aside=set_aside)

    def _guarded(self, connection: Connection, transaction: WatchedTransaction) -> Iterator[MigrationStep]:
        for step in self._steps:
            self._journal.begin_step()
            kept = revision_of(step), direction_of(step)
            before = preserved.counts_of(connection, *kept)
            if drops_tables(step):
                self._refuse_loss(connection)
            yield step
            self._require_open(transaction)
            converted, set_aside = preserved.added(before, preserved.counts_of(connection, *kept))
            self._journal.end_step(step, converted=converted, set_aside=set_aside)

    def _require_open(self, transaction: WatchedTransaction) -> None:
        self._require_untouched(transaction)
        if not transaction.is_open():
            raise NeedsPersonError(
                f"Revision {self._journal.failing_revision()} lost its transaction: the script ended it, or the "
                "database did (a full disk). What the script did before may stand.",
                next_step=f"vecmigrate {self.database.option} status, compare with the backup, and take COMMIT out of "
                "the revision script",
            )

    def _require_untouched(self, transaction: WatchedTransaction) -> None:
        if transaction.was_touched:
            raise NeedsPersonError(
                f"Revision {self._journal.failing_revision()} tried to end or begin a transaction of its own. "
                f"The database {self.database} is as it was before the run.",
                next_step="take COMMIT, BEGIN and executescript out of the revision script, then run it again",
            )

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
        records.write_mirror(self.database, self.settings, token=self._journal.run_id)
        records.forget(self.database, self._journal.marker(self._database_id))
        records.settle_afterwards(self.database, self.settings)
        if self.report.backup and self.database.path:
            rotate(self.database.path, self.settings, self.revisions, self.report.backup, self._database_id)
