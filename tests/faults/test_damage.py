"""Damaged files are refused or healed, as fits; a refusal changes nothing and shows no traceback."""

import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_alembic, run_cli
from faults import harness
from faults.harness import ROUNDS, Subject, tried
from ladder import HEAD, REVISIONS

ENDS = {0, 1, 5, 6}


def require_answers(database: Path) -> None:
    """Fail if a reader shows a traceback, or changes a byte."""
    before = {name: entry[2] for name, entry in legacy.tree(database.parent).items()}
    for words in (["status"], ["list"], ["history"], ["backup", "list"], ["backup", "verify"], ["preserved"]):
        result = run_cli("--db-path", database, *words)
        assert result.code in ENDS, result.err
        harness.require_explained(result.err)
    after = {name: entry[2] for name, entry in legacy.tree(database.parent).items()}
    sidecars = (f"{database.name}-wal", f"{database.name}-shm")
    assert {n: v for n, v in before.items() if n not in sidecars} == {
        n: v for n, v in after.items() if n not in sidecars
    }


def migrate(database: Path) -> int:
    """Migrate a damaged file; where that is refused, nothing may have changed."""
    before = database.read_bytes()
    result = run_cli("--db-path", database, "migrate")
    assert result.code in ENDS, result.err
    harness.require_explained(result.err)
    if result.code == 1:
        assert before == database.read_bytes()
    if result.code:
        assert "Next: " in result.err
    return result.code


@pytest.mark.parametrize("state", ["legacy", "migrated"])
def test_flipped_bytes(state: str, mode: str, small: Subject, tmp_path: Path) -> None:
    """Bytes that changed on the disk are found, or lie where they do no harm; nothing crashes."""
    dice = random.Random(f"{state} {mode}")  # noqa: S311 - it must be the same each time
    for number in range(ROUNDS * 2):
        database = small.copy(tmp_path / str(number))
        if state == "migrated":
            vecmigrate.upgrade(harness.url(database))
        content = bytearray(database.read_bytes())
        for _ in range(dice.choice([1, 20, 400])):
            # The first pages hold the schema and the version, where a flip hurts most.
            position = dice.randrange(len(content) if dice.random() < 0.5 else 8192)
            content[position] ^= 1 << dice.randrange(8)
        database.write_bytes(content)
        require_answers(database)
        code = migrate(database)
        tried("Damage", f"1, 20 or 400 flipped bits in a {state} database", "refused" if code else "harmless")


def test_truncation(mode: str, small: Subject, tmp_path: Path) -> None:
    """A file that lost its end is refused, an empty one counts as absent."""
    content = small.template.read_bytes()
    for number in range(ROUNDS):
        database = small.copy(tmp_path / str(number))
        length = len(content) * number // ROUNDS
        database.write_bytes(content[:length])
        require_answers(database)
        code = migrate(database)
        assert (code == 0) == (length == 0)
        tried("Damage", "a truncated database", "refused" if code else "empty, so made anew")
    del mode


@pytest.mark.parametrize("length", [0, 100, 4096, 70_000])
def test_zeros_are_no_database(length: int, tmp_path: Path) -> None:
    """A file of zeros is not one of ours; only an empty one is made anew."""
    database = tmp_path / "sessions.sqlite3"
    database.write_bytes(bytes(length))
    require_answers(database)
    assert (migrate(database) == 0) == (length == 0)
    tried("Damage", "a file of zero bytes", "refused" if length else "empty, so made anew")


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000, bytes(5000)])
def test_a_wal_that_is_not_one_does_no_harm(content: bytes, small: Subject, tmp_path: Path) -> None:
    """SQLite passes over a WAL that is not its own, and so do we."""
    database = small.copy(tmp_path / "service")
    database.with_name(f"{database.name}-wal").write_bytes(content)
    require_answers(database)
    assert 0 == migrate(database)
    assert small.after == harness.contents(database)
    tried("Damage", "a foreign or damaged -wal", "passed over, new state")


def by_cli(*words: str) -> Callable[[Path], int]:
    return lambda database: run_cli("--db-path", database, *words).code


def by_alembic(database: Path) -> int:
    return run_alembic(database, "upgrade", "head").code


def by_boot(database: Path) -> int:
    return 0 if vecmigrate.ensure_current(database).usable else 1


