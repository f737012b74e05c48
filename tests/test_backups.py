"""Backups of real SQLite files, made beside real writers, in real folders."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import url
from vecmigrate import backups, sqlite_files, verification
from vecmigrate.backups import Backup
from vecmigrate.comparison import same_content
from vecmigrate.errors import BackupError, LockTimeoutError
from vecmigrate.restoring import restore

POSIX = pytest.mark.skipif(os.name == "nt", reason="modes and signals of POSIX")
ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = "f" * 32
MODES = ("wal", "delete")
CREATE = """
import sys
from vecmigrate import backups
backups.create(sys.argv[1], sys.argv[2], database_id=sys.argv[3], revision=None, app_version=None,
               reason="test", timeout=5)
"""


def make(path: Path, mode: str = "delete", *, rows: int = 200, revision: str | None = None) -> str:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE log (n, filler)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO log VALUES (?, ?)", [(n, "x" * 200) for n in range(rows)])
        if revision:
            connection.execute("CREATE TABLE vecmigrate_version (version_num TEXT)")
            connection.execute("INSERT INTO vecmigrate_version VALUES (?)", (revision,))
        connection.execute("COMMIT")
    return str(path)


def back_up(
    database: str, folder: Path, *, revision: str | None = None, identity: str = ID, timeout: float = 5
) -> Backup:
    return backups.create(
        database,
        str(folder),
        database_id=identity,
        revision=revision,
        app_version="1.0.0",
        reason="before upgrade",
        timeout=timeout,
    )


def count(path: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM log").fetchone()[0])


def listed(folder: Path, database: str, *, identity: str | None = ID) -> list[Backup]:
    return backups.listing(str(folder), database_id=identity, database_path=database)


def rotated(folder: Path, database: str, *, keep: int, head: str | None = "002") -> list[str]:
    return backups.rotate(
        str(folder),
        keep=keep,
        database_id=ID,
        database_path=database,
        head=head,
        order=("000", "001", "002"),
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".gitignore"}


@contextlib.contextmanager
def busy_writer(database: str) -> Iterator[None]:
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
        "while True: connection.execute('INSERT INTO log VALUES (-1, hex(randomblob(300)))')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, database]) as process:
        try:
            time.sleep(0.3)
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("mode", MODES)
def test_backs_up_under_the_write_lock_which_stays_held(tmp_path: Path, mode: str) -> None:
    """The backup has what was committed, and another process still can't write when it is done."""
    database = make(tmp_path / "app.db", mode)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        backup = back_up(database, tmp_path / "backups")
        script = f"import sqlite3; sqlite3.connect({database!r}, timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr
    assert count(backup.path) == 200
    backups.verify(backup)


def test_name_and_manifest(tmp_path: Path) -> None:
    """Name, manifest and dictionary say what DESIGN section 4 promises."""
    database = make(tmp_path / "app.db", revision="001")
    backup = back_up(database, tmp_path / "backups", revision="001")
    moment = datetime.fromisoformat(backup.created_at)
    assert backup.name == f"app-{moment:%Y%m%dT%H%M%S.%f}Z-001.sqlite3"
    assert moment.utcoffset() == UTC.utcoffset(None)
    assert names(tmp_path / "backups") == {backup.name, backup.name.replace(".sqlite3", ".json")}
    assert listed(tmp_path / "backups", database) == [backup]
    assert backup.as_dict(verified=True) == {
        "name": backup.name,
        "path": str(tmp_path / "backups" / backup.name),
        "revision": "001",
        "app_version": "1.0.0",
        "created_at": backup.created_at,
        "bytes": Path(backup.path).stat().st_size,
        "reason": "before upgrade",
        "database_id": ID,
        "sha256": backup.sha256,
        "verified": True,
    }


