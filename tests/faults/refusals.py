"""Calls of the system that fail, each once, in a process that is otherwise as it is."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["refuse_at"]

_EVENTS = {
    "open",
    "os.chmod",
    "os.link",
    "os.listdir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.scandir",
    "os.truncate",
}


def refuse_at(step: int, number: int, folder: str, noted: str, action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function, and let its n-th call that concerns a file or folder below *folder* fail with an errno.

    The calls are those that Python makes, of which its audit events tell before they are made, and the syncs of files
    and folders. With 0 none fails, and what they are is written into the file ``noted``, one in a line.
    """
    steps: list[str] = []
    sync = os.fsync

    def point(what: str, path: str) -> None:
        if not path.startswith(folder):
            return
        steps.append(f"{what} {path}")
        if len(steps) == step:
            raise OSError(number, os.strerror(number), path)

    def audit(event: str, details: tuple[Any, ...]) -> None:
        if event in _EVENTS and isinstance(details[0], str | bytes | os.PathLike):
            point(event, os.fsdecode(details[0]))

    def fsync(descriptor: Any) -> None:
        point("os.fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    sys.addaudithook(audit)
    try:
        action(*arguments)
    finally:
        found, folder = list(steps), "\0"
        Path(noted).write_text("\n".join(found), encoding="utf-8")