DOORS = {
    "status": by_cli("status"),
    "list": by_cli("list"),
    "backup list": by_cli("backup", "list"),
    "backup create": by_cli("backup", "create"),
    "migrate --dry-run": by_cli("migrate", "--dry-run"),
    "history --clear": by_cli("history", "--clear", "--yes"),
    "migrate": by_cli("migrate"),
    "alembic": by_alembic,
    "boot": by_boot,
}


@pytest.mark.parametrize("mode", ["wal"], indirect=True)
@pytest.mark.parametrize("lost", ["gone", "empty"])
def test_a_wal_that_has_lost_its_database_is_kept(lost: str, small: Subject, tmp_path: Path) -> None:
    """SQLite would delete it with all the commits that it holds, even for a reader; only a restore moves it aside."""
    database = small.copy(tmp_path / "service")
    name = vecmigrate.backup(harness.url(database)).name
    wal = database.with_name(f"{database.name}-wal")
    with _abandoned(database, "INSERT INTO memory_meta VALUES ('k', 'v')") as crashed:
        pass
    shutil.copy(f"{crashed}-wal", wal)
    database.unlink()
    if lost == "empty":
        database.touch()
    before = wal.read_bytes()
    assert before
    for what, action in DOORS.items():
        code = action(database)
        assert before == wal.read_bytes(), what
        assert (what == "backup list") == (code == 0), what
        assert (lost == "empty") == database.exists(), what

    assert 0 == run_cli("--db-path", database, "restore", name).code

    assert small.before == harness.contents(database)
    assert [before] == [each.read_bytes() for each in database.parent.glob("*.damaged-*-wal")]
    tried("Damage", f"a -wal whose database is {lost}", "refused, and moved aside by a restore")


def test_the_wal_of_another_database(tmp_path: Path) -> None:
    """The WAL of another file, with valid frames, damages what it is laid beside; that is refused or harmless."""
    database = harness.big_legacy(tmp_path / "sessions.sqlite3", "wal", rows=10)
    other = tmp_path / "other.sqlite3"
    with legacy.opened(other) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (zeroblob(20000))")
        shutil.copy(f"{other}-wal", f"{database}-wal")
    result = run_cli("--db-path", database, "migrate")
    assert result.code in ENDS
    harness.require_explained(result.err)
    tried("Damage", "the valid -wal of another database", f"exit {result.code}")


@contextlib.contextmanager
def _abandoned(database: Path, *statements: str) -> Iterator[Path]:
    """Copy a database with its sidecars while somebody has it open, as a crash would leave it."""
    with legacy.opened(database) as connection:
        for statement in statements:
            connection.execute(statement)
        folder = database.parent / "crashed"
        folder.mkdir()
        for each in database.parent.glob(f"{database.name}*"):
            shutil.copy(each, folder)
        yield folder / database.name


@pytest.mark.parametrize("mode", ["wal"], indirect=True)
def test_thousands_of_frames_that_no_checkpoint_has_moved(small: Subject, tmp_path: Path) -> None:
    """Commits that stand only in the WAL are migrated and backed up like all others."""
    database = small.copy(tmp_path / "service")
    fill = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) "
        "INSERT INTO memory_meta SELECT 'k' || i, hex(randomblob(1000)) FROM n"
    )
    with _abandoned(database, "PRAGMA wal_autocheckpoint = 0", fill) as crashed:
        assert crashed.with_name(f"{crashed.name}-wal").stat().st_size > 4_000_000
        assert 0 == migrate(crashed)
        for file in (crashed, *harness.backup_files(crashed)):
            assert [(4001,)] == legacy.query(file, "SELECT count(*) FROM memory_meta")
    tried("Damage", "4,000 rows that stand only in the WAL", "all migrated, all in the backup")


@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_a_hot_journal_is_rolled_back(small: Subject, tmp_path: Path) -> None:
    """What a crashed writer had not committed is in neither the database nor the backup."""
    database = small.copy(tmp_path / "service")
    fill = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) "
        "INSERT INTO memory_meta SELECT 'k' || i, hex(randomblob(1000)) FROM n"
    )
    with _abandoned(database, "PRAGMA cache_size = 5", "BEGIN IMMEDIATE", fill) as crashed:
        assert crashed.with_name(f"{crashed.name}-journal").stat().st_size > 0
        assert 0 == migrate(crashed)
        assert small.after == harness.contents(crashed)
        assert [(1,)] == legacy.query(harness.backup_files(crashed)[0], "SELECT count(*) FROM memory_meta")
    tried("Damage", "a hot journal", "rolled back, new state")


