"""The mirror as its readers read it, and the files and entries of others that it must not harm."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import legacy
import vecmigrate
from doors import run_alembic, run_cli, url
from vecmigrate import history
from vecmigrate.errors import ConfigurationError
from vecmigrate.settings import Settings

# Entries as mcp-vector-search writes them.
OTHERS: list[dict[str, Any]] = [
    {
        "migration_id": "2.3.0_two_phase_architecture",
        "version": "2.3.0",
        "name": "two_phase_architecture",
        "status": "skipped",
        "message": "Migration not needed",
        "executed_at": "2026-02-20T09:00:00",
        "duration_seconds": 0.0,
        "metadata": {},
    },
    {
        "migration_id": "1.0.1_theirs",
        "version": "1.0.1",
        "name": "theirs",
        "status": "pending",
        "message": "größer \ud800",
        "executed_at": None,
        "duration_seconds": 2,
        "metadata": {"revision": "001", "direction": "upgrade", "run_id": "0" * 32},
        "unknown": [1, 2.5, None],
    },
]

STATUSES = {"pending", "running", "success", "failed", "skipped"}


def mirror_of(path: Path) -> Path:
    return path.with_suffix(".migrations.json")


def document(place: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return content


def entries(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document(place)["migrations"]
    return found


def ids_in_table(path: Path) -> list[object]:
    return [each for (each,) in legacy.query(path, "SELECT migration_id FROM vecmigrate_history ORDER BY id")]


def ids_in_mirror(path: Path) -> list[object]:
    return [each["migration_id"] for each in entries(mirror_of(path))]


def is_at_head(path: Path) -> bool:
    return vecmigrate.status(url(path)).state == "current"


def put(place: Path, migrations: list[dict[str, Any]], **others: object) -> Path:
    place.write_text(json.dumps({"migrations": migrations, "last_updated": None, **others}), encoding="utf-8")
    return place


def registry(place: Path) -> Iterator[tuple[str, str, str | None, str, datetime | None]]:
    """Read a mirror by the rules of mcp-vector-search's reader, and raise where it would raise.

    Id, version, name and status must be there, the status one of five; a time is ISO 8601, empty or missing. It looks
    migrations up by their id, and sorts by the version, which may be null.
    """
    for entry in entries(place):
        if entry["status"] not in STATUSES:
            raise ValueError(entry["status"])
        at = datetime.fromisoformat(entry["executed_at"]) if entry.get("executed_at") else None
        assert entry.get("duration_seconds", 0.0) >= 0
        yield entry["migration_id"], entry["name"], entry["version"], entry["status"], at


def has_run(place: Path, migration_id: str) -> bool:
    return any(each[0] == migration_id and each[3] == "success" for each in registry(place))


def interrupt(path: Path) -> None:
    """Leave the marker of a run whose process died."""
    step = {"revision": "001", "direction": "upgrade", "migration_id": "1.0.0_unified_vector_stores"}
    history.Marker(
        run_id="a" * 32,
        database_id="b" * 32,
        started_at="2026-01-02T03:04:05+00:00",
        direction="upgrade",
        steps=[step | {"version": "1.0.0", "name": "unified_vector_stores"}],
        backup=None,
    ).write(str(path))


# The format.


def test_the_reader_of_the_format_reads_every_attempt(released_file: Path) -> None:
    """A run that was killed, one that succeeded, and a way back: no status and no time makes its reader raise."""
    interrupt(released_file)
    vecmigrate.upgrade(url(released_file))
    backup = vecmigrate.backup(url(released_file))
    vecmigrate.rollback(url(released_file), to_version="base", allow_data_loss=True)
    vecmigrate.restore(url(released_file), name=backup.name)

    read = list(registry(mirror_of(released_file)))

    assert len(read) == len(legacy.rows(released_file, "vecmigrate_history"))
    assert {UTC.utcoffset(None)} == {each[4].utcoffset() for each in read if each[4]}
    assert ("1.0.0_unified_vector_stores", "failed") == (read[0][0], read[0][3])
    assert has_run(mirror_of(released_file), "1.2.2_codexembed_upgrade")
    assert not has_run(mirror_of(released_file), "9.9.9_theirs")


def test_an_interrupted_attempt_is_a_failed_one_in_the_mirror_alone(released_file: Path) -> None:
    """The table, history and list say interrupted; the mirror has a status its readers know, and says it beside."""
    vecmigrate.upgrade(url(released_file), "000")
    interrupt(released_file)
    assert 0 == run_cli("--db-path", released_file, "migrate", "--target", "0").code

    entry = entries(mirror_of(released_file))[-1]
    assert ("failed", True) == (entry["status"], entry["metadata"]["interrupted"])
    told = run_cli("--db-path", released_file, "history", "--json").document["attempts"][-1]
    assert "interrupted" == told["status"]
    listed = run_cli("--db-path", released_file, "list", "--json").document["revisions"]
    assert ["success", "interrupted"] == [each["status"] for each in listed][:2]
    assert [("interrupted",)] == legacy.query(
        released_file, "SELECT status FROM vecmigrate_history ORDER BY id DESC LIMIT 1"
    )
    assert "interrupted" in run_cli("--db-path", released_file, "history").out


def test_what_somebody_wrote_into_the_table_makes_no_reader_raise(released_file: Path) -> None:
    """A status that the format does not know is failed there, and a time that is none is null."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, "UPDATE vecmigrate_history SET status = 'odd', executed_at = 'noon' WHERE id = 1")
    vecmigrate.upgrade(url(released_file))

    first = next(registry(mirror_of(released_file)))
    assert ("failed", None) == first[3:]
    assert "odd" == entries(mirror_of(released_file))[0]["metadata"]["status"]


