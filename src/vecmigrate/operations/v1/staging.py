"""Rows on their way into the new table that cannot move set by set: converted, and not landed yet."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1 import plain
from vecmigrate.operations.v1.cells import codec_of, emptied, fetched, fetched_by_key, insert
from vecmigrate.operations.v1.codec import Row, dumped, loaded, same_row
from vecmigrate.operations.v1.kept_rows import RESTORE, WAIT, WAIT_WHILE_TAKEN, Entry, KeptRow, KeptRows
from vecmigrate.operations.v1.pairing import Pairs
from vecmigrate.operations.v1.readers import UnfitError
from vecmigrate.operations.v1.shapes import Conversion, Shape, merged

__all__ = ["Stage"]

_NOTES = ("priority", "row_key", "original", "landing", "reason", "memory", "record")
_RANK = ("rank1", "rank2", "rank3", "rank4", "tie")
_COMPLETED = "has values again that the older table could not hold"
PRESENT, RETURNING, BEATEN = 0, 1, 2
"""Rows of the table come first, then those that it could not hold, then losers, which land where nobody is."""


class _Odd(NamedTuple):
    """A row that goes through Python: its rowid, its values, and what the last way back kept of it."""

    row_key: int | None
    row: Row
    kept: KeptRow | None = None

    @property
    def treatment(self) -> str | None:
        return self.kept.treatment if self.kept else None

    @property
    def original(self) -> str | None:
        """Return the row as it was first set aside, where it only went back and forth since."""
        return self.kept.row_json if self.kept and self.treatment != RESTORE else None

    @property
    def memory(self) -> str | None:
        """Return what a row that is set aside keeps of the way down."""
        if self.kept is None:
            return None
        return self.kept.as_memory() if self.treatment == RESTORE else self.kept.memory


class Stage:
    """The temporary table of staged rows: the columns of the new table, and what is told of each row.

    ``original`` and ``landing`` are the old row and the new one as JSON; ``reason`` is NULL where the old row can be
    told from the new one; ``record`` is the kept row that returns.
    """

    def __init__(self, change: Conversion, kept: KeptRows, shape: Shape | None) -> None:
        self.change, self.kept, self.shape = change, kept, shape
        self.connection = kept.connection
        self._codec = codec_of(self.connection)
        serial, big = ("INTEGER", "INTEGER") if is_sqlite(self.connection) else ("SERIAL", "BIGINT")
        columns = ", ".join(
            f"{quoted(column)} {'TEXT' if column in change.texts else big}" for column in change.columns
        )
        self.connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE vecmigrate_stage (pos {serial} PRIMARY KEY, priority INTEGER, row_key {big}, "
            f"original TEXT, landing TEXT, reason TEXT, memory TEXT, record INTEGER, "
            f"rank1 {big}, rank2 {big}, rank3 {big}, rank4 TEXT, tie TEXT, {columns})"
        )
        self._columns = (*_NOTES, *_RANK, *change.columns)

    def drop(self) -> None:
        self.connection.exec_driver_sql("DROP TABLE vecmigrate_stage")

    def is_empty(self) -> bool:
        return not self.connection.exec_driver_sql("SELECT EXISTS (SELECT 1 FROM vecmigrate_stage)").scalar()

    def stage_odd(self, shape: Shape, pairs: Pairs) -> None:
        """Stage the rows of the old table that are marked as odd, each with what was kept of it."""
        key = plain.row_key(self.connection)
        rows = f"{plain.ODD} o JOIN {quoted(self.change.table)} s ON {key} = o.key"
        found = self._read(shape, rows)
        if pairs.is_empty():
            for page in found:
                self._stage_rows(shape, page)
            return
        self.connection.exec_driver_sql(
            "CREATE TEMPORARY TABLE vecmigrate_edited (pos INTEGER PRIMARY KEY, row_key TEXT, original TEXT)"
        )
        self._stage_same(shape, pairs, found)
        pairs.begin_edited()
        self._stage_edited(shape, pairs)
        self.connection.exec_driver_sql("DROP TABLE vecmigrate_edited")

    def _stage_same(self, shape: Shape, pairs: Pairs, found: Iterable[list[_Odd]]) -> None:
        """Stage the rows that are as they were when they went back, and write down the others."""
        count = 0
        for page in found:
            same = pairs.of_same([each.row for each in page])
            paired = [each._replace(kept=kept) for each, kept in zip(page, same, strict=True)]
            self._stage_rows(shape, [each for each in paired if each.kept])
            edited = [(each.row_key, dumped(each.row)) for each in paired if not each.kept]
            numbered = [(number, *each) for number, each in enumerate(edited, start=count)]
            insert(self.connection, "vecmigrate_edited", ("pos", "row_key", "original"), numbered)
            count += len(edited)

    def _stage_edited(self, shape: Shape, pairs: Pairs) -> None:
        for page in fetched(self.connection, "SELECT e.row_key, e.original FROM vecmigrate_edited e ORDER BY e.pos"):
            rows = [_Odd(None if row_key is None else int(row_key), loaded(original)) for row_key, original in page]
            kept = pairs.of_key([each.row[shape.key] for each in rows])
            self._stage_rows(shape, [each._replace(kept=found) for each, found in zip(rows, kept, strict=True)])

    def pull(self, shape: Shape, new: str, wanted: str) -> None:
        """Take rows back that moved set by set: those whose primary key is among *wanted*, a query.

        They need no kept row: what was kept of a row has marked it as odd.
        """
        connection, key = self.connection, self.change.key
        connection.exec_driver_sql("CREATE TEMPORARY TABLE vecmigrate_pulled (key TEXT PRIMARY KEY)")
        connection.exec_driver_sql(f"INSERT INTO vecmigrate_pulled (key) {wanted}")
        rows = f"vecmigrate_pulled p JOIN {quoted(new)} s ON s.{quoted(key)} = p.key"
        row_key = "s.rowid" if is_sqlite(connection) else "NULL"
        query = f"SELECT {row_key}, {self.change.selected(connection, self.change.columns)} FROM {rows}"
        for page in fetched(connection, query):
            self._stage_rows(shape, [_Odd(number, self._pulled(shape, values)) for number, *values in emptied(page)])
        gone = f"DELETE FROM {quoted(new)} WHERE {quoted(key)} IN (SELECT p.key FROM vecmigrate_pulled p)"
        connection.exec_driver_sql(gone)
        connection.exec_driver_sql("DROP TABLE vecmigrate_pulled")

    def _pulled(self, shape: Shape, values: Sequence[Any]) -> Row:
        """Return the row of the old table that a row of the new one was."""
        row = self.change.read(self.change.columns, values, self._codec)
        fed = {name: value for name, value in row.items() if name not in self.change.kinds}
        return {column: row[name] for column, name in shape.names.items()} | fed

    def stage_returning(self) -> None:
        """Stage the rows that the older table could not hold."""
        for page in self.kept.pages("downgrade", self.change.table, landed=0):
            rows = []
            for each in page:
                row = each.row
                notes = (RETURNING, each.source_rowid, None, each.row_json, None, each.memory, each.id)
                # The newest first: what was there the last time is there again, also where an older one waits for it.
                ranked = (0, 0, each.id, "", "")
                rows.append((*notes, *ranked, *(row[column] for column in self.change.columns)))
            insert(self.connection, "vecmigrate_stage", self._columns, rows)

    def _read(self, shape: Shape, rows: str) -> Iterator[list[_Odd]]:
        is_number = is_sqlite(self.connection)
        query = f"SELECT o.key, {self.change.selected(self.connection, shape.columns)} FROM {rows}"
        for page in fetched_by_key(self.connection, query, "o.key"):
            yield [
                _Odd(key if is_number else None, self.change.read(shape.columns, values, self._codec))
                for key, *values in emptied(page)
            ]

    def _stage_rows(self, shape: Shape, found: list[_Odd]) -> None:
        """Stage rows, or set them aside. The list is empty in the end: their memory is needed for their JSON."""
        staged: list[tuple[Any, ...]] = []
        aside: list[Entry] = []
        for each in map(partial(self._staged, shape), emptied(found)):
            if isinstance(each, Entry):
                aside.append(each)
            else:
                staged.append(each)
        insert(self.connection, "vecmigrate_stage", self._columns, staged)
        self.kept.add(aside)

    def _staged(self, shape: Shape, each: _Odd) -> tuple[Any, ...]:
        """Return a row of the stage, or the entry of a row that is set aside at once."""
        bare = self.change.without_fed(each.row)
        try:
            return self._candidate(shape, each, bare)
        except UnfitError as unfit:
            original, memory = each.original or bare, each.memory
            facts = ("upgrade", self.change.table, original, str(unfit))
            return self.kept.aside(*facts, memory=memory, rowid=each.row_key)

    def _candidate(self, shape: Shape, each: _Odd, bare: Row) -> tuple[Any, ...]:
        found, said = self._converted(shape, each)
        is_fed = self.change.fed is not None and self.change.fed.name in each.row
        reason = None if not is_fed and _restored(shape, found, bare) else "; ".join(said) or _COMPLETED
        priority = BEATEN if each.treatment == WAIT_WHILE_TAKEN else PRESENT
        original, landing = each.original or dumped(bare), reason and dumped(found)
        told = (priority, each.row_key, original, landing, reason, each.memory, None)
        ranked = (*self.change.rank(found, each.row), found[shape.names[shape.key]])
        return (*told, *ranked, *(found[column] for column in self.change.columns))

    def _converted(self, shape: Shape, each: _Odd) -> tuple[Row, list[str]]:
        """Return the new row, and what had to be read in the old one. Raises UnfitError."""
        said: list[str] = []
        if each.kept is not None and each.treatment == WAIT:
            raise UnfitError(each.kept.reason)
        if each.kept is None or each.treatment == WAIT_WHILE_TAKEN:
            found = shape.converted(each.row, said)
        else:
            found = merged(shape.converted, each.row, original=each.kept.row, became=each.kept.converted)
            with suppress(UnfitError):
                shape.converted(each.row, said)
        self.change.require(found)
        return found, said


def _restored(shape: Shape, found: Row, bare: Row) -> bool:
    """Tell whether the way back gives the old row without anybody remembering it."""
    try:
        return same_row(shape.restore(found), bare)
    except UnfitError:
        return False
