"""What survives a restore: the history, and the identity of the database."""

import sqlite3
from contextlib import closing

from vecmigrate import history
from vecmigrate.catalog import table_ddl
from vecmigrate.causes import described
from vecmigrate.manifests import Backup
from vecmigrate.revisions import Revisions
from vecmigrate.schema import HISTORY, META
from vecmigrate.sqlite_files import is_of_content

__all__ = ["carry_over", "restored"]


def carry_over(
    old: sqlite3.Connection | None,
    new: sqlite3.Connection,
    saved: Backup | None,
    *,
    backup: Backup,
    known: Revisions,
    run_id: str,
) -> str | None:
    """Bring the history of the old state into the restored one, and add the restore itself.

    Runs inside the restore's transaction. Where there is no old state to read, the backup's own history
    goes on. Returns a note on what of the newer history could not be brought, None if that is nothing.
    """
    for table in (HISTORY, META):
        if not _has_table(new, table.name):
            for statement in table_ddl(table):
                new.execute(statement)
    note = _carry_history(old, new) if old else None
    if note and saved:
        note += f" It is in {saved.path}."
    new.execute(f"DELETE FROM {META.name} WHERE key = 'database_id'")
    new.execute(f"INSERT INTO {META.name} (key, value) VALUES ('database_id', ?)", (backup.database_id,))
    _insert(new, history.as_row(restored(backup, saved, known, run_id=run_id, note=note)))
    return note


def _carry_history(old: sqlite3.Connection, new: sqlite3.Connection) -> str | None:
    """Replace the history by the newer one; leave it where that one cannot be read, which is no cause to fail."""
    new.execute("SAVEPOINT history")
    try:
        left_out = _copy_history(old, new) if _has_table(old, HISTORY.name) else 0
    except sqlite3.Error as error:
        if not is_of_content(error):
            raise
        new.execute("ROLLBACK TO history")
        return f"The newer history could not be read ({described(error)}), so that of the backup goes on."
    finally:
        old.text_factory = str
    new.execute("RELEASE history")
    return f"Of the newer history {left_out} damaged entries were left out." if left_out else None


def _copy_history(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Copy the attempts, and return how many of them the table does not take."""
    # A single byte that is not UTF-8 would otherwise end the reading.
    old.text_factory = lambda text: text.decode(errors="replace")
    columns, left_out = [column.name for column in HISTORY.columns], 0
    new.execute(f"DELETE FROM {HISTORY.name}")
    with closing(old.execute(f"SELECT {', '.join(columns)} FROM {HISTORY.name}")) as rows:
        for row in rows:
            try:
                _insert(new, dict(zip(columns, row, strict=True)))
            except sqlite3.IntegrityError:
                left_out += 1
    return left_out


def _insert(new: sqlite3.Connection, row: dict[str, object]) -> None:
    marks = ", ".join(f":{name}" for name in row)
    new.execute(f"INSERT INTO {HISTORY.name} ({', '.join(row)}) VALUES ({marks})", row)


def restored(
    backup: Backup, saved: Backup | None, known: Revisions, *, run_id: str = "", note: str | None = None
) -> history.Attempt:
    """Return the record of a restore."""
    revision = known.get(backup.revision)
    return history.Attempt(
        migration_id=f"restore_{revision.migration_id if revision else backup.revision or 'base'}",
        revision=backup.revision,
        version=backup.app_version,
        name="restore",
        direction="restore",
        status="success",
        message=" ".join(filter(None, [f"Restored {backup.name}", note and f"({note})"])),
        executed_at=history.now().isoformat(),
        duration_seconds=0.0,
        metadata={"run_id": run_id, "restored_from": backup.path, "backup_path": saved.path if saved else None},
    )


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (name,)).fetchone() is not None
