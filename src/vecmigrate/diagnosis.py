"""What is wrong with a database that cannot be opened, and what to do about it."""

import errno
import os
import sqlite3

from sqlalchemy.exc import DBAPIError

from vecmigrate import file_rights, soundness, sqlite_driver
from vecmigrate.errors import DatabaseUnusableError
from vecmigrate.sqlite_files import SIDECARS

__all__ = ["diagnosed", "is_writable", "unwritable", "widowed"]

_UNREADABLE = "cannot be opened (permissions?)"
_READ_ONLY = "is read-only, or in a read-only folder"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def diagnosed(error: BaseException, *, path: str | None, shown: str, option: str) -> DatabaseUnusableError:
    """Return the error for a database, from the driver's own error.

    ``path`` is that of an SQLite file, ``shown`` names the database in sentences and ``option`` in commands.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if path is None:
        return DatabaseUnusableError(
            f"The database {shown} cannot be reached ({type(cause).__name__}). Nothing was changed.",
            next_step=f"check that the server runs and the URL is right, then: vecmigrate {option} status",
        )
    found = _elsewhere(path, cause) or _place(path, cause, option) or _foreign(path, cause, option)
    why, step = found or _state(path, cause, option)
    unusable = DatabaseUnusableError(f"{path} {why}. Nothing was changed.", next_step=step)
    unusable.is_denied = why in {_UNREADABLE, _READ_ONLY}
    return unusable


def _elsewhere(path: str, cause: BaseException) -> tuple[str, str] | None:
    """Return which other file it was that the system refused, and what to do; None where it was the database."""
    if not isinstance(cause, OSError):
        return None
    name = cause.filename
    if not os.path.exists(path) and not os.access(os.path.dirname(path), os.W_OK):
        return None
    if not isinstance(name, str) or os.path.realpath(name) in {path, os.path.dirname(path)} or cause.errno in _NO_ROOM:
        return None
    what = f"cannot be worked on: {name}: {cause.strerror}"
    return what, f"see that {name} can be made, written and removed there, then run it again"


def _place(path: str, cause: BaseException, option: str) -> tuple[str, str] | None:
    """Return what is wrong with where the database is, and what to do; None if it is a file that is there."""
    folder = os.path.dirname(path)
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a directory" if os.path.isdir(path) else "not a file"
        return f"is {what}", "vecmigrate --db-path FILE status, with the path of a file"
    if not os.path.isdir(folder):
        return "is in a folder that does not exist", f"create {folder}, then run it again"
    is_kept_out = isinstance(cause, PermissionError) and not _lacks_only_its_folder(path)
    if is_kept_out or (os.path.exists(path) and not isinstance(cause, FileNotFoundError)):
        return None
    if os.path.islink(path):
        return "is a symbolic link to itself", "vecmigrate --db-path FILE status, with the path of a file"
    what = "is an empty file" if os.path.exists(path) else "does not exist"
    if not os.access(folder, os.W_OK):
        return f"{what}, and its folder is read-only", f"make {folder} writable, then: vecmigrate {option} migrate"
    return what, f"vecmigrate {option} migrate"


def _lacks_only_its_folder(path: str) -> bool:
    """Tell whether there is no file, in a folder that may be looked into and not be written. Read-only."""
    folder = os.path.dirname(path)
    return not os.path.lexists(path) and os.access(folder, os.X_OK) and not os.access(folder, os.W_OK)


def _state(path: str, cause: BaseException, option: str) -> tuple[str, str]:
    code = getattr(cause, "sqlite_errorname", "")
    if code.startswith("SQLITE_FULL") or getattr(cause, "errno", None) in _NO_ROOM:
        return "has no room on its disk", f"free some space beside {path}, then run it again"
    if code == "SQLITE_NOTADB":
        step = (
            f"vecmigrate --db-path FILE status, with the right path; if this was one: vecmigrate {option} backup list"
        )
        return "is not an SQLite database (or is an encrypted one, as SQLCipher makes them)", step
    if soundness.is_damage(cause) or soundness.has_spoiled_format(path):
        return "is damaged", _restore_step(option)
    is_refused = code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"))
    if is_refused or isinstance(cause, OSError):
        return _refusal(path, cause)
    step = f"see that its disk is sound and has room, then: vecmigrate {option} status"
    return f"cannot be used ({code or type(cause).__name__})", step


def _foreign(path: str, cause: BaseException, option: str) -> tuple[str, str] | None:
    """Return what of a sound file this process does not know, and what to do; None where that is not the cause."""
    upgrade = "use a Python with a newer SQLite (python -c 'import sqlite3; print(sqlite3.sqlite_version)'), then: "
    upgrade += f"vecmigrate {option} status"
    if missing := soundness.lack(cause):
        step = "drop from within the service what uses it on the tables of vecmigrate, and make that again afterwards"
        return f"needs the {missing.kind} {missing.name} of its service, which this process does not have", step
    if isinstance(cause, UnicodeDecodeError):
        return (
            "has a schema that is not UTF-8",
            f"vecmigrate {option} backup list, then: vecmigrate {option} restore NAME",
        )
    newer = soundness.newer_writer(path)
    if newer and (soundness.has_unknown_format(path) or sqlite_driver.is_of_unknown_sql(cause)):
        return f"was made by SQLite {newer}, newer than this one ({sqlite3.sqlite_version})", upgrade
    if sqlite_driver.is_of_unknown_sql(cause):
        return f"has a schema with SQL that this SQLite ({sqlite3.sqlite_version}) does not know", upgrade
    return None


def _restore_step(option: str) -> str:
    return f"vecmigrate {option} backup list, then: vecmigrate {option} restore NAME"


def _refusal(path: str, cause: BaseException) -> tuple[str, str]:
    """Return why the system does not let SQLite at a file, and what to do. Read-only."""
    if not os.access(path, os.R_OK):
        return _UNREADABLE, f"make {path} and its folder readable and writable, then run it again"
    if _unwritable(path):
        step = file_rights.whose(_unwritable(path)[0]) or f"make {unwritable(path)} writable"
        return _READ_ONLY, f"{step}, then run it again"
    why = getattr(cause, "strerror", None) or "SQLite was refused it, though its permissions allow it"
    step = "see that the process may open more files (ulimit -n) and that the disk is sound, then run it again"
    return f"cannot be opened for writing: {why}", step


def widowed(path: str, *, option: str) -> DatabaseUnusableError:
    """Return the error for a ``-wal`` whose database is gone or empty."""
    what = "is an empty file" if os.path.exists(path) else "does not exist"
    return DatabaseUnusableError(
        f"{path} {what}, and {path}-wal, which may hold its last commits, is still there. Nothing was changed.",
        next_step=f"vecmigrate {option} backup list, then: vecmigrate {option} restore NAME, which keeps the -wal; or "
        f"to begin anew, move {path}-wal elsewhere, then: vecmigrate {option} migrate",
    )


def is_writable(path: str) -> bool:
    """Tell whether an SQLite file and its folder, where the journal comes to stand, may be written. Read-only."""
    return os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)


def unwritable(path: str) -> str:
    """Return, for a sentence, what may not be written of an SQLite file, its sidecars and its folder. Read-only.

    A sidecar of a WAL database, which any reader makes, has the mode that the file had then.
    """
    return " and ".join(_unwritable(path)) or f"{path} and its folder"


def _unwritable(path: str) -> list[str]:
    places = (path, *(path + suffix for suffix in SIDECARS), os.path.dirname(path))
    return [place for place in places if os.path.exists(place) and not os.access(place, os.W_OK)]
