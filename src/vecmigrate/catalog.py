"""What a database holds: its objects, copies of its schema, and the SQL of tables."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateIndex, CreateTable

from vecmigrate.engine import scratch
from vecmigrate.sqlite_driver import nothing
from vecmigrate.sqlite_files import triggers_of

__all__ = [
    "Object",
    "Trigger",
    "any_text",
    "as_text",
    "column_names",
    "columns_on_server",
    "database_uuid",
    "execute_many",
    "has_content",
    "is_sqlite",
    "is_there",
    "objects",
    "quoted",
    "schema_copy",
    "table_ddl",
    "table_names",
    "trigger_bodies",
    "triggers",
    "triggers_on",
    "uses_batch",
]


_MISSING = re.compile(
    r"no such function: (?P<function>.+)|no such collation sequence: (?P<collation>.+)"
    r"|wrong number of arguments to function (?P<other>.+)\(\)"
)


def is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Read text that is not UTF-8 too, which SQLite may hold: what is wrong in it is replaced by a mark."""
    if not is_sqlite(connection):
        yield
        return
    driver: Any = connection.connection.driver_connection
    before, driver.text_factory = driver.text_factory, partial(str, encoding="utf-8", errors="replace")
    try:
        yield
    finally:
        driver.text_factory = before


def as_text(value: object) -> str:
    """Return a value of any type as text, bytes decoded as far as they are UTF-8."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def has_content(connection: Connection) -> bool:
    """Tell whether the database holds anything worth a backup."""
    if is_sqlite(connection):
        return bool(connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar())
    return True


@dataclass(frozen=True)
class Object:
    """A table, index, view or trigger. ``sql`` is empty for what the database made by itself."""

    type: str
    name: str
    table: str
    sql: str

    @property
    def is_virtual(self) -> bool:
        return bool(re.match(r"\s*CREATE\s+VIRTUAL", self.sql, re.IGNORECASE))

    @property
    def is_without_rowid(self) -> bool:
        return bool(re.search(r"\bWITHOUT\s+ROWID\b[^)]*$", self.sql, re.IGNORECASE))


def objects(connection: Connection) -> list[Object]:
    """Return what the schema holds, in the order it was made. Read-only."""
    if is_sqlite(connection):
        rows = connection.exec_driver_sql(
            "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY rowid"
        )
        # Who writes the schema by hand may put bytes there.
        return [Object(*map(as_text, row)) for row in rows]
    inspector = inspect(connection)
    tables = [Object("table", name, name, "") for name in inspector.get_table_names()]
    return tables + [Object("view", name, name, "") for name in inspector.get_view_names()]


@dataclass(frozen=True)
class Trigger:
    """A trigger, with the SQL that makes it again as it is.

    ``identity`` tells it from one that was made anew; ``function`` is what it calls on PostgreSQL, else empty.
    """

    identity: object
    name: str
    table: str
    sql: str
    function: str = ""


_POSTGRESQL_TRIGGERS = """
    SELECT t.oid, t.tgname, c.relname, pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE
        format('; ALTER TABLE %I ', c.relname) || CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN
        'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END || format(' TRIGGER %I', t.tgname) END, t.tgfoid::regprocedure::text
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND pg_table_is_visible(c.oid) ORDER BY t.oid
"""


def triggers(connection: Connection) -> list[Trigger]:
    """Return all triggers, in the order they were made. Read-only."""
    if is_sqlite(connection):
        return [
            Trigger(each.name, each.name, each.table, each.sql)
            for each in objects(connection)
            if each.type == "trigger"
        ]
    rows = connection.exec_driver_sql(_POSTGRESQL_TRIGGERS, execution_options={"no_parameters": True})
    return [Trigger(*row) for row in rows]


def is_there(connection: Connection, function: str) -> bool:
    """Tell whether a function of PostgreSQL, named with its arguments, is there. Read-only."""
    if not function:
        return True
    query = text("SELECT to_regprocedure(:function) IS NOT NULL")
    return bool(connection.scalar(query, {"function": function}))


def columns_on_server(connection: Connection) -> frozenset[tuple[str, str]]:
    """Return all columns of PostgreSQL, each with its table. Read-only."""
    query = (
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 "
        "AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v') AND pg_table_is_visible(c.oid) "
        "AND c.relnamespace <> 'pg_catalog'::regnamespace"
    )
    return frozenset((table, column) for table, column in connection.exec_driver_sql(query))


def trigger_bodies(connection: Connection) -> dict[str, str]:
    """Return the source of what the triggers of PostgreSQL call, by name. Read-only.

    None on SQLite, which looks into its triggers itself.
    """
    if is_sqlite(connection):
        return {}
    query = text(
        "SELECT p.proname, p.prosrc FROM pg_proc p JOIN pg_trigger t ON t.tgfoid = p.oid "
        "WHERE NOT t.tgisinternal AND pg_function_is_visible(p.oid)"
    )
    return {row.proname: row.prosrc for row in connection.execute(query)}


def triggers_on(connection: Connection, tables: Sequence[str]) -> list[tuple[str, str]]:
    """Return the triggers (and rules of PostgreSQL) on some tables, each with its table. Read-only."""
    if is_sqlite(connection):
        driver: Any = connection.connection.driver_connection
        return triggers_of(driver, tables)
    query = text(
        "SELECT found.name, c.relname FROM pg_class c JOIN ("
        "SELECT tgname AS name, tgrelid AS id FROM pg_trigger WHERE NOT tgisinternal "
        "UNION ALL SELECT rulename, ev_class FROM pg_rewrite) found ON found.id = c.oid "
        "WHERE c.relname = ANY(:tables) AND c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid) ORDER BY 2, 1"
    )
    return [(row.name, row.relname) for row in connection.execute(query, {"tables": list(tables)})]


def table_names(connection: Connection) -> frozenset[str]:
    """Return the tables, in lower case where the database itself tells no case apart. Read-only."""
    names = inspect(connection).get_table_names()
    return frozenset(name.lower() for name in names) if is_sqlite(connection) else frozenset(names)


def column_names(connection: Connection, table: str) -> frozenset[str]:
    """Return the columns of a table, generated and hidden ones marked as such. Read-only."""
    if is_sqlite(connection):
        rows = connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(table)})")
        return frozenset(row.name.lower() if not row.hidden else f"{row.name} (generated)" for row in rows)
    return frozenset(column["name"] for column in inspect(connection).get_columns(table))


def execute_many(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a statement, with ``?`` in place of its values, for each row, by the driver itself.

    For short transactions that others wait for: SQLAlchemy takes longer to hand over the values than SQLite to write.
    """
    connection.exec_driver_sql(statement if is_sqlite(connection) else statement.replace("?", "%s"), list(rows))


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def schema_copy(
    connection: Connection,
    *,
    empty: bool = False,
    without: Collection[Object] = (),
    lacking: dict[Object, str] | None = None,
) -> Iterator[Connection | None]:
    """Open an in-memory database with the schema of an SQLite database, without its rows.

    What the service's own process gives an object (a function, a collation) is stood in for there, and noted in
    ``lacking``. What cannot be made all the same (an unknown extension) is left out, and so are ``without``, and with
    ``empty`` everything. Yields None for PostgreSQL, where DDL itself refuses to drop what others hang on.
    """
    if not is_sqlite(connection):
        yield None
        return
    with scratch() as copy:
        # A virtual table makes its shadow tables itself, so it must come before them. A damaged schema may name any
        # kind, and is refused when it is backed up.
        kinds = {"table": 1, "index": 2, "view": 3, "trigger": 4}
        ordered = sorted(objects(connection), key=lambda each: 0 if each.is_virtual else kinds.get(each.type, 5))
        for each in [] if empty else ordered:
            if each.sql and not each.name.startswith("sqlite_") and each not in without:
                _make(copy, each, {} if lacking is None else lacking)
        yield copy


