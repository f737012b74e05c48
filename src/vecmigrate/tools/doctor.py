"""What is wrong with a database, and the command that mends it. Everything here only reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from vecmigrate import history
from vecmigrate.engine import reading
from vecmigrate.errors import (
    AheadError,
    BackupError,
    DatabaseUnusableError,
    LockTimeoutError,
    NeedsPersonError,
    VecmigrateError,
)
from vecmigrate.overview import Overview
from vecmigrate.tools import backup_state, contents, standing, surroundings
from vecmigrate.tools.drift import drift
from vecmigrate.tools.finding import ERROR, NOTE, WARNING, Finding, Findings, Subject, of_error

__all__ = ["Diagnosis", "diagnose"]

_INSIDE: dict[str, Callable[[Subject, Connection], Findings]] = {
    "pending": standing.pending,
    "drift": drift,
    "foreign-keys": contents.foreign_keys,
    "reembed": contents.reembed,
    "provider": contents.provider,
}
"""What is asked of an open database, all of one state of it; quick, because it may keep others from committing."""

_BESIDE: dict[str, Callable[[Subject], Findings]] = {
    "integrity": contents.integrity,
    "edited-script": standing.edited_script,
    "interrupted": standing.interrupted,
    "mirror": standing.mirror,
}
"""What is asked of a database that can be opened."""

_AROUND: dict[str, Callable[[Subject], Findings]] = {
    "backup-missing": backup_state.missing,
    "backup-damaged": backup_state.damaged,
    "backup-unreadable": backup_state.unreadable,
    "backup-stale": backup_state.stale,
    "permissions": surroundings.permissions,
    "leftovers": surroundings.leftovers,
    "disk": surroundings.disk,
    "network-fs": surroundings.network_fs,
    "place": surroundings.place,
}
"""What is asked in any case."""

_ORDER = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a database: the errors first, then warnings and notes."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Tell whether there is no error."""
        return not any(each.severity == ERROR for each in self.findings)

    @property
    def exit_code(self) -> int:
        """0 without errors, 1 with errors, 6 where somebody has to decide."""
        if any(each.needs_person for each in self.findings):
            return NeedsPersonError.exit_code
        return 0 if self.ok else VecmigrateError.exit_code

    def as_dict(self) -> dict[str, object]:
        return {"ok": self.ok, "findings": [each.as_dict() for each in self.findings]}


def diagnose(access: Overview, *, deep: bool = False) -> Diagnosis:
    """Look at a database and what is around it. Read-only: makes no file, table or folder.

    Without ``deep`` files of more than 64 MiB are not read whole, neither the database nor, newest first and in sum,
    its backups. Raises ConfigurationError where the scripts or settings cannot be used, and LockTimeoutError where
    another process lets nobody read.
    """
    subject = Subject(access, access.revisions(), deep=deep)
    found: list[Finding] = []
    try:
        if access.database.is_absent():
            found += standing.absent(subject)
        else:
            subject = _open(subject, found)
    except DatabaseUnusableError as error:
        found.append(contents.damage(subject, error))
    for code, look in _AROUND.items():
        found += _looked(code, look(subject))
    if subject.is_folder_hidden:
        found = [each for each in found if each.code != "backup-unreadable"]
    # Several looks may be kept from the same.
    return Diagnosis(tuple(sorted(dict.fromkeys(found), key=lambda each: _ORDER.index(each.severity))))


def _open(subject: Subject, found: list[Finding]) -> Subject:
    """Add what is found in a database, and return the subject with what was read of it."""
    access = subject.access
    with reading(access.database, timeout=access.settings.lock_timeout) as connection:
        subject = _at_revision(subject, connection, found)
        subject = replace(subject, attempts=tuple(history.read(connection)))
        for code, look in _INSIDE.items():
            found += _looked(code, look(subject, connection))
    for code, ask in _BESIDE.items():
        found += _looked(code, ask(subject))
    return subject


def _at_revision(subject: Subject, connection: Connection, found: list[Finding]) -> Subject:
    try:
        revision = subject.access.revision(connection, subject.known)
    except AheadError as error:
        is_compatible = error.compatible
        ahead = of_error("ahead", error)
        found.append(replace(ahead, severity=WARNING, needs_person=False) if is_compatible else ahead)
        return subject
    except NeedsPersonError as error:
        found.append(of_error("drift", error))
        return subject
    return replace(subject, is_known=True, revision=revision)


def _looked(code: str, findings: Findings) -> Iterator[Finding]:
    """Yield what is found; what keeps it from being found is a finding too."""
    try:
        yield from findings
    except LockTimeoutError:
        raise
    except BackupError as error:
        yield of_error("backup-unreadable", error)
    except VecmigrateError as error:
        is_denied = isinstance(error, DatabaseUnusableError) and error.is_denied
        yield of_error("permissions" if is_denied else code, error)