@POSIX
@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_only_the_owner_reads_them_under_any_umask(tmp_path: Path, umask: int) -> None:
    """Files are 0600 and a folder that we create is 0700 and ignored by git."""
    database = make(tmp_path / "app.db")
    folder = tmp_path / "backups"
    before = os.umask(umask)
    try:
        back_up(database, folder)
    finally:
        os.umask(before)
    modes = {name: (folder / name).stat().st_mode & 0o777 for name in names(folder)}
    assert set(modes.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's folder gets no .gitignore and keeps its mode."""
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o755)
    mode = folder.stat().st_mode
    back_up(make(tmp_path / "app.db"), folder)
    assert folder.stat().st_mode == mode
    assert not (folder / ".gitignore").exists()


def test_reading_a_backup_of_a_wal_database_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """The copy is in journal mode DELETE, and no reader adds a file to the folder."""
    database = make(tmp_path / "app.db", "wal")
    backup = back_up(database, tmp_path / "odd #?% folder")
    before = names(tmp_path / "odd #?% folder")
    backups.verify(backup)
    assert backups.is_verified(backup)
    assert Path(backup.path).read_bytes()[18:20] == b"\x01\x01"
    assert names(tmp_path / "odd #?% folder") == before


@pytest.mark.parametrize("mode", MODES)
def test_a_busy_writer_does_not_hold_it_up(tmp_path: Path, mode: str) -> None:
    """Beside a writer that never pauses every backup is done in time, and sound."""
    database = make(tmp_path / "app.db", mode, rows=2000)
    with busy_writer(database):
        made = [back_up(database, tmp_path / "backups", timeout=20) for _ in range(3)]
    for backup in made:
        backups.verify(backup)
        assert count(backup.path) > 2000


def test_the_wait_for_an_exclusive_lock_is_bounded(tmp_path: Path) -> None:
    """A database that stays unreadable ends in exit code 4 and leaves no file."""
    database = make(tmp_path / "app.db")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(LockTimeoutError) as caught:
            back_up(database, tmp_path / "backups", timeout=0.3)
    assert caught.value.exit_code == 4
    assert time.monotonic() - started < 3
    assert names(tmp_path / "backups") == set()


def test_many_in_one_moment_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups made in one microsecond, or while the clock runs backwards, are kept and ordered as made."""
    database = make(tmp_path / "app.db")
    years = iter([2030, 2030, 2030, 2020, 2025])

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls(next(years), 1, 1, tzinfo=tz)

    monkeypatch.setattr(backups, "datetime", Clock)
    made = [back_up(database, tmp_path / "backups") for _ in range(5)]
    assert len({backup.name for backup in made}) == 5
    assert listed(tmp_path / "backups", database) == made[::-1]
    assert rotated(tmp_path / "backups", database, keep=2) == [backup.name for backup in made[:3]]


@POSIX
@pytest.mark.parametrize("limit", [0, 4096, 20_000, 49_152])
def test_a_full_disk_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """When the copy or its manifest can't be written, the folder is as it was and the error says so."""
    database = make(tmp_path / "app.db")
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    back_up(database, tmp_path / "backups")
    before = names(tmp_path / "backups")
    command = [sys.executable, "-c", limited + CREATE, database, str(tmp_path / "backups"), ID]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "BackupError: No backup of" in process.stderr
    assert "Nothing was changed" in process.stderr
    assert names(tmp_path / "backups") == before


def test_too_little_room_is_told_with_path_and_bytes(tmp_path: Path) -> None:
    """The error names the folder and how much it needs, and advises to prune only where that frees something."""
    database = make(tmp_path / "app.db")
    for count_of_backups in (0, 3, 4):
        while len(listed(tmp_path / "backups", database)) < count_of_backups:
            back_up(database, tmp_path / "backups")
        (tmp_path / "backups").mkdir(exist_ok=True)
        with pytest.raises(BackupError, match=r"needs 1152921504606912512 bytes free") as caught:
            backups.check_room(str(tmp_path / "backups"), 1 << 60, database=database)
        assert str(tmp_path) in caught.value.message
        is_advised = f"vecmigrate --db-path {database} backup prune --keep 3" in caught.value.next_step
        assert is_advised == (count_of_backups == 4)


