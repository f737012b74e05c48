"""The operations as an SQL script, which is the way of an empty database: nothing there needs to be converted."""

from alembic.operations import Operations

from vecmigrate.operations.v1.change import Way, affinity

__all__ = ["kept_script", "rebuild_script", "require_empty", "returned_script"]


def require_empty(operations: Operations, *tables: str) -> None:
    """Emit SQL that fails where there are rows: only a run on the database itself can convert them."""
    operations.execute(
        "CREATE TEMPORARY TABLE vecmigrate_offline (found INTEGER, "
        "CONSTRAINT ck_vecmigrate_sql_is_for_an_empty_database CHECK (found = 0))"
    )
    for table in tables:
        operations.execute(f"INSERT INTO vecmigrate_offline (found) SELECT count(*) FROM {table}")
    operations.execute("DROP TABLE vecmigrate_offline")


def rebuild_script(operations: Operations, way: Way) -> None:
    """Emit the guard and the plain changes of the columns."""
    require_empty(operations, way.table)
    for column in way.gone:
        operations.execute(f"ALTER TABLE {way.table} DROP COLUMN {column.name}")
    for old, new in way.turned:
        if old.name != new.name:
            operations.execute(f"ALTER TABLE {way.table} RENAME COLUMN {old.name} TO {new.name}")
        if affinity(old) != affinity(new) or old.nullable != new.nullable:
            # An empty table loses nothing by this, and SQLite has no other statement for it.
            operations.execute(f"ALTER TABLE {way.table} DROP COLUMN {new.name}")
            operations.add_column(way.table, new._copy())  # noqa: SLF001
    for column in way.come:
        operations.add_column(way.table, column._copy())  # noqa: SLF001


def kept_script(operations: Operations, table: str, _revision: str) -> None:
    """Emit the guard: a script keeps no rows."""
    require_empty(operations, table)


def returned_script(_operations: Operations, _table: str, _revision: str) -> None:
    """Emit nothing: a script kept no rows."""
