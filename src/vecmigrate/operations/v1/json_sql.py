"""Rows as JSON made and read by the database, for values that look the same there as in the codec."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1.present import PresentColumn

__all__ = ["is_simple", "json_row", "key_sql", "read_value", "value_is_simple"]


def is_simple(connection: sa.Connection, columns: Iterable[PresentColumn], *, table: str = "s") -> str:
    """Return the condition that the database writes the values as the codec does: NULL, integers, text without NUL.

    Text that is no UTF-8 has to be found by ``plain.mark_undecodable``.
    """
    return " AND ".join(_is_simple(connection, column, table) for column in columns) or "TRUE"


def _is_simple(connection: sa.Connection, column: PresentColumn, table: str) -> str:
    if not is_sqlite(connection):
        return "TRUE" if column.is_simple else "FALSE"
    name = f"{table}.{quoted(column.name)}"
    is_text = f"typeof({name}) = 'text' AND instr(CAST({name} AS BLOB), x'00') = 0"
    return f"(typeof({name}) IN ('integer', 'null') OR ({is_text}))"


def json_row(connection: sa.Connection, values: Sequence[tuple[str, str]]) -> str:
    """Return the expression of a JSON object with these names and expressions."""
    pairs = ", ".join(f"'{name}', {value}" for name, value in values)
    return f"json_object({pairs})" if is_sqlite(connection) else f"json_build_object({pairs})::text"


def key_sql(connection: sa.Connection, values: Sequence[str]) -> str:
    """Return the expression of ``codec.key_text`` over the expressions of a key."""
    if len(values) == 1:
        return f"CAST({values[0]} AS TEXT)"
    made = "json_array" if is_sqlite(connection) else "json_build_array"
    found = f"{made}({', '.join(values)})"
    return found if is_sqlite(connection) else f"{found}::text"


def read_value(connection: sa.Connection, document: str, name: str, type_: str) -> str:
    """Return the expression of one value of a JSON object that is a column of *document*."""
    if is_sqlite(connection):
        return f"json_extract({document}, '$.\"{name}\"')"
    return f"CAST(CAST({document} AS json) ->> '{name}' AS {type_})"


def value_is_simple(connection: sa.Connection, document: str, name: str) -> str:
    """Return the condition that ``read_value`` gives exactly what the codec would."""
    if is_sqlite(connection):
        return f"coalesce(json_type({document}, '$.\"{name}\"') IN ('null', 'integer', 'text'), 0)"
    kind = f"json_typeof(CAST({document} AS json) -> '{name}')"
    return f"coalesce({kind} IN ('null', 'number', 'string'), FALSE)"
