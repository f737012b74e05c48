"""Plan, upgrade and roll back: the one caller of ``alembic.command``."""

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TextIO

from alembic import command
from alembic.util import CommandError

from vecmigrate import adoption, bystanders, file_rights, history, lost, meta, records
from vecmigrate.access import alembic_config, one_at_a_time
from vecmigrate.engine import translated, unusable, writing
from vecmigrate.errors import AheadError, ConfigurationError, RunFailedError, TargetError, VecmigrateError
from vecmigrate.journal import Report
from vecmigrate.overview import Overview
from vecmigrate.places import require_apart
from vecmigrate.plan import Plan
from vecmigrate.revisions import Revision, Revisions
from vecmigrate.settings import Settings
from vecmigrate.tools.adopt import Adoption, adopt
from vecmigrate.tools.rehearsal import Rehearsal, rehearse
from vecmigrate.watch import Watch

__all__ = ["Migrator"]


class Migrator(Overview):
    """All operations on one database. Nothing is opened before a method is called."""

    watch: Watch | None = None
    """Sees each run from inside; for rehearsals."""

    def plan_upgrade(self, target: str = "head", *, version: str | None = None, force: bool = False) -> Plan:
        """Return what ``upgrade`` would do: nothing to a compatible database of a newer version. Read-only."""
        require_apart(self.database, self.settings)
        try:
            plan = self._upgrade_plan(target, version, force=force)
        except AheadError as error:
            if not error.compatible:
                raise
            return Plan(error.revision, error.revision, [], "upgrade", None, error.message)
        path = self.database.path
        if path is None or not self.database.is_absent():
            return plan
        lost_note = lost.note_on_another(self.backup_folder(), path, database_id=None, is_new=True)
        return replace(plan, note="\n".join(filter(None, [lost_note, plan.note])) or None)

    def _upgrade_plan(self, target: str, version: str | None, *, force: bool) -> Plan:
        known = self.revisions()
        current = self.current(known)
        wanted, note = self._target(known, target, version, current)
        steps = known.ordered[known.position(current) + 1 : known.position(wanted) + 1]
        plan = self._plan(current, wanted if steps else current, steps, "upgrade", note)
        if steps or not force:
            return plan
        if wanted is None:
            raise TargetError(
                "base is no revision that could run again. Nothing was changed.",
                next_step=f"vecmigrate {self.database.option} migrate --force --target head",
            )
        again = known.ordered[known.position(wanted) : known.position(current) + 1]
        return replace(self._plan(current, current, again, "upgrade", note), reverted=list(again[::-1]))

    def plan_rollback(self, target: str) -> Plan:
        """Return what ``rollback`` would do. Read-only. Raises TargetError for a target above the database."""
        known = self.revisions()
        self._require_not_lost()
        if self.database.is_absent():
            raise unusable(self.database, FileNotFoundError())
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

    def upgrade(
        self,
        target: str = "head",
        *,
        version: str | None = None,
        force: bool = False,
        allow_data_loss: bool = False,
    ) -> Report:
        """Upgrade to a target, behind the safety net; at the target or above, do nothing.

        With ``force`` the target's revision runs again: down to just before it and up to where the
        database was, in one transaction. With ``allow_data_loss`` revisions may lose rows that nothing keeps.
        Raises VecmigrateError.
        """
        try:
            plan = self._upgrade_plan(target, version, force=force)
        except AheadError as error:
            if not error.compatible:
                raise
            return Report(error.revision, error.revision, is_ahead=True, notes=[error.message])
        report = Report(from_revision=plan.from_revision, to_revision=plan.from_revision)
        report.notes += [plan.note] if plan.note else []
        switches = {"allow_data_loss": "yes"} if allow_data_loss else {}
        if plan.reverted:
            again = plan.steps[0].id
            self._call(command.upgrade, again, report, vecmigrate_switches=switches, vecmigrate_force=again)
            return report
        # With nothing to apply this still settles what a killed run left behind.
        revision = plan.to_revision if plan.steps else plan.from_revision
        if revision is not None:
            self._call(command.upgrade, revision, report, vecmigrate_switches=switches)
        # Somebody else may have done it between the plan and the run.
        report.waited = report.waited or bool(plan.steps and not report.applied)
        return report

    def rollback(self, target: str, *, allow_data_loss: bool = False) -> Report:
        """Downgrade to a target by the downgrade scripts. Raises VecmigrateError."""
        plan = self.plan_rollback(target)
        report = Report(from_revision=plan.from_revision, to_revision=plan.from_revision)
        if plan.steps:
            switches = {"allow_data_loss": "yes"} if allow_data_loss else {}
            self._call(command.downgrade, plan.to_revision or "base", report, vecmigrate_switches=switches)
        return report

    def script(self, target: str = "head", *, version: str | None = None) -> tuple[Plan, str]:
        """Return what ``upgrade`` would do, and its SQL, which is for an empty database or one of that revision.

        Read-only. Raises VecmigrateError.
        """
        plan = self.plan_upgrade(target, version=version)
        printed = io.StringIO()
        if plan.steps:
            span = f"{plan.from_revision or 'base'}:{plan.to_revision}"
            self._call(partial(command.upgrade, sql=True), span, Report(), output=printed)
        return plan, printed.getvalue()

    def rehearse_upgrade(
        self,
        target: str = "head",
        *,
        version: str | None = None,
        force: bool = False,
        allow_data_loss: bool = False,
    ) -> Rehearsal:
        """Return what ``upgrade`` would come to, from a run on a copy. An error is in the answer. Writes nothing."""

        def run(settings: Settings, watch: Watch) -> Report:
            return self._apart(settings, watch).upgrade(
                target, version=version, force=force, allow_data_loss=allow_data_loss
            )

        return rehearse(self, lambda: self.plan_upgrade(target, version=version, force=force), run)

    def rehearse_rollback(self, target: str, *, allow_data_loss: bool = False) -> Rehearsal:
        """Return what ``rollback`` would come to, from a run on a copy. An error is in the answer. Writes nothing."""

        def run(settings: Settings, watch: Watch) -> Report:
            return self._apart(settings, watch).rollback(target, allow_data_loss=allow_data_loss)

        return rehearse(self, lambda: self.plan_rollback(target), run)

    def _apart(self, settings: Settings, watch: Watch) -> "Migrator":
        apart = Migrator(settings, app_version=self.app_version)
        apart.watch = watch
        return apart

    def _call(
        self, call: Any, revision: str, report: Report, *, output: TextIO | None = None, **attributes: Any
    ) -> None:
        attributes |= {
            "vecmigrate_report": report,
            "vecmigrate_revisions": self.revisions(),
            "vecmigrate_app_version": self.app_version,
            "vecmigrate_watch": self.watch,
        }
        config = alembic_config(self.settings, **attributes)
        config.output_buffer = output or config.output_buffer
        with one_at_a_time:
            try:
                call(config, revision)
            except CommandError as error:
                if isinstance(error.__cause__, VecmigrateError):
                    error.__cause__.revision = error.__cause__.revision or report.from_revision
                    raise error.__cause__ from error.__cause__.__cause__
                raise RunFailedError(
                    f"{str(error).rstrip('.')}. Nothing was changed.",
                    next_step=f"vecmigrate {self.database.option} status",
                ) from error
            finally:
                report.note_logged(file_rights.taken())

    def adopt(
        self, root: str, *, dimensions: int | None = None, model: str | None = None, dry_run: bool = False
    ) -> Adoption:
        """Take over the folder of mcp-vector-search in a project; see ``tools.adopt``. Raises VecmigrateError."""
        done = adopt(self, root, dimensions=dimensions, model=model, dry_run=dry_run)
        if done.backup:
            self._rotate_if_possible(self._identity() or "", self.revisions())
        return done

    def rebuild_mirror(self) -> str:
        """Write the mirror anew from the table; return its path. Raises ConfigurationError if it cannot be written."""
        return self._rebuild_mirror("The history in the database is complete.")

    def _rebuild_mirror(self, state: str) -> str:
        path = self.settings.mirror(self._file())
        records.require_mirror_apart(self.database, self.settings)
        try:
            records.rewrite_mirror(self.database, self.settings, token=meta.new_database_id())
        except OSError as error:
            raise ConfigurationError(
                f"The mirror {path} cannot be written: {error.strerror}. {state}",
                next_step="make its folder writable, or set VECMIGRATE_HISTORY_FILE, then: "
                f"vecmigrate {self.database.option} history --rebuild",
            ) from error
        return path

    def clear_history(self) -> int:
        """Forget every attempt; the schema, its revision and its identity stay. Return how many.

        Raises DatabaseUnusableError where there is no database, NotOursError where a table of ours is not ours,
        and ConfigurationError where the mirror cannot be written and tells what is forgotten.
        """
        records.require_mirror_apart(self.database, self.settings)
        with one_at_a_time:
            self.attempts(limit=1)  # Looked at first, because writing would make a database where none is.
            # Else the next run would tell of a killed one that what it had committed was not.
            records.settle(self.database, self.settings)
            lock = writing(self.database, lock_timeout=self.settings.lock_timeout)
            with translated(self.database), lock as connection:
                adoption.require_own_tables(connection)
                bystanders.require_none(connection)
                count = history.clear(connection)
        path = self.database.path
        # One that could not be written last time still tells of what was forgotten then.
        if path and (count or os.path.lexists(self.settings.mirror(path))):
            self._rebuild_mirror(f"The history in the database is cleared ({count} attempts), and the mirror is not.")
        return count
