"""What is checked under the lock before the first write, and of each step: what refuses a run."""

from collections.abc import Mapping, Sequence

from alembic.runtime.migration import MigrationStep, StampStep
from alembic.script import Script
from sqlalchemy import Connection

from vecmigrate import adoption, edited_scripts, history, prechecks
from vecmigrate.catalog import column_names, table_names
from vecmigrate.engine import Database
from vecmigrate.errors import NeedsPersonError, PrecheckError, RunFailedError, WouldLoseRowsError
from vecmigrate.locks import WatchedTransaction
from vecmigrate.loss_guard import rows_that_would_go
from vecmigrate.revisions import Revisions
from vecmigrate.shapes import Shapes
from vecmigrate.steps import Steps, origin_of, revision_of, target_of

__all__ = [
    "require_base_is_empty",
    "require_no_edited",
    "require_no_problems",
    "require_open",
    "require_rows_kept",
    "require_stampable",
    "require_untouched",
    "require_working",
]


def require_stampable(connection: Connection, database: Database, shapes: Shapes, steps: Steps) -> None:
    """Refuse to stamp a revision whose tables are not there, because later runs would fail on it. Read-only."""
    revision = target_of(steps[-1]) if steps and isinstance(steps[-1], StampStep) else None
    if revision is None:
        return
    if shapes.fault is not None:
        raise shapes.fault
    present = {name.lower(): name for name in table_names(connection)}
    missing = [
        name
        for name, columns in sorted(shapes.at(revision).tables.items())
        if name not in present or columns - column_names(connection, present[name])
    ]
    if missing:
        raise NeedsPersonError(
            f"{database} cannot be stamped {revision}: it lacks {', '.join(missing)}. Nothing was changed.",
            next_step=f"vecmigrate {database.option} migrate --target {revision}",
        )


def require_base_is_empty(connection: Connection, database: Database, shapes: Shapes, steps: Steps) -> None:
    """Raise WouldLoseRowsError where base would drop rows, before the way there is gone. Read-only.

    What the lowest script made goes with it; the rows of what was there before it stay. Tables that are not now what
    that script made are left to the steps above it, which may put their rows elsewhere.
    """
    last = steps[-1]
    if target_of(last) is not None or isinstance(last, StampStep):
        return
    lowest, present = shapes.at(origin_of(last)).tables, shapes.at(origin_of(steps[0])).tables
    unchanged = {name for name, columns in lowest.items() if present.get(name) == columns}
    made = unchanged - adoption.adopted_tables(connection)
    if counts := rows_that_would_go(connection, shapes, made):
        raise _would_lose(counts, database, "base", "Nothing was changed.")


def _would_lose(counts: Mapping[str, int], database: Database, target: str, state: str) -> WouldLoseRowsError:
    """Return the error for a way down that drops rows which nothing kept."""
    saving = f"vecmigrate {database.option} backup create" if database.path else "save them, by pg_dump"
    return WouldLoseRowsError(
        f"{target} would drop {_listed(counts)}. {state}",
        next_step=f"{saving}; then vecmigrate {database.option} rollback --to-version {target} --yes "
        f"(alembic -x allow_data_loss=yes downgrade {target})",
    )


def require_no_edited(connection: Connection, database: Database, revisions: Revisions, steps: Steps) -> None:
    """Raise NeedsPersonError for a way down through a script that was edited since it was applied. Read-only."""
    down = {origin_of(step) for step in steps if not step.is_upgrade and not isinstance(step, StampStep)}
    reverted = [each for each in revisions.ordered if each.id in down]
    if found := edited_scripts.edited(reverted, history.read(connection) if reverted else ()):
        raise NeedsPersonError(
            f"{' '.join(edited_scripts.told(found))} Its way down may not fit what its way up has done. "
            "Nothing was changed.",
            next_step="put the script back as it was, or restore a backup: vecmigrate "
            f"{database.option} rollback --to-version {revisions.below(found[0].id) or 'base'} --from-backup; "
            "or, where its way down is known to fit, add --yes (alembic -x allow_data_loss=yes)",
        )


def require_no_problems(connection: Connection, database: Database, pending: Sequence[Script]) -> None:
    """Raise PrecheckError that lists what pending scripts find in the database that they cannot run on."""
    if found := prechecks.problems(connection, pending):
        listed = "\n".join(f"  - {problem}" for problem in found)
        raise PrecheckError(
            f"Revisions that would run cannot run on {database} as it is:\n{listed}\nNothing was changed.",
            next_step=f"mend this, then: vecmigrate {database.option} migrate",
        )


def require_working(shapes: Shapes, steps: Steps) -> None:
    """Raise RunFailedError for an upgrade that breaks a trigger or view which the scripts made. Reads nothing.

    Their own run on an empty database tells it, for every database.
    """
    for step in steps:
        new = shapes.at(target_of(step)).broken - shapes.at(origin_of(step)).broken
        if new and step.is_upgrade and not isinstance(step, StampStep):
            raise RunFailedError(
                f"After revision {revision_of(step)} these would not work any more, which the scripts made: "
                f"{', '.join(sorted(new))}. Nothing was changed.",
                next_step=f"in the script of {revision_of(step)}, drop each and make it anew, so that it fits "
                "(docs/writing-revisions.md, Triggers)",
            )


def require_rows_kept(database: Database, step: MigrationStep, lost: Mapping[str, int]) -> None:
    """Refuse a step that lost rows.

    Those of a way down are a person's to lose (WouldLoseRowsError), those of a way up a mistake of the script
    (RunFailedError).
    """
    if not lost or isinstance(step, StampStep):
        return
    state = f"The database {database} is as it was before the run."
    if not step.is_upgrade:
        raise _would_lose(lost, database, target_of(step) or "base", state)
    raise RunFailedError(
        f"Revision {revision_of(step)} would lose rows of {_listed(lost)}, which nothing kept. {state}",
        next_step="keep them in the script (op.keep_rows); or, where they are to go: "
        f"vecmigrate {database.option} migrate --yes (alembic -x allow_data_loss=yes upgrade head)",
    )


def require_open(transaction: WatchedTransaction, database: Database, revision: str | None) -> None:
    """Raise NeedsPersonError where a script ended the transaction of the run, or tried to."""
    require_untouched(transaction, database, revision)
    if not transaction.is_open():
        raise NeedsPersonError(
            f"Revision {revision} lost its transaction: the script ended it, or the database did (a full disk). "
            "What the script did before may stand.",
            next_step=f"vecmigrate {database.option} status, compare with the backup, and take COMMIT out of "
            "the revision script",
        )


def require_untouched(transaction: WatchedTransaction, database: Database, revision: str | None) -> None:
    """Raise NeedsPersonError where a script tried to end the transaction of the run, which was refused."""
    if transaction.was_touched:
        raise NeedsPersonError(
            f"Revision {revision} tried to end or begin a transaction of its own. "
            f"The database {database} is as it was before the run.",
            next_step="take COMMIT, BEGIN and executescript out of the revision script, then run it again",
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{table} ({count} rows)" for table, count in counts.items())
