"""What this process lacks of a service's SQLite is no damage: told as what it is, and worked around where it can be."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli, url
from ladder import HEAD
from vecmigrate import soundness, sqlite_files, verification
from vecmigrate.errors import DatabaseUnusableError

SERVICE = """
CREATE TABLE people (name TEXT UNIQUE COLLATE de, folded AS (fold(name)), CHECK (fold(name) <> 'nobody'));
CREATE INDEX people_folded ON people (fold(name));
CREATE INDEX people_some ON people (name) WHERE fold(name) > 'm';
CREATE VIEW folded AS SELECT fold(name) FROM people ORDER BY name COLLATE de;
CREATE TABLE log (entry);
CREATE TRIGGER logged AFTER INSERT ON people BEGIN INSERT INTO log VALUES (fold(new.name)); END;
INSERT INTO people (name) VALUES ('Zoe'), ('ada'), ('Bob');
"""


def backwards(one: str, other: str) -> int:
    """Order words as no SQLite does by itself, so that a wrong order would be found."""
    return (one < other) - (one > other)


@contextmanager
def of_the_service(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database as the service does, with its collation and its function."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_collation("de", backwards)
        connection.create_function("fold", 1, str.lower, deterministic=True)
        yield connection


def require_sound(path: Path, names: list[str]) -> None:
    with of_the_service(path) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        found = connection.execute("SELECT name FROM people ORDER BY name COLLATE de").fetchall()
        assert names == [name for (name,) in found]


@pytest.fixture(params=["wal", "delete"])
def served(request: pytest.FixtureRequest, released_file: Path) -> Path:
    """Return a legacy database whose service has a collation and a function of its own."""
    with of_the_service(released_file) as connection:
        connection.execute(f"PRAGMA journal_mode = {request.param}")
        connection.executescript(SERVICE)
    return released_file


def test_a_collation_and_a_function_of_the_service_are_no_damage(served: Path) -> None:
    """Such a database is migrated, backed up, verified and rolled back, and nothing of it changes."""
    inode = served.stat().st_ino
    for words in (
        ["migrate"],
        ["backup", "create"],
        ["backup", "verify"],
        ["rollback", "--to-version", "0"],
        ["status"],
    ):
        result = run_cli("--db-path", served, *words)
        assert 0 == result.code, (words, result.err)
    require_sound(served, ["ada", "Zoe", "Bob"])
    assert inode == served.stat().st_ino


def test_such_a_database_is_restored_in_place_and_saved_before(served: Path) -> None:
    """A service that holds it open goes on with the restored file, and what it had committed is in the saved copy."""
    vecmigrate.upgrade(url(served))
    name = vecmigrate.backup(url(served)).name
    with of_the_service(served) as service:
        service.execute("INSERT INTO people (name) VALUES ('Mia')")
        report = vecmigrate.restore(url(served), name=name)
        assert 3 == service.execute("SELECT count(*) FROM people").fetchone()[0]
    assert [] == [each.name for each in served.parent.iterdir() if "damaged" in each.name]
    assert report.backup is not None
    with of_the_service(Path(report.backup)) as saved:
        assert 4 == saved.execute("SELECT count(*) FROM people").fetchone()[0]
    require_sound(served, ["ada", "Zoe", "Bob"])


def add_unknown_sql(path: Path, kind: str, name: str, sql: str) -> None:
    """Put an object into a schema as a newer SQLite would have."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE beside (a)" if kind == "table" else "SELECT 1")
        connection.execute("PRAGMA writable_schema = ON")
        if kind == "table":
            connection.execute("INSERT INTO beside VALUES (7)")
            statement = "UPDATE sqlite_master SET name = ?, tbl_name = ?, sql = ? WHERE name = 'beside'"
            connection.execute(statement, (name, name, sql))
        else:
            connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, 0, ?)", (kind, name, name, sql))


def set_writer(path: Path, *, version: int, formats: bytes = b"\1\1") -> None:
    """Write into the header which SQLite wrote a closed file last, and what has to be known to read and write it."""
    legacy.execute(path, "PRAGMA journal_mode = delete")
    with path.open("r+b") as file:
        file.seek(18)
        file.write(formats)
        file.seek(92)
        change = path.read_bytes()[24:28]
        file.write(change + version.to_bytes(4, "big"))


