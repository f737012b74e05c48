"""The files in a project's folder of mcp-vector-search, as far as they are read. Nothing in it is ever written."""

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vecmigrate.errors import AdoptionError
from vecmigrate.places import PROJECT_FOLDER
from vecmigrate.shell import quoted

__all__ = ["ProjectFolder", "read"]

_CONFIG_KEYS = frozenset(
    {
        "project_root", "index_path", "embedding_model", "file_extensions", "languages", "similarity_threshold",
        "max_chunk_size", "watch_files", "cache_embeddings", "max_cache_size", "auto_reindex_on_upgrade",
        "skip_dotfiles", "respect_gitignore", "openrouter_api_key", "openai_api_key", "preferred_llm_provider",
        "force_include_patterns", "force_include_paths", "last_migration", "migration_date",
    }
)  # fmt: skip
"""Every key that a version up to 4.0.1 writes; of these the model alone is read."""
_INDEX_KEYS = frozenset(
    {"index_version", "file_mtimes", "embedding_model", "embedding_dimensions", "created_at", "updated_at"}
)
_REGISTRY_KEYS = frozenset({"migrations", "last_updated"})
_LARGEST = 1 << 28
"""No such file has more bytes than this: index_metadata.json has a line for each file of the project."""


@dataclass
class ProjectFolder:
    """What was read. ``path`` is the real path of the folder; ``problems`` name the files that were left alone.

    ``config_model`` is the model that the configuration asks for, ``index_model`` the one that the index was last
    written with, each None where it is not known. ``index_version`` is the version of mcp-vector-search that wrote
    the index last; "0" stands for one that did not tell it yet. ``entries`` are those of migrations.json.
    """

    path: str
    config_model: str | None = None
    index_model: str | None = None
    index_dimensions: int | None = None
    index_version: str | None = None
    entries: list[Any] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def registry(self) -> str:
        return os.path.join(self.path, "migrations.json")


def read(root: str) -> ProjectFolder:
    """Return what is in the folder of a project. Read-only. Raises AdoptionError where the project has none."""
    path = os.path.realpath(os.path.join(root, PROJECT_FOLDER))
    if not os.path.isdir(path):
        is_inside = os.path.basename(os.path.realpath(root)) == PROJECT_FOLDER
        outside = os.path.dirname(os.path.realpath(root))
        raise AdoptionError(
            f"{os.path.abspath(root)} has no folder {PROJECT_FOLDER}. Nothing was changed.",
            next_step=f"name the project itself: --project-root {quoted(outside) if is_inside else 'DIR'}",
        )
    folder = ProjectFolder(path)
    for name, take in (
        ("config.json", _take_config),
        ("index_metadata.json", _take_index),
        ("migrations.json", _take_registry),
    ):
        _read_file(folder, name, take)
    return folder


class _UnknownError(Exception):
    """A file that holds what no version writes; the text says what, and quotes no value."""


def _read_file(folder: ProjectFolder, name: str, take: Callable[[ProjectFolder, dict[str, Any]], None]) -> None:
    try:
        document = _json(os.path.join(folder.path, name))
        if document is not None:
            take(folder, document)
    except OSError as error:
        folder.problems.append(f"{name} cannot be read ({error.strerror}), and was left alone.")
    except (ValueError, RecursionError):
        folder.problems.append(f"{name} is not JSON, and was left alone.")
    except _UnknownError as error:
        folder.problems.append(f"{name} {error}, and was left alone.")


def _json(path: str) -> dict[str, Any] | None:
    """Return the object in a JSON file, None where there is no such file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        raise _UnknownError("is no file of a size that mcp-vector-search writes")
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    if not isinstance(document, dict):
        kind = {list: "a list", type(None): "null"}.get(type(document), "a single value")
        raise _UnknownError(f"holds {kind} where an object belongs")
    return document


def _require_known(document: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(document.keys() - known)
    if unknown:
        # A key that is no name may be anything, also a secret in the wrong place.
        names = [name if name.isidentifier() else "one that is no name" for name in unknown]
        raise _UnknownError(f"has keys that no version up to 4.0.1 writes ({', '.join(names)})")


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not (isinstance(value, str) and value.strip() and value.isprintable()):
        raise _UnknownError(f"has no name under {key}")
    return value


def _take_config(folder: ProjectFolder, document: dict[str, Any]) -> None:
    _require_known(document, _CONFIG_KEYS)
    folder.config_model = _text(document, "embedding_model")


def _take_index(folder: ProjectFolder, document: dict[str, Any]) -> None:
    if not document.keys() & _INDEX_KEYS:
        # Before version 0.6 it held the time of each file, and nothing else.
        if not all(isinstance(value, int | float) for value in document.values()):
            raise _UnknownError("holds something other than the times of files")
        folder.index_version = "0"
        return
    _require_known(document, _INDEX_KEYS)
    version, model = _text(document, "index_version"), _text(document, "embedding_model")
    dimensions = document.get("embedding_dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions <= 0):
        raise _UnknownError("has no number of dimensions under embedding_dimensions")
    folder.index_version, folder.index_model, folder.index_dimensions = version, model, dimensions


def _take_registry(folder: ProjectFolder, document: dict[str, Any]) -> None:
    _require_known(document, _REGISTRY_KEYS)
    entries = document.get("migrations", [])
    if not isinstance(entries, list):
        raise _UnknownError("holds no list under migrations")
    folder.entries = entries
