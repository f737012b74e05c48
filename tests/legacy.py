"""The databases that the old services leave, and what a database holds, told exactly."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from vecmigrate.testing.shapes import (
    EPOCH,
    LEGACY_SQL,
    OUR_TABLES,
    OUR_VIEW,
    RELEASED_SQL,
    SERVICE_TABLES,
    SHAPES,
    SOURCE_ROWS,
    STORES_SQL,
    build,
)

__all__ = [
    "EPOCH",
    "LEGACY_SQL",
    "OUR_TABLES",
    "OUR_VIEW",
    "RELEASED_SQL",
    "SERVICE_TABLES",
    "SHAPES",
    "SOURCE_ROWS",
    "STORES_SQL",
    "add_fractions",
    "build",
    "digest",
    "execute",
    "opened",
    "query",
    "revision",
    "rows",
    "schema",
    "service_digest",
    "tables",
    "tree",
]


def add_fractions(path: Path) -> int:
    """Give some sessions of a released database a time that has to be converted; return how many."""
    some = [f"vs_u{n:05d}" for n in (1, 2, 4, 5, 7, 8)]
    with opened(path) as connection:
        query = "UPDATE vector_stores SET created_at = created_at + 0.5 WHERE vector_store_id = ?"
        return connection.executemany(query, [(each,) for each in some]).rowcount


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[sqlite3.Connection]:
    """Open a file in autocommit mode; commits nothing by itself, closes at the end."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def execute(path: Path | str, *statements: str) -> None:
    with opened(path) as connection:
        for statement in statements:
            connection.execute(statement)


def query(path: Path | str, statement: str, *values: object) -> list[tuple[object, ...]]:
    with opened(path) as connection:
        return connection.execute(statement, values).fetchall()


def _is_tool(name: str) -> bool:
    return "vecmigrate" in name


def schema(path: Path | str) -> dict[tuple[str, str], str]:
    """Return (type, name) -> SQL of every object but those of the tool itself."""
    found = query(path, "SELECT type, name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name")
    return {(str(kind), str(name)): str(sql) for kind, name, sql in found if not _is_tool(str(name))}


def tables(path: Path | str) -> set[str]:
    """Return the names of all tables, those of the tool too."""
    return {str(name) for (name,) in query(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def rows(path: Path | str, table: str) -> list[tuple[str, ...]]:
    """Return every row as storage classes and exact values, sorted."""
    with opened(path) as connection:
        return _rows(connection, table)


def _rows(connection: sqlite3.Connection, table: str, *, rowid: bool = False) -> list[tuple[str, ...]]:
    names = [row[1] for row in connection.execute(f'PRAGMA table_xinfo("{table}")') if row[6] != 1]
    cells = [_exact(f'"{name}"') for name in names] + ([_exact("rowid")] if rowid else [])
    found = connection.execute(f'SELECT {", ".join(cells)} FROM "{table}"')
    return sorted(tuple(f"{kind} {value!r}" for kind, value in zip(row[::2], row[1::2], strict=True)) for row in found)


def _exact(column: str) -> str:
    return f"typeof({column}), CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) ELSE {column} END"


def _digest(found: list[tuple[str, ...]]) -> str:
    return f"{len(found)} rows {hashlib.sha256(repr(found).encode()).hexdigest()[:16]}"


def digest(path: Path | str) -> dict[str, object]:
    """Return what a database holds but for the tool's own tables: SQL of everything, rows of every table."""
    objects = schema(path)
    with opened(path) as connection:
        held = {name: _digest(_rows(connection, name)) for kind, name in objects if kind == "table"}
    return {"sql": objects, "rows": held}


def service_digest(path: Path | str) -> dict[str, object]:
    """Return all that is the service's own: SQL, rows with their rowids, and the settings of the file."""
    ours = OUR_TABLES | {OUR_VIEW}
    with opened(path) as connection:
        found = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master").fetchall()
        objects = {(row[0], row[1]): row[3] for row in found if not _is_tool(row[2]) and row[2] not in ours}
        names = [name for kind, name in objects if kind == "table"]
        held = {name: _digest(_rows(connection, name, rowid=_has_rowid(connection, name))) for name in names}
        pragmas = ("user_version", "application_id", "journal_mode", "page_size", "auto_vacuum", "encoding")
        settings = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
    return {"sql": objects, "rows": held, "settings": settings}


def _has_rowid(connection: sqlite3.Connection, table: str) -> bool:
    try:
        connection.execute(f'SELECT rowid FROM "{table}" LIMIT 0')
    except sqlite3.OperationalError:
        return False
    return True


def tree(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return every file below a folder with its mode, time of change and hash, to show that nothing was written."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


def revision(path: Path | str) -> str | None:
    """Return the revision in the database, None at base or without a version table."""
    if "vecmigrate_version" not in tables(path):
        return None
    found = query(path, "SELECT version_num FROM vecmigrate_version")
    return str(found[0][0]) if found else None