# Entries of others.


def test_an_entry_of_ours_goes_whatever_became_of_its_row(released_file: Path) -> None:
    """A row that somebody changed or deleted leaves no entry behind that would be taken for one of others."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(
        released_file,
        "UPDATE vecmigrate_history SET migration_id = 'changed' WHERE id = 1",
        "DELETE FROM vecmigrate_history WHERE id = 2",
    )
    vecmigrate.upgrade(url(released_file))

    assert "changed" == ids_in_mirror(released_file)[0]
    assert ids_in_table(released_file) == ids_in_mirror(released_file)


def test_entries_of_others_stay_before_ours(released_file: Path) -> None:
    """Whatever is done, they are kept as they are and in their order, and so is what else the file says."""
    place = put(mirror_of(released_file), OTHERS, format=9)
    vecmigrate.upgrade(url(released_file), "001")
    backup = vecmigrate.backup(url(released_file))
    assert 2 == len(entries(place)[2:])
    vecmigrate.upgrade(url(released_file))
    vecmigrate.rollback(url(released_file), to_version="001")
    vecmigrate.restore(url(released_file), name=backup.name)
    run_cli("--db-path", released_file, "history", "--rebuild")

    assert OTHERS == entries(place)[:2]
    told = run_cli("--db-path", released_file, "history", "--json").document["attempts"]
    assert told == entries(place)[2:]
    assert 9 == document(place)["format"]
    assert ["migrations", "last_updated"] == list(document(place))[:2]


def test_an_entry_that_somebody_adds_later_moves_before_ours(released_file: Path) -> None:
    """The other tool puts its entry at the end; the next run keeps it, and be it one with nothing to do."""
    vecmigrate.upgrade(url(released_file))
    ours = entries(mirror_of(released_file))
    put(mirror_of(released_file), [*ours[:1], OTHERS[1], *ours[1:], OTHERS[0]])

    vecmigrate.upgrade(url(released_file))

    assert [OTHERS[1], OTHERS[0], *ours] == entries(mirror_of(released_file))


def test_an_id_of_ours_is_an_entry_of_ours(released_file: Path) -> None:
    """The other tool's entry of the same id is replaced, as its own next attempt would replace it."""
    put(mirror_of(released_file), [OTHERS[0] | {"migration_id": "1.2.2_codexembed_upgrade"}, OTHERS[1]])

    vecmigrate.upgrade(url(released_file))

    assert [OTHERS[1]["migration_id"], "0.0.0_legacy_baseline"] == [
        each["migration_id"] for each in entries(mirror_of(released_file))
    ][:2]
    assert has_run(mirror_of(released_file), "1.2.2_codexembed_upgrade")


