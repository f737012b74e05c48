"""Triggers and rules of others on the tool's own tables, which would run in every run and with every record."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress

from sqlalchemy import Connection

from vecmigrate.catalog import triggers_on
from vecmigrate.errors import NotOursError
from vecmigrate.manifests import Backup, command
from vecmigrate.schema import VERSION_TABLE, tool_metadata
from vecmigrate.sqlite_files import open_closed_file, triggers_of

__all__ = ["require_none", "require_none_in"]

_OWN = (VERSION_TABLE, *tool_metadata.tables)


def require_none(connection: Connection) -> None:
    """Raise NotOursError that names them. Read-only; call it before anything is written to these tables."""
    if found := triggers_on(connection, _OWN):
        raise NotOursError(
            f"{_listed(found)} Nothing was changed.",
            next_step="drop them, then run it again: " + "; ".join(f"DROP TRIGGER {name}" for name, _ in found),
        )


def require_none_in(backup: Backup) -> None:
    """Raise NotOursError where a backup has such triggers, which the record of its restore would set off. Read-only."""
    found: Sequence[tuple[str, str]] = ()
    # The restore itself says what is wrong with a file that cannot be read.
    with suppress(sqlite3.Error), closing(open_closed_file(backup.path)) as connection:
        found = triggers_of(connection, _OWN)
    if found:
        raise NotOursError(
            f"The backup {backup.path} cannot be restored. {_listed(found)} Nothing was changed.",
            next_step=f"restore another one: {command(backup.database_path, 'backup', 'list')}; or drop them in a copy "
            "of that file, and use the copy as the database",
        )


def _listed(found: Sequence[tuple[str, str]]) -> str:
    names = ", ".join(f"{name} on {table}" for name, table in found)
    return f"Somebody has put triggers on the tables that vecmigrate keeps for itself, and they would run: {names}."
