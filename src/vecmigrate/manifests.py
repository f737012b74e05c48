"""Manifests: what a backup folder says it holds, read without trusting a word of it.

Nothing that a manifest contains is ever opened, or written to: it may have been written by anybody. Of the
path of the database in it is only asked whether a file is there.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecmigrate.errors import BackupError
from vecmigrate.shell import quoted
from vecmigrate.sqlite_files import SUFFIX

__all__ = [
    "BY_HAND",
    "Backup",
    "aside_step",
    "command",
    "damaged",
    "file_names",
    "find",
    "id_before_first_run",
    "listing",
    "manifest_of",
    "manifests",
    "of_another",
    "own",
    "recorded_id",
    "stem_of",
    "unlisted",
    "write",
]

_NAME = re.compile(r".+-\d{8}T\d{6}\.\d{6}Z-[A-Za-z0-9_.]+", re.DOTALL)
_PATH = re.compile(r"[/\\\x00-\x1f\x7f]|^~|^\.*$|\.\.|^[A-Za-z]:")
_LARGEST = 1 << 20
BY_HAND = "manual"
"""The reason of a backup that somebody asked for."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A backup as its manifest describes it; ``name`` and ``path`` are where it was found.

    ``sequence`` counts upwards within a folder: it orders backups even when the clock went backwards.
    ``journal_mode`` is that of the database, None where it is not known; every data file is in DELETE mode.
    """

    name: str
    path: str
    revision: str | None
    app_version: str | None
    created_at: str
    bytes: int
    reason: str
    database_id: str
    database_path: str
    sha256: str
    sequence: int
    journal_mode: str | None = None

    def as_dict(self, *, verified: bool) -> dict[str, object]:
        hidden = ("database_path", "sequence", "journal_mode")
        return {key: value for key, value in vars(self).items() if key not in hidden} | {"verified": verified}


_TEXTS = ("created_at", "reason", "database_id", "database_path", "sha256")
_OPTIONAL_TEXTS = ("revision", "app_version")
_COUNTS = ("bytes", "sequence")
_KEYS = (*_TEXTS, *_OPTIONAL_TEXTS, *_COUNTS, "journal_mode")


def command(database: str, *words: str) -> str:
    """Return the command line that runs *words* on *database*, quoted for a shell."""
    return " ".join(map(quoted, ["vecmigrate", "--db-path", database, *words]))


def stem_of(database: str) -> str:
    """Return what the names of its backups begin with."""
    # File names have at most 255 bytes, and control characters make a name that nobody can type.
    return re.sub(r"[\x00-\x1f\x7f/\\]", "_", Path(database).stem)[:60]


def manifest_of(path: str) -> str:
    return path.removesuffix(SUFFIX) + ".json"


def write(backup: Backup, path: str) -> None:
    """Write the manifest of *backup* into the file *path*."""
    document = {key: getattr(backup, key) for key in _KEYS}
    Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def file_names(folder: str) -> frozenset[str]:
    """Return the names in a folder, none where it is missing. Raises BackupError where it cannot be read."""
    try:
        return frozenset(path.name for path in Path(folder).iterdir())
    except OSError as error:
        # A link that leads nowhere is there, and is not found.
        if isinstance(error, FileNotFoundError) and not os.path.lexists(folder):
            return frozenset()
        raise BackupError(
            f"The backup folder {folder} cannot be read: {error.strerror}. Nothing was changed.",
            next_step=f"make {folder} a folder that can be read, or set VECMIGRATE_BACKUP_DIR, then run the same again",
        ) from error


def manifests(folder: str) -> Iterator[tuple[Backup | None, str]]:
    """Yield each manifest's backup, None where it is damaged, with its file name."""
    for name in sorted(file_names(folder)):
        stem = name.removesuffix(".json")
        if stem != name and _NAME.fullmatch(stem):
            yield _parse(Path(folder).absolute() / name), name


