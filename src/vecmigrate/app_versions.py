"""Which revision an app version needs, from ``app_versions.toml``."""

import itertools
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from vecmigrate.errors import ConfigurationError, TargetError

__all__ = ["AppVersion", "AppVersionMap", "load", "parse_version"]

MAP_FILE = os.path.join(os.path.dirname(__file__), "app_versions.toml")
_KEYS = {"revision", "compatible_from"}


@dataclass(frozen=True)
class AppVersion:
    """An app version that changed the schema."""

    version: Version
    revision: str
    compatible_from: Version


@dataclass(frozen=True)
class AppVersionMap:
    """The app versions in ascending order; compared with ``packaging.version``."""

    entries: tuple[AppVersion, ...]

    @property
    def newest(self) -> AppVersion:
        return self.entries[-1]

    def of_revision(self, revision: str | None) -> AppVersion | None:
        """Return the entry of a revision, or None for one that has no app version of its own."""
        return next((entry for entry in self.entries if entry.revision == revision), None)

    def resolve(self, version: str) -> tuple[AppVersion, str | None]:
        """Return the entry that serves an app version, and a note if the version is above the newest.

        Raises TargetError for what is no PEP 440 version or lies below the oldest entry.
        """
        wanted = parse_version(version)
        fitting = [entry for entry in self.entries if entry.version <= wanted]
        if not fitting:
            raise TargetError(
                f"App version {version} is older than {self.entries[0].version}, the oldest one known. "
                "Nothing was changed.",
                next_step="vecmigrate versions",
            )
        entry = fitting[-1]
        if entry is self.newest and wanted > entry.version:
            return entry, f"{version} is above the newest known app version; {entry.version} is meant."
        return entry, None


def parse_version(text: str) -> Version:
    """Return a PEP 440 version, or raise TargetError."""
    try:
        return Version(text)
    except ValueError as error:  # also of a number of more digits than Python reads
        raise TargetError(
            f"{text!r} is not a version number (PEP 440), such as 1.2.2. Nothing was changed.",
            next_step="vecmigrate versions",
        ) from error


def load(path: str = MAP_FILE, *, revisions: Sequence[str] | None = None) -> AppVersionMap:
    """Read the map; with ``revisions`` also check that each revision named exists. Read-only.

    Raises ConfigurationError that lists every faulty entry at once.
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise _malformed(path, [f"it cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _malformed(path, [str(error)]) from error
    faults: list[str] = []
    entries = [entry for key, value in document.items() if (entry := _entry(key, value, faults, revisions)) is not None]
    faults += _clashes(entries)
    if not document:
        faults.append("it names no app version")
    if faults:
        raise _malformed(path, faults)
    return AppVersionMap(tuple(sorted(entries, key=lambda entry: entry.version)))


def _entry(key: str, value: Any, faults: list[str], revisions: Sequence[str] | None) -> AppVersion | None:
    before = len(faults)
    if not isinstance(value, Mapping):
        faults.append(f'["{key}"] is not a table with a revision')
        return None
    version = _version(key, f'["{key}"]', faults)
    faults.extend(f'["{key}"] has an unknown key {name}' for name in sorted(value.keys() - _KEYS))
    revision = value.get("revision")
    if not isinstance(revision, str) or not revision.isdigit():
        faults.append(f'["{key}"] has no revision number, such as revision = "001"')
    elif revisions is not None and revision not in revisions:
        faults.append(f'["{key}"] names revision {revision}, and there is no such revision')
    oldest = value.get("compatible_from", key)
    compatible_from = _version(oldest, f'["{key}"] compatible_from', faults) if oldest != key else version
    if version and compatible_from and compatible_from > version:
        faults.append(f'["{key}"] has a compatible_from that is newer than itself')
    if len(faults) > before or version is None or compatible_from is None:
        return None
    return AppVersion(version, str(revision), compatible_from)


def _version(text: Any, where: str, faults: list[str]) -> Version | None:
    try:
        return Version(text)
    except (ValueError, TypeError):
        faults.append(f"{where} is not a version number (PEP 440): {text!r}")
        return None


def _clashes(entries: Sequence[AppVersion]) -> list[str]:
    """Return the versions and revisions named twice, and revisions that do not grow with the version."""
    ordered = sorted(entries, key=lambda entry: entry.version)
    faults = []
    for older, newer in itertools.pairwise(ordered):
        if older.version == newer.version:
            faults.append(f"{older.version} and {newer.version} are the same version, named twice")
        elif older.revision >= newer.revision:
            faults.append(
                f'["{newer.version}"] has revision {newer.revision}, not above {older.revision} of {older.version}'
            )
    return faults


def _malformed(path: str, faults: Sequence[str]) -> ConfigurationError:
    listed = "\n".join(f"  - {fault}" for fault in faults)
    return ConfigurationError(
        f"The app-version map {path} is malformed:\n{listed}\nNothing was changed.",
        next_step="correct these lines in app_versions.toml, then run: vecmigrate versions",
    )
