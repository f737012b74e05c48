"""The third door: a service makes sure on boot that its database is current.

This module and what it imports at its top stay as light as ``sqlite3`` itself, because a database at head
is the case of nearly every start. Everything else is imported where there is something to do.
"""

import os
import sqlite3
import time

from vecmigrate.forks import gate
from vecmigrate.scripts_folder import newest_revision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

    from vecmigrate.errors import VecmigrateError
    from vecmigrate.progress import Listener

__all__ = ["BootReport", "ensure_current"]

_PREFIXES = ("sqlite:///", "sqlite+pysqlite:///", "sqlite+aiosqlite:///")
_BUSY_SECONDS = 0.25
_QUERY = "SELECT version_num FROM vecmigrate_version"


class BootReport:
    """What ``ensure_current`` found and did. Immutable.

    ``state`` is one of:

    - ``current``: at head already, nothing was done
    - ``migrated``: upgraded now
    - ``waited``: another process upgraded it meanwhile
    - ``ahead_compatible``: written by a newer app version, which this one may use
    - ``ahead_incompatible``: written by a newer app version, which this one must not use
    - ``locked``: another process held it for longer than ``lock_timeout``
    - ``failed``: see ``error``; the database is as it was

    ``before`` and ``after`` are revisions, None for base or where it could not be read. ``backup`` is the
    path of the backup or None, ``duration_seconds`` a float, ``error`` a VecmigrateError or None, ``notes``
    lines for a person.
    """

    __slots__ = ("after", "backup", "before", "duration_seconds", "error", "notes", "state")

    state: str
    before: "str | None"
    after: "str | None"
    backup: "str | None"
    duration_seconds: float
    error: "VecmigrateError | None"
    notes: "tuple[str, ...]"

    def __init__(
        self,
        *,
        state: str,
        before: "str | None" = None,
        after: "str | None" = None,
        backup: "str | None" = None,
        duration_seconds: float = 0.0,
        error: "VecmigrateError | None" = None,
        notes: "tuple[str, ...]" = (),
    ) -> None:
        values = (after, backup, before, duration_seconds, error, notes, state)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a BootReport is immutable: {name}")

    def __repr__(self) -> str:
        return f"BootReport({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    @property
    def usable(self) -> bool:
        """Tell whether this version of the application may use the database."""
        return self.state in {"current", "migrated", "waited", "ahead_compatible"}


def ensure_current(
    url: "str | os.PathLike[str] | URL | Engine | Connection | None" = None,
    *,
    on_failure: str = "warn",
    lock_timeout: float = 30.0,
    app_version: "str | None" = None,
    on_progress: "Listener | None" = None,
) -> BootReport:
    """Bring a service's database to head, and say how that went.

    Call it before the first request, on every start, from as many processes as there are. At head it
    opens the file, reads one row, and writes nothing. Otherwise it runs ``upgrade`` with its lock, backup
    and history. ``lock_timeout`` is in seconds, ``app_version`` the version of the calling application (by
    default the newest one known here) for the question whether it may use a newer database; one that is no version
    number (PEP 440) is an error at every start.

    ``url`` may also be a path object, in which no character has a meaning of its own as ``?`` has in a URL, an Engine
    or a Connection. Of one on a file only the URL is used; one on memory is migrated itself, without a backup, while
    it has no transaction open. Of an asynchronous engine on memory it takes a connection:
    ``await connection.run_sync(vecmigrate.ensure_current)``.

    ``on_progress`` is called with a Progress while there is something to do: see ``upgrade``.

    With ``on_failure="warn"`` failures are logged and reported, never raised; with ``"raise"`` a
    VecmigrateError is raised whenever the database may not be used. Blocks: from an event loop call it
    by ``asyncio.to_thread``.
    """
    if on_failure not in {"warn", "raise"}:
        raise ValueError(f"on_failure must be 'warn' or 'raise', not {on_failure!r}")
    began = time.perf_counter()
    head = None
    if (app_version is None or _is_version(app_version)) and not gate.is_torn:
        with gate:
            head = _revision_if_current(url, lock_timeout)
    if head is not None:
        return BootReport(state="current", before=head, after=head, duration_seconds=time.perf_counter() - began)
    from vecmigrate.booting import boot  # noqa: PLC0415 - heavy, and only needed where there is work

    raises = on_failure == "raise"
    return boot(url, raises=raises, lock_timeout=lock_timeout, app_version=app_version, on_progress=on_progress)


def _is_version(app_version: str) -> bool:
    """Tell whether the version of the application can be compared, of the usual ones without an import."""
    if isinstance(app_version, str) and app_version.replace(".", "").isdecimal():
        return True
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415 - only for what is not digits and dots

    try:
        Version(app_version)
    except (InvalidVersion, TypeError):
        return False
    return True


def _revision_if_current(url: object, lock_timeout: float) -> "str | None":
    """Return the head if an SQLite file is known to be there, else None. Read-only."""
    path = _plain_path(url)
    if path is None:
        return None
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    try:
        if not os.path.getsize(path):
            return None  # To open an empty file deletes a WAL beside it.
        head, timeout = newest_revision(), min(lock_timeout, _BUSY_SECONDS)
        # Unlike mode=ro, mode=rw leaves no sidecars of a WAL database behind. It does not create the file.
        connection = sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, timeout=timeout, isolation_level=None)
        try:
            rows = connection.execute(_QUERY).fetchmany(2)
        finally:
            connection.close()
    except (sqlite3.Error, OSError, TypeError, ValueError):
        return None  # The long way finds out why, and says it well.
    return head if rows == [(head,)] else None


def _plain_path(url: object) -> "str | None":
    """Return the path of the file that is named where it is plain to see, else None."""
    if url is None:
        url = os.environ.get("VECMIGRATE_DATABASE_URL")
    if isinstance(url, str):
        prefix = next((each for each in _PREFIXES if url.startswith(each)), None)
        path = url[len(prefix) :].partition("?")[0] if prefix else ""
        if "%" in path or min(url, default=" ") < " " or "\x7f" in url:
            return None  # Versions of SQLAlchemy differ in what the first means; the second is looked at more closely.
    elif isinstance(url, os.PathLike):
        path = os.fsdecode(url)
    else:
        url = getattr(url, "engine", url)  # a Connection's
        url = getattr(url, "url", url)  # an Engine's
        if getattr(url, "drivername", "").partition("+")[0] != "sqlite":
            return None
        path = getattr(url, "database", None) or ""
    return path if path and not path.startswith(("file:", ":memory:")) else None
