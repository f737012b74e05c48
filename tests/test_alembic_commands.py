"""Commands of plain Alembic that are no run: they work beside what a service has made, or say why they do not."""

import os
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import ROOT, run_alembic, url
from ladder import HEAD


@pytest.mark.parametrize("table", ["vector_stores", "sessions"])
def test_check_says_nothing_of_an_index_on_an_expression(
    table: str, released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service has indexes that SQLAlchemy cannot reflect: no warning, and no error where warnings are errors."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(
        released_file,
        f"CREATE INDEX theirs ON {table}(lower(session_id))",
        f"CREATE INDEX theirs_too ON {table}(updated_at) WHERE session_id \n IS NOT NULL",
    )
    monkeypatch.setenv("PYTHONWARNINGS", "error")

    result = run_alembic(released_file, "check")

    assert (0, False, False) == (result.code, "Warning" in result.err, "Traceback" in result.err)


def test_ensure_version_makes_nothing_by_itself(released_file: Path) -> None:
    """It says what makes the table instead, and where the table is there it has nothing to do."""
    before = legacy.tree(released_file.parent)
    refused = run_alembic(released_file, "ensure_version")
    assert 0 != refused.code
    assert "is made by the first run" in refused.err
    assert f"vecmigrate --db-path {released_file} migrate" in refused.err
    assert before == legacy.tree(released_file.parent)

    vecmigrate.upgrade(url(released_file))
    assert 0 == run_alembic(released_file, "ensure_version").code


def test_current_names_the_database(released_file: Path) -> None:
    """With -v it tells of which file it speaks."""
    vecmigrate.upgrade(url(released_file))

    result = run_alembic(released_file, "current", "-v")

    assert f"Current revision(s) for {url(released_file)}:" in result.out
    assert f"Rev: {HEAD} (head)" in result.out


def test_heads_are_not_merged(released_file: Path) -> None:
    """The ladder is one line of numbers: no script named by a hash is written, and the message says what to do."""
    versions = ROOT / "alembic" / "versions"
    before = sorted(os.listdir(versions))

    result = run_alembic(released_file, "merge", "-m", "both", "heads")

    assert 0 != result.code
    assert "a script that merges heads has no place in it" in result.err
    assert before == sorted(os.listdir(versions))
