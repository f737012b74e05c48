"""The command line: every command and option, what it prints as JSON, and how it exits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import legacy
from doors import Result, run_cli, run_python
from ladder import HEAD, NEWEST, NEXT, REVISIONS, above
from scripts import Scripts

READERS = (
    ("status",),
    ("status", "--check"),
    ("list",),
    ("history",),
    ("history", "--limit", "2"),
    ("preserved",),
    ("backup", "list"),
    ("backup", "verify"),
    ("doctor",),
    ("doctor", "--deep"),
    ("migrate", "--dry-run"),
    ("rollback", "--to-version", "0", "--dry-run"),
    ("rollback", "--to-version", "base", "--from-backup", "--dry-run"),
)

ON_FILE = Callable[..., Result]


@pytest.fixture
def legacy_session_file(tmp_path: Path) -> Path:
    """Return a legacy database with two sessions for one store."""
    path = tmp_path / "two.sqlite3"
    rows = "('s1', 'v1', 'openai', 9, 1, 1, 1), ('s2', 'v1', 'openai', 9, 0, 1, 1)"
    legacy.execute(path, legacy.LEGACY_SQL[0], f"INSERT INTO vector_stores VALUES {rows}")
    return path


@pytest.fixture
def vecmigrate(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> ON_FILE:
    """Return a function that runs a command on a released database, away from any alembic.ini."""
    monkeypatch.chdir(released_file.parent)
    return lambda *words: run_cli("--db-path", released_file, *words)


@pytest.fixture(scope="module")
def migrated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate once for the module, with rows that are converted; what a test works on is a copy."""
    path = legacy.build(tmp_path_factory.mktemp("migrated") / "sessions.sqlite3", "released")
    assert 6 == legacy.add_fractions(path)
    assert run_cli("--db-path", path, "migrate").code == 0
    return path.parent


@pytest.fixture
def migrated(vecmigrate: ON_FILE, migrated_folder: Path, released_file: Path) -> ON_FILE:
    shutil.copytree(migrated_folder, released_file.parent, dirs_exist_ok=True)
    return vecmigrate


def kinds(document: Any) -> Any:
    """Return the shape of a JSON document: keys and the types of values."""
    if isinstance(document, dict):
        return {key: kinds(value) for key, value in document.items()}
    if isinstance(document, list):
        return [kinds(value) for value in document[:1]]
    return type(document).__name__


REPORT = {
    "from": "NoneType",
    "to": "str",
    "applied": ["str"],
    "reverted": [],
    "backup": "str",
    "created": "bool",
    "waited": "bool",
    "rows": {"converted": "int", "set_aside": "int"},
    "duration_seconds": "float",
    "notes": [],
}
BACKUP = {
    "name": "str",
    "path": "str",
    "revision": "NoneType",
    "app_version": "NoneType",
    "created_at": "str",
    "bytes": "int",
    "reason": "str",
    "database_id": "str",
    "sha256": "str",
    "verified": "bool",
}
ATTEMPT = {
    "migration_id": "str",
    "version": "str",
    "name": "str",
    "status": "str",
    "message": "str",
    "executed_at": "str",
    "duration_seconds": "float",
    "metadata": {
        "revision": "str",
        "direction": "str",
        "run_id": "str",
        "backup_path": "str",
        "script_sha256": "str",
        "rows": {"converted": "int", "set_aside": "int"},
    },
}
TABLES = (legacy.OUR_TABLES | legacy.SERVICE_TABLES) - {"schema_version"}
SHAPES: dict[tuple[str, ...], Any] = {
    ("status",): {
        "database": "str",
        "dialect": "str",
        "state": "str",
        "revision": "str",
        "app_version": "str",
        "head": "str",
        "compatible": "NoneType",
        "pending": [],
        "last_run": ATTEMPT,
        "last_backup": BACKUP,
        "preserved_rows": {"converted": "int", "set_aside": "int"},
        "reembed": "NoneType",
        "embedding": {"active": "str", "building": "NoneType"},
        "notes": [],
    },
    ("list",): {
        "revisions": [
            {
                "revision": "str",
                "app_version": "str",
                "name": "str",
                "status": "str",
                "executed_at": "str",
                "duration_seconds": "float",
                "current": "bool",
                "edited": "bool",
                "depends_on": [],
            }
        ]
    },
    ("history",): {"attempts": [ATTEMPT]},
    ("history", "--rebuild"): {"mirror": "str"},
    ("history", "--clear", "--yes"): {"cleared": "int"},
    ("migrate", "--force"): REPORT | {"from": "str", "reverted": ["str"]},
    ("rollback", "--to-version", "0"): REPORT | {"from": "str", "applied": [], "reverted": ["str"]},
    ("rollback", "--to-version", "base", "--from-backup"): REPORT
    | {"from": "str", "to": "NoneType", "applied": [], "restored": "str"},
    ("rollback", "--to-version", "0", "--dry-run"): {
        "dry_run": "bool",
        "ok": "bool",
        "from": "str",
        "to": "str",
        "applied": [],
        "reverted": ["str"],
        "created": "bool",
        "rows": {"converted": "int", "set_aside": "int"},
        "revisions": [
            {
                "revision": "str",
                "name": "str",
                "direction": "str",
                "seconds": "float",
                "rows": {"converted": "int", "set_aside": "int"},
                "reasons": {},
            }
        ],
        "tables": {name: {"before": "int", "after": "int"} for name in TABLES},
        "foreign_keys": [],
        "objects_lost": [],
        "locks": {},
        "bytes_before": "int",
        "bytes_after": "int",
        "disk_needed": "int",
        "lock_seconds": "float",
        "backup": "NoneType",
        "backup_folder": "str",
        "notes": [],
        "error": "NoneType",
    },
    ("rollback", "--to-version", "base", "--from-backup", "--dry-run"): {
        "dry_run": "bool",
        "ok": "bool",
        "from": "str",
        "to": "NoneType",
        "backup": BACKUP,
        "backup_folder": "str",
    },
    ("backup", "list"): {"backups": [BACKUP]},
    ("backup", "verify"): {"backups": [BACKUP | {"problem": "NoneType"}]},
    ("backup", "create"): {"backup": BACKUP | {"revision": "str", "app_version": "str"}},
    ("backup", "prune"): {"removed": []},
    ("versions",): {"versions": [{"app_version": "str", "revision": "str", "compatible_from": "str"}]},
    ("versions", "1.1.0"): {
        "versions": [{"app_version": "str", "revision": "str", "compatible_from": "str"}],
        "revision": "str",
        "note": "NoneType",
    },
    ("preserved", "--limit", "1"): {
        "rows": [
            {
                "id": "int",
                "revision": "str",
                "direction": "str",
                "source_table": "str",
                "row": {
                    "vector_store_id": "str",
                    "name": "NoneType",
                    "session_id": "str",
                    "provider": "str",
                    "provider_metadata": "NoneType",
                    "is_protected": "int",
                    "is_active": "int",
                    "created_at": "float",
                    "expires_at": "int",
                    "updated_at": "int",
                    "document_count": "int",
                    "rollover_from": "NoneType",
                },
                "landed": "int",
                "target_key": "str",
                "converted": {},
                "reason": "str",
                "preserved_at": "str",
                "treatment": "str",
                "memory": "NoneType",
                "operation": "str",
                "source_rowid": "NoneType",
            }
        ]
    },
}


