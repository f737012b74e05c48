"""What was in the database before us: known shapes are adopted, anything else stops the run."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from alembic.script import Script
from sqlalchemy import Connection, delete, insert, inspect, select

from vecmigrate.catalog import Object, column_names, objects
from vecmigrate.errors import NotOursError
from vecmigrate.schema import ADOPTED, VERSION_TABLE, tool_metadata
from vecmigrate.shapes import Shapes, adopts, adopts_views

__all__ = ["adopt", "adopted_tables", "forget", "put", "require_known_shapes", "require_own_tables", "rows"]

_TOOL = {name: (frozenset(table.columns.keys()),) for name, table in tool_metadata.tables.items()} | {
    VERSION_TABLE: (frozenset({"version_num"}),)
}


def require_known_shapes(
    connection: Connection, shapes: Shapes, revision: str | None, pending: Iterable[Script]
) -> None:
    """Stop where something has a name that pending scripts need and is something else. Read-only.

    What the scripts up to ``revision``, that of the database, made is ours whatever it looks like. What one above it
    adopts must have a shape that it names, and what a ``pending`` one makes must not be there. Raises NotOursError
    that names every such object and how it differs.
    """
    made = shapes.at(revision).tables
    found = [each for each in objects(connection) if each.name.lower() not in made]
    wanted: dict[str, tuple[frozenset[str], ...]] = {}
    for script in pending:
        wanted |= dict.fromkeys(shapes.at(script.revision).tables, ())
    for script in shapes.scripts(above=revision):
        wanted |= adopts(script)
    _refuse(_differences(connection, found, wanted) + _foreign_indexes(found, shapes))


def require_own_tables(connection: Connection) -> None:
    """Stop where a table of the tool itself is something else, so that nothing in it can be read. Read-only.

    A newer version may have added columns to it. Raises NotOursError.
    """
    present = [each for each in objects(connection) if each.name in _TOOL]
    readable = {each.name: (_TOOL[each.name][0] | column_names(connection, each.name),) for each in present}
    _refuse(_differences(connection, present, readable))


def _differences(
    connection: Connection, present: Iterable[Object], shapes: Mapping[str, tuple[frozenset[str], ...]]
) -> list[str]:
    found = (_difference(connection, each, shapes.get(each.name.lower())) for each in present)
    return [fault for fault in found if fault is not None]


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise NotOursError(
            f"The database has objects with names of vecmigrate that are not vecmigrate's:\n{listed}\n"
            "Nothing was changed.",
            next_step="rename these objects, or keep the tables of vecmigrate in a database of their own",
        )


def _difference(connection: Connection, found: Object, shapes: tuple[frozenset[str], ...] | None) -> str | None:
    if shapes is None or found.type in {"index", "trigger"}:
        return None
    if found.type != "table" or found.is_virtual:
        return f"{found.name} is a {found.type if found.type != 'table' else 'virtual table'}, not a table"
    if found.is_without_rowid:
        return f"{found.name} is a table WITHOUT ROWID, which no released version made"
    if not shapes:
        return f"{found.name} is there already, and no released service made such a table"
    columns = column_names(connection, found.name)
    if columns in shapes:
        return None
    nearest = min(shapes, key=lambda shape: len(shape ^ columns))
    parts = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (("has the unknown columns", columns - nearest), ("lacks the columns", nearest - columns))
        if names
    ]
    return f"{found.name} {' and '.join(parts)}"


def _foreign_indexes(present: Iterable[Object], shapes: Shapes) -> list[str]:
    """Return the faults of indexes that have a name we need, on tables that are not ours."""
    needed = shapes.every.indexes
    return [
        f"the index {found.name} is on {found.table}"
        for found in present
        if found.type == "index" and found.name.lower() in needed and found.table.lower() not in shapes.tables
    ]


def adopt(connection: Connection, shapes: Shapes, script: Script, below: str | None) -> None:
    """Keep the SQL of what a script finds there that it adopts, just before it runs. Writes.

    Of a table that the scripts ``below`` made nothing is kept.
    """
    tables = adopts(script).keys() - shapes.at(below).tables.keys()
    views = set(adopts_views(script))
    if not tables | views:
        return
    kept = [
        each for each in rows(connection) if not _is_of(each["type"], each["name"], each["table_name"], tables, views)
    ]
    for each in objects(connection):
        # The index of a constraint has no SQL of its own.
        is_made = each.sql or each.type != "index"
        if is_made and _is_of(each.type, each.name, each.table, tables, views):
            kept.append({"type": each.type, "name": each.name, "table_name": each.table, "sql": each.sql})
    put(connection, kept)


def _is_of(kind: str, name: str, table: str, tables: Collection[str], views: Collection[str]) -> bool:
    if kind in {"table", "index"}:
        return table.lower() in tables
    return kind == "view" and name.lower() in views


def adopted_tables(connection: Connection) -> set[str]:
    """Return the tables that were there before us, by our names for them. Read-only."""
    return {each["name"].lower() for each in rows(connection) if each["type"] == "table"}


def rows(connection: Connection) -> list[dict[str, str]]:
    """Return what is kept of the adopted objects. Read-only."""
    if not inspect(connection).has_table(ADOPTED.name):
        return []
    return [dict(row) for row in connection.execute(select(ADOPTED)).mappings()]


def put(connection: Connection, kept: list[dict[str, str]]) -> None:
    """Replace what is kept of the adopted objects. Writes."""
    connection.execute(delete(ADOPTED))
    if kept:
        connection.execute(insert(ADOPTED), kept)


def forget(connection: Connection) -> None:
    """Give up what was adopted, at base. Writes."""
    connection.execute(delete(ADOPTED))
