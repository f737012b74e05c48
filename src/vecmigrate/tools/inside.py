"""What a rehearsal sees of its run from inside: rows of tables, reasons, foreign keys, objects and locks."""

import os
import time
from collections import Counter
from typing import Any

from sqlalchemy import Connection, func, select, table
from sqlalchemy.exc import DBAPIError

from vecmigrate import adoption, history, preserved
from vecmigrate.catalog import Object, is_sqlite, objects, quoted
from vecmigrate.schema import OWN_PREFIX
from vecmigrate.shapes import Shapes
from vecmigrate.watch import RehearsedError, Watch

__all__ = ["WAIT_SECONDS", "Inside"]

WAIT_SECONDS = 1
"""How long a rehearsal on a server waits for each lock: others queue behind who waits."""

_LOCKS = (
    "SELECT DISTINCT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
    "WHERE l.pid = pg_backend_pid() AND l.granted AND c.relkind IN ('r', 'p') "
    "AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock') ORDER BY 1, 2"
)


class Inside(Watch):
    """Notes what a run does. ``file`` is the SQLite file it runs on, of which the size of the journal is taken."""

    def __init__(self, *, file: str | None = None, is_rolled_back: bool = False) -> None:
        self.is_rolled_back = is_rolled_back
        self.steps: list[dict[str, Any]] = []
        self.tables: dict[str, dict[str, int | None]] = {}
        self.foreign_keys: list[dict[str, Any]] = []
        self.objects_lost: list[dict[str, str]] = []
        self.locks: dict[str, str] = {}
        self.bytes_before = self.bytes_after = self.journal_bytes = 0
        self.seconds = 0.0
        self.ended_at: float | None = None
        self._file = file
        self._found: list[Object] = []
        self._ours: set[tuple[str, str]] = set()
        self._rows: dict[str, int] = {}
        self._violations: Counter[tuple[str, str]] = Counter()
        self._reasons: dict[str, int] = {}
        self._began = 0.0
        self._shapes: Shapes | None = None

    def begin(self, connection: Connection, shapes: Shapes) -> None:
        if self.is_rolled_back:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {WAIT_SECONDS * 1000}")
        self._shapes = shapes
        self._found = objects(connection)
        self._ours = _adopted(connection)
        self._rows = _rows(connection)
        self.tables = {name: {"before": count, "after": None} for name, count in self._rows.items()}
        self._violations = _violations(connection)
        self.bytes_before = _size(connection)
        self._began = time.monotonic()

    def begin_step(self, connection: Connection, revision: str | None, direction: str) -> None:
        self._reasons = preserved.reasons_of(connection, revision, direction)

    def end_step(self, connection: Connection, attempt: history.Attempt) -> None:
        reasons = preserved.reasons_of(connection, attempt.revision, attempt.direction)
        self.steps.append(
            {
                "revision": attempt.revision,
                "name": attempt.name,
                "direction": attempt.direction,
                "seconds": attempt.duration_seconds,
                "rows": attempt.metadata["rows"],
                "reasons": {why: more for why in reasons if (more := reasons[why] - self._reasons.get(why, 0))},
            }
        )

    def end(self, connection: Connection) -> None:
        self.seconds = time.monotonic() - self._began
        self.journal_bytes = _bytes(f"{self._file}-journal") if self._file else 0
        after = _rows(connection)
        names = [*self._rows, *(name for name in after if name not in self._rows)]
        self.tables = {name: {"before": self._rows.get(name), "after": after.get(name)} for name in names}
        found = _violations(connection)
        self.foreign_keys = [
            {"table": child, "parent": parent, "rows": count, "before": self._violations[child, parent]}
            for (child, parent), count in sorted(found.items())
        ]
        self._ours |= _adopted(connection)
        self.objects_lost = list(self._lost(objects(connection)))
        self.bytes_after = _size(connection)
        self.ended_at = time.monotonic()
        if self.is_rolled_back:
            self.locks = {name: mode for name, mode in connection.exec_driver_sql(_LOCKS) if name in self._rows}
            raise RehearsedError

    def _lost(self, after: list[Object]) -> Any:
        """Yield what is gone, and is neither of the ladder nor kept for the way back."""
        present = {(each.type, each.name) for each in after}
        for each in self._found:
            if (each.type, each.name) not in present | self._ours and not self._is_of_ladder(each):
                yield {"type": each.type, "name": each.name, "table": each.table}

    def _is_of_ladder(self, each: Object) -> bool:
        name = each.name.lower()
        if name.startswith((OWN_PREFIX, "sqlite_")) or self._shapes is None:
            return True
        return name in self._shapes.tables | self._shapes.every.indexes | self._shapes.hanging


def _adopted(connection: Connection) -> set[tuple[str, str]]:
    return {(each["type"], each["name"]) for each in adoption.rows(connection)}


def _rows(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has, but those of the tool and of virtual tables. Read-only."""
    found = [each for each in objects(connection) if each.type == "table"]
    virtual = tuple(f"{each.name}_" for each in found if each.is_virtual)
    counts = {}
    for each in found:
        hidden = each.is_virtual or each.name.startswith((OWN_PREFIX, "sqlite_", *virtual))
        if not hidden and (count := _count(connection, each.name)) is not None:
            counts[each.name] = count
    return counts


def _count(connection: Connection, name: str) -> int | None:
    query = select(func.count()).select_from(table(name))
    if not is_sqlite(connection):
        return connection.scalar(query) or 0
    try:
        return connection.scalar(query) or 0
    except DBAPIError:  # of a table that this SQLite cannot read
        return None


def _violations(connection: Connection) -> Counter[tuple[str, str]]:
    """Return how many rows of each table lack the row of another that they refer to. A server sees to that itself."""
    found: Counter[tuple[str, str]] = Counter()
    for each in objects(connection) if is_sqlite(connection) else ():
        if each.type == "table" and not each.is_virtual:
            try:
                rows = connection.exec_driver_sql(f"PRAGMA foreign_key_check({quoted(each.name)})")
                found.update((each.name, row[2]) for row in rows)
            except DBAPIError:  # "foreign key mismatch": the key refers to nothing that could be a parent
                continue
    return found


def _size(connection: Connection) -> int:
    if is_sqlite(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())
    return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())


def _bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
