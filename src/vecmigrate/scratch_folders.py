"""Temporary folders, which tell by a lock whether their process is alive: that lock dies with it."""

import contextlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator

from vecmigrate.causes import described

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["SUFFIX", "clean", "dead", "opened"]

SUFFIX = ".rehearsal"
_GONE = ".gone"
_IN_USE = "in-use"
log = logging.getLogger("vecmigrate")


@contextlib.contextmanager
def opened(folder: str, place: str) -> Iterator[str]:
    """Give the path of a new private folder in *folder*, named after *place*; it goes at the end. Raises OSError.

    One that cannot be removed is told, and fails nothing.
    """
    while True:
        path = os.path.join(os.path.abspath(folder), f".{place}{secrets.token_hex(4)}{SUFFIX}")
        os.mkdir(path, mode=0o700)
        try:
            with _in_use(path) as is_mine:
                if is_mine:
                    yield path
                    return
                # Somebody took it for that of a killed process before it was locked.
        finally:
            _take_away(path)


@contextlib.contextmanager
def _in_use(path: str) -> Iterator[bool]:
    """Hold a file in a folder open and locked; tell whether the folder is still there then."""
    lock = os.path.join(path, _IN_USE)
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # A file system without such locks, where nobody cleans up.
            if fcntl:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield os.path.lexists(lock)
    finally:
        os.close(descriptor)


def _take_away(path: str) -> None:
    try:
        gone = path + _GONE
        # Whatever has that name may be removed by anybody, so that a kill in between does no harm.
        os.rename(path, gone)
        shutil.rmtree(gone)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("The temporary folder %s could not be removed: %s", path, described(error))


def clean(folder: str, place: str) -> None:
    """Remove the folders of killed processes; one that cannot be removed is left."""
    for path in _present(folder, place):
        with contextlib.suppress(OSError), _dead(path, flags=os.O_CREAT | os.O_RDWR) as is_dead:
            if is_dead and not path.endswith(_GONE):
                os.rename(path, path + _GONE)
            if is_dead:
                shutil.rmtree(path.removesuffix(_GONE) + _GONE)


def dead(folder: str, place: str) -> list[str]:
    """Return the folders of killed processes, as far as the system can tell them. Read-only."""
    found = []
    for path in _present(folder, place) if fcntl else []:
        with contextlib.suppress(OSError), _dead(path, flags=os.O_RDWR) as is_dead:
            found += [path] if is_dead else []
    return found


def _present(folder: str, place: str) -> list[str]:
    pattern = re.compile(rf"\.{place}[0-9a-f]{{8}}{re.escape(SUFFIX)}({re.escape(_GONE)})?")
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if pattern.fullmatch(name))
    except OSError:
        return []


@contextlib.contextmanager
def _dead(path: str, *, flags: int) -> Iterator[bool]:
    """Tell whether the process that made a folder is gone, and keep the answer true. Raises OSError.

    On Windows it says so of all: there a folder cannot be renamed while a file in it is open.
    """
    if path.endswith(_GONE) or fcntl is None:
        yield True
        return
    # Made where it is missing, so that a process which has just made the folder waits for this one.
    descriptor = os.open(os.path.join(path, _IN_USE), flags, 0o600)
    try:
        yield _is_locked(descriptor)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
