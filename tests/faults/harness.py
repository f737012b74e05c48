"""Processes that are killed, stopped and starved, and what must be true of a database afterwards.

A child is forked from a server that has everything imported, so that hundreds of real processes cost little.
"""

import contextlib
import ctypes
import hashlib
import json
import marshal
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

import alembic.config
import sqlalchemy as sa
from alembic import command

import legacy
import vecmigrate
from doors import ROOT
from ladder import REVISIONS, above
from processes import FORKSERVER
from vecmigrate import backups, cli, history, manifests, mirror

ROUNDS = max(1, int(os.environ.get("VECMIGRATE_FAULT_ROUNDS", "3")))
DOORS = ("cli", "alembic", "command", "service")
MODES = ("wal", "delete")

_FILE_EVENTS = {"open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.truncate"}


# What was tried, for docs/reliability.md.

outcomes: dict[tuple[str, str], Counter[str]] = {}


def tried(kind: str, what: str, outcome: str) -> None:
    """Count a round whose outcome was as it must be."""
    outcomes.setdefault((kind, what), Counter())[outcome] += 1


# Children.


@dataclass
class Child:
    """A process, and the file that gets all that it prints."""

    process: ForkServerProcess
    log: Path

    def wait(self, timeout: float = 60) -> int:
        """Return the exit code, negative for a signal; a process that hangs is killed, and fails the test."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.kill()
        assert code is not None, f"still running after {timeout} s"
        return code

    def kill(self) -> int:
        self.process.kill()
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def await_output(self, text: str, timeout: float = 30) -> None:
        wait_until(lambda: text in self.output, timeout)

    def await_open(self, file: Path) -> None:
        """Wait until the process has had a file open for a moment, which it waits for."""
        if sys.platform == "linux":
            wait_until(lambda: str(file) in self._files())
        else:
            time.sleep(2)
        time.sleep(0.3)

    def _files(self) -> set[str]:
        with contextlib.suppress(OSError):
            return {os.path.realpath(each) for each in Path(f"/proc/{self.process.pid}/fd").iterdir()}
        return set()

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def start(action: Callable[..., Any], *arguments: Any, environ: Mapping[str, str] | None = None) -> Child:
    """Start a process that calls a function of a module."""
    descriptor, name = tempfile.mkstemp(suffix=".log")
    os.close(descriptor)
    process = FORKSERVER.Process(target=_enter, args=(name, dict(environ or {}), action, arguments))
    process.start()
    return Child(process, Path(name))


def _enter(log: str, environ: dict[str, str], action: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environ)
    action(*arguments)


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def go(door: str, database: str, target: str = "head") -> None:
    """Upgrade through a door, in the way and with the exit code of its users."""
    if door == "cli":
        run_cli("--db-path", database, "migrate", "--target", target)
    elif door == "alembic":
        run_alembic(database, "upgrade", target)
    elif door == "command":
        command.upgrade(vecmigrate.alembic_config(f"sqlite:///{database}"), target)
    else:
        vecmigrate.ensure_current(f"sqlite:///{database}", on_failure="raise")


def run_cli(*words: str) -> NoReturn:
    sys.argv = ["vecmigrate", *words]
    cli.main()
    raise AssertionError


def run_alembic(database: str, *words: str) -> None:
    os.environ["VECMIGRATE_DATABASE_URL"] = f"sqlite:///{database}"
    alembic.config.main(argv=["-c", str(ROOT / "alembic.ini"), *words], prog="alembic")


def die_at(step: int, folder: str, noted: str, action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function and die at its n-th step: an SQL statement on a file, or a change of a file in a folder.

    The code under test is as it is: SQLite itself tells of statements, and Python's audit events of files.
    With 0 nobody dies, and what the steps are is written into the file ``noted``, one in a line.
    """
    steps: list[str] = []
    connect = sqlite3.connect

    def point(what: str) -> None:
        steps.append(what.strip().partition("\n")[0])
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(database: str, *details: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(database, *details, **options)
        if ":memory:" not in database:
            connection.set_trace_callback(point)
        return connection

    def audit(event: str, details: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS and str(details[0]).startswith(folder):
            point(f"{event} {details[0]}")

    sqlite3.connect = traced  # type: ignore[assignment]
    sys.addaudithook(audit)
    try:
        action(*arguments)
    finally:
        found = list(steps)
        Path(noted).write_text("\n".join(found), encoding="utf-8")


_MOMENTS = (
    ("before the lock is taken", r"BEGIN IMMEDIATE", 0),
    ("when the lock is held", r"BEGIN IMMEDIATE", 1),
    ("when the marker is there", r"os\.rename .*\.run-.*", 1),
    ("when the file of the backup is there", r"open .*/backups/\.\w+\.\w+\.tmp", 1),
    ("when the pages are copied", r"PRAGMA journal_mode=DELETE", 0),
    ("before the backup gets its name", r"os\.link .*", 0),
    ("when it has its name and no manifest yet", r"os\.link .*", 1),
    ("when the backup is complete", r"os\.rename .*/backups/.*", 1),
    ("when revision 000 has run", r"INSERT INTO vecmigrate_version .*", 0),
    *((f"when revision {each} has run", rf"UPDATE vecmigrate_version .*'{each}'.*", 0) for each in above("000")),
    ("before the commit", r"COMMIT", 0),
    ("after the commit", r"COMMIT", 1),
    ("before the mirror gets its name", r"os\.rename .*migrations\.json.*", 0),
    ("when the mirror has its name", r"os\.rename .*migrations\.json.*", 1),
)


def moments(steps: Sequence[str]) -> dict[int, str]:
    """Return the steps of a run that have a name: the first that matches, or the one after it."""
    found = {}
    for name, pattern, after in _MOMENTS:
        matching = (number for number, step in enumerate(steps, 1) if re.fullmatch(pattern, step))
        found[next(matching) + after] = name
    return found


def limited(kib: int, action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function while no file may grow beyond a size, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, resource.RLIM_INFINITY))
    action(*arguments)


def bound_by_modes(action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in a process that the modes of files bind, also where the suite runs as root.

    Without its capabilities (capset(2), version 3 of its structures), root may do what the owner of a file may do.
    Another user would not do: a checkout that only its owner can read would then be the obstacle.
    """
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) != 0:
            raise OSError(ctypes.get_errno(), "capset")
    action(*arguments)


# Databases.


def big_legacy(path: Path, mode: str, rows: int = 12_000) -> Path:
    """Make a released database with so many rows that a run has bytes in its journal or WAL for a while."""
    legacy.build(path, "released")
    with legacy.opened(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("BEGIN")
        columns = "vector_store_id, session_id, provider, provider_metadata, created_at, expires_at, updated_at"
        connection.executemany(
            f"INSERT INTO vector_stores ({columns}) VALUES (?, ?, 'hnsw', ?, 1, 2, 3)",
            ((f"vs-{n:06d}", f"big-{n:06d}", '{"note": "' + "x" * 150 + '"}') for n in range(rows)),
        )
        connection.execute("COMMIT")
    return path


@dataclass(frozen=True)
class Subject:
    """A database to be broken, as made once, with what it must hold when it is not or fully migrated."""

    template: Path
    before: str
    after: str

    @classmethod
    def of(cls, template: Path) -> "Subject":
        with tempfile.TemporaryDirectory() as folder:
            migrated = Path(shutil.copy(template, folder))
            before = contents(migrated)
            vecmigrate.upgrade(f"sqlite:///{migrated}")
            return cls(template, before, contents(migrated))

    def copy(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        return Path(shutil.copy(self.template, folder / "sessions.sqlite3"))

    def state(self, database: Path) -> str:
        """Return ``old`` or ``new``; anything else is a mixture and fails.

        Looked at in a copy, so that the next run finds the journal or WAL as the kill has left it.
        """
        with looked_at(database) as copied:
            found = contents(copied)
        assert found in {self.before, self.after}, f"neither the old state nor the new one:\n{found}"
        return "old state" if found == self.before else "new state"


@contextlib.contextmanager
def looked_at(database: Path) -> Iterator[Path]:
    """Give a copy of a database, with its journal or WAL, so that the next run finds those as they are."""
    with tempfile.TemporaryDirectory() as folder:
        for each in database.parent.glob(f"{database.name}*"):
            shutil.copy(each, folder)
        copied = Path(folder) / database.name
        assert [("ok",)] == legacy.query(copied, "PRAGMA integrity_check")
        yield copied


def contents(database: Path) -> str:
    """Return what all objects and rows are, but for the history, the identity, and the time of the run."""
    with legacy.opened(database) as connection:
        connection.text_factory = bytes
        objects = connection.execute(
            "SELECT CAST(type AS TEXT), tbl_name, name, coalesce(sql, '') FROM sqlite_master "
            "WHERE tbl_name NOT IN ('vecmigrate_history', 'vecmigrate_meta') ORDER BY 1, 3"
        ).fetchall()
        lines = [f"{kind.decode()} {name.decode()} {sql.decode()}" for kind, _, name, sql in objects]
        for kind, _, name, _ in objects:
            if kind == b"table":
                lines.append(f"{name.decode()}: {_digest(connection, name.decode())}")
    return "\n".join(lines)


def require_explained(output: str) -> None:
    """Fail if an error came through without having been understood."""
    assert "Traceback" not in output
    assert "Unexpected" not in output


def contents_or_bytes(database: Path) -> object:
    """Return the contents, or where they cannot be read as text the file itself."""
    try:
        return contents(database)
    except (sqlite3.Error, UnicodeError):
        return database.read_bytes()


def _digest(connection: sqlite3.Connection, table: str) -> str:
    volatile = {b"activated_at", b"id", b"preserved_at"}
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")') if row[1] not in volatile]
    listed = ", ".join(f'"{name.decode()}"' for name in columns)
    rows = sorted(marshal.dumps(row, 2) for row in connection.execute(f'SELECT {listed} FROM "{table}"'))
    return f"{len(rows)} rows {hashlib.sha256(b''.join(rows)).hexdigest()[:16]}"


# What must be true afterwards.


def url(database: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(database))


def statuses(database: Path) -> list[object]:
    return [row[0] for row in legacy.query(database, "SELECT status FROM vecmigrate_history ORDER BY id")]


def mirror_entries(database: Path) -> list[dict[str, Any]]:
    document = json.loads(database.with_suffix(".migrations.json").read_text(encoding="utf-8"))
    entries: list[dict[str, Any]] = document["migrations"]
    return entries


def table_entries(database: Path) -> list[dict[str, Any]]:
    """Return the entries that the table says the mirror must hold."""
    found = vecmigrate.migrator.Migrator(vecmigrate.settings.resolve({"database_url": url(database)}, {}))
    return [mirror.entry_of(attempt) for attempt in found.attempts()]


def backup_files(database: Path) -> list[Path]:
    return sorted((database.parent / "backups").glob("*.sqlite3"))


def require_tidy(database: Path) -> None:
    """Fail if anything stands beside a database but mirror and backups, each backup whole and verified."""
    kept = {database.name, database.with_suffix(".migrations.json").name, "backups"}
    sidecars = {f"{database.name}-wal", f"{database.name}-shm"}
    beside = {each.name for each in database.parent.iterdir()} - sidecars
    assert beside <= kept
    assert table_entries(database) == mirror_entries(database)
    require_whole_backups(database)


def require_whole_backups(database: Path) -> None:
    """Fail if a file in the backup folder is neither part of a verified backup nor the bytes of a damaged database."""
    folder = database.parent / "backups"
    files = {each.name for each in folder.iterdir()} if folder.exists() else set()
    expected = {name for name in files if "-damaged.sqlite3" in name}
    for backup, name in manifests.manifests(str(folder)):
        assert backup is not None
        backups.verify(backup)
        expected |= {name, backup.name}
    assert expected == files - {".gitignore"}, sorted(expected ^ files)


def has_begun(database: Path) -> bool:
    """Tell whether a killed run left a complete marker, and thus has to be reported."""
    return any(marker.steps for marker in history.markers(str(database)))


def journal_bytes(database: Path) -> int:
    """Return how many bytes stand in journal and WAL."""
    files = (database.with_name(database.name + suffix) for suffix in ("-wal", "-journal"))
    return sum(each.stat().st_size for each in files if each.exists())


def next_run(subject: Subject, database: Path) -> None:
    """Run again, and require that it succeeds by itself, tells of the killed run, and leaves nothing behind."""
    state, begun = subject.state(database), has_begun(database)
    vecmigrate.upgrade(url(database))
    assert subject.after == contents(database)
    killed = ["interrupted"] if state == "old state" and begun else []
    assert [*killed, *["success"] * len(REVISIONS)] == statuses(database)
    require_tidy(database)


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[bool]:
    """Give a folder a disk of its own of a size; False where only root may, and this is not root."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={kib}k,mode=0755"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
