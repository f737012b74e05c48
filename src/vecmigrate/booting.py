"""The long way of ``ensure_current``: there is something to do, or something is wrong."""

import logging
import os
import time
from typing import Any

from vecmigrate import settings
from vecmigrate.boot import BootReport
from vecmigrate.errors import AheadError, LockTimeoutError, RunFailedError, VecmigrateError
from vecmigrate.journal import Report
from vecmigrate.migrator import Migrator

__all__ = ["boot"]

log = logging.getLogger("vecmigrate")


def boot(url: Any, *, raises: bool, lock_timeout: float, app_version: str | None) -> BootReport:
    """Upgrade, and turn how that went into a report. Raises VecmigrateError only with ``raises``."""
    began = time.perf_counter()
    try:
        chosen = settings.resolve({"database_url": url, "lock_timeout": lock_timeout}, os.environ)
        report = Migrator(chosen, app_version=app_version).upgrade()
    except VecmigrateError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the service decides, so nothing but signals may pass
        failure = RunFailedError(
            f"Unexpected {type(error).__name__} before the database was changed.",
            next_step="vecmigrate status, and report this with the traceback in the log",
        )
        failure.__cause__ = error
    else:
        return _succeeded(report, time.perf_counter() - began)
    if raises:
        raise failure
    log.warning("The database was not brought up to date: %s", failure)
    return _failed(failure, time.perf_counter() - began)


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
    state, revision = "failed", None
    if isinstance(error, AheadError):
        state, revision = "ahead_incompatible", error.revision
    elif isinstance(error, LockTimeoutError):
        state = "locked"
    return BootReport(
        state=state, before=revision, after=revision, backup=error.backup, duration_seconds=duration, error=error
    )