@POSIX
def test_a_folder_that_could_not_be_made_is_not_left(tmp_path: Path) -> None:
    """On a full disk neither it nor an empty .gitignore stays; one that a killed run left is filled."""
    database, folder = make(tmp_path / "app.db"), tmp_path / "new" / "backups"
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    command = [sys.executable, "-c", limited + CREATE, database, str(folder), ID]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "could not be created" in process.stderr
    assert {"app.db"} == names(tmp_path)

    folder.mkdir(parents=True)
    (folder / ".gitignore").touch()
    back_up(database, folder)
    assert "*\n" == (folder / ".gitignore").read_text()
    (folder / ".gitignore").write_text("")
    back_up(database, folder)
    assert not (folder / ".gitignore").read_text()


def test_a_size_that_cannot_be_is_damage_and_no_lack_of_room(tmp_path: Path) -> None:
    """The manifest is wrong, and a larger disk would not help."""
    database = make(tmp_path / "app.db")
    backup = replace(back_up(database, tmp_path / "backups"), bytes=1 << 62)
    with pytest.raises(BackupError, match="its size is"):
        restore(database, backup, folder=str(tmp_path / "backups"), database_id=ID, timeout=5)


def test_unusable_places_are_named(tmp_path: Path) -> None:
    """A folder that is a file, an absent database and an empty one give an error and no file."""
    database = make(tmp_path / "app.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError, match="could not be created"):
        back_up(database, tmp_path / "file")
    with pytest.raises(BackupError, match="unable to open"):
        back_up(str(tmp_path / "absent.db"), tmp_path / "backups")
    (tmp_path / "empty.db").touch()
    with pytest.raises(BackupError, match="nothing to back up"):
        back_up(str(tmp_path / "empty.db"), tmp_path / "backups")
    assert names(tmp_path / "backups") == set()
    assert not (tmp_path / "absent.db").exists()


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt passes through, even between data and manifest, and the folder is empty then."""
    database = make(tmp_path / "app.db")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backups, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        back_up(database, tmp_path / "backups")
    assert names(tmp_path / "backups") == set()


@pytest.mark.parametrize("links", [True, False])
def test_ctrl_c_right_after_the_name_was_given_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    """The data file is known as ours before anything tells that it got its name; what was there before stays."""
    database = make(tmp_path / "app.db")
    kept = back_up(database, tmp_path / "backups")
    before = names(tmp_path / "backups")
    real = sqlite_files.rename_to_new

    def interrupt(source: str, target: str) -> bool:
        assert not real(source, kept.path)
        assert real(source, target)
        raise KeyboardInterrupt

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(sqlite_files, "rename_to_new", interrupt)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(KeyboardInterrupt):
        back_up(database, tmp_path / "backups")
    assert before == names(tmp_path / "backups")


@POSIX
def test_a_kill_leaves_no_partial_backup_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    """After SIGKILL at many moments every listed backup is whole, and cleaning leaves only pairs."""
    database = make(tmp_path / "app.db", rows=20_000)
    folder = tmp_path / "backups"
    folder.mkdir()
    stray = 0
    for attempt in range(14):
        before = len(names(folder))
        with subprocess.Popen([sys.executable, "-c", CREATE, database, str(folder), ID]) as process:
            while process.poll() is None and len(names(folder)) == before:
                time.sleep(0.001)
            time.sleep(attempt * 0.006)
            process.kill()
        stray += any(name.startswith(".") for name in names(folder))
        for backup in listed(folder, database):
            backups.verify(backup)
        backups.clean_temporary(str(folder), database)
        pairs = {backup.name for backup in listed(folder, database)}
        assert names(folder) == pairs | {name.replace(".sqlite3", ".json") for name in pairs}
    assert stray > 2


def test_cleaning_knows_data_that_lost_its_manifest_to_a_kill(tmp_path: Path) -> None:
    """A data file that is still a second name of the temporary one goes with it; others stay."""
    backup = back_up(make(tmp_path / "app.db"), tmp_path)
    Path(backup.path.replace(".sqlite3", ".json")).unlink()
    kept = tmp_path / "notes-20200101T000000.000000Z-base.sqlite3"
    kept.write_text("mine")
    with backups.scratch(str(tmp_path), ID, str(tmp_path / "app.db")) as temporary:
        pass
    os.link(backup.path, temporary)
    backups.clean_temporary(str(tmp_path), str(tmp_path / "app.db"))
    assert names(tmp_path) == {"app.db", kept.name}


@pytest.mark.parametrize("identity", [ID, "../../../outside", "x" * 300, "\udc80"])
def test_cleaning_touches_only_its_own(tmp_path: Path, identity: str) -> None:
    """Temporary files of a copy, and whatever else looks similar, stay; identities are not paths."""
    mine, copy = str(tmp_path / "app.db"), str(tmp_path / "copy.db")
    with backups.scratch(str(tmp_path), identity, copy) as of_copy:
        pass
    similar = {Path(of_copy).name, f".{ID}.0123456789abcdef01234567.tmp", f".{ID}.notes.tmp", "app.tmp", f".{ID}."}
    for name in similar:
        (tmp_path / name).touch()
    with backups.scratch(str(tmp_path), identity, mine) as path:
        (tmp_path / (path + "-journal")).touch()
        assert Path(path).parent == tmp_path
        backups.clean_temporary(str(tmp_path), mine)
        assert names(tmp_path) == similar
    backups.clean_temporary(str(tmp_path / "absent"), mine)
    assert not (tmp_path / "absent").exists()


def test_two_databases_of_one_name_in_one_folder(tmp_path: Path) -> None:
    """Each sees its own backups; without an identity the path decides, and the name only if it is clear."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = make(tmp_path / "a" / "app.db"), make(tmp_path / "b" / "app.db")
    of_first = back_up(first, tmp_path / "backups")
    assert listed(tmp_path / "backups", str(tmp_path / "moved" / "app.db"), identity=None) == [of_first]
    of_second = back_up(second, tmp_path / "backups", identity=OTHER_ID)
    assert listed(tmp_path / "backups", first) == [of_first]
    assert listed(tmp_path / "backups", second, identity=None) == [of_second]
    assert listed(tmp_path / "backups", str(tmp_path / "moved" / "app.db"), identity=None) == []
    assert backups.recorded_id(str(tmp_path / "backups"), database_path=second) == OTHER_ID
    with pytest.raises(BackupError, match="is not a backup of"):
        backups.find(of_second.name, str(tmp_path / "backups"), database_id=ID, database_path=first)


def test_status_tells_of_the_backups_of_a_lost_database(tmp_path: Path) -> None:
    """Where the file is gone, its last backup and the way to it are told."""
    path = legacy.build(tmp_path / "app.db", "legacy")
    vecmigrate.upgrade(url(path))
    assert not vecmigrate.status(url(path)).notes
    for lost in tmp_path.glob("app.db*"):
        lost.unlink()

    found = vecmigrate.status(url(path))

    assert "absent" == found.state
    assert found.last_backup
    assert f"vecmigrate --db-path {path} restore {found.last_backup['name']}" in found.notes[0]

    Path(found.last_backup["path"]).write_bytes(b"damaged")
    assert f"vecmigrate --db-path {path} backup list" in vecmigrate.status(url(path)).notes[0]


def test_listing_creates_nothing(tmp_path: Path) -> None:
    """An absent folder lists as empty and stays absent."""
    assert listed(tmp_path / "absent", "app.db") == []
    assert backups.damaged(str(tmp_path / "absent")) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"sequence": 1}',
        b"[" + b"1," * 1_000_000 + b"1]",
    ],
    ids=["empty", "list", "no keys", "not UTF-8", "deep", "one key", "huge"],
)
def test_a_damaged_manifest_is_passed_over_and_reported(tmp_path: Path, content: bytes) -> None:
    """It hides no other backup; files that are no manifests of ours are not meant."""
    database = make(tmp_path / "app.db")
    good = back_up(database, tmp_path)
    (tmp_path / "app-20200101T000000.000000Z-001.json").write_bytes(content)
    (tmp_path / "package.json").write_bytes(content)
    assert listed(tmp_path, database) == [good]
    assert backups.damaged(str(tmp_path)) == ["app-20200101T000000.000000Z-001.json"]