def test_clear_forgets_our_entries_and_keeps_those_of_others(released_file: Path, tmp_path: Path) -> None:
    """Also where the mirror could not be written just then, and whatever wrote it next."""
    place = put(mirror_of(released_file), OTHERS)
    vecmigrate.upgrade(url(released_file))
    place.rename(tmp_path / "aside.json")
    place.mkdir()
    assert 1 == run_cli("--db-path", released_file, "history", "--clear", "--yes").code
    place.rmdir()
    (tmp_path / "aside.json").rename(place)
    assert len(entries(place)) > len(OTHERS)

    vecmigrate.upgrade(url(released_file))
    assert OTHERS == entries(place)
    vecmigrate.rollback(url(released_file), to_version="001")
    assert OTHERS == entries(place)[:2]
    assert ids_in_table(released_file) == ids_in_mirror(released_file)[2:]
    assert 0 == run_cli("--db-path", released_file, "history", "--clear", "--yes").code
    assert OTHERS == entries(place)


def test_the_newest_thousand_stand_after_all_of_others(released_file: Path) -> None:
    """The entries of others do not count, and one of ours that is too old for the mirror is none of others."""
    place = put(mirror_of(released_file), OTHERS)
    vecmigrate.upgrade(url(released_file), "001")
    with legacy.opened(released_file) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100) "
            "INSERT INTO vecmigrate_history (migration_id, revision, version, name, direction, status, message, "
            "executed_at, duration_seconds, metadata) SELECT 'old_' || i, '001', '1.0.0', 'old', 'upgrade', "
            "'failed', 'x', '2025-01-01T00:00:00+00:00', 0.5, '{}' FROM n"
        )
    put(place, [*OTHERS, OTHERS[0] | {"migration_id": "old_1"}])

    vecmigrate.upgrade(url(released_file))

    assert (OTHERS, 1002) == (entries(place)[:2], len(entries(place)))
    assert ids_in_table(released_file)[-1000:] == ids_in_mirror(released_file)[2:]


# Files of others.


OTHER_FILES = {
    "package.json": '{"name": "theirs"}',
    "empty.json": "{}",
    "list.json": '[{"migrations": []}]',
    "notes.json": "no JSON at all",
    "alembic.ini": "[alembic]\nscript_location = alembic\n",
}


@pytest.mark.parametrize("door", ["cli", "alembic", "command", "service", "--rebuild", "--clear"])
def test_a_setting_that_names_a_file_of_somebody_else_is_refused(
    door: str, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every door before the first write, with exit code 1 and the name of the setting."""
    other = released_file.with_name("package.json")
    other.write_text('{"name": "theirs"}', encoding="utf-8")
    before = legacy.tree(released_file.parent)
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(other))

    told = refused_at(door, released_file)

    assert f"would replace {other}, which is no mirror. Nothing was changed." in told
    assert "history_file" in told
    assert before == legacy.tree(released_file.parent)


def refused_at(door: str, path: Path) -> str:
    if door == "service":
        return str(vecmigrate.ensure_current(url(path)).error)
    if door == "command":
        with pytest.raises(ConfigurationError) as raised:
            vecmigrate.upgrade(url(path))
        return str(raised.value)
    words = {"--rebuild": ("history", door), "--clear": ("history", door, "--yes")}.get(door, ("migrate",))
    result = run_alembic(path, "upgrade", "head") if door == "alembic" else run_cli("--db-path", path, *words)
    assert 1 == result.code or door == "alembic"
    return result.err


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_file_of_any_other_kind_is_refused(name: str, released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is absent, empty or holds a list of migrations may be named, directly or by a link."""
    other = released_file.with_name(name)
    other.write_text(OTHER_FILES[name], encoding="utf-8")
    link = released_file.with_name("link")
    link.symlink_to(other)
    for place in (other, link):
        monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(place))
        with pytest.raises(ConfigurationError, match="which is no mirror"):
            vecmigrate.upgrade(url(released_file))

    assert OTHER_FILES[name] == other.read_text(encoding="utf-8")
    assert legacy.revision(released_file) is None


