"""Settings: from arguments, then ``VECMIGRATE_*``, then ``[vecmigrate]`` in ``alembic.ini``, then defaults."""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from vecmigrate.errors import ConfigurationError
from vecmigrate.names import LONGEST, fitting

__all__ = ["NAMES", "SECTION", "Settings", "read_ini", "resolve"]

SECTION = "vecmigrate"
_BACKUP_CHOICES = ("auto", "always", "never")
_MIRROR = ".migrations.json"
NAMES = ("database_url", "backup", "backup_dir", "keep_backups", "lock_timeout", "history_file")


@dataclass(frozen=True)
class Settings:
    """What a run needs to know.

    ``lock_timeout`` is in seconds, ``keep_backups`` a number of backups of one database. ``ini`` is the
    path of the ``alembic.ini`` in use, if any, and ``is_default_database`` tells that the database is
    the one this file names. ``script_location`` is where that file says the revision scripts are.
    """

    database_url: str | os.PathLike[str] | URL | Engine
    backup: str = "auto"
    backup_dir: str | None = None
    keep_backups: int = 10
    lock_timeout: float = 60.0
    history_file: str | None = None
    ini: str | None = None
    is_default_database: bool = False
    script_location: str | None = None

    def backup_folder(self, database: str) -> str:
        """Return where the backups of an SQLite file go: the set folder, else ``backups`` beside it.

        The default database of an ``alembic.ini`` has its backups beside that file.
        """
        beside = self.ini if self.ini and self.is_default_database else database
        return self.backup_dir or os.path.join(os.path.dirname(os.path.abspath(beside)), "backups")

    def mirror(self, database: str) -> str:
        """Return the path of the JSON mirror of an SQLite file's history."""
        folder, name = os.path.split(database)
        stem = fitting(os.path.splitext(name)[0], LONGEST - len(_MIRROR))
        return self.history_file or os.path.join(folder, stem + _MIRROR)


def read_ini(path: str) -> dict[str, str] | None:
    """Return the ``[vecmigrate]`` section of an ini file, or None if it has none. Read-only.

    Raises ConfigurationError for a file that cannot be read or is no ini file. Of the section
    ``[alembic]`` it adds ``script_location``, and ``sqlalchemy.url`` stands in for ``database_url``.
    """
    parser = configparser.ConfigParser({"here": os.path.dirname(os.path.abspath(path)).replace("%", "%%")})
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        if not parser.has_section(SECTION):
            return None
        values = {name: parser.get(SECTION, name) for name in parser.options(SECTION) if name != "here"}
        if "database_url" not in values and parser.has_option("alembic", "sqlalchemy.url"):
            values["database_url"] = parser.get("alembic", "sqlalchemy.url")
        scripts = parser.get("alembic", "script_location", fallback=None)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        # The text of a configparser error may quote a line that holds a password.
        why, step = f"{_named(error)}, not a valid ini file", f"correct {path}; a literal % in it is written %%"
        if isinstance(error, OSError):
            why, step = str(error.strerror), f"make {path} readable, or name another file by --config FILE"
        raise ConfigurationError(
            f"The configuration file {path} cannot be used: {why}. Nothing was changed.", next_step=step
        ) from None
    unknown = sorted(values.keys() - set(NAMES))
    if unknown:
        raise ConfigurationError(
            f"[{SECTION}] in {path} has settings that do not exist: {', '.join(unknown)}. Nothing was changed.",
            next_step=f"correct {path}; the settings are {', '.join(NAMES)}",
        )
    return values | ({"script_location": scripts} if scripts else {})


def _named(error: Exception) -> str:
    """Return what is wrong in an ini file, and where, without quoting it."""
    errors = getattr(error, "errors", None) or [(getattr(error, "lineno", None), "")]
    line, option = errors[0][0], getattr(error, "option", None)
    where = f" in line {line}" if line else f" in {option}" if option else ""
    return f"{type(error).__name__}{where}"


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str], *, ini: str | None = None) -> Settings:
    """Return the settings in force. Read-only.

    ``arguments`` are settings given by the caller; a value of None counts as not given. Raises
    ConfigurationError, naming the source, for a value that is not one, and when no database is named.
    """
    from_ini = (read_ini(ini) or {}) if ini else {}
    sources: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("the argument", arguments),
        (
            "the environment variable VECMIGRATE_",
            {
                name: environ[f"VECMIGRATE_{name.upper()}"]
                for name in NAMES
                if environ.get(f"VECMIGRATE_{name.upper()}")
            },
        ),
        (f"[{SECTION}] in {ini}:", from_ini),
    )
    values: dict[str, Any] = {}
    for name in NAMES:
        for source, given in sources:
            if given.get(name) is not None:
                values[name] = _checked(name, given[name], source)
                break
    if not values.get("database_url"):
        raise ConfigurationError(
            "No database is configured. Nothing was changed.",
            next_step="name it: vecmigrate --db-path FILE status (or --database-url URL, or VECMIGRATE_DATABASE_URL)",
        )
    default_url = from_ini.get("database_url")
    return Settings(
        **values,
        ini=ini,
        is_default_database=default_url is not None and _is_same(values["database_url"], default_url),
        script_location=from_ini.get("script_location"),
    )


def _is_same(one: Any, other: str) -> bool:
    """Tell whether a URL or an Engine names the database of another URL, however the path of a file is written."""
    try:
        urls = [make_url(getattr(each, "url", each)) for each in (one, other)]
    except (ArgumentError, ValueError):
        return False  # Whoever opens it says what is wrong.
    names = {os.path.realpath(url.database) if url.database and not url.host else url for url in urls}
    return len(names) == 1


def _checked(name: str, value: Any, source: str) -> Any:
    shown = f"{source}{name.upper()}" if source.endswith("_") else f"{source} {name}"
    if name == "backup" and value not in _BACKUP_CHOICES:
        raise _invalid(shown, value, f"one of {', '.join(_BACKUP_CHOICES)}")
    if name == "keep_backups":
        return _number(int, value, shown, minimum=1)
    if name == "lock_timeout":
        return _number(float, value, shown, minimum=0)
    if name in {"backup_dir", "history_file"}:
        return os.path.abspath(os.path.expanduser(os.fspath(value)))
    return value


def _number(kind: type[int] | type[float], value: Any, shown: str, *, minimum: int) -> Any:
    try:
        number = kind(value)
    except OverflowError:
        raise _invalid(shown, "a huge number", f"a number not below {minimum}") from None
    except (TypeError, ValueError):
        raise _invalid(shown, value, "a number") from None
    if not minimum <= number < float("inf"):
        raise _invalid(shown, value, f"a number not below {minimum}")
    return number


def _invalid(shown: str, value: Any, wanted: str) -> ConfigurationError:
    return ConfigurationError(
        f"{shown} is {str(value)!r}, and must be {wanted}. Nothing was changed.",
        next_step="correct that setting and run the same command again",
    )