def _flip(data: Path, _manifest: Path) -> None:
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def _change_a_row(data: Path, _manifest: Path) -> None:
    legacy.execute(data, "UPDATE memory_meta SET value = '2'")


def _truncate(data: Path, _manifest: Path) -> None:
    data.write_bytes(data.read_bytes()[:-4096])


def _empty(data: Path, _manifest: Path) -> None:
    data.write_bytes(b"")


def _exchange(data: Path, _manifest: Path) -> None:
    first, second = sorted(data.parent.glob("*.sqlite3"))[:2]
    aside = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(aside)


def _foreign_data(data: Path, manifest: Path) -> None:
    other = legacy.build(data.parent.parent / "foreign.sqlite3", "released")
    vecmigrate.upgrade(harness.url(other))
    made = vecmigrate.backup(harness.url(other))
    data.write_bytes(Path(made.path).read_bytes())
    document = json.loads(Path(made.path).with_suffix(".json").read_text(encoding="utf-8"))
    document["database_id"] = json.loads(manifest.read_text(encoding="utf-8"))["database_id"]
    manifest.write_text(json.dumps(document), encoding="utf-8")


def _not_json(_data: Path, manifest: Path) -> None:
    manifest.write_bytes(b'{"sha256": "\xff')


def _list(_data: Path, manifest: Path) -> None:
    manifest.write_text("[]", encoding="utf-8")


def _gone(data: Path, _manifest: Path) -> None:
    data.unlink()


