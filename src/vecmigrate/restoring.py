"""Restoring: the live database becomes what a backup holds, after its present state was saved."""

import contextlib
import errno
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from vecmigrate import backups, damaged_bytes, series, soundness, sqlite_files
from vecmigrate.aside import alone_with, exchange, forget_copies, made_way
from vecmigrate.causes import described
from vecmigrate.comparison import same_content
from vecmigrate.diagnosis import is_writable
from vecmigrate.errors import BackupError
from vecmigrate.manifests import Backup
from vecmigrate.restore_errors import RestoreErrors
from vecmigrate.trust import private_place
from vecmigrate.verification import is_damaged

__all__ = ["Carry", "Restored", "restore"]

Carry = Callable[[sqlite3.Connection | None, sqlite3.Connection, Backup | None], None]
"""Called with the old state, the new one and the backup just taken of the old; see ``restore``."""

log = logging.getLogger("vecmigrate")

_T = TypeVar("_T")
_PAGES = 64


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was kept of the old state: a backup, or where the damaged file (or its leftovers) went.

    ``bytes_in`` is where the bytes of a damaged file were saved before that, in the folder of the backups.
    """

    saved: Backup | None
    moved_aside: str | None
    bytes_in: str | None = None


def restore(
    database: str,
    backup: Backup,
    *,
    folder: str,
    database_id: str | None,
    timeout: float,
    carry: Carry | None = None,
    now: datetime | None = None,
) -> Restored:
    """Replace the content of *database* by that of *backup*, in one transaction of SQLite.

    While the live database is locked, its present state is saved as a backup in *folder* and *carry* is
    called with the old state (read-only; None where there is none to read), a private copy of the backup
    inside an open transaction, and the backup just taken; what it writes there arrives together with the
    rest. No commit fits between saving and replacing. The journal mode of a live database stays; beside
    readers only WAL mode can be restored, the wait for others is at most *timeout* seconds.

    A missing database is built beside its place and linked into it, whole or not at all. A damaged one is moved
    aside with its sidecars, once its bytes are saved in *folder*. Raises BackupError
    (the backup is unusable or of another database), LockTimeoutError, DatabaseUnusableError and
    RunFailedError with the database as it was, RestoreFailedError where that is not certain.
    """
    path = os.path.realpath(database)
    backups.prepare_folder(folder)
    # The manifest may know another path: the database was moved since.
    backup = replace(backup, database_path=path)
    restoration = _Restoration(
        path=path, backup=backup, folder=folder, database_id=database_id, timeout=timeout, carry=carry
    )
    return restoration.run(now or datetime.now(UTC))


@dataclass(kw_only=True)
class _Restoration:
    """One restore under way.

    ``work`` is the private copy of the backup; ``saved`` and ``schema_version``, of the old state, are known
    once the database is locked. ``is_handed_over`` from when all is ready for the copy over the live database.
    ``bytes_in`` tells where those of a damaged file are saved.
    """

    path: str
    backup: Backup
    folder: str
    database_id: str | None
    timeout: float
    carry: Carry | None
    work: str = ""
    saved: Backup | None = None
    schema_version: int | None = None
    is_handed_over: bool = False
    bytes_in: str | None = None

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.timeout
        self.told = RestoreErrors(path=self.path, backup=self.backup, folder=self.folder, timeout=self.timeout)

    def run(self, now: datetime) -> Restored:
        try:
            while True:
                # What was verified is opened again by its name, which nobody else may give to another file.
                with self._scratch(private_place(self.folder, str(Path(self.path).parent))) as self.work:
                    try:
                        return self._attempt(now)
                    except (sqlite3.Error, OSError, BackupError) as error:
                        if self._has_arrived(error):
                            return Restored(saved=self.saved, moved_aside=None)
                        if not self._lost_its_copy(error):
                            raise
        except (sqlite3.Error, OSError) as error:
            raise self.told.outcome(error, saved=self.saved, schema_version=self.schema_version) from error

    def _has_arrived(self, error: Exception) -> bool:
        """Tell whether all of the new state is in the database, though the last step of writing it said otherwise."""
        if self.schema_version is None or not self.is_handed_over:
            return False
        try:
            with contextlib.closing(self._connect()) as live:
                has_arrived = same_content(self.work, live, ignored=frozenset())
        except (sqlite3.Error, OSError):
            return False
        if has_arrived:
            log.warning("%s is restored. What came after that failed: %s", self.path, described(error))
        return has_arrived

    def _scratch(self, folder: str) -> contextlib.AbstractContextManager[str]:
        return backups.scratch(folder, self.backup.database_id, self.path)

    def _lost_its_copy(self, error: Exception) -> bool:
        """Tell whether another run took a private copy for that of a killed one, or was first to make the database.

        Where there is time, the restore begins anew.
        Whoever holds the lock removes temporary files, so this ends once the lock is ours.
        """
        is_gone = isinstance(error, FileNotFoundError | FileExistsError) or not os.path.lexists(self.work)
        return self.saved is None and is_gone and time.monotonic() < self.deadline

    def _attempt(self, now: datetime) -> Restored:
        # Before the room for so many bytes: a manifest may say anything.
        backups.check_size(self.backup)
        backups.check_room(str(Path(self.work).parent), self.backup.bytes, database=self.path)
        backups.copy_verified(self.backup, self.work)
        moved_aside = self._create(now) if self._is_absent() else self._replace_or_exchange(now)
        return Restored(saved=self.saved, moved_aside=moved_aside, bytes_in=self.bytes_in)

    def _is_absent(self) -> bool:
        """Tell whether there is no file, or an empty one. Raises DatabaseUnusableError for what cannot be written."""
        try:
            status = Path(self.path).stat()
        except FileNotFoundError:
            return True
        if not stat.S_ISREG(status.st_mode):
            raise self.told.unusable("it is not a file")
        if not is_writable(self.path):
            # SQLite would open it all the same, and give a WAL database sidecars that stay read-only.
            raise self.told.unusable("it is read-only, or in a read-only folder")
        return status.st_size == 0

    def _create(self, now: datetime) -> str | None:
        """Make a missing database, whole or not at all, or fill an empty file; return where stale sidecars went."""
        with made_way(self.path, now) as moved_aside:
            if os.path.lexists(self.path):
                self._replace()
                return moved_aside
            with self._completed() as copy:
                if not sqlite_files.rename_to_new(copy, self.path):
                    raise FileExistsError(errno.EEXIST, "another program has made it meanwhile", self.path)
            self._clean()
        return moved_aside

    def _replace_or_exchange(self, now: datetime) -> str | None:
        if self._is_damaged():
            return self._exchange(now)
        self._replace()
        return None

    def _is_damaged(self) -> bool:
        # SQLite only reads a file whose header names an unknown format, and calls it no damage.
        return soundness.has_spoiled_format(self.path) or is_damaged(self.path, self.deadline)

    @contextlib.contextmanager
    def _completed(self) -> Iterator[str]:
        """Give a file beside the database that is all that the database is to be."""
        folder = str(Path(self.path).parent)
        backups.check_room(folder, self.backup.bytes, database=self.path)
        if self.carry:
            self._carry_over(self.carry, None)
        with self._scratch(folder) as copy:
            with contextlib.closing(sqlite_files.connect(self.work)) as work:
                sqlite_files.copy_pages(work, copy, deadline=self.deadline)
            if self.backup.journal_mode == "wal":
                sqlite_files.set_wal(copy)
            sqlite_files.sync(copy)
            yield copy

    def _clean(self) -> None:
        """Remove what killed runs left; call it where those that are alive notice that theirs is gone."""
        for folder in (self.folder, str(Path(self.path).parent)):
            backups.clean_temporary(folder, self.path, but=self.work)

    def _connect(self) -> sqlite3.Connection:
        return sqlite_files.connect(self.path)

    def _patiently(self, action: Callable[[], _T]) -> _T:
        return sqlite_files.patiently(action, self.deadline)

    def _exchange(self, now: datetime) -> str | None:
        """Put a complete copy in the place of a damaged file, whose bytes are saved; return where that one went."""
        with alone_with(self.path, self.deadline) as is_still_there:
            if is_still_there and self._is_damaged():
                self._clean()
                forget_copies(self.path)
                self.bytes_in = self.bytes_in or damaged_bytes.save(self.path, self.folder, self.backup.database_id)
                with self._completed() as copy:
                    return exchange(copy, self.path, now)
        # Another restore has mended it meanwhile.
        self._replace()
        return None

    def _replace(self) -> None:
        with contextlib.closing(self._connect()) as live:
            # Else the name of a removed journal may outlive a loss of power, and roll back what was restored.
            self._patiently(lambda: live.execute("PRAGMA synchronous = EXTRA"))
            is_wal = self._patiently(lambda: sqlite_files.pragma(live, "journal_mode")) == "wal"
            self._check_room(self._patiently(lambda: sqlite_files.content_size(live)), is_wal=is_wal)
            if is_wal:
                with self._scratch(str(Path(self.work).parent)) as fitting:
                    sqlite_files.fit_to_wal(self.work, fitting, page_size=sqlite_files.pragma(live, "page_size"))
            with contextlib.closing(sqlite_files.connect(self.work)) as work:
                if is_wal:
                    self._copy_beside_readers(work, live)
                else:
                    self._copy_alone(work, live)
        if self.schema_version is None and self.backup.journal_mode == "wal":
            # A database made anew has the journal mode of the lost one; its content is complete without.
            with contextlib.suppress(sqlite3.Error):
                sqlite_files.set_wal(self.path)

    def _check_room(self, live_size: int, *, is_wal: bool) -> None:
        # The new content goes through the WAL, the old one through the rollback journal.
        growth = max(0, self.backup.bytes - live_size)
        needed = growth + (self.backup.bytes if is_wal else live_size)
        backups.check_room(str(Path(self.path).parent), needed, database=self.path)

    def _copy_alone(self, work: sqlite3.Connection, live: sqlite3.Connection) -> None:
        """In rollback-journal mode nobody may read meanwhile; the connection keeps its lock until closed."""
        self._patiently(lambda: live.execute("BEGIN EXCLUSIVE"))
        # Granted also where SQLite may not write: what writes nothing new tells, before anything is saved.
        live.execute(f"PRAGMA user_version={sqlite_files.pragma(live, 'user_version')}")
        # Not before: an attempt in vain would keep a shared lock, and with it everybody from committing.
        live.execute("PRAGMA locking_mode=EXCLUSIVE").fetchone()
        # Not COMMIT: in an empty file it would write a first page.
        live.execute("ROLLBACK")
        self._hand_over(live)
        with sqlite_files.telling("restore", work, self.path, self.deadline) as tell:
            work.backup(live, pages=_PAGES, progress=tell, sleep=sqlite_files.POLL_SECONDS)

    def _copy_beside_readers(self, work: sqlite3.Connection, live: sqlite3.Connection) -> None:
        """In WAL mode the first step takes the write lock, under which others still read the old state."""
        is_locked = False

        def progress(status: int, remaining: int, total: int) -> None:
            nonlocal is_locked
            tell(status, remaining, total)
            if status == sqlite3.SQLITE_OK and not is_locked:
                is_locked = True
                with contextlib.closing(self._connect()) as reader:
                    self._hand_over(reader)

        pages = min(_PAGES, int(sqlite_files.pragma(work, "page_count")) - 1)
        with sqlite_files.telling("restore", work, self.path, self.deadline) as tell:
            work.backup(live, pages=pages, progress=progress, sleep=sqlite_files.POLL_SECONDS)
        with contextlib.suppress(sqlite3.Error):
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _hand_over(self, live: sqlite3.Connection) -> None:
        """Save the present state and carry over what has to survive, while the live database is locked."""
        if not os.path.lexists(self.work):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.work)
        self._clean()
        old = live if sqlite_files.content_size(live) else None
        if old:
            inside = sqlite_files.identity(old)
            self.told.refuse_foreign(inside.database_id)
            self.schema_version = int(sqlite_files.pragma(old, "schema_version"))
            self.saved = self._save(old, inside)
        if self.carry:
            self._carry_over(self.carry, old)
        self.is_handed_over = True

    def _save(self, old: sqlite3.Connection, inside: sqlite_files.Identity) -> Backup:
        """Back the present state up; after a restore that failed, its backup of the same state serves again."""
        database_id = inside.database_id or self.database_id or self.backup.database_id
        known = None
        if sqlite_files.last_status(old) not in {None, "success"}:
            known = backups.reusable(
                self.folder, old, revision=inside.revision, database_id=database_id, database_path=self.path
            )
        return known or self._save_anew(old, inside, database_id)

    def _save_anew(self, old: sqlite3.Connection, inside: sqlite_files.Identity, database_id: str) -> Backup:
        saved = backups.create(
            self.path,
            self.folder,
            database_id=database_id,
            revision=inside.revision,
            app_version=inside.app_version,
            reason="pre-restore",
            timeout=self.timeout,
            source=old,
        )
        series.thin(self.folder, old, saved)
        return saved

    def _carry_over(self, carry: Carry, old: sqlite3.Connection | None) -> None:
        # On a connection of its own: the copying one notices the change, and begins anew under its lock.
        with contextlib.closing(sqlite_files.connect(self.work)) as new:
            new.execute("PRAGMA synchronous=OFF")
            new.execute("BEGIN IMMEDIATE")
            if old:
                old.execute("PRAGMA query_only=ON")
            carry(old, new, self.saved)
            if old:
                old.execute("PRAGMA query_only=OFF")
            new.execute("COMMIT")