@pytest.mark.parametrize("key", ["bytes", "revision", "sha256", "sequence", "database_path"])
def test_a_manifest_with_a_wrong_type_is_damaged(tmp_path: Path, key: str) -> None:
    """Each field is either of its type or the manifest is not believed at all."""
    database = make(tmp_path / "app.db")
    manifest = Path(back_up(database, tmp_path).path.replace(".sqlite3", ".json"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {key: ["../../etc/passwd"]}))
    assert listed(tmp_path, database) == []
    assert backups.damaged(str(tmp_path)) == [manifest.name]


@pytest.mark.parametrize("key", ["database_id", "reason", "revision"])
def test_a_manifest_with_half_a_character_is_damaged(tmp_path: Path, key: str) -> None:
    """JSON can name what no text can hold, and nothing could be done with it."""
    database = make(tmp_path / "app.db")
    manifest = Path(back_up(database, tmp_path).path.replace(".sqlite3", ".json"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {key: "\ud800"}))
    assert [manifest.name] == backups.damaged(str(tmp_path))


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_folder_that_is_none_is_not_taken_for_an_empty_one(tmp_path: Path, what: str) -> None:
    """Only a missing one has no backups; cleaning up passes it over."""
    folder = tmp_path / "backups"
    if what == "file":
        folder.touch()
    else:
        folder.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BackupError, match=f"The backup folder {folder} cannot be read"):
        listed(folder, "app.db")
    backups.clean_temporary(str(folder), ID)
    assert None is backups.recorded_id(str(folder), database_path="app.db")


