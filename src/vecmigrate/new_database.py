"""A database that is not there yet: built beside its place, and linked into it whole or not at all."""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterator

from vecmigrate import sqlite_files
from vecmigrate.causes import described
from vecmigrate.scratch_files import clean_temporary, scratch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["MadeMeanwhileError", "built_beside"]

log = logging.getLogger("vecmigrate")
_KIND = "new"


class MadeMeanwhileError(Exception):
    """Another program has made the database while it was built here; what was built is gone."""


@contextlib.contextmanager
def built_beside(path: str, deadline: float) -> Iterator[str]:
    """Give the path where a missing database is to be built: at the end of the block it gets its own name.

    One process at a time builds in a folder, where the system can see to that. Where another one was first, *path*
    itself is given. Raises BlockingIOError after *deadline*, a ``time.monotonic()``, OSError, and MadeMeanwhileError.
    """
    folder = os.path.dirname(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone_in(folder, deadline))
        if os.path.lexists(path):
            stack.close()
            yield path
            return
        clean_temporary(folder, path)
        temporary = stack.enter_context(scratch(folder, _KIND, path, is_private=False))
        yield temporary
        if not sqlite_files.rename_to_new(temporary, path):
            raise MadeMeanwhileError(path)
        _settle(folder, path)


def _settle(folder: str, path: str) -> None:
    try:
        sqlite_files.sync_folder(folder)
    except OSError as error:
        log.warning("%s is made, and its folder could not be synced: %s", path, described(error))


@contextlib.contextmanager
def _alone_in(folder: str, deadline: float) -> Iterator[None]:
    """Keep others from building in a folder; the lock dies with the process.

    Where a folder can't be locked, all may build, and the first to be done is taken.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY) if fcntl else -1
    except PermissionError:
        descriptor = -1
    if descriptor < 0:
        yield
        return
    try:
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise BlockingIOError(errno.EAGAIN, "another process builds a database there", folder)
            time.sleep(sqlite_files.POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without such locks.
        return True
    return True
