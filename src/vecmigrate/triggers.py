"""Triggers go with the table that they are on. Those that a script did not drop itself are put back."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import DBAPIError

from vecmigrate.catalog import Object, Trigger, columns_on_server, is_there, quoted, trigger_bodies, triggers
from vecmigrate.causes import described
from vecmigrate.errors import RunFailedError
from vecmigrate.schema import OWN_PREFIX

__all__ = ["LostTriggerError", "broken", "compiles", "kept"]

_DROPPED = re.compile(
    r"""\bDROP\s+TRIGGER\s+(?:IF\s+EXISTS\s+)?(?:\w+\.)?(?:"((?:[^"]|"")+)"|`([^`]+)`|\[([^\]]+)\]|(\w+))""",
    re.IGNORECASE,
)


class LostTriggerError(RunFailedError):
    """A script took away a trigger with its table, and it cannot be made again there."""


@contextmanager
def kept(connection: Connection, revision: str | None) -> Iterator[None]:
    """Put back, after a step, the triggers that went with a table of which there is one again.

    A trigger that a script drops by a statement of its own is the script's to drop, and so is one whose function it
    drops. Raises LostTriggerError for one that cannot be made, and for one of ours whose function is out of date.
    """
    before, bodies = triggers(connection), _own_bodies(connection)
    columns = columns_on_server(connection) if bodies else frozenset()
    dropped: set[str] = set()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        dropped.update("".join(found).replace('""', '"').lower() for found in _DROPPED.findall(statement))

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", note)
    if bodies:
        _require_current(connection, bodies, columns, revision)
    if before:
        _put_back(connection, [each for each in before if each.name.lower() not in dropped], revision)


def _put_back(connection: Connection, wanted: Iterable[Trigger], revision: str | None) -> None:
    present = {each.identity for each in triggers(connection)}
    missing = [each for each in wanted if each.identity not in present]
    if not missing:
        return
    inspector = inspect(connection)
    tables = {name.lower() for name in (*inspector.get_table_names(), *inspector.get_view_names())}
    named = {(each.table.lower(), each.name.lower()) for each in triggers(connection)}
    for each in missing:
        is_anew = (each.table.lower(), each.name.lower()) in named
        if each.table.lower() in tables and not is_anew and is_there(connection, each.function):
            _make(connection, each, revision)


def _make(connection: Connection, trigger: Trigger, revision: str | None) -> None:
    try:
        connection.exec_driver_sql(trigger.sql, execution_options={"no_parameters": True})
    except DBAPIError as error:
        raise LostTriggerError(
            f"Revision {revision} takes the trigger {trigger.name} away with the table {trigger.table}, and it does "
            f"not fit the new one: {described(error)}. Nothing was changed.",
            next_step=f"drop it in the script before ({_drop(trigger)}), and make it anew at its end as it is to be",
        ) from error


def _own_bodies(connection: Connection) -> dict[str, str]:
    """Return the source of our triggers where the database itself does not look into it."""
    return {name: body for name, body in trigger_bodies(connection).items() if name.startswith(OWN_PREFIX)}


def _require_current(
    connection: Connection, before: dict[str, str], columns: frozenset[tuple[str, str]], revision: str | None
) -> None:
    """Raise LostTriggerError for a trigger of ours that names a column which is gone, and was not made anew."""
    gone = columns - columns_on_server(connection)
    after = _own_bodies(connection) if gone else {}
    for name, body in after.items():
        words = set(re.findall(r"\w+", body))
        stale = sorted(f"{table}.{column}" for table, column in gone if {table, column} <= words)
        if stale and before.get(name) == body:
            raise LostTriggerError(
                f"After revision {revision} the trigger function {name} would not work any more, because it names "
                f"{', '.join(stale)}. Nothing was changed.",
                next_step=f"make it anew in the script (CREATE OR REPLACE FUNCTION {name}), so that it fits",
            )


def _drop(trigger: Trigger) -> str:
    return f"op.execute('DROP TRIGGER {quoted(trigger.name)}')"


# Whether they work.


def broken(connection: Connection, found: Iterable[Object], dependents: Iterable[Object]) -> Iterable[Object]:
    """Yield the views and triggers among ``dependents`` that do not work: SQLite looks only when it uses them."""
    hanging_on: dict[str, list[Object]] = {}
    for each in dependents:
        if each.type == "trigger":
            # The table is named as the trigger's author wrote it, in any case.
            hanging_on.setdefault(each.table.lower(), []).append(each)
        elif not compiles(connection, f"SELECT * FROM {quoted(each.name)}"):
            yield each
    for each in found:
        hanging = hanging_on.get(each.name.lower(), []) if each.type in {"table", "view"} else []
        if hanging and not all(compiles(connection, text) for text in _changes(connection, each.name)):
            yield from (each for each in hanging if not _works_alone(connection, each, hanging))


def _works_alone(connection: Connection, trigger: Object, hanging: Iterable[Object]) -> bool:
    """Tell whether a trigger works without the others on its table: one broken trigger breaks them all."""
    with connection.begin_nested() as savepoint:
        for other in hanging:
            if other != trigger:
                connection.exec_driver_sql(f"DROP TRIGGER {quoted(other.name)}")
        works = all(compiles(connection, text) for text in _changes(connection, trigger.table))
        savepoint.rollback()
    return works


def _changes(connection: Connection, table: str) -> Iterable[str]:
    """Yield statements that make SQLite compile every trigger on a table."""
    name = quoted(table)
    columns = [quoted(row.name) for row in connection.exec_driver_sql(f"PRAGMA table_xinfo({name})") if not row.hidden]
    yield f"INSERT INTO {name}({columns[0]}) VALUES (NULL)"
    yield f"UPDATE {name} SET " + ", ".join(f"{column} = NULL" for column in columns)
    yield f"DELETE FROM {name}"


def compiles(connection: Connection, statement: str) -> bool:
    """Tell whether SQLite would run a statement. Read-only."""
    try:
        connection.exec_driver_sql(f"EXPLAIN {statement}").close()
    except DBAPIError as error:
        # A view without a trigger for one of the statements is as it should be.
        return "cannot modify" in str(error.orig)
    return True
