"""The folder of mcp-vector-search, which that service removes, is no place for a database, a backup or a mirror."""

import os
from pathlib import Path

import pytest

import mcp_vector_search as mcp
import vecmigrate
from doors import DOORS, Result, run_alembic, run_cli, url
from vecmigrate.errors import ConfigurationError
from vecmigrate.places import project_folder


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """Return the folder of a project."""
    return mcp.sample(tmp_path / "project")


def migrate(door: str, path: Path) -> Result:
    if door == "cli":
        return run_cli("--db-path", path, "migrate")
    if door == "alembic":
        return run_alembic(path, "upgrade", "head")
    try:
        vecmigrate.ensure_current(path, on_failure="raise")
    except ConfigurationError as error:
        return Result(1, "", str(error))
    return Result(0, "", "")


@pytest.mark.parametrize("door", DOORS)
def test_a_database_there_is_refused(door: str, inside: Path) -> None:
    """Through every door, before anything is made; the next command names a place outside."""
    before = mcp.contents(inside.parent)
    done = migrate(door, inside / "service.sqlite3")

    assert done.code != 0
    assert f"is inside {inside}, which mcp-vector-search removes" in done.err
    assert f"vecmigrate --db-path {inside.parent / 'service.sqlite3'} migrate" in done.err
    assert before == mcp.contents(inside.parent)


@pytest.mark.parametrize("command", [["migrate"], ["migrate", "--dry-run"], ["adopt", "--project-root", "PROJECT"]])
def test_the_commands_exit_with_1(command: list[str], inside: Path) -> None:
    """A rehearsal and an adoption end as a migration does."""
    words = [str(inside.parent) if word == "PROJECT" else word for word in command]
    before = mcp.contents(inside.parent)

    assert 1 == run_cli("--db-path", inside / "service.sqlite3", *words).code
    assert before == mcp.contents(inside.parent)


def test_one_that_was_moved_there_is_refused(inside: Path, tmp_path: Path) -> None:
    """It is as it was, and can be moved out again."""
    made = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(made), "001")
    there = made.rename(inside / "service.sqlite3")
    before = mcp.contents(inside)

    assert 1 == run_cli("--db-path", there, "migrate").code
    assert before == mcp.contents(inside)
    assert 0 == run_cli("--db-path", there.rename(made), "migrate").code


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("variable", ["VECMIGRATE_BACKUP_DIR", "VECMIGRATE_HISTORY_FILE"])
def test_backups_and_the_mirror_there_are_refused(
    variable: str, door: str, inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next step names the setting."""
    monkeypatch.setenv(variable, str(inside / "of_service"))
    if door == "command":
        monkeypatch.setenv("VECMIGRATE_DATABASE_URL", url(tmp_path / "service.sqlite3"))
    before = mcp.contents(tmp_path)
    done = migrate(door, tmp_path / "service.sqlite3")

    assert done.code != 0
    assert f"set {variable} to a place outside it" in done.err
    assert before == mcp.contents(tmp_path)


def test_a_folder_is_known_by_its_name_wherever_it_is(inside: Path, tmp_path: Path) -> None:
    """In any case of letters, at any depth, and through links in both directions."""
    (tmp_path / "link").symlink_to(inside)
    (inside / "out.sqlite3").symlink_to(tmp_path / "service.sqlite3")
    (tmp_path / "in.sqlite3").symlink_to(inside / "service.sqlite3")

    assert str(inside) == project_folder(str(inside / "a" / "b.sqlite3"))
    assert str(inside) == project_folder(str(tmp_path / "link" / "b.sqlite3"))
    assert str(inside) == project_folder(str(inside / "out.sqlite3"))
    assert str(inside) == project_folder(str(tmp_path / "in.sqlite3"))
    assert str(inside) == project_folder(str(inside))
    assert f"{os.sep}a{os.sep}.MCP-Vector-Search" == project_folder(f"{os.sep}a{os.sep}.MCP-Vector-Search{os.sep}b")
    assert project_folder(str(inside.parent / "mcp-vector-search" / "b.sqlite3")) is None
    assert project_folder(str(inside.parent / ".mcp-vector-search.bak" / "b.sqlite3")) is None


def test_readers_go_on_reading_there(inside: Path, tmp_path: Path) -> None:
    """A database that stands there is told of, so that it can be moved."""
    made = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(made))
    there = made.rename(inside / "service.sqlite3")

    assert "current" == run_cli("--db-path", there, "status", "--json").document["state"]
    assert "current" == vecmigrate.ensure_current(there).state
