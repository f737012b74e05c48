"""Places where nothing of ours may be: another service's folder, which that service removes."""

import os
from collections.abc import Iterator

from vecmigrate.engine import Database
from vecmigrate.errors import ConfigurationError
from vecmigrate.settings import Settings
from vecmigrate.shell import quoted

__all__ = ["PROJECT_FOLDER", "misplaced", "project_folder", "require_apart"]

PROJECT_FOLDER = ".mcp-vector-search"
"""The folder of mcp-vector-search in a project: its ``index`` command removes it with everything in it."""


def project_folder(path: str) -> str | None:
    """Return the folder of mcp-vector-search that a path lies in, by its name or through links, else None.

    Read-only. Names are compared as the file systems of macOS and Windows do it, whatever their case.
    """
    for each in (os.path.abspath(path), os.path.realpath(path)):
        parts = each.split(os.sep)
        # The last part is the file itself, or a folder that is to be made.
        found = [index for index, part in enumerate(parts) if part.casefold() == PROJECT_FOLDER]
        if found:
            return os.sep.join(parts[: found[0] + 1])
    return None


def require_apart(database: Database, settings: Settings) -> None:
    """Raise ConfigurationError where the database, its backups or its mirror are in a folder of mcp-vector-search.

    Read-only. What the database is named by counts too: a link into that folder goes with it.
    """
    for what, path, variable, folder in misplaced(database, settings):
        outside = quoted(os.path.join(os.path.dirname(folder), os.path.basename(path)))
        step = f"set {variable} to a place outside it, for example {outside}, and run the same command again"
        moved = f"vecmigrate --db-path {outside} migrate; a file that is there already is to be moved first"
        raise ConfigurationError(
            f"{what}, {path}, is inside {folder}, which mcp-vector-search removes with all that is in it when it "
            "indexes anew. Nothing was changed.",
            next_step=step if variable else moved,
        )


def misplaced(database: Database, settings: Settings) -> Iterator[tuple[str, str, str | None, str]]:
    """Yield what is in a folder of mcp-vector-search: what it is, its path, the setting of it, and that folder."""
    if database.path is None:
        return
    named = settings.database_url if isinstance(settings.database_url, os.PathLike) else database.url.database
    for what, path, variable in (
        ("The database", os.fspath(named or ""), None),
        ("The database", database.path, None),
        ("The folder of the backups", settings.backup_folder(database.path), "VECMIGRATE_BACKUP_DIR"),
        ("The mirror of the history", settings.mirror(database.path), "VECMIGRATE_HISTORY_FILE"),
    ):
        folder = None if path.startswith("file:") else project_folder(path)
        if folder is not None:
            yield what, path, variable, folder
