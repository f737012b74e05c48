"""Whether a step loses rows: those before, against those after and those that are kept aside."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from alembic.runtime.migration import MigrationStep
from sqlalchemy import Connection, and_, column, func, inspect, or_, select, table

from vecmigrate import effects, progress
from vecmigrate.catalog import column_names, is_sqlite, table_names
from vecmigrate.schema import OWN_PREFIX, PRESERVED
from vecmigrate.shapes import Shapes
from vecmigrate.steps import direction_of, revision_of

__all__ = ["LossGuard", "rows_that_would_go"]

_AT_ONCE = 100
"""How many seeds are looked for by one query: SQLite nests no expression deeper than 1,000."""


@dataclass(frozen=True)
class Stock:
    """How many rows of users each table has, and how many of it are kept aside; 0 of one that nothing writes to.

    ``changed`` counts the seeds that somebody changed: they are the script's to change, and a user's to lose.
    """

    rows: dict[str, int]
    changed: dict[str, int]
    aside: Mapping[str, int]

    def left_by(self, after: "Stock", name: str, elsewhere: int) -> int:
        """Return how many rows more a table has afterwards, where that is negative how many it lost."""
        before = self.rows.get(name, 0) + self.aside.get(name, 0)
        if name in self.rows and name not in after.rows:
            before += self.changed[name]
        return after.rows.get(name, 0) + after.aside.get(name, 0) + elsewhere - before


class LossGuard:
    """Counts the rows of the tables of the ladder around each step of one run. Reads only.

    A table is counted before the first statement of the step that writes to it, and after the step; where the database
    does not tell of that, every table is counted before. Where it is not known what the scripts make, every table
    counts that is not the tool's.
    """

    def __init__(self, connection: Connection, shapes: Shapes) -> None:
        self._connection = connection
        self._shapes = shapes
        self._before = Stock({}, {}, {})
        self._untouched: set[str] = set()

    def begin_step(self) -> None:
        names = self._names()
        self._before = Stock(dict.fromkeys(names, 0), dict.fromkeys(names, 0), _aside(self._connection))
        self._untouched = set(effects.tell_first_writes(self._connection, names, self._count_before))
        self._count(self._before, names - self._untouched)

    def _count_before(self, names: Collection[str]) -> None:
        self._count(self._before, names)
        self._untouched.difference_update(names)

    def telling(self, step: MigrationStep) -> AbstractContextManager[object]:
        """Let the progress of a step be told: the rows that are there, and those that it has written so far."""
        name, count = revision_of(step) or "base", None
        if is_sqlite(self._connection):
            driver: Any = self._connection.connection.driver_connection
            before = driver.total_changes
            count = lambda: (driver.total_changes - before, self._rows_before())  # noqa: E731
        return progress.phase(direction_of(step), name=name, unit="rows", total=self._rows_before(), count=count)

    def _rows_before(self) -> int | None:
        """Return how many rows there were in the tables that the step has written to so far."""
        return sum(self._before.rows.values()) or None

    def end_step(self, elsewhere: Mapping[str, int]) -> dict[str, int]:
        """Return the tables that lost rows since the step began, with how many that nothing kept.

        ``elsewhere`` is what the script says of rows that another table tells. Rows that leave a table are not lost
        where a table that the step made has as many; nor those of a table that went where any table grew by as many.
        """
        before, after = self._before, self._after()
        names = before.rows.keys() | after.rows.keys() | before.aside.keys()
        changes = {name: before.left_by(after, name, elsewhere.get(name, 0)) for name in names}
        lost = {name: -change for name, change in sorted(changes.items()) if change < 0}
        gone = lost.keys() - after.rows.keys()
        grown = {name: change for name, change in changes.items() if change > 0}
        made = sum(change for name, change in grown.items() if name not in before.rows)
        spare = _cover(lost, lost.keys() - gone, made)
        _cover(lost, gone, spare + sum(grown.values()) - made)
        return {name: count for name, count in lost.items() if count}

    def _after(self) -> Stock:
        untouched = frozenset(self._untouched)
        names = self._names()
        after = Stock(dict.fromkeys(names, 0), dict.fromkeys(names, 0), _aside(self._connection))
        self._count(after, names - untouched)
        return after

    def _names(self) -> frozenset[str]:
        names = frozenset(name for name in table_names(self._connection) if not name.startswith(OWN_PREFIX))
        if self._shapes.is_known:
            return frozenset(name for name in names if name.lower() in self._shapes.tables)
        return names

    def _count(self, stock: Stock, names: Iterable[str]) -> None:
        for name in names:
            total, seeded, unchanged = _counts(self._connection, self._shapes, name)
            stock.rows[name], stock.changed[name] = total - seeded, seeded - unchanged


def _cover(lost: dict[str, int], names: Iterable[str], spare: int) -> int:
    """Take rows that are found elsewhere off what some tables lost; return how many are left."""
    for name in sorted(names):
        covered = min(lost[name], spare)
        lost[name] -= covered
        spare -= covered
    return spare


def rows_that_would_go(connection: Connection, shapes: Shapes, names: Collection[str]) -> dict[str, int]:
    """Return which of some tables hold rows of users, with how many. Read-only."""
    counts = {}
    for name in sorted(each for each in table_names(connection) if each.lower() in names):
        total, _, unchanged = _counts(connection, shapes, name)
        counts[name] = total - unchanged
    return {name: count for name, count in counts.items() if count}


def _aside(connection: Connection) -> dict[str, int]:
    if not inspect(connection).has_table(PRESERVED.name):
        return {}
    kept = select(PRESERVED.c.source_table, func.count()).where(PRESERVED.c.landed == 0)
    return {row[0]: row[1] for row in connection.execute(kept.group_by(PRESERVED.c.source_table))}


def _counts(connection: Connection, shapes: Shapes, name: str) -> tuple[int, int, int]:
    """Return how many rows a table has, how many of them scripts put there, and how many of these are as they were."""
    total = connection.scalar(select(func.count()).select_from(table(name))) or 0
    columns = {each.lower() for each in column_names(connection, name)}
    key, seeds = shapes.seeds(name.lower())
    usable = [versions for versions in seeds if all({each.lower() for each in row} <= columns for row in versions)]
    seeded = unchanged = 0
    for at in range(0, len(usable) if total else 0, _AT_ONCE):
        page = usable[at : at + _AT_ONCE]
        seeded += _matching(connection, name, [{each: versions[0][each] for each in key} for versions in page])
        unchanged += _matching(connection, name, [row for versions in page for row in versions])
    return total, seeded, unchanged


def _matching(connection: Connection, name: str, rows: Iterable[Mapping[str, object]]) -> int:
    same = [and_(*(column(each).is_not_distinct_from(value) for each, value in row.items())) for row in rows]
    return connection.scalar(select(func.count()).select_from(table(name)).where(or_(*same))) or 0
