"""`check` finds what is wrong with a project's revisions, and `new` writes revisions that it finds in order."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import model_template
from doors import ROOT, Result, run_cli
from ladder import HEAD, NEXT
from vecmigrate import app_versions

AFTER = f"{int(NEXT) + 1:03d}"
HEADER = (
    '"""Added by a test."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
    f'revision = "{NEXT}"\ndown_revision = "{HEAD}"\n'
)
BODY = "\n\ndef upgrade():\n    {}\n\n\ndef downgrade():\n    {}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of the project as a checkout, with the map of its own that vecmigrate reads."""
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    own = tmp_path / "src" / "vecmigrate" / "app_versions.toml"
    own.parent.mkdir(parents=True)
    shutil.copy(ROOT / "src" / "vecmigrate" / "app_versions.toml", own)
    monkeypatch.setattr(app_versions, "MAP_FILE", str(own))
    monkeypatch.setattr(app_versions.load, "__defaults__", (str(own),))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(project: Path, upgrade: str, downgrade: str = "pass", *, top: str = "", name: str = f"{NEXT}_added.py") -> Path:
    """Add a revision, and its line in the map."""
    path = project / "alembic" / "versions" / name
    path.write_text(HEADER + top + BODY.format(upgrade, downgrade), encoding="utf-8")
    with (project / "src" / "vecmigrate" / "app_versions.toml").open("a", encoding="utf-8") as file:
        file.write(f'\n["90.0.0"]\nrevision = "{NEXT}"\n')
    return path


def errors() -> dict[str, str]:
    """Return the errors that check finds: code and message."""
    done = run_cli("check", "--json")
    found = [each for each in done.document["findings"] if each["severity"] == "error"]
    assert (done.code, done.document["ok"]) == ((1, False) if found else (0, True)), done.err
    assert all(each["next"] for each in done.document["findings"])
    return {each["code"]: each["message"] for each in found}


def test_the_project_is_in_order(project: Path) -> None:
    """Nothing is wrong with the revisions as they are, and check writes no file."""
    before = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
    done = run_cli("check", "--json")

    assert (0, {"ok": True, "findings": []}) == (done.code, done.document)
    assert before == sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)


LOSSES: dict[str, tuple[str, str, str]] = {
    "a value": ("op.execute(\"UPDATE vector_stores SET provider = 'x'\")", "pass", "provider"),
    "a storage class": (
        'op.execute("UPDATE vector_store_chunks SET content = CAST(content AS BLOB)")',
        "pass",
        "vector_store_chunks",
    ),
    "rows": ('op.execute("DELETE FROM vector_store_chunks")', "pass", "vector_store_chunks"),
    "a table of its own": (
        'op.create_table("labels", sa.Column("label", sa.Text))',
        'op.drop_table("labels")',
        "labels",
    ),
}


@pytest.mark.parametrize("what", LOSSES)
def test_what_is_lost_is_found(what: str, project: Path) -> None:
    """A revision that gives rows back changed, or not at all, is an error; values are not shown."""
    upgrade, downgrade, named = LOSSES[what]
    add(project, upgrade, downgrade)
    found = errors()

    assert named in found.pop("rows")
    # That table is not in the models either.
    assert ("the scripts have and the models do not: table labels" in found.pop("models", "")) == (named == "labels")
    assert {} == found


FAULTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "upgrade": ("no such table", lambda p: add(p, 'op.execute("DELETE FROM nowhere")')),
    "downgrade": ("no such table", lambda p: add(p, "pass", 'op.execute("DELETE FROM nowhere")')),
    "schema": (
        "idx_by_path",
        lambda p: add(p, 'op.create_index("idx_by_path", "vector_store_chunks", ["file_path"], if_not_exists=True)'),
    ),
    "operation": (
        "nowhere",
        lambda p: add(
            p, f'op.rebuild_table("vector_stores", revision="{NEXT}", key="nowhere", add=[sa.Column("a", sa.Text)])'
        ),
    ),
    "models": (
        "vector_stores.tags",
        lambda p: add(
            p, 'op.add_column("vector_stores", sa.Column("tags", sa.Text))', 'op.drop_column("vector_stores", "tags")'
        ),
    ),
    "imports": ("vecmigrate.schema", lambda p: add(p, "pass", top="from vecmigrate.schema import metadata\n")),
    "script": ("not valid Python", lambda p: add(p, "pass", top="def (\n")),
    "twins": (
        f"{NEXT}_again.py",
        lambda p: (
            add(p, "pass"),
            shutil.copy(p / f"alembic/versions/{NEXT}_added.py", p / f"alembic/versions/{NEXT}_again.py"),
        ),
    ),
    "gap": (
        f"{NEXT} is missing",
        lambda p: add(p, "pass", name=f"{AFTER}_added.py").write_text(
            HEADER.replace(f'"{NEXT}"', f'"{AFTER}"') + BODY.format("pass", "pass")
        ),
    ),
    "map": (
        NEXT,
        lambda p: (add(p, "pass"), shutil.copy(ROOT / "src/vecmigrate/app_versions.toml", p / "src/vecmigrate")),
    ),
    "precheck": ("no thanks", lambda p: add(p, "pass", top='def precheck(connection):\n    return ["no thanks"]\n')),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_found(code: str, project: Path) -> None:
    """Each kind of fault has its finding, which names what is wrong."""
    named, plant = FAULTS[code]
    plant(project)
    found = errors()

    assert code in found
    assert named in found[code]


