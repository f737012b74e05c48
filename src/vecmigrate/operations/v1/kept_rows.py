"""Kept rows: the originals in vecmigrate_preserved, by which a way back gives what was found."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from vecmigrate.operations.v1.cells import PAGE, driver_sql, insert
from vecmigrate.operations.v1.codec import Row, dumped, key_text, loaded
from vecmigrate.schema import PRESERVED

__all__ = ["ABSENT", "READ", "RESTORE", "WAIT", "WAIT_WHILE_TAKEN", "Entry", "KeptRow", "KeptRows", "Treatment"]

Treatment = str
RESTORE: Treatment = "restore"
"""The original is to be put back on the way back: where the row did not land, or is still as it was converted."""
WAIT: Treatment = "wait"
"""The row went back as it was; on its next way it is set aside again unless it was edited."""
WAIT_WHILE_TAKEN: Treatment = "wait-while-taken"
"""The row went back as it was; on its next way it is set aside again while another row has its key."""
ABSENT: Treatment = "absent"
"""A note that no row was there, although the next way would make one: it makes none."""


class Entry(NamedTuple):
    """A row of vecmigrate_preserved that is to be written; ``row`` and ``converted`` are JSON."""

    revision: str
    direction: str
    source_table: str
    row: str
    landed: int
    target_key: str | None
    converted: str | None
    reason: str
    preserved_at: str
    treatment: str
    memory: str | None
    operation: str
    source_rowid: int | None


class KeptRow(NamedTuple):
    """A row of vecmigrate_preserved that was read."""

    id: int
    source_table: str
    row_json: str
    landed: int
    target_key: str | None
    converted_json: str | None
    reason: str
    treatment: str
    memory: str | None
    source_rowid: int | None

    @property
    def row(self) -> Row:
        return loaded(self.row_json)

    @property
    def converted(self) -> Row:
        return loaded(self.converted_json or "{}")

    def as_memory(self) -> str:
        """Return this record for a row that is set aside now, so that it comes back with the row."""
        kept = {"source_table": self.source_table, "row": self.row_json, "converted": self.converted_json}
        return json.dumps(kept | {"reason": self.reason, "treatment": self.treatment})


READ = (
    "p.id, p.source_table, p.row, p.landed, p.target_key, p.converted, p.reason, p.treatment, p.memory, p.source_rowid"
)


class KeptRows:
    """The kept rows of one revision, or of one operation in it. ``direction`` is that of the run that kept them."""

    def __init__(self, connection: sa.Connection, *, revision: str, operation: str = "") -> None:
        self.connection = connection
        self.revision = revision
        self.operation = operation
        self.now = datetime.now(UTC).isoformat(timespec="seconds")

    def aside(
        self,
        direction: str,
        source: str,
        row: Row | str,
        reason: str,
        *,
        memory: str | None = None,
        treatment: Treatment = RESTORE,
        rowid: int | None = None,
    ) -> Entry:
        """Return the entry of a row that does not land; *rowid* is where it lay."""
        row = row if isinstance(row, str) else dumped(row)
        return Entry(
            *(self.revision, direction, source, row, 0, None, None, reason),
            *(self.now, treatment, memory, self.operation, rowid),
        )

    def landed(
        self,
        direction: str,
        source: str,
        row: Row | str,
        reason: str,
        *,
        target_key: Any,
        converted: Row | str,
        treatment: Treatment = RESTORE,
        memory: str | None = None,
    ) -> Entry:
        """Return the entry of a row that landed as *converted* under *target_key*."""
        row = row if isinstance(row, str) else dumped(row)
        converted = converted if isinstance(converted, str) else dumped(converted)
        return Entry(
            *(self.revision, direction, source, row, 1, key_text(target_key), converted, reason),
            *(self.now, treatment, memory, self.operation, None),
        )

    def remembered(self, memory: str, direction: str, *, target_key: Any) -> Entry:
        """Return the entry that ``KeptRow.as_memory`` told of, for a row that came back under *target_key*."""
        kept = json.loads(memory)
        return self.landed(
            direction,
            kept["source_table"],
            kept["row"],
            kept["reason"],
            target_key=target_key,
            converted=kept["converted"],
            treatment=kept["treatment"],
        )

    def add(self, entries: Sequence[Entry]) -> None:
        if entries:
            insert(self.connection, PRESERVED.name, Entry._fields, entries)

    def forget(self, ids: Iterable[int]) -> None:
        """Delete kept rows by their ids."""
        values = [(each,) for each in ids]
        if values:
            statement = f"DELETE FROM {PRESERVED.name} WHERE id = ?"
            self.connection.exec_driver_sql(driver_sql(self.connection, statement), values)

    def forget_landed(self, direction: str, source: str | None = None) -> None:
        """Delete what is kept of rows that landed, of one table or of all."""
        self.connection.execute(sa.delete(PRESERVED).where(self.matching(direction, source, landed=1)))

    def matching(self, direction: str, source: str | None = None, *, landed: int) -> sa.ColumnElement[bool]:
        """Return the condition of the rows that a direction kept."""
        columns = PRESERVED.c
        found = sa.and_(
            columns.revision == self.revision,
            columns.operation == self.operation,
            columns.direction == direction,
            columns.landed == landed,
        )
        return found if source is None else sa.and_(found, columns.source_table == source)

    def count(self, direction: str, source: str | None = None, *, landed: int) -> int:
        query = sa.select(sa.func.count()).select_from(PRESERVED).where(self.matching(direction, source, landed=landed))
        return int(self.connection.scalar(query) or 0)

    def newest_id(self) -> int:
        return int(self.connection.scalar(sa.select(sa.func.max(PRESERVED.c.id))) or 0)

    def pages(self, direction: str, source: str, *, landed: int) -> Iterator[list[KeptRow]]:
        """Yield what was kept of a table, newest first, in pages; meanwhile kept rows may come and go.

        What was kept last goes back first, also where the rules of the table admit only one of two. What is added
        meanwhile must be of the other direction.
        """
        query = (
            f"SELECT {READ} FROM {PRESERVED.name} p WHERE p.revision = ? AND p.operation = ? "
            f"AND p.direction = ? AND p.source_table = ? AND p.landed = ? AND p.id <= ? ORDER BY p.id DESC LIMIT {PAGE}"
        )
        statement, last = driver_sql(self.connection, query), self.newest_id()
        while True:
            values = (self.revision, self.operation, direction, source, landed, last)
            page = [KeptRow(*found) for found in self.connection.exec_driver_sql(statement, values).all()]
            if not page:
                return
            yield page
            last = page[-1].id - 1

    def of(self, direction: str, keys: Iterable[Any]) -> dict[str, list[KeptRow]]:
        """Return the records of rows that landed, by their ``key_text`` there, newest first."""
        wanted = list(dict.fromkeys(map(key_text, keys)))
        found: dict[str, list[KeptRow]] = {}
        for start in range(0, len(wanted), PAGE):
            chosen = wanted[start : start + PAGE]
            query = (
                f"SELECT {READ} FROM {PRESERVED.name} p WHERE p.revision = ? AND p.direction = ? AND p.operation = ? "
                f"AND p.landed = 1 AND p.target_key IN ({', '.join('?' * len(chosen))}) ORDER BY p.id DESC"
            )
            statement = driver_sql(self.connection, query)
            for each in self.connection.exec_driver_sql(statement, (self.revision, direction, self.operation, *chosen)):
                found.setdefault(each.target_key, []).append(KeptRow(*each))
        return found
