"""Progress: told in Python, shown as a bar on a terminal and as lines elsewhere, and never on stdout."""

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli, url
from ladder import HEAD, REVISIONS
from vecmigrate import progress, sqlite_driver, sqlite_files
from vecmigrate.cli import bars
from vecmigrate.progress import Progress
from vecmigrate.testing import DatabaseAt


def phases(told: list[Progress]) -> list[tuple[str, str]]:
    """Return what was told of, in order, without repetitions."""
    found: list[tuple[str, str]] = []
    for each in told:
        name = each.name if each.phase in {"upgrade", "downgrade"} else ""
        if (each.phase, name) not in found:
            found.append((each.phase, name))
    return found


def test_an_upgrade_tells_how_far_it_is(released_file: Path) -> None:
    """The backup and its verification in bytes, and each revision in rows; what is done never goes back."""
    told: list[Progress] = []
    vecmigrate.upgrade(url(released_file), on_progress=told.append)

    assert [("backup", ""), ("verify", ""), *(("upgrade", each) for each in REVISIONS)] == phases(told)
    units = {"backup": "bytes", "verify": "bytes", "upgrade": "rows"}
    assert all(units[each.phase] == each.unit for each in told)
    of_backup = [each for each in told if each.phase == "backup"]
    assert (0, of_backup[0].total) == (of_backup[0].done, of_backup[-1].done)
    of_rows = [each for each in told if each.name == "001"]
    # The rows of stores stay where they are.
    assert (0, 150, 150) == (of_rows[0].done, of_rows[-1].done, of_rows[-1].total)


def test_every_function_that_takes_long_tells(vecmigrate_at: DatabaseAt) -> None:
    """Back, a backup, a restore and a boot, each with its phases."""
    path = vecmigrate_at("001", shape="released")
    told: list[Progress] = []
    vecmigrate.ensure_current(url(path), on_progress=told.append, on_failure="raise")
    assert ("upgrade", HEAD) in phases(told)
    made = vecmigrate.backup(url(path), on_progress=told.append)
    told.clear()
    vecmigrate.rollback(url(path), to_version="001", on_progress=told.append)
    assert [("downgrade", each) for each in (HEAD, "002")] == [each for each in phases(told) if each[0] == "downgrade"]
    told.clear()
    vecmigrate.restore(url(path), name=made.name, on_progress=told.append)
    assert ("restore", "") in phases(told)
    assert told[-1].phase


def test_what_a_listener_raises_ends_the_run(released_file: Path) -> None:
    """It is rolled back, and the database is as it was."""
    before = legacy.digest(released_file)

    def stop(told: Progress) -> None:
        if told.name == "001":
            raise RuntimeError("enough")

    with pytest.raises(vecmigrate.VecmigrateError, match="Revision 001 failed"):
        vecmigrate.upgrade(url(released_file), on_progress=stop)
    assert before == legacy.digest(released_file)


def slow_statement(path: Path) -> sqlite_driver.Connection:
    return sqlite3.connect(path, factory=sqlite_driver.Connection)


COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n"


