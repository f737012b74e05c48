"""How runs ended: the record of those whose process died, and the mirror."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from vecmigrate import backups, bystanders, history, meta
from vecmigrate.engine import Database, reading, translated, writing
from vecmigrate.errors import ConfigurationError, DatabaseUnusableError, VecmigrateError
from vecmigrate.mirror import LIMIT, Mirror, NoMirrorError
from vecmigrate.run_end import only_told
from vecmigrate.schema import HISTORY, META, tool_metadata
from vecmigrate.scratch_files import temporary
from vecmigrate.settings import Settings
from vecmigrate.sqlite_files import SIDECARS

__all__ = [
    "clean_leftovers",
    "forget",
    "has_died",
    "is_mirror_right",
    "leftovers",
    "mend_mirror",
    "record_dead",
    "record_end",
    "record_failed",
    "require_mirror_apart",
    "rewrite_mirror",
    "settle",
    "settle_afterwards",
    "settle_if_readable",
    "write_mirror",
]

log = logging.getLogger("vecmigrate")


def make_tables(connection: Connection) -> None:
    """Make only what a record needs, so that the database stays what its backup holds."""
    tool_metadata.create_all(connection, tables=[HISTORY, META])


def settle(database: Database, settings: Settings) -> None:
    """Record runs whose process died, and remove what they left behind. Writes only if there were any.

    Every run begins with it. Raises ConfigurationError where the mirror would replace what it must not.
    """
    if database.path is None:
        return
    require_mirror_apart(database, settings)
    with translated(database):
        # In what is not there nothing is recorded: a file of records alone would pass for a database.
        if not history.markers(database.path) or database.is_absent():
            return
        with writing(database, lock_timeout=settings.lock_timeout) as connection:
            left = history.markers(database.path)
            _record_dead(connection, left)
            clean_leftovers(database, settings)
    write_mirror(database, settings, token=meta.new_database_id())
    for marker in left:
        forget(database, marker)


def leftovers(database: Database, settings: Settings) -> list[str]:
    """Return temporary files of this database, of killed processes and of one that still goes on. Read-only."""
    if database.path is None:
        return []
    found = [path for folder in _folders(database.path, settings) for path in temporary(folder, database.path)]
    with suppress(OSError):
        found += history.temporary(_mirror(database.path, settings).place())
    return found


def clean_leftovers(database: Database, settings: Settings) -> None:
    """Remove the temporary files that killed processes have left. Call it while holding the write lock.

    Under the lock nobody else has any of this database.
    """
    if database.path is None:
        return
    for folder in _folders(database.path, settings):
        backups.clean_temporary(folder, database.path)
    with suppress(OSError):
        history.clean_temporary(_mirror(database.path, settings).place())


def _folders(database: str, settings: Settings) -> tuple[str, ...]:
    # A restore has a temporary file beside the database.
    return tuple(dict.fromkeys((settings.backup_folder(database), os.path.dirname(database))))


def settle_afterwards(database: Database, settings: Settings) -> None:
    """Settle once a run has ended well, of those that died while there was no database to record it in."""
    with only_told("What killed runs have left"):
        settle(database, settings)


def require_mirror_apart(database: Database, settings: Settings) -> None:
    """Raise ConfigurationError where the mirror would replace the database, a file of it, or what is no mirror.

    Of a mirror with its usual name only the first is asked: nobody has named somebody's file by mistake, and what is
    not replaced is told when it is written. What cannot be looked at is told then too.
    """
    if database.path is None:
        return
    mirror = _mirror(database.path, settings)
    places = [*(database.path + suffix for suffix in ("", *SIDECARS)), *([settings.ini] if settings.ini else [])]
    taken = next((place for place in places if _is_same(mirror.path, place)), None)
    if taken is None and mirror.is_set:
        try:
            mirror.require_replaceable()
        except NoMirrorError as error:
            taken = f"{error.filename}, which is no mirror"
        except OSError:
            return
    if taken is not None:
        raise ConfigurationError(
            f"The mirror of the history, {mirror.path}, would replace {taken}. Nothing was changed.",
            next_step="set VECMIGRATE_HISTORY_FILE (or history_file) to a file of its own, then: "
            f"vecmigrate {database.option} migrate",
        )


def _mirror(database: str, settings: Settings) -> Mirror:
    return Mirror(settings.mirror(database), is_set=settings.history_file is not None)


def _is_same(one: str, other: str) -> bool:
    """Tell whether two paths are one file, or will be: through links, and whatever the case of letters."""
    # One that cannot be looked at is told when it is opened.
    with suppress(OSError):
        if os.path.exists(one) and os.path.exists(other):
            return os.path.samefile(one, other)
    return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def has_died(connection: Connection, database: Database) -> bool:
    """Tell whether a run died that nobody has recorded yet; call it while holding the write lock. Read-only."""
    return database.path is not None and bool(_died(connection, history.markers(database.path)))


def _died(connection: Connection, left: list[history.Marker]) -> list[history.Marker]:
    known = history.run_ids(connection) if left else set()
    return [marker for marker in left if marker.run_id not in known and marker.steps]


def _record_dead(connection: Connection, left: list[history.Marker]) -> None:
    for marker in left:
        if marker.message:
            # Somebody has taken it for dead, who did not know yet how it ended.
            history.drop_run(connection, marker.run_id)
    if died := _died(connection, left):
        _add(connection, [_ended(marker) for marker in died], database_id=died[-1].database_id)


def _add(connection: Connection, attempts: Sequence[history.Attempt], *, database_id: str) -> None:
    bystanders.require_none(connection)
    make_tables(connection)
    if "database_id" not in meta.read(connection):
        meta.write(connection, {"database_id": database_id})
    history.add(connection, attempts)


def record_end(
    database: Database,
    settings: Settings,
    marker: history.Marker,
    attempts: Sequence[history.Attempt],
    *,
    wait: float,
) -> bool:
    """Record in a transaction of its own how a run ended that was rolled back; tell whether that went well.

    Waits up to ``wait`` seconds for the lock. Where it fails, the marker stays and tells the next run.
    """
    try:
        if database.is_absent():
            # There is no history that could tell of it, and none is made for that.
            forget(database, marker)
            return True
        with translated(database), writing(database, lock_timeout=wait) as connection:
            history.drop_run(connection, marker.run_id)
            # A signal may arrive after the commit; then the run's own records are there and right.
            if marker.run_id not in history.run_ids(connection):
                _add(connection, attempts, database_id=marker.database_id)
    except (VecmigrateError, DBAPIError, OSError) as error:
        log.warning("The failure could not be recorded (%s); the next run records it.", type(error).__name__)
        _leave(database, marker, attempts[-1])
        return False
    write_mirror(database, settings, token=marker.run_id)
    forget(database, marker)
    return True


def forget(database: Database, marker: history.Marker) -> None:
    """Remove the marker of a run that has ended; one that stays is removed by the next run, which knows its end."""
    if database.path:
        with only_told(f"The marker of the run beside {database}"):
            marker.remove(database.path)


def record_dead(connection: Connection, database: Database, *, alive: str) -> None:
    """Record in a new database the runs that died before it was there, in the caller's transaction.

    ``alive`` is the id of the caller's own run, whose marker stands there too.
    """
    if database.path:
        _record_dead(connection, [each for each in history.markers(database.path) if each.run_id != alive])


def _leave(database: Database, marker: history.Marker, attempt: history.Attempt) -> None:
    step = {name: getattr(attempt, name) for name in ("revision", "direction", "migration_id", "version", "name")}
    told = replace(marker, steps=[step], message=attempt.message)
    # The marker that stands there already tells less, and is right too; none, and somebody has recorded it.
    with suppress(OSError):
        if database.path and marker.run_id in {each.run_id for each in history.markers(database.path)}:
            told.write(database.path)


def record_failed(database: Database, settings: Settings, marker: history.Marker, why: str) -> None:
    """Record that what a marker tells of has failed. Where that fails too, the next run does it."""
    attempt = replace(_ended(marker), status="failed", message=why)
    record_end(database, settings, marker, [attempt], wait=settings.lock_timeout)


def settle_if_readable(database: Database, settings: Settings) -> None:
    """Settle before a restore, which must also work on a database that cannot be read any more."""
    with suppress(DatabaseUnusableError):
        settle(database, settings)


def _ended(marker: history.Marker) -> history.Attempt:
    first = marker.steps[0]
    planned = ", ".join(step["revision"] or "base" for step in marker.steps)
    return history.Attempt(
        migration_id=first["migration_id"],
        revision=first["revision"],
        version=first["version"],
        name=first["name"],
        direction=first["direction"],
        status="interrupted",
        message=marker.message
        or f"The run ({planned}) did not finish: its process died, or its end could not be recorded; "
        "nothing of it was committed",
        executed_at=marker.started_at,
        duration_seconds=0.0,
        metadata={"run_id": marker.run_id, "backup_path": marker.backup},
    )


def write_mirror(database: Database, settings: Settings, *, token: str) -> None:
    """Write the mirror from the table; a failure is logged, and healed by the next run."""
    if database.path is None:
        return
    try:
        rewrite_mirror(database, settings, token=token)
    except (OSError, VecmigrateError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        path = settings.mirror(database.path)
        log.warning("The mirror %s could not be written (%s); the next run tries again.", path, why)


def rewrite_mirror(database: Database, settings: Settings, *, token: str) -> None:
    """Write the mirror of an SQLite file from the table. Raises OSError and what reading the database raises.

    The table is looked at again afterwards, because another process may have changed it meanwhile.
    """
    mirror = _mirror(database.path or "", settings)
    written: _Told | None = None
    while (told := _read(database, settings)) != written:
        try:
            aside = mirror.write(told.attempts, ours=told.ours, token=token)
        except FileNotFoundError:
            # Whoever settles meanwhile takes the temporary file for one of a killed run.
            aside = mirror.write(told.attempts, ours=told.ours, token=token)
        if aside:
            log.warning("The mirror %s was damaged, and is moved aside: %s", mirror.path, aside)
        written = told


@dataclass(frozen=True)
class _Told:
    """What the database tells of the mirror: its attempts, and the ids of all that are or were ours."""

    attempts: list[history.Attempt]
    ours: set[str]
    has_table: bool


def _read(database: Database, settings: Settings) -> _Told:
    with reading(database, timeout=settings.lock_timeout) as connection:
        attempts = history.read(connection, limit=LIMIT)
        return _Told(attempts, history.ids(connection), history.has_history(connection))


def mend_mirror(database: Database, settings: Settings) -> None:
    """Write the mirror anew where it is missing or not what the table says; one that is right is left alone."""
    require_mirror_apart(database, settings)
    try:
        is_right = is_mirror_right(database, settings)
    except OSError:
        is_right = False
    if not is_right:
        write_mirror(database, settings, token=meta.new_database_id())


def is_mirror_right(database: Database, settings: Settings) -> bool:
    """Tell whether the mirror says what the table does. Read-only; raises OSError, and NoMirrorError of others' files.

    Beside an empty table no mirror is as good as an empty one, and without a table it is somebody else's.
    """
    if database.path is None:
        return True
    told, mirror = _read(database, settings), _mirror(database.path, settings)
    present = mirror.read()
    if not told.has_table or not (told.attempts or present):
        return True
    return present == mirror.expected(told.attempts, ours=told.ours)
