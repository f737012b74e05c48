"""Many short transactions on one database, beside services, other workers and runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine

from vecmigrate.engine import Database, engine_of, reading, translated, unusable, writing
from vecmigrate.locks import wait_to_read_sqlite

__all__ = ["Turns"]


class Turns:
    """A database whose connections are kept from one short transaction to the next. Nothing is opened before the first.

    Between two transactions nothing is locked. A file that somebody has put in place of this one meanwhile is opened
    anew, and one that is gone is not made again. ``lock_timeout`` is in seconds, for each transaction.
    """

    def __init__(self, database: Database, *, lock_timeout: float) -> None:
        self._database = database
        self._timeout = lock_timeout
        self._engines: dict[bool, Engine] = {}
        self._kept: dict[bool, Connection] = {}
        self._file: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one state of the database. Raises DatabaseUnusableError, LockTimeoutError."""
        if self._database.engine is not None:
            with reading(self._database, timeout=self._timeout) as connection:
                yield connection
            return
        with self._turn(read_only=True) as connection, connection.begin() as transaction:
            if self._database.path is not None:
                wait_to_read_sqlite(str(self._database), connection, self._timeout)
            yield connection
            transaction.rollback()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Change the database while no migration does, and commit. Raises DatabaseUnusableError, LockTimeoutError."""
        if self._database.engine is not None:
            with writing(self._database, lock_timeout=self._timeout) as connection:
                yield connection
            return
        with self._turn(read_only=False) as connection, connection.begin():
            yield connection

    @contextmanager
    def _turn(self, *, read_only: bool) -> Iterator[Connection]:
        try:
            with translated(self._database):
                self._require_same_file()
                if read_only not in self._kept:
                    self._kept[read_only] = self._engine(read_only=read_only).connect()
                yield self._kept[read_only]
        except BaseException:
            # Whatever is left of the transaction goes with the connection.
            self._close()
            raise

    def _engine(self, *, read_only: bool) -> Engine:
        # Kept, because what SQLAlchemy has compiled is kept with it.
        if read_only not in self._engines:
            made = engine_of(self._database, timeout=self._timeout, read_only=read_only, shared=True)
            self._engines[read_only] = made
        return self._engines[read_only]

    def _require_same_file(self) -> None:
        if self._database.is_absent():
            raise unusable(self._database, FileNotFoundError())
        if self._database.path is None:
            return
        status = os.stat(self._database.path)
        if (status.st_dev, status.st_ino) != self._file:
            self._close()
            self._file = (status.st_dev, status.st_ino)

    def _close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()
