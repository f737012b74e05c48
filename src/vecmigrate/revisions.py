"""The revision scripts: where they are, in which order, and what a target means."""

import hashlib
import os
import re
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError, to_tuple

from vecmigrate import app_versions
from vecmigrate.errors import ConfigurationError, TargetError
from vecmigrate.scripts_folder import script_location

__all__ = ["Revision", "Revisions", "load"]

_CORRECT = "correct the revision scripts; each names the one before it in down_revision"
_RENUMBER = "of the one that is not released yet: vecmigrate new --renumber {}"
_NUMBER = re.compile(r"\d{1,18}")
_RELATIVE = re.compile(r"[+-]\d{1,18}")
"""No revision has a longer number, and Python refuses to read one of thousands of digits."""


@dataclass(frozen=True)
class Revision:
    """A revision script. ``app_version`` and ``compatible_from`` are None where the map names none.

    ``depends_on`` are the revisions that it names beside the one below it.
    """

    id: str
    name: str
    app_version: str | None
    compatible_from: str | None
    path: str | None = None
    depends_on: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """The hash of the script, which does not depend on how its lines end. Raises OSError."""
        with open(self.path or os.devnull, "rb") as file:
            return hashlib.sha256(file.read().replace(b"\r\n", b"\n")).hexdigest()

    @property
    def migration_id(self) -> str:
        """The id in the history, as in mcp-vector-search: ``1.2.2_codexembed_upgrade``."""
        return f"{self.app_version or self.id}_{self.name}"


@dataclass(frozen=True)
class Revisions:
    """All revisions, base to head, with the app-version map."""

    ordered: tuple[Revision, ...]
    versions: app_versions.AppVersionMap

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(revision.id for revision in self.ordered)

    @property
    def head(self) -> str:
        return self.ordered[-1].id

    def get(self, revision: str | None) -> Revision | None:
        return next((each for each in self.ordered if each.id == revision), None)

    def app_version(self, revision: str | None) -> str | None:
        """Return the app version of a revision: its own, else that of the nearest one below."""
        index = self.position(revision)
        known = [each.app_version for each in self.ordered[: index + 1] if each.app_version]
        return known[-1] if known else None

    def position(self, revision: str | None) -> int:
        """Return the place in the line, -1 for base."""
        return -1 if revision is None else self.ids.index(revision)

    def upto(self, revision: str | None) -> tuple[Revision, ...]:
        """Return the revisions up to one, lowest first; none for base."""
        return self.ordered[: self.position(revision) + 1]

    def below(self, revision: str) -> str | None:
        """Return the revision just before one, None for base."""
        position = self.position(revision)
        return self.ids[position - 1] if position else None

    def resolve(self, target: str, *, current: str | None) -> tuple[str | None, str | None]:
        """Return the revision a target means (None for base), and a note for the user or None.

        A target is ``head``, ``base``, a revision number, ``+N`` or ``-N`` from ``current``, or an app
        version. Raises TargetError.
        """
        if target in {"head", "heads"}:
            return self.head, None
        if target == "base":
            return None, None
        if _RELATIVE.fullmatch(target):
            return self._relative(target, current), None
        if _NUMBER.fullmatch(target):
            return self._number(target), None
        try:
            app_versions.parse_version(target)
        except TargetError:
            raise TargetError(
                f"{target!r} is no target, which is head, base, a revision number, +N, -N, or an app version such as "
                f"{self.versions.newest.version}. Nothing was changed.",
                next_step="vecmigrate versions",
            ) from None
        entry, note = self.versions.resolve(target)
        return entry.revision, note

    def _relative(self, target: str, current: str | None) -> str | None:
        if current is not None and current not in self.ids:
            raise TargetError(
                f"{target} cannot be counted from {current}, which is not known here. Nothing was changed.",
                next_step="name a revision or an app version: vecmigrate versions",
            )
        position = self.position(current) + int(target)
        if not -1 <= position < len(self.ordered):
            raise TargetError(
                f"{target} from {current or 'base'} is beyond {'head' if position > 0 else 'base'}. "
                "Nothing was changed.",
                next_step="vecmigrate versions",
            )
        return None if position < 0 else self.ordered[position].id

    def _number(self, target: str) -> str:
        matches = [each for each in self.ids if each.isdigit() and int(each) == int(target)]
        if not matches:
            raise TargetError(
                f"There is no revision {target}; the newest is {self.head}. Nothing was changed.",
                next_step="vecmigrate versions",
            )
        return matches[0]


