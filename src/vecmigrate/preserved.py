"""The rows whose originals are kept aside, and why."""

import json
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, inspect, select

from vecmigrate.schema import PRESERVED

__all__ = ["added", "counts", "counts_of", "rows"]


def counts(connection: Connection, *where: ColumnElement[bool]) -> tuple[int, int]:
    """Return how many rows are kept as converted and how many as set aside. Read-only.

    A row that went back as it was is neither, although there is a record of it that tells the next upgrade
    to set it aside again.
    """
    if not inspect(connection).has_table(PRESERVED.name):
        return 0, 0
    is_converted = and_(PRESERVED.c.landed == 1, PRESERVED.c.row != PRESERVED.c.converted)
    converted, set_aside = func.count().filter(is_converted), func.count().filter(PRESERVED.c.landed == 0)
    found = connection.execute(select(converted, set_aside).select_from(PRESERVED).where(*where)).one()
    return found[0], found[1]


def counts_of(connection: Connection, revision: str | None, direction: str) -> tuple[int, int]:
    """Return how many rows a revision keeps, in a direction, as converted and as set aside. Read-only."""
    return counts(connection, PRESERVED.c.revision == revision, PRESERVED.c.direction == direction)


def added(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    return after[0] - before[0], after[1] - before[1]


def rows(connection: Connection, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Return what is kept, newest first, with contents. Read-only."""
    if not inspect(connection).has_table(PRESERVED.name):
        return []
    found = connection.execute(select(PRESERVED).order_by(PRESERVED.c.id.desc()).limit(limit)).mappings()
    return [_decoded(dict(row)) for row in found]


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: json.loads(row[name]) for name in ("row", "converted") if row[name] is not None}
