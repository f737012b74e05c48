"""Restoring real SQLite files, beside real readers and writers, with real kills and full disks."""

import contextlib
import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vecmigrate import backups
from vecmigrate.backups import Backup
from vecmigrate.errors import BackupError, DatabaseUnusableError, LockTimeoutError, RunFailedError
from vecmigrate.restoring import Carry, Restored, restore

POSIX = pytest.mark.skipif(os.name == "nt", reason="modes, limits and signals of POSIX")
ID = "0123456789abcdef0123456789abcdef"
MODES = ("wal", "delete")
NOW = datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
MOVED = ".damaged-20250102T030405.000006Z"
RESTORE = """
import sys
from vecmigrate import backups
from vecmigrate.errors import VecmigrateError
from vecmigrate.restoring import restore
database, folder, name = sys.argv[1:]
backup = backups.find(name, folder, database_id=None, database_path=database)
try:
    restore(database, backup, folder=folder, database_id=None, timeout=5)
except VecmigrateError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0.05)
n = 0
while True:
    try:
        connection.execute("INSERT INTO acknowledged VALUES (?)", (n,))
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
    else:
        print(n, flush=True)
        n += 1
"""


@contextlib.contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def make(path: Path, mode: str, content: str, *, rows: int = 300, page_size: int = 4096) -> str:
    with opened(str(path)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.executescript(
            "CREATE TABLE state (content, filler); CREATE TABLE acknowledged (n);"
            "CREATE TABLE vecmigrate_meta (key, value); CREATE TABLE vecmigrate_version (version_num);"
            f"INSERT INTO vecmigrate_meta VALUES ('database_id', '{ID}'), ('app_version', '9.9');"
            "INSERT INTO vecmigrate_version VALUES ('001');"
        )
        fill(connection, content, rows)
    return str(path)


def fill(connection: sqlite3.Connection, content: str, rows: int) -> None:
    connection.execute("BEGIN")
    connection.execute("DELETE FROM state")
    connection.executemany("INSERT INTO state VALUES (?, ?)", [(content, "x" * 300)] * rows)
    connection.execute("COMMIT")


def saved_as_old(database: str, folder: Path, *, revision: str | None = "001") -> Backup:
    return backups.create(
        database,
        str(folder),
        database_id=ID,
        revision=revision,
        app_version=None,
        reason="test",
        timeout=5,
    )


def old_and_new(tmp_path: Path, mode: str, *, rows: int = 300) -> tuple[str, Backup]:
    """Make a database with a backup of its old content, and new content since."""
    database = make(tmp_path / "app.db", mode, "old")
    backup = saved_as_old(database, tmp_path / "backups")
    with opened(database) as connection:
        fill(connection, "new", rows)
        connection.execute("CREATE TABLE since (a)")
    return database, backup


def run(
    database: str, backup: Backup, *, timeout: float = 5, carry: Carry | None = None, folder: Path | None = None
) -> Restored:
    place = str(folder or Path(backup.path).parent)
    return restore(database, backup, folder=place, database_id=ID, timeout=timeout, carry=carry, now=NOW)


def content(path: str) -> str:
    """Return the one content that all rows have: a mixture, or damage, fails here."""
    with opened(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((value,),) = connection.execute("SELECT DISTINCT content FROM state")
        has_since = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'since'").fetchone()[0]
    assert has_since == (value == "new")
    return str(value)


def journal_mode(path: str) -> str:
    with opened(path) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def everything(folder: Path) -> dict[str, bytes]:
    """Read all files but those that SQLite makes for every reader: a -shm, and a -wal while it is empty."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if data or not path.endswith("-wal") if "-shm" not in path}


def without_saved_bytes(folder: Path) -> dict[str, bytes]:
    """Read all files but the saved bytes of the damaged database, which stay."""
    return {path: data for path, data in everything(folder).items() if "-damaged.sqlite3" not in path}


@pytest.mark.parametrize("mode", MODES)
def test_it_outlives_the_cleaning_of_another_run(tmp_path: Path, mode: str) -> None:
    """Whoever holds the lock removes temporary files; a restore that waits for the lock makes its copy anew."""
    database, backup = old_and_new(tmp_path, mode)
    folder = Path(backup.path).parent
    done: list[Restored] = []
    with opened(database) as other:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(
            target=lambda: done.append(run(database, backup, timeout=30, carry=lambda _old, _new, _saved: None))
        )
        thread.start()
        time.sleep(1)
        assert any(name.endswith(".tmp") for name in files(folder))
        backups.clean_temporary(str(folder), ID)
        other.execute("ROLLBACK")
    thread.join()

    assert "old" == content(database)
    assert 1 == len(done)
    assert not any(name.endswith(".tmp") for name in files(folder))


def test_it_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """A restore that was killed while it waited leaves its copy; the next one takes it away, and keeps its own."""
    database, backup = old_and_new(tmp_path, "wal")
    with backups.scratch(str(Path(backup.path).parent), ID, database) as path:
        left = Path(path)
    left.write_bytes(b"x" * 1000)

    run(database, backup)

    assert "old" == content(database)
    assert not left.exists()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [1, 3000])
def test_restores_and_saves_the_present_state(tmp_path: Path, mode: str, rows: int) -> None:
    """Old content comes back, new content is a verified backup, the journal mode stays, nothing lies about."""
    database, backup = old_and_new(tmp_path, mode, rows=rows)
    done = run(database, backup)
    assert content(database) == "old"
    assert done.moved_aside is None
    assert done.saved is not None
    assert content(done.saved.path) == "new"
    assert (done.saved.reason, done.saved.revision, done.saved.app_version) == ("pre-restore", "001", "9.9")
    assert journal_mode(database) == mode
    assert files(tmp_path) == {"app.db", "backups"}
    assert len(files(tmp_path / "backups")) == 5
    run(database, done.saved)
    assert content(database) == "new"


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("mode", MODES)
def test_a_database_that_keeps_its_text_as_utf_16(tmp_path: Path, mode: str, encoding: str) -> None:
    """Its identity and revision are read as in any other, so it can be backed up and restored."""
    with opened(str(tmp_path / "app.db")) as connection:
        connection.execute(f"PRAGMA encoding='{encoding}'")
        connection.execute("CREATE TABLE first (a)")
    database, backup = old_and_new(tmp_path, mode)

    done = run(database, backup)

    assert done.saved
    assert (ID, "001", "9.9") == (done.saved.database_id, done.saved.revision, done.saved.app_version)
    assert "old" == content(database)
    backups.verify(done.saved)
    with opened(database) as connection:
        assert encoding == connection.execute("PRAGMA encoding").fetchone()[0]


def test_beside_readers_in_wal_mode(tmp_path: Path) -> None:
    """A reader in a transaction keeps the old view, then sees the restored one; the mode does not flip."""
    database, backup = old_and_new(tmp_path, "wal")
    with opened(database) as reader, opened(database) as idle:
        idle.execute("SELECT count(*) FROM state").fetchone()
        reader.execute("BEGIN")
        before = reader.execute("SELECT DISTINCT content FROM state").fetchall()
        run(database, backup)
        assert before == reader.execute("SELECT DISTINCT content FROM state").fetchall() == [("new",)]
        reader.execute("COMMIT")
        assert reader.execute("SELECT DISTINCT content FROM state").fetchall() == [("old",)]
        idle.execute("UPDATE state SET content = 'later'")
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert content(database) == "later"
    assert files(tmp_path) == {"app.db", "backups"}


@pytest.mark.parametrize(
    ("mode", "statements"),
    [
        ("delete", ("BEGIN", "SELECT * FROM state")),
        ("delete", ("BEGIN IMMEDIATE",)),
        ("delete", ("BEGIN EXCLUSIVE",)),
        ("wal", ("BEGIN IMMEDIATE",)),
    ],
)
def test_the_wait_for_others_is_bounded(tmp_path: Path, mode: str, statements: tuple[str, ...]) -> None:
    """Whoever keeps a lock is named as the cause with exit code 4, and nothing has changed."""
    database, backup = old_and_new(tmp_path, mode)
    with opened(database) as other:
        before = everything(tmp_path)
        for statement in statements:
            other.execute(statement).fetchone()
        started = time.monotonic()
        with pytest.raises(LockTimeoutError, match="somebody kept reading or writing") as caught:
            run(database, backup, timeout=0.3)
        assert time.monotonic() - started < 3
        other.execute("COMMIT")
        assert everything(tmp_path) == before
    assert caught.value.exit_code == 4
    assert caught.value.next_step.endswith(f"vecmigrate --db-path {database} restore {backup.name}")
    assert content(database) == "new"


@pytest.mark.parametrize("mode", MODES)
def test_it_waits_for_a_transaction_to_end(tmp_path: Path, mode: str) -> None:
    """A writer that commits in time is waited for, and its commit is in the saved copy."""
    database, backup = old_and_new(tmp_path, mode)
    locked = threading.Event()

    def write() -> None:
        with opened(database) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("INSERT INTO acknowledged VALUES (1)")
            locked.set()
            time.sleep(0.4)
            writer.execute("COMMIT")

    thread = threading.Thread(target=write)
    thread.start()
    locked.wait()
    done = run(database, backup)
    thread.join()
    assert done.saved is not None
    with opened(done.saved.path) as connection:
        assert connection.execute("SELECT n FROM acknowledged").fetchall() == [(1,)]


@pytest.mark.parametrize(("mode", "statement"), [("delete", "SELECT * FROM state"), ("wal", "BEGIN IMMEDIATE")])
def test_nobody_gets_in_between_saving_and_replacing(tmp_path: Path, mode: str, statement: str) -> None:
    """Once the state is saved another process can't write any more; without a WAL it can't even read."""
    database, backup = old_and_new(tmp_path, mode)
    script = f"import sqlite3; sqlite3.connect({database!r}, timeout=0).execute({statement!r})"
    found = []

    def carry(*_: object) -> None:
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        found.append(other.stderr.splitlines()[-1])

    run(database, backup, carry=carry)
    assert found == ["sqlite3.OperationalError: database is locked"]


@pytest.mark.parametrize("mode", MODES)
def test_no_acknowledged_commit_is_lost(tmp_path: Path, mode: str) -> None:
    """Beside a writer that never pauses, each commit is in the saved copy or was made after the restore."""
    database, backup = old_and_new(tmp_path, mode)
    for _ in range(3):
        with opened(database) as connection:
            connection.execute("DELETE FROM acknowledged")
        command = [sys.executable, "-c", WRITER, database]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            time.sleep(0.25)
            try:
                done = run(database, backup, timeout=20)
                time.sleep(0.1)
            finally:
                writer.kill()
                output = writer.communicate()[0]
        assert done.saved is not None
        found = []
        for path in (done.saved.path, database):
            with opened(path) as connection:
                found += [n for (n,) in connection.execute("SELECT n FROM acknowledged ORDER BY n")]
        acknowledged = list(range(output.count("\n")))
        # The kill may fall between a commit and its acknowledgement.
        assert found in (acknowledged, [*acknowledged, len(acknowledged)])
        assert len(acknowledged) > 5
        assert journal_mode(database) == mode


@pytest.mark.parametrize("loss", [None, b"", b"garbage" * 2000])
@pytest.mark.parametrize("mode", MODES)
def test_a_database_made_anew_has_its_journal_mode_again(tmp_path: Path, mode: str, loss: bytes | None) -> None:
    """Every data file is in DELETE mode; the mode of the database is in the manifest."""
    database, backup = old_and_new(tmp_path, mode)
    Path(database).unlink()
    if loss is not None:
        Path(database).write_bytes(loss)
    (found,) = backups.listing(str(Path(backup.path).parent), database_id=ID, database_path=database)

    run(database, found)

    assert (mode, "old") == (journal_mode(database), content(database))


@POSIX
@pytest.mark.parametrize("umask", [0, 0o777])
@pytest.mark.parametrize("rest", [None, "empty", "journal"])
def test_a_missing_database_is_created(tmp_path: Path, rest: str | None, umask: int) -> None:
    """No file, or an empty one, becomes the backup's content; a new file is only its owner's."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).unlink()
    if rest:
        Path(database).touch(mode=0o600)
    if rest == "journal":
        (tmp_path / "app.db-journal").write_bytes(b"stale" * 1000)
    before = os.umask(umask)
    try:
        done = run(database, backup)
    finally:
        os.umask(before)
    assert done == Restored(saved=None, moved_aside=None)
    assert content(database) == "old"
    assert Path(database).stat().st_mode & 0o777 == 0o600
    assert files(tmp_path) == {"app.db", "backups"}


@pytest.mark.parametrize("rest", [None, "empty"])
def test_the_wal_of_a_missing_database_is_kept(tmp_path: Path, rest: str | None) -> None:
    """A -wal that has lost its database neither spoils the restored one nor is deleted."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).unlink()
    if rest:
        Path(database).touch()
    (tmp_path / "app.db-wal").write_bytes(b"commits")
    done = run(database, backup)
    assert done.moved_aside == database + MOVED
    assert (tmp_path / f"app.db{MOVED}-wal").read_bytes() == b"commits"
    assert content(database) == "old"
    assert files(tmp_path) == {"app.db", "backups", f"app.db{MOVED}-wal"}


@pytest.mark.parametrize("damage", ["not a database", "truncated", "one page", "zeroed page", "header"])
def test_a_damaged_database_is_moved_aside(tmp_path: Path, damage: str) -> None:
    """It keeps every byte under its new name, with its sidecars, and the backup takes its place."""
    database, backup = old_and_new(tmp_path, "delete")
    data = Path(database).read_bytes()
    Path(database).write_bytes(
        {
            "not a database": b"some text" * 500,
            "truncated": data[: len(data) // 2 + 100],
            "one page": data[:4096],
            "zeroed page": data[:4096] + bytes(4096) + data[8192:],
            "header": b"\0" * 16 + data[16:],
        }[damage]
    )
    broken = Path(database).read_bytes()
    (tmp_path / ("app.db" + MOVED)).write_text("taken")
    done = run(database, backup)
    expected = database + MOVED.replace("06Z", "07Z")
    assert done == Restored(saved=None, moved_aside=expected, bytes_in=done.bytes_in)
    assert Path(expected).read_bytes() == broken
    assert Path(done.bytes_in or "").read_bytes() == broken
    assert Path(done.bytes_in or "").parent == tmp_path / "backups"
    assert content(database) == "old"


def test_what_a_killed_restore_has_put_aside_goes_with_the_next(tmp_path: Path) -> None:
    """Links and copies of a damaged file that is still there, temporary files, and no second copy of its bytes."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).write_bytes(b"damaged" * 1000)
    code = (
        "import os, signal, sys\n"
        "from vecmigrate import aside, restoring\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "aside._make_alike = die\n"
    ) + RESTORE
    for _ in range(3):
        words = [database, str(tmp_path / "backups"), backup.name]
        killed = subprocess.run([sys.executable, "-c", code, *words], check=False)
        assert killed.returncode == -9
    assert any(".damaged-" in name for name in files(tmp_path))
    done = run(database, backup)
    assert files(tmp_path) == {"app.db", "backups", f"app.db{MOVED}"}
    saved = {Path(done.bytes_in or "").name}
    assert files(tmp_path / "backups") == saved | {
        Path(backup.path).name,
        Path(backup.path).stem + ".json",
        ".gitignore",
    }


def test_a_damaged_wal_database_keeps_its_wal(tmp_path: Path) -> None:
    """Looking at it neither writes its WAL back into it nor deletes it."""
    database, backup = old_and_new(tmp_path, "wal")
    script = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('INSERT INTO acknowledged VALUES (1)')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, database], check=True)
    data = Path(database).read_bytes()
    Path(database).write_bytes(data[: len(data) - 4096 * 5])
    before = {suffix: Path(database + suffix).read_bytes() for suffix in ("", "-wal")}
    assert before["-wal"]
    done = run(database, backup)
    assert done.moved_aside is not None
    for kept in (done.moved_aside, done.bytes_in or ""):
        assert {suffix: Path(kept + suffix).read_bytes() for suffix in ("", "-wal")} == before
    assert Path(done.moved_aside + "-shm").exists()
    assert content(database) == "old"
    assert not Path(database + "-wal").exists()


