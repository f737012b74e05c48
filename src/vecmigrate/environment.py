"""What ``env.py`` runs, for the ``alembic`` command, for ``alembic.command`` and for our own CLI."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import SAWarning

from vecmigrate import lost, offline, revisions, settings
from vecmigrate.catalog import uses_batch
from vecmigrate.causes import without_values
from vecmigrate.engine import Database, locate, reading, scratch
from vecmigrate.errors import AheadError, ConfigurationError, VecmigrateError
from vecmigrate.heads import current_heads, one_of
from vecmigrate.journal import Report
from vecmigrate.operations import autogenerate
from vecmigrate.places import require_apart
from vecmigrate.runs import Run
from vecmigrate.schema import VERSION_TABLE, is_in_models, is_ours, metadata
from vecmigrate.signals import exit_code, terminable
from vecmigrate.steps import unannounced

__all__ = ["run"]

log = logging.getLogger("vecmigrate")

_WRITERS = {"upgrade", "downgrade", "do_stamp"}
_SWITCHES = {"allow_data_loss"}


def run() -> None:
    """Run the present Alembic command with the safety net.

    Raises CommandError, which ``alembic`` prints without a traceback; its cause is the VecmigrateError.
    """
    is_command_line = getattr(context.config, "cmd_opts", None) is not None
    if is_command_line:
        _configure_logging(context.config)
    try:
        with _signals_end_the_process() if is_command_line else nullcontext():
            _dispatch(context.config)
    except VecmigrateError as error:
        raise CommandError(str(error)) from without_values(error)


def _dispatch(config: Config) -> None:
    chosen, switches = _settings(config)
    if context.is_offline_mode():
        offline.render(locate(chosen.database_url), config)
        return
    # Configured without a connection only to learn which command this is.
    database = locate(chosen.database_url)
    with unannounced():
        context.configure(dialect_name=database.dialect, transactional_ddl=True)
        options = context.get_context().opts
    if options["fn"].__name__ == "nothing":
        raise _no_merge()
    if options["fn"].__name__ in _WRITERS:
        _write(config, database, chosen, options, allow_data_loss=switches.get("allow_data_loss") == "yes")
    elif _needs_no_database(config, database, options):
        with scratch() as connection:
            _apply(connection, options["fn"], dont_mutate=True)
    else:
        if database.path and database.is_absent():
            lost.require_none(chosen.backup_folder(database.path), database.path)
        with reading(database) as connection, _passing_over_expressions():
            # Of a revision that is unknown here it says more than Alembic would.
            current_heads(connection, revisions.load(config), option=database.option)
            if options["fn"].__name__ == "do_ensure_version":
                _require_version_table(connection, database)
            _apply(connection, options["fn"], dont_mutate=True)


def _no_merge() -> ConfigurationError:
    return ConfigurationError(
        "The revisions stand in one line, by their numbers, so a script that merges heads has no place in it. "
        "Nothing was written.",
        next_step="give the script that is not released yet the next free number: vecmigrate new --renumber NNN_slug",
    )


def _require_version_table(connection: Connection, database: Database) -> None:
    if not inspect(connection).has_table(VERSION_TABLE):
        raise ConfigurationError(
            f"The table {VERSION_TABLE} is made by the first run, under its lock, and not by ensure_version. "
            "Nothing was changed.",
            next_step=f"vecmigrate {database.option} migrate",
        )


@contextmanager
def _passing_over_expressions() -> Iterator[None]:
    """Say nothing of indexes that SQLAlchemy cannot reflect: the models name none, so they are a service's own."""
    with warnings.catch_warnings():
        for what in ("Skipped unsupported reflection of expression-based index", "Failed to look up filter predicate"):
            warnings.filterwarnings("ignore", what, SAWarning)
        yield


def _settings(config: Config) -> tuple[settings.Settings, Mapping[str, str]]:
    """Return the settings in force and the switches of this call (``-x allow_data_loss=yes``)."""
    given: Mapping[str, str] = context.get_x_argument(as_dictionary=True)
    unknown = sorted(given.keys() - _SWITCHES - set(settings.NAMES))
    if unknown:
        raise ConfigurationError(
            f"-x {unknown[0]} is not known. Nothing was changed.",
            next_step=f"use one of: {', '.join(sorted(_SWITCHES | set(settings.NAMES)))}",
        )
    switches = {name: given[name] for name in _SWITCHES & given.keys()}
    switches |= config.attributes.get("vecmigrate_switches", {})
    ready = config.attributes.get("vecmigrate_settings")
    if ready is not None:
        return ready, switches
    ini = config.config_file_name
    arguments = {name: given[name] for name in given.keys() - _SWITCHES}
    programmatic = {"database_url": config.attributes.get("database_url")}
    return settings.resolve(programmatic | arguments, os.environ, ini=str(ini) if ini else None), switches


