"""What stands where a database is to come: moved aside, and put back should that fail."""

import contextlib
import errno
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from vecmigrate import file_rights, sqlite_files
from vecmigrate.causes import described
from vecmigrate.comparison import same_bytes
from vecmigrate.errors import RestoreFailedError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("vecmigrate")

__all__ = ["alone_with", "exchange", "forget_copies", "made_way"]


@contextlib.contextmanager
def alone_with(path: str, deadline: float) -> Iterator[bool]:
    """Keep other restores off a damaged file, which SQLite cannot lock; the lock dies with the process.

    Tells whether the file is still the one at *path*: another restore may have exchanged it during the wait. Raises
    BlockingIOError after *deadline*, a ``time.monotonic()``.
    """
    if os.name == "nt":
        # Nobody may have the file open there, this process included, or it cannot be exchanged.
        yield True
        return
    with open(path, "rb") as file:
        while not _is_locked(file.fileno()):
            if time.monotonic() > deadline:
                raise BlockingIOError(errno.EAGAIN, "another restore is under way", path)
            time.sleep(sqlite_files.POLL_SECONDS)
        yield os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path))


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def made_way(path: str, now: datetime) -> Iterator[str | None]:
    """Move the stale sidecars of a missing or empty database aside, and put them back on failure.

    SQLite would delete a ``-wal`` that has lost its database, with the commits it may hold.
    """
    aside = _aside_name(path, now)
    # The journal of an empty file may be that of a database in the making, and hold nothing yet.
    stale = [suffix for suffix in _sidecars(path) if suffix != "-journal" or not os.path.lexists(path)]
    moved: list[str] = []
    try:
        for suffix in stale:
            Path(path + suffix).rename(aside + suffix)
            moved.append(suffix)
        yield aside if moved else None
    except BaseException as error:
        with _told_if_impossible(path, aside, moved, error):
            _put_back(path, aside, moved)
        raise
    _sync_folder_of(path)


def _sync_folder_of(path: str) -> None:
    try:
        sqlite_files.sync_folder(str(Path(path).parent))
    except OSError as error:
        log.warning("%s is restored, and its folder could not be synced: %s", path, described(error))


def forget_copies(path: str) -> None:
    """Remove what killed restores have put aside of a damaged file that is still there, byte for byte."""
    folder, name = os.path.split(path)
    pattern = re.compile(rf"{re.escape(name)}\.damaged-\d{{8}}T\d{{6}}\.\d{{6}}Z(-wal|-shm|-journal)?")
    for entry in os.listdir(folder):
        if match := pattern.fullmatch(entry):
            original, copy = path + (match[1] or ""), os.path.join(folder, entry)
            if os.path.lexists(original) and same_bytes(original, copy):
                os.unlink(copy)


def exchange(new: str, path: str, now: datetime) -> str:
    """Put the complete file *new*, of the same folder, in the place of a damaged database.

    Returns under which name the damaged one is kept, with its sidecars. Under *path* one of the two is there
    at every moment, and a failure leaves the damaged one. The new one gets its owner and its mode.
    """
    aside, sidecars = _aside_name(path, now), _sidecars(path)
    kept: list[str] = []
    try:
        for suffix in (*sidecars, ""):
            kept.append(suffix)
            _name_too(path + suffix, aside + suffix)
        _make_alike(new, path)
        # Else a loss of power could leave the new database, and no name of the damaged one.
        sqlite_files.sync_folder(str(Path(path).parent))
        # Before the exchange: SQLite would take them for those of the new database.
        for suffix in sidecars:
            Path(path + suffix).unlink()
        Path(new).replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and _is_exchanged(path, aside):
            log.warning("%s is restored. What came after that failed: %s", path, described(error))
            return aside
        with _told_if_impossible(path, aside, kept, error):
            _put_back(path, aside, kept)
        raise
    _sync_folder_of(path)
    return aside


def _is_exchanged(path: str, aside: str) -> bool:
    """Tell whether the new database has the name already, though the system said otherwise."""
    return os.path.exists(aside) and os.path.exists(path) and not same_bytes(path, aside)


def _aside_name(path: str, now: datetime) -> str:
    while True:
        aside = f"{path}.damaged-{now:%Y%m%dT%H%M%S.%f}Z"
        if not any(os.path.lexists(aside + suffix) for suffix in ("", *sqlite_files.SIDECARS)):
            return aside
        now += timedelta(microseconds=1)


def _sidecars(path: str) -> list[str]:
    return [suffix for suffix in sqlite_files.SIDECARS if os.path.lexists(path + suffix)]


def _name_too(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # A file system without hard links.
        shutil.copy2(source, target)


def _make_alike(new: str, old: str) -> None:
    status = Path(old).stat()
    if os.name != "nt":
        # Only root may give a file away.
        with contextlib.suppress(PermissionError):
            os.chown(new, status.st_uid, status.st_gid)
    file_rights.keep_private(new, stat.S_IMODE(status.st_mode), path=new)


def _put_back(path: str, aside: str, suffixes: Sequence[str]) -> None:
    for suffix in reversed(suffixes):
        if os.path.lexists(path + suffix):
            Path(aside + suffix).unlink(missing_ok=True)
        else:
            Path(aside + suffix).rename(path + suffix)


@contextlib.contextmanager
def _told_if_impossible(path: str, aside: str, suffixes: Sequence[str], cause: BaseException) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        places = [aside + suffix for suffix in suffixes]
        raise RestoreFailedError(
            f"Restoring {path} failed: {described(cause)}. What was there is now {places}.",
            next_step="stop the programs that use it, and give these files their old names",
        ) from error
