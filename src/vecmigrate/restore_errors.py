"""What is said of a restore that fails, after a look at the database."""

import contextlib
import errno
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from vecmigrate import errors, soundness, sqlite_files
from vecmigrate.causes import described
from vecmigrate.diagnosis import diagnosed, unwritable
from vecmigrate.manifests import Backup, aside_step, command
from vecmigrate.shell import quoted

__all__ = ["RestoreErrors"]


@dataclass(frozen=True, kw_only=True)
class RestoreErrors:
    """The errors of one restore of *backup* to *path*, whose present state is saved in *folder*."""

    path: str
    backup: Backup
    folder: str
    timeout: float

    def outcome(
        self, error: sqlite3.Error | OSError, *, saved: Backup | None, schema_version: int | None
    ) -> errors.VecmigrateError:
        """Return the error for what SQLite or the system said; *schema_version* is that of the old state, if known."""
        if sqlite_files.is_busy(error) or isinstance(error, BlockingIOError):
            return errors.LockTimeoutError(
                f"{self.path} is in use: somebody kept reading or writing it for more than {self.timeout:g} "
                "seconds. Nothing was changed.",
                next_step="stop the programs that use it, then: " + self._again(),
            )
        if isinstance(error, OSError) and error.errno == errno.EBUSY:
            return self._mounted(described(error))
        if schema_version is None and isinstance(error, OSError):
            return self.unusable(described(error), place=error.filename)
        if schema_version is None:
            return diagnosed(error, path=self.path, shown=self.path, option=f"--db-path {quoted(self.path)}")
        saved_in = saved.path if saved else None
        if self._is_as_before(schema_version):
            return errors.RunFailedError(
                f"Restoring {self.path} failed: {described(error)}. The database is as it was.",
                next_step="mend the cause, then: " + self._again(),
                backup=saved_in,
            )
        return errors.RestoreFailedError(
            f"Restoring {self.path} failed half-way: {described(error)}. Its state before is saved in {saved_in}.",
            next_step="stop the programs that use it, then: " + self._again(),
            backup=saved_in,
        )

    def _is_as_before(self, schema_version: int) -> bool:
        try:
            with contextlib.closing(sqlite_files.connect(self.path)) as live:
                is_same = sqlite_files.pragma(live, "schema_version") == schema_version
                return is_same and not soundness.problems(live)
        except sqlite3.Error:
            return False

    def unusable(self, reason: str, *, place: str | None = None) -> errors.DatabaseUnusableError:
        """Return the error for a file or folder that the system keeps from us, before anything was changed."""
        is_in_folder = place is not None and Path(place).parent == Path(self.folder).absolute()
        what = self.folder if is_in_folder else unwritable(self.path)
        return errors.DatabaseUnusableError(
            f"{self.path} cannot be restored: {reason}. Nothing was changed.",
            next_step=f"make {what} readable and writable, then: {self._again()}",
        )

    def _mounted(self, reason: str) -> errors.DatabaseUnusableError:
        return errors.DatabaseUnusableError(
            f"{self.path} is damaged, and cannot be exchanged: it is a mount point of its own, as a file is that "
            f"was mounted into a container ({reason}). Nothing was changed.",
            next_step=f"mount its folder instead of the file, or go where the file really is, then: {self._again()}",
        )

    def refuse_foreign(self, database_id: str | None) -> None:
        """Raise BackupError where the database says that it is another one than the backup is of."""
        if database_id not in {None, self.backup.database_id}:
            raise errors.BackupError(
                f"{self.backup.name} is a backup of another database than {self.path}. Nothing was changed.",
                next_step=aside_step(self.path, "restore", self.backup.name),
            )

    def _again(self) -> str:
        return command(self.path, "restore", self.backup.name)
