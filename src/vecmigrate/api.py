"""The functions a service calls, with the names of the commands."""

import os
from typing import Any

from alembic.config import Config
from sqlalchemy import URL, Connection, Engine

from vecmigrate import access, settings
from vecmigrate.callers import taking_connections
from vecmigrate.causes import quoting_no_values
from vecmigrate.embedding import reembed as embedding
from vecmigrate.embedding.embedders import Embedder
from vecmigrate.embedding.worker import Reembedding
from vecmigrate.journal import Report
from vecmigrate.manifests import Backup
from vecmigrate.migrator import Migrator
from vecmigrate.overview import Status
from vecmigrate.progress import Listener, told_to
from vecmigrate.tools.doctor import Diagnosis, diagnose

__all__ = ["alembic_config", "backup", "doctor", "reembed", "restore", "rollback", "status", "upgrade"]

_Url = str | os.PathLike[str] | URL | Engine | Connection | None
"""A URL, a path object, an Engine or a Connection; None for ``VECMIGRATE_DATABASE_URL``."""


def _migrator(url: _Url, **arguments: Any) -> Migrator:
    return Migrator(settings.resolve({"database_url": url} | arguments, os.environ))


@quoting_no_values()
def alembic_config(url: _Url = None) -> Config:
    """Return a configuration for ``alembic.command.upgrade(config, "head")``.

    Works from a wheel and from any folder. Without ``url``, ``VECMIGRATE_DATABASE_URL`` names the
    database. Not for several threads at once: Alembic keeps its context in a module global.
    """
    return access.alembic_config(settings.resolve({"database_url": url}, os.environ))


@quoting_no_values()
@taking_connections
def status(url: _Url = None, *, app_version: str | None = None) -> Status:
    """Return what is known of a database. Read-only; an absent database is reported, not created."""
    return Migrator(settings.resolve({"database_url": url}, os.environ), app_version=app_version).status()


@quoting_no_values()
@taking_connections
def doctor(url: _Url = None, *, deep: bool = False) -> Diagnosis:
    """Return what is wrong with a database: ``ok`` and ``findings``, each with the command that mends it. Read-only.

    ``deep`` also reads what takes long: SQLite's ``integrity_check``, and the hashes of all backups. Raises
    VecmigrateError only where nothing can be told: a configuration that is none, or a process that lets nobody read.
    """
    return diagnose(_migrator(url), deep=deep)


@quoting_no_values()
@taking_connections
def upgrade(
    url: _Url = None,
    target: str = "head",
    *,
    version: str | None = None,
    force: bool = False,
    allow_data_loss: bool = False,
    backup: str | None = None,
    lock_timeout: float | None = None,
    on_progress: Listener | None = None,
) -> Report:
    """Upgrade a database, behind the safety net. Raises VecmigrateError.

    ``on_progress`` is called with a Progress as in all functions that have it: at the beginning and the end of a phase,
    and at most ten times a second between, in this thread. What it raises ends the run, which is rolled back.
    """
    chosen = _migrator(url, backup=backup, lock_timeout=lock_timeout)
    with told_to(on_progress):
        return chosen.upgrade(target, version=version, force=force, allow_data_loss=allow_data_loss)


@quoting_no_values()
@taking_connections
def rollback(
    url: _Url = None,
    *,
    to_version: str,
    allow_data_loss: bool = False,
    backup: str | None = None,
    lock_timeout: float | None = None,
    on_progress: Listener | None = None,
) -> Report:
    """Downgrade a database, behind the safety net. Raises VecmigrateError."""
    chosen = _migrator(url, backup=backup, lock_timeout=lock_timeout)
    with told_to(on_progress):
        return chosen.rollback(to_version, allow_data_loss=allow_data_loss)


@quoting_no_values()
@taking_connections
def backup(url: _Url = None, *, lock_timeout: float | None = None, on_progress: Listener | None = None) -> Backup:
    """Back up an SQLite database, under its write lock. Raises VecmigrateError."""
    with told_to(on_progress):
        return _migrator(url, lock_timeout=lock_timeout).create_backup()


@quoting_no_values()
@taking_connections
def restore(
    url: _Url = None, *, name: str, lock_timeout: float | None = None, on_progress: Listener | None = None
) -> Report:
    """Put a verified backup in place of the present state, which is saved first. Raises VecmigrateError."""
    chosen = _migrator(url, lock_timeout=lock_timeout)
    with told_to(on_progress):
        return chosen.restore(chosen.find_backup(name))


@quoting_no_values()
def reembed(
    url: _Url,
    embedder: Embedder | str,
    *,
    batch_size: int = 64,
    dimensions: int | None = None,
    swap: bool = True,
    limit: int | None = None,
    on_progress: Listener | None = None,
) -> Reembedding:
    """Make the vectors that chunks lack of the model being built, else of the active one; then swap the models.

    ``embedder`` takes at most ``batch_size`` texts and returns as many vectors: lists, tuples, arrays of any float
    type, or little-endian float32 bytes. The text that names one on the command line will do too. It is called outside
    any transaction. ``dimensions`` records the true ones of a model that has no vector yet, ``limit`` ends it after so
    many vectors, and ``on_progress`` is called after each batch. Stopped at any point, it goes on when it is called
    again; what it raises then comes after its claims are given up. Raises VecmigrateError.
    """
    return embedding.reembed(
        _migrator(url),
        embedder,
        batch_size=batch_size,
        dimensions=dimensions,
        swap=swap,
        limit=limit,
        on_progress=on_progress,
    )
