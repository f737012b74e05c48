"""What survives a restore: the history, and the identity of the database."""

import sqlite3
from contextlib import closing

from vecmigrate import history
from vecmigrate.catalog import table_ddl
from vecmigrate.manifests import Backup
from vecmigrate.revisions import Revisions
from vecmigrate.schema import HISTORY, META

__all__ = ["carry_over", "restored"]


def carry_over(
    old: sqlite3.Connection | None,
    new: sqlite3.Connection,
    saved: Backup | None,
    *,
    backup: Backup,
    known: Revisions,
    run_id: str,
) -> None:
    """Bring the history of the old state into the restored one, and add the restore itself.

    Runs inside the restore's transaction. Where there is no old state to read, the backup's own history
    goes on.
    """
    for table in (HISTORY, META):
        if not _has_table(new, table.name):
            for statement in table_ddl(table):
                new.execute(statement)
    if old is not None and _has_table(old, HISTORY.name):
        columns = ", ".join(column.name for column in HISTORY.columns)
        marks = ", ".join("?" for _ in HISTORY.columns)
        new.execute(f"DELETE FROM {HISTORY.name}")
        with closing(old.execute(f"SELECT {columns} FROM {HISTORY.name}")) as rows:
            new.executemany(f"INSERT INTO {HISTORY.name} ({columns}) VALUES ({marks})", rows)
    new.execute(f"DELETE FROM {META.name} WHERE key = 'database_id'")
    new.execute(f"INSERT INTO {META.name} (key, value) VALUES ('database_id', ?)", (backup.database_id,))
    row = history.as_row(restored(backup, saved, known, run_id=run_id))
    names = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    new.execute(f"INSERT INTO {HISTORY.name} ({names}) VALUES ({marks})", row)


def restored(backup: Backup, saved: Backup | None, known: Revisions, *, run_id: str = "") -> history.Attempt:
    """Return the record of a restore."""
    revision = known.get(backup.revision)
    return history.Attempt(
        migration_id=f"restore_{revision.migration_id if revision else backup.revision or 'base'}",
        revision=backup.revision,
        version=backup.app_version,
        name="restore",
        direction="restore",
        status="success",
        message=f"Restored {backup.name}",
        executed_at=history.now().isoformat(),
        duration_seconds=0.0,
        metadata={"run_id": run_id, "restored_from": backup.path, "backup_path": saved.path if saved else None},
    )


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (name,)).fetchone() is not None
