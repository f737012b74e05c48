"""The ladder of revisions as a whole: one line, well formed, up and down, and the models at its top."""

import ast
import re
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import Script, ScriptDirectory

import legacy
import vecmigrate
from doors import ROOT, url
from ladder import HEAD, REVISIONS
from vecmigrate import app_versions
from vecmigrate.access import alembic_config

VERSIONS = ROOT / "alembic" / "versions"
FILES = sorted(path.name for path in VERSIONS.glob("*.py"))


def scripts() -> list[Script]:
    return list(ScriptDirectory.from_config(alembic_config()).walk_revisions())[::-1]


def test_there_is_one_head_and_one_base() -> None:
    """The revisions are one line."""
    directory = ScriptDirectory.from_config(alembic_config())

    assert [HEAD] == directory.get_heads()
    assert ["000"] == directory.get_bases()
    assert [None, *REVISIONS[:-1]] == [script.down_revision for script in scripts()]


def test_every_file_is_a_revision() -> None:
    """No script lies in the folder that the ladder does not have."""
    assert FILES == [Path(script.path).name for script in scripts()]


@pytest.mark.parametrize("name", FILES)
def test_a_script_is_well_formed(name: str) -> None:
    """A script has its number as its name and id, a docstring, and both directions."""
    tree = ast.parse((VERSIONS / name).read_text(encoding="utf-8"))
    matched = re.fullmatch(r"(\d{3})_[a-z0-9_]+\.py", name)

    assert matched is not None
    (assigned,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["revision"]
    )
    assert matched[1] == ast.literal_eval(assigned)
    assert f"Revision ID: {matched[1]}" in (ast.get_docstring(tree) or "")
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"upgrade", "downgrade"} <= functions


@pytest.mark.parametrize("name", FILES)
def test_a_script_imports_nothing_that_may_change(name: str) -> None:
    """A frozen script imports Alembic, SQLAlchemy and the standard library, and of ours only the frozen operations."""
    tree = ast.parse((VERSIONS / name).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    allowed = set(sys.stdlib_module_names) | {"alembic", "sqlalchemy"}
    others = {module for module in imported if module.partition(".")[0] not in allowed}
    assert [] == [module for module in others if not module.startswith("vecmigrate.operations")]


@pytest.mark.parametrize("name", FILES)
def test_a_script_swallows_and_ignores_nothing(name: str) -> None:
    """No INSERT OR IGNORE, no bare except, no commit. A trigger may not end a service's statement, so there it may."""
    text = re.sub(r"(?ms)CREATE TRIGGER.*?^END|^#.*?$", "", (VERSIONS / name).read_text(encoding="utf-8"))

    assert [] == re.findall(r"(?i)\bOR IGNORE\b|\bOR REPLACE\b|except:|except Exception|\.commit\(|executescript", text)


def test_the_map_names_every_revision() -> None:
    """Each revision has an app version, in the order of the ladder."""
    entries = app_versions.load(revisions=[script.revision for script in scripts()]).entries

    assert [script.revision for script in scripts()] == [entry.revision for entry in entries]


def test_the_map_of_the_head_is_the_version_of_the_package() -> None:
    """The newest app version that changed the schema is not newer than the package itself."""
    assert app_versions.load().newest.version <= app_versions.parse_version(str(vecmigrate.__version__))


def test_a_fresh_database_matches_the_models_at_head(tmp_path: Path) -> None:
    """Alembic's own check finds no difference on a database made from nothing."""
    path = tmp_path / "fresh.sqlite3"
    vecmigrate.upgrade(url(path))

    command.check(vecmigrate.alembic_config(url(path)))


def test_a_migrated_database_matches_the_models_at_head(legacy_file: Path) -> None:
    """Alembic's own check finds no difference on a migrated one, and does not propose to drop the service's tables."""
    vecmigrate.upgrade(url(legacy_file))

    command.check(vecmigrate.alembic_config(url(legacy_file)))


def test_every_legacy_shape_ends_in_one_schema(tmp_path: Path) -> None:
    """All source shapes and a fresh database have the same tables, by SQL, beside the stores that were found."""
    ends = []
    for shape in (*legacy.SHAPES, None):
        path = tmp_path / f"{shape}.sqlite3"
        if shape is not None:
            legacy.build(path, shape)
        vecmigrate.upgrade(url(path), backup="never")
        found = legacy.query(path, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2")
        ends.append([row for row in found if row[2] in legacy.OUR_TABLES - {"stores"}])

    assert [ends[0]] * len(ends) == ends


def test_a_service_re_creates_its_indexes_without_disturbing_the_check(released_file: Path) -> None:
    """The indexes that the service makes on its boot are no difference to the models."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(
        released_file,
        "CREATE INDEX idx_vs_session_id ON vector_stores(session_id)",
        "CREATE INDEX idx_vs_name ON vector_stores(name)",
    )

    command.check(vecmigrate.alembic_config(url(released_file)))


def test_each_step_up_down_and_up_is_consistent(tmp_path: Path) -> None:
    """On a fresh database, each revision gives back the schema that it found, and makes again what it made."""
    path = tmp_path / "fresh.sqlite3"
    for number, script in enumerate(scripts()):
        below = legacy.schema(path) if number else {}
        vecmigrate.upgrade(url(path), script.revision)
        above = legacy.digest(path)

        vecmigrate.rollback(url(path), to_version="base" if not number else "-1", allow_data_loss=True)
        assert below == legacy.schema(path)
        vecmigrate.upgrade(url(path), script.revision)

        again = legacy.digest(path)
        if not number:
            # The seed model's time of activation is the time of the run.
            above["rows"], again["rows"] = None, None
        assert above == again


def test_all_the_way_down_leaves_only_the_tools_own_tables(tmp_path: Path) -> None:
    """At base, a database made from nothing has no table left but those of the tool."""
    path = tmp_path / "fresh.sqlite3"
    vecmigrate.upgrade(url(path))

    vecmigrate.rollback(url(path), to_version="base")

    assert {} == legacy.schema(path)


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_schema_is_sound_at_each_revision(revision: str, legacy_file: Path) -> None:
    """At each revision the file passes SQLite's integrity check and breaks no foreign key."""
    vecmigrate.upgrade(url(legacy_file), revision)

    assert revision == legacy.revision(legacy_file)
    assert [("ok",)] == legacy.query(legacy_file, "PRAGMA integrity_check")
    assert [] == legacy.query(legacy_file, "PRAGMA foreign_key_check")
