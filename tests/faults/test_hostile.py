"""Names and places meant to mislead: nothing outside is read or written, and odd names just work."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli
from faults import harness
from faults.harness import Subject, tried
from ladder import REVISIONS
from vecmigrate.errors import VecmigrateError

NAMES = [
    "../sessions.sqlite3",
    "../../etc/passwd",
    "/etc/passwd",
    "~/sessions.sqlite3",
    "~root",
    "a\nb",
    "a\x00b",
    "a\x1b[31mb",
    ".",
    "..",
    "",
    " ",
    "*",
    "C:\\sessions",
    "file:sessions?mode=rwc",
    "sessions-20260101T000000.000000Z-000/../../sessions.sqlite3",
    "x" * 5000,
]


@pytest.mark.parametrize("mode", ["wal"], indirect=True)
def test_restore_takes_names_and_no_paths(small: Subject, tmp_path: Path) -> None:
    """What is not the name of a listed backup is refused, and nothing is changed."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    before = legacy.tree(database.parent)
    real = harness.backup_files(database)[0]
    names = [*NAMES, str(real), f"backups/{real.name}", f"./{real.name}", f"../backups/{real.name}", f"{real.name}/"]
    for words in [*(["restore", name] for name in names), *(["backup", "verify", name] for name in names if name)]:
        result = run_cli("--db-path", database, *words)
        assert 1 == result.code, result.err
        harness.require_explained(result.err)
        assert "\x1b" not in result.err
        assert "Nothing was changed." in result.err
        tried("Hostile names and places", "restore and verify given a path or worse", "refused, nothing changed")
    assert before == legacy.tree(database.parent)


@pytest.mark.parametrize("what", ["database", "backup folder", "both"])
def test_symlinks_are_followed_to_one_place(what: str, mode: str, small: Subject, tmp_path: Path) -> None:
    """Through a link the same database is migrated, and the link stays one."""
    real = small.copy(tmp_path / "real")
    named = real
    if what != "backup folder":
        (tmp_path / "links").mkdir()
        named = tmp_path / "links" / "link.sqlite3"
        named.symlink_to(real)
    if what != "database":
        (tmp_path / "far").mkdir()
        (real.parent / "backups").symlink_to(tmp_path / "far")
    vecmigrate.upgrade(harness.url(named))
    name = vecmigrate.backup(harness.url(real)).name
    vecmigrate.rollback(harness.url(named), to_version="000")
    vecmigrate.restore(harness.url(named), name=name)

    assert named == real or named.is_symlink()
    assert small.after == harness.contents(real)
    harness.require_tidy(real)
    tried("Hostile names and places", f"a symlinked {what}", "followed, the link stays")
    del mode


def test_a_dangling_link_is_no_backup_folder(small: Subject, tmp_path: Path) -> None:
    """A backup folder that leads nowhere stops the run before anything is changed."""
    database = small.copy(tmp_path / "service")
    (database.parent / "backups").symlink_to(tmp_path / "nowhere")
    result = run_cli("--db-path", database, "migrate")
    assert 1 == result.code
    harness.require_explained(result.err)
    assert "old state" == small.state(database)
    assert not (tmp_path / "nowhere").exists()
    tried("Hostile names and places", "a backup folder that is a dangling link", "exit 1, nothing changed")


