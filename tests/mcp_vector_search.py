"""Folders of mcp-vector-search as its versions leave them, in a project of their own."""

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CODEBERT = "microsoft/codebert-base"
SFR = "Salesforce/SFR-Embedding-Code-400M_R"
KEYS = ("sk-canary-openrouter-0001", "sk-canary-openai-0002")

CONFIG: dict[str, Any] = {
    "project_root": "/srv/project",
    "index_path": "/srv/project/.mcp-vector-search",
    "file_extensions": [".py", ".md"],
    "embedding_model": MINILM,
    "similarity_threshold": 0.3,
    "languages": ["python"],
    "openrouter_api_key": KEYS[0],
    "max_chunk_size": 512,
    "watch_files": False,
    "cache_embeddings": True,
    "max_cache_size": 1000,
    "auto_reindex_on_upgrade": True,
    "skip_dotfiles": True,
    "respect_gitignore": True,
    "openai_api_key": KEYS[1],
    "preferred_llm_provider": None,
}
FAILED: dict[str, Any] = {
    "migration_id": "1.2.2_codexembed_upgrade",
    "version": "1.2.2",
    "name": "codexembed_upgrade",
    "status": "failed",
    "message": "Migration failed: No space left on device",
    "executed_at": "2026-01-24T10:30:00.123456",
    "duration_seconds": 2.5,
    "metadata": {},
}
SKIPPED: dict[str, Any] = {
    "migration_id": "2.3.0_two_phase_architecture",
    "version": "2.3.0",
    "name": "two_phase_architecture",
    "status": "skipped",
    "message": "Migration not needed",
    "executed_at": "2026-02-20T09:00:00",
    "duration_seconds": 0.0,
    "metadata": {"total_rows": 12},
}

# The tables of chromadb 1.5.9 that a collection needs.
_CHROMA = """
CREATE TABLE tenants (id TEXT PRIMARY KEY, UNIQUE (id));
CREATE TABLE databases (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant_id TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
    UNIQUE (tenant_id, name)
);
CREATE TABLE "collections" (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, dimension INTEGER,
    database_id TEXT NOT NULL REFERENCES databases(id) ON DELETE CASCADE, config_json_str TEXT, schema_str TEXT,
    UNIQUE (name, database_id)
);
INSERT INTO tenants VALUES ('default_tenant');
INSERT INTO databases VALUES ('00000000-0000-0000-0000-000000000000', 'default_database', 'default_tenant');
"""


def folder(project: Path, **files: Any) -> Path:
    """Make the folder of a project: ``config``, ``index_metadata``, ``migrations`` as documents, or as texts."""
    path = project / ".mcp-vector-search"
    path.mkdir(parents=True, exist_ok=True)
    for name, document in files.items():
        text = document if isinstance(document, str) else json.dumps(document, indent=2)
        (path / f"{name}.json").write_text(text, encoding="utf-8")
    return path


def sample(project: Path) -> Path:
    """Make a folder of version 2.3.40, with keys that nobody is to see."""
    registry = {"migrations": [FAILED, SKIPPED], "last_updated": "2026-02-20T09:00:00.000001"}
    metadata = {"index_version": "2.3.40", "file_mtimes": {"/srv/project/a.py": 1753870000.5}}
    return folder(project, config=CONFIG, index_metadata=metadata, migrations=registry)


def config(model: str | None) -> dict[str, Any]:
    return CONFIG | {"embedding_model": model}


def index(version: str | None, **more: Any) -> dict[str, Any]:
    told = {} if version is None else {"index_version": version}
    return told | more | {"file_mtimes": {"/srv/project/a.py": 1753870000.5}}


def chroma(path: Path, dimension: int | None, name: str = "code_search") -> Path:
    """Make the index of the versions up to 1.2.x, and beside it the folder of its vectors."""
    file = path / "chroma.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(_CHROMA)
        row = ("1729ede7", name, dimension, "00000000-0000-0000-0000-000000000000")
        connection.execute("INSERT INTO collections (id, name, dimension, database_id) VALUES (?, ?, ?, ?)", row)
        connection.commit()
    (path / "1729ede7").mkdir()
    return file


def contents(project: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return everything under a project, with the times and the bytes of the files."""
    found = {}
    for folder_name, _, files in os.walk(project):
        for each in [Path(folder_name), *(Path(folder_name, name) for name in files)]:
            status = each.stat()
            found[str(each)] = (status.st_mode, status.st_mtime_ns, each.read_bytes() if each.is_file() else b"")
    return found
