"""The mirror: the history as a JSON file, in the format of mcp-vector-search's registry of migrations.

That registry's reader knows five statuses and raises on any other, and it takes a time that is no ISO 8601 for none:
https://github.com/bobmatnyc/mcp-vector-search/blob/main/src/mcp_vector_search/migrations/migration.py
"""

import errno
import json
import os
import re
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vecmigrate.history import Attempt, now, write_file
from vecmigrate.names import LONGEST, fitting

__all__ = ["LIMIT", "Mirror", "NoMirrorError", "entry_of"]

LIMIT = 1000
"""The mirror holds this many attempts, the newest; the table holds all."""

_LARGEST = 1 << 24
"""No mirror has more bytes than this."""

_STATUSES = {"success", "failed", "skipped", "pending", "running"}
_BEGINNING = re.compile(rb'\s*\{\s*"migrations"\s*:')
_MOST_LINKS = 40


class NoMirrorError(FileExistsError):
    """What stands in the place of a mirror is a file of somebody else."""


def entry_of(attempt: Attempt) -> dict[str, Any]:
    """Return the entry of an attempt, with a status and a time that the readers of the format understand."""
    entry = attempt.entry()
    if entry["status"] not in _STATUSES:
        entry["metadata"] |= {"interrupted": True} if entry["status"] == "interrupted" else {"status": entry["status"]}
        entry["status"] = "failed"
    if not _is_time(entry["executed_at"]):
        entry["executed_at"] = None
    return entry


def _is_time(text: str | None) -> bool:
    try:
        datetime.fromisoformat(text or "")
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class _Found:
    """What stands in the place of a mirror: a document, and whether more stands there than could be read."""

    document: dict[str, Any]
    is_damaged: bool = False

    @property
    def entries(self) -> list[Any]:
        entries: list[Any] = self.document.get("migrations", [])
        return entries


@dataclass(frozen=True)
class Mirror:
    """The file at a path. ``is_set`` tells that a setting names it, so that it may be anybody's by mistake."""

    path: str
    is_set: bool = False

    def place(self) -> str:
        """Return the file itself: links of our own are followed. Read-only.

        Raises PermissionError for a link of somebody else, who could lead us to any file by it.
        """
        path = os.path.abspath(self.path)
        for _ in range(_MOST_LINKS):
            folder, name = os.path.split(path)
            path = os.path.join(os.path.realpath(folder), name)
            if not os.path.islink(path):
                return path
            if hasattr(os, "geteuid") and os.lstat(path).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it is a link that somebody else owns", path)
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.path)

    def require_replaceable(self) -> None:
        """Raise NoMirrorError for a file of somebody else, OSError for one that cannot be looked at. Read-only."""
        self._look(self.place())

    def read(self) -> list[Any] | None:
        """Return the entries, None where there are none or they are damaged. Decides nothing but its repair."""
        try:
            place = self.place()
            found = self._look(place)
        except OSError:
            return None
        return None if found.is_damaged or not found.document else found.entries

    def expected(self, attempts: Sequence[Attempt], *, ours: Collection[str]) -> list[Any]:
        """Return the entries that must stand here: those of others as they are, then the newest of ours.

        ``ours`` are the ids of all attempts that are or ever were in the table. Read-only; raises OSError.
        """
        return _entries(self._look(self.place()), attempts, ours)

    def write(self, attempts: Sequence[Attempt], *, ours: Collection[str], token: str) -> str | None:
        """Replace the file atomically, mode 0600. Raises OSError; the old one stays then.

        What is damaged is moved aside, because entries of others may be in it; returns its new path.
        """
        place = self.place()
        found = self._look(place)
        text = self._text(found, attempts, ours)
        aside = _aside(place) if found.is_damaged else None
        if aside:
            os.rename(place, aside)
        write_file(place, text, token=token)
        return aside

    def _text(self, found: _Found, attempts: Sequence[Attempt], ours: Collection[str]) -> str:
        document = {"migrations": [], "last_updated": now().isoformat()}
        document |= {name: value for name, value in found.document.items() if name not in document}
        try:
            document["migrations"] = _entries(found, attempts, ours)
            text = json.dumps(document, indent=2, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise OSError(errno.EINVAL, "the history holds what JSON cannot", self.path) from error
        # A larger one could not be read again, and would be taken for damaged each time.
        if len(text) * 4 > _LARGEST and len(text.encode(errors="replace")) >= _LARGEST and attempts:
            return self._text(found, attempts[len(attempts) // 2 + 1 :], ours)
        return f"{text}\n"

    def _look(self, place: str) -> _Found:
        """Return what stands in a place. Raises NoMirrorError where it is of somebody else."""
        content = _content(place)
        document = _parsed(content)
        if isinstance(document, dict) and isinstance(document.get("migrations"), list):
            whole = [each for each in document["migrations"] if _is_entry(each)]
            return _Found(document | {"migrations": whole}, is_damaged=whole != document["migrations"])
        if not content.strip(b"\0 \t\r\n"):
            return _Found({})
        if _BEGINNING.match(content):
            return _Found({}, is_damaged=True)
        # A file with the name of the mirror is a mirror, unless it says that it is something else.
        if self.is_set or place != _own_place(self.path) or _is_of_others(content, document):
            raise NoMirrorError(errno.EEXIST, "what has that name is no mirror", place)
        return _Found({}, is_damaged=bool(document))


def _own_place(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _is_of_others(content: bytes, document: object) -> bool:
    return content.startswith(b"SQLite format 3\0") or (isinstance(document, dict) and bool(document))


_NOT_JSON = object()


def _parsed(content: bytes) -> Any:
    if len(content) > _LARGEST:
        return _NOT_JSON
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _content(path: str) -> bytes:
    """Return the beginning of a file, all of a mirror; nothing where there is none."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            # A pipe would never end.
            raise FileExistsError(errno.EEXIST, "what has that name is no regular file", path)
        with open(path, "rb") as file:
            return file.read(_LARGEST + 1)
    return b""


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("migration_id"), str)


def _entries(found: _Found, attempts: Sequence[Attempt], ours: Collection[str]) -> list[Any]:
    others = [each for each in found.entries if each["migration_id"] not in ours]
    return [*others, *map(entry_of, attempts[-LIMIT:])]


def _aside(place: str) -> str:
    folder, name = os.path.split(place)
    suffix = f".damaged-{now():%Y%m%dT%H%M%S.%fZ}"
    return os.path.join(folder, fitting(name, LONGEST - len(suffix)) + suffix)
