"""The contest of staged rows for the unique keys of the new table, and where each of them ends."""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.cells import PAGE, driver_sql, insert, insert_into
from vecmigrate.operations.v1.kept_rows import RESTORE
from vecmigrate.operations.v1.staging import Stage

__all__ = ["land", "wanted_keys"]

_TAKEN = "already taken by a row that is protected, active or newer"
_TAKEN_SINCE = "taken by another row while this one waited; it comes back by an upgrade once that is gone"
_PRESERVED = (
    "revision, direction, source_table, row, landed, target_key, converted, reason, preserved_at, treatment, memory, "
    "operation, source_rowid"
)


def wanted_keys(stage: Stage, new: str) -> str:
    """Return a query of the primary keys of rows in the new table that have a key which a staged row wants."""
    primary, keys = quoted(stage.change.key), map(quoted, stage.change.keys)
    # CROSS JOIN makes SQLite look from the table that has no index for this.
    return " UNION ".join(
        f"SELECT n.{primary} FROM {quoted(new)} n WHERE n.{key} IN (SELECT s.{key} FROM vecmigrate_stage s)"
        for key in keys
    )


def land(stage: Stage, new: str) -> None:
    """Land what is staged, the best first; who finds a key taken is set aside, or goes on waiting."""
    _decide(stage)
    _insert(stage, new)
    _keep(stage)
    stage.connection.exec_driver_sql("DROP TABLE vecmigrate_lost")


def _decide(stage: Stage) -> None:
    """Write down which rows lose, and by which key. Only rows that share a key with another one can."""
    run, keys = stage.connection.exec_driver_sql, list(map(quoted, stage.change.keys))
    for number, key in enumerate(keys):
        run(f"CREATE INDEX vecmigrate_stage_{number} ON vecmigrate_stage ({key})")
    run("CREATE TEMPORARY TABLE vecmigrate_lost (pos INTEGER PRIMARY KEY, key TEXT)")
    twin = " OR ".join(
        f"s.{key} IN (SELECT o.{key} FROM vecmigrate_stage o WHERE o.{key} IS NOT NULL GROUP BY o.{key} "
        "HAVING count(*) > 1)"
        for key in keys
    )
    order = "priority, rank1 DESC, rank2 DESC, rank3 DESC, rank4 DESC, tie, original, pos"
    serial = "INTEGER" if is_sqlite(stage.connection) else "SERIAL"
    run(f"CREATE TEMPORARY TABLE vecmigrate_contest (place {serial} PRIMARY KEY, pos INTEGER)")
    run(f"INSERT INTO vecmigrate_contest (pos) SELECT s.pos FROM vecmigrate_stage s WHERE {twin} ORDER BY {order}")
    run("CREATE TEMPORARY TABLE vecmigrate_won (key INTEGER, value TEXT, PRIMARY KEY (key, value))")
    for page in _contested(stage, keys):
        _decide_page(stage.connection, page, stage.change.keys)
    run("DROP TABLE vecmigrate_won")
    run("DROP TABLE vecmigrate_contest")