def test_a_manifest_is_refused(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest of a backup stays, and so does the backup."""
    manifest = Path(vecmigrate.backup(url(released_file)).path).with_suffix(".json")
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(manifest))

    with pytest.raises(ConfigurationError, match="which is no mirror"):
        vecmigrate.upgrade(url(released_file))

    monkeypatch.delenv("VECMIGRATE_HISTORY_FILE")
    assert 0 == run_cli("--db-path", released_file, "backup", "verify").code


def test_a_json_object_of_somebody_else_keeps_the_name_of_the_mirror(
    released_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody named it, so the run goes on; that no mirror is written is told, and by a rebuild as an error."""
    mirror_of(released_file).write_text('{"name": "theirs"}', encoding="utf-8")

    vecmigrate.upgrade(url(released_file))

    assert is_at_head(released_file)
    assert "could not be written (what has that name is no mirror)" in caplog.text
    assert 1 == run_cli("--db-path", released_file, "history", "--rebuild").code
    assert {"name": "theirs"} == document(mirror_of(released_file))


@pytest.mark.parametrize("named", ["by default", "by a setting"])
def test_no_link_of_somebody_else_is_followed(
    named: str, released_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may put a link into the folder leads us to no file of ours, not even to one that could be a mirror."""
    victim = put(released_file.with_name("victim.json"), OTHERS)
    before = victim.read_bytes()
    mirror_of(released_file).symlink_to(victim)
    if named == "by a setting":
        monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(mirror_of(released_file)))
    owner = mirror_of(released_file).lstat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1, raising=False)

    vecmigrate.upgrade(url(released_file))

    assert is_at_head(released_file)
    assert "could not be written (it is a link that somebody else owns)" in caplog.text
    assert (before, True) == (victim.read_bytes(), mirror_of(released_file).is_symlink())


def test_a_link_of_our_own_is_followed(released_file: Path, tmp_path: Path) -> None:
    """Who has put the mirror elsewhere finds it there, and the link stays."""
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "elsewhere" / "history.json"
    released_file.with_name("second").symlink_to(place)
    mirror_of(released_file).symlink_to("second")
    for target in ("001", "head"):
        vecmigrate.upgrade(url(released_file), target)
        assert ids_in_table(released_file) == [each["migration_id"] for each in entries(place)]

    assert mirror_of(released_file).is_symlink()
    assert [place] == list(place.parent.iterdir())


def test_links_in_a_circle_fail_no_run(released_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are told as what they are."""
    mirror_of(released_file).symlink_to(mirror_of(released_file))

    vecmigrate.upgrade(url(released_file))

    assert is_at_head(released_file)
    assert f"The mirror {mirror_of(released_file)} could not be written" in caplog.text


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    """Who knows the name of what is written next cannot lead it to another file."""
    victim = tmp_path / "victim"
    victim.write_text("theirs", encoding="utf-8")
    place = tmp_path / "mirror.json"
    Path(history.temporary_name(str(place), "a" * 32)).symlink_to(victim)

    history.write_file(str(place), "ours", token="a" * 32)

    assert ("theirs", "ours") == (victim.read_text(encoding="utf-8"), place.read_text(encoding="utf-8"))


# Damage.


DAMAGED = {
    "truncated": b'{"migrations": [{"migration_id": "0.0.0_leg',
    "no JSON": b"\xff\xfe\x00",
    "a list": b'[{"migration_id": "1.0.1_theirs"}]',
    "an entry without an id": b'{"migrations": [{"status": "success"}], "last_updated": null}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_mirror_is_moved_aside_and_written_anew(
    content: bytes, released_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries of others may be in it, so no byte of it is lost, and it is told where it went."""
    mirror_of(released_file).write_bytes(content)

    vecmigrate.upgrade(url(released_file))

    (aside,) = released_file.parent.glob("sessions.migrations.json.damaged-*")
    assert content == aside.read_bytes()
    assert f"was damaged, and is moved aside: {aside}" in caplog.text
    assert ids_in_table(released_file) == [each[0] for each in registry(mirror_of(released_file))]


@pytest.mark.parametrize("content", [b"", b" \n", b"\0" * 512, b"{}", b"[]"])
def test_a_mirror_that_holds_nothing_is_written_anew(content: bytes, released_file: Path) -> None:
    """There is nothing in it to keep, so nothing is left beside."""
    mirror_of(released_file).write_bytes(content)

    vecmigrate.upgrade(url(released_file))

    assert ids_in_table(released_file) == ids_in_mirror(released_file)
    assert [] == list(released_file.parent.glob("*damaged*"))


def test_a_damaged_mirror_is_healed_where_a_setting_has_put_it(
    released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What begins as a mirror was one, so it does not stop the run either."""
    place = released_file.with_name("history.json")
    monkeypatch.setenv("VECMIGRATE_HISTORY_FILE", str(place))
    vecmigrate.upgrade(url(released_file), "001")
    place.write_bytes(place.read_bytes()[:200])

    vecmigrate.upgrade(url(released_file))

    assert ids_in_table(released_file) == [each["migration_id"] for each in entries(place)]
    assert 1 == len(list(released_file.parent.glob("history.json.damaged-*")))


def test_whole_entries_of_others_in_a_damaged_mirror_stay(released_file: Path) -> None:
    """An entry that no reader could read is kept aside, and the others stay where they are."""
    put(mirror_of(released_file), [OTHERS[0], {"status": "odd"}, OTHERS[1]])

    vecmigrate.upgrade(url(released_file))

    assert OTHERS == entries(mirror_of(released_file))[:2]
    assert 1 == len(list(released_file.parent.glob("*.damaged-*")))


def test_a_history_too_large_for_a_mirror_is_cut_to_its_newest(released_file: Path) -> None:
    """A mirror that could not be read again would be taken for damaged by each run."""
    vecmigrate.upgrade(url(released_file), "001")
    legacy.execute(
        released_file,
        "INSERT INTO vecmigrate_history (migration_id, revision, version, name, direction, status, message, "
        "executed_at, duration_seconds, metadata) SELECT 'huge', '001', '1.0.0', 'huge', 'upgrade', 'failed', "
        "replace(hex(zeroblob(5000000)), '0', 'ü'), '2025-01-01T00:00:00+00:00', 0.5, '{}'",
    )
    for _ in range(2):
        vecmigrate.upgrade(url(released_file))

    assert ids_in_table(released_file)[-1:] == ids_in_mirror(released_file)[-1:]
    assert mirror_of(released_file).stat().st_size < 1 << 24
    assert [] == list(released_file.parent.glob("*.damaged-*"))


def test_the_mirror_of_a_name_of_240_bytes_is_shortened() -> None:
    """It fits, is told apart from those of other names, and a name that fits anyway stays as it is."""
    names = [f"/data/{letter * 240}.sqlite3" for letter in "ab"]
    mirrors = [os.path.basename(Settings("x").mirror(name)) for name in [*names, names[0][:-1]]]

    assert {255} == {len(each) for each in mirrors}
    assert 2 == len(set(mirrors))
    assert f"/data/{'a' * 239}.migrations.json" == Settings("x").mirror(f"/data/{'a' * 239}.db")