@pytest.mark.parametrize("words", SHAPES, ids=" ".join)
def test_the_json_of_a_command_has_its_shape(words: tuple[str, ...], migrated: ON_FILE) -> None:
    """With --json there is one document on stdout, with the keys and types that scripts rely on."""
    result = migrated(*words, "--json")
    assert result.code == 0, result.err
    shown = kinds(result.document)
    if words[0] == "preserved":
        shown["rows"][0]["converted"] = {}
    assert SHAPES[words] == shown


def test_the_json_of_the_first_migration(vecmigrate: ON_FILE, released_file: Path) -> None:
    """It tells where from and where to, what was applied, and the absolute path of a backup that exists."""
    document = vecmigrate("migrate", "--json").document
    assert REPORT == kinds(document)
    assert (None, HEAD, REVISIONS) == (document["from"], document["to"], document["applied"])
    assert released_file.parent / "backups" == Path(document["backup"]).parent
    assert Path(document["backup"]).is_file()


def test_nothing_to_do_is_said_and_is_no_error(migrated: ON_FILE) -> None:
    """At head, migrate applies nothing, makes no backup, and exits with 0."""
    document = migrated("migrate", "--json").document
    assert (HEAD, HEAD, [], None) == (document["from"], document["to"], document["applied"], document["backup"])
    assert f"Nothing to do: the database is at {HEAD}.\n" == migrated("migrate").out


def test_upgrade_is_another_name_of_migrate(vecmigrate: ON_FILE) -> None:
    """It takes the same options and does the same."""
    assert ["000", "001"] == vecmigrate("upgrade", "--target", "1", "--json").document["applied"]


@pytest.mark.parametrize(
    ("target", "applied"),
    [
        ("head", REVISIONS),
        ("base", []),
        ("1", ["000", "001"]),
        ("001", ["000", "001"]),
        ("0", ["000"]),
        ("+1", ["000"]),
        (f"+{len(REVISIONS)}", REVISIONS),
        (NEWEST, REVISIONS),
        ("1.1.0", ["000", "001"]),
        ("1.0", ["000", "001"]),
        ("0.5", ["000"]),
    ],
)
def test_a_target_names_a_revision(target: str, applied: list[str], vecmigrate: ON_FILE) -> None:
    """Numbers, head and base, steps and app versions all work, and no note is needed."""
    document = vecmigrate("migrate", "--target", target, "--dry-run", "--json").document
    assert applied == document["applied"]
    result = vecmigrate("migrate", "--target", target, "--no-backup", "--json")
    assert (0, applied, []) == (result.code, result.document["applied"], result.document["notes"])