def _needs_no_database(config: Config, database: Database, options: Mapping[str, Any]) -> bool:
    """Tell whether the command is ``revision`` without ``--autogenerate``, or ``history`` without ``-i``."""
    revision = options.get("revision_context")
    if revision is not None:
        return not revision.command_args["autogenerate"]
    if options["fn"].__name__ != "_display_current_history":
        return False
    marks_current = getattr(config.cmd_opts, "indicate_current", None)
    return marks_current is False or (marks_current is None and database.is_absent())


def _write(
    config: Config,
    database: Database,
    chosen: settings.Settings,
    options: Mapping[str, Any],
    *,
    allow_data_loss: bool,
) -> None:
    require_apart(database, chosen)
    script: ScriptDirectory = context.script
    report = config.attributes.setdefault("vecmigrate_report", Report())
    known = config.attributes.get("vecmigrate_revisions") or revisions.load(config)

    def heads(connection: Connection) -> tuple[str, ...]:
        # A stamp with --purge counts as starting from base, whatever is there.
        if options.get("purge"):
            return ()
        version = config.attributes.get("vecmigrate_app_version")
        return current_heads(connection, known, option=database.option, app_version=version)

    run = Run(
        database,
        chosen,
        known,
        script=script,
        heads=heads,
        plan=_plan(config, known, script, options),
        apply=_apply,
        report=report,
        allow_data_loss=allow_data_loss,
        watch=config.attributes.get("vecmigrate_watch"),
    )
    try:
        run.execute()
    except AheadError as error:
        if not error.compatible or options["fn"].__name__ != "upgrade":
            raise
        report.from_revision = report.to_revision = error.revision
        report.is_ahead = True
        report.notes.append(error.message)
        log.warning("%s", error.message)


def _plan(
    config: Config, known: revisions.Revisions, script: ScriptDirectory, options: Mapping[str, Any]
) -> Callable[[tuple[str, ...]], Sequence[MigrationStep]]:
    again = config.attributes.get("vecmigrate_force")
    # Taken now: once Alembic has run, its options hold the steps of that run.
    steps = options["fn"]

    def plan(heads: tuple[str, ...]) -> Sequence[MigrationStep]:
        # Where somebody else has gone below it meanwhile, the revision is pending, and there is nothing to undo.
        if again is not None and known.position(one_of(heads)) >= known.position(again):
            below = known.below(again) or "base"
            down = list(script._downgrade_revs(below, heads[0]))  # noqa: SLF001
            return down + list(script._upgrade_revs(heads[0], below))  # noqa: SLF001
        return list(steps(heads, context.get_context()))

    return plan


def _apply(connection: Connection, steps: Callable[..., Any], *, dont_mutate: bool = False) -> None:
    context.configure(
        connection=connection,
        fn=steps,
        dont_mutate=dont_mutate,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        transactional_ddl=True,
        include_name=is_ours,
        include_object=is_in_models,
        render_as_batch=uses_batch(connection.dialect.name),
        process_revision_directives=_write_revision,
    )
    with context.begin_transaction():
        context.run_migrations()


def _write_revision(migration: MigrationContext, _revision: Any, directives: list[Any]) -> None:
    """Give a new revision the next number, unless ``--rev-id`` names one, and changes that lose no row."""
    context_of = migration.opts["revision_context"]
    if directives and context_of.command_args.get("rev_id") is None:
        newest = context.script.get_current_head()
        directives[0].rev_id = f"{int(newest) + 1 if newest else 0:03d}"
    if directives:
        context_of.template_args["changes"] = autogenerate.propose(migration, directives[0])


def _configure_logging(config: Config) -> None:
    if config.config_file_name is not None and config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)


@contextmanager
def _signals_end_the_process() -> Iterator[None]:
    """In the ``alembic`` command, roll back on SIGINT and SIGTERM too, and exit with 130 or 143."""
    with terminable() as received:
        try:
            yield
        except KeyboardInterrupt:
            code = exit_code(received)
            name = signal.Signals(code - 128).name
            sys.stderr.write(f"Stopped by {name}; what had not been committed is rolled back.\n")
            raise SystemExit(code) from None