def _contested(stage: Stage, keys: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Yield the contested rows, the best first, each with its keys and whether a better one has them."""
    taken = ", ".join(
        f"EXISTS (SELECT 1 FROM vecmigrate_won w WHERE w.key = {number} AND w.value = s.{key})"
        for number, key in enumerate(keys)
    )
    query = (
        f"SELECT c.place, s.pos, {', '.join(f's.{key}' for key in keys)}, {taken} FROM vecmigrate_contest c "
        f"JOIN vecmigrate_stage s ON s.pos = c.pos WHERE c.place > ? ORDER BY c.place LIMIT {PAGE}"
    )
    statement, last = driver_sql(stage.connection, query), 0
    while page := stage.connection.exec_driver_sql(statement, (last,)).all():
        yield page
        last = page[-1][0]


def _decide_page(connection: sa.Connection, page: Sequence[Any], keys: Sequence[str]) -> None:
    won: set[tuple[int, str]] = set()
    lost = []
    for _, pos, *found in page:
        values, taken = found[: len(keys)], found[len(keys) :]
        wants = [(number, value) for number, value in enumerate(values) if value is not None]
        beaten = [keys[number] for number, value in wants if taken[number] or (number, value) in won]
        if beaten:
            lost.append((pos, beaten[0]))
        else:
            won.update(wants)
    insert(connection, "vecmigrate_won", ("key", "value"), sorted(won))
    insert(connection, "vecmigrate_lost", ("pos", "key"), lost)


_LANDS = "NOT EXISTS (SELECT 1 FROM vecmigrate_lost l WHERE l.pos = s.pos)"


def _insert(stage: Stage, new: str) -> None:
    """Insert the rows that land, those that keep their rowid first: new rowids come after all others."""
    columns = stage.change.column_list()
    names, values, order = columns, columns, "s.pos"
    if is_sqlite(stage.connection):
        _free_rowids(stage, new)
        names, values, order = f"rowid, {columns}", f"row_key, {columns}", "row_key IS NULL, row_key, s.pos"
    into = f"{insert_into(stage.connection, new)} ({names})"
    stage.connection.exec_driver_sql(f"{into} SELECT {values} FROM vecmigrate_stage s WHERE {_LANDS} ORDER BY {order}")


def _free_rowids(stage: Stage, new: str) -> None:
    """Let rows that come back lie where they lay, but where another row lies by now."""
    run = stage.connection.exec_driver_sql
    run("CREATE INDEX vecmigrate_stage_row_key ON vecmigrate_stage (row_key)")
    taken = f"row_key IN (SELECT n.rowid FROM {quoted(new)} n)"
    twin = (
        "EXISTS (SELECT 1 FROM vecmigrate_stage o WHERE o.row_key = vecmigrate_stage.row_key "
        "AND (o.record IS NULL OR o.pos < vecmigrate_stage.pos))"
    )
    run(f"UPDATE vecmigrate_stage SET row_key = NULL WHERE record IS NOT NULL AND ({taken} OR {twin})")


def _keep(stage: Stage) -> None:
    """Keep the originals of what was converted and of what lost; forget the kept rows that came back."""
    kept, source = stage.kept, stage.change.table
    run = stage.connection.exec_driver_sql
    facts = (kept.revision, source, kept.now, RESTORE, kept.operation)
    into = f"INSERT INTO vecmigrate_preserved ({_PRESERVED}) SELECT ?, 'upgrade', ?,"
    # The parameters of one INSERT stand in the order of its columns.
    landed = (
        f"{into} s.original, 1, s.{quoted(stage.change.key)}, s.landing, s.reason, ?, ?, NULL, ?, NULL "
        f"FROM vecmigrate_stage s WHERE s.record IS NULL AND s.reason IS NOT NULL AND {_LANDS} ORDER BY s.pos"
    )
    lost = (
        f"{into} s.original, 0, NULL, NULL, l.key || ': {_TAKEN}', ?, ?, s.memory, ?, s.row_key "
        "FROM vecmigrate_stage s JOIN vecmigrate_lost l ON l.pos = s.pos WHERE s.record IS NULL ORDER BY s.pos"
    )
    for statement in (landed, lost):
        run(driver_sql(stage.connection, statement), facts)
    _keep_memories(stage)
    run(f"DELETE FROM vecmigrate_preserved WHERE id IN (SELECT s.record FROM vecmigrate_stage s WHERE {_LANDS})")
    run("CREATE TEMPORARY TABLE vecmigrate_waiting (record INTEGER PRIMARY KEY, key TEXT)")
    run(
        "INSERT INTO vecmigrate_waiting (record, key) SELECT s.record, l.key FROM vecmigrate_stage s "
        "JOIN vecmigrate_lost l ON l.pos = s.pos WHERE s.record IS NOT NULL"
    )
    run(
        f"UPDATE vecmigrate_preserved SET reason = (SELECT w.key || ': {_TAKEN_SINCE}' FROM vecmigrate_waiting w "
        "WHERE w.record = vecmigrate_preserved.id) WHERE id IN (SELECT w.record FROM vecmigrate_waiting w)"
    )
    run("DROP TABLE vecmigrate_waiting")


def _keep_memories(stage: Stage) -> None:
    """Keep again what was known of rows that come back now."""
    key = quoted(stage.change.key)
    query = (
        f"SELECT s.pos, s.memory, s.{key} FROM vecmigrate_stage s WHERE s.record IS NOT NULL "
        f"AND s.memory IS NOT NULL AND s.pos > ? AND {_LANDS} ORDER BY s.pos LIMIT {PAGE}"
    )
    statement, last = driver_sql(stage.connection, query), 0
    while page := stage.connection.exec_driver_sql(statement, (last,)).all():
        stage.kept.add([stage.kept.remembered(memory, "upgrade", target_key=value) for _, memory, value in page])
        last = page[-1][0]
