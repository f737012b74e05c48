"""The steps of a plan: where each leads, and how its script runs without the records of a run."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep, StampStep
from alembic.script import Script
from sqlalchemy import Connection

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


def run_scripts(connection: Connection, steps: Steps, *, before: Callable[[MigrationStep], None] | None = None) -> None:
    """Run revision scripts on a scratch database, without version table and records; ``before`` each, a function."""
    with unannounced():
        context = MigrationContext.configure(connection, opts={"transactional_ddl": True})
    with Operations.context(context):
        for step in steps:
            if before is not None:
                before(step)
            try:
                step.migration_fn()
            except SystemExit as error:
                if ends_process(error):
                    raise
                raise RuntimeError("a script is no place to end the process") from error
