"""What differs between the tables of the ladder and what its scripts give, at the revision of the database."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, inspect

from vecmigrate import adoption
from vecmigrate.access import one_at_a_time
from vecmigrate.catalog import Object, column_names, is_sqlite, objects, quoted
from vecmigrate.engine import scratch
from vecmigrate.schema import OWN_PREFIX, tool_metadata
from vecmigrate.shapes import adopts, adopts_views
from vecmigrate.shell import running_sql
from vecmigrate.steps import run_scripts, script_of
from vecmigrate.tools.finding import ERROR, NOTE, WARNING, Finding, Findings, Subject
from vecmigrate.tools.table_shape import TableShape, normal, table_shape

__all__ = ["drift"]

_MADE = ("table", "index", "view", "trigger")
"""What SQL makes, in the order in which each needs the ones before it."""


@dataclass(frozen=True)
class Picture:
    """What a schema holds of the ladder: its tables by name, and what hangs on them. Names are in lower case."""

    tables: Mapping[str, TableShape] = field(default_factory=dict)
    objects: Mapping[str, Object] = field(default_factory=dict)
    """Indexes, triggers and views that have SQL of their own."""


@dataclass(frozen=True)
class Expected:
    """What the scripts give, and which revision brought each table and object into its last form."""

    picture: Picture
    origins: Mapping[str, str]
    fault: str | None = None


def drift(subject: Subject, connection: Connection) -> Findings:
    """Tell where columns, keys, CHECKs, indexes, triggers and views are not what the scripts give.

    The scripts run on an empty database that has what was adopted in the shape it was found in, so that this is no
    drift. Indexes, triggers and tables of the service are none either. PostgreSQL is compared as far as the catalog
    tells both alike: columns and indexes.
    """
    if not subject.is_known or subject.revision is None:
        return
    found = [each for each in adoption.rows(connection) if each["table_name"].lower() not in _found_above(subject)]
    expected = _expected(subject.script, subject.revision, found if is_sqlite(connection) else [])
    if expected.fault:
        message = f"What the tables should be could not be told: {expected.fault} does not run on an empty database."
        yield Finding("drift", NOTE, message, "vecmigrate check, in the project of the scripts")
    elif is_sqlite(connection):
        wanted = expected.picture.tables.keys() - (_found_above(subject) & adoption.adopted_tables(connection))
        yield from _differences(subject, expected, wanted, _picture(connection, wanted))
    else:
        yield from _differences_on_server(connection, expected, adoption.adopted_tables(connection))


def _found_above(subject: Subject) -> set[str]:
    """Return the tables that scripts above the database's revision adopt: up to them these are as they were found."""
    above = subject.script.iterate_revisions("heads", subject.revision or "base")
    return {name for each in above for name in adopts(each)}


# What the scripts give.


def _expected(script: ScriptDirectory, revision: str, found: list[dict[str, str]]) -> Expected:
    picture, origins = Picture(), dict[str, str]()
    with one_at_a_time, scratch() as empty:
        tool_metadata.create_all(empty)
        for step in script._upgrade_revs(revision, "base"):  # noqa: SLF001 - Alembic has no public way to a plan
            name = step.to_revisions_no_deps[0]
            try:
                _put_found(empty, script_of(step), found, picture.tables)
                run_scripts(empty, script, [step])
            except Exception:  # noqa: BLE001 - whatever a script raises, no more can be told
                return Expected(picture, origins, fault=f"the script of revision {name}")
            after = _picture(empty)
            origins |= dict.fromkeys(_changed(picture, after), name)
            picture = after
    return Expected(picture, origins)


def _put_found(
    empty: Connection, script: Script | None, found: Iterable[Mapping[str, str]], present: Iterable[str]
) -> None:
    """Make what a script has adopted in this database, as it was found, just before it runs."""
    if script is None:
        return
    tables, views = adopts(script).keys() - set(present), set(adopts_views(script))
    # What an operation has kept for its way back is there too, and no SQL.
    made = [each for each in found if each["type"] in _MADE]
    for each in sorted(made, key=lambda each: _MADE.index(each["type"])):
        name = (each["name"] if each["type"] == "view" else each["table_name"]).lower()
        if each["sql"] and name in (views if each["type"] == "view" else tables):
            empty.exec_driver_sql(each["sql"])


def _changed(before: Picture, after: Picture) -> list[str]:
    old, hung = before.tables, before.objects
    changed = [name for name, shape in after.tables.items() if name not in old or not shape.is_like(old[name])]
    return changed + [name for name, each in after.objects.items() if name not in hung or not _same(hung[name], each)]


def _picture(connection: Connection, tables: Iterable[str] | None = None) -> Picture:
    """Return what a schema holds; with ``tables`` only these, where they are there."""
    found = objects(connection)
    named = {each.name.lower(): each for each in found if each.type == "table" and not each.is_virtual}
    wanted = [name for name in named if not name.startswith((OWN_PREFIX, "sqlite_"))] if tables is None else tables
    return Picture(
        {name: table_shape(connection, named[name]) for name in wanted if name in named},
        {
            each.name.lower(): each
            for each in found
            if each.type != "table" and each.sql and not (each.type == "index" and each.table.startswith(OWN_PREFIX))
        },
    )


