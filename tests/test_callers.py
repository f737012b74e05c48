"""What a service passes: connections, also of an asynchronous engine in memory."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

import legacy
import vecmigrate
from doors import url
from ladder import HEAD
from scripts import Scripts
from vecmigrate.errors import ConfigurationError, RunFailedError


def in_memory(work: Callable[[AsyncEngine], Any]) -> Any:
    """Run a piece of work with an asynchronous engine in memory, as the tests of a service have one."""

    async def run() -> Any:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


async def tables(connection: AsyncConnection) -> set[str]:
    rows = await connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {str(name) for (name,) in rows}


def test_a_connection_of_an_asynchronous_engine_in_memory_is_migrated() -> None:
    """Its own memory is at head, the service goes on with it, and a second boot finds nothing to do."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            first = await connection.run_sync(vecmigrate.ensure_current)
            second = await connection.run_sync(vecmigrate.ensure_current)
            assert ("migrated", "current") == (first.state, second.state), first.error
            assert {"vector_store_chunks", "vecmigrate_version"} <= await tables(connection)
        async with engine.begin() as connection:
            await connection.exec_driver_sql("INSERT INTO vector_store_chunks VALUES ('c', NULL, 'f', 1, 2, 'text')")
        async with engine.connect() as connection:
            assert HEAD == (await connection.run_sync(vecmigrate.status)).revision
            assert 1 == (await connection.exec_driver_sql("SELECT count(*) FROM vector_store_chunks")).scalar_one()

    in_memory(work)


def test_the_event_loop_goes_on_meanwhile() -> None:
    """The run is in the thread of the driver."""

    async def work(engine: AsyncEngine) -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.002)

        ticking = asyncio.create_task(tick())
        async with engine.connect() as connection:
            await connection.run_sync(vecmigrate.ensure_current, on_failure="raise")
        ticking.cancel()
        return ticks

    assert 3 < in_memory(work)


def test_every_function_takes_such_a_connection() -> None:
    """Up, down and up again in memory."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            assert HEAD == (await connection.run_sync(vecmigrate.upgrade)).to_revision
            assert "001" == (await connection.run_sync(vecmigrate.rollback, to_version="001")).to_revision
            assert HEAD == (await connection.run_sync(vecmigrate.upgrade, "head")).to_revision

    in_memory(work)


def test_a_failing_revision_leaves_it_as_it_was(scripts: Scripts) -> None:
    """The error of the run arrives at the service."""
    scripts.add("1 / 0")

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            with pytest.raises(RunFailedError):
                await connection.run_sync(vecmigrate.upgrade)
            assert set() == await tables(connection) - {"vecmigrate_history", "vecmigrate_meta"}

    in_memory(work)


def test_one_with_a_transaction_open_is_refused_and_keeps_it() -> None:
    """What the service has not committed yet is not rolled back."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE t (n)")
            await connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            report = await connection.run_sync(vecmigrate.ensure_current)
            assert "failed" == report.state
            assert "transaction open" in str(report.error)
        async with engine.connect() as connection:
            assert 1 == (await connection.exec_driver_sql("SELECT count(*) FROM t")).scalar_one()

    in_memory(work)


@pytest.mark.parametrize("what", ["engine", "sync_engine", "connection"])
def test_an_asynchronous_engine_in_memory_is_refused_with_the_way(what: str) -> None:
    """It can be used only from inside the event loop: the error says what to call there."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            given: Any = {"engine": engine, "sync_engine": engine.sync_engine, "connection": connection}[what]
            report = vecmigrate.ensure_current(given)
        assert "failed" == report.state
        assert isinstance(report.error, ConfigurationError)
        assert "await connection.run_sync(vecmigrate.ensure_current)" in report.error.next_step

    in_memory(work)


def test_of_a_connection_to_a_file_only_the_url_is_used(released_file: Path) -> None:
    """With its lock and its backup; the connection itself is left alone."""
    engine = sa.create_engine(url(released_file))
    with engine.connect() as connection:
        report = vecmigrate.ensure_current(connection, on_failure="raise")
        assert 50 == connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar_one()
    engine.dispose()

    assert ("migrated", True) == (report.state, report.backup is not None)


def test_of_an_asynchronous_connection_to_a_file_too(released_file: Path) -> None:
    """From inside the event loop, by `run_sync`."""

    async def boot() -> str:
        engine = create_async_engine(f"sqlite+aiosqlite:///{released_file}")
        async with engine.connect() as connection:
            report = await connection.run_sync(vecmigrate.ensure_current)
        await engine.dispose()
        return str(report.state)

    assert "migrated" == asyncio.run(boot())
    assert HEAD == legacy.revision(released_file)


def test_a_connection_in_memory_is_migrated_itself() -> None:
    """Also of an engine whose every connection has a memory of its own."""
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        report = vecmigrate.ensure_current(connection, on_failure="raise")
        assert "migrated" == report.state
        assert HEAD == connection.exec_driver_sql("SELECT version_num FROM vecmigrate_version").scalar_one()
    engine.dispose()


def test_the_driver_of_a_service_is_closed_by_the_service_alone() -> None:
    """Nothing of ours that goes away takes the connection of the service with it."""
    with contextlib.closing(sqlite3.connect(":memory:")) as driver:
        engine = sa.create_engine("sqlite://", creator=lambda: driver, poolclass=StaticPool)
        with engine.connect() as connection:
            vecmigrate.ensure_current(connection, on_failure="raise")
        assert [(HEAD,)] == driver.execute("SELECT version_num FROM vecmigrate_version").fetchall()
