"""The text of an app-version map, edited so that comments and order stay."""

import os
import re
import tomllib
from dataclasses import dataclass

from packaging.version import Version

from vecmigrate.errors import ConfigurationError, TargetError

__all__ = ["VersionMap", "opened"]

_HEADER = re.compile(r'^\s*\[\s*(["\'])(?P<version>.+?)\1\s*\]\s*(#.*)?$')
_REVISION = re.compile(r'^(?P<before>\s*revision\s*=\s*["\'])(?P<revision>\d+)(?P<after>["\'].*)$')


@dataclass
class VersionMap:
    """The lines of a map, which may name a version twice after a merge. Nothing is written before ``write``."""

    path: str
    lines: list[str]

    def entries(self) -> list[tuple[int, Version, int, str]]:
        """Return each entry as it stands: line of the version, version, line of the revision, revision."""
        found: list[tuple[int, Version, int, str]] = []
        header: tuple[int, Version] | None = None
        for number, line in enumerate(self.lines):
            if matched := _HEADER.match(line):
                header = (number, Version(matched["version"]))
            elif header and (matched := _REVISION.match(line)):
                found.append((*header, number, matched["revision"]))
        return found

    def next_version(self, released: str) -> str:
        """Return the version for a new revision: that of the project if that is above, else the next minor one."""
        newest = max((each[1] for each in self.entries()), default=Version("0"))
        if Version(released) > newest:
            return released
        return f"{newest.major}.{newest.minor + 1}.0"

    def checked(self, version: str) -> str:
        """Return a version that may be entered. Raises TargetError for one that is none, or not the newest."""
        try:
            given = Version(version)
        except ValueError as error:
            raise TargetError(
                f"{version!r} is not a version number (PEP 440), such as 1.4.0. Nothing was changed.",
                next_step="vecmigrate versions",
            ) from error
        newest = max((each[1] for each in self.entries()), default=None)
        if newest is not None and given <= newest:
            raise TargetError(
                f"App version {version} is not above {newest}, the newest in {self.path}; a new revision belongs to "
                "a new version. Nothing was changed.",
                next_step="give a higher one by --app-version, or leave it out",
            )
        return version

    def enter(self, version: str, revision: str) -> None:
        """Add an entry at the end."""
        while self.lines and not self.lines[-1].strip():
            self.lines.pop()
        self.lines += ["", f'["{version}"]', f'revision = "{revision}"']

    def renumber(self, old: str, new: str, released: str, *, has_twin: bool) -> str:
        """Give the last entry of a revision the new one, or add an entry; return its app version.

        A twin keeps an entry: the first one. A version that is not above the others becomes the next one.
        """
        entries = self.entries()
        named = [each for each in entries if each[3] == old]
        if len(named) <= has_twin:
            version = self.next_version(released)
            self.enter(version, new)
            return version
        header, version_, line, _ = named[-1]
        others = [each[1] for each in entries if each[0] != header]
        if others and version_ <= max(others):
            version_ = Version(self.next_version(released))
            # The quotes end what stands before the version and after it.
            self.lines[header] = f'["{version_}"]'
        self.lines[line] = _REVISION.sub(rf"\g<before>{new}\g<after>", self.lines[line])
        entry = self._cut(header)
        while self.lines and not self.lines[-1].strip():
            self.lines.pop()
        self.lines += ["", *entry]
        return str(version_)

    def _cut(self, header: int) -> list[str]:
        """Take an entry out, with what stands below it up to the next one."""
        ends = [number for number, *_ in self.entries() if number > header]
        end = min(ends, default=len(self.lines))
        entry = self.lines[header:end]
        # A comment just above the next entry belongs to that one.
        while entry and (not entry[-1].strip() or (ends and entry[-1].lstrip().startswith("#"))):
            entry.pop()
        del self.lines[header : header + len(entry)]
        return entry

    def write(self) -> None:
        """Write the map. Raises ConfigurationError, with nothing written, where the result would be no TOML."""
        text = "\n".join(self.lines) + "\n"
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(
                f"The app-version map {self.path} is malformed: {error}. Nothing was changed.",
                next_step="correct it, then run the same command again",
            ) from error
        replacement = f"{self.path}.new"
        with open(replacement, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(replacement, self.path)


def opened(path: str) -> VersionMap:
    """Read a map. Raises ConfigurationError."""
    try:
        with open(path, encoding="utf-8") as file:
            return VersionMap(path, file.read().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The app-version map {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}. "
            "Nothing was changed.",
            next_step="correct it, then run the same command again",
        ) from error
