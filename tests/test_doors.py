"""Each legacy shape goes up and back through each door, with every row accounted for."""

import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import legacy
import vecmigrate
from doors import DOORS, downgrade, run_cli, upgrade, url
from ladder import HEAD, REVISIONS, above

SAME = "vector_store_id, session_id, provider, expires_at, created_at, updated_at"
UNIFIED = (
    "vector_store_id, name, session_id, provider, provider_metadata, is_protected, is_active, created_at, "
    "expires_at, updated_at, document_count, rollover_from"
)


def session_rows(path: Path, shape: str) -> list[tuple[object, ...]]:
    """Return what the session rows of a legacy database must be in the unified schema."""
    if shape == "legacy":
        return legacy.query(path, f"SELECT {SAME}, coalesce(protected, 0), 1 FROM vector_stores ORDER BY 1")
    if shape == "early":
        return []
    return legacy.query(path, f"SELECT {UNIFIED} FROM vector_stores ORDER BY 1")


def unified_rows(path: Path, shape: str) -> list[tuple[object, ...]]:
    """Return the rows at head that must equal ``session_rows``."""
    came_from_stores = "vector_store_id LIKE 'vs_hist_%'"
    columns = f"{SAME}, is_protected, is_active" if shape == "legacy" else UNIFIED
    return legacy.query(path, f"SELECT {columns} FROM vector_stores WHERE NOT {came_from_stores} ORDER BY 1")


def store_rows(path: Path) -> list[tuple[object, ...]]:
    """Return what the rows of ``stores`` must be in the unified schema, but for the name."""
    found = legacy.query(path, "SELECT store_id, doc_count, created_at FROM stores ORDER BY 1")
    return [
        (key, None, "openai", 1, 1, int(datetime.fromisoformat(str(created)).timestamp()), None, count)
        for key, count, created in found
    ]


def named_rows(path: Path) -> list[tuple[object, ...]]:
    return legacy.query(
        path,
        "SELECT vector_store_id, session_id, provider, is_protected, is_active, created_at, expires_at, "
        "document_count FROM vector_stores WHERE vector_store_id LIKE 'vs_hist_%' ORDER BY 1",
    )


def names(path: Path) -> list[tuple[object, ...]]:
    where = "vector_store_id LIKE 'vs_hist_%'"
    return legacy.query(path, f"SELECT vector_store_id, name FROM vector_stores WHERE {where} ORDER BY 1")


