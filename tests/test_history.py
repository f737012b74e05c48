"""Every attempt is in the table, and the mirror is a copy of it that nobody relies on."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import legacy
import vecmigrate
from doors import DOORS, Result, run_alembic, run_cli, url
from ladder import BELOW_HEAD, HEAD, MIGRATION_IDS, NAMES, NEWEST, NEXT, REVISIONS
from scripts import Scripts
from vecmigrate import backups, history
from vecmigrate.errors import ConfigurationError, RunFailedError
from vecmigrate.settings import Settings

FAILS = 'raise RuntimeError("wrong")'
# Only on the real database, and not where a run is rehearsed on a copy without rows.
KILLS = """
    op.execute("DELETE FROM vector_stores WHERE vector_store_id = 'vs_u00001'")
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM vector_stores")):
        os.kill(os.getpid(), signal.SIGKILL)
"""
UPGRADE = (
    "import sys, vecmigrate; from vecmigrate import scripts_folder; "
    "scripts_folder._HERE = sys.argv[2]; vecmigrate.upgrade(sys.argv[1])"
)


def mirror_of(path: Path) -> Path:
    return path.with_suffix(".migrations.json")


def mirrored(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(mirror_of(path).read_text(encoding="utf-8"))["migrations"]
    return entries


def attempts(path: Path) -> list[tuple[object, ...]]:
    return legacy.query(path, "SELECT revision, direction, status FROM vecmigrate_history ORDER BY id")


def test_the_mirror_has_the_format_that_its_readers_know(released_file: Path) -> None:
    """mcp-vector-search's keys and statuses, times in ISO and UTC, and our metadata beside."""
    vecmigrate.upgrade(url(released_file))

    document = json.loads(mirror_of(released_file).read_text(encoding="utf-8"))
    assert ["migrations", "last_updated"] == list(document)
    assert UTC.utcoffset(None) == datetime.fromisoformat(document["last_updated"]).utcoffset()
    entry = document["migrations"][-1]
    keys = "migration_id version name status message executed_at duration_seconds metadata"
    assert set(keys.split()) == set(entry)
    assert (MIGRATION_IDS[-1], NEWEST, NAMES[HEAD], "success") == (
        entry["migration_id"],
        entry["version"],
        entry["name"],
        entry["status"],
    )
    assert UTC.utcoffset(None) == datetime.fromisoformat(entry["executed_at"]).utcoffset()
    assert isinstance(entry["duration_seconds"], float)
    metadata = entry["metadata"]
    assert (HEAD, "upgrade") == (metadata["revision"], metadata["direction"])
    assert Path(metadata["backup_path"]).is_file()
    ids = [each["migration_id"] for each in document["migrations"]]
    assert MIGRATION_IDS == ids


def test_the_history_tells_how_many_rows_were_changed(released_file: Path) -> None:
    """What a run did to how many rows is in its entry."""
    vecmigrate.upgrade(url(released_file))

    counts = {each["metadata"]["revision"]: each["metadata"]["rows"] for each in mirrored(released_file)}
    assert REVISIONS == list(counts)
    assert {"converted": 0, "set_aside": 0} == counts["001"]
    assert {"converted": 0, "set_aside": 0} == counts["002"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"[]", b'{"migrations": [', b"\xff\xfe\x00", b'{"migrations": [{"status": "success"}]}', None],
    ids=["empty", "a list", "truncated", "not UTF-8", "of something else", "deleted"],
)
def test_a_damaged_mirror_is_healed_and_never_read(damage: bytes | None, released_file: Path) -> None:
    """Whatever stands in the mirror decides nothing, and the next run writes it anew."""
    vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    if damage is None:
        mirror_of(released_file).unlink()
    else:
        mirror_of(released_file).write_bytes(damage)
    assert [HEAD] == vecmigrate.status(url(released_file)).pending
    listed = run_cli("--db-path", released_file, "list", "--json").document["revisions"]
    assert [*["success"] * (len(REVISIONS) - 1), "pending"] == [each["status"] for each in listed]

    vecmigrate.upgrade(url(released_file))

    assert REVISIONS == [each["metadata"]["revision"] for each in mirrored(released_file)]