@POSIX
@pytest.mark.parametrize("links", [True, False])
def test_what_replaces_a_damaged_database_is_the_service_s_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    """It has the mode of the damaged one, also where a file cannot have two names, and nothing is left over."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).write_bytes(b"damaged" * 1000)
    Path(database).chmod(0o640)
    (tmp_path / "app.db-wal").write_bytes(b"commits")
    if not links:

        def refuse(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)
    done = run(database, backup)
    assert Path(done.moved_aside or "").read_bytes() == b"damaged" * 1000
    assert content(database) == "old"
    assert Path(database).stat().st_mode & 0o777 == 0o640
    kept = {f"app.db{MOVED}{suffix}" for suffix in ("", "-wal", "-shm")}
    assert files(tmp_path) == {"app.db", "backups", *kept}


@pytest.mark.parametrize("refused", ["replace", "unlink"])
def test_a_damaged_database_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Where the last step fails, as beside a program that has the file open on Windows, all is as before."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).write_bytes(b"damaged" * 1000)
    (tmp_path / "app.db-wal").write_bytes(b"commits")
    before = everything(tmp_path)
    real = getattr(Path, refused)

    def refuse(path: Path, *arguments: Any, **options: Any) -> object:
        is_wanted = refused == "unlink" or arguments == (database,)
        if is_wanted and (path.name.endswith(".tmp") or path.name == "app.db-wal"):
            raise PermissionError(errno.EACCES, "in use", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, refused, refuse)
        with pytest.raises((DatabaseUnusableError, PermissionError)):
            run(database, backup)
    for left in tmp_path.rglob("*.tmp"):
        assert refused == "unlink"
        left.unlink()
    assert without_saved_bytes(tmp_path) == before


@POSIX
def test_a_hot_journal_is_rolled_back_and_not_taken_for_damage(tmp_path: Path) -> None:
    """What a killed writer left is recovered first: the saved copy is the last committed state."""
    database, backup = old_and_new(tmp_path, "delete", rows=3000)
    script = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size=5')\n"
        "connection.execute('BEGIN')\n"
        "connection.execute(\"UPDATE state SET content = 'torn'\")\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, database], check=True)
    assert (tmp_path / "app.db-journal").stat().st_size > 0
    done = run(database, backup)
    assert done.moved_aside is None
    assert done.saved is not None
    assert content(done.saved.path) == "new"
    assert content(database) == "old"


def test_rows_that_break_a_constraint_are_no_damage(tmp_path: Path) -> None:
    """A service's own violated CHECK does not get its database moved aside."""
    database, backup = old_and_new(tmp_path, "delete")
    with opened(database) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.executescript("CREATE TABLE odd (a CHECK (a > 0)); INSERT INTO odd VALUES (-1);")
        connection.execute("PRAGMA ignore_check_constraints=OFF")
        assert connection.execute("PRAGMA quick_check").fetchall() != [("ok",)]
    done = run(database, backup)
    assert done.moved_aside is None
    assert done.saved is not None


