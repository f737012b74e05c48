"""Calls of the system that fail, each once, in a process that is otherwise as it is."""

import errno
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults.calls import Watcher, watch

__all__ = ["chosen_calls", "errnos_of", "refuse_at"]

_ANY = (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EPERM, errno.EROFS, errno.EMFILE, errno.EINTR, errno.ENOENT)
_FULL = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EIO)
_ERRNOS = {
    "os.access": _REFUSED,
    "os.fsync": (*_FULL, errno.EINVAL, errno.EROFS),
    "os.lstat": _REFUSED,
    "os.stat": _REFUSED,
    "os.write": (*_FULL, errno.EFBIG),
    "sqlite access": _REFUSED,
    "sqlite fallocate": _FULL,
    "sqlite fchmod": (errno.EPERM, errno.EIO, errno.EROFS),
    "sqlite fchown": (errno.EPERM, errno.EIO),
    "sqlite fcntl": (errno.EAGAIN, errno.EIO, errno.ENOLCK),
    "sqlite fstat": (errno.EIO,),
    "sqlite fsync": (errno.EIO,),
    "sqlite ftruncate": (errno.EIO, errno.EFBIG),
    "sqlite lstat": _REFUSED,
    "sqlite open": (errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EPERM, errno.EROFS),
    "sqlite openDirectory": (errno.EIO,),
    "sqlite pread": (errno.EIO,),
    "sqlite pwrite": _FULL,
    "sqlite read": (errno.EIO,),
    "sqlite readlink": _REFUSED,
    "sqlite stat": _REFUSED,
    "sqlite unlink": (errno.EACCES, errno.EBUSY, errno.EIO, errno.EPERM, errno.EROFS),
    "sqlite write": _FULL,
}


def errnos_of(call: str) -> Sequence[int]:
    """Return with which errnos a call can fail; ``call`` is one of those that ``refuse_at`` notes."""
    return _ERRNOS.get(_kind(call), _ANY)


def chosen_calls(calls: Sequence[str], rounds: int, seed: str) -> list[tuple[int, int]]:
    """Return so many numbers of calls, each with an errno, kind by kind in turn; all of each where they are enough."""
    kinds: dict[str, list[tuple[int, int]]] = {}
    for step, call in enumerate(calls, 1):
        kinds.setdefault(_kind(call), []).extend((step, number) for number in errnos_of(call))
    dice = random.Random(seed)  # noqa: S311 - it must be the same each time
    turns = list(kinds.values())
    dice.shuffle(turns)
    for each in turns:
        dice.shuffle(each)
    found: list[tuple[int, int]] = []
    while len(found) < rounds and any(turns):
        found += [each.pop() for each in turns if each][: rounds - len(found)]
    return sorted(found)


def _kind(call: str) -> str:
    words = call.split(" ")
    return " ".join(words[: 1 + (words[0] == "sqlite")]).removesuffix("64")


class _Refusing(Watcher):
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number
        self.calls: list[str] = []

    def before(self, call: str, path: str) -> int:
        self.calls.append(f"{call} {path}")
        return self.number if len(self.calls) == self.step else 0

    def opened(self, path: str) -> None:
        pass

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        pass

    def cut(self, path: str, size: int) -> None:
        pass

    def synced(self, path: str) -> None:
        pass


def refuse_at(step: int, number: int, folder: str, noted: str, action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function, and let its n-th call that concerns a file or folder below *folder* fail with an errno.

    The calls are those of ``faults.calls``. With 0 none fails, and what they are is written into the file ``noted``,
    one in a line.
    """
    refusing = _Refusing(step, number)
    watch(folder, refusing)
    try:
        action(*arguments)
    finally:
        found, refusing.step = list(refusing.calls), 0
        Path(noted).write_text("\n".join(found), encoding="utf-8")
