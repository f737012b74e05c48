"""A loss of power: what a process wrote below a folder, synced and named there, and what a disk may have of it.

A disk owes only what was synced. Of all that came after the last sync of a file or folder, each write may be there, be
missing, or be torn at the sectors of 512 bytes that a disk writes whole; each name made, moved or removed since may be
as it was before. A sync of a file makes its bytes durable and not its name: POSIX promises no more.
"""

import os
import pickle
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.calls import Watcher, watch

__all__ = ["MODELS", "Record", "left_by", "recorded"]

_SECTOR = 512
_FOLDER = -1

MODELS = ("nothing", "names only", "bytes only", "everything", "some", "in order", "torn", "some names")
"""What a disk has of what was not synced."""


@dataclass(frozen=True)
class Write:
    file: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    file: int
    size: int


@dataclass(frozen=True)
class Sync:
    file: int


@dataclass(frozen=True)
class Names:
    """Names that changed at once: of which file they are now, None where there is none any more."""

    files: dict[str, int | None]


@dataclass(frozen=True)
class SyncNames:
    folder: str


Event = Write | Cut | Sync | Names | SyncNames


@dataclass
class Record:
    """What a folder held, and what happened there. Paths are relative to it, files are numbers."""

    names: dict[str, int] = field(default_factory=dict)
    bytes: dict[int, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    @classmethod
    def read(cls, noted: Path) -> "Record":
        record: Record = pickle.loads(noted.read_bytes())  # noqa: S301 - a process of this test wrote it
        return record


def recorded(folder: str, noted: str, action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function, and write the record of what it did below a folder into the file ``noted``."""
    recorder = _Recorder(folder)
    watch(folder, recorder)
    try:
        action(*arguments)
    finally:
        recorder.look()
        recorder.is_looking = True
        Path(noted).write_bytes(pickle.dumps(recorder.record))


class _Recorder(Watcher):
    """Looks at the folder before each call. The files that SQLite writes are not opened for that, but told of.

    A ``close`` would drop the locks that SQLite has on them.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.record = Record()
        self.is_looking = False
        self._files: dict[int, int] = {}
        self._of_sqlite: set[int] = set()
        self._seen: dict[int, tuple[int, int]] = {}
        self._bytes: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        self.look()
        self.record.names, self.record.bytes = dict(self._names), dict(self._bytes)
        self.record.events.clear()

    def before(self, call: str, path: str) -> int:  # noqa: ARG002 - what will come of it shows at the next look
        self.look()
        return 0

    def opened(self, path: str) -> None:
        self.look()
        if (file := self._named(path)) is not None:
            self._of_sqlite.add(file)

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        if (file := self._named(path)) is not None:
            self.record.events.append(Write(file, offset, data))

    def cut(self, path: str, size: int) -> None:
        if (file := self._named(path)) is not None:
            self.record.events.append(Cut(file, size))

    def synced(self, path: str) -> None:
        file = self._named(path)
        relative = os.path.relpath(path, self.folder)
        if relative == "." or file == _FOLDER:
            self.record.events.append(SyncNames(relative))
        elif file is not None:
            self.record.events.append(Sync(file))

    def _named(self, path: str) -> int | None:
        return self._names.get(os.path.relpath(path, self.folder))

    def look(self) -> None:
        """Record what has changed since the last time."""
        if self.is_looking:
            return
        self.is_looking = True
        try:
            self._look()
        finally:
            self.is_looking = False

    def _look(self) -> None:
        found = dict(self._walk(self.folder))
        inodes = {status.st_ino for status in found.values()}
        self._files = {inode: file for inode, file in self._files.items() if inode in inodes}
        names = {name: self._file(status) for name, status in found.items()}
        changed: dict[str, int | None] = {n: file for n, file in names.items() if self._names.get(n) != file}
        changed |= {name: None for name in self._names if name not in names}
        self._names = names
        if changed:
            self.record.events.append(Names(changed))
        for name, status in found.items():
            if stat.S_ISREG(status.st_mode):
                self._compare(names[name], os.path.join(self.folder, name), status)

    def _walk(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith("-shm"):
                    continue  # no part of what a database holds
                status = entry.stat(follow_symlinks=False)
                yield os.path.relpath(entry.path, self.folder), status
                if stat.S_ISDIR(status.st_mode):
                    yield from self._walk(entry.path)

    def _file(self, status: os.stat_result) -> int:
        if stat.S_ISDIR(status.st_mode):
            return _FOLDER
        if status.st_ino not in self._files:
            self._files[status.st_ino] = len(self._bytes)
            self._bytes[len(self._bytes)] = b""
        return self._files[status.st_ino]

    def _compare(self, file: int, path: str, status: os.stat_result) -> None:
        seen = status.st_size, status.st_mtime_ns
        if file in self._of_sqlite or self._seen.get(file) == seen:
            return
        self._seen[file] = seen
        before, now = self._bytes[file], Path(path).read_bytes()
        self._bytes[file] = now
        if len(now) < len(before):
            self.record.events.append(Cut(file, len(now)))
        self.record.events.append(Write(file, 0, now))


# What is left.


class _Disk:
    """What is durable at a moment, and what is not yet."""

    def __init__(self, record: Record) -> None:
        self.names, self.bytes = dict(record.names), dict(record.bytes)
        self.unnamed: list[Names] = []
        self.unwritten: dict[int, list[Write | Cut]] = {}

    def take(self, event: Event) -> None:
        if isinstance(event, Names):
            self.unnamed.append(event)
        elif isinstance(event, Write | Cut):
            self.unwritten.setdefault(event.file, []).append(event)
        elif isinstance(event, Sync):
            self.bytes[event.file] = self.file(event.file, self.unwritten.pop(event.file, []))
        else:
            durable = [each for each in self.unnamed if event.folder in {_folder_of(name) for name in each.files}]
            self.names = self.named(durable)
            self.unnamed = [each for each in self.unnamed if each not in durable]

    def file(self, file: int, writes: Sequence[Write | Cut]) -> bytes:
        data = bytearray(self.bytes.get(file, b""))
        for each in writes:
            size = each.size if isinstance(each, Cut) else max(len(data), each.offset)
            data = data[:size].ljust(size, b"\0")
            if isinstance(each, Write):
                data[each.offset : each.offset + len(each.data)] = each.data
        return bytes(data)

    def named(self, changes: Sequence[Names]) -> dict[str, int]:
        names: dict[str, int | None] = dict(self.names)
        for each in changes:
            names |= each.files
        return {name: file for name, file in names.items() if file is not None}


def left_by(record: Record, moment: int, model: str, dice: random.Random, folder: Path) -> None:
    """Make a folder as a disk may have it where the power went after so many events of a record."""
    disk = _Disk(record)
    for event in record.events[:moment]:
        disk.take(event)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = disk.named(_kept_names(disk.unnamed, model, dice))
    for name, file in sorted(names.items()):
        if file == _FOLDER:
            with suppress(FileNotFoundError):
                (folder / name).mkdir(mode=0o700)
        elif (folder / name).parent.is_dir():
            content = disk.file(file, list(_kept_writes(disk.unwritten.get(file, []), model, dice)))
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)


def _kept_names(changes: list[Names], model: str, dice: random.Random) -> list[Names]:
    if model in {"nothing", "bytes only"}:
        return []
    if model == "in order":
        return changes[: dice.randint(0, len(changes))]
    if model in {"some", "some names"}:
        return [each for each in changes if dice.random() < dice.random()]
    return changes


def _kept_writes(writes: list[Write | Cut], model: str, dice: random.Random) -> Iterator[Write | Cut]:
    if model in {"nothing", "names only"}:
        return
    if model == "in order":
        writes = writes[: dice.randint(0, len(writes))]
    for each in writes:
        if model == "torn" and isinstance(each, Write):
            yield from _torn(each, dice)
        elif model != "some" or dice.random() < 1 / 2:
            yield each


def _torn(write: Write, dice: random.Random) -> Iterator[Write]:
    start = write.offset - write.offset % _SECTOR
    for sector in range(start, write.offset + len(write.data), _SECTOR):
        first, last = max(sector, write.offset), min(sector + _SECTOR, write.offset + len(write.data))
        if dice.random() < 1 / 2:
            yield Write(write.file, first, write.data[first - write.offset : last - write.offset])


def _folder_of(name: str) -> str:
    return os.path.dirname(name) or "."