def test_what_is_not_a_file_stays(tmp_path: Path) -> None:
    """A folder in the database's place, or none for it to be in, is refused and nothing moved or made."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).unlink()
    Path(database).mkdir()
    with pytest.raises(DatabaseUnusableError, match="not a file"):
        run(database, backup)
    with pytest.raises(DatabaseUnusableError, match="No such file"):
        run(str(tmp_path / "absent" / "app.db"), backup)
    assert files(tmp_path) == {"app.db", "backups"}
    assert len(files(tmp_path / "backups")) == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("backup_size", "live_size"), [(1024, 8192), (8192, 1024)])
def test_page_sizes_may_differ(tmp_path: Path, mode: str, backup_size: int, live_size: int) -> None:
    """A backup of another page size is restored, rowids included, also into a live WAL database."""
    old = make(tmp_path / "old.db", "delete", "old", page_size=backup_size)
    with opened(old) as connection:
        connection.execute("DELETE FROM state WHERE rowid < 10")
    backup = saved_as_old(old, tmp_path / "backups")
    database = make(tmp_path / "app.db", mode, "new", page_size=live_size)
    with opened(database) as connection:
        connection.execute("CREATE TABLE since (a)")
    done = run(database, backup)
    assert content(database) == "old"
    assert journal_mode(database) == mode
    assert done.saved is not None
    assert content(done.saved.path) == "new"
    with opened(database) as connection:
        assert connection.execute("SELECT min(rowid) FROM state").fetchone() == (10,)


@pytest.mark.parametrize("auto_vacuum", [0, 1])
@pytest.mark.parametrize("mode", MODES)
def test_a_backup_of_a_single_page(tmp_path: Path, mode: str, auto_vacuum: int) -> None:
    """A database without tables can be gone back to, and the present state is saved as ever."""
    with opened(str(tmp_path / "bare.db")) as connection:
        connection.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
        connection.execute("PRAGMA user_version=5")
    backup = saved_as_old(str(tmp_path / "bare.db"), tmp_path / "backups", revision=None)
    assert backup.bytes == 4096
    database, _ = old_and_new(tmp_path, mode)
    done = run(database, backup)
    assert done.saved is not None
    assert content(done.saved.path) == "new"
    with opened(database) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        assert connection.execute("PRAGMA user_version").fetchone() == (5,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("entries", [1, 3000])
def test_what_is_carried_over_arrives_with_the_rest(tmp_path: Path, mode: str, entries: int) -> None:
    """Carry sees the last committed state, may not write to it, and its writes are in the restored database."""
    database, backup = old_and_new(tmp_path, mode)
    with opened(database) as connection:
        connection.execute("CREATE TABLE vecmigrate_history (entry, saved)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO vecmigrate_history (entry) VALUES (?)", [("x" * 100,)] * entries)
        connection.execute("COMMIT")

    def carry(old: sqlite3.Connection | None, new: sqlite3.Connection, saved: Backup | None) -> None:
        assert old is not None
        assert saved is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            old.execute("DELETE FROM vecmigrate_history")
        new.execute("CREATE TABLE vecmigrate_history (entry, saved)")
        rows = old.execute("SELECT entry FROM vecmigrate_history").fetchall()
        new.executemany("INSERT INTO vecmigrate_history VALUES (?, ?)", [(*row, saved.name) for row in rows])

    done = run(database, backup, carry=carry)
    assert done.saved is not None
    assert content(database) == "old"
    with opened(database) as connection:
        found = connection.execute("SELECT DISTINCT entry, saved FROM vecmigrate_history").fetchall()
        assert found == [("x" * 100, done.saved.name)]
        assert connection.execute("SELECT count(*) FROM vecmigrate_history").fetchone() == (entries,)
    assert backups.is_verified(backup)


@pytest.mark.parametrize("mode", MODES)
def test_carrying_into_a_missing_database(tmp_path: Path, mode: str) -> None:
    """Without an old state carry is told so, and can still write."""
    database, backup = old_and_new(tmp_path, mode)
    Path(database).unlink()

    def carry(old: sqlite3.Connection | None, new: sqlite3.Connection, saved: Backup | None) -> None:
        assert (old, saved) == (None, None)
        new.execute("INSERT INTO acknowledged VALUES (7)")

    run(database, backup, carry=carry)
    with opened(database) as connection:
        assert connection.execute("SELECT n FROM acknowledged").fetchall() == [(7,)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, sqlite3.IntegrityError])
def test_a_failure_under_the_lock_changes_nothing(tmp_path: Path, mode: str, error: type[BaseException]) -> None:
    """Whatever is raised while the state is handed over, the database is as it was and usable at once."""
    database, backup = old_and_new(tmp_path, mode)

    def carry(*_: object) -> None:
        raise error

    expected = RunFailedError if error is sqlite3.IntegrityError else error
    with pytest.raises(expected) as caught:
        run(database, backup, carry=carry)
    if isinstance(caught.value, RunFailedError):
        assert caught.value.exit_code == 5
        assert content(caught.value.backup or "") == "new"
    with opened(database) as connection:
        connection.execute("INSERT INTO acknowledged VALUES (1)")
    assert content(database) == "new"
    assert journal_mode(database) == mode
    assert not [name for name in files(tmp_path / "backups") if name.endswith(".tmp")]


def test_a_failure_puts_a_damaged_database_back(tmp_path: Path) -> None:
    """Moving aside is undone when nothing could be put in its place; a missing file is missing again."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).write_bytes(b"damaged" * 1000)
    (tmp_path / "app.db-wal").write_bytes(b"commits")
    before = everything(tmp_path)

    def carry(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(database, backup, carry=carry)
        assert without_saved_bytes(tmp_path) == before
        assert len(everything(tmp_path)) == len(before) + 2
    for path in tmp_path.glob("app.db*"):
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        run(database, backup, carry=carry)
    assert files(tmp_path) == {"backups"}


@pytest.mark.parametrize("mode", MODES)
def test_a_backup_of_another_database_is_refused(tmp_path: Path, mode: str) -> None:
    """The identity in the live database has to be the backup's; nothing is saved for a refusal."""
    database, backup = old_and_new(tmp_path, mode)
    with opened(database) as connection:
        connection.execute("UPDATE vecmigrate_meta SET value = 'another' WHERE key = 'database_id'")
    before = files(tmp_path / "backups")
    with pytest.raises(BackupError, match="a backup of another database"):
        run(database, backup)
    assert content(database) == "new"
    assert files(tmp_path / "backups") == before


def test_a_moved_database_is_named_where_it_is_now(tmp_path: Path) -> None:
    """The manifest has the old path; what to do next is said of the present one."""
    database, backup = old_and_new(tmp_path, "delete")
    moved = Path(database).rename(tmp_path / "moved.db")
    Path(backup.path).write_bytes(b"short")

    with pytest.raises(BackupError) as raised:
        run(str(moved), backup)

    assert str(moved) in str(raised.value.next_step)


def test_an_unusable_backup_is_refused(tmp_path: Path) -> None:
    """Damage is found before anything is touched, also when the live file is missing."""
    database, backup = old_and_new(tmp_path, "wal")
    Path(backup.path).write_bytes(Path(backup.path).read_bytes()[:-1] + b"!")
    before = everything(tmp_path)
    with pytest.raises(BackupError, match="sha256 differs"):
        run(database, backup)
    assert everything(tmp_path) == before
    Path(backup.path).unlink()
    Path(database).unlink()
    with pytest.raises(BackupError, match="file is missing"):
        run(database, backup)
    assert files(tmp_path) == {"backups"}


@POSIX
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kib", [0, 40, 160, 500, 900])
def test_a_full_disk_leaves_the_old_state(tmp_path: Path, mode: str, kib: int) -> None:
    """Wherever the disk ends, the database is as before (or restored, where it was enough)."""
    database, backup = old_and_new(tmp_path, mode, rows=2000)
    limit = kib * 1024
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    command = [sys.executable, "-c", limited + RESTORE, database, str(tmp_path / "backups"), backup.name]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert content(database) == ("new" if process.returncode else "old")
    assert process.returncode == 0 or "Error: " in process.stderr
    assert "Traceback" not in process.stderr
    assert bool(process.returncode) == (kib < 900)
    assert journal_mode(database) == mode
    run(database, backup)
    assert content(database) == "old"


@POSIX
@pytest.mark.parametrize("mode", MODES)
def test_a_kill_leaves_the_old_state_or_the_new_one(tmp_path: Path, mode: str) -> None:
    """After SIGKILL at moments spread over the whole restore there is never a mixture, and the next run works."""
    database, backup = old_and_new(tmp_path, mode, rows=20_000)
    command = [sys.executable, "-c", RESTORE, database, str(tmp_path / "backups"), backup.name]
    states = []
    for attempt in range(14):
        with subprocess.Popen(command) as process:
            while process.poll() is None and not any(".tmp" in name for name in files(tmp_path / "backups")):
                time.sleep(0.001)
            time.sleep(attempt * 0.03)
            if attempt < 13:
                process.kill()
        states.append(content(database))
        backups.clean_temporary(str(tmp_path / "backups"), ID)
        for saved in backups.listing(str(tmp_path / "backups"), database_id=ID, database_path=database):
            assert content(saved.path) == ("new" if saved.reason == "pre-restore" else "old")
        with opened(database) as connection:
            fill(connection, "new", 20_000)
            connection.execute("CREATE TABLE IF NOT EXISTS since (a)")
    assert set(states) == {"new", "old"}
    assert journal_mode(database) == mode


@POSIX
def test_a_symlinked_database_is_restored_in_its_place(tmp_path: Path) -> None:
    """The link stays a link, and a dangling one gets its target."""
    database, backup = old_and_new(tmp_path, "wal")
    link = tmp_path / "link.db"
    link.symlink_to(database)
    run(str(link), backup)
    assert content(database) == "old"
    Path(database).unlink()
    run(str(link), backup)
    assert link.is_symlink()
    assert content(database) == "old"


def test_an_unusable_folder_for_the_saved_copy_changes_nothing(tmp_path: Path) -> None:
    """Where the present state can't be saved it is not replaced."""
    database, backup = old_and_new(tmp_path, "wal")
    (tmp_path / "file").touch()
    with pytest.raises(BackupError, match="could not be created"):
        run(database, backup, folder=tmp_path / "file")
    assert content(database) == "new"


@POSIX
def test_a_damaged_file_that_is_a_mount_point_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be exchanged, and everything stays; what to do is said."""
    database, backup = old_and_new(tmp_path, "delete")
    Path(database).write_bytes(b"damaged" * 1000)
    mounted = subprocess.run(["mount", "--bind", database, database], check=False, capture_output=True).returncode == 0
    real = os.replace

    def busy(source: Any, target: Any) -> None:
        if os.fspath(target) == database:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fspath(source), None, database)
        real(source, target)

    if not mounted:
        # Only root may mount.
        monkeypatch.setattr(os, "replace", busy)
    before = everything(tmp_path)
    try:
        with pytest.raises(DatabaseUnusableError) as caught:
            run(database, backup)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", database], check=True)
    assert "is a mount point of its own" in caught.value.message
    assert "mount its folder instead of the file" in caught.value.next_step
    assert without_saved_bytes(tmp_path) == before
