"""One database with its settings and the revisions, as every operation needs them."""

import os
from typing import Any

from alembic.config import Config
from packaging.version import Version
from sqlalchemy import Connection

from vecmigrate.engine import Database, locate, reading
from vecmigrate.errors import ConfigurationError, DatabaseUnusableError
from vecmigrate.heads import current_heads, one_of
from vecmigrate.locks import ThreadLock
from vecmigrate.revisions import Revisions, load
from vecmigrate.scripts_folder import script_location
from vecmigrate.settings import Settings

__all__ = ["Access", "alembic_config", "one_at_a_time"]

one_at_a_time = ThreadLock()
"""Alembic's context is a module global: threads that ran commands at once would share it."""


def alembic_config(settings: Settings | None = None, **attributes: Any) -> Config:
    """Return a configuration for ``alembic.command``: the scripts of an ini in use, else of this package."""
    config = Config()
    scripts = (settings and settings.script_location) or script_location()
    config.set_main_option("script_location", scripts.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    if settings is not None:
        config.attributes["vecmigrate_settings"] = settings
    config.attributes.update(attributes)
    return config


def _checked(app_version: str | None) -> str | None:
    try:
        if app_version is not None:
            Version(app_version)
    except (ValueError, TypeError):  # also of a number of more digits than Python reads
        raise ConfigurationError(
            f"The argument app_version is {app_version!r}, which is not a version number (PEP 440), such as 1.2.2. "
            "Nothing was changed.",
            next_step="pass the version of the application as it is released, or leave the argument out",
        ) from None
    return app_version


class Access:
    """A database that is named and not opened, and what reads its revision."""

    def __init__(self, settings: Settings, *, app_version: str | None = None) -> None:
        self.settings = settings
        self.app_version = _checked(app_version)
        self.database: Database = locate(settings.database_url)
        self._revisions: Revisions | None = None

    # What only reads.

    def revisions(self) -> Revisions:
        """Return the revision scripts and the app-version map, which are read once. Read-only."""
        if self._revisions is None:
            with one_at_a_time:
                self._revisions = load(alembic_config(self.settings))
        return self._revisions

    def require_folder(self) -> None:
        path = self.database.path
        if path is not None and not os.path.isdir(os.path.dirname(path)):
            raise DatabaseUnusableError(
                f"{path} does not exist, and its folder does not either. Nothing was changed.",
                next_step=f"create {os.path.dirname(path)}, then run it again",
            )

    def current(self, known: Revisions) -> str | None:
        """Return the revision of the database, None for base or an absent one. Read-only."""
        if self.database.is_absent():
            self.require_folder()
            return None
        with reading(self.database, timeout=self.settings.lock_timeout) as connection:
            return self.revision(connection, known)

    def revision(self, connection: Connection, known: Revisions) -> str | None:
        return one_of(current_heads(connection, known, option=self.database.option, app_version=self.app_version))