def test_an_app_version_above_the_newest_means_the_newest(vecmigrate: ON_FILE) -> None:
    """It is migrated to head, with a note on stderr."""
    note = f"9.9 is above the newest known app version; {NEWEST} is meant."
    assert f"{note}\n" == vecmigrate("versions", "9.9").err
    result = vecmigrate("migrate", "--version", "9.9", "--json")
    assert (0, HEAD, [note]) == (result.code, result.document["to"], result.document["notes"])
    assert note in result.err


@pytest.mark.parametrize(
    ("target", "reverted"),
    [
        ("head", []),
        (str(int(HEAD)), []),
        ("-1", [HEAD]),
        ("1", above("001")[::-1]),
        ("1.1.0", above("001")[::-1]),
        ("000", above("000")[::-1]),
        ("0.0.0", above("000")[::-1]),
        ("base", REVISIONS[::-1]),
        (f"-{len(REVISIONS)}", REVISIONS[::-1]),
        ("9.0", []),
    ],
)
def test_a_rollback_goes_to_a_target(target: str, reverted: list[str], migrated: ON_FILE) -> None:
    """The plan and the rollback itself name the same steps; at the target nothing is done."""
    plan = migrated("rollback", "--to-version", target, "--dry-run", "--json").document
    assert reverted == plan["reverted"]
    document = migrated("rollback", "--to-version", target, "--json").document
    assert (reverted, bool(reverted)) == (document["reverted"], document["backup"] is not None)


@pytest.mark.parametrize("state", ["vecmigrate", "migrated"])
def test_a_reader_writes_nothing(state: str, request: pytest.FixtureRequest, released_file: Path) -> None:
    """No file, folder, byte or time of change differs afterwards, whatever is read and however much is told."""
    run: ON_FILE = request.getfixturevalue(state)
    before = legacy.tree(released_file.parent)
    for words in READERS:
        assert (words, True) == (words, run(*words).code in {0, 1, 3})
        assert (words, before) == (words, legacy.tree(released_file.parent))
        run_cli("-vv", "--db-path", released_file, *words, "--json")
        assert (words, before) == (words, legacy.tree(released_file.parent))


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_reader_creates_no_database(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing database is reported: no traceback, no file."""
    monkeypatch.chdir(tmp_path)
    result = run_cli("--db-path", "missing.sqlite3", *words)
    assert result.code in {0, 1, 3}
    assert "Traceback" not in result.err
    assert [] == list(tmp_path.iterdir())


def test_an_empty_file_counts_as_absent(tmp_path: Path) -> None:
    """It is reported as absent, and migrated without a backup."""
    path = tmp_path / "empty.sqlite3"
    path.touch()
    assert "absent" == run_cli("--db-path", path, "status", "--json").document["state"]
    document = run_cli("--db-path", path, "migrate", "--json").document
    assert (True, None, HEAD) == (document["created"], document["backup"], document["to"])


def test_status_check_tells_by_its_exit_code(vecmigrate: ON_FILE, released_file: Path, tmp_path: Path) -> None:
    """3 for absent, unversioned and pending, 0 for current; without --check always 0."""
    states = [run_cli("--db-path", tmp_path / "missing", "status", "--check", "--json")]
    states.append(vecmigrate("status", "--check", "--json"))
    vecmigrate("migrate", "--target", "1")
    states.append(vecmigrate("status", "--check", "--json"))
    plain = vecmigrate("status")
    vecmigrate("migrate")
    states.append(vecmigrate("status", "--check", "--json"))
    expected = [("absent", 3), ("unversioned", 3), ("pending", 3), ("current", 0)]
    assert expected == [(state.document["state"], state.code) for state in states]
    assert 0 == plain.code
    assert str(released_file) in plain.out


def test_force_runs_a_revision_again(migrated: ON_FILE, released_file: Path) -> None:
    """Down to just before it and up to where the database was; the data is the same afterwards."""
    before = legacy.digest(released_file)
    document = migrated("migrate", "--force", "--target", "1", "--json").document
    assert (above("000")[::-1], above("000")) == (document["reverted"], document["applied"])
    assert (HEAD, HEAD) == (document["from"], document["to"])
    assert before == legacy.digest(released_file)


def test_force_on_a_pending_revision_applies_it(vecmigrate: ON_FILE) -> None:
    """There is nothing to undo, so it is a plain migration."""
    document = vecmigrate("migrate", "--force", "--target", "1", "--json").document
    assert ([], ["000", "001"]) == (document["reverted"], document["applied"])


def test_no_backup_makes_none(vecmigrate: ON_FILE, released_file: Path) -> None:
    """Neither a backup nor its folder is there, and the report says null."""
    document = vecmigrate("migrate", "--no-backup", "--json").document
    assert (HEAD, None) == (document["to"], document["backup"])
    assert not (released_file.parent / "backups").exists()


def test_history_can_be_limited_rebuilt_and_cleared(migrated: ON_FILE, released_file: Path) -> None:
    """--limit gives the newest, --rebuild the mirror, --clear --yes forgets attempts and no more."""
    everything = migrated("history", "--json").document["attempts"]
    assert everything[-1:] == migrated("history", "--limit", "1", "--json").document["attempts"]

    mirror = released_file.with_suffix(".migrations.json")
    mirror.unlink()
    assert {"mirror": str(mirror)} == migrated("history", "--rebuild", "--json").document
    assert everything == json.loads(mirror.read_text(encoding="utf-8"))["migrations"]

    refused = migrated("history", "--clear")
    assert (2, True) == (refused.code, "--yes" in refused.err)
    assert everything == migrated("history", "--json").document["attempts"]

    rows = legacy.digest(released_file)
    assert {"cleared": len(REVISIONS)} == migrated("history", "--clear", "--yes", "--json").document
    assert ([], []) == (
        migrated("history", "--json").document["attempts"],
        json.loads(mirror.read_text(encoding="utf-8"))["migrations"],
    )
    assert rows == legacy.digest(released_file)
    assert "current" == migrated("status", "--json").document["state"]


def test_a_mirror_that_cannot_be_written_is_an_error_of_rebuild(
    migrated: ON_FILE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the path and the command to run next."""
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(tmp_path / "no" / "mirror.json"))
    result = migrated("history", "--rebuild")
    assert (1, "Traceback" in result.err) == (result.code, False)
    assert str(tmp_path / "no" / "mirror.json") in result.err
    assert "history --rebuild" in result.err


