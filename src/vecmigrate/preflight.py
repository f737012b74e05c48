"""What is checked and saved under the lock, before the first write."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep, StampStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from vecmigrate import adoption, backups, history, manifests, series, sqlite_files
from vecmigrate.catalog import has_content, schema_copy
from vecmigrate.engine import Database, quick_check
from vecmigrate.errors import BackupError, NeedsPersonError, WouldLoseRowsError
from vecmigrate.locks import ends_process
from vecmigrate.schema import tool_metadata
from vecmigrate.settings import Settings

__all__ = [
    "Steps",
    "back_up",
    "drops_tables",
    "require_no_loss",
    "require_stampable",
    "run_scripts",
    "target_of",
    "unannounced",
]

log = logging.getLogger("vecmigrate")

Steps = Sequence[MigrationStep]


def target_of(step: MigrationStep) -> str | None:
    """Return the revision a step leads to, None for base."""
    return next(iter(step.to_revisions_no_deps), None)


def drops_tables(step: MigrationStep) -> bool:
    """Tell whether a step leads to base by its script."""
    return not step.is_upgrade and target_of(step) is None and not isinstance(step, StampStep)


@contextmanager
def unannounced() -> Iterator[None]:
    """Keep Alembic from logging that it is configured, where that is not for the run itself."""
    logger = logging.getLogger(MigrationContext.__module__)

    def nothing(_record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


def run_scripts(connection: Connection, steps: Steps) -> None:
    """Run revision scripts on a scratch database, without version table and records."""
    with unannounced():
        context = MigrationContext.configure(connection, opts={"transactional_ddl": True})
    with Operations.context(context):
        for step in steps:
            try:
                step.migration_fn()
            except SystemExit as error:
                if ends_process(error):
                    raise
                raise RuntimeError("a script is no place to end the process") from error


def require_stampable(connection: Connection, database: Database, script: ScriptDirectory, steps: Steps) -> None:
    """Refuse to stamp a revision whose tables are not there, because later runs would fail on it."""
    revision = target_of(steps[-1]) if steps and isinstance(steps[-1], StampStep) else None
    if revision is None:
        return
    with schema_copy(connection, empty=True) as copy:
        if copy is None:
            return
        tool_metadata.create_all(copy)
        run_scripts(copy, list(script._upgrade_revs(revision, "base")))  # noqa: SLF001
        missing = adoption.missing_tables(connection, copy)
    if missing:
        raise NeedsPersonError(
            f"{database} cannot be stamped {revision}: it lacks {', '.join(missing)}. Nothing was changed.",
            next_step=f"vecmigrate {database.option} migrate --target {revision}",
        )


def require_no_loss(connection: Connection, database: Database) -> None:
    """Raise WouldLoseRowsError where base would drop tables that hold rows. Read-only."""
    counts = adoption.rows_dropped_at_base(connection)
    if counts:
        listed = ", ".join(f"{table} ({count} rows)" for table, count in counts.items())
        raise WouldLoseRowsError(
            f"base would drop {listed}. Nothing was changed.",
            next_step=f"vecmigrate {database.option} rollback --to-version base --yes "
            "(alembic -x allow_data_loss=yes downgrade base), which backs them up first",
        )


def back_up(
    connection: Connection,
    database: Database,
    settings: Settings,
    *,
    database_id: str,
    revision: str | None,
    app_version: str | None,
    direction: str,
) -> tuple[str | None, bool]:
    """Save the state before the change if it is to be saved; return the path of the backup, and whether it is one more.

    A run that fails again and again reuses its backup while the state is the same, else replaces its last one, so that
    it fills no disk.
    """
    if database.path is None:
        _refuse_unbacked(database, settings)
        return None, False
    if not has_content(connection):
        return None, False
    if settings.backup == "never":
        quick_check(database)
        return None, False
    folder = settings.backup_folder(database.path)
    backups.prepare_folder(folder)
    backups.clean_temporary(folder, database.path)
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