@pytest.mark.parametrize("kind", ["view", "table"])
def test_sql_of_a_newer_sqlite_elsewhere_is_passed_over(kind: str, released_file: Path) -> None:
    """An object of the service that this SQLite cannot read keeps it from nothing, and stays as it is."""
    sql = f"CREATE {kind} news (a) FROM THE FUTURE"
    add_unknown_sql(released_file, kind, "news", sql)
    for words in (
        ["status"],
        ["migrate"],
        ["backup", "verify"],
        ["list"],
        ["rollback", "--to-version", "0"],
        ["migrate"],
    ):
        result = run_cli("--db-path", released_file, *words)
        assert 0 == result.code, (words, result.err)
    name = vecmigrate.backup(url(released_file)).name
    assert 0 == run_cli("--db-path", released_file, "restore", name).code
    assert [] == [each.name for each in released_file.parent.iterdir() if "damaged" in each.name]
    with closing(sqlite3.connect(released_file)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        assert [(sql,)] == connection.execute("SELECT sql FROM sqlite_master WHERE name = 'news'").fetchall()
        assert (HEAD,) == connection.execute("SELECT version_num FROM vecmigrate_version").fetchone()


def test_sql_of_a_newer_sqlite_on_our_tables_stops_the_run(released_file: Path) -> None:
    """It is named before the first write, and nothing is written."""
    add_unknown_sql(released_file, "view", "news", "CREATE VIEW news AS SELECT * FROM vector_stores FROM THE FUTURE")
    before = legacy.tree(released_file.parent)
    result = run_cli("--db-path", released_file, "migrate")
    assert 6 == result.code, result.err
    assert f"This SQLite ({sqlite3.sqlite_version}) does not know the SQL of the view news" in result.err
    assert before == legacy.tree(released_file.parent)


@pytest.mark.parametrize("formats", [b"\1\3", b"\3\1"])
@pytest.mark.parametrize("words", [["migrate"], ["backup", "create"], ["restore"]])
def test_a_format_of_a_newer_sqlite_is_told_as_such(formats: bytes, words: list[str], released_file: Path) -> None:
    """Neither as damage nor as permissions, and the file stays where it is."""
    name = vecmigrate.backup(url(released_file)).name
    set_writer(released_file, version=3_999_001, formats=formats)
    before = legacy.tree(released_file.parent)
    result = run_cli("--db-path", released_file, *words, *([name] if words == ["restore"] else []))
    if result.code == 0:
        # It may be read, only not written.
        assert (words, formats) == (["backup", "create"], b"\3\1")
        return
    assert 1 == result.code, result.err
    assert f"was made by SQLite 3.999.1, newer than this one ({sqlite3.sqlite_version})" in result.err
    assert "restore NAME" not in result.err
    after = legacy.tree(released_file.parent)
    assert before | {"backups": after["backups"]} == after


def test_an_open_that_is_refused_once_is_no_damage(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system lets SQLite have the file only for reading, as with too many files open, a restore stops."""
    vecmigrate.upgrade(url(served))
    name = vecmigrate.backup(url(served)).name
    inode = served.stat().st_ino
    connect = sqlite_files.connect

    def refused(path: str, **options: str) -> sqlite3.Connection:
        is_database = path == str(served) and not options
        return connect(path, options="mode=ro") if is_database else connect(path, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_files, "connect", refused)
        result = run_cli("--db-path", served, "restore", name)
    assert 1 == result.code, result.err
    assert f"{served} cannot be opened for writing: SQLite was refused it" in result.err
    assert "Nothing was changed." in result.err
    assert inode == served.stat().st_ino
    assert [] == [each.name for each in served.parent.iterdir() if "damaged" in each.name]
    assert 0 == run_cli("--db-path", served, "restore", name).code


def test_what_is_lent_to_a_check_is_taken_back(served: Path) -> None:
    """On the same connection an index of the service is as unusable as before, so that it can't be spoiled."""
    with closing(sqlite_files.connect(str(served))) as connection:
        assert [] == soundness.problems(connection)
        with pytest.raises(sqlite3.OperationalError, match=r"no such collation sequence: de|unknown function: fold"):
            connection.execute("INSERT INTO people (name) VALUES ('x')")


def test_a_damaged_page_is_found_beside_what_is_lacking(served: Path) -> None:
    """What is lent to the check hides nothing."""
    root = legacy.query(served, "SELECT rootpage FROM sqlite_master WHERE name = 'log'")[0][0]
    legacy.execute(served, "PRAGMA journal_mode = delete")
    content = served.read_bytes()
    size = int.from_bytes(content[16:18], "big")
    start = size * (int(str(root)) - 1)
    served.write_bytes(content[:start] + b"\xff" * size + content[start + size :])
    assert verification.is_damaged(str(served), time.monotonic() + 5)


@pytest.mark.parametrize(
    ("table", "backup", "is_refused"),
    [
        ("embedding_models", "never", True),
        ("vecmigrate_history", "never", True),
        ("vector_store_embeddings", "never", False),
        ("vector_store_embeddings", "auto", True),
    ],
)
def test_without_a_backup_damage_is_looked_for_where_the_run_writes(
    table: str, backup: str, *, is_refused: bool, tmp_path: Path
) -> None:
    """The tables of a run are checked before it, and not millions of vectors that it does not touch."""
    path = tmp_path / "damaged.sqlite3"
    vecmigrate.upgrade(url(path), "001", backup="never")
    page = int(str(legacy.query(path, f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'")[0][0]))
    size = int(str(legacy.query(path, "PRAGMA page_size")[0][0]))
    content = bytearray(path.read_bytes())
    # The offset of the first cell, beyond the page.
    content[(page - 1) * size + 3 : (page - 1) * size + 7] = b"\x00\x05\xff\xff"
    path.write_bytes(content)

    try:
        vecmigrate.upgrade(url(path), "002", backup=backup)
    except DatabaseUnusableError:
        assert is_refused
        assert bytes(content) == path.read_bytes()
    else:
        assert not is_refused