def test_what_keeps_scripts_from_being_run_comes_first(project: Path) -> None:
    """To run check again as it is would say the same again."""
    FAULTS["twins"][1](project)
    [found] = [each for each in run_cli("check", "--json").document["findings"] if each["code"] == "not-run"]

    assert "correct the errors, then run: vecmigrate check" == found["next"]


def test_two_heads_are_a_finding(project: Path) -> None:
    """Two branches on one revision are told by name, and renumbering mends it."""
    add(project, "pass")
    other = project / "alembic" / "versions" / f"{AFTER}_other.py"
    other.write_text(HEADER.replace(f'revision = "{NEXT}"', f'revision = "{AFTER}"', 1) + BODY.format("pass", "pass"))
    found = errors()
    assert {"heads"} == set(found)
    assert f"{AFTER}_other.py" in found["heads"]

    assert 0 == run_cli("new", "--renumber", f"{AFTER}_other").code
    assert {} == errors()


def generated(project: Path) -> Result:
    """Run the tests that `new` wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(project / "tests")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=project,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("template", ["schema", "data", "embedding-model"])
def test_a_template_passes_as_written(template: str, project: Path) -> None:
    """The script is the next one and in the map, its test passes, and it fails where the script loses rows."""
    before = (project / "src/vecmigrate/app_versions.toml").read_text(encoding="utf-8")
    done = run_cli("new", "Say what: changes!", "--template", template, "--app-version", "90.1", "--json")

    script = project / "alembic" / "versions" / f"{NEXT}_say_what_changes.py"
    test = project / "tests" / f"test_revision_{NEXT}_say_what_changes.py"
    expected = {"revision": NEXT, "path": str(script), "test_path": str(test), "app_version": "90.1"}
    assert expected == done.document, done.err
    map_ = (project / "src/vecmigrate/app_versions.toml").read_text(encoding="utf-8")
    assert before + f'\n["90.1"]\nrevision = "{NEXT}"\n' == map_
    assert ({"models"} if template == "schema" else set()) == set(errors())
    assert "2 passed" in generated(project).out

    text = script.read_text(encoding="utf-8")
    loss = 'def upgrade() -> None:\n    op.execute("DELETE FROM vector_store_chunks")\n'
    script.write_text(text.replace("def upgrade() -> None:\n", loss), encoding="utf-8")
    assert "failed" in generated(project).out


def test_the_template_of_a_model_is_the_revision_that_changed_it() -> None:
    """It has the code of revision 002, with another model: what `python tests/model_template.py` writes."""
    assert model_template.rendered() == model_template.TEMPLATE.read_text(encoding="utf-8")


def test_twins_are_mended(project: Path) -> None:
    """Twins of two branches, both with test and line in the map: one gets the next number everywhere."""
    assert 0 == run_cli("new", "one", "--template", "data").code
    kept = {path: path.read_text(encoding="utf-8") for path in project.rglob("*one.py")}
    first = (project / "src/vecmigrate/app_versions.toml").read_text(encoding="utf-8")
    for path in kept:
        path.unlink()
    shutil.copy(ROOT / "src/vecmigrate/app_versions.toml", project / "src/vecmigrate")
    assert 0 == run_cli("new", "two", "--template", "data").code
    # The merge: all files of both, and in the map both lines, with one version twice.
    for path, text in kept.items():
        path.write_text(text, encoding="utf-8")
    with (project / "src/vecmigrate/app_versions.toml").open("a", encoding="utf-8") as file:
        file.write("# Of the other branch.\n" + first[-len(re.split(r"\n(?=\[)", first)[-1]) :])
    assert {"twins"} == set(errors())
    refused = run_cli("new", "three")
    assert (1, True) == (refused.code, f"--renumber {NEXT}_two" in refused.err)

    done = run_cli("new", "--renumber", f"{NEXT}_two", "--json")

    assert 0 == done.code, done.err
    assert AFTER == done.document["revision"]
    assert {} == errors()
    names = {path.name for path in project.rglob("*_two.py")}
    assert {f"{AFTER}_two.py", f"test_revision_{AFTER}_two.py"} == names
    assert "4 passed" in generated(project).out
    again = run_cli("new", "--renumber", f"{AFTER}_two")
    assert (1, True) == (again.code, "Nothing was changed" in again.err)


def test_without_a_project_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without an alembic.ini of ours there is nothing to write in, and the error says where there is."""
    monkeypatch.chdir(tmp_path)
    done = run_cli("new", "add tags")

    assert 1 == done.code
    assert "--config PATH/alembic.ini" in done.err
    assert [] == list(tmp_path.iterdir())
    assert 0 == run_cli("check").code
