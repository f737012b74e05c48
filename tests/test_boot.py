"""The third door: every state of the report, the fast path, and whatever a service may pass."""

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

import legacy
import vecmigrate
from doors import run_python, url
from ladder import COMPATIBLE_FROM, HEAD, NEWEST, NEXT, REVISIONS, above
from scripts import Scripts
from vecmigrate import booting, migrator
from vecmigrate.boot import ensure_current
from vecmigrate.errors import (
    AheadError,
    ConfigurationError,
    DatabaseUnusableError,
    LockTimeoutError,
    NotOursError,
    RunFailedError,
)
from vecmigrate.plan import Plan


@pytest.fixture
def current_file(released_file: Path) -> Path:
    """Return a database at head."""
    assert "migrated" == ensure_current(url(released_file), on_failure="raise").state
    return released_file


@pytest.fixture
def only_the_fast_path(current_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fail a test that takes the long way once there is a database at head."""

    def long_way(*_: object, **__: object) -> None:
        pytest.fail("the long way was taken")

    monkeypatch.setattr(booting, "boot", long_way)
    return current_file


@contextlib.contextmanager
def locked(path: Path, how: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Hold a lock on a database from another connection."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute(how)
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def make_newer(path: Path, *, compatible_from: str | None) -> None:
    """Write into a database what version 99.0.0 with the next revision would have written."""
    legacy.execute(
        path,
        f"UPDATE vecmigrate_version SET version_num = '{NEXT}'",
        "UPDATE vecmigrate_meta SET value = '99.0.0' WHERE key = 'app_version'",
        "DELETE FROM vecmigrate_meta WHERE key = 'compatible_from'",
    )
    if compatible_from is not None:
        legacy.execute(path, f"INSERT INTO vecmigrate_meta VALUES ('compatible_from', '{compatible_from}')")


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def occupy(path: Path) -> None:
    """Give a table of our name to somebody else."""
    legacy.execute(path, "DROP TABLE stores", "CREATE TABLE stores (somebody TEXT, elses TEXT)")


def replace_by_text(path: Path) -> None:
    path.write_text("no database at all\n" * 500, encoding="utf-8")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


# The states.


def test_a_legacy_database_is_migrated(legacy_file: Path) -> None:
    """The report of a boot on an old database tells the revisions, the backup and the time."""
    service = legacy.service_digest(legacy_file)

    report = ensure_current(url(legacy_file))

    assert ("migrated", None, HEAD, None) == (report.state, report.before, report.after, report.error)
    assert report.backup is not None
    assert Path(report.backup).parent == legacy_file.parent / "backups"
    assert 0 < report.duration_seconds < 60
    assert report.usable
    assert service == legacy.service_digest(legacy_file)


def test_an_absent_database_is_created_without_a_backup(tmp_path: Path) -> None:
    """The first boot on a new machine makes the database."""
    report = ensure_current(url(tmp_path / "new.sqlite3"))

    assert ("migrated", None, HEAD, None) == (report.state, report.before, report.after, report.backup)
    assert HEAD == legacy.revision(tmp_path / "new.sqlite3")


def test_a_current_database_is_left_alone(current_file: Path) -> None:
    """A boot at head finds nothing to do and reports no backup."""
    report = ensure_current(url(current_file))

    assert ("current", HEAD, HEAD, None) == (report.state, report.before, report.after, report.backup)
    assert (None, (), True) == (report.error, report.notes, report.usable)


_MIGRATE_SLOWLY = """
import os, sys, time, vecmigrate
from vecmigrate import adoption
really, path, flag, go = adoption.require_known_shapes, *sys.argv[1:]
def hold(*arguments):
    open(flag, "w").close()
    while not os.path.exists(go):
        time.sleep(0.01)
    really(*arguments)
adoption.require_known_shapes = hold
print(vecmigrate.ensure_current("sqlite:///" + path, on_failure="raise").state)
"""


def test_a_boot_waits_for_a_process_that_migrates(released_file: Path, tmp_path: Path) -> None:
    """While another process migrates, a boot waits; then it finds nothing to do and says that it waited."""
    flag, go = tmp_path / "locked", tmp_path / "go"
    arguments = [sys.executable, "-c", _MIGRATE_SLOWLY, str(released_file), str(flag), str(go)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as other:
        while not flag.exists():
            assert other.poll() is None
            time.sleep(0.01)
        threading.Timer(0.5, go.touch).start()
        report = ensure_current(url(released_file), on_failure="raise")
        assert other.stdout is not None
        assert "migrated\n" == other.stdout.read()

    assert ("waited", HEAD, None) == (report.state, report.after, report.error)
    assert report.duration_seconds > 0.3
    assert report.usable
    assert 1 == len(list((released_file.parent / "backups").glob("*.sqlite3")))


def test_of_threads_that_boot_at_once_one_migrates(released_file: Path) -> None:
    """Eight threads of one process: one migrates, nobody fails."""
    states: list[str] = []
    barrier = threading.Barrier(8)

    def boot() -> None:
        barrier.wait()
        states.append(ensure_current(url(released_file)).state)

    threads = [threading.Thread(target=boot) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == states.count("migrated")
    assert 8 == states.count("migrated") + states.count("waited") + states.count("current")


_FORK = """
import os, signal, sys, threading, vecmigrate, warnings
from vecmigrate import adoption, forks
really, holding, forks.WAIT_SECONDS = adoption.require_known_shapes, threading.Event(), float(sys.argv[2])
def hold(*arguments, **options):
    holding.set()
    threading.Event().wait(1.5)
    return really(*arguments, **options)
adoption.require_known_shapes = hold
boot = lambda **options: vecmigrate.ensure_current("sqlite:///" + sys.argv[1], **options)
thread = threading.Thread(target=boot)
thread.start()
holding.wait()
warnings.simplefilter("ignore")  # Newer Pythons warn of what is tried here.
worker = os.fork()
if not worker:
    signal.alarm(60)
    report = boot(lock_timeout=0.2)
    print(report.state, report.error and report.error.message, flush=True)
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
thread.join()
print(code, boot().state)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_fork_waits_for_a_thread_that_migrates(released_file: Path) -> None:
    """Else the worker would inherit the locks of that thread's connection, which nobody there releases."""
    result = run_python(_FORK, released_file, "30")

    assert (0, "current None\n7 current\n") == (result.code, result.out), result.err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_worker_that_was_forked_in_between_is_told_so(released_file: Path) -> None:
    """Where the thread takes too long the worker opens nothing: it would hang, or take a sound file for damaged."""
    result = run_python(_FORK, released_file, "0.1")

    told, ended = result.out.splitlines()
    assert told.startswith("failed This process was forked while another thread of its parent was at work")
    assert (0, "7 current") == (result.code, ended), result.err


_FORKS = """
import os, signal, sys, threading, warnings
import vecmigrate, vecmigrate.booting
warnings.simplefilter("ignore")
states = []
for number in range(int(sys.argv[2])):
    path = f"{sys.argv[1]}/{number}.sqlite3"
    boot = lambda: vecmigrate.ensure_current("sqlite:///" + path, on_failure="raise", lock_timeout=10).state
    thread = threading.Thread(target=boot)
    thread.start()
    threading.Event().wait(number % 10 / 100)
    worker = os.fork()
    if not worker:
        signal.alarm(20)
        os._exit(7 if boot() in {"current", "waited", "migrated"} else 1)
    states.append(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
    thread.join()
print(sorted(set(states)))
"""


@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_no_worker_hangs_whenever_it_is_forked(tmp_path: Path) -> None:
    """At ten moments of a migration in a thread, over and over, each worker finds the database current."""
    for number in range(0, int(os.environ.get("VECMIGRATE_FAULT_ROUNDS", "10")), 10):
        folder = tmp_path / str(number)
        folder.mkdir()

        result = run_python(_FORKS, folder, "10")

        assert (0, "[7]\n") == (result.code, result.out), result.err


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_database_that_stays_locked_is_reported_in_time(released_file: Path, mode: str, lock: str) -> None:
    """The wait ends after `lock_timeout`, whatever kind of lock it is, and the report names it."""
    legacy.execute(released_file, f"PRAGMA journal_mode = {mode}")
    with locked(released_file, lock):
        report = ensure_current(url(released_file), lock_timeout=0.2)

    assert ("locked", False) == (report.state, report.usable)
    assert isinstance(report.error, LockTimeoutError)
    assert "0.2 seconds" in str(report.error)
    assert "a longer lock_timeout" in str(report.error)
    assert 0.2 <= report.duration_seconds < 2


@pytest.mark.parametrize("given", ["0.2", None])
def test_a_lock_timeout_is_a_number_or_the_setting(
    given: Any, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text of a number, as a service has from its environment, is one; None leaves it to the settings."""
    monkeypatch.setenv("VECMIGRATE_LOCK_TIMEOUT", "0.2")
    with locked(released_file):
        assert "locked" == ensure_current(url(released_file), lock_timeout=given).state

    assert "migrated" == ensure_current(url(released_file), lock_timeout=given).state
    assert ensure_current(url(released_file), lock_timeout=given).usable


def test_a_lock_timeout_that_is_no_number_is_reported(released_file: Path) -> None:
    """It is an error like any other setting that is none, so with "warn" nothing is raised."""
    for given in ("soon", -1, float("nan")):
        report = ensure_current(url(released_file), lock_timeout=given)  # type: ignore[arg-type]
        assert "failed" == report.state
        assert "lock_timeout" in str(report.error)


def test_a_boot_outlasts_a_process_that_lets_nobody_read(released_file: Path) -> None:
    """In rollback-journal mode a writer can keep readers out; a boot waits for that too."""
    legacy.execute(released_file, "PRAGMA journal_mode = delete")
    with locked(released_file, "BEGIN EXCLUSIVE") as connection:
        threading.Timer(1.0, connection.execute, ["COMMIT"]).start()
        report = ensure_current(url(released_file), on_failure="raise")

    assert "migrated" == report.state
    assert report.duration_seconds > 0.5


def test_a_newer_database_that_this_version_may_use(current_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A compatible newer database is used with a warning, and nothing in it is changed."""
    make_newer(current_file, compatible_from=NEWEST)
    before = legacy.tree(current_file.parent)

    report = ensure_current(url(current_file), on_failure="raise")

    assert ("ahead_compatible", NEXT, NEXT, None) == (report.state, report.before, report.after, report.error)
    assert report.usable
    assert ["WARNING"] == [record.levelname for record in caplog.records]
    assert "99.0.0" in report.notes[0]
    assert before == legacy.tree(current_file.parent)


@pytest.mark.parametrize("compatible_from", ["98.0.0", None, "not a version"])
def test_a_newer_database_that_this_version_must_not_use(current_file: Path, compatible_from: str | None) -> None:
    """An incompatible newer database names the version to install and the way back, and is left alone."""
    make_newer(current_file, compatible_from=compatible_from)
    before = legacy.tree(current_file.parent)

    report = ensure_current(url(current_file))

    assert ("ahead_incompatible", NEXT, False) == (report.state, report.after, report.usable)
    assert isinstance(report.error, AheadError)
    assert "install app version 99.0.0" in report.error.next_step
    assert f"rollback --to-version {HEAD} --from-backup" in report.error.next_step
    with pytest.raises(AheadError):
        ensure_current(url(current_file), on_failure="raise")
    assert before == legacy.tree(current_file.parent)


@pytest.mark.parametrize(
    ("app_version", "state"),
    [("97.9", "ahead_incompatible"), ("98.0.0", "ahead_compatible"), ("98.1rc1", "ahead_compatible")],
)
def test_the_version_of_the_application_decides_about_a_newer_database(
    current_file: Path, app_version: str, state: str
) -> None:
    """`app_version` is what is compared with `compatible_from`, by PEP 440."""
    make_newer(current_file, compatible_from="98.0.0")

    assert state == ensure_current(url(current_file), app_version=app_version).state


@pytest.mark.parametrize(
    ("app_version", "state"),
    [("97.9", "ahead_incompatible"), ("98.0.0", "ahead_compatible"), (None, "ahead_incompatible")],
)
def test_the_version_decides_too_where_a_newer_version_comes_first(
    released_file: Path, monkeypatch: pytest.MonkeyPatch, app_version: str | None, state: str
) -> None:
    """While this boot waits for the lock, a newer version migrates the database."""
    planned = migrator.Migrator._upgrade_plan

    def overtaken(self: migrator.Migrator, *arguments: Any, **options: Any) -> Plan:
        monkeypatch.undo()
        plan = planned(self, *arguments, **options)
        vecmigrate.upgrade(url(released_file))
        make_newer(released_file, compatible_from="98.0.0")
        return plan

    monkeypatch.setattr(migrator.Migrator, "_upgrade_plan", overtaken)

    report = ensure_current(url(released_file), app_version=app_version)

    assert (state, NEXT, NEXT) == (report.state, report.before, report.after)


@pytest.mark.parametrize("version", ["1.2.2-5-gabcdef", "dev", "", "1" * 5000 + "x"])
def test_an_app_version_that_is_none_is_an_error_at_every_boot(version: str, current_file: Path) -> None:
    """Also at head, and not only when a newer version has been there: the argument is named."""
    before = legacy.tree(current_file.parent)

    report = ensure_current(url(current_file), app_version=version)

    assert "failed" == report.state
    assert report.error is not None
    assert f"The argument app_version is {version!r}" in report.error.message
    assert before == legacy.tree(current_file.parent)
    with pytest.raises(ConfigurationError, match="app_version"):
        ensure_current(url(current_file), app_version=version, on_failure="raise")
    with pytest.raises(ConfigurationError, match="app_version"):
        vecmigrate.status(url(current_file), app_version=version)


@pytest.mark.usefixtures("only_the_fast_path")
@pytest.mark.parametrize("version", ["1.2.2", "1.3.0rc1", "2024.1.dev3+g1234", "v1.2"])
def test_an_app_version_of_any_kind_takes_the_fast_path(version: str, current_file: Path) -> None:
    """Every version of PEP 440 is one, and none of them makes a boot at head slow."""
    assert "current" == ensure_current(url(current_file), app_version=version).state


@pytest.mark.parametrize("character", ["\n", "\r\n", "\t", "\x00", "\x7f"])
def test_a_control_character_in_a_url_is_an_error(
    character: str, current_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL of a file that ends with a line would name another file, and make it."""
    before = legacy.tree(current_file.parent)
    if "\0" not in character:
        monkeypatch.setenv("VECMIGRATE_DATABASE_URL", url(current_file) + character)
        assert "failed" == ensure_current().state

    report = ensure_current(url(current_file) + character)

    assert "failed" == report.state
    assert "control character" in str(report.error)
    assert before == legacy.tree(current_file.parent)


def test_the_oldest_compatible_version_is_kept_in_the_database(current_file: Path) -> None:
    """What a version without that revision needs to know is in the database, not only in the newer code."""
    query = "SELECT key, value FROM vecmigrate_meta WHERE key IN ('app_version', 'compatible_from') ORDER BY key"

    assert [("app_version", NEWEST), ("compatible_from", COMPATIBLE_FROM[HEAD])] == legacy.query(current_file, query)


def test_a_revision_that_fails_leaves_the_database_as_it_was(released_file: Path, scripts: Scripts) -> None:
    """The report of a failed run has the error, the backup and the old revision."""
    scripts.add("raise RuntimeError('on purpose')")
    before = legacy.digest(released_file)

    report = ensure_current(url(released_file))

    assert ("failed", False) == (report.state, report.usable)
    assert isinstance(report.error, RunFailedError)
    assert report.backup is not None
    assert Path(report.backup).is_file()
    assert "on purpose" in str(report.error)
    assert before == legacy.digest(released_file)


def test_a_boot_that_failed_tells_the_revision_that_is_still_there(current_file: Path, scripts: Scripts) -> None:
    """Also a boot that changed nothing names the revision: what failed, and what was locked."""
    scripts.add("raise RuntimeError('on purpose')")

    failed = ensure_current(url(current_file))
    with locked(current_file):
        kept_out = ensure_current(url(current_file), lock_timeout=0.1)

    assert ("failed", HEAD, HEAD) == (failed.state, failed.before, failed.after)
    assert ("locked", HEAD, HEAD) == (kept_out.state, kept_out.before, kept_out.after)
    assert failed.backup is not None


# What a service cannot mend.

_UNUSABLE: dict[str, tuple[Callable[[Path], None], type[vecmigrate.VecmigrateError]]] = {
    "damaged": (damage, DatabaseUnusableError),
    "text": (replace_by_text, DatabaseUnusableError),
    "folder": (replace_by_folder, DatabaseUnusableError),
    "nowhere": (remove_folder, DatabaseUnusableError),
    "foreign": (occupy, NotOursError),
}


@pytest.mark.parametrize("case", _UNUSABLE)
def test_an_unusable_database_is_reported_and_left_alone(
    case: str, released_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With "warn" a service gets a report, one warning in its log and a next step; with "raise" the error."""
    change, kind = _UNUSABLE[case]
    change(released_file)
    before = legacy.tree(released_file.parent)

    report = ensure_current(url(released_file))

    assert ("failed", None, None, False) == (report.state, report.before, report.backup, report.usable)
    assert isinstance(report.error, kind)
    assert report.error.next_step in str(report.error)
    assert [("vecmigrate", "WARNING")] == [(record.name, record.levelname) for record in caplog.records]
    assert str(report.error) in caplog.text
    with pytest.raises(kind):
        ensure_current(url(released_file), on_failure="raise")
    assert before == legacy.tree(released_file.parent)


@pytest.mark.parametrize(
    "given",
    ["", "nonsense", "mysql://user:s3cret@host/name", "sqlite:///a\0b", "sqlite:///:memory:", "sqlite://", 7],
)
def test_what_names_no_database_is_reported_too(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A URL that is none, of a kind that is not supported, or of a memory nobody else sees, raises nothing."""
    report = ensure_current(given)

    assert "failed" == report.state
    assert isinstance(report.error, vecmigrate.VecmigrateError)
    assert "Unexpected" not in str(report.error)
    assert "s3cret" not in caplog.text + repr(report)


def test_no_database_at_all_is_reported() -> None:
    """Without a URL and without the environment variable the report says how to name a database."""
    report = ensure_current()

    assert "failed" == report.state
    assert "VECMIGRATE_DATABASE_URL" in str(report.error)


def test_a_bad_setting_in_the_environment_is_reported(current_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A malformed setting fails the boot of a database that is not current, and of no other."""
    monkeypatch.setenv("VECMIGRATE_KEEP_BACKUPS", "many")
    assert "current" == ensure_current(url(current_file)).state
    legacy.execute(current_file, "UPDATE vecmigrate_version SET version_num = '001'")

    assert "VECMIGRATE_KEEP_BACKUPS" in str(ensure_current(url(current_file)).error)


def test_an_unexpected_error_is_reported_with_a_traceback_in_the_log(
    released_file: Path, scripts: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours reaches the log without its values, and the service as a report."""
    (scripts.versions / f"{NEXT}_bad.py").write_text("raise RuntimeError('s3' + 'cret')\n", encoding="utf-8")

    report = ensure_current(url(released_file))

    assert "failed" == report.state
    assert isinstance(report.error, vecmigrate.VecmigrateError)
    assert "s3cret" not in caplog.text + str(report.error)
    assert legacy.revision(released_file) is None
    assert f"{NEXT}_bad.py" in caplog.text


def test_only_warn_and_raise_are_answers_to_a_failure(released_file: Path) -> None:
    """A misspelt `on_failure` is an error of the caller, at once."""
    with pytest.raises(ValueError, match="'warn' or 'raise', not 'ignore'"):
        ensure_current(url(released_file), on_failure="ignore")
    assert legacy.revision(released_file) is None


def test_a_report_is_immutable_and_shows_itself(current_file: Path) -> None:
    """A report cannot be changed, and its repr names every field."""
    report = ensure_current(url(current_file))

    with pytest.raises(AttributeError, match="immutable"):
        report.state = "failed"
    assert "state='current'" in repr(report)
    assert f"after='{HEAD}'" in repr(report)


# What a service passes.


@pytest.mark.parametrize(
    "name",
    ["with space", "a#b", "ünï名", "a&b=c", "quo'te\"s", "semi;colon", "[brackets]"],
)
def test_any_character_is_allowed_in_a_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released_file: Path
) -> None:
    """Both the long way and the fast path open exactly the file of that name."""
    folder = tmp_path / name
    folder.mkdir()
    path = folder / f"{name}.sqlite3"
    legacy.execute(released_file, f"VACUUM INTO '{str(path).replace(chr(39), chr(39) * 2)}'")

    assert "migrated" == ensure_current(url(path), on_failure="raise").state
    assert HEAD == legacy.revision(path)
    monkeypatch.setattr(booting, "boot", None)
    assert "current" == ensure_current(url(path), on_failure="raise").state


@pytest.mark.parametrize("name", ["what?", "100%", "%41", "%2e%2e", "a%20b"])
def test_a_url_object_names_a_file_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a meaning in the text of a URL is part of the path in a URL object, on both ways."""
    path = tmp_path / f"{name}.sqlite3"
    given = sa.URL.create("sqlite", database=str(path))

    assert "migrated" == ensure_current(given, on_failure="raise").state
    assert path.is_file()
    monkeypatch.setattr(booting, "boot", None)
    assert "current" == ensure_current(given).state


@pytest.mark.parametrize("name", ["plain", "what?", "100%", "%41", "a#b", "ünï", "tab\there"])
def test_a_path_object_names_a_file_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, relative or not, has no characters with a meaning, neither on the long way nor on the fast path."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{name}.sqlite3"

    assert "migrated" == ensure_current(Path(path.name), on_failure="raise").state
    assert [f"{name}.migrations.json", path.name] == sorted(each.name for each in tmp_path.iterdir())
    assert "current" == vecmigrate.status(path).state
    monkeypatch.setattr(booting, "boot", None)
    assert ["current", "current"] == [ensure_current(each).state for each in (path, Path(path.name))]


@pytest.mark.parametrize("name", ["%41.sqlite3", "100%.sqlite3", "a%20b.sqlite3"])
def test_a_percent_sign_in_a_url_means_what_sqlalchemy_takes_it_for(name: str, tmp_path: Path) -> None:
    """The file that the service's own engine opens is migrated, even if the one named literally is at head."""
    ensure_current(sa.URL.create("sqlite", database=str(tmp_path / name)), on_failure="raise")
    given = url(tmp_path / name)

    assert ensure_current(given, on_failure="raise").usable
    assert "current" == ensure_current(given, on_failure="raise").state
    engine = sa.create_engine(given, poolclass=NullPool)
    assert "vector_stores" in sa.inspect(engine).get_table_names()


@pytest.mark.usefixtures("only_the_fast_path")
@pytest.mark.parametrize("prefix", ["sqlite:///", "sqlite+pysqlite:///", "sqlite+aiosqlite:///"])
@pytest.mark.parametrize("suffix", ["", "?timeout=30"])
def test_the_fast_path_knows_the_drivers_of_sqlite(current_file: Path, prefix: str, suffix: str) -> None:
    """Whatever driver the service uses, and with whatever options of it, a current file is a current file."""
    assert "current" == ensure_current(f"{prefix}{current_file}{suffix}").state


def test_a_relative_path_is_taken_from_the_working_directory(
    released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative URL means the same file on the long way and on the fast path."""
    monkeypatch.chdir(released_file.parent)

    assert ["migrated", "current"] == [ensure_current("sqlite:///sessions.sqlite3").state for _ in range(2)]
    assert HEAD == legacy.revision(released_file)


def test_the_environment_can_name_the_database(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL, VECMIGRATE_DATABASE_URL names the database, on the fast path too."""
    monkeypatch.setenv("VECMIGRATE_DATABASE_URL", url(released_file))
    assert "migrated" == ensure_current().state
    monkeypatch.setattr(booting, "boot", None)

    assert "current" == ensure_current().state


def test_an_asynchronous_url_needs_no_asynchronous_driver(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sqlite+aiosqlite` is mapped to the driver of the standard library; aiosqlite is not imported."""
    monkeypatch.setitem(sys.modules, "aiosqlite", None)
    given = f"sqlite+aiosqlite:///{released_file}"

    assert ["migrated", "current"] == [ensure_current(given, on_failure="raise").state for _ in range(2)]
    assert "current" == vecmigrate.status(given).state


def test_an_asynchronous_url_of_postgresql_is_mapped(postgresql: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """`postgresql+asyncpg` is mapped to psycopg, and an AsyncEngine counts as its URL."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    given = postgresql.set(drivername="postgresql+asyncpg")

    assert ["migrated", "current"] == [ensure_current(given, on_failure="raise").state for _ in range(2)]
    engine = create_async_engine(postgresql, poolclass=NullPool)
    assert "current" == ensure_current(engine, on_failure="raise").state  # type: ignore[arg-type]


def test_a_locked_postgresql_is_reported(postgresql: sa.URL) -> None:
    """A session that holds the advisory lock makes a boot wait no longer than `lock_timeout`."""
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({0x7665636D})")
        report = ensure_current(postgresql, lock_timeout=0.2)

    assert ("locked", False) == (report.state, report.usable)


def test_of_an_engine_on_a_file_only_the_url_is_used(released_file: Path) -> None:
    """The service's pool never sees a connection of ours, and so none of our settings."""
    connected: list[object] = []
    engine = sa.create_engine(url(released_file))
    sa.event.listen(engine, "connect", lambda connection, _: connected.append(connection))

    assert ["migrated", "current"] == [ensure_current(engine, on_failure="raise").state for _ in range(2)]
    assert [] == connected


# Engines in memory.

_PRAGMAS = ("foreign_keys", "legacy_alter_table", "secure_delete", "query_only", "busy_timeout", "recursive_triggers")


class Memory(Protocol):
    """Makes engines in memory."""

    def __call__(self, shape: str | None, **options: Any) -> sa.Engine: ...


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    """Make engines in memory as tests of services have them, with foreign keys on, holding a legacy shape."""
    with contextlib.ExitStack() as stack:

        def make(shape: str | None, **options: Any) -> sa.Engine:
            settings = {"check_same_thread": False, **options}
            engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args=settings)
            stack.callback(engine.dispose)
            sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
            if shape is not None:
                with legacy.opened(legacy.build(tmp_path / "source.sqlite3", shape)) as source:
                    source.backup(driver(engine))
            return engine

        yield make


def driver(engine: sa.Engine) -> sqlite3.Connection:
    connection = engine.raw_connection().driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


def manners(engine: sa.Engine) -> dict[str, object]:
    """Return the settings of the one connection of an engine in memory."""
    connection = driver(engine)
    pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone() for name in _PRAGMAS}
    return {
        **pragmas,
        "isolation_level": connection.isolation_level,
        "in_transaction": connection.in_transaction,
        "row_factory": connection.row_factory,
        "text_factory": connection.text_factory,
    }


@pytest.mark.parametrize("options", [{}, {"isolation_level": None}], ids=["default", "autocommit"])
def test_an_engine_in_memory_is_migrated_itself(memory: Memory, options: dict[str, Any]) -> None:
    """It has no backup, the report says so, and its connection has the service's settings afterwards."""
    engine = memory("released", **options)
    before = manners(engine)

    first, second = (ensure_current(engine, on_failure="raise") for _ in range(2))

    assert ("migrated", HEAD, None) == (first.state, first.after, first.backup)
    assert any("without a backup" in note for note in first.notes)
    assert ("current", HEAD, ()) == (second.state, second.after, second.notes)
    assert before == manners(engine)
    with engine.connect() as connection:
        assert (
            legacy.SOURCE_ROWS["released"] == connection.exec_driver_sql("SELECT count(*) FROM vector_stores").scalar()
        )
        assert 50 == connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar()
    assert "current" == vecmigrate.status(engine).state


def test_an_empty_engine_in_memory_is_migrated_too(memory: Memory) -> None:
    """The fixture of a service's test suite: an empty database in memory at head."""
    engine = memory(None)

    assert "migrated" == ensure_current(engine, on_failure="raise").state
    sa.inspect(engine).get_columns("vector_stores")
    vecmigrate.rollback(engine, to_version="0")
    assert "000" == vecmigrate.status(engine).revision
    assert HEAD == vecmigrate.upgrade(engine).to_revision


def test_an_engine_that_begins_transactions_itself_is_migrated(memory: Memory) -> None:
    """SQLAlchemy's recipe for whole transactions on SQLite, a listener that emits BEGIN, is no obstacle."""
    engine = memory("legacy", isolation_level=None)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    before = manners(engine)

    assert "migrated" == ensure_current(engine, on_failure="raise").state
    assert before == manners(engine)


def test_an_engine_in_memory_is_as_before_after_a_failure(memory: Memory) -> None:
    """A refused database in memory keeps its tables, and its connection its settings."""
    engine = memory("legacy")
    connection = driver(engine)
    connection.executescript("DROP VIEW active_stores; DROP TABLE stores; CREATE TABLE stores (somebody TEXT)")
    dump, before = list(connection.iterdump()), manners(engine)

    report = ensure_current(engine)

    assert "failed" == report.state
    assert isinstance(report.error, NotOursError)
    assert before == manners(engine)
    assert dump == list(connection.iterdump())


def test_a_failing_revision_leaves_an_engine_in_memory_as_it_was(memory: Memory, scripts: Scripts) -> None:
    """A failed run in memory is rolled back, and the connection has its settings afterwards."""
    scripts.add("raise RuntimeError('on purpose')")
    engine = memory("legacy")
    before = manners(engine)

    assert "failed" == ensure_current(engine).state
    assert before == manners(engine)
    assert "vecmigrate_version" not in sa.inspect(engine).get_table_names()
    assert "protected" in {column["name"] for column in sa.inspect(engine).get_columns("vector_stores")}


def test_threads_that_boot_at_once_on_an_engine_in_memory(memory: Memory) -> None:
    """All have one connection; nobody gives it back, which would roll back, while another one migrates."""
    engine = memory("released")
    states: list[str] = []
    barrier = threading.Barrier(4)

    def boot() -> None:
        barrier.wait()
        states.append(ensure_current(engine, on_failure="raise").state)

    threads = [threading.Thread(target=boot) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (4, 1) == (len(states), states.count("migrated"))
    assert "current" == vecmigrate.status(engine).state


def test_a_file_behind_an_engine_that_does_not_name_it_is_left_alone(released_file: Path) -> None:
    """An Engine whose `creator` opens a file would be migrated as one in memory, without lock and backup."""
    before = legacy.digest(released_file)

    for pool in (QueuePool, StaticPool):
        engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(released_file), poolclass=pool)
        report = ensure_current(engine)
        engine.dispose()

        assert "failed" == report.state
        assert before == legacy.digest(released_file)
    assert f"sqlite:///{released_file}" in str(report.error)


def test_an_engine_in_memory_that_keeps_nothing_is_refused() -> None:
    """With a NullPool the tables would be gone with the connection that made them."""
    engine = sa.create_engine("sqlite://", poolclass=NullPool)

    report = ensure_current(engine)

    assert "failed" == report.state
    assert "StaticPool" in str(report.error)


# Event loops.


def test_a_boot_works_in_a_thread_of_an_event_loop(tmp_path: Path) -> None:
    """Under `asyncio.to_thread`, several databases at once and one twice, the loop going on meanwhile."""
    paths = [legacy.build(tmp_path / f"{shape}.sqlite3", shape) for shape in legacy.SHAPES]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    async def boot() -> list[str]:
        ticking = asyncio.create_task(tick())
        reports = await asyncio.gather(
            *(asyncio.to_thread(ensure_current, url(path), on_failure="raise") for path in [*paths, paths[0]])
        )
        ticking.cancel()
        return [report.state for report in reports]

    states = asyncio.run(boot())

    assert 4 == states.count("migrated")
    assert {"migrated"} <= set(states) <= {"migrated", "waited", "current"}
    assert ticks > 3
    assert [HEAD] * 4 == [legacy.revision(path) for path in paths]


# The fast path.

_IMPORTED = """
import sys, sqlite3
before = set(sys.modules)
import vecmigrate
report = vecmigrate.ensure_current("sqlite:///" + sys.argv[1])
print(report.state, *sorted(set(sys.modules) - before))
"""


def test_a_boot_at_head_imports_nothing_beyond_sqlite3(current_file: Path) -> None:
    """Beside what `import sqlite3` brings in there are four small modules of ours, and nothing else."""
    expected = ["current", "vecmigrate", "vecmigrate.boot", "vecmigrate.forks", "vecmigrate.scripts_folder"]

    assert expected == run_python(_IMPORTED, current_file).out.split()


@pytest.mark.usefixtures("only_the_fast_path")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_boot_at_head_writes_nothing(current_file: Path, mode: str) -> None:
    """No file is made, none is changed, and no sidecar stays behind."""
    legacy.execute(current_file, f"PRAGMA journal_mode = {mode}")
    before = legacy.tree(current_file.parent)

    assert "current" == ensure_current(url(current_file)).state
    assert before == legacy.tree(current_file.parent)


@pytest.mark.usefixtures("only_the_fast_path")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_boot_at_head_needs_no_write_lock(current_file: Path, mode: str) -> None:
    """Another process that holds the write lock, and has written, keeps nobody from starting."""
    legacy.execute(current_file, f"PRAGMA journal_mode = {mode}")
    with locked(current_file) as connection:
        connection.execute("INSERT INTO memory_meta VALUES ('written', 'but not committed')")

        report = ensure_current(url(current_file), lock_timeout=0)

    assert "current" == report.state
    assert report.duration_seconds < 0.2


@pytest.mark.usefixtures("only_the_fast_path")
def test_a_boot_at_head_leaves_the_marker_of_a_killed_run_to_the_next_run(current_file: Path) -> None:
    """What died had changed nothing or all of it: a start needs neither to look for that nor to wait for a lock."""
    marker = current_file.with_name(f"{current_file.name}.run-{'0' * 32}.json")
    marker.write_text("{}", encoding="utf-8")

    assert "current" == ensure_current(url(current_file)).state
    assert marker.exists()
    vecmigrate.upgrade(url(current_file))
    assert not marker.exists()


@pytest.mark.usefixtures("only_the_fast_path")
def test_the_fast_path_does_not_create_a_database(tmp_path: Path) -> None:
    """Looking for an absent file creates none; only the long way does."""
    with pytest.raises(BaseException, match="the long way was taken"):
        ensure_current(url(tmp_path / "absent.sqlite3"))

    assert not (tmp_path / "absent.sqlite3").exists()


def calls_of(work: Callable[[], object]) -> tuple[int, int]:
    """Return how many functions, of Python and of C, a piece of work calls, and how many of these our code calls.

    How many the standard library calls in turn differs from one version of Python to the next.
    """
    everybodys = ours = 0
    package = str(Path(vecmigrate.__file__).parent)

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal everybodys, ours
        if event not in {"call", "c_call"}:
            return
        caller = frame if event == "c_call" else frame.f_back
        everybodys += 1
        ours += caller is not None and caller.f_code.co_filename.startswith(package)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return everybodys, ours


@pytest.mark.usefixtures("only_the_fast_path")
def test_a_boot_at_head_does_not_grow_with_the_revisions(current_file: Path, scripts: Scripts) -> None:
    """With 1,001 revisions a boot makes exactly the calls that it makes with few, and those are few."""
    assert "current" == ensure_current(url(current_file)).state
    few, ours = calls_of(lambda: ensure_current(url(current_file)))
    for number in range(int(NEXT), 1001):
        (scripts.versions / f"{number:03d}_empty.py").touch()
    legacy.execute(current_file, "UPDATE vecmigrate_version SET version_num = '1000'")
    assert "1000" == ensure_current(url(current_file)).after

    assert (few, ours) == calls_of(lambda: ensure_current(url(current_file)))
    assert ours < 45


def test_a_revision_added_to_a_running_process_is_seen(current_file: Path, scripts: Scripts) -> None:
    """What is remembered of the folder of revisions is forgotten when the folder changes."""
    assert "current" == ensure_current(url(current_file)).state
    scripts.add("pass")

    report = ensure_current(url(current_file), on_failure="raise")

    assert ("migrated", HEAD, NEXT) == (report.state, report.before, report.after)
    assert "current" == ensure_current(url(current_file)).state


# The plain functions.


def test_the_functions_have_the_names_of_the_commands(released_file: Path) -> None:
    """Status, upgrade, backup, rollback and restore work on a URL as the commands do."""
    given = url(released_file)
    found = [legacy.rows(released_file, table) for table in ("vector_stores", "stores", "active_stores")]

    assert "unversioned" == vecmigrate.status(given).state
    assert REVISIONS == vecmigrate.upgrade(given).applied
    saved = vecmigrate.backup(given)
    assert above("000")[::-1] == vecmigrate.rollback(given, to_version="000").reverted
    assert found == [legacy.rows(released_file, table) for table in ("vector_stores", "stores", "active_stores")]
    vecmigrate.restore(given, name=saved.name)
    assert "current" == vecmigrate.status(given).state


def test_the_functions_take_the_environment_too(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL each function uses VECMIGRATE_DATABASE_URL."""
    monkeypatch.setenv("VECMIGRATE_DATABASE_URL", url(released_file))

    assert HEAD == vecmigrate.upgrade().to_revision
    assert "current" == vecmigrate.status().state


def test_the_package_lists_what_it_offers() -> None:
    """`dir(vecmigrate)` is its public interface, every name of it exists, and no other does."""
    assert sorted(vecmigrate.__all__) == dir(vecmigrate)
    assert all(getattr(vecmigrate, name) is not None for name in vecmigrate.__all__)
    with pytest.raises(AttributeError, match="no attribute 'upgrad'"):
        vecmigrate.upgrad  # noqa: B018


def test_the_log_of_a_boot_has_no_handler_of_ours(current_file: Path) -> None:
    """The logger has no handler and no level of its own: what is shown is the service's choice."""
    make_newer(current_file, compatible_from="1.0.0")
    ensure_current(url(current_file))

    logger = logging.getLogger("vecmigrate")
    assert ([], logging.NOTSET, True) == (logger.handlers, logger.level, logger.propagate)
