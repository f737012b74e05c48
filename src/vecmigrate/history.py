"""The table of every attempt, and the markers of runs that have begun."""

import contextlib
import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, inspect, select

from vecmigrate import file_rights, meta, sqlite_files
from vecmigrate.catalog import any_text, as_text
from vecmigrate.names import LONGEST, fitting
from vecmigrate.schema import HISTORY, META

__all__ = [
    "Attempt",
    "Marker",
    "add",
    "as_row",
    "clean_temporary",
    "clear",
    "drop_run",
    "has_history",
    "ids",
    "markers",
    "now",
    "read",
    "remove",
    "run_ids",
    "temporary",
    "temporary_name",
    "write_file",
]

_LARGEST = 1 << 24
"""No marker has more bytes than this."""

_IDS = "migration_ids"
"""The key of the ids of all attempts there ever were."""

_NEWEST = 1000
"""Whoever asks which runs are known asks for one that ended just now."""

_ROOM = LONGEST - len("..") - 32 - len(".tmp")
"""So many bytes are left of a temporary name, whose token has 32."""

_ROOM_OF_MARKER = _ROOM - len(".run-") - 32 - len(".json")


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Attempt:
    """One attempt at one revision, with the fields of mcp-vector-search's registry.

    ``status`` is success, failed, skipped, pending, running or interrupted, ``executed_at`` ISO 8601 in
    UTC or empty where it is not known, ``direction`` upgrade, downgrade, stamp, restore or adopt.
    """

    migration_id: str
    revision: str | None
    version: str | None
    name: str
    direction: str
    status: str
    message: str
    executed_at: str
    duration_seconds: float
    metadata: dict[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """Return the attempt as the history is told, with the status of the table."""
        values = asdict(self)
        # A registry that was taken over may not know when.
        values["executed_at"] = self.executed_at or None
        named = {"revision": values.pop("revision"), "direction": values.pop("direction")}
        # Before and after: first in order, and never what somebody's metadata say they are.
        values["metadata"] = named | self.metadata | named
        return values


_TEXTS = ("migration_id", "name", "direction", "status", "message", "executed_at")


def has_history(connection: Connection) -> bool:
    return inspect(connection).has_table(HISTORY.name)


def as_row(attempt: Attempt) -> dict[str, Any]:
    """Return the row of the table."""
    return asdict(attempt) | {"metadata": json.dumps(attempt.metadata)}


def add(connection: Connection, attempts: Iterable[Attempt]) -> None:
    """Record attempts in the caller's transaction."""
    rows = [as_row(attempt) for attempt in attempts]
    if rows:
        connection.execute(insert(HISTORY), rows)
        _remember(connection, {row["migration_id"] for row in rows})


def _remember(connection: Connection, new: set[str]) -> None:
    if not new <= (known := _remembered(connection)):
        meta.write(connection, {_IDS: json.dumps(sorted(known | new))})


def _remembered(connection: Connection) -> set[str]:
    try:
        return set(map(str, json.loads(meta.read(connection).get(_IDS, "[]"))))
    except (TypeError, ValueError, RecursionError):
        return set()


def drop_run(connection: Connection, run_id: str) -> None:
    """Take back that a run died: it is alive, and about to record its own end."""
    query = select(HISTORY).where(HISTORY.c.status == "interrupted")
    for row in _rows(connection, query) if has_history(connection) else []:
        if _attempt(row._mapping).metadata.get("run_id") == run_id:  # noqa: SLF001
            connection.execute(delete(HISTORY).where(HISTORY.c.id == row.id))


def run_ids(connection: Connection) -> set[str]:
    """Return the runs that the newest attempts belong to. Read-only."""
    return {str(attempt.metadata.get("run_id")) for attempt in read(connection, limit=_NEWEST)}


def ids(connection: Connection) -> set[str]:
    """Return the ids of all attempts that are in the table or ever were. Read-only."""
    if not has_history(connection):
        return set()
    rows = _rows(connection, select(HISTORY.c.migration_id).distinct())
    return {as_text(row.migration_id) for row in rows} | _remembered(connection)


def clear(connection: Connection) -> int:
    """Forget every attempt but its id, in the caller's transaction; return how many there were.

    The mirror may not be writable just then, and what stands in it must not be taken for somebody else's ever after.
    """
    if not has_history(connection):
        return 0
    META.create(connection, checkfirst=True)
    _remember(connection, ids(connection))
    return connection.execute(delete(HISTORY)).rowcount


def read(connection: Connection, *, limit: int | None = None, after: int = 0) -> list[Attempt]:
    """Return the newest attempts, oldest first. Read-only; an absent table is an empty history."""
    if not has_history(connection):
        return []
    query = select(HISTORY).where(HISTORY.c.id > after).order_by(HISTORY.c.id.desc()).limit(limit)
    return [_attempt(row._mapping) for row in reversed(_rows(connection, query))]  # noqa: SLF001


def _rows(connection: Connection, query: Select[Any]) -> Sequence[Row[Any]]:
    with any_text(connection):
        return connection.execute(query).all()


def _attempt(row: Any) -> Attempt:
    """Return the attempt of a row, which in SQLite may hold values of any type."""
    values: dict[str, Any] = {name: as_text(row[name]) for name in _TEXTS}
    values |= {name: None if row[name] is None else as_text(row[name]) for name in ("revision", "version")}
    duration, metadata = _number(row["duration_seconds"]), _metadata(row["metadata"])
    return Attempt(**values, duration_seconds=duration, metadata=metadata)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _metadata(value: Any) -> dict[str, Any]:
    try:
        # NaN, which Python alone takes for JSON, becomes a text.
        metadata = json.loads(value, parse_constant=str)
    except (TypeError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _read_small(path: str) -> str:
    status = os.stat(path)
    _require_file(status, path)
    if status.st_size > _LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    with open(path, encoding="utf-8") as file:
        return file.read()


def _require_file(status: os.stat_result, path: str) -> None:
    """Raise OSError for what is no regular file: a pipe would never end."""
    if not stat.S_ISREG(status.st_mode):
        raise FileExistsError(errno.EEXIST, "what has that name is no regular file", path)


def write_file(path: str, text: str, *, token: str) -> None:
    """Write a file under a temporary name, sync it, and rename it; only its owner may read it.

    ``token`` is part of the temporary name, so that whoever finds it knows whose it was. A link is replaced, and not
    followed.
    """
    temporary = temporary_name(path, token)
    # Whoever knows the token could have put a link there, which would be followed.
    remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Half a surrogate pair is no UTF-8, but may be written as the escape of JSON that it came from.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            if os.name != "nt":
                file_rights.keep_private(file.fileno(), 0o600, path=path)
                file_rights.belong_to_folder(file.fileno(), path)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sqlite_files.sync_folder(os.path.dirname(os.path.realpath(path)))


def temporary_name(path: str, token: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), f".{fitting(name, _ROOM)}.{token}.tmp")


def clean_temporary(path: str) -> None:
    """Remove what killed writers of a file left beside it."""
    with contextlib.suppress(OSError):
        for each in temporary(path):
            remove(each)


def temporary(path: str) -> list[str]:
    """Return what writers of a file have beside it, or have left there. Read-only; raises OSError."""
    folder, name = os.path.split(path)
    pattern = re.compile(rf"\.{re.escape(fitting(name, _ROOM))}\.[0-9a-f-]{{32,36}}\.tmp")
    return [os.path.join(folder, entry) for entry in sorted(os.listdir(folder or ".")) if pattern.fullmatch(entry)]


def remove(path: str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@dataclass(frozen=True)
class Marker:
    """A run that has begun on an SQLite file: written under the write lock, removed after the commit.

    The name of its file holds the run's id, so that a run removes only its own. ``message`` is how the run ended, where
    it could tell that and not record it. Anybody may put such a file there, so it never tells of more than an
    interruption.
    """

    run_id: str
    database_id: str
    started_at: str
    direction: str
    steps: list[dict[str, Any]]
    backup: str | None
    message: str | None = None

    def write(self, database: str) -> None:
        write_file(_marker_path(database, self.run_id), json.dumps(asdict(self)), token=self.run_id)

    def remove(self, database: str) -> None:
        remove(_marker_path(database, self.run_id))
        remove(temporary_name(_marker_path(database, self.run_id), self.run_id))


def _marker_path(database: str, run_id: str) -> str:
    folder, name = os.path.split(database)
    return os.path.join(folder, f"{fitting(name, _ROOM_OF_MARKER)}.run-{run_id}.json")


def markers(database: str) -> list[Marker]:
    """Return the markers beside a database, half-written ones too, oldest first. Read-only."""
    folder, name = os.path.split(database)
    if not os.path.isdir(folder):
        return []
    pattern = re.compile(rf"\.?{re.escape(fitting(name, _ROOM_OF_MARKER))}\.run-([0-9a-f]{{32}})\.json(\.\1\.tmp)?")
    with os.scandir(folder) as entries:
        runs = {match[1] for each in entries if (match := pattern.fullmatch(each.name)) and each.is_file()}
    return sorted((_marker(database, run_id) for run_id in runs), key=lambda marker: marker.started_at)


def _marker(database: str, run_id: str) -> Marker:
    try:
        marker: Marker | None = Marker(**json.loads(_read_small(_marker_path(database, run_id))))
    except (OSError, ValueError, TypeError, RecursionError):
        marker = None
    if marker is None or not _is_whole(marker):
        # One that was being written when its process died: nothing had been changed by then.
        return Marker(run_id=run_id, database_id="", started_at="", direction="upgrade", steps=[], backup=None)
    return replace(marker, run_id=run_id)


def _is_whole(marker: Marker) -> bool:
    """Tell whether a marker holds what a record is made of; anybody can put a file there."""
    optional = (marker.backup or "", marker.message or "")
    texts = (marker.database_id, marker.started_at, marker.direction, *optional)
    is_list = isinstance(marker.steps, list)
    return is_list and all(isinstance(text, str) for text in texts) and all(map(_is_step, marker.steps))


def _is_step(step: object) -> bool:
    if not isinstance(step, dict):
        return False
    texts = all(isinstance(step.get(name), str) for name in ("migration_id", "name", "direction"))
    return texts and all(isinstance(step.get(name), str | None) for name in ("revision", "version"))