@pytest.mark.parametrize("other", ["migrated", "as found"])
def test_two_databases_of_one_name_in_one_backup_folder(
    other: str,
    small: Subject,
    tmp_path: Path,
) -> None:
    """Each sees and restores only its own backups, also by name and also before its first run."""
    one, two = small.copy(tmp_path / "one"), small.copy(tmp_path / "two")
    folder = ("VECMIGRATE_BACKUP_DIR", str(tmp_path / "kept"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*folder)
        vecmigrate.upgrade(harness.url(one))
        if other == "migrated":
            vecmigrate.upgrade(harness.url(two))
        of_one = run_cli("--db-path", one, "backup", "list", "--json").document["backups"]
        of_two = run_cli("--db-path", two, "backup", "list", "--json").document["backups"]
        assert {each["name"] for each in of_one}.isdisjoint(each["name"] for each in of_two)
        crossed = run_cli("--db-path", two, "restore", of_one[0]["name"])
    assert 1 == crossed.code
    assert (small.after if other == "migrated" else small.before) == harness.contents(two)
    tried("Hostile names and places", "two databases of one name in one backup folder", "no cross restore")


def test_ten_backups_in_a_second_and_a_clock_that_goes_back(small: Subject, tmp_path: Path) -> None:
    """Names never collide, and the newest is the one made last, whatever the clock said."""
    database = small.copy(tmp_path / "service")
    made = [vecmigrate.backup(harness.url(database)) for _ in range(10)]
    assert 10 == len({each.name for each in made})

    # The last one was made when the clock was a year ahead.
    last = Path(made[-1].path)
    ahead = last.with_name(last.name.replace("-2", "-3", 1))
    document = json.loads(last.with_suffix(".json").read_text(encoding="utf-8"))
    document["created_at"] = "3" + document["created_at"][1:]
    last.with_suffix(".json").unlink()
    last.rename(ahead)
    ahead.with_suffix(".json").write_text(json.dumps(document), encoding="utf-8")
    legacy.execute(database, "INSERT INTO memory_meta VALUES ('later', 'x')")
    newest = vecmigrate.backup(harness.url(database))
    listed = run_cli("--db-path", database, "backup", "list", "--json").document["backups"]
    assert [newest.name, ahead.name] == [each["name"] for each in listed[:2]]

    legacy.execute(database, "DELETE FROM memory_meta")
    run_cli("--db-path", database, "rollback", "--to-version", "base", "--from-backup")
    assert [("later",), ("schema",)] == legacy.query(database, "SELECT key FROM memory_meta ORDER BY 1")
    tried("Hostile names and places", "ten backups in a second, then a clock that went back", "the newest is the last")


ODD = ["a b%41", "100%", "a@b:c#d", "a?b=c", "ünï©ødé 💾 'q\"", "-v", "$HOME;a&b\\c"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_odd_names_of_files_and_folders(name: str, small: Subject, tmp_path: Path) -> None:
    """By path and by URL the same file is found, and nothing else is made."""
    folder = tmp_path / name
    template = small.copy(folder / name)
    database = template.rename(template.with_name(f"{name}.sqlite3"))
    assert 0 == run_cli("--db-path", database, "migrate").code
    url = harness.url(database)
    assert "current" == vecmigrate.status(url).state
    assert vecmigrate.ensure_current(url).state == "current"
    backup = harness.backup_files(database)[0].name
    assert 0 == run_cli("--db-path", database, "restore", "--", backup).code
    assert 0 == run_cli("--db-path", database, "migrate").code
    assert small.after == harness.contents(database)
    harness.require_tidy(database)
    assert [name] == [each.name for each in tmp_path.iterdir()]
    tried("Hostile names and places", "%, @, :, #, ?, spaces, quotes and Unicode in names", "the file itself, only")


def test_urls_of_every_kind(small: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """file: URIs, relative paths and memory are understood as SQLAlchemy does."""
    database = small.copy(tmp_path / "service")
    monkeypatch.chdir(database.parent)
    urls = [
        "sqlite:///sessions.sqlite3",
        "sqlite:///./sessions.sqlite3",
        f"sqlite:///{database}",
        f"sqlite:///file:{database}?uri=true",
        "sqlite:///file:sessions.sqlite3?mode=rwc&uri=true",
        f"sqlite+pysqlite:///{database}",
    ]
    for url in urls:
        found = run_cli("--database-url", url, "status", "--json")
        assert (0, str(database)) == (found.code, found.document["database"])
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"):
        result = run_cli("--database-url", url, "migrate")
        harness.require_explained(result.err)
        assert result.code in {0, 1}
    assert {"sessions.sqlite3"} == {each.name for each in database.parent.iterdir()} - {
        "sessions.sqlite3-wal",
        "sessions.sqlite3-shm",
    }
    tried("Hostile names and places", "file: URIs, relative paths and :memory:", "the file itself, only")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "://",
        "sqlite:/x",
        "nosuch:///x",
        "postgresql://host:notaport/x",
        "sqlite:///a\x00b",
        "sqlite:///" + "x" * 5000,
        "sqlite:///" + "d/" * 3000 + "x",
        "sqlite:////dev/null/x",
    ],
)
@pytest.mark.parametrize("words", [["status"], ["migrate"]])
def test_urls_that_are_none(url: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What names no database is an error that says so, at every door, and makes no file."""
    monkeypatch.chdir(tmp_path)
    result = run_cli("--database-url", url, *words)
    # Nothing at all, as from a variable that is not set, is already a mistake of the command line.
    assert result.code == (1 if url else 2), result.err
    harness.require_explained(result.err)
    with pytest.raises(VecmigrateError):
        vecmigrate.upgrade(url)
    assert [] == list(tmp_path.iterdir())
    tried("Hostile names and places", "URLs that are none", "exit 1 or 2, nothing made")


def test_special_files_are_no_databases(tmp_path: Path) -> None:
    """A folder, a pipe and a device are refused at once."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, Path("/dev/null"), Path("/dev/zero"), tmp_path / "pipe"):
        for words in (["status"], ["migrate"]):
            result = run_cli("--db-path", path, *words)
            assert 1 == result.code, f"{path} {words} {result.err}"
            harness.require_explained(result.err)
            tried("Hostile names and places", "a folder, a pipe or a device as database", "exit 1")
    shutil.rmtree(tmp_path)


def make_other(place: Path, what: str) -> None:
    """Make something that is no regular file, a device only as root."""
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    elif os.geteuid() == 0:
        os.mknod(place, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    else:
        place.symlink_to("/dev/null")


@pytest.mark.parametrize("what", ["pipe", "folder", "device"])
@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_what_is_no_file_is_no_mirror(what: str, small: Subject, tmp_path: Path) -> None:
    """Nobody waits for a pipe, a device is not replaced, and each run tells of a mirror that cannot be written."""
    database = small.copy(tmp_path / "service")
    mirror = database.with_suffix(".migrations.json")
    make_other(mirror, what)
    before = mirror.stat().st_mode
    for _ in range(2):
        child = harness.start(harness.go, "cli", str(database))
        assert 0 == child.wait(30), child.output
        assert f"The mirror {mirror} could not be written" in child.output
    rebuilt = harness.start(harness.run_cli, "--db-path", str(database), "history", "--rebuild")
    assert 1 == rebuilt.wait(30), rebuilt.output
    harness.require_explained(rebuilt.output)
    assert (before, small.after) == (mirror.stat().st_mode, harness.contents(database))
    tried("Hostile names and places", "a pipe, a folder or a device as mirror", "new state, told, left alone")


@pytest.mark.parametrize("what", ["pipe", "folder", "device", "too large"])
@pytest.mark.parametrize("mode", ["delete"], indirect=True)
def test_what_is_no_small_file_is_no_marker(what: str, small: Subject, tmp_path: Path) -> None:
    """It is passed over by readers and runs, and is no attempt."""
    database = small.copy(tmp_path / "service")
    marker = database.with_name(f"{database.name}.run-{'0' * 32}.json")
    if what == "too large":
        marker.touch()
        os.truncate(marker, 1 << 40)
    else:
        make_other(marker, what)
    for words in (["status"], ["migrate"], ["migrate"], ["history"]):
        child = harness.start(harness.run_cli, "--db-path", str(database), *words)
        assert 0 == child.wait(30), child.output
    assert ["success"] * len(REVISIONS) == harness.statuses(database)
    assert (what != "too large") == marker.exists()
    tried("Hostile names and places", "a pipe, a folder, a device or a huge file as marker", "passed over, new state")


def test_a_mirror_that_is_too_large_is_written_anew(small: Subject, tmp_path: Path) -> None:
    """A terabyte of nothing is not read, and moved aside."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    os.truncate(database.with_suffix(".migrations.json"), 1 << 40)
    vecmigrate.upgrade(harness.url(database))
    (aside,) = database.parent.glob("*.damaged-*")
    assert 1 << 40 == aside.stat().st_size
    aside.unlink()
    harness.require_tidy(database)
    tried("Hostile names and places", "a mirror of a terabyte", "healed")


@pytest.mark.parametrize("key", ["reason", "created_at"])
def test_a_manifest_does_not_speak_to_the_terminal(key: str, small: Subject, tmp_path: Path) -> None:
    """Whoever lists backups sees the codes in a manifest, and the terminal does not obey them."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    manifest = harness.backup_files(database)[0].with_suffix(".json")
    content = json.loads(manifest.read_text(encoding="utf-8")) | {key: "\x1b[2Jgone\n"}
    manifest.write_text(json.dumps(content), encoding="utf-8")

    result = run_cli("--db-path", database, "backup", "list")
    assert "\x1b" not in result.out + result.err
    assert r"\x1b[2Jgone\n" in result.out
    tried("Hostile names and places", "codes for the terminal in a manifest", "shown, not obeyed")
