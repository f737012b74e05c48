"""Who owns and may read what is made, and whether its name outlives a loss of power, as far as its disk has that."""

import errno
import logging
import os
import stat
from contextlib import suppress

__all__ = ["belong_to_folder", "how_to_write", "keep_private", "sync_names", "taken", "whose"]

log = logging.getLogger("vecmigrate")

_CANNOT = frozenset({errno.EPERM, errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What shares (CIFS, some NFS, mounts of containers) say to what they have not."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_logged: set[str] = set()
_notes: list[str] = []


def keep_private(target: int | str, mode: int, *, path: str) -> None:
    """Set the mode of a new file or folder, named or open; where its disk has none, note that and go on.

    Raises OSError for anything else.
    """
    try:
        os.chmod(target, mode)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        if stat.S_IMODE(os.stat(target).st_mode) != mode:
            what = f"does not let the mode of what is in it be set to {mode:o} ({error.strerror}): see who may read it"
            _note(os.path.dirname(path), what)


def sync_names(folder: str) -> None:
    """Make the names in a folder durable; where its disk cannot, note that and go on. Raises OSError."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        what = f"cannot be synced ({error.strerror}): after a loss of power the newest files may lack their names"
        _note(folder, what)
    finally:
        os.close(descriptor)


def _note(folder: str, what: str) -> None:
    note = f"The file system of {folder} {what}."
    if note not in _logged:
        log.warning("%s", note)
        _logged.add(note)
    if note not in _notes:
        _notes.append(note)


def taken() -> list[str]:
    """Return what was noted since the last time, all of which the log has had."""
    notes = list(_notes)
    _notes.clear()
    return notes


def belong_to_folder(descriptor: int, path: str) -> None:
    """Give what root has made in a folder of somebody else to the owner of that folder."""
    if os.name == "nt" or os.geteuid() != 0:
        return
    folder = os.stat(os.path.dirname(os.path.abspath(path)))
    if folder.st_uid != 0:
        # By its descriptor: whoever owns the folder may put something else under its name.
        with suppress(OSError):
            os.chown(descriptor, folder.st_uid, folder.st_gid)


def how_to_write(path: str, error: BaseException) -> str:
    """Return what makes a folder or a file writable, by the reason why it is not. Read-only."""
    number = getattr(error, "errno", None)
    if number in _NO_ROOM or "disk is full" in str(error):
        return f"free some space in {path}, or set VECMIGRATE_BACKUP_DIR"
    if number is None and os.access(path, os.W_OK):
        return f"see that the disk of {path} is sound, or set VECMIGRATE_BACKUP_DIR"
    if number is not None and number not in _REFUSED:
        return f"see what is wrong with {getattr(error, 'filename', None) or path}, or set VECMIGRATE_BACKUP_DIR"
    return f"{whose(path) or f'make {path} writable'}, or set VECMIGRATE_BACKUP_DIR"


def whose(path: str) -> str | None:
    """Return the command that gives somebody else's file or folder to this process, with whose it is."""
    if os.name == "nt" or not os.path.exists(path):
        return None
    owner, mine = os.stat(path).st_uid, os.geteuid()
    if owner == mine or os.access(path, os.W_OK):
        return None
    return f"{path} belongs to {_name(owner)}, and this process is {_name(mine)}: sudo chown -R {mine} {path}"


def _name(user: int) -> str:
    import pwd  # noqa: PLC0415 - there is none on Windows

    try:
        return f"{pwd.getpwuid(user).pw_name} ({user})"
    except KeyError:  # in a container nobody need have a name
        return f"user {user}"
