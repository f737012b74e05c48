"""Bad input: a clear message, the right exit code, the next command, and nothing changed, at every door."""

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError

import legacy
import vecmigrate
from doors import ROOT, Result, run_alembic, run_cli, run_forked, url
from ladder import HEAD, NEWEST, NEXT, REVISIONS
from vecmigrate import engine, errors

ALEMBICS_OWN = 255
SQLITE_SIDECARS = ("-wal", "-shm")


@dataclass(frozen=True)
class Case:
    """A bad database: how it comes about, and how it is told of. ``{path}`` and ``{folder}`` are filled in."""

    prepare: Callable[[Path], None]
    error: type[errors.VecmigrateError]
    message: tuple[str, ...]
    next_step: str


def _released(*statements: str) -> Callable[[Path], None]:
    def prepare(path: Path) -> None:
        legacy.build(path, "legacy")
        legacy.execute(path, *statements)

    return prepare


def _text(path: Path) -> None:
    path.write_text("This is a text file, and long enough to be no empty one.\n" * 100, encoding="utf-8")


def _truncated(path: Path) -> None:
    legacy.build(path, "legacy")
    os.truncate(path, path.stat().st_size // 2)


def _garbled(path: Path) -> None:
    legacy.build(path, "legacy")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)


def _in_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def _encrypted(path: Path) -> None:
    # SQLCipher encrypts the header too: nothing of the file can be told from dice.
    path.write_bytes(random.Random(1).randbytes(16 * 1024))  # noqa: S311 - it must be the same each time


def _newer(path: Path) -> None:
    legacy.build(path, "legacy")
    vecmigrate.upgrade(url(path), backup="never")
    legacy.execute(
        path,
        "UPDATE vecmigrate_version SET version_num = '907'",
        "UPDATE vecmigrate_meta SET value = '93.1.0' WHERE key IN ('app_version', 'compatible_from')",
    )


def _by_hand(path: Path) -> None:
    legacy.build(path, "legacy")
    vecmigrate.upgrade(url(path), backup="never")
    legacy.execute(path, "UPDATE vecmigrate_version SET version_num = '999'", "DELETE FROM vecmigrate_meta")