@pytest.mark.parametrize(
    "damage",
    [_flip, _change_a_row, _truncate, _empty, _exchange, _foreign_data, _not_json, _list, _gone],
    ids=lambda f: f.__name__,
)
def test_a_damaged_backup_is_never_restored(
    damage: Callable[[Path, Path], None], small: Subject, tmp_path: Path
) -> None:
    """Verify tells of it, restore refuses it, and the database stays as it is."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    vecmigrate.backup(harness.url(database))
    (data, *_) = harness.backup_files(database)
    damage(data, data.with_suffix(".json"))

    before = harness.contents(database)
    restored = run_cli("--db-path", database, "restore", data.name)
    assert 1 == restored.code, restored.err
    assert "Nothing was changed." in restored.err
    newest = run_cli("--db-path", database, "rollback", "--to-version", "base", "--from-backup")
    assert 1 == newest.code, newest.err
    assert before == harness.contents(database)
    require_answers(database)
    tried("Damage", f"a backup or manifest: {damage.__name__.strip('_').replace('_', ' ')}", "refused")


MIRRORS = {
    "empty": b"",
    "truncated": b'{"migrations": [{"migration_id": "0.0.0_leg',
    "a list": b"[]",
    "a number": b"1",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"migrations": ["\xff\xfe"]}',
    "of another database": b'{"migrations": [{"migration_id": "0.0.0_legacy_baseline", "status": "success"}]}',
    "newer": b'{"migrations": [], "last_updated": "2999-01-01T00:00:00+00:00", "format": 9}',
}


@pytest.mark.parametrize("content", MIRRORS.values(), ids=MIRRORS)
def test_a_damaged_mirror_decides_nothing_and_is_healed(content: bytes, small: Subject, tmp_path: Path) -> None:
    """Whatever the mirror says, the table counts; the next run writes the mirror anew."""
    database = small.copy(tmp_path / "service")
    mirror = database.with_suffix(".migrations.json")
    mirror.write_bytes(content)
    mirror.chmod(0o644)
    assert 0 == migrate(database)
    assert harness.table_entries(database) == harness.mirror_entries(database)

    mirror.write_bytes(content)
    require_answers(database)
    assert 0 == migrate(database)
    assert harness.table_entries(database) == harness.mirror_entries(database)
    assert 0o600 == mirror.stat().st_mode & 0o777
    assert ["success"] * len(REVISIONS) == harness.statuses(database)
    tried("Damage", "a mirror that is empty, truncated, a list, not UTF-8, foreign or newer", "healed")


MARKERS = {
    "empty": "",
    "a list": "[]",
    "deep": "[" * 100_000,
    "of wrong types": '{"run_id": 1, "database_id": 5, "started_at": null, "direction": 1, "steps": 1, "backup": 7}',
    "steps of wrong types": '{"run_id": "x", "database_id": "..", "started_at": "z", "direction": "up", "steps": [1], '
    '"backup": null}',
    "steps without names": '{"run_id": "x", "database_id": "a", "started_at": "z", "direction": "up", '
    '"steps": [{"revision": "001"}], "backup": null}',
    "newer": '{"run_id": "x", "later": 1}',
}


@pytest.mark.parametrize("content", MARKERS.values(), ids=MARKERS)
def test_a_marker_that_is_none_stops_nothing(content: str, small: Subject, tmp_path: Path) -> None:
    """What looks like the marker of a dead run and is none goes with the next run, and is no attempt."""
    database = small.copy(tmp_path / "service")
    database.with_name(f"{database.name}.run-{'0' * 32}.json").write_text(content, encoding="utf-8")
    database.with_name(f"{database.name}.run-{'1' * 32}.json").mkdir()
    require_answers(database)
    assert 0 == migrate(database)
    database.with_name(f"{database.name}.run-{'1' * 32}.json").rmdir()
    assert ["success"] * len(REVISIONS) == harness.statuses(database)
    harness.require_tidy(database)
    tried("Damage", "the marker of a run: empty, truncated, of wrong types, newer, a folder", "passed over, new state")


VERSIONS = {
    "empty": ("DELETE FROM vecmigrate_version", {0, 5, 6}),
    "two rows": ("INSERT INTO vecmigrate_version VALUES ('001')", {6}),
    "unknown": ("UPDATE vecmigrate_version SET version_num = '099'", {6}),
    "text": ("UPDATE vecmigrate_version SET version_num = 'no such; DROP TABLE x'", {6}),
    "older": ("UPDATE vecmigrate_version SET version_num = '001'", {0, 5, 6}),
    "not UTF-8": ("UPDATE vecmigrate_version SET version_num = CAST(x'fffe' AS TEXT)", {1, 6}),
    "a blob": ("UPDATE vecmigrate_version SET version_num = x'00ff'", {1, 6}),
}


@pytest.mark.parametrize(("statement", "codes"), VERSIONS.values(), ids=VERSIONS)
def test_a_version_table_that_is_wrong(statement: str, codes: set[int], small: Subject, tmp_path: Path) -> None:
    """A revision that cannot be is refused with what to do, and nothing is changed."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    # Without a newer version's word on who may run on it, nobody may.
    legacy.execute(database, statement, "DELETE FROM vecmigrate_meta WHERE key = 'compatible_from'")
    before = harness.contents_or_bytes(database)
    require_answers(database)
    result = run_cli("--db-path", database, "migrate")
    assert result.code in codes, result.err
    harness.require_explained(result.err)
    if result.code:
        assert "Next: " in result.err
        assert before == harness.contents_or_bytes(database)
    tried("Damage", "a version table that is empty, has two rows, or an unknown revision", f"exit {result.code}")


def test_rows_of_the_tool_itself_that_are_wrong(small: Subject, tmp_path: Path) -> None:
    """Metadata that is no JSON, in the history, stops neither readers nor runs."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    for metadata in ("", "[]", "{", "null"):
        legacy.execute(database, f"UPDATE vecmigrate_history SET metadata = '{metadata}'")
        require_answers(database)
        assert 0 == run_cli("--db-path", database, "migrate", "--force").code
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert HEAD == connection.execute("SELECT version_num FROM vecmigrate_version").fetchone()[0]
    tried("Damage", "metadata in the history that is none", "passed over")


ODD_VALUES = ["x'00ff'", "CAST(x'fffe' AS TEXT)", "'text'", "7", "1e400", "''"]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_a_history_of_values_of_any_type_stops_nothing(value: str, small: Subject, tmp_path: Path) -> None:
    """Readers show what can be shown, and a run is neither refused nor called failed after its commit."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    columns = [name for _, name, *_ in legacy.query(database, "PRAGMA table_info(vecmigrate_history)") if name != "id"]
    for column in columns:
        legacy.execute(database, f"UPDATE vecmigrate_history SET {column} = {value} WHERE id = 1")
        require_shown(database, "attempts", "history")
        require_shown(database, "revisions", "list")
    require_answers(database)
    assert 0 == run_cli("--db-path", database, "migrate", "--force").code
    assert harness.table_entries(database) == harness.mirror_entries(database)
    legacy.execute(database, *(f"UPDATE vecmigrate_history SET {column} = {value}" for column in columns))
    require_answers(database)
    assert 0 == run_cli("--db-path", database, "migrate", "--force").code
    tried("Damage", "values of any type in the history", "shown, and no run fails")


