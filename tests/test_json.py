"""Each answer of each command is what its schema in docs/json.md says, and has no key that is not there."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import legacy
import mcp_vector_search
from doors import ROOT, Result, run_cli
from embedding import OLD
from manual import commands, rendered
from vecmigrate.cli import cli

PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
BLOCKS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
DEFS = next(block["$defs"] for block in BLOCKS if "$defs" in block)
SCHEMAS = {block["title"]: block for block in BLOCKS if "title" in block}

ANSWERS: list[tuple[str, tuple[str, ...]]] = [
    ("status", ("status",)),
    ("list", ("list",)),
    ("history", ("history",)),
    ("history --rebuild", ("history", "--rebuild")),
    ("history --clear", ("history", "--clear", "--yes")),
    ("migrate", ("migrate",)),
    ("migrate", ("migrate", "--force", "--target", "1")),
    ("migrate", ("rollback", "--to-version", "0")),
    ("migrate", ("rollback", "--to-version", "base", "--from-backup")),
    ("migrate", ("restore", "BACKUP")),
    ("migrate --sql", ("migrate", "--sql")),
    ("migrate --dry-run", ("migrate", "--dry-run")),
    ("migrate --dry-run", ("migrate", "--force", "--target", "1", "--dry-run")),
    ("migrate --dry-run", ("rollback", "--to-version", "0", "--dry-run")),
    ("migrate --dry-run", ("rollback", "--to-version", "+7", "--dry-run")),
    ("restore --dry-run", ("restore", "BACKUP", "--dry-run")),
    ("restore --dry-run", ("rollback", "--to-version", "base", "--from-backup", "--dry-run")),
    ("backup list", ("backup", "list")),
    ("backup list", ("backup", "verify")),
    ("backup create", ("backup", "create")),
    ("backup prune", ("backup", "prune")),
    ("backup prune", ("backup", "prune", "--dry-run")),
    ("versions", ("versions",)),
    ("versions", ("versions", "9.9")),
    ("preserved", ("preserved",)),
    ("reembed", ("reembed", "--embedder", "embedding:embed", "--no-swap")),
    ("reembed", ("reembed", "--embedder", "embedding:embed", "--dry-run")),
    ("embeddings list", ("embeddings", "list")),
    ("embeddings activate", ("embeddings", "activate", OLD)),
    ("embeddings purge", ("embeddings", "purge", "--yes")),
    ("embeddings purge", ("embeddings", "purge", "--dry-run")),
    ("adopt", ("adopt", "--project-root", "PROJECT", "--dry-run")),
    ("adopt", ("adopt", "--project-root", "PROJECT")),
    ("doctor", ("doctor",)),
    ("doctor", ("check",)),
    ("error", ("migrate", "--target", "77")),
    ("error", ("status", "--no-such-option")),
]


def strict(schema: Any) -> Any:
    """Return a schema that allows no other keys than those it names: the page is to name all."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(each) for name, each in schema.items()}
    return {"additionalProperties": False} | closed if isinstance(schema.get("properties"), dict) else closed


def require_valid(title: str, document: Any) -> None:
    schema = strict(SCHEMAS[title]) | {"$defs": strict(DEFS)}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.fixture(scope="module")
def migrated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a database that has rows kept aside, chunks, and backups, and a project to take over."""
    folder = tmp_path_factory.mktemp("migrated")
    path = legacy.build(folder / "sessions.sqlite3", "released")
    legacy.add_fractions(path)
    legacy.execute(path, "UPDATE stores SET created_at = 'no time' WHERE store_id = 'vs_hist_001'")
    assert 0 == run_cli("--db-path", path, "migrate", "--target", "1").code
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES ('c', 'vs_u00001', '/a.py', 1, 2, 'text')")
    legacy.execute(path, f"INSERT INTO vector_store_embeddings VALUES ('{OLD}', 'c', zeroblob(1536))")
    assert 0 == run_cli("--db-path", path, "migrate").code
    assert 0 == run_cli("--db-path", path, "backup", "create").code
    mcp_vector_search.sample(folder / "project")
    return folder


@pytest.fixture
def answer(migrated_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command on a copy of that database."""
    folder = tmp_path / "service"
    shutil.copytree(migrated_folder, folder)
    monkeypatch.chdir(folder)

    def run(*words: str) -> Result:
        named = {"PROJECT": str(folder / "project")}
        if "BACKUP" in words:
            made = run_cli("--db-path", folder / "sessions.sqlite3", "backup", "list", "--json").document["backups"]
            named["BACKUP"] = made[-1]["name"]
        return run_cli("--db-path", folder / "sessions.sqlite3", *(named.get(word, word) for word in words), "--json")

    return run


@pytest.mark.parametrize(("title", "words"), ANSWERS, ids=[" ".join(words) for _, words in ANSWERS])
def test_an_answer_is_what_its_schema_says(title: str, words: tuple[str, ...], answer: Callable[..., Result]) -> None:
    """Required keys are there, values are of their kinds, and no key is missing on the page."""
    result = answer(*words)
    require_valid("error" if "error" in result.document and title == "error" else title, result.document)
    if title == "migrate --dry-run" and "+7" in words:
        assert result.document["error"]
    elif title != "error":
        assert result.code in {0, 1} if words[0] == "doctor" else result.code == 0, result.err


def test_the_answer_of_new_is_what_its_schema_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a project without a map of its own the app version is null."""
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    monkeypatch.chdir(tmp_path)
    result = run_cli("new", "add tags", "--json")
    assert 0 == result.code, result.err
    require_valid("new", result.document)


def test_a_database_that_is_not_there_has_its_schema_too(tmp_path: Path) -> None:
    """Where there is nothing yet, values are null and lists empty."""
    path = tmp_path / "none.sqlite3"
    for title, words in (("status", ("status",)), ("list", ("list",)), ("migrate --dry-run", ("migrate", "--dry-run"))):
        require_valid(title, run_cli("--db-path", path, *words, "--json").document)


def test_a_document_with_another_key_is_not_valid(answer: Callable[..., Result]) -> None:
    """The schemas of these tests are closed: what a command adds has to be written on the page."""
    document = answer("status").document
    document["preserved_rows"]["more"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'more' was unexpected"):
        require_valid("status", document)


def test_every_command_is_tried() -> None:
    """No command is without an answer here, and no schema without a command."""
    tried = {words[:2] if words[:2] in dict(commands(cli)) else words[:1] for _, words in ANSWERS} | {("new",)}
    assert set(dict(commands(cli))) == tried
    assert SCHEMAS.keys() == {title for title, _ in ANSWERS} | {"new"}


def test_the_page_of_the_commands_is_current() -> None:
    """docs/cli.md is what `python tests/manual.py` prints."""
    assert rendered() == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_the_workflow_calls_commands_that_there_are() -> None:
    """The example for GitHub, and the hook, run `vecmigrate check`, as it is spelled."""
    workflow = (ROOT / "docs" / "examples" / "vecmigrate-check.yml").read_text(encoding="utf-8")
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    named = re.findall(r"^\s*(?:- )?(?:run|entry): (vecmigrate .+)$", workflow + hooks, re.MULTILINE)
    assert 2 <= len(named)
    for line in named:
        assert line.split()[-1] in cli.commands or line.split()[1] in cli.commands
        assert 0 == run_cli(*line.split()[1:], "--help").code
