"""PostgreSQL: the rows are staged, and the table is altered while it is empty, so that what hangs on it stays."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic.operations import Operations

from vecmigrate.operations.v1.change import Way
from vecmigrate.operations.v1.exchange import Tables
from vecmigrate.operations.v1.present import PresentTable

__all__ = ["in_place"]


@contextmanager
def in_place(connection: sa.Connection, operations: Operations, way: Way, source: PresentTable) -> Iterator[Tables]:
    raise NotImplementedError
    yield
