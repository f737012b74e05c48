"""What was in the database before us: known shapes are adopted, anything else stops the run."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, insert, inspect, select

from vecmigrate.catalog import Object, column_names, objects, table_names
from vecmigrate.errors import NotOursError
from vecmigrate.schema import ADOPTED, VERSION_TABLE, metadata, tool_metadata

__all__ = [
    "adopt",
    "adopted_tables",
    "forget",
    "leftover_stores",
    "missing_tables",
    "put",
    "refresh",
    "require_known_shapes",
    "require_own_tables",
    "rows",
    "rows_dropped_at_base",
]

_LEGACY = frozenset(
    "session_id vector_store_id provider expires_at protected created_at updated_at".split()  # noqa: SIM905
)
_STORES = frozenset("store_id store_type doc_count created_at is_active".split())  # noqa: SIM905
_VIEW = "active_stores"
_OUR_MODELS = "'sentence-transformers/all-MiniLM-L6-v2', 'Salesforce/SFR-Embedding-Code-400M_R'"


def _columns(table: str) -> frozenset[str]:
    known = metadata if table in metadata.tables else tool_metadata
    return frozenset(known.tables[table].columns.keys())


_BASELINE = {
    "vector_stores": (_LEGACY, _columns("vector_stores")),
    "stores": (_STORES,),
    "vector_store_chunks": (_columns("vector_store_chunks"),),
    "embedding_models": (_columns("embedding_models"),),
    "vector_store_embeddings": (_columns("vector_store_embeddings"),),
}
"""The shapes of each table before revision 001, told by their columns."""

_TOOL = {name: (_columns(name),) for name in tool_metadata.tables} | {VERSION_TABLE: (frozenset({"version_num"}),)}
_MADE_INDEXES = frozenset({"idx_vector_stores_updated", "idx_vector_stores_expires", "idx_active_store"}) | {
    str(index.name) for index in metadata.tables["embedding_models"].indexes
}
"""The indexes of the tables that revision 000 makes."""
_LEGACY_INDEXES = frozenset({"idx_vector_stores_expires", "idx_active_store", "idx_vs_session_id", "idx_vs_name"})


def require_known_shapes(connection: Connection, revision: str | None) -> None:
    """Stop where an object has a name of ours and is something else. Read-only.

    Raises NotOursError that names every such object and how it differs.
    """
    present = objects(connection)
    shapes: dict[str, tuple[frozenset[str], ...]] = dict(_TOOL)
    if revision in {None, "000"}:
        shapes |= _BASELINE
    else:
        shapes |= {name: (_columns(name),) for name in metadata.tables} | {"stores": (_STORES,)}
    _refuse(_differences(connection, present, shapes) + _foreign_indexes(present, shapes))


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
            next_step="rename these objects, or keep the vector stores in a database of their own",
        )


def _difference(connection: Connection, found: Object, shapes: tuple[frozenset[str], ...] | None) -> str | None:
    if shapes is None or found.type in {"index", "trigger"}:
        return None
    if found.type != "table" or found.is_virtual:
        return f"{found.name} is a {found.type if found.type != 'table' else 'virtual table'}, not a table"
    if found.is_without_rowid:
        return f"{found.name} is a table WITHOUT ROWID, which no released version made"
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


def _foreign_indexes(present: Iterable[Object], shapes: Iterable[str]) -> list[str]:
    """Return the faults of indexes that have a name we need, on tables that are not ours."""
    names = {str(index.name) for table in metadata.tables.values() for index in table.indexes} | _LEGACY_INDEXES
    return [
        f"the index {found.name} is on {found.table}"
        for found in present
        if found.type == "index" and found.name.lower() in names and found.table.lower() not in shapes
    ]


def adopt(connection: Connection) -> None:
    """Keep the SQL of every object of ours that is there before the first revision. Writes."""
    _replace(connection, table_names(connection))


def refresh(connection: Connection) -> None:
    """Keep the present SQL of what was adopted: at 000 the old service may have changed it. Writes."""
    _replace(connection, adopted_tables(connection) | {"vector_stores", "stores"} & table_names(connection))


def _replace(connection: Connection, tables: Iterable[str]) -> None:
    wanted = _BASELINE.keys() & set(tables)
    kept = [
        {"type": found.type, "name": found.name, "table_name": found.table, "sql": found.sql}
        for found in objects(connection)
        if (found.type == "table" and found.table.lower() in wanted)
        or (found.type == "index" and _is_found_index(found, wanted))
        or (found.type == "view" and found.name.lower() == _VIEW)
    ]
    put(connection, kept)


def _is_found_index(index: Object, adopted: set[str]) -> bool:
    """Tell whether an index is somebody's own: on a table that we made, the service may have put one since."""
    table = index.table.lower()
    if table in adopted:
        return bool(index.sql)
    return index.sql != "" and table in _BASELINE and index.name.lower() not in _MADE_INDEXES


def adopted_tables(connection: Connection) -> set[str]:
    """Return the tables that were there before us, by our names for them. Read-only."""
    if not inspect(connection).has_table(ADOPTED.name):
        return set()
    return {name.lower() for name in connection.scalars(select(ADOPTED.c.name).where(ADOPTED.c.type == "table"))}


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


def missing_tables(connection: Connection, wanted: Connection) -> list[str]:
    """Return what tables of another database are missing here or have other columns. Read-only."""
    present = table_names(connection)
    return [
        name
        for name in sorted(table_names(wanted))
        if name in _BASELINE and (name not in present or column_names(connection, name) not in _shapes(wanted, name))
    ]


def _shapes(wanted: Connection, name: str) -> tuple[frozenset[str], ...]:
    made = column_names(wanted, name)
    # At the baseline a table may have any of its legacy shapes.
    return _BASELINE[name] if "stores" in table_names(wanted) else (made,)


def rows_dropped_at_base(connection: Connection) -> dict[str, int]:
    """Return the tables that base would drop although they hold rows, with their counts. Read-only.

    Exact at revision 000; above it a run asks again when it gets there.
    """
    kept, present = adopted_tables(connection), table_names(connection)
    counts = {}
    for name in sorted((_BASELINE.keys() & present) - kept - {"vector_stores", "stores"}):
        where = _user_rows(connection, name)
        count = connection.exec_driver_sql(f"SELECT count(*) FROM {name}{where}").scalar_one()
        if count:
            counts[name] = int(count)
    return counts


def _user_rows(connection: Connection, table: str) -> str:
    """Return the condition that leaves out rows which are not the user's, or go elsewhere on the way down."""
    if table == "embedding_models":
        return f" WHERE name NOT IN ({_OUR_MODELS})"
    if table == "vector_stores" and "name" in column_names(connection, table):
        # Named stores go back to the table stores, or are set aside.
        return " WHERE session_id IS NOT NULL"
    return ""


def forget(connection: Connection) -> None:
    """Give up what was adopted, at base. Writes."""
    connection.execute(delete(ADOPTED))


def leftover_stores(connection: Connection, revision: str | None) -> int | None:  # noqa: ARG001
    """Return the rows of a ``stores`` that an older service made again after 001, None if there is none."""
    return None
