"""``--dry-run``: the real run on a copy, which tells what the run then does, and leaves nothing."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

import legacy
from doors import Result, run_cli
from ladder import HEAD, NEXT, REVISIONS
from scripts import Scripts
from vecmigrate import backups, settings
from vecmigrate.migrator import Migrator

SAME = ("from", "to", "applied", "reverted", "created", "rows")
"""What a run and its rehearsal tell by the same names."""


@pytest.fixture
def released(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a released database with rows that are converted, away from any alembic.ini."""
    monkeypatch.chdir(released_file.parent)
    legacy.add_fractions(released_file)
    return released_file


@pytest.fixture(scope="module")
def migrated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = legacy.build(tmp_path_factory.mktemp("migrated") / "sessions.sqlite3", "released")
    legacy.add_fractions(path)
    assert 0 == run_cli("--db-path", path, "migrate").code
    return path.parent


@pytest.fixture
def migrated(migrated_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "service"
    shutil.copytree(migrated_folder, folder)
    monkeypatch.chdir(folder)
    return folder / "sessions.sqlite3"


def rehearsed(path: Path, *words: str) -> Result:
    """Rehearse, and show that nothing around the database was written."""
    before = legacy.tree(path.parent)
    result = run_cli("--db-path", path, *words, "--dry-run", "--json")
    assert before == legacy.tree(path.parent)
    return result


def counts(path: Path) -> dict[str, Any]:
    names = sorted(name for name in legacy.tables(path) if not name.startswith(("vecmigrate_", "sqlite_")))
    return {name: legacy.query(path, f'SELECT count(*) FROM "{name}"')[0][0] for name in names}


def told(document: Any, when: str) -> dict[str, Any]:
    return {name: each[when] for name, each in document["tables"].items() if each[when] is not None}


def require_same(path: Path, *words: str) -> Any:
    """Rehearse and run; both tell the same. Return what the rehearsal told."""
    before = counts(path)
    tried, done = rehearsed(path, *words), run_cli("--db-path", path, *words, "--json")
    document = tried.document
    assert (0, True, None, 0) == (tried.code, document["ok"], document["error"], done.code), tried.err
    assert {key: done.document[key] for key in SAME} == {key: document[key] for key in SAME}
    assert (before, counts(path)) == (told(document, "before"), told(document, "after"))
    return document


def test_a_rehearsed_upgrade_tells_what_the_run_then_does(released: Path) -> None:
    """Steps, rows, reasons and sizes are those of the run."""
    before = released.stat().st_size
    document = require_same(released, "migrate")

    assert REVISIONS == [each["revision"] for each in document["revisions"]]
    assert {6} == {sum(each["reasons"].values()) for each in document["revisions"] if each["reasons"]}
    assert 6 == document["rows"]["converted"]
    assert before == document["bytes_before"]
    assert document["bytes_before"] < document["bytes_after"] < document["disk_needed"]
    assert 0 < document["lock_seconds"] < 60
    assert [] == document["objects_lost"] + document["foreign_keys"]
    assert str(released.parent / "backups") == document["backup_folder"]


@pytest.mark.parametrize(
    "words",
    [("rollback", "--to-version", "0"), ("rollback", "--to-version", "-1"), ("migrate", "--force", "--target", "1")],
    ids=" ".join,
)
def test_a_rehearsal_of_a_way_back_tells_what_the_run_then_does(words: tuple[str, ...], migrated: Path) -> None:
    """Down, a step down, and down and up again."""
    document = require_same(migrated, *words)
    assert document["revisions"]
    assert [] == document["objects_lost"] + document["foreign_keys"]


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Its first run is rehearsed on one that goes."""
    document = rehearsed(tmp_path / "new.sqlite3", "migrate").document
    assert (True, True, 0, REVISIONS) == tuple(document[key] for key in ("ok", "created", "bytes_before", "applied"))
    assert document["tables"]["vector_stores"] == {"before": None, "after": 0}


def test_with_nothing_to_do_nothing_is_copied(migrated: Path) -> None:
    """The answer has no steps, and the exit code is 0."""
    result = rehearsed(migrated, "migrate")
    assert (0, [], HEAD, {}) == (result.code, *(result.document[key] for key in ("revisions", "to", "tables")))


def test_a_person_reads_it_in_five_seconds(released: Path) -> None:
    """The screen has the revisions, the tables that change, why rows are converted, and the command of the run."""
    lines = run_cli("--db-path", released, "migrate", "--target", "1", "--dry-run").out.splitlines()
    assert f"Rehearsed from base to {REVISIONS[1]}: it works. Nothing was changed." == lines[0]
    assert ["001", "unified_vector_stores", "up", "6", "0"] == next(
        line.split()[:5] for line in lines if line.startswith("001")
    )
    assert ["vector_stores", "150", "156"] in [line.split() for line in lines]
    assert any("001: 6 rows kept aside: created_at: real read as a time" in line for line in lines)
    assert f"Next: vecmigrate --db-path {released} migrate --target 1" == lines[-1]
    assert len(lines) < 20


# What fails.


def failing(_path: Path, scripts: Scripts) -> tuple[str, ...]:
    scripts.add("op.execute('CREATE TABLE tags (name TEXT)')\nraise RuntimeError('no')")
    return ("migrate",)


def losing_rows(path: Path, _scripts: Scripts) -> tuple[str, ...]:
    run_cli("--db-path", path, "migrate")
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES ('c', 'vs_u00001', '/a.py', 1, 2, 'text')")
    return ("rollback", "--to-version", "base")


def of_somebody_else(path: Path, _scripts: Scripts) -> tuple[str, ...]:
    legacy.execute(path, "CREATE TABLE embedding_models (note TEXT)")
    return ("migrate",)


def of_a_newer_version(path: Path, _scripts: Scripts) -> tuple[str, ...]:
    run_cli("--db-path", path, "migrate")
    legacy.execute(path, "UPDATE vecmigrate_version SET version_num = '909'", "DELETE FROM vecmigrate_meta")
    return ("migrate",)


def with_a_problem(_path: Path, scripts: Scripts) -> tuple[str, ...]:
    script = scripts.add("pass")
    text = script.read_text()
    script.write_text(text + "\n\ndef precheck(connection):\n    yield 'sessions must be empty'\n")
    return ("migrate",)


def with_a_target_that_is_none(_path: Path, _scripts: Scripts) -> tuple[str, ...]:
    return ("migrate", "--target", "77")


def damaged(path: Path, _scripts: Scripts) -> tuple[str, ...]:
    legacy.execute(path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = DELETE")
    content = bytearray(path.read_bytes())
    content[-40_000:-4096] = b"\xff" * (40_000 - 4096)
    path.write_bytes(content)
    return ("migrate",)


def without_a_folder_for_backups(path: Path, _scripts: Scripts) -> tuple[str, ...]:
    (path.parent / "backups").write_text("a file")
    return ("migrate",)


FAILING: list[tuple[Callable[[Path, Scripts], tuple[str, ...]], int, str]] = [
    (failing, 5, "RunFailedError"),
    (with_a_problem, 5, "PrecheckError"),
    (losing_rows, 6, "WouldLoseRowsError"),
    (of_somebody_else, 6, "NotOursError"),
    (of_a_newer_version, 6, "AheadError"),
    (with_a_target_that_is_none, 1, "TargetError"),
    (damaged, 1, "DatabaseUnusableError"),
    (without_a_folder_for_backups, 1, "BackupError"),
]


@pytest.mark.parametrize(("make", "code", "kind"), FAILING, ids=[make.__name__ for make, *_ in FAILING])
def test_a_rehearsal_fails_as_the_run_does(
    make: Callable[[Path, Scripts], tuple[str, ...]], code: int, kind: str, released: Path, scripts: Scripts
) -> None:
    """Exit code, kind and message of the error are those of the run, and it writes nothing, not even of the failure."""
    words = make(released, scripts)
    tried = rehearsed(released, *words)
    done = run_cli("--db-path", released, *words, "--json")

    assert (code, kind, False) == (tried.code, tried.document["error"]["type"], tried.document["ok"]), tried.err
    assert done.code == tried.code
    # The run names its backup, and the failure that it records.
    for key in ("type", "exit_code", "message", "next"):
        if kind != "BackupError" or key in {"type", "exit_code"}:
            assert done.document["error"][key] == tried.document["error"][key]
    assert f"Error: {tried.document['error']['message']}" in tried.err


def test_what_ran_before_a_failure_is_told(released: Path, scripts: Scripts) -> None:
    """The revisions that went well stand in the answer."""
    document = rehearsed(released, *failing(released, scripts)).document
    assert REVISIONS == [each["revision"] for each in document["revisions"]]
    assert f"Revision {NEXT} failed" in document["error"]["message"]


def test_what_a_script_takes_from_the_service_is_told(released: Path, scripts: Scripts) -> None:
    """An index that is gone, and rows whose parent is."""
    legacy.execute(
        released,
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents(id))",
        "INSERT INTO parents VALUES (1), (2)",
        "INSERT INTO children VALUES (1, 1), (2, 1), (3, 2), (4, 9)",
    )
    scripts.add(
        "op.execute('DROP INDEX idx_sessions_updated')\nop.execute('UPDATE children SET parent = 8 WHERE id < 3')"
    )
    result = rehearsed(released, "migrate")
    document = result.document
    assert 0 == result.code, result.err

    assert [{"type": "index", "name": "idx_sessions_updated", "table": "sessions"}] == document["objects_lost"]
    assert [{"table": "children", "parent": "parents", "rows": 3, "before": 1}] == document["foreign_keys"]
    out = run_cli("--db-path", released, "migrate", "--dry-run").out
    assert "index idx_sessions_updated on sessions" in out
    assert "3 rows of children" in out


# The copy.


def test_it_waits_for_no_writer(released: Path) -> None:
    """While another process holds the write lock it is rehearsed all the same."""
    with legacy.opened(released) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO sessions VALUES ('new', 'resp', 1)")
        result = run_cli("--db-path", released, "migrate", "--dry-run", "--json")
        writer.execute("COMMIT")
    assert (0, {"before": 50, "after": 50}) == (result.code, result.document["tables"]["sessions"])


WAITING = """
import pathlib, time
here = pathlib.Path(os.environ["REHEARSAL_SIGNALS"])
(here / "begun").touch()
while not (here / "go").exists():
    time.sleep(0.01)
"""


@contextlib.contextmanager
def rehearsing(path: Path, scripts: Scripts, signals: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process that has begun a rehearsal, and waits in a revision."""
    scripts.add(WAITING)
    signals.mkdir()
    words = ["--config", str(scripts.ini), "--db-path", str(path), "migrate", "--dry-run", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from vecmigrate.cli import main; main()", *words],
        env={**os.environ, "REHEARSAL_SIGNALS": str(signals)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (signals / "begun").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


def copies(path: Path) -> list[str]:
    return [each.name for each in path.parent.iterdir() if each.name.endswith(".rehearsal")]


def test_the_next_run_removes_what_a_killed_one_left(released: Path, scripts: Scripts, tmp_path: Path) -> None:
    """`doctor` names the copy, and a run without a backup removes it, too."""
    with rehearsing(released, scripts, tmp_path / "signals") as process:
        assert 1 == len(copies(released))
        process.kill()
        process.wait()
    assert 1 == len(copies(released))
    found = run_cli("--db-path", released, "doctor", "--json").document["findings"]
    assert [copies(released)[0] in each["message"] for each in found if each["code"] == "leftovers"] == [True]

    assert 0 == run_cli("--db-path", released, "migrate", "--target", "1", "--dry-run").code
    assert [] == copies(released)


def test_a_run_removes_no_copy_that_is_in_use(released: Path, scripts: Scripts, tmp_path: Path) -> None:
    """A migration goes on beside a rehearsal, which ends well."""
    signals = tmp_path / "signals"
    with rehearsing(released, scripts, signals) as process:
        found = run_cli("--db-path", released, "doctor", "--json").document["findings"]
        assert "leftovers" not in {each["code"] for each in found}
        for words in (("migrate", "--target", "1"), ("backup", "create"), ("migrate", "--target", "2", "--dry-run")):
            assert 0 == run_cli("--db-path", released, *words).code
            assert 1 == len(copies(released))
        (signals / "go").touch()
        out, err = process.communicate(timeout=60)
    assert 0 == process.returncode, err
    assert f'"to": "{NEXT}"' in out
    assert [] == copies(released)


def test_a_disk_without_room_is_told_before_it_is_filled(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bytes that are needed, and nothing is copied."""
    usage = SimpleNamespace(free=released.stat().st_size)
    monkeypatch.setattr(backups.shutil, "disk_usage", lambda _: usage)  # type: ignore[attr-defined]
    result = rehearsed(released, "migrate")
    message = result.document["error"]["message"]
    assert (1, "BackupError") == (result.code, result.document["error"]["type"])
    assert f"needs {2 * usage.free + 65536} bytes free and has {usage.free}" in message


def test_a_database_in_memory_stays_as_it_is() -> None:
    """Its engine is copied, in memory too, and the copy is migrated."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(legacy.LEGACY_SQL[0])
        connection.exec_driver_sql("INSERT INTO vector_stores VALUES ('s', 'v', 'openai', 9, 0, 1, 1)")
    found = Migrator(settings.resolve({"database_url": engine}, {})).rehearse_upgrade()

    assert (None, HEAD, {"before": 1, "after": 1}) == (
        found.error,
        found.to_revision,
        found.inside.tables["vector_stores"],
    )
    assert ["vector_stores"] == sa.inspect(engine).get_table_names()
    engine.dispose()


def test_odd_names_stand_in_errors_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is named nowhere; what is to be pasted has the path of the database, quoted."""
    monkeypatch.chdir(tmp_path)
    path = legacy.build(tmp_path / "my sessions's.sqlite3", "released")
    assert 0 == run_cli("--db-path", path, "migrate", "--no-backup").code
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES ('c', 'vs_u00001', '/a.py', 1, 2, 'text')")
    words = ("rollback", "--to-version", "base")
    tried, done = rehearsed(path, *words), run_cli("--db-path", path, *words, "--json")
    assert done.document["error"] == tried.document["error"]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("c",)] == connection.execute("SELECT chunk_id FROM vector_store_chunks").fetchall()


# PostgreSQL.


def on_server(postgresql: sa.URL, *words: str) -> Result:
    return run_cli("--database-url", postgresql.render_as_string(hide_password=False), *words)


def test_on_postgresql_it_is_rolled_back(postgresql: sa.URL) -> None:
    """It tells what the run then does, says what it locks, and leaves nothing."""
    engine = sa.create_engine(postgresql)
    assert 0 == on_server(postgresql, "migrate", "--target", "1").code
    with engine.begin() as connection:
        tables = sa.inspect(connection).get_table_names()
        history = connection.exec_driver_sql("SELECT count(*) FROM vecmigrate_history").scalar()
    tried = on_server(postgresql, "migrate", "--dry-run", "--json")

    assert (0, True) == (tried.code, tried.document["ok"]), tried.err
    assert "transaction that is rolled back" in tried.err
    with engine.begin() as connection:
        assert tables == sa.inspect(connection).get_table_names()
        assert history == connection.exec_driver_sql("SELECT count(*) FROM vecmigrate_history").scalar()
        assert "001" == connection.exec_driver_sql("SELECT version_num FROM vecmigrate_version").scalar()
    assert {"vector_store_chunks": "ShareRowExclusiveLock"} == tried.document["locks"]
    assert "Locked: vector_store_chunks" in on_server(postgresql, "migrate", "--dry-run").out
    done = on_server(postgresql, "migrate", "--json")
    assert {key: done.document[key] for key in SAME} == {key: tried.document[key] for key in SAME}
    engine.dispose()


def test_on_postgresql_it_waits_shortly_for_a_lock(postgresql: sa.URL) -> None:
    """Who uses the tables does not queue behind it: it ends with 4, and records nothing."""
    assert 0 == on_server(postgresql, "migrate").code
    engine = sa.create_engine(postgresql)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE vector_stores, vector_store_chunks IN ACCESS SHARE MODE")
        history = connection.exec_driver_sql("SELECT count(*) FROM vecmigrate_history").scalar()
        tried = on_server(postgresql, "rollback", "--to-version", "0", "--dry-run", "--json")
        assert (4, "LockTimeoutError") == (tried.code, tried.document["error"]["type"]), tried.err
        assert history == connection.exec_driver_sql("SELECT count(*) FROM vecmigrate_history").scalar()
    engine.dispose()


# What else says what it would do.


def test_what_a_restore_would_do_is_told(migrated: Path) -> None:
    """The backup is checked whole, as the restore does, and nothing is written."""
    name = run_cli("--db-path", migrated, "backup", "list", "--json").document["backups"][0]["name"]
    told = rehearsed(migrated, "restore", name).document
    assert (True, HEAD, None, name) == (told["ok"], told["from"], told["to"], told["backup"]["name"])
    (migrated.parent / "backups" / name).write_bytes(b"no")
    tried, done = rehearsed(migrated, "restore", name), run_cli("--db-path", migrated, "restore", name, "--json")
    assert (1, done.document) == (tried.code, tried.document)


def test_a_restore_of_another_database_is_refused_beforehand(migrated: Path) -> None:
    """As the restore itself refuses it."""
    name = run_cli("--db-path", migrated, "backup", "create", "--json").document["backup"]["name"]
    legacy.execute(migrated, "UPDATE vecmigrate_meta SET value = 'another' WHERE key = 'database_id'")
    tried, done = rehearsed(migrated, "restore", name), run_cli("--db-path", migrated, "restore", name, "--json")
    assert (1, done.document) == (tried.code, tried.document)


def test_what_prune_would_remove_is_told(migrated: Path) -> None:
    """The same names as it then removes."""
    for _ in range(3):
        assert 0 == run_cli("--db-path", migrated, "backup", "create").code
    told = rehearsed(migrated, "backup", "prune", "--keep", "1").document
    done = run_cli("--db-path", migrated, "backup", "prune", "--keep", "1", "--json").document
    assert (True, done["removed"]) == (told["dry_run"], told["removed"])
    assert 2 == len(done["removed"])


def test_what_purge_and_reembed_would_do_is_told(migrated: Path) -> None:
    """How many vectors of which models, without --yes and without the embedder."""
    legacy.execute(
        migrated,
        "INSERT INTO vector_store_chunks VALUES ('c', 'vs_u00001', '/a.py', 1, 2, 'text')",
        "INSERT INTO embedding_models VALUES ('old', 2, 'retired', 1)",
        "INSERT INTO vector_store_embeddings VALUES ('old', 'c', x'0000000000000000')",
    )
    purged = rehearsed(migrated, "embeddings", "purge", "old").document
    assert {"dry_run": True, "purged": {"old": 1}} == purged
    told = rehearsed(migrated, "reembed", "--embedder", "not_there:embed").document
    assert (True, 1, 0, False) == tuple(told[key] for key in ("dry_run", "remaining", "embedded", "swapped"))
    active = run_cli("--db-path", migrated, "embeddings", "list", "--json").document["models"]
    assert told["model"] in {each["name"] for each in active if each["state"] != "retired"}
    refused = rehearsed(migrated, "embeddings", "purge", told["model"])
    assert (1, "ModelError") == (refused.code, refused.document["error"]["type"])


@pytest.mark.parametrize("where", ["of a table that a script reads", "of a table of the service"])
def test_damage_is_told_as_the_run_tells_it(where: str, released: Path) -> None:
    """The run checks the whole file with its backup, so the rehearsal does too."""
    table = "stores" if where.endswith("reads") else "sessions"
    legacy.execute(released, "PRAGMA journal_mode = DELETE")
    [(page,)] = legacy.query(released, f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'")
    with released.open("r+b") as file:
        file.seek((int(str(page)) - 1) * 4096)
        file.write(b"\xff" * 4096)

    tried, done = rehearsed(released, "migrate"), run_cli("--db-path", released, "migrate", "--json")

    assert (1, False) == (tried.code, tried.document["ok"])
    assert done.document["error"] == tried.document["error"]
    assert "is damaged" in tried.document["error"]["message"]