def test_paths_in_a_manifest_do_not_matter(tmp_path: Path) -> None:
    """Name and path come from where the manifest lies."""
    database = make(tmp_path / "app.db")
    backup = back_up(database, tmp_path)
    manifest = Path(backup.path.replace(".sqlite3", ".json"))
    hostile = {"name": "../../outside", "path": "/etc/passwd"}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | hostile))
    assert listed(tmp_path, database) == [backup]


def test_verify_says_what_is_wrong(tmp_path: Path) -> None:
    """Missing, truncated, changed, and each of the things a manifest may claim wrongly, have words of their own."""
    database = make(tmp_path / "app.db", revision="001")
    backup = back_up(database, tmp_path, revision="001")
    data = Path(backup.path)
    content = data.read_bytes()

    def fails(match: str) -> None:
        assert not backups.is_verified(backup)
        with pytest.raises(BackupError, match=match):
            backups.verify(backup)

    data.write_bytes(content[:-1])
    fails("size is")
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    fails("sha256 differs")
    data.unlink()
    fails("file is missing")
    data.mkdir()
    fails("file is missing")


def rewrite(backup: Backup, statement: str) -> Backup:
    """Change the data of *backup* and forge the hash, as somebody with access to both files could."""
    with contextlib.closing(sqlite3.connect(backup.path, isolation_level=None)) as connection:
        connection.executescript(statement)
    return forge(backup)


def forge(backup: Backup, **fields: object) -> Backup:
    size, sha256 = Path(backup.path).stat().st_size, verification.sha256(backup.path)
    return Backup(**(vars(backup) | {"bytes": size, "sha256": sha256} | fields))