def _make(copy: Connection, each: Object, lacking: dict[Object, str]) -> None:
    while True:
        try:
            copy.exec_driver_sql(each.sql).close()
        except OperationalError as error:
            missing = _missing(error)
            if missing is None or missing in lacking.get(each, ""):
                return
            _stand_in(copy, *missing.split(" ", 1))
            lacking[each] = " and ".join(filter(None, [lacking.get(each), missing]))
        else:
            return


def _missing(error: OperationalError) -> str | None:
    """Return what only the service's process has: the kind and the name of a function or collation."""
    found = _MISSING.search(str(error.orig))
    if found is None:
        return None
    return (
        f"collation {found['collation']}" if found["collation"] else f"function {found['function'] or found['other']}"
    )


def _stand_in(copy: Connection, kind: str, name: str) -> None:
    driver: Any = copy.connection.driver_connection
    if kind == "collation":
        driver.create_collation(name, lambda one, other: (one > other) - (one < other))
    else:
        driver.create_function(name, -1, nothing, deterministic=True)


def table_ddl(table: Table) -> list[str]:
    """Return the statements that make a table and its indexes on SQLite."""
    dialect = sqlite_dialect()
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    table_made = str(CreateTable(table).compile(dialect=dialect))
    return [table_made, *(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes)]


def uses_batch(dialect_name: str) -> bool:
    """Tell whether autogenerated operations need batch mode, because ALTER TABLE can do little."""
    return dialect_name == "sqlite"


def database_uuid(dialect_name: str) -> str:
    """Return the SQL expression of a new random identity, for scripts that run later."""
    return "lower(hex(randomblob(16)))" if dialect_name == "sqlite" else "replace(gen_random_uuid()::text, '-', '')"