def test_a_mirror_that_cannot_be_written_fails_no_migration(
    released_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder in its place is reported; the migration stands."""
    mirror_of(released_file).mkdir()

    vecmigrate.upgrade(url(released_file))

    assert HEAD == legacy.revision(released_file)
    assert "could not be written" in caplog.text
    mirror_of(released_file).rmdir()
    vecmigrate.rollback(url(released_file), to_version=BELOW_HEAD)
    assert len(REVISIONS) + 1 == len(mirrored(released_file))


def test_the_mirror_is_replaced_and_not_rewritten(released_file: Path) -> None:
    """Who has the old mirror open reads it to its end: the new one is another file, and nothing is left beside."""
    vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    with mirror_of(released_file).open(encoding="utf-8") as old:
        vecmigrate.upgrade(url(released_file))
        assert len(REVISIONS) - 1 == len(json.load(old)["migrations"])

    assert len(REVISIONS) == len(mirrored(released_file))
    assert [] == list(released_file.parent.glob("*.tmp")) + list(released_file.parent.glob(".*"))


def test_the_mirror_is_private_under_any_umask(released_file: Path) -> None:
    """The mode is 0600, also where a file with another mode was there."""
    mirror_of(released_file).write_text("{}", encoding="utf-8")
    mirror_of(released_file).chmod(0o644)
    before = os.umask(0)
    try:
        vecmigrate.upgrade(url(released_file))
    finally:
        os.umask(before)

    assert 0o600 == mirror_of(released_file).stat().st_mode & 0o777


def test_the_mirror_holds_the_newest_thousand(released_file: Path) -> None:
    """The table keeps every attempt, the mirror the newest 1000."""
    vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    with legacy.opened(released_file) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) "
            "INSERT INTO vecmigrate_history (migration_id, revision, version, name, direction, status, message, "
            "executed_at, duration_seconds, metadata) SELECT 'old_' || i, '001', '1.0.0', 'old', 'upgrade', "
            "'failed', 'x', '2025-01-01T00:00:00+00:00', 0.5, '{}' FROM n"
        )

    vecmigrate.upgrade(url(released_file))

    entries = mirrored(released_file)
    assert 1000 == len(entries)
    assert [f"old_{1200 + 1 - 999}", "old_1200", MIGRATION_IDS[-1]] == [
        entries[number]["migration_id"] for number in (0, -2, -1)
    ]
    assert 1200 + len(REVISIONS) == len(attempts(released_file))
    limited = run_cli("--db-path", released_file, "history", "--limit", "2", "--json").document["attempts"]
    assert entries[-2:] == limited


def test_the_mirror_goes_where_the_setting_says(
    released_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VECMIGRATE_HISTORY_FILE names another place."""
    place = tmp_path / "elsewhere" / "history.json"
    place.parent.mkdir()
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(place))

    vecmigrate.upgrade(url(released_file))

    assert len(REVISIONS) == len(json.loads(place.read_text(encoding="utf-8"))["migrations"])
    assert not mirror_of(released_file).exists()


def test_rebuild_writes_the_mirror_anew(released_file: Path) -> None:
    """History --rebuild makes the mirror from the table, without a run."""
    vecmigrate.upgrade(url(released_file))
    whole = mirrored(released_file)
    mirror_of(released_file).write_text("damaged", encoding="utf-8")

    assert 0 == run_cli("--db-path", released_file, "history", "--rebuild").code

    assert whole == mirrored(released_file)


def test_clear_forgets_the_attempts_and_keeps_the_schema(released_file: Path) -> None:
    """History --clear empties table and mirror; the revision stays, and needs no other word."""
    vecmigrate.upgrade(url(released_file))
    assert 2 == run_cli("--db-path", released_file, "history", "--clear").code
    assert len(REVISIONS) == len(attempts(released_file))

    assert 0 == run_cli("--db-path", released_file, "history", "--clear", "--yes").code

    assert ([], []) == (attempts(released_file), mirrored(released_file))
    assert "current" == vecmigrate.status(url(released_file)).state