def _parse(manifest: Path) -> Backup | None:
    try:
        # A FIFO would never end, a huge file fill the memory.
        if not manifest.is_file() or manifest.stat().st_size > _LARGEST:
            return None
        content = json.loads(manifest.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not _is_well_formed(content):
        return None
    data = manifest.with_name(manifest.name.removesuffix(".json") + SUFFIX)
    known: dict[str, Any] = {key: content.get(key) for key in _KEYS}
    return Backup(name=data.name, path=str(data), **known)


def _is_well_formed(content: dict[str, object]) -> bool:
    texts = all(_is_text(content.get(key)) for key in _TEXTS)
    optional = all(key in content and (content[key] is None or _is_text(content[key])) for key in _OPTIONAL_TEXTS)
    optional = optional and isinstance(content.get("journal_mode"), str | None)
    return texts and optional and all(type(content.get(key)) is int for key in _COUNTS)


def _is_text(value: object) -> bool:
    # JSON can name half a character, which nothing can print or encode.
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode("utf-8")


def listing(folder: str, *, database_id: str | None, database_path: str) -> list[Backup]:
    """Return this database's backups, newest first, from their manifests alone. Creates nothing.

    Without *database_id* (the database is missing, damaged or was never migrated) its path decides, or its
    file name as long as only one database of that name has backups here.
    """
    found = [backup for backup, _ in manifests(folder) if backup]
    if database_id is not None:
        mine = [backup for backup in found if backup.database_id == database_id]
    else:
        path = os.path.realpath(database_path)
        mine = [backup for backup in found if Path(backup.database_path).name == Path(path).name]
        if len({backup.database_id for backup in mine}) > 1:
            mine = [backup for backup in mine if backup.database_path == path]
    return sorted(mine, key=lambda backup: (backup.sequence, backup.created_at, backup.name), reverse=True)


def own(folder: str, *, database_id: str | None, database_path: str) -> list[Backup]:
    """Return the listed backups but for those of a copy, which has the same identity and goes its own way.

    The others may have been made at another path, from where the database was moved. Read-only.
    """
    found = listing(folder, database_id=database_id, database_path=database_path)
    return [backup for backup in found if not _is_of_copy(backup, folder, database_path)]


def _is_of_copy(backup: Backup, folder: str, database_path: str) -> bool:
    path = os.path.realpath(database_path)
    if backup.database_path == path or not os.path.exists(backup.database_path):
        return False
    if _is_same(backup.database_path, path):
        return False
    # A folder that was copied along with the database holds what was made before, which is of both.
    beside = os.path.relpath(os.path.realpath(folder), os.path.dirname(path))
    others = os.path.join(os.path.dirname(backup.database_path), beside)
    return not os.path.isdir(others) or _is_same(others, folder)


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def recorded_id(folder: str, *, database_path: str) -> str | None:
    """Return the identity this path was last backed up under."""
    mine = _made_at(folder, database_path)
    return mine[-1].database_id if mine else None


def id_before_first_run(folder: str, *, database_path: str) -> str | None:
    """Return the identity that only the folder knows, of a database that was backed up by hand and never migrated.

    Every run writes it into the database. A database without it, where there was one with it, is another one.
    """
    mine = _made_at(folder, database_path)
    last = [backup for backup in mine if backup.database_id == mine[-1].database_id]
    is_unwritten = all(backup.reason == BY_HAND and backup.revision is None for backup in last)
    return last[-1].database_id if last and is_unwritten else None


def _made_at(folder: str, database_path: str) -> list[Backup]:
    path = os.path.realpath(database_path)
    # By path alone: another database of the same name may have its backups in the same folder.
    try:
        mine = [backup for backup, _ in manifests(folder) if backup and backup.database_path == path]
    except BackupError:
        # Whoever needs the folder fails by it, and a run without a backup does not.
        return []
    return sorted(mine, key=lambda backup: backup.sequence)


def damaged(folder: str) -> list[str]:
    """Return the names of manifests that can't be read, whatever database they belonged to. Read-only."""
    return [name for backup, name in manifests(folder) if backup is None]


def unlisted(folder: str, database_path: str) -> list[str]:
    """Return the paths of data files with names of this database's backups that have no manifest. Read-only."""
    names = file_names(folder)
    mine = (name for name in sorted(names) if name.startswith(f"{stem_of(database_path)}-") and name.endswith(SUFFIX))
    stems = (name.removesuffix(SUFFIX) for name in mine)
    lone = (stem for stem in stems if _NAME.fullmatch(stem) and f"{stem}.json" not in names)
    return [os.path.join(folder, stem + SUFFIX) for stem in lone]


def find(name: str, folder: str, *, database_id: str | None, database_path: str) -> Backup:
    """Return the listed backup called *name*, with or without its extension; BackupError if there is none."""
    for backup in listing(folder, database_id=database_id, database_path=database_path):
        if name in {backup.name, backup.name.removesuffix(SUFFIX)}:
            return backup
    if any(
        name in {each.name, each.name.removesuffix(SUFFIX)} for each in of_another(folder, database_id, database_path)
    ):
        raise BackupError(
            f"{name!r} is a backup of what was at {database_path} before: the database there says that it is "
            "another one. Nothing was changed.",
            next_step=aside_step(database_path, "restore", name),
        )
    why = "a backup goes by its name, not by a path" if _PATH.search(name) else "there is none of this name"
    raise BackupError(
        f"{name!r} is not a backup of {database_path}: {why}. Nothing was changed.",
        next_step=command(database_path, "backup", "list"),
    )


def of_another(folder: str, database_id: str | None, database_path: str) -> list[Backup]:
    """Return the backups made at this very path of a database with another identity, newest first. Read-only."""
    path = os.path.realpath(database_path)
    found = [] if database_id is None else listing(folder, database_id=None, database_path=database_path)
    return [backup for backup in found if backup.database_path == path and backup.database_id != database_id]


def aside_step(database_path: str, *words: str) -> str:
    """Return what to do where the identity in a database is wrong: without the file its path decides."""
    return f"if that is not so, move {database_path} aside, with its -wal and -shm if there are any, then: " + command(
        database_path, *words
    )
