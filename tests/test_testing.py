"""The fixtures for the tests of services: databases of any revision and shape, made once, copied per test."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

import legacy
from doors import ROOT, run_cli, run_python
from ladder import APP_VERSIONS, HEAD, REVISIONS
from vecmigrate.testing import DatabaseAt
from vecmigrate.testing.shapes import SHAPES, SOURCE_ROWS

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


def test_a_database_at_head_is_current_and_empty(vecmigrate_database: Path) -> None:
    """The command line finds nothing to do, and there is no store."""
    assert "current" == run_cli("--db-path", vecmigrate_database, "status", "--json").document["state"]
    assert [(0,)] == legacy.query(vecmigrate_database, "SELECT count(*) FROM vector_stores")


@pytest.mark.parametrize("shape", [None, *SHAPES])
def test_a_database_is_at_the_revision_that_is_asked_for(shape: str | None, vecmigrate_at: DatabaseAt) -> None:
    """By number or app version, empty or from each legacy shape; its rows are there."""
    by_number, by_version = vecmigrate_at("001", shape=shape), vecmigrate_at(APP_VERSIONS["001"], shape=shape)
    assert ["001", "001"] == [legacy.revision(path) for path in (by_number, by_version)]
    assert HEAD == legacy.revision(vecmigrate_at(shape=shape))
    expected = SOURCE_ROWS[shape] if shape else 0
    assert [(expected,)] == legacy.query(by_number, "SELECT count(*) FROM vector_stores")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_legacy_database_is_what_the_service_leaves(
    shape: str, vecmigrate_legacy: Callable[[str], Path], tmp_path: Path
) -> None:
    """It is the same as one built anew, has no table of ours, and can be migrated."""
    path = vecmigrate_legacy(shape)
    assert legacy.digest(legacy.build(tmp_path / "anew.sqlite3", shape)) == legacy.digest(path)
    assert set() == {name for name in legacy.tables(path) if name.startswith("vecmigrate_")}
    assert [path.name] == os.listdir(path.parent)
    assert REVISIONS == run_cli("--db-path", path, "migrate", "--json").document["applied"]


def test_what_a_test_does_is_seen_by_no_other(vecmigrate_at: DatabaseAt) -> None:
    """Each call copies the same template: its identity is one, its rows are not."""
    one, other = vecmigrate_at(), vecmigrate_at()
    legacy.execute(one, "INSERT INTO vector_store_chunks VALUES ('c', NULL, '/a.py', 1, 2, 'text')")
    assert [(0,)] == legacy.query(other, "SELECT count(*) FROM vector_store_chunks")
    identity = "SELECT value FROM vecmigrate_meta WHERE key = 'database_id'"
    assert legacy.query(one, identity) == legacy.query(other, identity)


def test_an_engine_in_memory_is_at_head(vecmigrate_engine: sa.Engine) -> None:
    """It has the tables of the models, and keeps what is committed."""
    with vecmigrate_engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO vector_store_chunks VALUES ('c', NULL, '/a.py', 1, 2, 'text')")
    with vecmigrate_engine.connect() as connection:
        assert HEAD == connection.exec_driver_sql("SELECT version_num FROM vecmigrate_version").scalar()
        assert 1 == connection.exec_driver_sql("SELECT count(*) FROM vector_store_chunks").scalar()


def test_the_environment_of_a_service_leads_nowhere(tmp_path: Path) -> None:
    """A mirror and a backup folder that are set for the service are not written to."""
    test = tmp_path / "test_service.py"
    test.write_text("def test_it(vecmigrate_database):\n    assert vecmigrate_database.stat().st_size\n")
    set_ = {"VECMIGRATE_HISTORY_FILE": str(tmp_path / "mirror.json"), "VECMIGRATE_DATABASE_URL": "sqlite:///none"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "vecmigrate.testing", "-p", "no:cacheprovider", str(test)],
        env={**os.environ, **set_},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stdout
    assert {"test_service.py"} == {path.name for path in tmp_path.iterdir()} - {"__pycache__"}


def test_the_examples_of_the_page_pass(tmp_path: Path) -> None:
    """Each block of Python in docs/testing.md is a test file that passes, with warnings as errors."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert 2 <= len(blocks)
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "vecmigrate.testing", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stdout
    tests = len(re.findall(r"^def test_", PAGE, re.MULTILINE)) - 1 + len(SHAPES)
    assert f"{tests} passed" in done.stdout


def test_the_page_names_every_fixture() -> None:
    """docs/testing.md has each of them, and each shape."""
    import vecmigrate.testing as plugin  # noqa: PLC0415 - to read what it offers

    fixtures = {name for name in plugin.__all__ if name.startswith("vecmigrate_")} - {"vecmigrate_templates"}
    assert [] == [name for name in sorted(fixtures | set(SHAPES)) if f"`{name}`" not in PAGE]


def test_the_plugin_is_light() -> None:
    """Every pytest of an environment loads it, so it imports neither SQLAlchemy nor Alembic."""
    code = "import sys, vecmigrate.testing; print(sorted({'sqlalchemy', 'alembic', 'click'} & set(sys.modules)))"
    assert "[]\n" == run_python(code).out
