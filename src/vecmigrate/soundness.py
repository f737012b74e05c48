"""Whether the pages and records of an SQLite file are whole, and what else this process cannot read in it.

Only the first is damage. A collation or function of the service, or SQL of a newer SQLite, is what this process lacks.
"""

import os
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from vecmigrate import sqlite_driver
from vecmigrate.sqlite_driver import interruption, result_code

__all__ = [
    "Lack",
    "has_spoiled_format",
    "has_unknown_format",
    "is_damage",
    "is_wal",
    "lack",
    "newer_writer",
    "problems",
]

# quick_check also reports rows that break a constraint, which says nothing about the file.
_ROW_FINDING = re.compile(rb"(CHECK constraint failed|(NULL|NUMERIC|TEXT|non-\w+) value) in ")
# What belongs to a table whose SQL this SQLite does not know looks to it as if nobody used it.
_UNUSED = re.compile(rb"Page \d+(:| is) never used")
_MANY, _ALL = 10_000, 1 << 30
_HEADER_BYTES = 100
_NEWEST_FORMAT = 2
_NEXT_MAJOR = 4
_MAGIC = b"SQLite format 3\0"
_LACKS = {
    "collation": re.compile(r"no such collation sequence: (.+)", re.DOTALL),
    "function": re.compile(
        r"(?:no such function: (.+)|(?:unknown|wrong number of arguments to) function:? (.+)\(\))", re.DOTALL
    ),
    "module": re.compile(r"no such module: (.+)", re.DOTALL),
}


@dataclass(frozen=True)
class Lack:
    """What the service has and this process has not: a collation, a function or a module of SQLite."""

    kind: str
    name: str


def lack(error: BaseException) -> Lack | None:
    """Return what is missing here where that is why a statement failed, else None."""
    if result_code(error) != sqlite3.SQLITE_ERROR:
        return None
    for kind, pattern in _LACKS.items():
        if match := pattern.search(str(error)):
            return Lack(kind, next(filter(None, match.groups())))
    return None


def is_damage(error: BaseException) -> bool:
    """Tell whether SQLite says of pages or records that they are damaged; of SQL in the schema it says the same."""
    code = result_code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return True
    return code == sqlite3.SQLITE_CORRUPT and not sqlite_driver.is_of_unknown_sql(error)


def problems(connection: sqlite3.Connection, *, deep: bool = False, tables: Iterable[str] | None = None) -> list[str]:
    """Return what ``quick_check`` says of the file, without rows that merely break a CHECK or NOT NULL.

    What it lacks of the service's collations and functions is lent to it meanwhile: it asks them for nothing but
    constraints of rows. With ``deep`` also what ``integrity_check`` says of indexes, where nothing had to be lent.
    With ``tables`` it looks at these and their indexes alone, and not at the list of free pages.
    """
    connection.text_factory = bytes
    lent: list[Lack] = []
    try:
        asked = [None] if tables is None else list(tables)
        lines = [line for each in asked for line in _findings(connection, lent, each)]
        if deep and not lent:
            lines += _findings(connection, lent, check="integrity_check")
    finally:
        connection.text_factory = str
        for each in lent:
            _take_back(connection, each)
    found = [line for line in dict.fromkeys(lines) if line != b"ok" and not _ROW_FINDING.match(line)]
    if sqlite_driver.passes_over_sql(connection):
        found = [line for line in found if not _UNUSED.match(line)]
    return [line.decode(errors="replace") for line in found]


def _findings(
    connection: sqlite3.Connection, lent: list[Lack], table: str | None = None, *, check: str = "quick_check"
) -> list[bytes]:
    while True:
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            of: object = _ALL if sqlite_driver.passes_over_sql(connection) else _MANY
            if table is not None:
                of = '"' + table.replace('"', '""') + '"'
            return [line for (line,) in connection.execute(f"PRAGMA {check}({of})")]
        except sqlite3.OperationalError as error:
            if (raised := interruption(connection, error)) is not None:
                raise raised from None
            missing = lack(error)
            if missing is None or missing in lent:
                raise
            _lend(connection, missing)
            lent.append(missing)


def _lend(connection: sqlite3.Connection, missing: Lack) -> None:
    if missing.kind == "collation":
        connection.create_collation(missing.name, lambda one, other: (one > other) - (one < other))
    elif missing.kind == "function":
        connection.create_function(missing.name, -1, sqlite_driver.nothing, deterministic=True)
        # Python has no way to say that the function does no harm.
        connection.execute("PRAGMA trusted_schema = ON")


def _take_back(connection: sqlite3.Connection, missing: Lack) -> None:
    if missing.kind == "collation":
        connection.create_collation(missing.name, None)
    elif missing.kind == "function":
        connection.create_function(missing.name, -1, None)
        connection.execute("PRAGMA trusted_schema = OFF")


# The header: https://sqlite.org/fileformat2.html#the_database_header

_kept: dict[tuple[int, int], int] = {}


def _header(path: str) -> bytes:
    """Return the header of an SQLite file, empty where it cannot be read.

    The descriptor stays open, one for each file: closing it would drop all locks that this process has on the file.
    See https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    try:
        if os.name == "nt":
            with open(path, "rb") as file:
                return file.read(_HEADER_BYTES)
        status = os.stat(path)
        place = status.st_dev, status.st_ino
        if place not in _kept:
            _kept[place] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(_kept[place], _HEADER_BYTES, 0)
    except OSError:
        return b""


def newer_writer(path: str) -> str | None:
    """Return the version of the SQLite that last wrote a file where that is newer than this one, else None."""
    header = _header(path)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return None
    number = int.from_bytes(header[96:100], "big")
    # Written with each change, but by SQLite before 3.7; what is not plausible is damage.
    version = number // 1_000_000, number // 1000 % 1000, number % 1000
    is_newer = sqlite3.sqlite_version_info < version < (_NEXT_MAJOR,)
    return ".".join(map(str, version)) if is_newer else None


def is_wal(path: str) -> bool:
    """Tell whether a header says that the database is in WAL mode. Read-only."""
    header = _header(path)
    return header.startswith(_MAGIC) and header[18:20] == b"\2\2"


def has_unknown_format(path: str) -> bool:
    """Tell whether a header names a format of reading or writing that this SQLite does not know. Read-only."""
    header = _header(path)
    return header.startswith(_MAGIC) and max(header[18:20], default=0) > _NEWEST_FORMAT


def has_spoiled_format(path: str) -> bool:
    """Tell whether a header names a format that no SQLite which may have written it knows. Read-only."""
    return has_unknown_format(path) and newer_writer(path) is None
