"""Temporary files of one database: private, gone at the end, and known again where a process was killed."""

import contextlib
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from vecmigrate import scratch_folders, sqlite_files
from vecmigrate.causes import described
from vecmigrate.errors import BackupError
from vecmigrate.manifests import command

__all__ = ["clean_temporary", "clean_temporary_folders", "scratch", "scratch_folder", "temporary"]

_LONGEST = 512
"""The longest path that SQLite opens: https://sqlite.org/src/file/src/os_unix.c, MAX_PATHNAME."""
log = logging.getLogger("vecmigrate")

_NAME_OF_BACKUP = re.compile(rf".+-\d{{8}}T\d{{6}}\.\d{{6}}Z-[A-Za-z0-9_.]+{re.escape(sqlite_files.SUFFIX)}", re.DOTALL)


@contextlib.contextmanager
def scratch(folder: str, database_id: str, database: str, *, is_private: bool = True) -> Iterator[str]:
    """Give the path of a new empty file in *folder*, which goes at the end, with its sidecars.

    One that cannot be removed is told, and fails nothing: the next run removes it.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", database_id):
        # The identity was read from a database, which may hold anything.
        database_id = hashlib.sha256(database_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    path = str(Path(folder).absolute() / f".{database_id}.{_place(database)}{secrets.token_hex(4)}.tmp")
    _require_short(path, folder, database)
    try:
        sqlite_files.new_file(path, is_private=is_private)
        yield path
    finally:
        for suffix in ("", *sqlite_files.SIDECARS):
            _remove(path + suffix)


@contextlib.contextmanager
def scratch_folder(folder: str, database: str) -> Iterator[str]:
    """Give the path of a new private folder in *folder*, which goes at the end, with all in it.

    It needs no migration lock: as long as its process lives nobody takes it for that of a killed one. Raises OSError,
    and BackupError for a path that SQLite would not open.
    """
    path = str(Path(folder).absolute() / f".{_place(database)}{'0' * 8}{scratch_folders.SUFFIX}")
    _require_short(os.path.join(path, "copy.sqlite3"), folder, database)
    with scratch_folders.opened(folder, _place(database)) as made:
        yield made


def _remove(path: str) -> None:
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        log.warning(
            "The temporary file %s could not be removed (%s); the next run tries again.", path, described(error)
        )


def _require_short(path: str, folder: str, database: str) -> None:
    length = len(os.fsencode(path)) + len("-journal")
    if length > _LONGEST:
        step = "set VECMIGRATE_BACKUP_DIR (or backup_dir) to a folder with a shorter path, then: "
        if os.path.realpath(folder) == os.path.dirname(os.path.realpath(database)):
            step = "move the database to a folder with a shorter path; then there: "
        raise BackupError(
            f"The path of {folder} is too long: a file in it would have one of {length} bytes, and SQLite takes "
            f"{_LONGEST}. Nothing was changed.",
            next_step=step + command(database, "status"),
        )


def _place(database: str) -> str:
    """Return what tells a database from its copies, which have the same identity."""
    return hashlib.sha256(os.fsencode(os.path.realpath(database))).hexdigest()[:16]


def clean_temporary(folder: str, database: str, *, but: str = "") -> None:
    """Remove what killed runs of this database left in *folder*, but the file *but*, of the caller's own.

    Call it while holding the migration lock. A restore that still waits for that makes its copy anew.
    """
    clean_temporary_folders(folder, database)
    names = _present(folder) - {Path(but + suffix).name for suffix in ("", *sqlite_files.SIDECARS)}
    data = {name for name in names if _NAME_OF_BACKUP.fullmatch(name)} - {os.path.basename(database)}
    unlisted = [Path(folder, name) for name in data if f"{name.removesuffix(sqlite_files.SUFFIX)}.json" not in names]
    for name in filter(_pattern(database).fullmatch, names):
        with contextlib.suppress(OSError):
            _remove_leftover(Path(folder, name), unlisted)


def clean_temporary_folders(folder: str, database: str) -> None:
    """Remove the folders of rehearsals that were killed. It needs no lock."""
    scratch_folders.clean(folder, _place(database))


def _pattern(database: str) -> re.Pattern[str]:
    return re.compile(rf"\.[A-Za-z0-9-]+\.{_place(database)}[0-9a-f]{{8}}\.tmp(-journal|-wal|-shm)?")


def _present(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        # Nothing was written there either, and whoever needs the folder says so.
        return frozenset()


def temporary(folder: str, database: str) -> list[str]:
    """Return the temporary files of this database in *folder*, also of a run that still goes on. Read-only.

    Of folders of rehearsals only those are among them whose process is gone.
    """
    files = [os.path.join(folder, name) for name in sorted(filter(_pattern(database).fullmatch, _present(folder)))]
    return files + scratch_folders.dead(folder, _place(database))


def _remove_leftover(temporary: Path, unlisted: Sequence[Path]) -> None:
    for data in unlisted:
        if data.exists() and temporary.samefile(data):
            data.unlink()
    temporary.unlink()
