"""SQL scripts instead of changes: ``--sql``."""

from collections.abc import Iterator
from typing import Any

from alembic import context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationStep
from sqlalchemy import text

from vecmigrate import revisions
from vecmigrate.catalog import database_uuid
from vecmigrate.engine import Database
from vecmigrate.schema import META, VERSION_TABLE, tool_metadata
from vecmigrate.steps import unannounced

__all__ = ["render"]


def render(database: Database, config: Config) -> None:
    """Print the SQL of the present command. It opens no database, and so is the way of an empty one."""
    with unannounced():
        context.configure(dialect_name=database.dialect, literal_binds=True)
        plan = context.get_context().opts["fn"]
    known = revisions.load(config)

    def steps(heads: tuple[str, ...], migration: MigrationContext) -> Iterator[MigrationStep]:
        planned = list(plan(heads, migration))
        if planned and planned[0].is_upgrade and not heads:
            _make_tool_tables(migration, database.dialect)
        yield from planned
        if planned:
            _note_version(migration, known, next(iter(planned[-1].to_revisions_no_deps), None))

    context.configure(
        dialect_name=database.dialect,
        fn=steps,
        literal_binds=True,
        version_table=VERSION_TABLE,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _make_tool_tables(migration: MigrationContext, dialect: str) -> None:
    for table in tool_metadata.sorted_tables:
        migration.impl.create_table(table)
    migration.execute(text(f"INSERT INTO {META.name} (key, value) VALUES ('database_id', {database_uuid(dialect)})"))


def _note_version(migration: MigrationContext, known: revisions.Revisions, revision: str | None) -> None:
    found = known.get(revision)
    values: dict[str, Any] = {
        "app_version": found and found.app_version,
        "compatible_from": found and found.compatible_from,
    }
    for key, value in values.items():
        migration.execute(META.delete().where(META.c.key == key))
        if value is not None:
            migration.execute(META.insert().values(key=key, value=value))
