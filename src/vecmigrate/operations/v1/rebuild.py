"""A table in another shape, with its rows: what ``rebuild_table`` and ``restore_table`` do.

The rules, for each row and in either direction:

- A row moves inside the database, set by set, if it keeps its values there. The others pass through Python.
- What there and back would not give again, by value and storage class, is kept: the key and the changed
  columns of the row (all of it where functions need it), and what it became.
- A row that has no value where one is needed, or that the rules of the new table refuse, is set aside whole.
- What the other direction kept of a row returns, column by column, where the present value is still the one
  that the row became then. A row that was deleted since stays deleted, and what was kept goes in any case.
- A row that the other direction set aside comes back if its key is free and the rules of the table admit it;
  else it stays aside. It is set aside again on its next way unless somebody edits it, or unless what kept it
  out (another row with its key) is gone.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa
from alembic.operations import Operations

from vecmigrate.catalog import is_sqlite
from vecmigrate.operations.v1 import plain
from vecmigrate.operations.v1.cells import count
from vecmigrate.operations.v1.change import Change, Way
from vecmigrate.operations.v1.exchange import Tables, exchange
from vecmigrate.operations.v1.in_place import in_place
from vecmigrate.operations.v1.kept_rows import KeptRows
from vecmigrate.operations.v1.ledger import Ledger
from vecmigrate.operations.v1.mapping import mappings
from vecmigrate.operations.v1.mirror import Mirror
from vecmigrate.operations.v1.one_row import OneRow
from vecmigrate.operations.v1.passage import Passage
from vecmigrate.operations.v1.present import PresentTable, default_of, read
from vecmigrate.operations.v1.returns import returns
from vecmigrate.operations.v1.rivals import mark_rivals
from vecmigrate.operations.v1.sets import Sets

__all__ = ["rebuild"]


def rebuild(operations: Operations, change: Change, direction: str) -> None:
    """Bring a table into its other shape. Raises ChangeError before the first write if the change is wrong."""
    connection = operations.get_bind()
    way = change.way(direction)
    source = read(connection, way.table)
    source.require(way)
    kept = KeptRows(connection, revision=way.revision, operation=way.operation)
    with _tables(connection, operations, way, source) as tables:
        ledger = Ledger(kept, direction, source=count(connection, tables.rows), tables=(way.table,))
        _move(change, way, kept, tables)
        kept.forget_landed(way.opposite, way.table)
        ledger.check(count(connection, tables.target.name))


@contextmanager
def _tables(connection: sa.Connection, operations: Operations, way: Way, source: PresentTable) -> Iterator[Tables]:
    change = exchange if is_sqlite(connection) else in_place
    with change(connection, operations, way, source) as tables:
        yield tables


def _move(change: Change, way: Way, kept: KeptRows, tables: Tables) -> None:
    connection, source, target = kept.connection, tables.source, tables.target
    conversion, again = (
        _one_row(connection, way, source, target),
        _one_row(connection, change.way(way.opposite), target, source),
    )
    is_waiting = kept.count(way.opposite, way.table, landed=0) > 0
    with ExitStack() as stack:
        stack.enter_context(plain.odd_rows(connection))
        records = stack.enter_context(returns(kept, way, source))
        maps = stack.enter_context(mappings(connection, way, tables.rows, source, target))
        mirrors = (
            stack.enter_context(Mirror(connection, "source", source, way.touched)),
            stack.enter_context(Mirror(connection, "target", target, way.target_touched)),
        )
        sets = Sets(way, kept, tables, maps=maps, records=records, gone_defaults=conversion.gone_defaults)
        sets.mark_odd()
        if is_waiting:
            mark_rivals(kept, tables, way, again=again, mirror=mirrors[0])
        sets.copy(must_be_unique=is_waiting or bool(maps) or sets.has_odd())
        sets.keep_lost()
        passage = Passage(way, kept, tables, conversion=conversion, records=records, mirrors=mirrors)
        passage.odd()
        passage.back()
        tables.drop_unique()


def _one_row(connection: sa.Connection, way: Way, source: PresentTable, target: PresentTable) -> OneRow:
    return OneRow(
        way,
        source,
        target,
        gone_defaults={column.name: default_of(connection, source.column(column.name)) for column in way.gone},
        come_defaults={column.name: default_of(connection, target.column(column.name)) for column in way.come},
        only_simple_types=is_sqlite(connection),
    )