def test_a_long_statement_tells_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself calls in between, and a listener that raises interrupts the statement."""
    monkeypatch.setattr(progress, "_PAUSE_SECONDS", 0.0)
    connection = slow_statement(tmp_path / "x.sqlite3")
    told: list[Progress] = []
    with progress.told_to(told.append), progress.phase("upgrade", name="001", unit="rows"):
        connection.execute(COUNTING).fetchone()
    assert len(told) > 10
    assert sorted(each.duration_seconds for each in told) == [each.duration_seconds for each in told]

    def stop(each: Progress) -> None:
        if each.duration_seconds and len(told) > 20:
            raise KeyboardInterrupt
        told.append(each)

    told.clear()
    with progress.told_to(stop), progress.phase("upgrade", name="001", unit="rows") as phase:
        with pytest.raises(sqlite3.OperationalError, match="interrupted") as caught:
            connection.execute(COUNTING).fetchone()
        assert isinstance(sqlite_driver.interruption(connection, caught.value), KeyboardInterrupt)
        told.clear()
        assert phase is not None
    connection.close()


def test_a_copy_in_steps_is_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who commits between two steps is not in the copy, and does not make it begin anew."""
    monkeypatch.setattr(sqlite_files, "_STEP_BYTES", 4096)
    monkeypatch.setattr(progress, "_PAUSE_SECONDS", 0.0)
    path, copy = tmp_path / "x.sqlite3", tmp_path / "copy.sqlite3"
    legacy.execute(path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
    legacy.execute(path, *["INSERT INTO t VALUES (zeroblob(4000))"] * 50)
    writer = sqlite3.connect(path, isolation_level=None)
    told: list[Progress] = []

    def write(each: Progress) -> None:
        told.append(each)
        writer.execute("INSERT INTO t VALUES (1)")

    sqlite_files.new_file(str(copy))
    source = sqlite_files.connect(str(path))
    with progress.told_to(write):
        sqlite_files.copy_pages(source, str(copy), deadline=float("inf"))
    source.close()
    writer.close()
    assert len(told) > 50
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert legacy.query(copy, "SELECT count(*) FROM t") in [[(50,)], [(51,)]]


# What is shown.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            Progress("backup", "x", "bytes", 3 << 20, 6 << 20, 3.0),
            "Backing up 3.0 MB of 6.0 MB, 1.0 MB a second, 3 s left",
        ),
        (Progress("upgrade", "001", "rows", 0, None, 61.0), "Revision 001, up: 0 rows, 1 min 01 s so far"),
        (
            Progress("upgrade", "001", "rows", 50, 50, 5.0),
            "Revision 001, up: 50 of 50 rows, 10 a second, 5 s so far",
        ),
        (
            Progress("embed", "m", "chunks", 1000, 10_000_000, 1.0),
            "Embedding 1,000 of 10,000,000 chunks, 1,000 a second, 2 h 46 min left",
        ),
    ],
)
def test_a_line_tells_rate_and_time_left(told: Progress, expected: str) -> None:
    """In units that can be read."""
    assert expected == bars.line(told)


def test_a_terminal_has_a_bar_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays within the line, comes only once something takes long, and leaves nothing."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    shown = bars.Shown(is_quiet=False)
    shown.show(Progress("backup", "x", "bytes", 1, 100, 0.1))
    assert "" == screen.getvalue()
    shown.show(Progress("backup", "x", "bytes", 50, 100, 1.0))
    drawn = screen.getvalue()
    assert "[#######........] Backing up 50 bytes of 100 bytes" in drawn
    assert len(re.sub(r"\r|\x1b\[K", "", drawn)) < 80
    shown.end()
    assert screen.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(("is_quiet", "lines"), [(False, 1), (True, 0)])
def test_elsewhere_there_is_a_line_now_and_then(is_quiet: bool, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """After five seconds, and not again at once; none with --quiet."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    shown = bars.Shown(is_quiet=is_quiet)
    for seconds in (0.0, 4.9, 5.0, 5.1):
        shown.show(Progress("verify", "x", "bytes", 1, 100, seconds))
    assert lines == len(written.getvalue().splitlines())


def test_stdout_has_the_document_alone(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json, on a terminal where everything is shown, progress is on stderr only."""
    monkeypatch.setattr(bars, "_FIRST_SECONDS", 0.0)
    code = (
        "import sys; from vecmigrate.cli import bars, main; bars._FIRST_SECONDS = 0.0; "
        "sys.stderr.isatty = lambda: True; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--db-path", str(released_file), "migrate", "--json"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert REVISIONS == json.loads(done.stdout)["applied"]
    assert "Backing up" in done.stderr
    assert "Revision 001, up:" in done.stderr
    assert "\r" not in run_cli("--db-path", released_file, "status").err