def require_shown(database: Path, key: str, *words: str) -> None:
    """Fail if a reader does not list something, for people and for programs."""
    plain, told = (run_cli("--db-path", database, *words, *more) for more in ([], ["--json"]))
    assert (0, 0) == (plain.code, told.code), plain.err + told.err
    assert json.loads(told.out, parse_constant=pytest.fail)[key]


METADATA = ['{"direction": 1, "revision": []}', '{"error": "\\ud800"}', '{"n": NaN}', "[" * 9000, '{"a": ' * 9000]


@pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
def test_metadata_of_any_kind_stop_nothing(metadata: str, small: Subject, tmp_path: Path) -> None:
    """What somebody wrote there is neither taken for the attempt's direction nor in the way of the mirror."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    legacy.execute(database, f"UPDATE vecmigrate_history SET metadata = '{metadata}' WHERE id = 1")
    require_shown(database, "attempts", "history")
    assert 0 == run_cli("--db-path", database, "migrate", "--force").code
    entries = harness.mirror_entries(database)
    assert ("000", "upgrade") == tuple(entries[0]["metadata"][name] for name in ("revision", "direction"))
    assert len(REVISIONS) + 2 == len(entries)
    tried("Damage", "metadata in the history of any kind", "shown, and in the mirror")


@pytest.mark.parametrize("value", ["'not JSON'", "x'00ff'", "CAST(x'7bff' AS TEXT)", "'" + "[" * 9000 + "'"])
def test_a_row_kept_aside_that_is_damaged_is_shown_as_it_is(value: str, tmp_path: Path) -> None:
    """Its text is what can be shown; the other rows are shown as ever."""
    database = legacy.build(tmp_path / "sessions.sqlite3", "released")
    assert legacy.add_fractions(database)
    vecmigrate.upgrade(harness.url(database))
    legacy.execute(
        database,
        f"UPDATE vecmigrate_preserved SET row = {value} WHERE id = 1",
        f"UPDATE vecmigrate_preserved SET converted = {value}, reason = {value}, source_table = {value} WHERE id = 2",
    )
    require_shown(database, "rows", "preserved")
    rows = run_cli("--db-path", database, "preserved", "--json").document["rows"]
    assert [str, dict] == [type(each["row"]) for each in rows[-1:-3:-1]]
    tried("Damage", "a damaged row among those kept aside", "shown as it is")


@pytest.mark.parametrize("value", ["x'00ff'", "CAST(x'fffe' AS TEXT)", "7"])
def test_what_the_database_says_of_itself_may_be_of_any_type(value: str, small: Subject, tmp_path: Path) -> None:
    """Readers and runs go on with an identity and an app version that are no text."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    legacy.execute(database, f"UPDATE vecmigrate_meta SET value = {value}")
    require_answers(database)
    assert 0 == run_cli("--db-path", database, "status").code
    assert 0 == run_cli("--db-path", database, "backup", "create").code
    assert 0 == run_cli("--db-path", database, "migrate", "--force").code
    tried("Damage", "values of any type in vecmigrate_meta", "backed up, new state")


def _spoil_the_schema(database: Path) -> None:
    with legacy.opened(database) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        cut = "CAST(substr(CAST(sql AS BLOB), 1, 30) || x'ff' || substr(CAST(sql AS BLOB), 32) AS TEXT)"
        connection.execute(f"UPDATE sqlite_master SET sql = {cut} WHERE name = 'trg_sessions'")


