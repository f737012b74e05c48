"""Objects of the service whose SQL this SQLite does not know, and whether they hang on tables of ours."""

import re
import sqlite3
from collections.abc import Iterable

from sqlalchemy import Connection

from vecmigrate import sqlite_driver
from vecmigrate.catalog import Object, objects, schema_copy
from vecmigrate.errors import NotOursError
from vecmigrate.schema import tool_metadata

__all__ = ["require_apart"]


def require_apart(connection: Connection, tables: Iterable[str]) -> None:
    """Raise NotOursError for objects that this SQLite passes over, where they may hang on one of ``tables``. Read-only.

    The others are left alone: what a newer SQLite made of the service's own tables is no business of a run.
    """
    if not sqlite_driver.passes_over_sql(connection.connection.driver_connection):
        return
    names = "|".join(re.escape(name) for name in (*tables, *tool_metadata.tables))
    ours = re.compile(rf"\b({names})\b", re.IGNORECASE)
    hanging = [each for each in _unknown(connection) if ours.search(f"{each.name} {each.table} {each.sql}")]
    if hanging:
        listed = ", ".join(f"the {each.type} {each.name}" for each in hanging)
        raise NotOursError(
            f"This SQLite ({sqlite3.sqlite_version}) does not know the SQL of {listed}, which names tables of the "
            "run. Nothing was changed.",
            next_step="use a Python with a newer SQLite, or drop them from within the service, and make them again "
            "afterwards",
        )


def _unknown(connection: Connection) -> list[Object]:
    with schema_copy(connection) as copy:
        known = {(each.type, each.name) for each in objects(copy)} if copy is not None else set()
    found = [each for each in objects(connection) if each.sql and not each.name.startswith("sqlite_")]
    return [each for each in found if (each.type, each.name) not in known]
