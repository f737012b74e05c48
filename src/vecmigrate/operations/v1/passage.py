"""Odd rows, page by page through Python, and the rows that come back."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vecmigrate.catalog import quoted
from vecmigrate.operations.v1 import plain
from vecmigrate.operations.v1.cells import codec_of, emptied, fetched_by_key, insert, row_of, run
from vecmigrate.operations.v1.change import Way
from vecmigrate.operations.v1.codec import Row, dumped, same_row
from vecmigrate.operations.v1.exchange import Tables
from vecmigrate.operations.v1.kept_rows import READ, RESTORE, WAIT, WAIT_WHILE_TAKEN, Entry, KeptRow, KeptRows
from vecmigrate.operations.v1.landing import Landing
from vecmigrate.operations.v1.mirror import Mirror
from vecmigrate.operations.v1.one_row import OneRow
from vecmigrate.operations.v1.readers import UnfitError
from vecmigrate.operations.v1.returns import Returns

__all__ = ["Passage"]

_REFUSED = "refused by the rules of the table"
_DEFERRED = "vecmigrate_deferred"


@dataclass
class _Item:
    """A row on its way; ``note`` says that it went here as it was, and waits again."""

    key: Any
    row: Row
    record: KeptRow | None
    note: KeptRow | None
    memory: str | None
    target: Row | None = None
    lost: Sequence[str] = ()


class Passage:
    """The way of rows that need Python."""

    def __init__(
        self,
        way: Way,
        kept: KeptRows,
        tables: Tables,
        *,
        conversion: OneRow,
        records: Returns,
        mirrors: tuple[Mirror, Mirror],
    ) -> None:
        self._way, self._kept, self._tables = way, kept, tables
        self._conversion, self._records = conversion, records
        self._source_mirror, self._target_mirror = mirrors
        self._connection = kept.connection
        self._codec = codec_of(kept.connection)
        has_rowid = tables.source.has_rowid and tables.target.has_rowid and not tables.target.rowid_is_column
        self._has_rowid = has_rowid
        self._landing = Landing(kept.connection, tables.target.name, rowid="rowid" if has_rowid else None)

    def odd(self) -> None:
        """Land the odd rows or set them aside; those that wait while their key is taken come last."""
        key = "INTEGER" if self._codec else "tid"
        run(self._connection, f"CREATE TEMPORARY TABLE {_DEFERRED} (key {key} PRIMARY KEY)")
        for is_last in (False, True):
            for page in self._pages():
                self._pass(page, is_last=is_last)
            run(self._connection, f"DELETE FROM {plain.ODD}")
            run(self._connection, f"INSERT INTO {plain.ODD} (key) SELECT key FROM {_DEFERRED}")
        run(self._connection, f"DROP TABLE {_DEFERRED}")

    def _pages(self) -> Iterator[list[_Item]]:
        columns, key = self._tables.source.names, plain.row_key(self._connection)
        record, joins = "NULL", ""
        if self._records.any:
            record, joins = "r.id", f" LEFT JOIN {self._records.name} r ON {self._records.match()}"
        query = (
            f"SELECT o.key, {record}, {self._tables.source.cells(self._connection)} FROM {plain.ODD} o "
            f"JOIN {quoted(self._tables.rows)} s ON {key} = o.key{joins}"
        )
        for found in fetched_by_key(self._connection, query, "o.key"):
            yield self._items(columns, found)

    def _items(self, columns: Sequence[str], found: list[Any]) -> list[_Item]:
        ids = [each[1] for each in found if each[1] is not None]
        records = {}
        if ids:
            query = f"SELECT {READ} FROM vecmigrate_preserved p WHERE p.id IN ({', '.join('?' * len(ids))})"
            records = {each[0]: KeptRow._make(each) for each in run(self._connection, query, ids)}
        return [
            self._item(key, row_of(columns, values, self._codec), records.get(id_))
            for key, id_, *values in emptied(found)
        ]

    def _item(self, key: Any, row: Row, kept: KeptRow | None) -> _Item:
        if kept is None:
            return _Item(key, row, None, None, None)
        if kept.treatment == RESTORE:
            return _Item(key, row, kept, None, kept.as_memory())
        then = kept.converted
        present = {name: value for name, value in row.items() if name in then}
        if same_row(present, then):
            return _Item(key, row, None, kept, kept.memory)
        # Somebody edited it, so it is a row like any other, with what was kept of it before it waited.
        return _Item(key, row, self._remembered(kept.memory), None, kept.memory)

    def _remembered(self, memory: str | None) -> KeptRow | None:
        if memory is None:
            return None
        kept = json.loads(memory)
        return KeptRow(
            *(0, kept["source_table"], kept["row"], 1, None, kept["converted"], kept["reason"], kept["treatment"]),
            *(None, None),
        )

    def _pass(self, page: list[_Item], *, is_last: bool) -> None:
        deferred = [] if is_last else [each for each in page if each.note and each.note.treatment == WAIT_WHILE_TAKEN]
        if deferred:
            insert(self._connection, _DEFERRED, ("key",), [(each.key,) for each in deferred])
            page[:] = [each for each in page if each not in deferred]
        converted = list(map(self._converted, emptied(page)))
        entries = [each for each in converted if isinstance(each, Entry)]
        landing = [each for each in converted if isinstance(each, _Item)]
        converted.clear()
        self._kept.add(entries + self._land(landing))

    def _land(self, items: list[_Item]) -> list[Entry]:
        """Land rows, and return what must be kept of them. The list is empty in the end."""
        rowids = [each.key if self._has_rowid else None for each in items]
        admitted = self._landing.admitted([each.target for each in items if each.target is not None], rowids)
        entries = [self._kept_of(each, is_in=is_in) for is_in, each in zip(admitted, emptied(items), strict=True)]
        return [each for each in entries if each is not None]

    def _kept_of(self, item: _Item, *, is_in: bool) -> Entry | None:
        if not is_in:
            return self._aside(item, _REFUSED, treatment=WAIT)
        if item.target is None or not item.lost:
            return None
        return self._landed(item.row, item.target, item.lost)

    def _converted(self, item: _Item) -> Entry | _Item:
        """Work out what a row becomes and what of it would be lost; return its entry if it is set aside at once."""
        if item.note is not None and item.note.treatment == WAIT:
            return self._aside(item, item.note.reason, treatment=WAIT)
        where = f"the row {item.key} of {self._way.table}"
        original, then = (item.record.row, item.record.converted) if item.record else (None, None)
        try:
            target = self._conversion.converted(item.row, original, then, where)
        except UnfitError as unfit:
            return self._aside(item, str(unfit))
        [target] = self._target_mirror.stored([target])
        [back] = self._source_mirror.stored([self._conversion.back(target, where)])
        lost = self._conversion.lost(item.row, back)
        keys = [item.row[name] for name in self._way.key] + [target[name] for name in self._way.target_key]
        if lost and None in keys:
            return self._aside(item, "has no key by which to give back its values")
        item.target, item.lost = target, lost
        return item

    def _landed(self, row: Row, target: Row, lost: Sequence[str]) -> Entry:
        way, is_whole = self._way, self._way.has_functions
        names = row if is_whole else dict.fromkeys((*way.key, *way.touched))
        target_names = target if is_whole else dict.fromkeys((*way.target_key, *way.target_touched))
        gone = {column.name for column in way.gone}
        word = "no column for" if gone.issuperset(lost) else "converted:"
        return self._kept.landed(
            way.direction,
            way.table,
            {name: row[name] for name in names},
            f"{word} {', '.join(lost)}",
            target_key=tuple(target[name] for name in way.target_key),
            converted={name: target[name] for name in target_names if name in target},
        )

    def _aside(self, item: _Item, reason: str, *, treatment: str = RESTORE) -> Entry:
        row = item.note.row_json if item.note else dumped(item.row)
        rowid = item.key if self._has_rowid else None
        return self._kept.aside(
            self._way.direction, self._way.table, row, reason, memory=item.memory, treatment=treatment, rowid=rowid
        )

    # The rows that come back.

    def back(self) -> None:
        """Put back the rows that the opposite way set aside, where their keys and the rules of the table admit them."""
        for page in self._kept.pages(self._way.opposite, self._way.table, landed=0):
            known = [each for each in page if each.row.keys() <= self._columns]
            rows = [self._as_named(each.row) for each in known]
            wanted = [each.source_rowid if self._has_rowid else None for each in known]
            rowids = self._landing.free_rowids(wanted)
            order = sorted(range(len(rows)), key=lambda position: rowids[position] is None)
            admitted = self._landing.admitted([rows[p] for p in order], [rowids[p] for p in order])
            back = [known[p] for p, is_in in zip(order, admitted, strict=True) if is_in]
            self._kept.forget(each.id for each in back)
            self._kept.add([entry for each in back if (entry := self._reminder(each)) is not None])

    @property
    def _columns(self) -> set[str]:
        return set(self._tables.target.names)

    def _as_named(self, row: Row) -> Row:
        return {name: row[name] for name in self._tables.target.names if name in row}

    def _reminder(self, kept: KeptRow) -> Entry | None:
        """Return what must be kept so that the next way sets the row aside again, or gives it back what it had."""
        row = kept.row
        key = tuple(row[name] for name in self._way.target_key)
        if kept.treatment == RESTORE:
            if kept.memory is None:
                return None
            return self._kept.remembered(kept.memory, self._way.direction, target_key=key)
        return self._kept.landed(
            self._way.direction,
            self._way.table,
            kept.row_json,
            kept.reason,
            target_key=key,
            converted=row,
            treatment=kept.treatment,
            memory=kept.memory,
        )
