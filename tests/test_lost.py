"""A database that is gone is not a new one: what is said, and what its backups are worth afterwards."""

import sqlite3
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_alembic, run_cli, run_forked, url
from vecmigrate.manifests import manifests
from vecmigrate.overview import Status

BOOT = """
import logging, sys, vecmigrate
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
report = vecmigrate.ensure_current("sqlite:///" + sys.argv[1])
print(report.state, "|".join(report.notes))
"""
LOSSES = {"the file is gone": None, "the file is empty": b""}


def identity(path: Path) -> str:
    [(found,)] = legacy.query(path, "SELECT value FROM vecmigrate_meta WHERE key = 'database_id'")
    return str(found)


def lose(path: Path, left: bytes | None = None) -> None:
    """Take a database away as a volume that was not mounted does, with its sidecars."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    if left is not None:
        path.write_bytes(left)


@pytest.fixture
def only_backup(released_file: Path) -> str:
    """Migrate a database with rows; return the name of its only backup at head."""
    vecmigrate.upgrade(url(released_file))
    return vecmigrate.backup(url(released_file)).name


@pytest.fixture(params=list(LOSSES.values()), ids=list(LOSSES))
def lost_file(request: pytest.FixtureRequest, released_file: Path, only_backup: str) -> Path:
    """Return the path of a database that was migrated and is gone."""
    assert only_backup
    lose(released_file, request.param)
    return released_file


def restoring(path: Path, name: str) -> str:
    return f"vecmigrate --db-path {path} restore {name}"


def test_a_boot_says_first_that_there_was_another_database(lost_file: Path, only_backup: str) -> None:
    """The log has one warning with the exact command, before anything else, and the report a note."""
    done = run_forked(BOOT, lost_file)

    first, *others = done.err.splitlines()
    assert restoring(lost_file, only_backup) in first
    assert [] == others
    assert done.out.startswith("migrated ")
    assert restoring(lost_file, only_backup) in done.out


@pytest.mark.parametrize("words", [("migrate",), ("migrate", "--dry-run")])
def test_the_command_line_says_it_once(words: tuple[str, ...], lost_file: Path, only_backup: str) -> None:
    """`migrate` says it before it makes a new database, and its plan says it too."""
    done = run_forked("from vecmigrate.cli import main; main()", "--db-path", lost_file, *words)

    assert 0 == done.code, done.err
    assert 1 == done.err.count(restoring(lost_file, only_backup))


def test_plain_alembic_says_it(lost_file: Path, only_backup: str) -> None:
    """The log of `alembic upgrade` has it before the first revision."""
    done = run_alembic(lost_file, "upgrade", "head")

    assert 0 == done.code, done.err
    assert done.err.index(restoring(lost_file, only_backup)) < done.err.index("000")


@pytest.mark.parametrize(
    "words", [("history",), ("preserved",), ("backup", "create"), ("rollback", "--to-version", "0")], ids=" ".join
)
def test_what_needs_a_database_leads_to_the_backup(words: tuple[str, ...], lost_file: Path, only_backup: str) -> None:
    """The next command of an error is not the one that would make an empty database."""
    done = run_cli("--db-path", lost_file, *words)

    assert 1 == done.code
    assert done.err.rstrip().endswith(f"Next: {restoring(lost_file, only_backup)}")


def test_alembic_current_leads_to_the_backup(lost_file: Path, only_backup: str) -> None:
    """A reader of plain Alembic names the backup too."""
    done = run_alembic(lost_file, "current")

    assert 0 != done.code
    assert restoring(lost_file, only_backup) in done.out + done.err


def test_status_names_the_backup(lost_file: Path, only_backup: str) -> None:
    """`status` of an absent database tells the exact command."""
    found: Status = vecmigrate.status(url(lost_file))

    assert "absent" == found.state
    assert [True] == [note.endswith(restoring(lost_file, only_backup)) for note in found.notes]


def test_the_new_database_is_another_one(lost_file: Path) -> None:
    """It gets an identity of its own, which none of the backups has."""
    folder = lost_file.parent / "backups"
    before = {each.database_id for each, _ in manifests(str(folder)) if each}

    vecmigrate.ensure_current(url(lost_file), on_failure="raise")

    assert set() == before & {identity(lost_file)}


def test_rotation_never_removes_the_backup_of_an_earlier_database(
    lost_file: Path, only_backup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many backups the new database gets, the only one with the old rows stays."""
    monkeypatch.setenv("VECMIGRATE_KEEP_BACKUPS", "2")
    vecmigrate.ensure_current(url(lost_file), on_failure="raise")
    for _ in range(4):
        vecmigrate.backup(url(lost_file))
    assert 0 == run_cli("--db-path", lost_file, "backup", "prune", "--keep", "1").code

    assert (lost_file.parent / "backups" / only_backup).exists()


def test_the_command_that_was_told_gives_the_rows_back(lost_file: Path, only_backup: str) -> None:
    """Also after the new database was made: it is moved aside, and the backup restored."""
    vecmigrate.ensure_current(url(lost_file), on_failure="raise")
    lose(lost_file)

    assert 0 == run_cli("--db-path", lost_file, "restore", only_backup).code
    assert 156 == len(legacy.rows(lost_file, "vector_stores"))


def test_a_file_that_the_service_made_anew_is_another_database_too(lost_file: Path, only_backup: str) -> None:
    """A service makes its own tables before it calls us: the file is there, and still not the one of the backups."""
    folder = lost_file.parent / "backups"
    before = {each.database_id for each, _ in manifests(str(folder)) if each}
    legacy.execute(lost_file, "CREATE TABLE sessions (id)")

    report = vecmigrate.ensure_current(url(lost_file), on_failure="raise")

    assert set() == before & {identity(lost_file)}
    assert [True] == [restoring(lost_file, only_backup) in note for note in report.notes]


def test_backups_made_by_hand_before_the_first_run_stay_those_of_the_database(released_file: Path) -> None:
    """Their identity is only in the folder until a run writes it into the database, and goes on then."""
    made = vecmigrate.backup(url(released_file))

    report = vecmigrate.upgrade(url(released_file))

    assert made.database_id == identity(released_file)
    assert [] == report.notes


def test_a_new_place_is_told_nothing(tmp_path: Path) -> None:
    """Where there are no backups of the path, or only those of another one, a new database is a new one."""
    other = tmp_path / "other.sqlite3"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    vecmigrate.backup(url(other))

    assert [] == vecmigrate.upgrade(url(tmp_path / "service.sqlite3")).notes


def test_a_new_database_is_told_too_where_no_backup_of_the_old_one_is_sound(lost_file: Path) -> None:
    """There is nothing to restore then, and all the more reason to look before anything is built on the new one."""
    for backup in (lost_file.parent / "backups").glob("*.sqlite3"):
        backup.write_bytes(backup.read_bytes()[:4096])

    done = run_forked("from vecmigrate.cli import main; main()", "--db-path", lost_file, "migrate")

    assert 0 == done.code
    assert 1 == done.err.count("none of them is sound")
    assert f"vecmigrate --db-path {lost_file} backup verify" in done.err


def test_a_rollback_of_no_database_says_so(tmp_path: Path) -> None:
    """It is no database at base."""
    done = run_cli("--db-path", tmp_path / "typo.sqlite3", "rollback", "--to-version", "0")

    assert (1, True) == (done.code, "does not exist" in done.err)