def test_unreadable_metadata_in_the_table_breaks_no_reader(released_file: Path) -> None:
    """Metadata that is no JSON counts as empty."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, "UPDATE vecmigrate_history SET metadata = 'not json' WHERE id = 1")

    document = run_cli("--db-path", released_file, "history", "--json").document
    assert {"revision": "000", "direction": "upgrade"} == document["attempts"][0]["metadata"]


# Runs that end badly.


def killed(path: Path, scripts: Scripts) -> None:
    """Run an upgrade in a process that kills itself inside a revision."""
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, url(path), str(scripts.versions.parent.parent)],
        env=dict(os.environ),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert -signal.SIGKILL == done.returncode, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_a_killed_run_is_recorded_as_interrupted_by_the_next(scripts: Scripts, released_file: Path) -> None:
    """Kill -9 leaves the old state and a marker; the next run records it, cleans up and succeeds."""
    scripts.add(KILLS)
    before = legacy.digest(released_file)
    killed(released_file, scripts)
    assert before == legacy.digest(released_file)
    assert 1 == len(history.markers(str(released_file)))
    folder = released_file.parent / "backups"
    identity = history.markers(str(released_file))[0].database_id
    with backups.scratch(str(folder), identity, str(released_file)) as temporary:
        pass
    Path(temporary).write_bytes(b"half a backup")
    (folder / ".somebody-elses.tmp").write_bytes(b"stays")
    scripts.add("pass")

    vecmigrate.upgrade(url(released_file))

    recorded = attempts(released_file)
    assert ("000", "upgrade", "interrupted") == recorded[0]
    assert [(each, "upgrade", "success") for each in (*REVISIONS, NEXT)] == recorded[1:]
    assert [] == history.markers(str(released_file))
    assert [] == [path.name for path in released_file.parent.iterdir() if "run-" in path.name]
    assert [".somebody-elses.tmp"] == [path.name for path in folder.glob("*.tmp")]
    assert ["failed", *["success"] * len([*REVISIONS, NEXT])] == [each["status"] for each in mirrored(released_file)]
    assert mirrored(released_file)[0]["metadata"]["interrupted"] is True
    # A marker does not tell which of both it was.
    told = (
        f"The run ({', '.join(REVISIONS)}, {NEXT}) did not finish: its process died, or its end could not be recorded"
    )
    assert mirrored(released_file)[0]["message"].startswith(told)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_a_service_that_crashes_in_a_loop_keeps_one_backup(scripts: Scripts, released_file: Path) -> None:
    """Three kills from one state reuse one backup, and push out none that was there before."""
    legacy_backup = vecmigrate.backup(url(released_file))
    scripts.add(KILLS)
    for _ in range(3):
        killed(released_file, scripts)

    made = sorted((released_file.parent / "backups").glob("*.sqlite3"))
    assert Path(legacy_backup.path) in made
    assert len(made) <= 2
    scripts.add("pass")
    vecmigrate.upgrade(url(released_file))
    interrupted = [each for each in attempts(released_file) if each[2] == "interrupted"]
    assert 3 == len(interrupted)


def test_repeated_failures_reuse_one_backup(
    scripts: Scripts, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five failures from one unchanged state make one backup; a change of the database makes another."""
    monkeypatch.setenv("VECMIGRATE_KEEP_BACKUPS", "3")
    folder = released_file.parent / "backups"
    vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    older = set(folder.glob("*.sqlite3"))
    scripts.add(FAILS)
    kept = set()
    for _ in range(5):
        with pytest.raises(RunFailedError) as raised:
            vecmigrate.upgrade(url(released_file))
        kept.add(raised.value.backup)

    assert 1 == len(kept)
    assert older < set(folder.glob("*.sqlite3"))
    assert 2 == len(set(folder.glob("*.sqlite3")))
    legacy.execute(released_file, "INSERT INTO memory_meta VALUES ('changed', 'yes')")
    with pytest.raises(RunFailedError):
        vecmigrate.upgrade(url(released_file))
    assert 3 == len(set(folder.glob("*.sqlite3")))


def test_a_run_that_finds_nothing_to_do_is_no_attempt(released_file: Path) -> None:
    """`skipped` is for revisions undone with a failed one, and not for runs without work."""
    vecmigrate.upgrade(url(released_file))
    for _ in range(3):
        vecmigrate.upgrade(url(released_file))

    assert len(REVISIONS) == len(attempts(released_file))


