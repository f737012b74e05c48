"""Every exit code of the command line, and what each error tells."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import Result, run_cli
from faults import harness
from faults.harness import Subject, start, tried
from faults.slow import failing_scripts, with_scripts
from ladder import HEAD, NAMES, REVISIONS


def _absent(folder: Path) -> Result:
    return run_cli("--db-path", folder / "no" / "such.sqlite3", "migrate", "--json")


def _target(folder: Path) -> Result:
    return run_cli("--db-path", legacy.build(folder / "s.sqlite3", "released"), "migrate", "--target", "77", "--json")


def _no_backup(folder: Path) -> Result:
    return run_cli("--db-path", legacy.build(folder / "s.sqlite3", "released"), "restore", "none", "--json")


def _usage(folder: Path) -> Result:
    return run_cli("--db-path", folder / "s.sqlite3", "migrate", "--no-such-option", "--json")


def _two_databases(folder: Path) -> Result:
    return run_cli("--db-path", folder / "s.sqlite3", "--database-url", "sqlite://", "status", "--json")


def _locked(folder: Path) -> Result:
    database = legacy.build(folder / "s.sqlite3", "released")
    with pytest.MonkeyPatch.context() as patch, legacy.opened(database) as holder:
        patch.setenv("VECMIGRATE_LOCK_TIMEOUT", "0.2")
        holder.execute("BEGIN IMMEDIATE")
        return run_cli("--db-path", database, "migrate", "--json")


def _foreign_table(folder: Path) -> Result:
    legacy.execute(folder / "s.sqlite3", "CREATE TABLE stores (colour TEXT)")
    return run_cli("--db-path", folder / "s.sqlite3", "migrate", "--json")


def _loss(folder: Path) -> Result:
    database = folder / "s.sqlite3"
    vecmigrate.upgrade(harness.url(database))
    legacy.execute(
        database,
        "INSERT INTO vector_store_chunks (chunk_id, file_path, content) VALUES ('c', 'f', 'text')",
    )
    return run_cli("--db-path", database, "rollback", "--to-version", "base", "--json")


def _ahead(folder: Path) -> Result:
    database = folder / "s.sqlite3"
    vecmigrate.upgrade(harness.url(database))
    legacy.execute(
        database,
        "UPDATE vecmigrate_version SET version_num = '900'",
        "UPDATE vecmigrate_meta SET value = '9.0.0'",
    )
    return run_cli("--db-path", database, "migrate", "--json")


REFUSALS = [
    (1, _absent, "DatabaseUnusableError"),
    (1, _target, "TargetError"),
    (1, _no_backup, "BackupError"),
    (2, _usage, "UsageError"),
    (2, _two_databases, "UsageError"),
    (4, _locked, "LockTimeoutError"),
    (6, _foreign_table, "NotOursError"),
    (6, _loss, "WouldLoseRowsError"),
    (6, _ahead, "AheadError"),
]


@pytest.mark.parametrize(("code", "cause", "kind"), REFUSALS)
def test_an_error_tells_what_happened_and_what_to_do(
    code: int, cause: Callable[[Path], Result], kind: str, tmp_path: Path
) -> None:
    """The code, one JSON document on stdout, what state the data is in, and the next command on stderr."""
    result = cause(tmp_path)
    assert code == result.code, result.err
    error = result.document["error"]
    assert (code, kind) == (error["exit_code"], error["type"])
    assert error["next"]
    harness.require_explained(result.err)
    if code != 2:
        assert error["message"] in result.err
        assert f"Next: {error['next']}" in result.err
        assert "Nothing was changed." in error["message"]
    tried("Exit codes", f"{code}: {kind}", "as documented")


def test_done_and_pending(tmp_path: Path) -> None:
    """0 when done, 3 from ``status --check`` as long as something is pending or absent."""
    file = ("--db-path", tmp_path / "s.sqlite3")
    codes = [run_cli(*file, "status", "--check").code, run_cli(*file, "migrate", "--target", "1").code]
    codes += [run_cli(*file, "status", "--check").code, run_cli(*file, "migrate").code]
    codes += [run_cli(*file, "status", "--check").code]
    assert [3, 0, 3, 0, 0] == codes
    tried("Exit codes", "0 and 3: done, pending", "as documented")


def _after_failure(statement: str, tmp_path: Path, small: Subject, *options: str) -> tuple[int, str, Path]:
    database = small.copy(tmp_path / "service")
    scripts = failing_scripts(tmp_path / "scripts", statement)
    child = start(with_scripts, str(scripts), harness.run_cli, *options, "--db-path", str(database), "migrate")
    return child.wait(), child.output, database


@pytest.mark.parametrize("mode", ["wal"], indirect=True)
def test_a_failed_run(small: Subject, tmp_path: Path) -> None:
    """5, the database as it was, the backup named, and every revision in the history."""
    code, output, database = _after_failure("raise RuntimeError('it broke')", tmp_path, small)
    assert 5 == code, output
    backup = harness.backup_files(database)[0]
    assert f"Revision {HEAD} failed: RuntimeError: it broke" in output
    assert f"Backup: {backup}" in output
    assert f"vecmigrate --db-path {database}" in output
    assert "old state" == small.state(database)
    assert [*["skipped"] * (len(REVISIONS) - 1), "failed"] == harness.statuses(database)
    harness.require_tidy(database)
    tried("Exit codes", "5: a revision fails", "as documented")


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "BEGIN", "SAVEPOINT x; RELEASE x; COMMIT"])
@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_a_lost_transaction(statement: str, small: Subject, tmp_path: Path) -> None:
    """6 where a revision ends the transaction, also by executescript; the database is as it was."""
    driver = f"op.get_bind().connection.driver_connection.executescript({statement!r})"
    code, output, database = _after_failure(driver, tmp_path, small)
    assert 6 == code, output
    assert "Next: " in output
    harness.require_explained(output)
    assert "old state" == small.state(database)
    harness.require_tidy(database)
    tried("Exit codes", "6: a revision ends the transaction", "as documented")


@pytest.mark.parametrize("statement", ["raise RuntimeError('it broke')", "op.execute('COMMIT')"])
@pytest.mark.parametrize("mode", ["wal"], indirect=True)
def test_a_traceback_is_shown_with_v(statement: str, small: Subject, tmp_path: Path) -> None:
    """With -v the traceback ends with what happened, and the explanation follows as without."""
    code, output, _ = _after_failure(statement, tmp_path, small, "-v")
    assert code in {5, 6}, output
    trace, _, explained = output.partition(f"\nError: Revision {HEAD} ")
    assert f"{HEAD}_{NAMES[HEAD]}.py" in trace
    assert "RecursionError" not in trace
    assert "Next: " in explained
    tried("Exit codes", "5 and 6 with -v", "a traceback, then as without")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: int, code: int, small: Subject, tmp_path: Path) -> None:
    """130 and 143, with what state the data is in."""
    database = small.copy(tmp_path / "service")
    with legacy.opened(database) as holder:
        holder.execute("BEGIN IMMEDIATE")
        child = start(harness.run_cli, "--db-path", str(database), "migrate", "--json")
        child.await_open(database)
        child.signal(number)
        assert code == child.wait(), child.output
    assert f'"exit_code": {code}' in child.output
    assert "Stopped by a signal" in child.output
    tried("Exit codes", f"{code}: stopped by a signal", "as documented")