META = "CREATE TABLE vecmigrate_meta (key, value); INSERT INTO vecmigrate_meta VALUES ('database_id', '%s')"


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE vecmigrate_version SET version_num = '002'", "holds revision 002, its manifest says 001"),
        ("DROP TABLE vecmigrate_version", "holds revision base, its manifest says 001"),
        (META % OTHER_ID, "holds another database"),
    ],
)
def test_verify_looks_inside(tmp_path: Path, statement: str, match: str) -> None:
    """A manifest whose hash fits, but not its revision or identity, is refused."""
    backup = back_up(make(tmp_path / "app.db", revision="001"), tmp_path, revision="001")
    backups.verify(rewrite(backup, META % ID))
    backups.verify(rewrite(backup, "DROP TABLE vecmigrate_meta"))
    with pytest.raises(BackupError, match=match):
        backups.verify(rewrite(backup, statement))


def test_verify_checks_the_structure(tmp_path: Path) -> None:
    """A backup whose pages are damaged is refused even when the hash was made afterwards."""
    backup = back_up(make(tmp_path / "app.db"), tmp_path)
    data = Path(backup.path)
    content = bytearray(data.read_bytes())
    content[4096:4200] = b"\xff" * 104
    data.write_bytes(content)
    with pytest.raises(BackupError, match="quick_check"):
        backups.verify(forge(backup))
    data.write_bytes(b"no database at all" * 100)
    with pytest.raises(BackupError, match="quick_check"):
        backups.verify(forge(backup))


def test_rows_that_break_a_constraint_are_no_damage(tmp_path: Path) -> None:
    """A service's own violated CHECK or NOT NULL, which quick_check reports, does not spoil the backup."""
    database = make(tmp_path / "app.db")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE odd (a CHECK (a > 0), b)")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("INSERT INTO odd VALUES (-1, NULL)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'b)', 'b NOT NULL)') WHERE name = 'odd'")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert len(connection.execute("PRAGMA quick_check").fetchall()) == 2
    backups.verify(back_up(database, tmp_path / "backups"))


@pytest.mark.parametrize(
    "name", ["../{}", "/etc/passwd", "a\0b", "{}\n", "~", "~/{}", "..", "", ".", "{}/", "..\\{}", "C:{}", "./{}"]
)
def test_find_refuses_paths(tmp_path: Path, name: str) -> None:
    """A name with anything of a path or a control character in it is refused, and says so."""
    database = make(tmp_path / "app.db")
    backup = back_up(database, tmp_path)
    with pytest.raises(BackupError, match="not by a path") as caught:
        backups.find(name.format(backup.name), str(tmp_path), database_id=ID, database_path=database)
    assert "\n" not in caught.value.message
    assert caught.value.next_step == f"vecmigrate --db-path {database} backup list"


def test_find_by_name(tmp_path: Path) -> None:
    """A backup is found with and without its extension; an unknown name is not a path but still no backup."""
    database = make(tmp_path / "app.db")
    backup = back_up(database, tmp_path)

    def find(name: str) -> Backup:
        return backups.find(name, str(tmp_path), database_id=ID, database_path=database)

    assert find(backup.name) == backup
    assert find(backup.name.removesuffix(".sqlite3")) == backup
    with pytest.raises(BackupError, match="none of this name"):
        find("app-20200101T000000.000000Z-001")


def test_newest_verified_passes_over_what_is_damaged(tmp_path: Path) -> None:
    """Only a backup of that very revision that stands verification counts."""
    database = make(tmp_path / "app.db", revision="001")
    old, damaged = (back_up(database, tmp_path, revision="001") for _ in range(2))
    Path(damaged.path).write_bytes(b"damaged")

    def newest(revision: str | None) -> Backup | None:
        return backups.newest_verified(str(tmp_path), revision, database_id=ID, database_path=database)

    assert newest("001") == old
    assert newest("000") is None
    assert newest(None) is None