def test_ids_in_the_table_grow_in_the_order_of_the_attempts(scripts: Scripts, released_file: Path) -> None:
    """Successes, failures and undone revisions stand in the order in which they ended."""
    vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    scripts.add(FAILS)
    with pytest.raises(RunFailedError):
        vecmigrate.upgrade(url(released_file))
    scripts.add("pass")
    vecmigrate.upgrade(url(released_file))

    assert [
        *((each, "upgrade", "success") for each in REVISIONS[:-1]),
        (HEAD, "upgrade", "skipped"),
        (NEXT, "upgrade", "failed"),
        (HEAD, "upgrade", "success"),
        (NEXT, "upgrade", "success"),
    ] == attempts(released_file)
    errors = [each["metadata"].get("error") for each in mirrored(released_file)]
    assert "RuntimeError" in str(errors[len(REVISIONS)])


def test_a_marker_that_is_half_written_is_removed(released_file: Path) -> None:
    """A process that died while it wrote its marker had changed nothing: the file goes without an entry."""
    vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    marker = released_file.with_name(f"{released_file.name}.run-{'0' * 32}.json")
    marker.write_text('{"run_id": "0000', encoding="utf-8")

    vecmigrate.upgrade(url(released_file))

    assert not marker.exists()
    assert {"success"} == {status for _, _, status in attempts(released_file)}


def test_the_marker_of_another_database_stays(released_file: Path) -> None:
    """A marker with a longer name beside ours belongs to somebody else."""
    other = released_file.with_name(f"other-{released_file.name}.run-{'0' * 32}.json")
    other.write_text("{}", encoding="utf-8")

    vecmigrate.upgrade(url(released_file))

    assert other.exists()


def test_the_first_run_on_a_new_file_takes_itself_for_alive(tmp_path: Path) -> None:
    """Its own marker stands there when it records what died before the file was there, and is no attempt that died."""
    vecmigrate.upgrade(url(tmp_path / "new.sqlite3"))

    assert [(each, "upgrade", "success") for each in REVISIONS] == attempts(tmp_path / "new.sqlite3")


def test_the_run_id_joins_what_ran_together(released_file: Path) -> None:
    """All revisions of one run carry one id, and another run another."""
    vecmigrate.upgrade(url(released_file))
    vecmigrate.rollback(url(released_file), to_version=BELOW_HEAD)

    runs = [each["metadata"]["run_id"] for each in mirrored(released_file)]
    assert 1 == len(set(runs[: len(REVISIONS)]))
    assert runs[-1] not in runs[:-1]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in runs)


def test_a_writer_that_reads_meanwhile_does_not_disturb(released_file: Path) -> None:
    """A reader with an open transaction on the old state does not stop the run in WAL mode."""
    with sqlite3.connect(released_file, isolation_level=None) as reader:
        reader.execute("BEGIN")
        assert 150 == reader.execute("SELECT count(*) FROM vector_stores").fetchone()[0]
        vecmigrate.upgrade(url(released_file))
        assert 150 == reader.execute("SELECT count(*) FROM vector_stores").fetchone()[0]
        reader.execute("COMMIT")
    reader.close()

    assert HEAD == legacy.revision(released_file)


# What has the name of the mirror and is none.


