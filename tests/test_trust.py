"""What somebody else may have put there: folders that others write, schemas, and markers."""

import json
import logging
import os
import uuid
from contextlib import closing
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli, url
from vecmigrate import backups, sqlite_files

POSIX = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


@POSIX
@pytest.mark.parametrize("is_shared", [True, False])
def test_a_verified_copy_lies_where_nobody_else_writes(
    is_shared: bool,  # noqa: FBT001 - a parameter of the test
    released_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is opened again by its name, so it stands beside the database where the backup folder is not ours alone."""
    vecmigrate.upgrade(url(released_file))
    backup = vecmigrate.backup(url(released_file))
    folder = Path(backup.path).parent
    folder.chmod(0o777 if is_shared else 0o700)
    places: list[Path] = []
    real = backups.copy_verified

    def copy_verified(each: backups.Backup, target: str) -> None:
        places.append(Path(target).parent)
        real(each, target)

    monkeypatch.setattr(backups, "copy_verified", copy_verified)
    with caplog.at_level(logging.WARNING, "vecmigrate"):
        assert 0 == run_cli("--db-path", released_file, "restore", backup.name).code
    assert [released_file.parent if is_shared else folder] == places
    assert is_shared == (f"The backup folder {folder} may be written by everybody" in caplog.text)


@POSIX
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root gives files away")
def test_a_link_that_somebody_else_owns_is_told(
    released_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever owns it decides where the backups go."""
    (tmp_path / "elsewhere").mkdir()
    link = released_file.parent / "backups"
    link.symlink_to(tmp_path / "elsewhere")
    os.lchown(link, 12345, 12345)
    with caplog.at_level(logging.WARNING, "vecmigrate"):
        vecmigrate.backup(url(released_file))
    assert f"The backup folder {link} is a link that the user 12345 owns" in caplog.text


def test_a_planted_marker_tells_of_an_interruption_at_most(released_file: Path) -> None:
    """Its file may say what it likes: no success comes into the history by it."""
    vecmigrate.upgrade(url(released_file))
    run_id = uuid.uuid4().hex
    step = {"revision": "999", "direction": "upgrade", "migration_id": "9_planted", "version": "9", "name": "planted"}
    marker = {"run_id": run_id, "database_id": "", "started_at": "2026-01-01T00:00:00+00:00", "direction": "upgrade"}
    planted = marker | {"steps": [step], "backup": None, "message": "all is well"}
    for status in (None, "success"):
        document = planted | ({"status": status} if status else {})
        released_file.with_name(f"{released_file.name}.run-{run_id}.json").write_text(json.dumps(document))
        vecmigrate.upgrade(url(released_file))
    found = legacy.query(released_file, "SELECT status FROM vecmigrate_history WHERE name = 'planted'")
    assert [("interrupted",)] == found


def test_schemas_are_not_trusted_where_nothing_is_migrated(released_file: Path) -> None:
    """Reading, checking, copying and restoring runs nothing that a schema may have been given."""
    with closing(sqlite_files.connect(str(released_file))) as connection:
        assert (0,) == connection.execute("PRAGMA trusted_schema").fetchone()


def test_a_service_s_full_text_search_follows_a_run(released_file: Path) -> None:
    """Its trigger writes to FTS5, which a schema that is not trusted must not."""
    legacy.execute(
        released_file,
        "CREATE TABLE notes (text)",
        "CREATE VIRTUAL TABLE found USING fts5 (text, content='notes')",
        "CREATE TRIGGER noted AFTER INSERT ON notes BEGIN "
        "INSERT INTO found (rowid, text) VALUES (new.rowid, new.text); END",
        "CREATE VIEW all_found AS SELECT * FROM found",
    )
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, "INSERT INTO notes VALUES ('needle in hay')")
    assert [("needle in hay",)] == legacy.query(released_file, "SELECT text FROM found WHERE found MATCH 'needle'")
