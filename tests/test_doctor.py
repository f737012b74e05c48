"""The doctor: each finding is planted and found, and gone again once the printed command has run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import legacy
import vecmigrate
from doors import ROOT, Result, run_cli, run_forked, url
from faults.harness import small_disk
from ladder import BELOW_HEAD, HEAD, NEXT, REVISIONS
from scripts import Scripts
from test_bad_input import UNPRIVILEGED
from vecmigrate import history, scratch_files
from vecmigrate.tools import surroundings
from vecmigrate.tools.finding import Subject

VECTOR_STORES = "vector_stores"


@pytest.fixture(scope="module")
def healthy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate and back up once for the module."""
    path = legacy.build(tmp_path_factory.mktemp("healthy") / "service.sqlite3", "released")
    vecmigrate.upgrade(url(path))
    vecmigrate.backup(url(path))
    return path.parent


@pytest.fixture
def database(healthy_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of a healthy database, with its backups and mirror."""
    folder = shutil.copytree(healthy_folder, tmp_path / "a service's folder")
    # The folder of a test has other rights than one that is copied by its user.
    (folder / "backups").chmod(0o700)
    for manifest in (folder / "backups").glob("*.json"):
        text = manifest.read_text(encoding="utf-8")
        manifest.write_text(text.replace(json.dumps(str(healthy_folder))[1:-1], str(folder)), encoding="utf-8")
    return folder / "service.sqlite3"


def lose_backups(folder: Path) -> None:
    for backup in folder.glob("*.sqlite3"):
        backup.unlink()


def doctor(path: Path, *words: str) -> Result:
    return run_cli("--db-path", path, "doctor", "--json", *words)


def findings(path: Path, *words: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = doctor(path, *words).document["findings"]
    return found


def codes(path: Path, *words: str) -> list[str]:
    return [each["code"] for each in findings(path, *words)]


def paste(command: str) -> None:
    """Run a printed command in a shell, as somebody does who has the environment of this Python active."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (command, 0) == (command, done.returncode), done.stderr


def newest_backup(path: Path) -> Path:
    return max((path.parent / "backups").glob("*.sqlite3"))


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file and folder with its rights and bytes, but for SQLite's own sidecars."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(("-wal", "-shm")) and os.access(path, os.R_OK)
    }


# What the command mends.


