"""Fixtures for the tests of services, as a plugin of pytest: databases at any revision, made once and copied per test.

pytest loads it by itself where vecmigrate is installed; ``pytest --fixtures`` shows what it gives.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = [
    "DatabaseAt",
    "vecmigrate_at",
    "vecmigrate_database",
    "vecmigrate_engine",
    "vecmigrate_legacy",
    "vecmigrate_templates",
]

# What starts with every pytest is light: the rest is imported by whoever asks for a database.


class DatabaseAt(Protocol):
    """Makes a database for one test; see ``vecmigrate_at``."""

    def __call__(self, target: str = "head", *, shape: str | None = None, path: Path | None = None) -> Path: ...


@pytest.fixture(scope="session")
def vecmigrate_templates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str | None], Path]:
    """Return a function that gives the file of a target and a legacy shape, made once in a session.

    What a test works on is a copy: use ``vecmigrate_at``.
    """
    folder = tmp_path_factory.mktemp("vecmigrate")
    made: dict[tuple[str, str | None], Path] = {}

    def template(target: str, shape: str | None) -> Path:
        if (target, shape) not in made:
            made[target, shape] = _made(folder / f"{len(made)}.sqlite3", target, shape)
        return made[target, shape]

    return template


def _made(path: Path, target: str, shape: str | None) -> Path:
    from vecmigrate import settings  # noqa: PLC0415 - heavy
    from vecmigrate.migrator import Migrator  # noqa: PLC0415
    from vecmigrate.testing import shapes  # noqa: PLC0415

    if shape is not None:
        shapes.build(path, shape)
    if target != "base":
        # Without the environment, which may name a mirror or a database of the service's.
        Migrator(settings.resolve({"database_url": path, "backup": "never"}, {})).upgrade(target)
    elif shape is None:
        path.touch()
    # In one file, without -wal and -shm, so that it can be copied.
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return path


@pytest.fixture
def vecmigrate_at(vecmigrate_templates: Callable[[str, str | None], Path], tmp_path: Path) -> DatabaseAt:
    """Return a function that gives the path of a new SQLite file at a target, a copy for this test alone.

    ``target`` is what the command line takes (``head``, ``001``, an app version), or ``base``. With ``shape`` it was
    migrated from the database of an old service: ``early``, ``legacy``, ``released`` or ``old-script``. ``path`` is
    where it is to be; without, in ``tmp_path``. Each copy is made from a template, which is migrated once in a session.
    """
    count = 0

    def database_at(target: str = "head", *, shape: str | None = None, path: Path | None = None) -> Path:
        nonlocal count
        count += 1
        path = path or tmp_path / f"vecmigrate-{count}" / "sessions.sqlite3"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(vecmigrate_templates(target, shape), path)
        return path

    return database_at


@pytest.fixture
def vecmigrate_database(vecmigrate_at: DatabaseAt) -> Path:
    """Return the path of an SQLite file at head, without rows, for this test alone."""
    return vecmigrate_at()


@pytest.fixture
def vecmigrate_legacy(vecmigrate_at: DatabaseAt) -> Callable[[str], Path]:
    """Return a function that gives the path of a database as an old service leaves it, with rows, not migrated.

    Its argument is the shape: ``early``, ``legacy``, ``released`` or ``old-script``.
    """
    return lambda shape: vecmigrate_at("base", shape=shape)


@pytest.fixture
def vecmigrate_engine(vecmigrate_templates: Callable[[str, str | None], Path]) -> "Iterator[Engine]":
    """Return an SQLAlchemy Engine on a database in memory at head, for this test alone.

    All threads share its one connection. Foreign keys and everything else are as SQLAlchemy has them.
    """
    from sqlalchemy import create_engine  # noqa: PLC0415 - heavy
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as memory:
        with contextlib.closing(sqlite3.connect(vecmigrate_templates("head", None))) as template:
            template.backup(memory)
        engine = create_engine("sqlite://", creator=lambda: memory, poolclass=StaticPool)
        yield engine
        engine.dispose()
