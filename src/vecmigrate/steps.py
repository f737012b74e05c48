"""The steps of a plan: where each leads, and how its script runs without the records of a run."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from alembic import context as alembic_context
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep, StampStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from vecmigrate import triggers
from vecmigrate.locks import ends_process

__all__ = ["Steps", "direction_of", "origin_of", "revision_of", "run_scripts", "script_of", "target_of", "unannounced"]

Steps = Sequence[MigrationStep]


def target_of(step: MigrationStep) -> str | None:
    """Return the revision a step leads to, None for base."""
    return next(iter(step.to_revisions_no_deps), None)


def origin_of(step: MigrationStep) -> str | None:
    """Return the revision a step starts from, None for base."""
    return next(iter(step.from_revisions_no_deps), None)


def direction_of(step: MigrationStep) -> str:
    """Return upgrade, downgrade or stamp."""
    if isinstance(step, StampStep):
        return "stamp"
    return "upgrade" if step.is_upgrade else "downgrade"


def revision_of(step: MigrationStep) -> str | None:
    """Return the revision a step belongs to: the one it applies, reverts or stamps; None for base."""
    return target_of(step) if step.is_upgrade or isinstance(step, StampStep) else origin_of(step)


def script_of(step: MigrationStep) -> Script | None:
    """Return the script that a step runs, None for a stamp."""
    script = getattr(step, "revision", None)
    return script if isinstance(script, Script) else None


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


def run_scripts(
    connection: Connection,
    script: ScriptDirectory,
    steps: Steps,
    *,
    before: Callable[[MigrationStep], None] | None = None,
) -> None:
    """Run revision scripts on a scratch database, without version table and records; ``before`` each, a function."""
    with _environment(connection, script) as context, Operations.context(context):
        for step in steps:
            if before is not None:
                before(step)
            try:
                with triggers.kept(connection, revision_of(step)):
                    step.migration_fn()
            except SystemExit as error:
                if ends_process(error):
                    raise
                raise RuntimeError("a script is no place to end the process") from error


@contextmanager
def _environment(connection: Connection, script: ScriptDirectory) -> Iterator[MigrationContext]:
    """Let ``alembic.context`` mean the scratch database, and then again what it meant before.

    Scripts ask it for the dialect, and for a run on PostgreSQL it would name that.
    """
    outer = getattr(alembic_context, "_proxy", None)
    try:
        with EnvironmentContext(Config(), script) as environment:
            with unannounced():
                environment.configure(connection=connection, transactional_ddl=True)
            yield environment.get_context()
    finally:
        if outer is not None:
            outer._install_proxy()  # noqa: SLF001 - Alembic keeps one environment at a time, in globals