def without_check(path: Path, table: str) -> None:
    """Take the CHECKs out of a table, as nobody can by SQL."""
    with legacy.opened(path) as connection:
        [(sql,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        less = re.sub(r",?\s*CONSTRAINT \w+ CHECK \(.*\)(?=\s*\))", "", sql, flags=re.DOTALL)
        assert less != sql
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (less, table))
        connection.execute("PRAGMA writable_schema = RESET")


def damage_page(path: Path) -> None:
    """Overwrite a page in the middle of a database that nobody has open."""
    legacy.execute(path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = DELETE")
    [(page,)] = legacy.query(path, "SELECT rootpage FROM sqlite_master WHERE name = 'vector_stores'")
    [(size,)] = legacy.query(path, "PRAGMA page_size")
    assert isinstance(page, int)
    assert isinstance(size, int)
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def leave_marker(path: Path) -> None:
    step = {"revision": HEAD, "direction": "upgrade", "migration_id": "x", "version": None, "name": "x"}
    history.Marker(
        run_id="0" * 32,
        database_id="",
        started_at="2026-01-01T00:00:00+00:00",
        direction="upgrade",
        steps=[step],
        backup=None,
    ).write(str(path))


def leave_temporary(*folders: str) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        for name in folders:
            with scratch_files.scratch(str(path.parent / name), "a-database", str(path)) as temporary:
                pass
            Path(temporary).write_bytes(b"half a backup")

    return plant


def leave_temporary_mirror(path: Path) -> None:
    mirror = path.with_name("service.migrations.json")
    Path(history.temporary_name(str(mirror), "0" * 32)).write_text("half", encoding="utf-8")


def build_model(path: Path) -> None:
    """Leave a model that has every vector and is not active yet."""
    legacy.execute(
        path,
        "UPDATE embedding_models SET state = 'building' WHERE state = 'active'",
        "INSERT INTO embedding_models VALUES ('x', 3, 'active', 1)",
    )


def widen(path: Path) -> None:
    path.with_name("service.migrations.json").chmod(0o644)
    newest_backup(path).chmod(0o640)


def remove_index(name: str) -> Callable[[Path], None]:
    return lambda path: legacy.execute(path, f"DROP INDEX {name}")


def change_index(path: Path) -> None:
    legacy.execute(path, "DROP INDEX idx_vs_expires_at", "CREATE INDEX idx_vs_expires_at ON vector_stores (updated_at)")


def remove_triggers(path: Path) -> None:
    for (name,) in legacy.query(path, "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'vecm%'"):
        legacy.execute(path, f"DROP TRIGGER {name}")


def change_trigger(path: Path) -> None:
    [(name, table), *_] = legacy.query(
        path, "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'vecm%' ORDER BY 1"
    )
    legacy.execute(
        path, f"DROP TRIGGER {name}", f"CREATE TRIGGER {name} AFTER DELETE ON {table} BEGIN SELECT 'it''s; so'; END"
    )


@dataclass(frozen=True)
class Plant:
    """Something that is wrong, the code it is told by, and how bad it is said to be."""

    code: str
    severity: str
    plant: Callable[[Path], object]
    words: tuple[str, ...] = ()


MENDED = {
    "a revision that is pending": Plant(
        "pending", "warning", lambda path: vecmigrate.rollback(url(path), to_version=BELOW_HEAD)
    ),
    "an index that is gone": Plant("drift", "warning", remove_index("idx_vs_expires_at")),
    "an index on another column": Plant("drift", "warning", change_index),
    "a unique index that is gone": Plant("drift", "error", remove_index("uq_embedding_models_active")),
    "triggers that are gone": Plant("drift", "error", remove_triggers),
    "a trigger that does something else": Plant("drift", "error", change_trigger),
    "a trigger of no revision": Plant(
        "drift",
        "error",
        lambda path: legacy.execute(
            path, "CREATE TRIGGER vecmigrate_old AFTER DELETE ON vector_stores BEGIN SELECT 1; END"
        ),
    ),
    "a column that is gone": Plant(
        "drift", "error", lambda path: legacy.execute(path, "ALTER TABLE embedding_models DROP COLUMN activated_at")
    ),
    "a CHECK that is gone": Plant("drift", "error", lambda path: without_check(path, VECTOR_STORES)),
    "a run that died": Plant("interrupted", "warning", leave_marker),
    "no mirror": Plant("mirror", "warning", lambda path: path.with_name("service.migrations.json").unlink()),
    "half a mirror": Plant(
        "mirror",
        "warning",
        lambda path: path.with_name("service.migrations.json").write_text('{"migrations": [', encoding="utf-8"),
    ),
    "a mirror that was edited": Plant(
        "mirror",
        "warning",
        lambda path: path.with_name("service.migrations.json").write_text(
            path.with_name("service.migrations.json").read_text(encoding="utf-8").replace('"success"', '"failed"'),
            encoding="utf-8",
        ),
    ),
    "a backup without its data": Plant("backup-missing", "error", lambda path: newest_backup(path).unlink()),
    "no data of any backup": Plant("backup-missing", "error", lambda path: lose_backups(path.parent / "backups")),
    "a backup with a bit that is wrong": Plant("backup-damaged", "error", lambda path: flip(newest_backup(path))),
    "a backup cut short": Plant("backup-damaged", "error", lambda path: os.truncate(newest_backup(path), 1000)),
    "half a manifest": Plant(
        "backup-damaged",
        "error",
        lambda path: newest_backup(path).with_suffix(".json").write_text('{"sha256"', encoding="utf-8"),
    ),
    "a backup without its manifest": Plant(
        "backup-damaged", "error", lambda path: newest_backup(path).with_suffix(".json").unlink()
    ),
    "a change since the last backup": Plant(
        "backup-stale", "note", lambda path: vecmigrate.rollback(url(path), to_version=BELOW_HEAD)
    ),
    "files that others may read": Plant("permissions", "warning", widen),
    "a folder that others may read": Plant(
        "permissions", "warning", lambda path: (path.parent / "backups").chmod(0o755)
    ),
    "a folder that everybody may write": Plant(
        "permissions", "warning", lambda path: (path.parent / "backups").chmod(0o777)
    ),
    "a database that everybody may write": Plant("permissions", "warning", lambda path: path.chmod(0o666)),
    "what killed runs have left": Plant("leftovers", "note", leave_temporary("backups", ".")),
    "half a mirror of a killed run": Plant("leftovers", "note", leave_temporary_mirror),
    "a damaged page": Plant("integrity", "error", damage_page),
    "a model that only has to be activated": Plant("reembed", "note", build_model),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_is_wrong_is_told_and_the_printed_command_mends_it(name: str, database: Path) -> None:
    """Nothing is written by looking; after the command, pasted into a shell, the finding is gone."""
    planted = MENDED[name]
    assert planted.code not in codes(database)
    planted.plant(database)
    before = contents(database.parent)
    found = [each for each in findings(database) if each["code"] == planted.code]

    assert planted.severity in {each["severity"] for each in found}
    assert before == contents(database.parent)
    for each in found:
        paste(each["next"])
    assert planted.code not in codes(database)


def test_a_healthy_database_has_no_findings(database: Path) -> None:
    """Also when it is looked at deeply; exit code 0."""
    assert (0, {"ok": True, "findings": []}) == (doctor(database).code, doctor(database).document)
    assert [] == findings(database, "--deep")
    assert "Nothing is wrong.\n" == run_cli("--db-path", database, "doctor").out


def test_errors_exit_with_1_and_stand_first(database: Path) -> None:
    """Then come warnings, then notes; each is on the screen with its command on one line."""
    for name in ("files that others may read", "what killed runs have left", "a trigger of no revision"):
        MENDED[name].plant(database)
    done = run_cli("--db-path", database, "doctor")

    assert ["error", "warning", "note"] == [each["severity"] for each in findings(database)]
    assert not doctor(database).document["ok"]
    assert (1, 1) == (done.code, doctor(database).code)
    lines = done.out.splitlines()
    assert ["error: drift", "warning: permissions", "note: leftovers"] == [
        line for line in lines if re.match(r"\w+: ", line)
    ]
    assert [f"  Next: {each['next']}" for each in findings(database)] == [line for line in lines if "Next: " in line]
    assert "1 error, 1 warning, 1 note." == lines[-1]


def test_people_read_times_of_their_own_zone(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the other commands; in the JSON they stay as they are recorded."""
    leave_marker(database)
    monkeypatch.setenv("TZ", "XYZ-5")
    time.tzset()
    try:
        told = " ".join(run_cli("--db-path", database, "doctor").out.split())
    finally:
        monkeypatch.undo()
        time.tzset()

    assert "begun 2026-01-01 05:00:00, has not" in told
    assert "begun 2026-01-01T00:00:00+00:00, has not" in findings(database)[0]["message"]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_text_fits_the_terminal(columns: int, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only commands and words without a space in them are longer than a line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    widen(database)
    lines = run_cli("--db-path", database, "doctor").out.splitlines()

    assert [] == [line for line in lines if len(line) > columns and "Next: " not in line and " " in line.strip()]


def test_python_gets_the_same(database: Path) -> None:
    """The function takes what the others take, and its answer has the keys of the JSON."""
    widen(database)
    found = vecmigrate.doctor(database)

    assert (True, 0) == (found.ok, found.exit_code)
    assert doctor(database).document == found.as_dict()
    assert ["permissions"] == [each.code for each in found.findings]


# What needs a person.


def set_revision(path: Path, *, oldest: str) -> None:
    legacy.execute(
        path,
        f"UPDATE vecmigrate_version SET version_num = '{NEXT}'",
        "UPDATE vecmigrate_meta SET value = '99.0' WHERE key = 'app_version'",
        f"UPDATE vecmigrate_meta SET value = '{oldest}' WHERE key = 'compatible_from'",
    )


@pytest.mark.parametrize(("oldest", "severity", "code"), [("99.0", "error", 6), ("0.1", "warning", 0)])
def test_a_newer_database_is_told(database: Path, oldest: str, severity: str, code: int) -> None:
    """Exit code 6 where this version must not run on it, 0 where it may."""
    set_revision(database, oldest=oldest)
    [found] = [each for each in findings(database) if each["code"] == "ahead"]

    assert (severity, code) == (found["severity"], doctor(database).code)
    assert "install app version 99.0" in found["next"]


def test_a_foreign_table_of_the_tool_needs_a_person(database: Path) -> None:
    """What keeps the rest from being looked at is told, and the rest around it all the same."""
    legacy.execute(database, "DROP TABLE vecmigrate_meta", "CREATE TABLE vecmigrate_meta (theirs)")
    widen(database)

    assert 6 == doctor(database).code
    assert {"drift", "permissions"} <= set(codes(database))


def test_what_a_run_would_be_refused_for_is_told_before_it(tmp_path: Path) -> None:
    """A table with a name of ours and another shape: exit code 6, and no advice to migrate."""
    path = tmp_path / "service.sqlite3"
    legacy.execute(path, "CREATE TABLE embedding_models (theirs)")
    [found] = [each for each in findings(path) if each["code"] == "pending"]

    assert 6 == doctor(path).code
    assert "embedding_models has the unknown columns theirs" in found["message"]
    assert "vecmigrate --db-path" not in found["next"]


def test_the_prechecks_of_pending_revisions_are_asked(database: Path, scripts: Scripts) -> None:
    """What they say is told, with the way on after it."""
    path = scripts.add("pass")
    path.write_text(path.read_text() + "\n\ndef precheck(connection):\n    yield 'a room is too small'\n")
    [found] = [each for each in findings(database) if each["code"] == "pending"]

    assert f"Revision {NEXT} is pending and would refuse to run: a room is too small" == found["message"]
    assert (1, "error") == (doctor(database).code, found["severity"])


def test_an_edited_script_is_told(database: Path, scripts: Scripts) -> None:
    """It is gone when the script is put back, and when it was run again by a command that keeps ``--config``."""
    script = next(scripts.versions.glob(f"{HEAD}_*.py"))
    before = script.read_text(encoding="utf-8")

    def edited() -> list[dict[str, str]]:
        found = run_cli("--config", scripts.ini, "--db-path", database, "doctor", "--json").document["findings"]
        return [each for each in found if each["code"] == "edited-script"]

    script.write_text(f"{before}\n# Edited.\n", encoding="utf-8")
    [found] = edited()
    assert f"revision {HEAD}" in found["message"]
    script.write_text(before, encoding="utf-8")
    assert [] == edited()

    script.write_text(f"{before}\n# Edited.\n", encoding="utf-8")
    paste(found["next"].partition("run it again: ")[2])
    assert [] == edited()


def test_rows_without_their_parent_are_told(database: Path) -> None:
    """By table and rowid, and never by what is in them."""
    legacy.execute(
        database,
        "CREATE TABLE notes (n INTEGER PRIMARY KEY, store TEXT REFERENCES vector_stores(vector_store_id))",
        "INSERT INTO notes VALUES (7, 'secret-store')",
    )
    [found] = findings(database)

    assert ("foreign-keys", "error") == (found["code"], found["severity"])
    assert "1 row of notes (rowid 7) refers to a row of vector_stores that is not there." == found["message"]
    assert "secret-store" not in doctor(database).out
    legacy.execute(database, "DELETE FROM notes")
    assert [] == findings(database)


def test_a_foreign_key_onto_what_is_no_key_is_told(database: Path) -> None:
    """SQLite refuses every write of the service then."""
    legacy.execute(database, "CREATE TABLE notes (n, store TEXT REFERENCES vector_stores(provider))")
    [found] = findings(database)

    assert "foreign-keys" == found["code"]
    assert "no key" in found["message"]
    legacy.execute(database, "DROP TABLE notes")
    assert [] == findings(database)


def test_a_provider_that_the_service_does_not_know_is_told(database: Path) -> None:
    """By the rows, and never by its name."""
    legacy.execute(database, "UPDATE vector_stores SET provider = 'weaviate' WHERE rowid = 3")
    [found] = findings(database)

    assert ("provider", "warning") == (found["code"], found["severity"])
    assert "1 row of vector_stores (rowid 3)" in found["message"]
    assert "weaviate" not in doctor(database).out
    legacy.execute(database, "UPDATE vector_stores SET provider = 'hnsw' WHERE rowid = 3")
    assert [] == findings(database)


def test_unfinished_reembedding_is_told(database: Path) -> None:
    """With the number of chunks, and a command that names an embedder."""
    build_model(database)
    legacy.execute(database, "INSERT INTO vector_store_chunks VALUES ('c', NULL, '/a.py', 1, 2, 'x = 1')")
    [found] = findings(database)

    assert ("reembed", "note") == (found["code"], found["severity"])
    assert found["message"].startswith("1 chunks lack a vector of ")
    assert "reembed --embedder " in found["next"]
    own = re.sub(r"--embedder \S+", "--embedder test_doctor_embedder:embed --dimensions 3", found["next"])
    (database.parent / "test_doctor_embedder.py").write_text(
        "def embed(texts):\n    return [[1.0, 2.0, 3.0]] * len(texts)"
    )
    paste(f"cd {json.dumps(str(database.parent))} && {own}")
    assert "reembed" not in codes(database)


def test_a_column_of_the_service_on_a_table_of_ours_is_a_warning(database: Path) -> None:
    """It may need it, so no command drops it."""
    legacy.execute(database, "ALTER TABLE embedding_models ADD COLUMN theirs TEXT")
    [found] = findings(database)

    assert ("drift", "warning") == (found["code"], found["severity"])
    assert "theirs" in found["message"]
    legacy.execute(database, "ALTER TABLE embedding_models DROP COLUMN theirs")
    assert [] == findings(database)


def test_what_the_service_adds_is_no_drift(database: Path) -> None:
    """Indexes, triggers, views and tables of its own, and an index that it makes again in its own spelling."""
    legacy.execute(
        database,
        "CREATE INDEX theirs ON vector_stores (provider)",
        "CREATE UNIQUE INDEX theirs_too ON vector_store_chunks (file_path, start_line)",
        "CREATE TRIGGER theirs_also AFTER INSERT ON vector_stores BEGIN SELECT 1; END",
        "CREATE VIEW theirs_again AS SELECT * FROM vector_stores",
        "DROP INDEX idx_vs_expires_at",
        'create index "idx_vs_expires_at" on vector_stores(expires_at) where expires_at is not null /* mine */',
    )

    assert [] == findings(database)


def test_no_shape_of_a_service_is_drift_at_any_revision(legacy_file: Path) -> None:
    """Up one by one, down again, and up: what was adopted in its found shape is as it should be."""

    def drifts() -> list[str]:
        return [each["message"] for each in findings(legacy_file) if each["code"] == "drift"]

    for revision in REVISIONS:
        vecmigrate.upgrade(url(legacy_file), revision)
        assert (revision, []) == (revision, drifts())
    for revision in REVISIONS[-2::-1]:
        vecmigrate.rollback(url(legacy_file), to_version=revision)
        assert (revision, []) == (revision, drifts())
    vecmigrate.upgrade(url(legacy_file))
    assert [] == drifts()


def test_what_a_change_took_away_is_no_drift(legacy_file: Path, scripts: Scripts) -> None:
    """Beside adopted tables a changed one leaves what it took away; drift is told all the same."""
    change = f'_table("vector_stores", revision="{NEXT}", key="vector_store_id", add=[sa.Column("tags", sa.Text)])'
    scripts.add(f"op.rebuild{change}", downgrade=f"op.restore{change}")

    def drifts() -> list[str]:
        return [each["message"] for each in findings(legacy_file) if each["code"] == "drift"]

    vecmigrate.upgrade(url(legacy_file))
    assert [] == drifts()
    vecmigrate.rollback(url(legacy_file), to_version=HEAD)
    assert [] == drifts()
    vecmigrate.upgrade(url(legacy_file))
    assert [] == drifts()
    legacy.execute(legacy_file, "ALTER TABLE vector_stores DROP COLUMN tags")
    assert ["The table vector_stores lacks the column tags."] == drifts()


# Around the database.


def test_a_missing_database_is_told(tmp_path: Path) -> None:
    """Nothing is made by looking; the command makes it."""
    path = tmp_path / "service.sqlite3"
    [found] = findings(path)

    assert ("pending", "warning", 0) == (found["code"], found["severity"], doctor(path).code)
    assert [] == list(tmp_path.iterdir())
    paste(found["next"])
    assert "pending" not in codes(path)


def test_a_lost_database_is_restored_by_the_printed_command(database: Path) -> None:
    """Where backups of it are left, an empty new one would be the wrong advice."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    [found] = [each for each in findings(database) if each["code"] == "pending"]

    assert ("error", 1) == (found["severity"], doctor(database).code)
    paste(found["next"])
    assert "error" not in {each["severity"] for each in findings(database)}


def test_backups_that_are_all_gone_are_told(released_file: Path) -> None:
    """Where the history names one, and there is none any more."""
    vecmigrate.upgrade(url(released_file))
    shutil.rmtree(released_file.parent / "backups")
    [found] = [each for each in findings(released_file) if each["code"] == "backup-missing"]

    assert "error" == found["severity"]
    paste(found["next"])
    assert [] == findings(released_file)


def test_no_sqlite_database_at_all_is_an_error(tmp_path: Path) -> None:
    """A file of another kind is told as what it is."""
    path = tmp_path / "service.sqlite3"
    path.write_text("no database, " * 1000, encoding="utf-8")
    [found] = findings(path)

    assert ("integrity", "error") == (found["code"], found["severity"])
    assert "is not an SQLite database" in found["message"]


def test_a_network_file_system_is_told(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what Linux says is mounted there, the longest and last of the points that the file lies under."""
    mounts = tmp_path / "mounts"
    point = str(database.parent).replace(" ", "\\040")
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {point} nfs4 rw 0 0\nserver:/y /y nfs rw 0 0\n")
    monkeypatch.setattr(surroundings, "MOUNTS", str(mounts))
    [found] = findings(database)

    assert ("network-fs", "warning") == (found["code"], found["severity"])
    assert "(nfs4)" in found["message"]
    mounts.write_text(mounts.read_text() + f"/dev/vdb {point} ext4 rw 0 0\n")
    assert [] == findings(database)
    monkeypatch.setattr(surroundings, "MOUNTS", str(tmp_path / "no such file"))
    assert [] == findings(database)


@contextmanager
def as_somebody(uid: int) -> Iterator[None]:
    """Be another user for a while, where this one is root, who is kept from nothing."""
    if os.geteuid():
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_backup_that_cannot_be_read_is_told(database: Path) -> None:
    """The command makes it readable; the file is not taken for damaged meanwhile."""
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = shutil.copytree(database.parent, Path(name) / "service")
        path = folder / database.name
        for each in (Path(name), folder, *folder.rglob("*")):
            os.chown(each, uid, -1)
        newest_backup(path).chmod(0)
        with as_somebody(uid):
            found = [each for each in findings(path) if each["code"].startswith("backup")]
        assert ["backup-unreadable"] == [each["code"] for each in found]
        paste(found[0]["next"])
        with as_somebody(uid):
            assert "backup-unreadable" not in codes(path)


@pytest.mark.parametrize(
    ("what", "mode", "code"),
    [(".", 0, "permissions"), ("service.sqlite3", 0, "permissions"), ("backups", 0, "backup-unreadable")],
)
def test_what_may_not_be_read_is_told_once(what: str, mode: int, code: str, database: Path) -> None:
    """By its own code, and of what is in a closed folder nothing is said."""
    forbidden = database.parent / what
    allowed = forbidden.stat().st_mode
    forbidden.chmod(mode)
    try:
        done = run_forked(UNPRIVILEGED, "--db-path", database, "doctor", "--json")
    finally:
        forbidden.chmod(allowed)
    [found] = [each for each in done.document["findings"] if each["severity"] == "error"]

    assert (1, code) == (done.code, found["code"])
    assert str(database.parent if what == "." else forbidden) in found["message"]


def test_the_saved_bytes_of_a_damaged_database_are_no_damaged_backup(database: Path) -> None:
    """A restore writes them, without a manifest and for no list, and nothing is wrong after it."""
    name = newest_backup(database).name
    damage_page(database)
    assert 0 == run_cli("--db-path", database, "restore", name).code
    assert [] != list((database.parent / "backups").glob("*Z-damaged.sqlite3"))

    assert [] == [each for each in findings(database) if each["severity"] == "error"]


def test_a_folder_of_backups_that_is_none_is_told(database: Path) -> None:
    """Everything else is looked at all the same."""
    shutil.rmtree(database.parent / "backups")
    (database.parent / "backups").write_text("a file", encoding="utf-8")
    remove_triggers(database)

    assert {"backup-unreadable", "drift"} <= set(codes(database))
    assert 1 == doctor(database).code


def test_a_full_disk_is_told_and_pruned(database: Path, tmp_path: Path) -> None:
    """Where old backups fill it, the command removes them; where there are none, the words name the bytes."""
    for _ in range(6):
        vecmigrate.backup(url(database))
    size = sum(path.stat().st_size for path in database.parent.rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk", size // 1024 + 64) as is_mounted:
        if not is_mounted:
            pytest.skip("only root may mount a disk of a size")
        path = shutil.copytree(database.parent, tmp_path / "disk" / "service") / database.name
        [found] = [each for each in findings(path) if each["code"] == "disk"]
        paste(found["next"])
        assert "disk" not in codes(path)
        shutil.rmtree(path.parent / "backups")
        (path.parent / "ballast").write_bytes(bytes(shutil.disk_usage(path).free - 4096))
        [found] = [each for each in findings(path) if each["code"] == "disk"]
        assert re.fullmatch(r"free [\d,]+ bytes there", found["next"])


def test_a_database_in_the_folder_of_mcp_vector_search_is_moved_out(database: Path, tmp_path: Path) -> None:
    """With its mirror and backups; outside nothing is wrong with it."""
    inside = tmp_path / "project" / ".mcp-vector-search"
    inside.parent.mkdir()
    shutil.copytree(database.parent, inside)
    [found] = findings(inside / database.name)

    assert ("place", "error") == (found["code"], found["severity"])
    paste(found["next"])
    assert [] == list(inside.glob("service*"))
    assert "place" not in codes(inside.parent / database.name)
    assert "current" == run_cli("--db-path", inside.parent / database.name, "status", "--json").document["state"]


def test_a_folder_of_backups_inside_is_told_by_its_setting(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words name what to set."""
    monkeypatch.setenv("VECMIGRATE_BACKUP_DIR", str(tmp_path / ".mcp-vector-search" / "backups"))
    [found] = [each for each in findings(database) if each["code"] == "place"]

    assert f"set VECMIGRATE_BACKUP_DIR to a place outside it, for example {tmp_path / 'backups'}" == found["next"]


def test_a_large_file_is_read_whole_only_when_asked(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage inside pages, broken foreign keys and wrong bits of backups are then found by ``--deep``."""
    monkeypatch.setattr(Subject, "QUICK_BYTES", 1000)
    legacy.execute(
        database,
        "CREATE TABLE notes (n INTEGER PRIMARY KEY, store TEXT REFERENCES vector_stores(vector_store_id))",
        "INSERT INTO notes VALUES (7, 'nobody')",
    )
    flip(newest_backup(database))

    assert [] == codes(database)
    assert {"foreign-keys", "backup-damaged"} == set(codes(database, "--deep"))


def test_damage_of_an_index_is_found_deeply(database: Path) -> None:
    """Only integrity_check compares indexes with their tables."""
    with legacy.opened(database) as connection:
        connection.execute("CREATE TABLE pairs (a, b)")
        connection.execute("CREATE INDEX by_a ON pairs (a)")
        connection.execute("INSERT INTO pairs VALUES (1, 2), (3, 4)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX by_a ON pairs (b)' WHERE name = 'by_a'")
        connection.execute("PRAGMA writable_schema = RESET")

    assert [] == codes(database)
    assert ["integrity"] == codes(database, "--deep")


def test_a_server_is_looked_at_as_far_as_its_catalog_tells(postgresql: sa.URL) -> None:
    """Columns and indexes are compared there; files are no matter."""
    shown = postgresql.render_as_string(hide_password=False)
    vecmigrate.upgrade(shown)

    def found() -> list[Any]:
        listed: list[Any] = run_cli("--database-url", shown, "doctor", "--json").document["findings"]
        return listed

    assert [] == found()
    engine = sa.create_engine(postgresql)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX idx_vs_expires_at")
        connection.exec_driver_sql("ALTER TABLE vector_store_chunks DROP COLUMN end_line")
    engine.dispose()
    messages = [each["message"] for each in found()]
    assert ["The index idx_vs_expires_at on vector_stores is missing."] == [
        each for each in messages if "index" in each
    ]
    assert ["The table vector_store_chunks lacks columns: end_line."] == [each for each in messages if "lacks" in each]


def test_every_code_of_the_readme_is_one_of_the_code() -> None:
    """The table of findings in the README has each code once."""
    readme = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("### What `doctor` finds")[2].partition("\n#")[0]
    )
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "src" / "vecmigrate" / "tools").glob("*.py")]
    # What is asked of no database is found by check.
    sources = "".join(text for text in texts if "Subject" in text)
    told = set(re.findall(r'(?:Finding|of_error)\(\s*"([a-z-]+)"', sources))

    assert sorted(told) == sorted(re.findall(r"^\| `([a-z-]+)` \|", readme, re.MULTILINE))