def load(config: Config) -> Revisions:
    """Read all revision scripts of a configuration. Raises ConfigurationError for several heads and faulty scripts."""
    location = config.get_main_option("script_location") or ""
    _require_complete(location)
    if twins := _twins(os.path.join(location, "versions")):
        raise _malformed(
            location, f"{' and '.join(twins)} have one number", step=_RENUMBER.format(os.path.splitext(twins[-1])[0])
        )
    try:
        script = ScriptDirectory.from_config(config)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Revision .* is present more than once")
            scripts = list(script.walk_revisions())[::-1]
    except CommandError as error:
        raise _malformed(location, str(error).rstrip(".")) from error
    except Exception as error:  # whatever a script raises while it is imported
        raise _malformed(location, _fault(error, location)) from error
    heads = [os.path.basename(each.path) for each in scripts if each.is_head]
    if len(heads) != 1:
        why = f"there are {len(heads)} heads: {', '.join(heads)}" if heads else "there is none"
        step = _RENUMBER.format(os.path.splitext(heads[-1])[0]) if heads else _CORRECT
        raise _malformed(location, why, step=step)
    versions = app_versions.load(revisions=[each.revision for each in scripts])
    by_revision: Mapping[str, app_versions.AppVersion] = {each.revision: each for each in versions.entries}
    return Revisions(tuple(_revision(each, by_revision.get(each.revision)) for each in scripts), versions)


def _require_complete(location: str) -> None:
    if location == script_location() and not os.path.isfile(os.path.join(location, "env.py")):
        raise ConfigurationError(
            f"The package vecmigrate is incomplete: its revision scripts are not in {location}. Nothing was changed.",
            next_step="install it with all its files; PyInstaller takes them with --collect-all vecmigrate",
        )


def _twins(folder: str) -> list[str]:
    """Return the scripts that share the lowest number which more than one has: Alembic would take any of them."""
    by_number: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        number = name.partition("_")[0]
        if number.isdigit() and name.endswith(".py"):
            by_number.setdefault(number, []).append(name)
    return next((names for names in by_number.values() if len(names) > 1), [])


def _revision(script: Script, version: app_versions.AppVersion | None) -> Revision:
    stem = os.path.splitext(os.path.basename(script.path))[0]
    return Revision(
        id=script.revision,
        name=stem.removeprefix(f"{script.revision}_"),
        app_version=str(version.version) if version else None,
        compatible_from=str(version.compatible_from) if version else None,
        path=script.path,
        depends_on=tuple(to_tuple(script.dependencies, default=())),
    )


def _fault(error: Exception, location: str) -> str:
    """Return what a script raised, and where in it."""
    inside = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(location)]
    if isinstance(error, UserWarning) and not inside:
        return str(error)
    if isinstance(error, KeyError) and not inside:
        return f"a down_revision names {error}, and there is no such revision"
    place = (inside[-1].filename, inside[-1].lineno) if inside else None
    if isinstance(error, SyntaxError) and error.filename:
        place = (error.filename, error.lineno)
    return type(error).__name__ + (f" in {os.path.basename(place[0])}, line {place[1]}" if place else "")


def _malformed(location: str, why: str, *, step: str = _CORRECT) -> ConfigurationError:
    return ConfigurationError(
        f"The revision scripts in {location} cannot be used: {why}. Nothing was changed.",
        next_step=step,
    )