def link_to(place: Path, target: Path, kind: str) -> Path:
    """Give a file a second name."""
    place.unlink(missing_ok=True)
    if kind == "symbolic":
        place.symlink_to(target)
    else:
        place.hardlink_to(target)
    return place


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("door", [*DOORS, "service"])
def test_a_mirror_that_would_replace_the_database_is_refused_at_every_door(
    door: str, suffix: str, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting names the database or a file of SQLite beside it: nothing is written."""
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", f"{released_file}{suffix}")
    before = legacy.digest(released_file)

    assert "would replace" in refusal(door, released_file)

    assert before == legacy.digest(released_file)
    assert [] == [each.name for each in released_file.parent.iterdir() if "run-" in each.name or each.is_dir()]


def refusal(door: str, path: Path) -> str:
    """Return what a door says of a run that it refuses."""
    if door == "service":
        return str(vecmigrate.ensure_current(url(path)).error)
    if door == "command":
        with pytest.raises(ConfigurationError) as raised:
            vecmigrate.upgrade(url(path))
        return str(raised.value)
    result = run_cli("--db-path", path, "migrate") if door == "cli" else run_alembic(path, "upgrade", "head")
    assert 0 != result.code
    return result.err


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_link_to_the_database_is_no_mirror(kind: str, released_file: Path) -> None:
    """The usual name of the mirror may lead to the database itself, for a new run and for one with nothing to do."""
    vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    link_to(mirror_of(released_file), released_file, kind)
    backup = vecmigrate.backup(url(released_file))

    with pytest.raises(ConfigurationError, match="would replace"):
        vecmigrate.upgrade(url(released_file))
    with pytest.raises(ConfigurationError, match="would replace"):
        vecmigrate.upgrade(url(released_file), BELOW_HEAD)
    with pytest.raises(ConfigurationError, match="would replace"):
        vecmigrate.restore(url(released_file), name=backup.name)
    for words in (["--rebuild"], ["--clear", "--yes"]):
        assert 1 == run_cli("--db-path", released_file, "history", *words).code

    assert (BELOW_HEAD, len(REVISIONS) - 1) == (legacy.revision(released_file), len(attempts(released_file)))
    assert 0 == run_cli("--db-path", released_file, "status").code


def test_a_mirror_that_would_replace_an_absent_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is made."""
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(tmp_path / "new.sqlite3"))

    with pytest.raises(ConfigurationError, match="would replace"):
        vecmigrate.upgrade(url(tmp_path / "new.sqlite3"))

    assert [] == list(tmp_path.iterdir())


def test_a_mirror_that_would_replace_the_ini_in_use_is_refused(released_file: Path) -> None:
    """An alembic.ini that names itself stays as it is."""
    ini = released_file.with_name("alembic.ini")
    ini.write_text(f"[vecmigrate]\ndatabase_url = {url(released_file)}\nhistory_file = {ini}\n", encoding="utf-8")
    before = legacy.tree(released_file.parent)

    result = run_cli("--config", ini, "migrate")

    assert (1, True) == (result.code, "would replace" in result.err)
    assert before == legacy.tree(released_file.parent)


