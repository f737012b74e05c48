"""The long way of ``ensure_current``: there is something to do, or something is wrong."""

import logging
import os
import time
import traceback
from typing import Any

from vecmigrate import settings
from vecmigrate.boot import BootReport
from vecmigrate.callers import called
from vecmigrate.causes import told, without_values
from vecmigrate.engine import Database
from vecmigrate.errors import AheadError, ConfigurationError, LockTimeoutError, RunFailedError, VecmigrateError
from vecmigrate.journal import Report
from vecmigrate.migrator import Migrator
from vecmigrate.progress import Listener, told_to

__all__ = ["boot"]

log = logging.getLogger("vecmigrate")


def boot(
    url: Any, *, raises: bool, lock_timeout: float, app_version: str | None, on_progress: Listener | None = None
) -> BootReport:
    """Upgrade, and turn how that went into a report. Raises VecmigrateError only with ``raises``."""
    began = time.perf_counter()
    try:
        report = called(url, lambda named: _upgraded(named, lock_timeout, app_version, on_progress))
    except LockTimeoutError as error:
        # The environment has no say here: an argument, also a default one, comes first.
        error.next_step = "start again when the other process is done, or pass a longer lock_timeout"
        failure: VecmigrateError = error
    except VecmigrateError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the service decides, so nothing but signals may pass
        failure = _unexpected(error)
    else:
        return _succeeded(report, time.perf_counter() - began)
    without_values(failure)
    if raises:
        raise failure
    log.warning("The database was not brought up to date: %s", failure)
    return _failed(failure, time.perf_counter() - began)


def _upgraded(named: Any, lock_timeout: float, app_version: str | None, on_progress: Listener | None) -> Report:
    chosen = settings.resolve({"database_url": named, "lock_timeout": lock_timeout}, os.environ)
    migrator = Migrator(chosen, app_version=app_version)
    _require_lasting(migrator.database)
    with told_to(on_progress):
        return migrator.upgrade()


def _require_lasting(database: Database) -> None:
    """Refuse a URL that means memory: the database would be gone before the service could use it."""
    if database.is_sqlite and database.path is None and database.engine is None:
        raise ConfigurationError(
            "The database URL names a database in memory, which only the connection that made it can see. "
            "Nothing was changed.",
            next_step="pass the service's Engine or Connection, or the URL of a file; of an asynchronous engine: "
            "await connection.run_sync(vecmigrate.ensure_current)",
        )


def _unexpected(error: Exception) -> RunFailedError:
    """Return the error for a fault that has no error of its own; the log gets where, without any values."""
    log.error("Unexpected %s:\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    failure = RunFailedError(
        f"Unexpected {type(error).__name__}. A run is one transaction, so the database is whole.",
        next_step="vecmigrate status, and report this with the traceback in the log",
    )
    failure.__cause__ = told(error)
    return failure


def _succeeded(report: Report, duration: float) -> BootReport:
    if report.is_ahead:
        state = "ahead_compatible"
        for note in report.notes:
            log.warning("%s", note)
    elif report.applied:
        state = "migrated"
    else:
        state = "waited" if report.waited else "current"
    return BootReport(
        state=state,
        before=report.from_revision,
        after=report.to_revision,
        backup=report.backup,
        duration_seconds=duration,
        notes=tuple(report.notes),
    )


def _failed(error: VecmigrateError, duration: float) -> BootReport:
    state = "failed"
    if isinstance(error, AheadError):
        state = "ahead_incompatible"
    elif isinstance(error, LockTimeoutError):
        state = "locked"
    return BootReport(
        state=state,
        before=error.revision,
        after=error.revision,
        backup=error.backup,
        duration_seconds=duration,
        error=error,
    )
