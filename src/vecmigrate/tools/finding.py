"""What doctor finds, and what it asks of: one database with what is known of it."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property

from alembic.script import ScriptDirectory

from vecmigrate import manifests
from vecmigrate.access import alembic_config
from vecmigrate.errors import NeedsPersonError, VecmigrateError
from vecmigrate.history import Attempt
from vecmigrate.overview import Overview
from vecmigrate.revisions import Revisions

__all__ = ["ERROR", "NOTE", "WARNING", "Finding", "Findings", "Subject", "of_error"]

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. ``next`` is the command that mends it, or in words what somebody has to do.

    ``severity`` is error (something is lost, refused or wrong), warning (it may become so) or note. It names rows by
    table, rowid and column, and never tells what is in them. ``times`` are those that the message names, in UTC.
    """

    code: str
    severity: str
    message: str
    next: str
    needs_person: bool = False
    times: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if name not in {"needs_person", "times"}}


Findings = Iterator[Finding]


def of_error(code: str, error: VecmigrateError) -> Finding:
    """Return as a finding what an operation would be refused for."""
    is_for_person = isinstance(error, NeedsPersonError)
    return Finding(code, ERROR, error.message, error.next_step, needs_person=is_for_person)


@dataclass(frozen=True)
class Subject:
    """The database that is looked at, and what was read of it before.

    ``deep`` asks for what takes long too. ``is_known`` tells that its revision was read and is one of ours; only then
    ``revision`` says something, None being base.
    """

    access: Overview
    known: Revisions
    deep: bool = False
    is_known: bool = False
    revision: str | None = None
    attempts: tuple[Attempt, ...] = field(default=())

    QUICK_BYTES = 64 << 20
    """So many bytes are read in a fraction of a second, also without ``deep``."""

    @property
    def path(self) -> str | None:
        """The SQLite file, None for a server and for a database in memory."""
        return self.access.database.path

    @property
    def folder(self) -> str:
        """The backup folder of the SQLite file."""
        return self.access.backup_folder()

    @property
    def is_folder_hidden(self) -> bool:
        """Tell whether the backup folder is beside a database whose folder lets nobody look into it."""
        beside = os.path.dirname(self.path or "")
        is_inside = bool(beside) and self.folder.startswith(os.path.join(beside, ""))
        return is_inside and os.path.isdir(beside) and not os.access(beside, os.X_OK)

    @property
    def bytes(self) -> int:
        """The size of the SQLite file with its WAL, 0 where there is none."""
        places = [self.path, f"{self.path}-wal"] if self.path else []
        return sum(os.path.getsize(place) for place in places if place and os.path.exists(place))

    def may_read(self, size: int) -> bool:
        """Tell whether so many bytes may be read whole."""
        return self.deep or size <= self.QUICK_BYTES

    def command(self, *words: str) -> str:
        """Return the command line of vecmigrate on this database."""
        if self.path is None:
            return " ".join(["vecmigrate", self.access.database.option, *words])
        return manifests.command(self.path, *words)

    @cached_property
    def backups(self) -> list[manifests.Backup]:
        """The backups of this database, newest first. Raises BackupError where the folder cannot be read."""
        return self.access.list_backups() if self.path else []

    @cached_property
    def script(self) -> ScriptDirectory:
        return ScriptDirectory.from_config(alembic_config(self.access.settings))

    @property
    def last_change(self) -> Attempt | None:
        """The newest attempt that changed the database."""
        return next((each for each in reversed(self.attempts) if each.status == "success"), None)
