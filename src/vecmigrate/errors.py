"""The one family of errors, each with its exit code and the command to run next."""

from vecmigrate.redaction import redacted

__all__ = [
    "AdoptionError",
    "AheadError",
    "BackupError",
    "ConfigurationError",
    "DatabaseUnusableError",
    "EmbedderError",
    "InterruptedRunError",
    "LockTimeoutError",
    "ModelError",
    "NeedsPersonError",
    "NotOursError",
    "PrecheckError",
    "RestoreFailedError",
    "RunFailedError",
    "TargetError",
    "VecmigrateError",
    "WouldLoseRowsError",
]


class VecmigrateError(Exception):
    """Something the user can act on.

    ``message`` says what happened and what state the data is in, ``next_step`` the command to run or the
    thing to do now, ``backup`` is the absolute path of the backup taken before, if one was, ``revision`` the
    one the database is at, None for base or where it could not be read. No field ever holds a password or
    the contents of a row.
    """

    exit_code = 1

    def __init__(self, message: str, *, next_step: str, backup: "str | None" = None) -> None:
        message = redacted(message)
        super().__init__(message)
        self.message = message
        self.next_step = redacted(next_step)
        self.backup = backup
        self.revision: str | None = None

    def as_dict(self) -> "dict[str, str | int | None]":
        """Return what is told of it as JSON."""
        return {
            "exit_code": self.exit_code,
            "type": type(self).__name__,
            "message": self.message,
            "backup": self.backup,
            "next": self.next_step,
        }

    def __str__(self) -> str:
        lines = [self.message]
        if self.backup:
            lines.append(f"Backup: {self.backup}")
        lines.append(f"Next: {self.next_step}")
        return "\n".join(lines)


class ConfigurationError(VecmigrateError):
    """A setting, the configuration file or the app-version map is missing or malformed."""


class AdoptionError(VecmigrateError):
    """The folder of another tool cannot be taken over, or only with what somebody has to tell first."""


class TargetError(VecmigrateError):
    """The wanted revision or app version does not exist, or lies in the other direction."""


class DatabaseUnusableError(VecmigrateError):
    """The database cannot be opened: absent, damaged, not a database, or not ours to read or write.

    ``is_denied`` tells that the rights on the file or its folder are the cause.
    """

    is_denied = False


class BackupError(VecmigrateError):
    """A backup could not be made, found or verified."""


class EmbedderError(VecmigrateError):
    """What turns texts into vectors cannot be had, or what it returns cannot be the vectors of the model."""


class ModelError(VecmigrateError):
    """An embedding model is not in the state that is needed, or was changed by somebody else meanwhile."""


class LockTimeoutError(VecmigrateError):
    """Another process held the database for longer than ``lock_timeout``."""

    exit_code = 4


class RunFailedError(VecmigrateError):
    """A revision failed; the database is as it was before the run."""

    exit_code = 5


class PrecheckError(RunFailedError):
    """A revision that would run found in the database what it cannot run on; nothing was changed."""


class InterruptedRunError(VecmigrateError):
    """A signal ended the run; the database is as it was before it."""

    exit_code = 130


class NeedsPersonError(VecmigrateError):
    """The run stopped where going on needs somebody's decision."""

    exit_code = 6


class AheadError(NeedsPersonError):
    """The database is at a revision of a newer version; ``compatible`` tells whether this one may use it."""

    def __init__(
        self,
        message: str,
        *,
        next_step: str,
        revision: str,
        app_version: "str | None",
        compatible: bool,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.revision = revision
        self.app_version = app_version
        self.compatible = compatible


class NotOursError(NeedsPersonError):
    """Something in the database has a name of ours and is not ours, or hangs on what would be replaced."""


class WouldLoseRowsError(NeedsPersonError):
    """A way down would drop rows that nothing keeps."""


class RestoreFailedError(NeedsPersonError):
    """A restore stopped half-way; the message says where the saved state is."""