def _spoil_the_header(database: Path) -> None:
    legacy.execute(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.seek(18)
        file.write(b"\x05")


def _spoil_by(*statements: str) -> Callable[[Path], None]:
    return lambda database: legacy.execute(database, *statements)


_REMADE = (
    "CREATE TABLE h AS SELECT * FROM vecmigrate_history",
    "DROP TABLE vecmigrate_history",
    "ALTER TABLE h RENAME TO vecmigrate_history",
)
RESTORED = {
    "a schema that is not UTF-8": (_spoil_the_schema, ""),
    "a header that forbids writing": (_spoil_the_header, "moved aside"),
    "history that is not UTF-8": (
        _spoil_by("UPDATE vecmigrate_history SET message = CAST(x'73656372ff' AS TEXT) WHERE id = 1"),
        "",
    ),
    "history with NULL": (
        _spoil_by(*_REMADE, "UPDATE vecmigrate_history SET message = NULL WHERE id = 1"),
        "1 damaged entries were left out",
    ),
    "history that lacks a column": (
        _spoil_by(*_REMADE, "ALTER TABLE vecmigrate_history DROP COLUMN message"),
        "could not be read",
    ),
}


@pytest.mark.parametrize(("spoil", "told"), RESTORED.values(), ids=RESTORED)
def test_restore_heals_what_it_is_named_as_the_remedy_for(
    spoil: Callable[[Path], None], told: str, small: Subject, tmp_path: Path
) -> None:
    """What of the history can be carried over is, and the rest is told of; nothing of it fails the restore."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    name = vecmigrate.backup(harness.url(database)).name
    healthy = harness.contents(database)
    spoil(database)

    result = run_cli("--db-path", database, "restore", name)
    assert 0 == result.code, result.err
    assert told in result.err
    assert healthy == harness.contents(database)
    assert 0 == run_cli("--db-path", database, "migrate").code
    attempts = run_cli("--db-path", database, "history", "--json").document["attempts"]
    assert "restore" == attempts[-1]["metadata"]["direction"]
    assert ("history" in attempts[-1]["message"]) == ("moved" not in told and bool(told))
    assert len(attempts) == len(REVISIONS) + 1 - ("1 damaged" in told)
    tried("Damage", "restore of a database with a damaged schema, header or history", "healed, told")


def test_an_identity_that_is_wrong_hides_the_backups_but_not_the_way_to_them(small: Subject, tmp_path: Path) -> None:
    """The database says it is another one; without it, the path leads to the backups."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    name = vecmigrate.backup(harness.url(database)).name
    healthy = harness.contents(database)
    legacy.execute(database, "UPDATE vecmigrate_meta SET value = 'c4nary' WHERE key = 'database_id'")

    listed = run_cli("--db-path", database, "backup", "list")
    assert "2 are of another one that was at this path" in listed.out
    refused = run_cli("--db-path", database, "restore", name)
    assert 1 == refused.code
    assert "says that it is another one" in refused.err
    assert f"move {database} aside" in refused.err
    assert "c4nary" not in refused.err
    for file in database.parent.glob(f"{database.name}*"):
        file.rename(tmp_path / file.name)
    assert 0 == run_cli("--db-path", database, "restore", name).code
    assert healthy == harness.contents(database)
    tried("Damage", "an identity in the database that is wrong", "told, restored once the file is aside")


def _cut_to(length: int) -> Callable[[Path], None]:
    def cut(database: Path) -> None:
        legacy.execute(database, "PRAGMA wal_checkpoint(TRUNCATE)")
        database.write_bytes(database.read_bytes()[:length])

    return cut


def _spoil_a_page(database: Path) -> None:
    legacy.execute(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = database.read_bytes()
    root = int(str(legacy.query(database, "SELECT rootpage FROM sqlite_master WHERE name = 'sessions'")[0][0]))
    page = content[16] << 8 | content[17]
    database.write_bytes(content[: page * (root - 1)] + b"\xff" * 100 + content[page * (root - 1) + 100 :])


UNSAVED = {
    "cut in the header": _cut_to(50),
    "cut after a page": _cut_to(4096),
    "page": _spoil_a_page,
}


@pytest.mark.parametrize("spoil", UNSAVED.values(), ids=UNSAVED)
def test_a_backup_of_a_damaged_database_says_what_is_damaged(
    spoil: Callable[[Path], None], small: Subject, tmp_path: Path
) -> None:
    """It is the database, and neither an unexpected error nor a temporary file."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    spoil(database)
    before = legacy.tree(database.parent / "backups")

    result = run_cli("--db-path", database, "backup", "create")
    harness.require_explained(result.err)
    assert 1 == result.code
    assert result.err.startswith(f"Error: {database} ")
    assert before == legacy.tree(database.parent / "backups")
    tried("Damage", "a backup of a damaged database", "refused")
