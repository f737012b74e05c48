"""The bytes of a damaged database, saved in the folder of its backups before anything is done to it.

They have no manifest: nobody lists, restores or rotates what is damaged.
"""

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vecmigrate import backups, sqlite_files
from vecmigrate.comparison import same_bytes
from vecmigrate.manifests import file_names, stem_of

__all__ = ["save", "saved"]

_SAVED = ("", "-wal", "-journal")
"""The -shm holds nothing that SQLite would not make anew."""


def save(database: str, folder: str, database_id: str) -> str:
    """Save a damaged file, with its WAL and its journal beside the copy; return the path of that.

    Written under a temporary name, synced and renamed. A copy of the same bytes, which a restore that failed has left,
    serves again. Raises BackupError where there is no room, and OSError.
    """
    suffixes = [suffix for suffix in _SAVED if os.path.lexists(database + suffix)]
    for path in saved(database, folder):
        if all(same_bytes(database + suffix, path + suffix) for suffix in _SAVED):
            return path
    needed = sum(sqlite_files.size(database + suffix) for suffix in suffixes)
    backups.check_room(folder, needed, database=database)
    path = _new_name(database, folder)
    # The file itself comes last: without it the others are of no copy.
    for suffix in reversed(suffixes):
        with backups.scratch(folder, database_id, database) as temporary:
            shutil.copyfile(database + suffix, temporary)
            sqlite_files.sync(temporary)
            Path(temporary).replace(path + suffix)
    sqlite_files.sync_folder(folder)
    return path


def saved(database: str, folder: str) -> Iterator[str]:
    """Yield the paths of the copies of a database's file. Read-only; raises BackupError."""
    pattern = re.compile(
        rf"{re.escape(stem_of(database))}-\d{{8}}T\d{{6}}\.\d{{6}}Z-damaged{re.escape(sqlite_files.SUFFIX)}"
    )
    return (str(Path(folder).absolute() / name) for name in file_names(folder) if pattern.fullmatch(name))


def _new_name(database: str, folder: str) -> str:
    moment = datetime.now(UTC)
    while True:
        name = f"{stem_of(database)}-{moment:%Y%m%dT%H%M%S.%f}Z-damaged{sqlite_files.SUFFIX}"
        path = str(Path(folder).absolute() / name)
        if not any(os.path.lexists(path + suffix) for suffix in _SAVED):
            return path
        moment += timedelta(microseconds=1)
