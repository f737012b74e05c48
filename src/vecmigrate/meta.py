"""What the database says of itself: its identity, and the app version that wrote its schema."""

import uuid
from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, inspect, select

from vecmigrate.catalog import any_text, as_text
from vecmigrate.schema import META

__all__ = ["new_database_id", "read", "write"]


def new_database_id() -> str:
    return uuid.uuid4().hex


def read(connection: Connection) -> dict[str, str]:
    """Return what is known: ``database_id``, ``app_version``, ``compatible_from`` and the like. Read-only."""
    if not inspect(connection).has_table(META.name):
        return {}
    with any_text(connection):
        rows = connection.execute(select(META.c.key, META.c.value)).all()
    return {str(row.key): as_text(row.value) for row in rows}


def write(connection: Connection, values: Mapping[str, str | None]) -> None:
    """Set values in the caller's transaction; None removes one."""
    connection.execute(delete(META).where(META.c.key.in_(list(values))))
    rows = [{"key": key, "value": value} for key, value in values.items() if value is not None]
    if rows:
        connection.execute(insert(META), rows)
