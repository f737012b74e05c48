"""Rows that were set aside on the way up, on their way back into the table they came from."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.admission import Admission
from vecmigrate.operations.v1.cells import driver_sql
from vecmigrate.operations.v1.codec import Row, same_row
from vecmigrate.operations.v1.kept_rows import WAIT, WAIT_WHILE_TAKEN, Entry, KeptRow, KeptRows
from vecmigrate.operations.v1.shapes import Conversion, Shape

__all__ = ["BEFORE", "SetAside"]

BEFORE = "vecmigrate_before"
"""The temporary table of the rows that the new table had, under their rowids."""


class SetAside:
    """The rows of one table that the way up set aside. ``last_rowid`` is the greatest that any row has had."""

    def __init__(self, change: Conversion, kept: KeptRows, shape: Shape, *, last_rowid: int) -> None:
        self.change, self.kept, self.shape = change, kept, shape
        self.connection: sa.Connection = kept.connection
        self._last_rowid = last_rowid

    def move_back(self, admission: Admission) -> None:
        """Put rows that never landed back where they came from, if they still fit there."""
        if not self.kept.count("upgrade", self.change.table, landed=0):
            return
        for number, key in enumerate(self.change.keys):
            self.connection.exec_driver_sql(f"CREATE INDEX vecmigrate_before_{number} ON {BEFORE} ({quoted(key)})")
        for page in self.kept.pages("upgrade", self.change.table, landed=0):
            chosen = self._placed([each for each in page if each.row.keys() == set(self.shape.kinds)])
            stored = admission.admit([(number, each.row) for number, each in chosen])
            back = [(each, stored[number]) for number, each in chosen if number in stored]
            self.kept.add(self._entries_back(back))
            self.kept.forget(each.id for each, _ in back)

    def _placed(self, page: Sequence[KeptRow]) -> list[tuple[int, KeptRow]]:
        """Return the rows with the rowids at which they lay, and with new ones where others lie there by now."""
        taken: set[int | None] = {None}
        wanted = [each.source_rowid for each in page if each.source_rowid is not None]
        if wanted and is_sqlite(self.connection):
            marks = ", ".join("?" * len(wanted))
            query = f"SELECT s.rowid FROM {quoted(self.change.table)} s WHERE s.rowid IN ({marks})"
            taken.update(number for (number,) in self.connection.exec_driver_sql(query, tuple(wanted)))
        placed = []
        for each in page:
            number = each.source_rowid
            if number is None or number in taken:
                self._last_rowid += 1
                number = self._last_rowid
            taken.add(number)
            self._last_rowid = max(self._last_rowid, number)
            placed.append((number, each))
        return placed

    def _entries_back(self, back: Sequence[tuple[KeptRow, Row]]) -> list[Entry]:
        """Return what must be kept so that the rows wait again on the way up, as long as nobody edits them."""
        meant = [self.shape.meant(row) for _, row in back]
        taken = self._taken_before([found for found in meant if found])
        entries = []
        for (record, row), found in zip(back, meant, strict=True):
            # Landing, now that its rival is gone, would put a row into the new table that was not there.
            if found is not None or not same_row(row, record.row):
                is_beaten = found is not None and any((each, found[each]) in taken for each in self.change.keys)
                entry = self.kept.landed(
                    "downgrade",
                    self.change.table,
                    record.row_json,
                    record.reason,
                    target_key=row[self.shape.key],
                    converted=row,
                    treatment=WAIT_WHILE_TAKEN if is_beaten else WAIT,
                    memory=record.memory,
                )
                entries.append(entry)
            elif record.memory:
                entries.append(self.kept.remembered(record.memory, "downgrade", target_key=row[self.shape.key]))
        return entries

    def _taken_before(self, rows: Iterable[Row]) -> set[tuple[str, Any]]:
        """Return the keys of the rows that the new table had."""
        taken: set[tuple[str, Any]] = set()
        for key in self.change.keys:
            wanted = list({row[key] for row in rows if row[key] is not None})
            if wanted:
                marks = ", ".join("?" * len(wanted))
                query = f"SELECT s.{quoted(key)} FROM {BEFORE} s WHERE s.{quoted(key)} IN ({marks})"
                found = self.connection.exec_driver_sql(driver_sql(self.connection, query), tuple(wanted))
                taken.update((key, value) for (value,) in found)
        return taken