def _same(one: Object, other: Object) -> bool:
    return one.type == other.type and normal(one.sql) == normal(other.sql)


# What differs.


def _differences(subject: Subject, expected: Expected, wanted: Collection[str], present: Picture) -> Findings:
    for name in sorted(wanted):
        shape = expected.picture.tables[name]
        if name not in present.tables:
            yield Finding("drift", ERROR, f"The table {name} is missing.", _back(subject))
        else:
            yield from _table_differences(subject, name, shape, present.tables[name], expected.origins[name])
    for _, each in sorted(expected.picture.objects.items()):
        if each.type in {"index", "trigger"} and each.table.lower() not in present.tables:
            continue
        yield from _object_difference(subject, each, expected, present)
    for name, each in sorted(present.objects.items()):
        is_ours = each.type == "trigger" and name.startswith(OWN_PREFIX) and each.table.lower() in present.tables
        if is_ours and name not in expected.picture.objects:
            message = f"The trigger {each.name} on {each.table} belongs to no revision up to {subject.revision}."
            yield Finding("drift", ERROR, message, _sql(subject, f"DROP TRIGGER {quoted(each.name)}"))


def _object_difference(subject: Subject, wanted: Object, expected: Expected, present: Picture) -> Findings:
    there = present.objects.get(wanted.name.lower())
    if there and _same(there, wanted):
        return
    if not there and _has_key(expected, present, wanted):
        return
    what = f"The {wanted.type} {wanted.name}" + ("" if wanted.type == "view" else f" on {wanted.table}")
    if there and there.type == wanted.type:
        statements = [f"DROP {wanted.type.upper()} {quoted(there.name)}", wanted.sql]
        message = f"{what} is not what the scripts give."
    else:
        statements, message = [wanted.sql], f"{what} is missing."
    severity = ERROR if wanted.type == "trigger" or "UNIQUE" in wanted.sql.upper() else WARNING
    yield Finding("drift", severity, message, _sql(subject, *statements))


def _has_key(expected: Expected, present: Picture, wanted: Object) -> bool:
    """Tell whether a unique index is not needed, because a constraint or another index is the same key."""
    shape, there = (picture.tables.get(wanted.table.lower()) for picture in (expected.picture, present))
    key = shape.indexes.get(wanted.name.lower()) if shape else None
    return there is not None and key in there.keys


def _table_differences(subject: Subject, name: str, wanted: TableShape, there: TableShape, origin: str) -> Findings:
    lacking = wanted.columns.keys() - there.columns.keys()
    for column in sorted(lacking):
        statement = wanted.addition(name, column)
        step = _sql(subject, statement) if statement else _back(subject)
        yield Finding("drift", ERROR, f"The table {name} lacks the column {column}.", step)
    extra = sorted(there.columns.keys() - wanted.columns.keys())
    if extra:
        message = f"The table {name} has columns that no revision gave it: {', '.join(extra)}."
        step = f"keep what needs them out of {name}, or drop them: ALTER TABLE {name} DROP COLUMN ..."
        yield Finding("drift", WARNING, message, step)
    if faults := wanted.faults(there):
        message = f"The table {name} is not what the scripts give: {'; '.join(faults)}."
        is_first = subject.known.below(origin) is None
        again = subject.command("migrate", "--force", "--target", origin)
        if not is_first:
            message += f" The command runs revision {origin} again, down and up, after a backup."
        yield Finding("drift", ERROR, message, _back(subject) if is_first or lacking or extra else again)


def _sql(subject: Subject, *statements: str) -> str:
    return running_sql(subject.path or "", *statements)


def _back(subject: Subject) -> str:
    step = "put it back as the scripts make it"
    if subject.path:
        step += f", or restore a backup from before: {subject.command('backup', 'list')}"
    return step


# On a server, whose SQL is not that of the scratch database.


def _differences_on_server(connection: Connection, expected: Expected, adopted: set[str]) -> Findings:
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    for name, shape in sorted(expected.picture.tables.items()):
        if name in adopted:
            continue
        if name not in present:
            yield Finding("drift", ERROR, f"The table {name} is missing.", "put it back as the scripts make it")
            continue
        if lacking := sorted(shape.columns.keys() - column_names(connection, name)):
            message = f"The table {name} lacks columns: {', '.join(lacking)}."
            yield Finding("drift", ERROR, message, "add them as the scripts make them, or restore a dump")
        there = {str(each["name"]) for each in inspector.get_indexes(name)}
        for each in expected.picture.objects.values():
            if each.type == "index" and each.table.lower() == name and each.name not in there:
                message = f"The index {each.name} on {name} is missing."
                yield Finding("drift", WARNING, message, f"run in psql: {' '.join(each.sql.split())}")
