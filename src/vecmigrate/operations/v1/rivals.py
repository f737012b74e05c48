"""Why a row waits: another row has its key now, or that is no longer so and it waits as long as nobody edits it.

A row that a unique rule refused goes back as it was. On its next way it may land if its rival is here now and gone
then. If the rival is gone already, its landing would make a row that was not there before.
"""

from collections.abc import Sequence

from vecmigrate.catalog import quoted
from vecmigrate.operations.v1.cells import insert, run
from vecmigrate.operations.v1.change import Way
from vecmigrate.operations.v1.codec import Row
from vecmigrate.operations.v1.exchange import Tables
from vecmigrate.operations.v1.kept_rows import RESTORE, WAIT, WAIT_WHILE_TAKEN, KeptRow, KeptRows
from vecmigrate.operations.v1.mirror import Mirror
from vecmigrate.operations.v1.one_row import OneRow
from vecmigrate.operations.v1.readers import UnfitError

__all__ = ["mark_rivals"]

_RIVALS = "vecmigrate_rivals"


def mark_rivals(kept: KeptRows, tables: Tables, way: Way, *, again: OneRow, mirror: Mirror) -> None:
    """Note for each row that the opposite way set aside, and that waits, whether a row of the source has its key now.

    *again* turns rows of the target into rows of the source, as the next way does; *mirror* is that of the source.
    """
    connection, source = kept.connection, tables.source
    uniques = [sorted(names) for names in source.uniques if names <= source.by_name.keys()]
    columns = sorted({name for names in uniques for name in names})
    types = [
        f"{quoted(name)} {source.column(name).affinity if source.sql else source.column(name).type}" for name in columns
    ]
    run(connection, f"CREATE TEMPORARY TABLE {_RIVALS} (kept_row INTEGER PRIMARY KEY, {', '.join(types)})")
    for page in kept.pages(way.opposite, way.table, landed=0):
        found = [(each, row) for each in page if each.treatment != RESTORE and (row := _again(each, again, mirror))]
        values = [(each.id, *(_by_name(row).get(name) for name in columns)) for each, row in found]
        if values:
            insert(connection, _RIVALS, ("kept_row", *columns), values)
    _mark(kept, tables, way, uniques)
    run(connection, f"DROP TABLE {_RIVALS}")


def _again(kept: KeptRow, again: OneRow, mirror: Mirror) -> Row | None:
    try:
        row = again.converted(kept.row, None, None, f"a kept row of {kept.source_table}")
    except UnfitError:
        return None
    return mirror.stored([row])[0]


def _by_name(row: Row) -> Row:
    return {name.lower(): value for name, value in row.items()}


def _mark(kept: KeptRows, tables: Tables, way: Way, uniques: Sequence[Sequence[str]]) -> None:
    waiting = "revision = ? AND operation = ? AND direction = ? AND source_table = ? AND landed = 0 AND treatment <> ?"
    values = (kept.revision, kept.operation, way.opposite, way.table, RESTORE)
    run(kept.connection, f"UPDATE vecmigrate_preserved SET treatment = ? WHERE {waiting}", (WAIT, *values))
    for names in uniques:
        same = " AND ".join(f"s.{quoted(name)} = w.{quoted(name)}" for name in names)
        taken = f"SELECT w.kept_row FROM {_RIVALS} w JOIN {quoted(tables.rows)} s ON {same}"
        run(
            kept.connection, f"UPDATE vecmigrate_preserved SET treatment = ? WHERE id IN ({taken})", (WAIT_WHILE_TAKEN,)
        )