def test_list_marks_the_current_revision(vecmigrate: ON_FILE) -> None:
    """Applied revisions are a success, the others pending, and one is current."""
    vecmigrate("migrate", "--target", "1")
    found = vecmigrate("list", "--json").document["revisions"]
    assert [
        ("000", "success", False),
        ("001", "success", True),
        *((each, "pending", False) for each in above("001")),
    ] == [(each["revision"], each["status"], each["current"]) for each in found]
    pending = [each["executed_at"] for each in found if each["status"] == "pending"]
    assert [None] * len(above("001")) == pending
    assert re.search(r"^->\s+001 ", vecmigrate("list").out, re.MULTILINE)


def test_backups_are_made_listed_verified_and_pruned(migrated: ON_FILE) -> None:
    """Each command works on the backups of this database, newest first."""
    made = migrated("backup", "create", "--json").document["backup"]
    assert (HEAD, "manual", True) == (made["revision"], made["reason"], made["verified"])
    listed = migrated("backup", "list", "--json").document["backups"]
    assert [made["name"], "before upgrade"] == [listed[0]["name"], listed[1]["reason"]]
    assert 0 == migrated("backup", "verify", made["name"]).code

    Path(made["path"]).write_bytes(b"damaged")
    broken = migrated("backup", "verify", "--json")
    assert (1, [False, True]) == (broken.code, [each["verified"] for each in broken.document["backups"]])
    assert f"{made['name']}: " in migrated("backup", "verify", made["name"]).out

    # The verified one of a revision below head stays, whatever its age.
    assert [] == migrated("backup", "prune", "--keep", "1", "--json").document["removed"]
    fresh = [migrated("backup", "create", "--json").document["backup"]["name"] for _ in range(2)]
    removed = migrated("backup", "prune", "--keep", "1", "--json").document["removed"]
    assert sorted([made["name"], fresh[0]]) == sorted(removed)
    left = [each["name"] for each in migrated("backup", "list", "--json").document["backups"]]
    assert [fresh[1], listed[1]["name"]] == left


def test_a_restore_brings_the_state_of_a_backup_back(migrated: ON_FILE, released_file: Path) -> None:
    """By its name with or without extension; the state before is saved, and the history goes on."""
    name = migrated("backup", "create", "--json").document["backup"]["name"]
    at_backup = legacy.digest(released_file)
    legacy.execute(released_file, "DELETE FROM vector_stores")

    document = migrated("restore", name, "--json").document
    assert REPORT | {"from": "str", "applied": [], "restored": "str"} == kinds(document)
    assert at_backup == legacy.digest(released_file)
    saved = Path(document["backup"])
    assert [(0,)] == legacy.query(saved, "SELECT count(*) FROM vector_stores")
    last = migrated("history", "--json").document["attempts"][-1]
    assert ("restore", "success") == (last["metadata"]["direction"], last["status"])
    assert 0 == migrated("restore", name.removesuffix(".sqlite3")).code


