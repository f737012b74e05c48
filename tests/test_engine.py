"""Databases are named by any URL, opened so that a reader writes nothing, and locked so that one writes."""

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

import legacy
import vecmigrate
from doors import run_cli, url
from ladder import HEAD, REVISIONS
from vecmigrate.engine import locate, reading, sqlite_url, writing
from vecmigrate.errors import ConfigurationError, DatabaseUnusableError, LockTimeoutError


@pytest.mark.parametrize(
    "name",
    [
        "plain.db",
        "with space.db",
        "50% off.db",
        "hash#tag.db",
        "what?.db",
        "a@b:c.db",
        "\u00fcml\u00e4ut-\u732b.db",
        "quote's.db",
    ],
)
def test_any_character_is_allowed_in_a_path(name: str, tmp_path: Path) -> None:
    """A database is made and found under exactly its name, and nothing else appears."""
    path = tmp_path / name

    assert 0 == run_cli("--db-path", path, "migrate").code

    assert HEAD == legacy.revision(path)
    assert {name, f"{path.stem}.migrations.json"} == {each.name for each in tmp_path.iterdir()}
    assert "current" == vecmigrate.status(sqlite_url(str(path))).state


@pytest.mark.parametrize(
    "form",
    [
        "sqlite:///{path}",
        "sqlite+pysqlite:///{path}",
        "sqlite+aiosqlite:///{path}",
        "sqlite:///file:{path}?uri=true",
        "sqlite:///file:{path}?mode=rw&uri=true",
    ],
)
def test_every_form_of_a_url_names_the_same_file(form: str, released_file: Path) -> None:
    """Asynchronous drivers and file: URIs are understood."""
    assert str(released_file) == locate(form.format(path=released_file)).path
    assert "unversioned" == vecmigrate.status(form.format(path=released_file)).state


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///file:sessions.sqlite3",
        "sqlite:///file:sessions.sqlite3?uri=false",
        "sqlite:///file:sessions.sqlite3?uri=true",
        "sqlite:///file:sessions%20b.sqlite3?uri=true",
        "sqlite:///sessions.sqlite3?uri=true",
        "sqlite:///file:sessions.sqlite3?mode=rwc&uri=true",
    ],
)
def test_the_file_is_the_one_that_sqlalchemy_opens(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``uri=true``, ``file:`` is a part of its name."""
    monkeypatch.chdir(tmp_path)
    engine = sa.create_engine(text)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (i)")
    engine.dispose()
    assert [locate(text).path] == [str(path) for path in tmp_path.iterdir()]


def test_a_file_on_another_host_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses it too; the path on this host is another file."""
    monkeypatch.chdir(tmp_path)
    assert "/x" == locate("sqlite:///file://localhost/x?uri=true").path
    with pytest.raises(ConfigurationError, match="is not one"):
        locate("sqlite:///file://evil/x?uri=true")


@pytest.mark.parametrize("form", ["file:{}?mode=ro&uri=true", "file:{}?uri=true&immutable=1"])
def test_a_url_for_reading_only_is_read_and_not_written(form: str, released_file: Path) -> None:
    """Whoever wrote it meant it."""
    text = "sqlite:///" + form.format(released_file)
    before = released_file.read_bytes()
    assert "unversioned" == vecmigrate.status(text).state
    with pytest.raises(ConfigurationError, match="for reading only"):
        vecmigrate.upgrade(text)
    assert before == released_file.read_bytes()
    assert ["sessions.sqlite3"] == [path.name for path in released_file.parent.iterdir() if "-" not in path.name]


def test_a_relative_path_is_one_of_the_present_folder(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is made absolute when the database is named."""
    monkeypatch.chdir(released_file.parent)

    assert str(released_file) == locate("sqlite:///sessions.sqlite3").path


def test_a_link_means_the_file_behind_it(released_file: Path, tmp_path: Path) -> None:
    """Mirror, backups and lock belong to the real file, under whatever name it is opened."""
    link = tmp_path / "link.sqlite3"
    link.symlink_to(released_file)

    vecmigrate.upgrade(url(link))

    assert HEAD == legacy.revision(released_file)
    assert (released_file.parent / "backups").is_dir()
    assert link.is_symlink()


@pytest.mark.parametrize("text", ["", "no url at all", "sqlite//x", "postgresql://u:s3cret@h:port/d"])
def test_what_is_no_url_is_an_error_that_shows_none(text: str) -> None:
    """The text may hold a password, so the error does not quote it."""
    with pytest.raises(ConfigurationError) as raised:
        vecmigrate.status(text or sa.URL.create(""))

    assert "s3cret" not in str(raised.value)
    assert None is raised.value.__cause__ or "s3cret" not in str(raised.value.__cause__)


@pytest.mark.parametrize("text", ["mysql://h/d", "oracle://h/d", "duckdb:///x"])
def test_another_database_is_refused(text: str) -> None:
    """Only SQLite and PostgreSQL are supported, and that is said."""
    with pytest.raises(ConfigurationError):
        vecmigrate.status(text)


def test_a_password_is_never_shown() -> None:
    """The name of a server database has neither its password nor its query."""
    named = str(locate("postgresql://user:s3cret@host/name?password=s3cret2&sslmode=require"))

    assert "s3cret" not in named
    assert "user" in named
    assert "host/name" in named


def test_an_unreachable_server_is_an_error_without_its_password() -> None:
    """The message says that the server cannot be reached, and no more of the URL than its name."""
    with pytest.raises(DatabaseUnusableError, match="cannot be reached") as raised:
        vecmigrate.status("postgresql://user:s3cret@127.0.0.1:1/name")

    assert "s3cret" not in str(raised.value)


def test_a_reader_cannot_write(released_file: Path) -> None:
    """The connection of a reader refuses every change."""
    with (
        pytest.raises(DatabaseUnusableError),
        reading(locate(url(released_file))) as connection,
    ):
        connection.exec_driver_sql("DELETE FROM sessions")

    assert 50 == len(legacy.rows(released_file, "sessions"))


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_readers_of_the_command_line_write_nothing(mode: str, released_file: Path) -> None:
    """status, list, history, versions, preserved and backup list change nothing, also under a read-only eye."""
    legacy.execute(released_file, f"PRAGMA journal_mode = {mode}")
    for migrated in (False, True):
        if migrated:
            vecmigrate.upgrade(url(released_file))
        before = legacy.tree(released_file.parent)
        for command in ("status", "list", "history", "versions", "preserved", "backup list", "backup verify"):
            assert 0 == run_cli("--db-path", released_file, *command.split(), "--json").code
        assert before == legacy.tree(released_file.parent)


def test_readers_of_the_command_line_create_nothing(tmp_path: Path) -> None:
    """On an absent database each of them ends without a file, a folder or a traceback."""
    path = tmp_path / "absent.sqlite3"

    for command in ("status", "list", "history", "versions", "preserved", "backup list", "backup verify"):
        result = run_cli("--db-path", path, *command.split(), "--json")
        assert result.code in {0, 1}, result.err
        assert "Traceback" not in result.err
        assert result.document
    assert {} == legacy.tree(tmp_path)


def test_an_empty_file_counts_as_absent(tmp_path: Path) -> None:
    """A zero-byte file is what a failed start leaves; migrate fills it, and status calls it absent."""
    path = tmp_path / "empty.sqlite3"
    path.touch()
    assert "absent" == vecmigrate.status(url(path)).state
    assert 0 == path.stat().st_size

    assert vecmigrate.upgrade(url(path)).created
    assert "current" == vecmigrate.status(url(path)).state


def test_a_writer_waits_for_the_lock(released_file: Path) -> None:
    """While another process holds the write lock a run waits, and then succeeds."""
    with legacy.opened(released_file) as holder:
        holder.execute("BEGIN IMMEDIATE")
        started = threading.Thread(target=vecmigrate.upgrade, args=(url(released_file),))
        started.start()
        time.sleep(0.3)
        assert started.is_alive()
        holder.execute("COMMIT")
        started.join(60)

    assert HEAD == legacy.revision(released_file)


def test_a_lock_held_too_long_is_exit_4(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After lock_timeout the run gives up, says so, and has written nothing."""
    monkeypatch.setenv("VECMIGRATE_LOCK_TIMEOUT", "0.1")
    with legacy.opened(released_file) as holder:
        holder.execute("BEGIN IMMEDIATE")
        result = run_cli("--db-path", released_file, "migrate")
        holder.execute("ROLLBACK")

    assert 4 == result.code
    assert "still locked by another process after 0.1 seconds" in result.err
    assert "Nothing was changed." in result.err
    assert not (released_file.parent / "backups").exists()
    assert legacy.revision(released_file) is None


def test_a_failed_transaction_leaves_nothing(released_file: Path) -> None:
    """DDL too is rolled back."""
    before = legacy.digest(released_file)

    def fail() -> None:
        with writing(locate(url(released_file)), lock_timeout=1) as connection:
            connection.exec_driver_sql("CREATE TABLE half (x)")
            connection.exec_driver_sql("DROP TABLE stores")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert before == legacy.digest(released_file)


def test_a_lock_is_waited_for_no_longer_than_it_says(released_file: Path) -> None:
    """lock_timeout bounds the wait."""
    with legacy.opened(released_file) as holder:
        holder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(LockTimeoutError), writing(locate(url(released_file)), lock_timeout=0.2):
            pass
        holder.execute("ROLLBACK")

    assert 0.2 <= time.monotonic() - began < 5


def test_the_journal_mode_stays_as_it_was(tmp_path: Path) -> None:
    """A run changes neither a WAL database nor one with a rollback journal."""
    modes = {}
    for mode in ("wal", "delete"):
        path = legacy.build(tmp_path / f"{mode}.sqlite3", "released")
        legacy.execute(path, f"PRAGMA journal_mode = {mode}")
        vecmigrate.upgrade(url(path))
        vecmigrate.rollback(url(path), to_version="base")
        modes[mode] = legacy.query(path, "PRAGMA journal_mode")[0][0]

    assert {"wal": "wal", "delete": "delete"} == modes


def test_an_engine_in_memory_is_migrated_itself() -> None:
    """A service's engine on :memory: is used as it is, and keeps its own pragmas."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")

    report = vecmigrate.upgrade(engine)

    assert (None, HEAD) == (report.backup, report.to_revision)
    with engine.connect() as connection:
        assert HEAD == connection.exec_driver_sql("SELECT version_num FROM vecmigrate_version").scalar()
        assert 1 == connection.exec_driver_sql("PRAGMA foreign_keys").scalar()
    assert "current" == vecmigrate.status(engine).state
    engine.dispose()


def test_an_engine_on_a_file_is_only_its_url(released_file: Path) -> None:
    """Whatever pool the service has, a run opens connections of its own."""
    engine = sa.create_engine(url(released_file), poolclass=QueuePool)

    assert "migrated" == vecmigrate.ensure_current(engine, on_failure="raise").state

    assert isinstance(engine.pool, QueuePool)
    assert (0, 0) == (engine.pool.checkedout(), engine.pool.checkedin())
    engine.dispose()


def test_eight_threads_on_one_database_migrate_it_once(released_file: Path) -> None:
    """Vecmigrate's own functions are serialised within a process: each thread ends with a current database."""
    states: list[str] = []

    def boot() -> None:
        states.append(vecmigrate.ensure_current(url(released_file), on_failure="raise").state)

    threads = [threading.Thread(target=boot) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert 8 == len(states)
    assert 1 == states.count("migrated")
    assert set(states) <= {"migrated", "waited", "current"}
    assert [(len(REVISIONS),)] == legacy.query(released_file, "SELECT count(*) FROM vecmigrate_history")


def test_eight_threads_on_eight_databases_migrate_them_all(tmp_path: Path) -> None:
    """Separate databases in one process do not disturb each other."""
    paths = [legacy.build(tmp_path / f"{n}.sqlite3", "early") for n in range(8)]
    threads = [threading.Thread(target=vecmigrate.upgrade, args=(url(path),)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert [HEAD] * 8 == [legacy.revision(path) for path in paths]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes are POSIX's")
def test_a_statement_of_a_writer_can_be_interrupted(released_file: Path) -> None:
    """A progress handler lets Python's signal handlers run inside one long statement."""
    with writing(locate(url(released_file)), lock_timeout=1) as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        timer = threading.Timer(0.2, driver.interrupt)
        timer.start()
        with pytest.raises(sa.exc.OperationalError, match="interrupted"):
            connection.exec_driver_sql(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
            )
        timer.join()


def test_the_floor_of_sqlite_is_stated(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older SQLite is refused with the version that is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 30, 0))

    with pytest.raises(ConfigurationError, match=r"3\.34\.0 or newer is needed"):
        vecmigrate.upgrade(url(released_file))


def test_nobody_can_lock_out_a_reader_between_two_reads(released_file: Path) -> None:
    """In rollback-journal mode a writer that never pauses would else make a later read of the same look busy."""
    legacy.execute(released_file, "PRAGMA journal_mode = delete")
    with reading(locate(url(released_file)), timeout=1) as connection, legacy.opened(released_file) as other:
        other.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN EXCLUSIVE")
        assert 1 == connection.exec_driver_sql("SELECT count(*) FROM memory_meta").scalar()