def test_another_database_with_the_name_of_the_mirror_stays(
    released_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told that the mirror could not be written; the migration stands, and a rebuild says why not."""
    legacy.execute(mirror_of(released_file), "CREATE TABLE theirs (x)")
    before = mirror_of(released_file).read_bytes()

    vecmigrate.upgrade(url(released_file))

    assert (HEAD, before) == (legacy.revision(released_file), mirror_of(released_file).read_bytes())
    assert "could not be written (what has that name is no mirror)" in caplog.text
    rebuilt = run_cli("--db-path", released_file, "history", "--rebuild")
    assert (1, True) == (rebuilt.code, "what has that name is no mirror" in rebuilt.err)
    assert before == mirror_of(released_file).read_bytes()


@pytest.mark.parametrize("name", ["alembic.ini", "notes.txt", "sessions.sqlite3-wal.kept"])
def test_a_link_to_a_file_of_another_kind_replaces_nothing(
    name: str, released_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The usual name of the mirror leads to a file of somebody else: that is told, and does it no harm."""
    other = released_file.with_name(name)
    other.write_text("[theirs]\nkey = value\n", encoding="utf-8")
    link_to(mirror_of(released_file), other, "symbolic")
    vecmigrate.upgrade(url(released_file))

    assert "[theirs]\nkey = value\n" == other.read_text(encoding="utf-8")
    assert 1 == caplog.text.count("could not be written")


def test_a_mirror_may_have_any_name(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without .json too it is written, and written again over what was a mirror."""
    place = released_file.with_name("mirror")
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(place))
    place.write_bytes(b"")
    for target, expected in ((BELOW_HEAD, len(REVISIONS) - 1), ("head", len(REVISIONS))):
        vecmigrate.upgrade(url(released_file), target)
        assert expected == len(json.loads(place.read_text(encoding="utf-8"))["migrations"])


# A mirror that could not be cleared.


def cleared_beside_a_folder(path: Path, aside: Path) -> Result:
    """Clear the history while a folder has the name of the mirror, and then put the mirror back."""
    mirror_of(path).rename(aside)
    mirror_of(path).mkdir()
    result = run_cli("--db-path", path, "history", "--clear", "--yes")
    mirror_of(path).rmdir()
    aside.rename(mirror_of(path))
    return result


@pytest.mark.parametrize("healing", ["migrate", "history --clear --yes", "history --rebuild"])
def test_a_mirror_that_was_not_cleared_is_told_and_healed(healing: str, released_file: Path, tmp_path: Path) -> None:
    """The message says what was done and what was not, and whatever comes next empties the mirror."""
    vecmigrate.upgrade(url(released_file))

    result = cleared_beside_a_folder(released_file, tmp_path / "aside.json")

    assert (1, []) == (result.code, attempts(released_file))
    assert f"The history in the database is cleared ({len(REVISIONS)} attempts), and the mirror is not." in result.err
    assert len(REVISIONS) == len(mirrored(released_file))
    assert 0 == run_cli("--db-path", released_file, *healing.split()).code
    assert [] == mirrored(released_file)


def test_nothing_to_forget_makes_no_mirror(released_file: Path) -> None:
    """Neither a run with nothing to do nor --clear makes one beside an empty table."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, "DELETE FROM vecmigrate_history")
    mirror_of(released_file).unlink()

    assert 0 == run_cli("--db-path", released_file, "history", "--clear", "--yes").code
    vecmigrate.upgrade(url(released_file))

    assert not mirror_of(released_file).exists()


# Names as long as they may be.


def longest(path: Path, suffix: str, letter: str = "n") -> Path:
    """Give a database the longest name with which SQLite can still name its journal."""
    room = 255 - len("-journal") - len(suffix)
    return path.rename(path.with_name(letter * (room // len(letter.encode())) + suffix))


@pytest.mark.parametrize("letter", ["n", "ü", "語"])
def test_a_database_with_the_longest_name_is_migrated(letter: str, released_file: Path) -> None:
    """Migrated, mirrored, rolled back and restored, and nothing is left beside it."""
    path = longest(released_file, ".sqlite3", letter)

    vecmigrate.upgrade(url(path))
    backup = vecmigrate.backup(url(path))
    vecmigrate.rollback(url(path), to_version=BELOW_HEAD)
    vecmigrate.restore(url(path), name=backup.name)

    assert (HEAD, len(REVISIONS) + 2) == (legacy.revision(path), len(mirrored(path)))
    beside = {each.name for each in path.parent.iterdir()} - {f"{path.name}-wal", f"{path.name}-shm"}
    assert {path.name, mirror_of(path).name, "backups"} == beside


@pytest.mark.parametrize("letter", ["n", "語"])
def test_the_mirror_of_a_long_name_has_a_shortened_one(letter: str, released_file: Path) -> None:
    """Without a suffix that it could take the place of, the name of the mirror is cut, and stays one of its own."""
    path = longest(released_file, "", letter)

    vecmigrate.upgrade(url(path))

    assert HEAD == legacy.revision(path)
    (mirror,) = path.parent.glob("*.migrations.json")
    assert len(REVISIONS) == len(json.loads(mirror.read_text(encoding="utf-8"))["migrations"])
    other = path.name[:-1] + ("m" if letter == "n" else "文")
    assert Settings("x").mirror(str(path.with_name(other))) != str(mirror)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_a_killed_run_of_a_database_with_the_longest_name_is_recorded(scripts: Scripts, released_file: Path) -> None:
    """The next run finds its marker and what it left half-written, and no other database does."""
    path = longest(released_file, ".sqlite3")
    scripts.add(KILLS)
    killed(path, scripts)
    (marker,) = history.markers(str(path))
    assert [] == history.markers(str(path.with_name(f"n{path.name[2:-1]}4")))
    left = [history.temporary_name(str(mirror_of(path)), marker.run_id)]
    left.append(history.temporary_name(str(next(path.parent.glob("*.run-*.json"))), marker.run_id))
    for each in left:
        Path(each).write_text("{", encoding="utf-8")
    scripts.add("pass")

    vecmigrate.upgrade(url(path))

    assert ["failed", *["success"] * len([*REVISIONS, NEXT])] == [each["status"] for each in mirrored(path)]
    assert [] == [each.name for each in path.parent.iterdir() if each.suffix == ".tmp" or ".run-" in each.name]
