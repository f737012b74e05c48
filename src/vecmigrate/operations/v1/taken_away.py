"""The SQL of what a change takes away from a table, kept in vecmigrate_adopted so that the way back gives it again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from vecmigrate.operations.v1.change import Way
from vecmigrate.schema import ADOPTED

__all__ = ["TakenAway", "forget", "recall", "remember"]

_TYPE = "changed"


@dataclass
class TakenAway:
    """What went: columns with what stood before them, constraints of the table, and indexes by name."""

    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    constraints: list[str] = field(default_factory=list)
    indexes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "TakenAway":
        return cls(dict(values["columns"]), list(values["constraints"]), dict(values["indexes"]))


def _name(way: Way, direction: str) -> str:
    return f"{way.revision} {direction} of {way.table}: {way.operation}"


def remember(connection: sa.Connection, way: Way, found: TakenAway) -> None:
    """Keep what this way takes away. Writes."""
    forget(connection, way, way.direction)
    values = {"type": _TYPE, "name": _name(way, way.direction), "table_name": way.table}
    connection.execute(sa.insert(ADOPTED).values(**values, sql=json.dumps(vars(found))))


def recall(connection: sa.Connection, way: Way) -> TakenAway:
    """Return what the opposite way took away, nothing if it never ran here. Read-only."""
    if not sa.inspect(connection).has_table(ADOPTED.name):
        return TakenAway()
    query = sa.select(ADOPTED.c.sql).where(ADOPTED.c.type == _TYPE, ADOPTED.c.name == _name(way, way.opposite))
    kept = connection.scalar(query)
    return TakenAway.of(json.loads(kept)) if kept else TakenAway()


def forget(connection: sa.Connection, way: Way, direction: str) -> None:
    where = sa.and_(ADOPTED.c.type == _TYPE, ADOPTED.c.name == _name(way, direction))
    connection.execute(sa.delete(ADOPTED).where(where))
