"""How much of a database SQLite holds in memory while rows move."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite

__all__ = ["large_cache"]

_KIB = {"main": 65_536, "temp": 16_384}
_PAGES = {"main": 0, "temp": 100}
"""What SQLite has where it tells 0: it sets no size of its own for the temporary database."""


@contextmanager
def large_cache(connection: sa.Connection) -> Iterator[None]:
    """Keep tables and indexes in memory while they are read or filled in another order than their own.

    Not for what SQLite sorts, as it does for a new index: that is slower with it.
    """
    if not is_sqlite(connection):
        yield
        return
    run = connection.exec_driver_sql
    sizes = {name: run(f"PRAGMA {name}.cache_size").scalar_one() for name in _PAGES}
    for name in _PAGES:
        run(f"PRAGMA {name}.cache_size = -{_KIB[name]}")
    try:
        yield
    finally:
        for name, size in sizes.items():
            run(f"PRAGMA {name}.cache_size = {size or _PAGES[name]}")