CASES = {
    "text file": Case(
        _text, errors.DatabaseUnusableError, ("{path} is not an SQLite database",), "vecmigrate --db-path FILE status"
    ),
    "encrypted": Case(
        _encrypted,
        errors.DatabaseUnusableError,
        ("{path} is not an SQLite database", "encrypted one, as SQLCipher makes them"),
        "vecmigrate --db-path FILE status",
    ),
    "truncated": Case(
        _truncated, errors.DatabaseUnusableError, ("{path} is damaged",), "vecmigrate --db-path {path} backup list"
    ),
    "garbled": Case(
        _garbled, errors.DatabaseUnusableError, ("{path} is damaged",), "vecmigrate --db-path {path} restore NAME"
    ),
    "directory": Case(
        Path.mkdir, errors.DatabaseUnusableError, ("{path} is a directory",), "vecmigrate --db-path FILE status"
    ),
    "a folder that is a file": Case(
        _in_a_file,
        errors.DatabaseUnusableError,
        ("{path}",),
        "{folder}",
    ),
    "no folder": Case(
        lambda path: path.parent.rmdir(),
        errors.DatabaseUnusableError,
        ("{path}", "folder"),
        "create {folder}",
    ),
    "unknown revision": Case(
        _newer,
        errors.AheadError,
        ("revision 907", "app version 93.1.0", "must not run on it"),
        "install app version 93.1.0, or go back: vecmigrate --db-path {path} rollback",
    ),
    "two revisions": Case(
        _released(
            "CREATE TABLE vecmigrate_version (version_num VARCHAR(32) NOT NULL)",
            "INSERT INTO vecmigrate_version VALUES ('000'), ('001')",
        ),
        errors.NeedsPersonError,
        ("vecmigrate_version names 2 revisions",),
        "DELETE FROM vecmigrate_version",
    ),
    "a revision that is no text": Case(
        _released(
            "CREATE TABLE vecmigrate_version (version_num)",
            "INSERT INTO vecmigrate_version VALUES (x'00ff')",
        ),
        errors.NeedsPersonError,
        ("vecmigrate_version holds no revision",),
        "vecmigrate --db-path {path} backup list",
    ),
    "no revision in its row": Case(
        _released(
            "CREATE TABLE vecmigrate_version (version_num VARCHAR(32))",
            "INSERT INTO vecmigrate_version VALUES (NULL)",
        ),
        errors.NeedsPersonError,
        ("vecmigrate_version holds no revision",),
        "restore NAME",
    ),
    "a revision that nobody has": Case(
        _by_hand,
        errors.AheadError,
        ("revision 999", "must not run on it"),
        "install the app version that has revision 999, or go back",
    ),
    "a table of our name": Case(
        _released("CREATE TABLE embedding_models (id INTEGER, label TEXT)"),
        errors.NotOursError,
        ("embedding_models has the unknown columns id, label", "lacks the columns"),
        "rename these objects",
    ),
    "a column more": Case(
        _released("ALTER TABLE vector_stores ADD COLUMN mine TEXT"),
        errors.NotOursError,
        ("vector_stores has the unknown columns mine",),
        "rename these objects",
    ),
    "a view of our name": Case(
        _released("CREATE VIEW vector_store_chunks AS SELECT 1 AS chunk_id"),
        errors.NotOursError,
        ("vector_store_chunks is a view",),
        "rename these objects",
    ),
    "a version table that is not ours": Case(
        _released("CREATE TABLE vecmigrate_version (note TEXT)"),
        errors.NotOursError,
        ("vecmigrate_version lacks the columns version_num",),
        "rename these objects",
    ),
    "a foreign key onto the primary key": Case(
        _released("CREATE TABLE files (id INTEGER, session TEXT REFERENCES vector_stores)"),
        errors.NotOursError,
        ("the foreign key of files.session onto vector_stores",),
        "drop them",
    ),
    "a view over a column that goes": Case(
        _released("CREATE VIEW guarded AS SELECT session_id FROM vector_stores WHERE protected = 1"),
        errors.NotOursError,
        ("the view guarded",),
        "drop them",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, inside one that is the current one and holds no alembic.ini."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "service"
    path.mkdir()
    return path


def untouched(folder: Path) -> dict[str, tuple[int | str, ...]]:
    """Return everything in and beside a folder, without what SQLite itself keeps beside a database for a while."""
    present = legacy.tree(folder.parent)
    return {
        name: facts if (folder.parent / name).is_file() else (facts[0],)
        for name, facts in present.items()
        if not name.endswith(SQLITE_SIDECARS)
    }


def told(text: str, case: Case, path: Path) -> list[str]:
    """Return what a text should tell and does not."""
    wanted = [*case.message, case.next_step, "Nothing was changed"]
    filled = [each.format(path=path, folder=path.parent) for each in wanted]
    return [each for each in filled if each not in text]


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_refuses_a_bad_database(name: str, folder: Path) -> None:
    """migrate, its plan and rollback end with the code of the error, no traceback, and nothing changed."""
    case, path = CASES[name], folder / "sessions.sqlite3"
    case.prepare(path)
    before = untouched(folder)
    result = run_cli("--db-path", path, "migrate", "--json")
    error = result.document["error"]
    assert (case.error.exit_code, case.error.__name__) == (result.code, error["type"])
    assert [] == told(f"{error['message']}\n{error['next']}", case, path)
    assert [] == told(result.err, case, path)
    assert "Traceback" not in result.err
    assert before == untouched(folder)
    for words in (("rollback", "--to-version", "base"), ("migrate", "--force"), ("backup", "list"), ("status",)):
        other = run_cli("--db-path", path, *words)
        assert (words, True) == (words, other.code in {0, 1, 6})
        assert "Traceback" not in other.err
        assert (words, before) == (words, untouched(folder))


@pytest.mark.parametrize("name", CASES)
def test_a_service_gets_an_error_it_can_show(name: str, folder: Path) -> None:
    """The function raises the error with message and next step; ensure_current reports the same one."""
    case, path = CASES[name], folder / "sessions.sqlite3"
    case.prepare(path)
    before = untouched(folder)
    with pytest.raises(case.error) as caught:
        vecmigrate.upgrade(url(path))
    assert [] == told(str(caught.value), case, path)
    report = vecmigrate.ensure_current(url(path))
    assert (False, case.error) == (report.usable, type(report.error))
    with pytest.raises(CommandError) as through_alembic:
        command.upgrade(vecmigrate.alembic_config(url(path)), "head")
    assert [] == told(str(through_alembic.value), case, path)
    assert before == untouched(folder)


@pytest.mark.parametrize(
    "name",
    ["text file", "truncated", "directory", "no folder", "unknown revision", "a foreign key onto the primary key"],
)
def test_the_alembic_command_refuses_a_bad_database(name: str, folder: Path) -> None:
    """It prints the message and the next command, no traceback, and exits with Alembic's own code."""
    case, path = CASES[name], folder / "sessions.sqlite3"
    case.prepare(path)
    before = untouched(folder)
    result = run_alembic(path, "upgrade", "head")
    assert ALEMBICS_OWN == result.code
    assert [] == told(result.err + result.out, case, path)
    assert "Traceback" not in result.err
    assert before == untouched(folder)


# Permissions.

UNPRIVILEGED = """
import ctypes, os, sys
if os.geteuid() == 0:
    # Root passes every check of permissions, by capabilities that it can give up.
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
if sys.argv[1] == "alembic":
    from alembic.config import main
    main(sys.argv[2:])
else:
    from vecmigrate.cli import main
    main()
"""


def run_unprivileged(door: str, path: Path) -> Result:
    """Migrate through a door in a process that permissions bind."""
    if door == "alembic":
        words = ("alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head")
        return run_forked(UNPRIVILEGED, *words, environ={"VECMIGRATE_DATABASE_URL": url(path)})
    return run_forked(UNPRIVILEGED, "--db-path", path, "migrate", "--json")


@pytest.mark.parametrize("door", ["cli", "alembic"])
@pytest.mark.parametrize(
    ("what", "mode", "message"),
    [
        ("file", 0o000, "{path} cannot be opened (permissions?)"),
        ("file", 0o444, "{path} is read-only"),
        ("folder", 0o555, "{folder}"),
        ("folder", 0o000, "{path} cannot be opened (permissions?)"),
    ],
)
def test_a_database_that_may_not_be_changed_is_refused(
    door: str, what: str, mode: int, message: str, folder: Path
) -> None:
    """An unreadable or read-only file or folder is named, with what to do, and stays as it is."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    legacy.execute(path, "PRAGMA journal_mode = delete")
    before = untouched(folder)
    forbidden = path if what == "file" else folder
    allowed = forbidden.stat().st_mode
    forbidden.chmod(mode)
    try:
        result = run_unprivileged(door, path)
    finally:
        forbidden.chmod(allowed)
    assert (1 if door == "cli" else ALEMBICS_OWN) == result.code
    assert message.format(path=path, folder=folder) in result.err
    assert "Next: " in result.err
    assert "writable" in result.err
    assert "Traceback" not in result.err
    assert before == untouched(folder)


@pytest.mark.parametrize(("what", "mode"), [("file", 0o444), ("folder", 0o555), ("backups", 0o555)])
def test_a_restore_without_permission_names_what_lacks_it(what: str, mode: int, folder: Path) -> None:
    """The file, its folder or the folder of the backups: told apart, and everything stays as it is."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    legacy.execute(path, "PRAGMA journal_mode = delete")
    name = vecmigrate.backup(url(path)).name
    forbidden = {"file": path, "folder": folder, "backups": folder / "backups"}[what]
    before, allowed = untouched(folder), forbidden.stat().st_mode
    forbidden.chmod(mode)
    try:
        result = run_forked(UNPRIVILEGED, "--db-path", path, "restore", name)
    finally:
        forbidden.chmod(allowed)

    assert 1 == result.code
    assert f"Next: make {forbidden} readable and writable" in result.err
    assert before == untouched(folder)


def test_a_folder_of_backups_that_cannot_be_read_is_named(folder: Path) -> None:
    """Nobody is told that there is no backup; the status, which is about the database, goes on with a note."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    vecmigrate.upgrade(url(path))
    (folder / "backups").chmod(0)
    try:
        results = [run_forked(UNPRIVILEGED, "--db-path", path, "backup", word) for word in ("list", "verify", "prune")]
        status = run_forked(UNPRIVILEGED, "--db-path", path, "status")
    finally:
        (folder / "backups").chmod(0o700)

    for result in results:
        assert 1 == result.code
        assert f"The backup folder {folder / 'backups'} cannot be read" in result.err
    assert 0 == status.code
    assert "cannot be read" in status.out + status.err


# Configuration.


def test_no_database_is_an_error_that_says_how_to_name_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each door says so, and no file comes into being."""
    monkeypatch.chdir(folder)
    ini = folder / "alembic.ini"
    result = run_cli("migrate", "--json")
    assert (1, "ConfigurationError") == (result.code, result.document["error"]["type"])
    assert "vecmigrate --db-path FILE status" in result.document["error"]["next"]
    with pytest.raises(errors.ConfigurationError, match="No database is configured"):
        vecmigrate.upgrade()
    report = vecmigrate.ensure_current()
    assert (False, errors.ConfigurationError) == (report.usable, type(report.error))

    ini.write_text(f"[alembic]\nscript_location = {ROOT / 'alembic'}\n[vecmigrate]\n", encoding="utf-8")
    before = untouched(folder)
    alembic = run_alembic(None, "upgrade", "head", ini=ini)
    assert (ALEMBICS_OWN, True) == (alembic.code, "No database is configured" in alembic.out)
    assert before == untouched(folder)


INI = """
[alembic]
script_location = {scripts}
[vecmigrate]
database_url = sqlite:///{path}
{line}
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lock_timeout = soon", "lock_timeout is 'soon', and must be a number"),
        ("lock_timeout = -1", "lock_timeout is '-1', and must be a number not below 0"),
        ("lock_timeout = nan", "lock_timeout is 'nan'"),
        ("keep_backups = 0", "keep_backups is '0', and must be a number not below 1"),
        ("keep_backups = 2.5", "keep_backups is '2.5', and must be a number"),
        ("backup = sometimes", "backup is 'sometimes', and must be one of auto, always, never"),
        ("backup_folder = x", "settings that do not exist: backup_folder"),
        ("history_file = 100%", "not a valid ini file"),
        ("history_file = a\nhistory_file = b", "not a valid ini file"),
        ("just words", "not a valid ini file"),
    ],
)
def test_a_malformed_setting_is_named_with_its_file(line: str, message: str, folder: Path) -> None:
    """The error names the file and the setting, before any database is opened."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    ini = folder / "alembic.ini"
    ini.write_text(INI.format(scripts=ROOT / "alembic", path=path, line=line), encoding="utf-8")
    before = untouched(folder)
    result = run_cli("--config", ini, "migrate", "--json")
    assert (1, "ConfigurationError") == (result.code, result.document["error"]["type"])
    for part in (message, str(ini), "Nothing was changed", "Next: correct"):
        assert part in result.err
    assert before == untouched(folder)


def test_the_alembic_command_names_a_malformed_setting(folder: Path) -> None:
    """It comes from the same place, so the message is the same."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    ini = folder / "alembic.ini"
    text = INI.format(scripts=ROOT / "alembic", path=path, line="lock_timeout = soon")
    ini.write_text(text, encoding="utf-8")
    before = untouched(folder)
    result = run_alembic(None, "upgrade", "head", ini=ini)
    assert (ALEMBICS_OWN, True) == (result.code, "lock_timeout is 'soon', and must be a number" in result.out)
    assert before == untouched(folder)


@pytest.mark.parametrize(("name", "value"), [("LOCK_TIMEOUT", "soon"), ("KEEP_BACKUPS", "many"), ("BACKUP", "perhaps")])
def test_a_malformed_variable_is_named(name: str, value: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which variable it is, for the command line and for a service."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    monkeypatch.setenv(f"VECMIGRATE_{name}", value)
    before = untouched(folder)
    result = run_cli("--db-path", path, "migrate")
    assert (1, True) == (result.code, f"VECMIGRATE_{name} is {value!r}" in result.err)
    with pytest.raises(errors.ConfigurationError, match=f"VECMIGRATE_{name} is {value!r}"):
        vecmigrate.upgrade(url(path))
    assert before == untouched(folder)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", "The database URL is not one"),
        ("mysql+pymysql://user:canary@host/name", "mysql is not supported"),
        ("sqlite+nothing:///x", "The SQLite driver nothing is not supported"),
        ("postgresql://user:canary@127.0.0.1:1/name", "cannot be reached"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(given: str, message: str, folder: Path) -> None:
    """It is exit code 1 with a next step, and a password in it is not shown."""
    result = run_cli("--database-url", given, "status", "--json")
    assert (1, True) == (result.code, bool(result.document["error"]["next"]))
    assert message in result.err
    assert "Nothing was changed" in result.err
    assert "canary" not in result.err + result.out
    assert [] == list(folder.iterdir())


# Targets.


@pytest.mark.parametrize(
    "target",
    ["999", NEXT, "nonsense", "-1", f"+{len(REVISIONS) + 1}", "", "1.2.2.x", "0.0.0.dev1", "head~1", "1; DROP"],
)
def test_an_unknown_target_is_refused(target: str, folder: Path) -> None:
    """The command line and the function name it and say how to see those that exist."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    before = untouched(folder)
    for words in (("migrate", "--target", target), ("migrate", "--target", target, "--dry-run")):
        result = run_cli("--db-path", path, *words, "--json")
        assert (1, "TargetError") == (result.code, result.document["error"]["type"])
        assert target in result.document["error"]["message"]
        assert "vecmigrate versions" == result.document["error"]["next"]
    with pytest.raises(errors.TargetError):
        vecmigrate.upgrade(url(path), target)
    assert before == untouched(folder)


@pytest.mark.parametrize("target", ["9" * 5000, "+" + "9" * 5000, "1." + "9" * 5000])
@pytest.mark.parametrize("option", ["--target", "--version"])
def test_a_target_of_thousands_of_digits_is_refused(option: str, target: str, folder: Path) -> None:
    """Python reads no such number; that is no unexpected error."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    result = run_cli("--db-path", path, "migrate", option, target, "--json")
    assert (1, "TargetError") == (result.code, result.document["error"]["type"])


@pytest.mark.parametrize("target", [str(int(HEAD)), "head", NEWEST, "+1"])
def test_a_rollback_does_not_go_up(target: str, folder: Path) -> None:
    """A target above the database is refused, with the command that goes there."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    vecmigrate.upgrade(url(path), "1")
    before = untouched(folder)
    result = run_cli("--db-path", path, "rollback", "--to-version", target, "--json")
    assert (1, "TargetError") == (result.code, result.document["error"]["type"])
    assert f"vecmigrate --db-path {path} migrate --target {target}" == result.document["error"]["next"]
    with pytest.raises(errors.TargetError, match="above 001"):
        vecmigrate.rollback(url(path), to_version=target)
    assert before == untouched(folder)


@pytest.mark.parametrize("target", ["909", "nonsense", "-900", "1.x"])
def test_a_rollback_to_an_unknown_target_is_refused(target: str, folder: Path) -> None:
    """Whether by script or from a backup."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    vecmigrate.upgrade(url(path))
    before = untouched(folder)
    for more in ((), ("--dry-run",), ("--from-backup",)):
        result = run_cli("--db-path", path, "rollback", "--to-version", target, *more, "--json")
        assert (1, "TargetError") == (result.code, result.document["error"]["type"])
    assert before == untouched(folder)


@pytest.mark.parametrize("words", [("upgrade", "999"), ("downgrade", HEAD), ("downgrade", "nonsense")])
def test_the_alembic_command_refuses_a_bad_target(words: tuple[str, str], folder: Path) -> None:
    """It says so in Alembic's own words, and nothing is changed."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    vecmigrate.upgrade(url(path), "1")
    before = untouched(folder)
    result = run_alembic(path, *words)
    assert (ALEMBICS_OWN, True) == (result.code, words[1] in result.err)
    assert "Traceback" not in result.err
    assert before == untouched(folder)


# SQLite itself.


def test_an_old_sqlite_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the version that is there and the floor, at every door in this process."""
    path = legacy.build(folder / "sessions.sqlite3", "legacy")
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 33, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.33.0")
    before = untouched(folder)
    for words in (("migrate",), ("status",), ("rollback", "--to-version", "0"), ("backup", "create")):
        result = run_cli("--db-path", path, *words, "--json")
        assert (1, "ConfigurationError") == (result.code, result.document["error"]["type"])
        assert "SQLite 3.33.0 is too old: 3.34.0 or newer is needed" in result.err
    with pytest.raises(errors.ConfigurationError, match=r"SQLite 3\.33\.0 is too old"):
        vecmigrate.upgrade(url(path))
    with pytest.raises(CommandError, match=r"SQLite 3\.33\.0 is too old"):
        command.upgrade(vecmigrate.alembic_config(url(path)), "head")
    assert before == untouched(folder)


def test_the_floor_is_the_one_in_the_readme() -> None:
    """Users are told the version that the code asks for."""
    floor = ".".join(map(str, engine.SQLITE_FLOOR[:2]))
    assert f"SQLite {floor} or newer" in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_a_python_without_venv_is_told_what_to_install(tmp_path: Path) -> None:
    """The README's commands say so, exit with an error, and do not go on."""
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'No module named venv' >&2\nexit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert 2 == len(commands)
    for line in commands:
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=tmp_path,
            env={"PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (1, True) == (done.returncode, "apt install python3-venv" in done.stderr)
        assert ["bin"] == [path.name for path in tmp_path.iterdir()]


def test_a_server_without_its_driver_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL is an extra, and who has not installed it is told so."""
    for name in [each for each in sys.modules if each.partition(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)

    result = run_cli("--database-url", "postgresql://a/b", "status", "--json")

    assert 1 == result.code
    assert "The driver of the database URL is not installed: psycopg." in result.document["error"]["message"]
    assert "pip install 'vecmigrate[postgres]'" == result.document["error"]["next"]
