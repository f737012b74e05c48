"""The rows whose originals are kept aside, and why."""

import json
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, inspect, or_, select

from vecmigrate.catalog import any_text, as_text
from vecmigrate.schema import PRESERVED

__all__ = ["added", "counts", "counts_of", "reasons_of", "rows"]


def counts(connection: Connection, *where: ColumnElement[bool]) -> tuple[int, int]:
    """Return how many rows are kept as converted and how many as set aside. Read-only.

    A row that went back as it was is neither, although there is a record of it that tells the next upgrade
    to set it aside again.
    """
    if not inspect(connection).has_table(PRESERVED.name):
        return 0, 0
    converted, set_aside = func.count().filter(_is_converted()), func.count().filter(PRESERVED.c.landed == 0)
    found = connection.execute(select(converted, set_aside).select_from(PRESERVED).where(*where)).one()
    return found[0], found[1]


def _is_converted() -> ColumnElement[bool]:
    is_other = PRESERVED.c.row != PRESERVED.c.converted
    return and_(PRESERVED.c.landed == 1, PRESERVED.c.treatment == "restore", is_other)


def reasons_of(connection: Connection, revision: str | None, direction: str) -> dict[str, int]:
    """Return why a revision keeps rows, in a direction, as converted or set aside, each with how many. Read-only."""
    if not inspect(connection).has_table(PRESERVED.name):
        return {}
    query = select(PRESERVED.c.reason, func.count()).where(
        PRESERVED.c.revision == revision,
        PRESERVED.c.direction == direction,
        or_(_is_converted(), PRESERVED.c.landed == 0),
    )
    found = connection.execute(query.group_by(PRESERVED.c.reason))
    return {as_text(reason): count for reason, count in found}


def counts_of(connection: Connection, revision: str | None, direction: str) -> tuple[int, int]:
    """Return how many rows a revision keeps, in a direction, as converted and as set aside. Read-only."""
    return counts(connection, PRESERVED.c.revision == revision, PRESERVED.c.direction == direction)


def added(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    return after[0] - before[0], after[1] - before[1]


def rows(connection: Connection, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Return what is kept, newest first, with contents, as text where that is no JSON. Read-only."""
    if not inspect(connection).has_table(PRESERVED.name):
        return []
    query = select(PRESERVED).order_by(PRESERVED.c.id.desc()).limit(limit)
    with any_text(connection):
        found = connection.execute(query).mappings().all()
    return [_decoded({name: _shown(value) for name, value in row.items()}) for row in found]


def _shown(value: object) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: _content(row[name]) for name in ("row", "converted") if row[name] is not None}


def _content(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError):
        return value
