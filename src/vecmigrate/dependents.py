"""What of the service hangs on tables of ours, and whether it outlives a change."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from vecmigrate import unknown_sql
from vecmigrate.catalog import Object, is_sqlite, objects, quoted, schema_copy
from vecmigrate.effects import Effects, watched
from vecmigrate.errors import NotOursError
from vecmigrate.locks import end_behind
from vecmigrate.schema import OWN_PREFIX
from vecmigrate.shapes import Shapes
from vecmigrate.triggers import LostTriggerError, broken

__all__ = ["Survey", "rehearse"]


class Survey:
    """What does not work in a schema: taken before and after a change, the difference is what it broke.

    What belongs to the ladder by its ``shapes`` is left out, for the scripts to make and drop. Leaves nothing
    changed: statements are compiled (EXPLAIN), not run. Empty on PostgreSQL.
    """

    def __init__(self, connection: Connection, shapes: Shapes) -> None:
        self.present: frozenset[str] = frozenset()
        self.broken: frozenset[str] = frozenset()
        self.keys: dict[str, tuple[object, ...]] = {}
        self.children: dict[str, str] = {}
        self.replaceable: dict[str, str] = {}
        self.violations: frozenset[tuple[object, ...]] = frozenset()
        if not is_sqlite(connection):
            return
        found = objects(connection)
        dependents = [each for each in found if each.type in {"view", "trigger"} and not _is_own(each, shapes)]
        self.present = frozenset(_named(each) for each in dependents)
        self.broken = frozenset(map(_named, broken(connection, found, dependents)))
        tables = [each for each in found if each.type == "table"]
        self.replaceable = {each.name: each.sql for each in tables if each.name.lower() in shapes.tables}
        for child in tables:
            self._add_keys(connection, child.name, shapes.tables)

    def _add_keys(self, connection: Connection, child: str, parents: Collection[str]) -> None:
        keys = connection.exec_driver_sql(f"PRAGMA foreign_key_list({quoted(child)})").mappings().all()
        ours = [row for row in keys if row["table"].lower() in parents]
        for row in ours:
            columns = _parent_columns(connection, row["table"], row["to"], row["seq"])
            self.keys[name := f"the foreign key of {child}.{row['from']} onto {row['table']}"] = columns
            self.children[name] = child
        if ours:
            try:
                rows = connection.exec_driver_sql(f"PRAGMA foreign_key_check({quoted(child)})").all()
            except DBAPIError:  # "foreign key mismatch": the parent has no such unique key
                self.keys[name := f"the foreign key of {child} onto {ours[0]['table']}"] = ()
                self.children[name] = child
            else:
                self.violations = self.violations | {tuple(row) for row in rows}

    def require_unbroken_by(self, after: "Survey", *, others: Iterable[str] = ()) -> None:
        """Raise NotOursError that names what a change would break or lose, and what was found of ``others``."""
        faults = sorted(others) + sorted(self.present - after.present) + sorted(after.broken - self.broken)
        # A table of the ladder that was made anew has the foreign keys that its script gave it.
        anew = {name for name, sql in self.replaceable.items() if after.replaceable.get(name) != sql}
        kept = {name: columns for name, columns in self.keys.items() if self.children[name] not in anew}
        faults += [name for name, columns in sorted(kept.items()) if after.keys.get(name) != columns]
        faults += sorted(
            f"the row {row[1]} of {row[0]}, whose parent in {row[2]} would be set aside"
            for row in after.violations - self.violations
            if row[0] not in anew
        )
        _refuse(faults)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise NotOursError(
            f"These objects of the service hang on a table that would go or change under them:\n{listed}\n"
            "Nothing was changed.",
            next_step="drop them (and make them again afterwards), or change them so that they fit both shapes",
        )


def _is_own(each: Object, shapes: Shapes) -> bool:
    """Tell whether the scripts make and drop it; the prefix is reserved for what they make."""
    name = each.name.lower()
    return name.startswith(OWN_PREFIX) or name in shapes.hanging


def _named(each: Object) -> str:
    return f"the {each.type} {each.name}" + (f" on {each.table}" if each.type in {"index", "trigger"} else "")


def _parent_columns(connection: Connection, parent: str, column: str | None, seq: int) -> tuple[object, ...]:
    """Return what a foreign key refers to; empty if the parent or its column is gone."""
    info = connection.exec_driver_sql(f"PRAGMA table_info({quoted(parent)})").all()
    if column is None:
        keys = sorted((row.pk, row.name) for row in info if row.pk)
        return tuple(name for _, name in keys[seq : seq + 1])
    return tuple(row.name for row in info if row.name.lower() == column.lower())


def rehearse(connection: Connection, shapes: Shapes, change: Callable[[Connection], None]) -> frozenset[str] | None:
    """Run a change on a copy of the schema, without rows, and stop if it would break a dependent.

    Return the tables that it wrote to there, in lower case, None where it could not be run. Read-only on the database
    itself. Raises NotOursError. A change that does not run on empty tables, whatever of the
    service is left out, proves nothing here; the survey after the real change decides then, before the commit.
    """
    unknown_sql.require_apart(connection, shapes.tables)
    lacking: dict[Object, str] = {}
    with schema_copy(connection, lacking=lacking) as copy:
        if copy is None:
            return None
        before, found = Survey(copy, shapes), objects(copy)
        effects = _effects_of(change, copy)
        if effects is not None:
            faults = [*_lacking(lacking, effects), *_set_off(found, effects, shapes)]
            before.require_unbroken_by(Survey(copy, shapes), others=faults)
            return frozenset(effects.tables)
    _refuse([_named(each) for each in _obstacles(connection, shapes, change)])
    return None


def _effects_of(change: Callable[[Connection], None], copy: Connection) -> Effects | None:
    """Return what a change writes on a copy; None where it does not run. Raises LostTriggerError."""
    handled = sys.exc_info()[1]
    try:
        with watched(copy) as effects:
            change(copy)
    except Exception as error:
        if isinstance(error, LostTriggerError) or end_behind(error, handled=handled) is not None:
            raise
        # What a script raises on empty tables says nothing of the rows.
        return None
    return effects


def _lacking(lacking: Mapping[Object, str], effects: Effects) -> Iterable[str]:
    """Yield what a change cannot write to or put back in this process, which lacks a function or a collation."""
    for each, missing in lacking.items():
        if each.table.lower() in effects.tables:
            yield f"{_named(each)}, which needs the {missing} of the service"


def _set_off(found: Iterable[Object], effects: Effects, shapes: Shapes) -> Iterable[str]:
    """Yield the triggers that a change would set off, and that write to what is not ours."""
    tables = {each.name: each.table for each in found if each.type == "trigger"}
    for name, written in effects.of_triggers.items():
        ours = {table for table in written if table.startswith(OWN_PREFIX) or table.lower() in shapes.tables}
        others = sorted(written - ours)
        if others:
            on = f" on {tables[name]}" if name in tables else ""
            yield f"the trigger {name}{on}, which would run and write to {', '.join(others)}"


def _obstacles(connection: Connection, shapes: Shapes, change: Callable[[Connection], None]) -> list[Object]:
    """Return without what of the service a change runs that otherwise does not; nothing where it never does."""
    hanging = [each for each in objects(connection) if each.sql and _hangs(each, shapes)]
    if not hanging or not _runs(connection, change, hanging):
        return []
    return [each for each in hanging if _runs(connection, change, [each])] or hanging


def _hangs(each: Object, shapes: Shapes) -> bool:
    return each.type in {"view", "trigger"} or (each.type == "index" and each.table.lower() in shapes.tables)


def _runs(connection: Connection, change: Callable[[Connection], None], without: Sequence[Object]) -> bool:
    with schema_copy(connection, without=without) as copy:
        return copy is not None and _effects_of(change, copy) is not None
