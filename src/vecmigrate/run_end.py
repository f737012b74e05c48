"""The end of a run: whether it is committed, and what may still fail then without making it a failure."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from vecmigrate import backups, history
from vecmigrate.causes import described
from vecmigrate.engine import Database, reading
from vecmigrate.errors import NeedsPersonError, VecmigrateError
from vecmigrate.revisions import Revisions
from vecmigrate.settings import Settings

__all__ = ["discard", "is_committed", "only_told", "rotate"]

log = logging.getLogger("vecmigrate")


@contextmanager
def only_told(what: str) -> Iterator[None]:
    """Log what fails once a run has ended: it turns no success into failure, and the next run does it again."""
    try:
        yield
    except (VecmigrateError, DBAPIError, OSError) as error:
        log.warning("%s is left for the next run: %s", what, described(error))


def is_committed(database: Database, settings: Settings, run_id: str, error: Exception) -> bool:
    """Tell whether a run stands, though its commit reported *error*: its own records are in the database then.

    Read-only. Raises NeedsPersonError where the database cannot be read.
    """
    try:
        stands = _holds(database, settings, run_id)
    except (VecmigrateError, DBAPIError, OSError) as unread:
        raise NeedsPersonError(
            f"The commit reported an error ({described(error)}), and {database} cannot be read since "
            f"({described(unread)}). It holds the old state or the new one, whole.",
            next_step=f"vecmigrate {database.option} status",
        ) from error
    if stands:
        log.warning("The run is committed. What came after that failed: %s", described(error))
    return stands


def _holds(database: Database, settings: Settings, run_id: str) -> bool:
    if database.is_absent():
        return False
    with reading(database, timeout=settings.lock_timeout) as connection:
        return run_id in history.run_ids(connection)


def rotate(path: str, settings: Settings, revisions: Revisions, backup: str, database_id: str) -> None:
    """Remove the oldest backups of an SQLite file from the folder of *backup*; one that stays fails nothing."""
    with only_told("Old backups"):
        backups.rotate(
            os.path.dirname(backup),
            keep=settings.keep_backups,
            database_id=database_id,
            database_path=path,
            head=revisions.head,
            order=revisions.ids,
        )


def discard(backup: str | None) -> None:
    """Remove a backup of a run that came to nothing; one that stays fails nothing."""
    if backup is not None:
        with only_told(f"The backup {backup}"):
            backups.discard(backup)