def test_rotation_keeps_the_way_back(tmp_path: Path) -> None:
    """The newest verified backup below head stays however old, damaged ones don't count as such."""
    folder = tmp_path / "backups"
    base, at_head = make(tmp_path / "app.db"), tmp_path / "at_head"
    at_head.mkdir()
    new = make(at_head / "app.db", revision="002")
    oldest, good, damaged = (back_up(base, folder) for _ in range(3))
    Path(damaged.path).write_bytes(b"damaged")
    newer = [back_up(new, folder, revision="002") for _ in range(3)]
    # Else these were backups of a copy.
    Path(new).unlink()
    foreign = back_up(base, folder, identity=OTHER_ID)
    assert rotated(folder, base, keep=10) == []
    assert rotated(folder, base, keep=2) == [oldest.name, damaged.name, newer[0].name]
    assert listed(folder, base) == [newer[2], newer[1], good]
    assert listed(folder, base, identity=OTHER_ID) == [foreign]
    assert rotated(folder, base, keep=0) == [newer[1].name, newer[2].name]
    assert rotated(folder, base, keep=0, head=None) == []
    assert not Path(damaged.path).with_suffix(".json").exists()


def test_rotation_keeps_the_way_back_to_each_revision(tmp_path: Path) -> None:
    """However many backups of one older revision there are, the last one of another stays too."""
    folder = tmp_path / "backups"
    base, at_one = make(tmp_path / "app.db"), tmp_path / "at_one"
    at_one.mkdir()
    one = make(at_one / "app.db", revision="001")
    first = back_up(base, folder)
    newer = [back_up(one, folder, revision="001") for _ in range(3)]
    Path(one).unlink()
    assert [newer[0].name] == rotated(folder, base, keep=2)
    assert [newer[2], newer[1], first] == listed(folder, base)


Change = Callable[[sqlite3.Connection], object]


def statements(script: str) -> Change:
    return lambda connection: connection.executescript(script)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (statements("SELECT 1"), True),
        (statements("INSERT INTO vecmigrate_history VALUES ('failed')"), True),
        (statements("DROP TABLE vecmigrate_history"), True),
        (statements("CREATE INDEX vh ON vecmigrate_history (entry)"), True),
        (statements("VACUUM"), True),
        (statements("INSERT INTO log VALUES (9, 'x')"), False),
        (statements("DELETE FROM log WHERE n = 150"), False),
        (statements("UPDATE odd SET a = 1.0 WHERE a = 1"), False),
        (statements("UPDATE odd SET a = x'74' WHERE a = 't'"), False),
        (statements("UPDATE odd SET a = CAST(x'ff01' AS TEXT) WHERE a = CAST(x'ff00' AS TEXT)"), False),
        (statements("UPDATE keyed SET b = 3"), False),
        (statements("CREATE INDEX i ON log (n)"), False),
        (statements("CREATE TABLE empty (a)"), False),
        (statements("PRAGMA user_version = 7"), False),
        (statements("UPDATE full SET a = 'other'"), False),
    ],
)
def test_same_content(tmp_path: Path, change: Change, same: bool) -> None:  # noqa: FBT001
    """History apart, any difference in objects, values or storage classes counts, and nothing else does."""
    database = make(tmp_path / "app.db", "wal")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.executescript(
            "CREATE TABLE vecmigrate_history (entry); CREATE TABLE odd (a, rowid);"
            "INSERT INTO odd (a) VALUES (1), ('t'), (NULL), (CAST(x'ff00' AS TEXT)), (1e999), (-0.0);"
            'CREATE TABLE keyed (a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO keyed VALUES ("x", 1);'
            "CREATE VIRTUAL TABLE full USING fts5 (a); INSERT INTO full VALUES ('words');"
            'CREATE TABLE "odd "" name" (rowid, _rowid_, oid); INSERT INTO "odd "" name" VALUES (1, 2, 3);'
        )
        backup = back_up(database, tmp_path / "backups")
        change(connection)
        before = names(tmp_path / "backups")
        assert same_content(backup.path, connection) is same
    assert names(tmp_path / "backups") == before