def test_a_rollback_from_a_backup_takes_the_newest_of_that_revision(migrated: ON_FILE, released_file: Path) -> None:
    """Not simply the newest file; a named one must be of that revision, and without a fitting one it says so."""
    found = legacy.query(released_file, "SELECT count(*) FROM vector_stores")
    of_base = migrated("backup", "list", "--json").document["backups"][0]["name"]
    newer = migrated("backup", "create", "--json").document["backup"]["name"]

    none = migrated("rollback", "--to-version", "1", "--from-backup", "--json")
    assert (1, "BackupError") == (none.code, none.document["error"]["type"])
    wrong = migrated("rollback", "--to-version", "base", "--from-backup", newer, "--json")
    assert (1, "BackupError") == (wrong.code, wrong.document["error"]["type"])
    assert HEAD == legacy.revision(released_file)

    restored = migrated("rollback", "--to-version", "base", "--from-backup", "--json").document
    assert (of_base, None) == (restored["restored"], restored["to"])
    assert None is legacy.revision(released_file)
    again = migrated("rollback", "--to-version", "base", "--from-backup", of_base, "--json")
    assert (0, of_base) == (again.code, again.document["restored"])
    assert found != [(0,)]


@pytest.mark.parametrize(
    "damage",
    [
        "INSERT INTO vecmigrate_version VALUES ('001')",
        "DELETE FROM vecmigrate_version",
        "UPDATE vecmigrate_version SET version_num = NULL",
        "DROP TABLE vecmigrate_version",
    ],
)
def test_a_state_that_names_no_revision_is_not_filed_as_base(
    damage: str, migrated: ON_FILE, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore saves a damaged state too: it comes back by its name, and neither is nor displaces the way to base."""
    of_base = migrated("backup", "list", "--json").document["backups"][0]["name"]
    of_head = migrated("backup", "create", "--json").document["backup"]["name"]
    if "NULL" in damage:
        legacy.execute(released_file, "DROP TABLE vecmigrate_version", "CREATE TABLE vecmigrate_version (version_num)")
        legacy.execute(released_file, f"INSERT INTO vecmigrate_version VALUES ('{HEAD}')")
    legacy.execute(released_file, damage)
    damaged = legacy.digest(released_file)
    monkeypatch.setenv("VECMIGRATE_KEEP_BACKUPS", "1")

    restored = migrated("restore", of_head, "--json").document
    found = {each["name"]: each for each in migrated("backup", "list", "--json").document["backups"]}
    saved = found[Path(restored["backup"]).name]
    assert "unknown" == saved["revision"]
    assert "-unknown." in saved["name"]
    assert of_base in found
    assert 0 == migrated("backup", "verify").code

    assert 0 == migrated("restore", saved["name"]).code
    assert damaged == legacy.digest(released_file)
    by_name = migrated("rollback", "--to-version", "base", "--from-backup", saved["name"], "--json")
    assert (1, "BackupError") == (by_name.code, by_name.document["error"]["type"])
    back = migrated("rollback", "--to-version", "base", "--from-backup", "--json").document
    assert (of_base, None) == (back["restored"], back["to"])


def test_a_database_that_went_to_base_is_backed_up_as_base(migrated: ON_FILE) -> None:
    """Its version table is there and empty, and that is what base is."""
    assert 0 == migrated("rollback", "--to-version", "base", "--yes").code

    assert None is migrated("backup", "create", "--json").document["backup"]["revision"]
    assert 0 == migrated("backup", "verify").code


def test_old_backups_that_cannot_be_removed_fail_only_prune(
    migrated: ON_FILE, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was asked for is done: a restore and a backup only warn of it, and prune says what it could not do."""
    old, *_, newest = [Path(migrated("backup", "create", "--json").document["backup"]["path"]) for _ in range(4)]
    old.unlink()
    old.mkdir()
    (old / "file").touch()
    monkeypatch.setenv("VECMIGRATE_KEEP_BACKUPS", "1")

    for words in (["restore", newest.name], ["backup", "create"]):
        caplog.clear()
        assert 0 == migrated(*words).code
        assert f"The old backup {old} could not be removed: " in caplog.text
    pruned = migrated("backup", "prune")
    assert 1 == pruned.code
    assert "could not be removed" in pruned.err
    assert "Nothing was changed" not in pruned.err


def test_a_copy_does_not_give_or_take_backups(migrated: ON_FILE, released_file: Path) -> None:
    """It has the identity of the other one, and rows of its own: by its name a backup of it is still to be had."""
    of_file = Path(migrated("backup", "create", "--json").document["backup"]["path"])
    copy = released_file.with_name("staging.sqlite3")
    shutil.copy(of_file, copy)
    legacy.execute(copy, "DELETE FROM vector_stores")
    of_copy = run_cli("--db-path", copy, "backup", "create", "--json").document["backup"]["name"]

    assert 0 == run_cli("--db-path", copy, "backup", "prune", "--keep", "1").code
    assert of_file.exists()
    restored = migrated("rollback", "--to-version", "head", "--from-backup", "--json").document
    assert of_file.name == restored["restored"]
    assert of_copy in {each["name"] for each in migrated("backup", "list", "--json").document["backups"]}
    assert 0 == migrated("restore", of_copy).code
    assert [(0,)] == legacy.query(released_file, "SELECT count(*) FROM vector_stores")


def test_a_moved_database_keeps_its_backups(migrated: ON_FILE, released_file: Path) -> None:
    """Nothing is where it was, so what was made there is its own."""
    name = migrated("backup", "create", "--json").document["backup"]["name"]
    moved = released_file.rename(released_file.with_name("moved.sqlite3"))

    restored = run_cli("--db-path", moved, "rollback", "--to-version", "head", "--from-backup", "--json")
    assert name == restored.document["restored"]


def test_base_with_yes_drops_rows_after_a_backup(tmp_path: Path) -> None:
    """Without --yes it exits with 6 and names the table; with it, the rows are in the backup."""
    path = tmp_path / "new.sqlite3"
    run_cli("--db-path", path, "migrate")
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES ('c', NULL, 'f', 1, 2, 'text')")
    refused = run_cli("--db-path", path, "rollback", "--to-version", "base", "--json")
    assert (6, "WouldLoseRowsError") == (refused.code, refused.document["error"]["type"])
    assert "vector_store_chunks (1 rows)" in refused.document["error"]["message"]
    assert "--yes" in refused.document["error"]["next"]
    assert HEAD == legacy.revision(path)

    document = run_cli("--db-path", path, "rollback", "--to-version", "base", "--yes", "--json").document
    assert None is document["to"]
    assert [("c",)] == legacy.query(Path(document["backup"]), "SELECT chunk_id FROM vector_store_chunks")


def test_preserved_shows_rows_and_reasons(migrated: ON_FILE) -> None:
    """For a person a line with table and reason, and the row; --limit gives the newest."""
    assert 6 == len(migrated("preserved", "--json").document["rows"])
    lines = migrated("preserved", "--limit", "1").out.splitlines()
    assert lines[0].startswith("vector_stores (converted): created_at: ")
    row = json.loads(lines[1])
    assert ("vs_u00008", legacy.EPOCH + 8.5) == (row["vector_store_id"], row["created_at"])


def test_a_row_that_went_back_as_it_was_is_not_called_converted(legacy_session_file: Path) -> None:
    """A loser without a winner goes back as it is: nothing is counted, and the record says what it is for."""
    path = legacy_session_file
    assert {"converted": 0, "set_aside": 1} == run_cli("--db-path", path, "migrate", "--json").document["rows"]
    legacy.execute(path, "DELETE FROM vector_stores")

    back = run_cli("--db-path", path, "rollback", "--to-version", "0", "--json").document
    assert {"converted": 0, "set_aside": 0} == back["rows"]
    status = run_cli("--db-path", path, "status", "--json").document
    assert {"converted": 0, "set_aside": 0} == status["preserved_rows"]
    line = run_cli("--db-path", path, "preserved").out.splitlines()[0]
    assert line.startswith("vector_stores (as it was): vector_store_id: already taken by a row ")


# Exit codes.


def error_of(result: Result) -> Any:
    """Return the error in the one JSON document of a failed command, after comparing it with stderr."""
    error = result.document["error"]
    assert {"exit_code", "type", "message", "next"} <= error.keys()
    assert result.code == error["exit_code"]
    assert error["message"] in result.err
    return error


def test_exit_1_for_what_the_user_can_mend(vecmigrate: ON_FILE) -> None:
    """An unknown target is an error with a message and the next command, also in JSON."""
    error = error_of(vecmigrate("migrate", "--target", "99", "--json"))
    assert (1, "TargetError", "vecmigrate versions") == (error["exit_code"], error["type"], error["next"])


@pytest.mark.parametrize(
    ("words", "next_step"),
    [
        (("--json",), "vecmigrate COMMAND --json"),
        (("backup", "--json"), "vecmigrate backup COMMAND --json"),
        (("nonsense", "--json"), "vecmigrate --help"),
        (("status", "--nonsense", "--json"), "vecmigrate status --help"),
        (("status", "too", "many", "--json"), "vecmigrate status --help"),
        (("status", "--db-path", "sessions.sqlite3", "--json"), "vecmigrate --db-path FILE status"),
        (("backup", "list", "-v", "--json"), "vecmigrate -v backup list"),
        (("migrate", "--target", "1", "--version", "1.0.0", "--json"), "vecmigrate migrate --help"),
        (("rollback", "--json"), "vecmigrate rollback --help"),
        (("restore", "--json"), "vecmigrate restore --help"),
        (("history", "--limit", "0", "--json"), "vecmigrate history --help"),
        (("history", "--limit", "many", "--json"), "vecmigrate history --help"),
        (("history", "--clear", "--json"), "vecmigrate history --help"),
        (("backup", "prune", "--keep", "0", "--json"), "vecmigrate backup prune --help"),
        (("--database-url", "sqlite:///other.sqlite3", "status", "--json"), "vecmigrate status --help"),
    ],
)
def test_exit_2_for_usage(words: tuple[str, ...], next_step: str, vecmigrate: ON_FILE, released_file: Path) -> None:
    """A wrong command line changes nothing, and gives one JSON document where one is asked for."""
    before = legacy.tree(released_file.parent)
    error = error_of(vecmigrate(*words))
    assert (2, "UsageError", next_step) == (error["exit_code"], error["type"], error["next"])
    assert before == legacy.tree(released_file.parent)


def test_exit_4_for_a_database_that_stays_locked(
    vecmigrate: ON_FILE, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the wait, and nothing has changed."""
    monkeypatch.setenv("VECMIGRATE_LOCK_TIMEOUT", "0.2")
    with legacy.opened(released_file) as holder:
        holder.execute("BEGIN IMMEDIATE")
        error = error_of(vecmigrate("migrate", "--json"))
    assert (4, "LockTimeoutError") == (error["exit_code"], error["type"])
    assert "0.2 seconds" in error["message"]
    assert None is legacy.revision(released_file)
    assert 0 == vecmigrate("migrate").code


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(tmp_path / "scripts", monkeypatch)


def test_exit_5_for_a_revision_that_fails(scripts: Scripts, vecmigrate: ON_FILE, released_file: Path) -> None:
    """The database is as it was, the error names the revision and the backup, the history has the attempt."""
    scripts.add('raise RuntimeError("canary")')
    before = legacy.digest(released_file)
    result = vecmigrate("migrate", "--json")
    error = error_of(result)
    assert (5, "RunFailedError") == (error["exit_code"], error["type"])
    assert NEXT in error["message"]
    assert Path(error["backup"]).is_file()
    assert "Traceback" not in result.err
    assert before == legacy.digest(released_file)
    listed = vecmigrate("list", "--json").document["revisions"]
    assert [*["pending"] * len(REVISIONS), "failed"] == [each["status"] for each in listed]
    attempts = vecmigrate("history", "--json").document["attempts"]
    assert [*["skipped"] * len(REVISIONS), "failed"] == [each["status"] for each in attempts]


def test_verbose_shows_the_traceback(scripts: Scripts, released_file: Path) -> None:
    """Only -v does, before the message, and stdout stays one document."""
    scripts.add('raise RuntimeError("why it failed")')
    for option in ("-v", "-vv", "--verbose"):
        result = run_cli(option, "--db-path", released_file, "migrate", "--json")
        assert (5, True) == (result.code, "Traceback" in result.err)
        assert "RunFailedError" == result.document["error"]["type"]


def test_exit_6_for_what_needs_a_person(vecmigrate: ON_FILE, released_file: Path) -> None:
    """A table with a name of ours that is not ours stops the run before it changes anything."""
    legacy.execute(released_file, "CREATE TABLE embedding_models (something TEXT)")
    before = legacy.tree(released_file.parent)
    error = error_of(vecmigrate("migrate", "--json"))
    assert (6, "NotOursError") == (error["exit_code"], error["type"])
    assert "embedding_models" in error["message"]
    assert before == legacy.tree(released_file.parent)


def test_what_nobody_foresaw_is_an_error_without_a_traceback(
    migrated: ON_FILE, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one line and exit code 1, and -v shows where it came from."""

    def fails(*_: object, **__: object) -> NoReturn:
        raise KeyError

    monkeypatch.setattr("vecmigrate.preserved.rows", fails)
    result = migrated("preserved", "--json")
    assert 1 == error_of(result)["exit_code"]
    assert "Traceback" not in result.err
    assert "Traceback" in run_cli("-v", "--db-path", released_file, "preserved").err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_for_the_lock(number: signal.Signals, code: int, released_file: Path) -> None:
    """The process ends at once with 128 and the signal's number, and one JSON document."""
    with legacy.opened(released_file) as holder:
        holder.execute("BEGIN IMMEDIATE")
        program = "import sys; from vecmigrate.cli import main; print(file=sys.stderr, flush=True); main()"
        words = [sys.executable, "-c", program, "--db-path", str(released_file), "migrate", "--json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            process.stderr.readline()
            time.sleep(0.5)
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
    assert (code, code) == (process.returncode, json.loads(out)["error"]["exit_code"])
    assert "Traceback" not in err


# Global options.


def test_quiet_tells_only_errors(vecmigrate: ON_FILE, released_file: Path) -> None:
    """Notes are left out, answers and errors are not."""
    quiet = run_cli("-q", "--db-path", released_file, "migrate", "--version", "9.9")
    assert (0, "") == (quiet.code, quiet.err)
    assert quiet.out.startswith(f"From base to {HEAD}")
    assert "" == run_cli("--quiet", "versions", "9.9").err
    assert "no revision 99" in run_cli("-q", "--db-path", released_file, "migrate", "--target", "99").err
    assert "9.9 is above" in vecmigrate("versions", "9.9").err


def test_verbose_logs_to_stderr_and_not_to_stdout(released_file: Path) -> None:
    """In a process of its own, -v and -vv leave stdout one document."""
    code = "from vecmigrate.cli import main; main()"
    result = run_python(code, "-vv", "--db-path", released_file, "migrate", "--json")
    assert (0, HEAD) == (result.code, result.document["to"])
    assert "Running upgrade" in result.err


def test_version_is_that_of_the_package() -> None:
    """--version prints it and needs no database."""
    import vecmigrate  # noqa: PLC0415 - the name is a fixture's elsewhere

    result = run_cli("--version")
    assert (0, True) == (result.code, str(vecmigrate.__version__) in result.out)


def test_a_database_is_named_by_url_or_path_or_environment(
    released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way leads to the same file, and an argument wins over the environment."""
    monkeypatch.chdir(released_file.parent)
    expected = str(released_file)
    ways = [("--db-path", released_file.name), ("--database-url", f"sqlite:///{released_file}")]
    assert [expected] * 2 == [run_cli(*way, "status", "--json").document["database"] for way in ways]
    monkeypatch.setenv("VECMIGRATE_DATABASE_URL", "sqlite:///other.sqlite3")
    assert expected == run_cli(*ways[0], "status", "--json").document["database"]
    assert str(released_file.parent / "other.sqlite3") == run_cli("status", "--json").document["database"]


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    """Spaces, per cent, question mark, hash and letters of all kinds reach the file unchanged."""
    path = tmp_path / "a b%20?c=d#é:@'\".sqlite3"
    document = run_cli("--db-path", path, "migrate", "--json").document
    assert HEAD == document["to"]
    assert [path.name] == [each.name for each in tmp_path.iterdir() if each.suffix == ".sqlite3"]
    assert "current" == run_cli("--db-path", path, "status", "--json").document["state"]


# alembic.ini.


def write_ini(folder: Path, text: str) -> Path:
    path = folder / "alembic.ini"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_ini_of_ours_in_the_current_folder_is_used(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database is the default one, whose backups go beside the ini."""
    folder = released_file.parent.parent
    write_ini(folder, "[vecmigrate]\ndatabase_url = sqlite:///%(here)s/service/sessions.sqlite3\n")
    monkeypatch.chdir(folder)
    document = run_cli("migrate", "--json").document
    assert folder / "backups" == Path(document["backup"]).parent
    other = legacy.build(released_file.parent / "other.sqlite3", "early")
    document = run_cli("--db-path", other, "migrate", "--json").document
    assert released_file.parent / "backups" == Path(document["backup"]).parent


def test_an_ini_is_named_by_config(released_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found from anywhere, and its settings count below those of the environment."""
    ini = write_ini(released_file.parent, f"[vecmigrate]\ndatabase_url = sqlite:///{released_file}\nbackup = never\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECMIGRATE_BACKUP", "always")
    document = run_cli("--config", ini, "migrate", "--json").document
    assert (HEAD, True) == (document["to"], document["backup"] is not None)


@pytest.mark.parametrize("text", ["[alembic]\nscript_location = migrations\n", "[alembic\nbroken", "\x00\xff"])
def test_an_ini_of_somebody_else_is_ignored_with_a_note(
    text: str, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it holds; the note is on stderr, and -q leaves it out."""
    monkeypatch.chdir(released_file.parent)
    write_ini(released_file.parent, text)
    result = run_cli("--db-path", released_file, "status", "--json")
    assert (0, "unversioned") == (result.code, result.document["state"])
    assert "has no section [vecmigrate]" in result.err
    assert "" == run_cli("-q", "--db-path", released_file, "status").err


def test_an_ini_of_somebody_else_named_by_config_is_an_error(released_file: Path) -> None:
    """Whoever names it means it, so it is not ignored."""
    ini = write_ini(released_file.parent, "[alembic]\nscript_location = migrations\n")
    before = legacy.tree(released_file.parent)
    error = error_of(run_cli("--config", ini, "--db-path", released_file, "migrate", "--json"))
    assert (1, "ConfigurationError") == (error["exit_code"], error["type"])
    assert str(ini) in error["message"]
    assert before == legacy.tree(released_file.parent)


def test_commands_need_no_terminal_and_no_home(released_file: Path) -> None:
    """With an almost empty environment the command works, and prints nothing but its answer to stdout."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from vecmigrate.cli import main; main()",
            "--db-path",
            released_file,
            "status",
            "--json",
        ],
        env={name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ},
        cwd=released_file.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unversioned" == json.loads(done.stdout)["state"]
    assert "" == done.stderr


def test_control_characters_of_a_database_are_not_sent_to_the_terminal(released_file: Path) -> None:
    """A terminal would obey them."""
    assert 0 == run_cli("--db-path", released_file, "migrate").code
    odd = "'a' || char(27) || ']0;title' || char(7) || char(10) || char(155) || '2J'"
    legacy.execute(released_file, f"UPDATE vecmigrate_history SET message = {odd}")
    legacy.execute(released_file, f"INSERT INTO embedding_models VALUES ({odd}, 3, 'retired', 1)")

    for words in (("history",), ("embeddings", "list"), ("embeddings", "purge", "--yes")):
        shown = run_cli("--db-path", released_file, *words)
        assert "title" in shown.out
        assert not set("\x1b\x07\x9b") & set(shown.out + shown.err)
