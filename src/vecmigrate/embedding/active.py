"""Which model a service searches with. As light as the connection that it is asked over."""

from typing import Any

__all__ = ["active_model"]

_QUERY = "SELECT name FROM embedding_models WHERE state = 'active'"


def active_model(connection: Any) -> str | None:
    """Return the name of the model whose vectors are to be searched, None where none is active. Read-only.

    ``connection`` is one of ``sqlite3``, of another driver, or a Connection or Session of SQLAlchemy. Ask in the
    transaction that searches: when the models swap, name and vectors then still belong together.
    """
    if hasattr(connection, "get_bind") or hasattr(connection, "exec_driver_sql"):
        from sqlalchemy import text  # noqa: PLC0415 - whoever has a Connection of it has paid for it

        found = connection.execute(text(_QUERY)).fetchone()
    else:
        cursor = connection.cursor()
        # A service may have one that makes rows of another kind.
        cursor.row_factory = tuple_row if hasattr(connection, "pgconn") else None
        found = cursor.execute(_QUERY).fetchone()
        cursor.close()
    name = found[0] if found else None
    return name.decode() if isinstance(name, bytes) else name


def tuple_row(_cursor: Any) -> Any:
    """Make rows tuples: a row factory of psycopg."""
    return tuple