def expected_names(shape: str) -> list[tuple[str, str]]:
    # Unified files have project-conversations-001 to -015 already.
    taken = 0 if shape in {"early", "legacy"} else 15
    numbered = []
    for n in range(6):
        kind, number = ("conversations", n // 2 + 1 + taken) if n % 2 else ("commits", n // 2 + 1)
        numbered.append((f"vs_hist_{n:03d}", f"project-{kind}-{number:03d}"))
    return numbered


def found_part(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Return what a database holds of the objects that were found at first."""
    present: dict[str, Any] = legacy.digest(path)
    return {kind: {name: present[kind].get(name) for name in found[kind]} for kind in found}


def mirror(path: Path) -> Any:
    return json.loads(path.with_suffix(".migrations.json").read_text(encoding="utf-8"))["migrations"]


def mirrored_table(path: Path) -> list[dict[str, Any]]:
    """Return the entries that the table of attempts says the mirror must hold."""
    found = legacy.query(
        path,
        "SELECT migration_id, version, name, status, message, executed_at, duration_seconds, metadata, revision, "
        "direction FROM vecmigrate_history ORDER BY id",
    )
    plain = ("migration_id", "version", "name", "status", "message", "executed_at", "duration_seconds")
    return [
        dict(zip(plain, row, strict=False))
        | {"metadata": {"revision": row[8], "direction": row[9]} | json.loads(str(row[7]))}
        for row in found
    ]


def attempts(path: Path) -> list[tuple[object, ...]]:
    return legacy.query(path, "SELECT revision, direction, status FROM vecmigrate_history ORDER BY id")


def backups(path: Path) -> list[Path]:
    return sorted((path.parent / "backups").glob("*.sqlite3"))


UP = [(revision, "upgrade", "success") for revision in REVISIONS]
DOWN = [(revision, "downgrade", "success") for revision in above("000")[::-1]]


@pytest.mark.parametrize("door", DOORS)
def test_a_legacy_database_goes_up_back_and_up_again(door: str, shape: str, legacy_file: Path) -> None:
    """Up, every row lands and nothing of the service changes; back, all is as found; up again, as it was up."""
    found, service = legacy.digest(legacy_file), legacy.service_digest(legacy_file)
    sessions, stores = session_rows(legacy_file, shape), store_rows(legacy_file)

    upgrade(door, legacy_file)

    assert HEAD == legacy.revision(legacy_file)
    assert service == legacy.service_digest(legacy_file)
    assert sessions == unified_rows(legacy_file, shape)
    assert stores == named_rows(legacy_file)
    assert expected_names(shape) == names(legacy_file)
    assert [(0,)] == legacy.query(legacy_file, "SELECT count(*) FROM vecmigrate_preserved WHERE landed = 0")
    assert legacy.SOURCE_ROWS[shape] == len(sessions) + len(stores)
    at_head = legacy.digest(legacy_file)
    assert stores == store_rows(legacy_file)
    (backup,) = backups(legacy_file)
    assert found == legacy.digest(backup)
    assert UP == attempts(legacy_file)
    assert mirrored_table(legacy_file) == mirror(legacy_file)

    downgrade(door, legacy_file, "000" if door != "cli" else "0")

    assert "000" == legacy.revision(legacy_file)
    assert service == legacy.service_digest(legacy_file)
    assert found == found_part(legacy_file, found)
    assert at_head == legacy.digest(backups(legacy_file)[-1])
    assert UP + DOWN == attempts(legacy_file)
    assert mirrored_table(legacy_file) == mirror(legacy_file)

    upgrade(door, legacy_file)

    assert at_head == legacy.digest(legacy_file)
    assert service == legacy.service_digest(legacy_file)
    assert UP + DOWN + UP[1:] == attempts(legacy_file)
    assert [("ok",)] == legacy.query(legacy_file, "PRAGMA integrity_check")


@pytest.mark.parametrize("door", DOORS)
def test_base_gives_back_the_database_that_was_found(door: str, legacy_file: Path) -> None:
    """From head to base, where every table with rows was adopted, what was there is there again and no more."""
    found = legacy.digest(legacy_file)
    upgrade(door, legacy_file)

    downgrade(door, legacy_file, "base")

    assert None is legacy.revision(legacy_file)
    assert found == legacy.digest(legacy_file)


def test_the_command_line_tells_of_each_step(shape: str, legacy_file: Path) -> None:
    """status, migrate, list, history, rollback and migrate again each report what is true."""
    file = ("--db-path", legacy_file)
    before = run_cli(*file, "status", "--json").document
    assert ("unversioned", None, REVISIONS) == (before["state"], before["revision"], before["pending"])
    assert 3 == run_cli(*file, "status", "--check").code

    up = run_cli(*file, "migrate", "--json").document
    assert (None, HEAD, REVISIONS) == (up["from"], up["to"], up["applied"])
    assert str(backups(legacy_file)[0]) == up["backup"]
    assert {"converted": 0, "set_aside": 0} == up["rows"]

    listed = run_cli(*file, "list", "--json").document["revisions"]
    assert ["success"] * len(REVISIONS) == [each["status"] for each in listed]
    assert [*[False] * (len(REVISIONS) - 1), True] == [each["current"] for each in listed]

    assert mirror(legacy_file) == run_cli(*file, "history", "--json").document["attempts"]

    down = run_cli(*file, "rollback", "--to-version", "0", "--json").document
    assert (HEAD, "000", above("000")[::-1]) == (down["from"], down["to"], down["reverted"])
    after = run_cli(*file, "status", "--json").document
    assert ("pending", "000", above("000")) == (after["state"], after["revision"], after["pending"])

    again = run_cli(*file, "migrate", "--json").document
    assert ("000", HEAD, above("000")) == (again["from"], again["to"], again["applied"])
    assert 0 == run_cli(*file, "status", "--check").code
    assert legacy.SOURCE_ROWS[shape] == legacy.query(legacy_file, "SELECT count(*) FROM vector_stores")[0][0]


def test_the_old_service_runs_on_what_a_downgrade_gives_back(released_file: Path) -> None:
    """At 000 again, the constraints that the old service made hold as before."""
    vecmigrate.upgrade(url(released_file))
    vecmigrate.rollback(url(released_file), to_version="000")

    values = "VALUES ('new', NULL, 's-new', '{}', NULL, 0, 1, 1, NULL, 1, 0, 'vs_u00000')"
    legacy.execute(released_file, f"INSERT INTO vector_stores {values.format('hnsw')}")
    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed: provider IN"):
        legacy.execute(released_file, f"INSERT INTO vector_stores {values.format('chroma')}")


def test_the_modes_of_what_is_written_are_private(released_file: Path) -> None:
    """Backups, manifests and the mirror are 0600, the backup folder is 0700 and ignored by git."""
    vecmigrate.upgrade(url(released_file))

    folder = released_file.parent / "backups"
    written = [released_file.with_suffix(".migrations.json"), *folder.glob("sessions-*")]
    assert 3 == len(written)
    assert {0o600} == {path.stat().st_mode & 0o777 for path in written}
    assert 0o700 == folder.stat().st_mode & 0o777
    assert "*\n" == (folder / ".gitignore").read_text(encoding="utf-8")


def test_nothing_is_left_beside_the_database_but_backups_and_mirror(released_file: Path) -> None:
    """After a run there is no marker, no temporary file and no sidecar."""
    vecmigrate.upgrade(url(released_file))

    beside = sorted(path.name for path in released_file.parent.iterdir())
    assert ["backups", "sessions.migrations.json", "sessions.sqlite3"] == beside
    kept = sorted(path.suffix for path in (released_file.parent / "backups").iterdir())
    assert ["", ".json", ".sqlite3"] == kept
