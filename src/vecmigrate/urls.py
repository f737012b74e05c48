"""URLs of databases: what is one, and which file of SQLite it names."""

import os
import re
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from vecmigrate.errors import ConfigurationError

__all__ = ["is_for_reading", "no_driver", "no_url", "parsed", "sqlite_path"]


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parsed(url: str | URL) -> tuple[URL, str, str]:
    """Return a URL with the names of its backend and its driver. Raises ConfigurationError."""
    if isinstance(url, str) and _CONTROL.search(url):
        raise ConfigurationError(
            "The database URL holds a control character, such as the end of a line. Nothing was changed.",
            next_step="take it out of the URL, then run it again",
        )
    try:
        found = make_url(url)
        backend, driver = found.get_backend_name(), found.get_driver_name()
        "".join(filter(None, (found.username, found.password, found.database))).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            "The name of the database, or its URL, holds bytes that are not UTF-8. Nothing was changed.",
            next_step="give the file a name in UTF-8, or write those bytes of the URL as %XX, then run it again",
        ) from None
    except (ArgumentError, ValueError) as error:
        raise no_url() from (None if url else error)
    except ModuleNotFoundError as error:
        raise no_driver(error) from None
    if _is_mistaken(found, backend):
        raise no_url()
    return found, backend, driver


def no_driver(error: ModuleNotFoundError) -> ConfigurationError:
    """Return the error for a server whose driver is not installed."""
    return ConfigurationError(
        f"The driver of the database URL is not installed: {error.name}. Nothing was changed.",
        next_step="pip install 'vecmigrate[postgres]'",
    )


def no_url() -> ConfigurationError:
    """Return the error for what is no URL, which does not show it."""
    return ConfigurationError(
        "The database URL is not one. Nothing was changed.",
        next_step="write it as sqlite:////absolute/path.sqlite3 or postgresql://user@host/name (not postgres://), and "
        "percent-encode a password: an @ in it is %40. The path of a file is given by --db-path, in Python as a "
        "pathlib.Path",
    )


def _is_mistaken(url: URL, backend: str) -> bool:
    """Tell whether SQLAlchemy takes for a host or a database what nobody means by one."""
    name = url.database or ""
    if "\0" in f"{url.username}{url.password}{name}":
        return True
    if backend == "sqlite":
        # The host of sqlite://file.db, which lacks a slash, would otherwise leave a database in memory.
        return bool(url.host) or ("://" in name and not name.startswith("file:"))
    # An @ in a password that is not encoded: the rest of the password would be shown as the host.
    return "@" in (url.host or "") or bool(url.password and "@" in name)


def sqlite_path(url: URL) -> str | None:
    """Return the file that SQLAlchemy would open: only with ``uri=true`` is ``file:`` no part of its name."""
    name = url.database or ":memory:"
    if not _is_uri(url):
        return None if name == ":memory:" else os.path.realpath(name)
    parts = urlsplit(name)
    if parts.netloc not in {"", "localhost"}:
        raise no_url()
    name = unquote(parts.path)
    return None if _parameter(url, "mode") == "memory" or name in {"", ":memory:"} else os.path.realpath(name)


def is_for_reading(url: URL) -> bool:
    """Tell whether the URI of an SQLite file says that nobody is to write it."""
    return _parameter(url, "mode") == "ro" or _parameter(url, "immutable") in {"1", "true"}


def _is_uri(url: URL) -> bool:
    means_yes = str(url.query.get("uri")).lower() in {"true", "yes", "on", "y", "t", "1"}
    return means_yes and (url.database or "").startswith("file:")


def _parameter(url: URL, name: str) -> str:
    """Return a parameter of the URI of an SQLite file, whichever of its two places it is written in."""
    inside = parse_qs(urlsplit(url.database or "").query).get(name, [""])
    return str(url.query.get(name, inside[-1])) if _is_uri(url) else ""