@POSIX
def test_symlinks_lead_to_one_database(tmp_path: Path) -> None:
    """A database and a folder behind symbolic links are the same as themselves."""
    database = make(tmp_path / "app.db")
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "link.db").symlink_to(database)
    backup = back_up(str(tmp_path / "link.db"), tmp_path / "folder")
    assert backup.database_path == os.path.realpath(database)
    assert backup.name.startswith("app-")
    assert [found.name for found in listed(tmp_path / "real", database, identity=None)] == [backup.name]
    backups.verify(backup)


@pytest.mark.parametrize("name", ["ü#?%20 ü.db", "-rf.db", "x" * 200 + ".db", ".hidden", "new\nline.db"])
def test_odd_file_names(tmp_path: Path, name: str) -> None:
    """Any name of a database gives a backup that is found under its own name."""
    database = make(tmp_path / name, "wal")
    backup = back_up(database, tmp_path / "backups")
    found = backups.find(backup.name, str(tmp_path / "backups"), database_id=None, database_path=database)
    assert found == backup
    backups.verify(found)
    assert "\n" not in backup.name


def test_a_hostile_revision_is_no_path(tmp_path: Path) -> None:
    """A version table may hold anything; the backup stays in its folder."""
    backup = back_up(make(tmp_path / "app.db", revision="../../x"), tmp_path / "b", revision="../../x")
    assert Path(backup.path).parent == tmp_path / "b"
    assert listed(tmp_path / "b", str(tmp_path / "app.db"))[0].revision == "../../x"


@POSIX
def test_ctrl_c_while_waiting_ends_it(tmp_path: Path) -> None:
    """A real SIGINT during the wait for a lock ends it well before the timeout."""
    database = make(tmp_path / "app.db")
    (tmp_path / "backups").mkdir()
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        script = CREATE.replace("timeout=5", "timeout=60")
        command = [sys.executable, "-c", script, database, str(tmp_path / "backups"), ID]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while not names(tmp_path / "backups"):
                time.sleep(0.01)
            time.sleep(0.1)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr
    assert time.monotonic() - started < 5
    assert names(tmp_path / "backups") == set()


def test_content_of_a_file_is_known_without_locking_it(tmp_path: Path) -> None:
    """Identity is read from damaged and foreign tables of our names without an error."""
    database = make(tmp_path / "app.db")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE vecmigrate_version (other)")
        connection.executescript(META % ID)
        known = sqlite_files.identity(connection)
    assert (known.database_id, known.revision, known.app_version) == (ID, None, None)


def test_one_backup_that_cannot_be_removed_does_not_stop_the_rotation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and the others beyond the number go."""
    database, folder = make(tmp_path / "app.db", revision="002"), tmp_path / "backups"
    made = [back_up(database, folder, revision="002") for _ in range(5)]
    # A folder with something in it is what nobody can unlink, not even root.
    Path(made[0].path).unlink()
    Path(made[0].path).mkdir()
    (Path(made[0].path) / "kept").touch()

    assert [made[1].name, made[2].name] == rotated(folder, database, keep=2)
    assert made[0].path in caplog.text


@pytest.mark.parametrize("length", [430, 470, 500, 600])
def test_a_path_that_is_too_long_for_sqlite_names_the_setting(tmp_path: Path, length: int) -> None:
    """SQLite opens no path of more than 512 bytes, and the names of backups are long."""
    database = make(tmp_path / "app.db")
    folder = tmp_path
    while len(str(folder)) < length:
        folder = folder / ("f" * min(200, max(1, length - len(str(folder)) - 1)))
    folder.mkdir(parents=True)

    if length < 440:
        assert 200 == count(back_up(database, folder).path)
        return
    with pytest.raises(BackupError, match="too long") as raised:
        back_up(database, folder)
    assert "VECMIGRATE_BACKUP_DIR" in raised.value.next_step
    assert [] == list(folder.iterdir())
