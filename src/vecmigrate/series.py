"""The copies that runs leave which fail again and again: each saves the state before it, and none of them rotates."""

import contextlib
import json
import sqlite3

from vecmigrate import backups
from vecmigrate.manifests import Backup, own

__all__ = ["thin"]


def thin(folder: str, live: sqlite3.Connection, newest: Backup) -> int:
    """Remove the copies between the first one of the present series of failures and *newest*; return how many.

    The series goes back to the last success in the history of *live*. What was there before it is not touched.
    """
    failed = _copies_since_success(live)
    found = own(folder, database_id=newest.database_id, database_path=newest.database_path)
    series = [backup for backup in reversed(found) if backup.path in failed and backup.path != newest.path]
    return sum(map(backups.is_removed, series[1:]))


def _copies_since_success(live: sqlite3.Connection) -> set[str]:
    query = "SELECT CAST(status AS TEXT), CAST(metadata AS BLOB) FROM vecmigrate_history ORDER BY id DESC"
    paths = set()
    # Without the table nothing has failed yet.
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(live.execute(query)) as rows:
        for status, metadata in rows:
            if status == "success":
                break
            paths.add(_backup_path(metadata))
    return paths - {""}


def _backup_path(metadata: bytes) -> str:
    try:
        path = json.loads(metadata).get("backup_path")
    except (AttributeError, TypeError, ValueError, RecursionError):
        return ""
    return path if isinstance(path, str) else ""
