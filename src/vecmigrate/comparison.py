"""Two databases compared by what they hold."""

import contextlib
import marshal
import os
import sqlite3
from collections.abc import Iterator
from functools import partial
from itertools import zip_longest

from vecmigrate import sqlite_files

__all__ = ["same_bytes", "same_content"]

_BATCH = 64
_CHUNK = 1 << 20
OF_THE_TOOL = frozenset({b"vecmigrate_history", b"vecmigrate_meta"})


def same_bytes(one: str, other: str) -> bool:
    """Tell whether two paths name files of the same bytes, or nothing both. Raises OSError. Read-only."""
    if not os.path.lexists(one) or not os.path.lexists(other):
        return os.path.lexists(one) == os.path.lexists(other)
    if os.path.samefile(one, other):
        return True
    with open(one, "rb") as first, open(other, "rb") as second:
        chunks = zip_longest(iter(partial(first.read, _CHUNK), b""), iter(partial(second.read, _CHUNK), b""))
        return all(ours == theirs for ours, theirs in chunks)


def same_content(backup_path: str, live: sqlite3.Connection, *, ignored: frozenset[bytes] = OF_THE_TOOL) -> bool:
    """Tell whether a database holds what a closed file does, but for some tables: history and meta table.

    Objects and rows are compared by value and storage class. Read-only and in flat memory; ends at the first
    difference. *live* must have no transaction open.
    """
    try:
        with contextlib.closing(sqlite_files.open_closed_file(backup_path)) as closed:
            return _is_same(closed, live, ignored)
    except (sqlite3.Error, OSError, UnicodeError):
        return False


def _is_same(closed: sqlite3.Connection, live: sqlite3.Connection, ignored: frozenset[bytes]) -> bool:
    try:
        for connection in (closed, live):
            # Text comes wrapped, so that it is neither decoded nor taken for a BLOB.
            connection.text_factory = lambda text: (text,)
            connection.execute("BEGIN")
        return all(one == other for one, other in zip_longest(_content(closed, ignored), _content(live, ignored)))
    finally:
        live.text_factory = str
        live.rollback()


def _content(connection: sqlite3.Connection, ignored: frozenset[bytes]) -> Iterator[bytes]:
    """Yield the logical content, as bytes because ``1`` and ``1.0`` are equal in Python."""
    for name in ("encoding", "user_version", "application_id"):
        yield marshal.dumps(connection.execute(f"PRAGMA {name}").fetchall(), 2)
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2, 3"
    objects = [row for row in connection.execute(query) if row[2][0] not in ignored]
    yield marshal.dumps(objects, 2)
    for (kind,), (name,), _, sql in objects:
        if kind == b"table" and not (sql and sql[0].upper().startswith(b"CREATE VIRTUAL")):
            yield from _rows(connection, name)


def _rows(connection: sqlite3.Connection, table: bytes) -> Iterator[bytes]:
    quoted = '"{}"'.format(table.decode("utf-8").replace('"', '""'))
    columns = [name.lower() for _, (name,), *_ in connection.execute(f"PRAGMA table_xinfo({quoted})")]
    rowid = next((name for name in ("rowid", "_rowid_", "oid") if name.encode() not in columns), None)
    # Without an index the rows come in the order of the table itself, the same on both sides.
    try:
        rows = connection.execute(f"SELECT {rowid}, * FROM {quoted} NOT INDEXED")
    except sqlite3.OperationalError:
        # WITHOUT ROWID, or all three names are taken by columns.
        rows = connection.execute(f"SELECT * FROM {quoted} NOT INDEXED")
    while batch := rows.fetchmany(_BATCH):
        yield marshal.dumps(batch, 2)
