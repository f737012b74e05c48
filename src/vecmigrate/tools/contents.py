"""What is in a database: its pages, foreign keys, embedding models and providers."""

import importlib.util
from collections.abc import Sequence
from contextlib import closing

from sqlalchemy import Connection, column, func, select, table
from sqlalchemy.exc import OperationalError

from vecmigrate import backups, soundness, sqlite_files
from vecmigrate.catalog import column_names, is_sqlite, objects, quoted
from vecmigrate.embedding import models
from vecmigrate.engine import translated
from vecmigrate.errors import BackupError, DatabaseUnusableError
from vecmigrate.shapes import Shapes
from vecmigrate.tools.finding import ERROR, NOTE, WARNING, Finding, Findings, Subject

__all__ = ["damage", "foreign_keys", "integrity", "provider", "reembed"]

PROVIDERS = frozenset({"hnsw", "inmemory", "openai"})
"""What every released MCP The Force, 1.0 to 1.3.0, registers. Its cleaning of expired stores ends with a KeyError at
any other one, before it has deleted anything:
https://github.com/lukacf/mcp-the-force/blob/v1.3.0/mcp_the_force/vectorstores/__init__.py
https://github.com/lukacf/mcp-the-force/blob/v1.3.0/mcp_the_force/vectorstores/manager.py"""

_SHOWN = 5
_READY = {"sentence_transformers": "sentence-transformers", "fastembed": "fastembed"}


def damage(subject: Subject, error: DatabaseUnusableError) -> Finding:
    """Return the finding of a database that cannot be used, with the backup that mends it where there is one."""
    step = error.next_step
    if "restore NAME" in step and (sound := _newest_sound(subject)):
        step = subject.command("restore", sound)
    if error.is_denied:
        return Finding("permissions", ERROR, error.message, step)
    return Finding("integrity", ERROR, error.message, step)


def _newest_sound(subject: Subject) -> str | None:
    try:
        return next((each.name for each in subject.backups if backups.is_verified(each)), None)
    except BackupError:
        return None


def integrity(subject: Subject) -> Findings:
    """Tell of damaged pages and records; of a large file only with ``deep``."""
    if subject.path is None or not subject.may_read(subject.bytes):
        return
    database = subject.access.database
    with translated(database), closing(sqlite_files.connect(subject.path)) as connection:
        found = soundness.problems(connection, deep=subject.deep)
    if found:
        step = subject.command("backup", "list")
        message = f"{subject.path} is damaged ({len(found)} faults): {found[0]}."
        yield damage(subject, DatabaseUnusableError(message, next_step=f"{step}, then: restore NAME"))


def foreign_keys(subject: Subject, connection: Connection) -> Findings:
    """Tell of rows whose parent is not there; in a large file only with ``deep``."""
    if not is_sqlite(connection) or not subject.may_read(subject.bytes):
        return
    for each in objects(connection):
        if each.type == "table" and not each.is_virtual:
            yield from _orphans(connection, each.name)


def _orphans(connection: Connection, child: str) -> Findings:
    try:
        rows = connection.exec_driver_sql(f"PRAGMA foreign_key_check({quoted(child)})").all()
    except OperationalError as error:
        if "foreign key mismatch" not in str(error.orig):
            raise
        # With foreign keys on, every write to either table fails: https://sqlite.org/foreignkeys.html#fk_indexes
        message = f"A foreign key of {child} refers to columns that are no key of their table."
        step = f"make a unique index on what it refers to; PRAGMA foreign_key_list({child}) lists that"
        yield Finding("foreign-keys", ERROR, message, step)
        return
    for parent in sorted({row[2] for row in rows}):
        rowids = [row[1] for row in rows if row[2] == parent]
        where = f" (rowid {_some(rowids)})" if rowids[0] is not None else ""
        told = "refers to a row of {} that is" if len(rowids) == 1 else "refer to rows of {} that are"
        message = f"{_rows(len(rowids))} of {child}{where} {told.format(parent)} not there."
        step = f"insert the rows of {parent}, or delete these; PRAGMA foreign_key_check({child}) lists them"
        yield Finding("foreign-keys", ERROR, message, step)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _some(rowids: list[int]) -> str:
    more = f" and {len(rowids) - _SHOWN:,} more" if len(rowids) > _SHOWN else ""
    return ", ".join(map(str, rowids[:_SHOWN])) + more


def reembed(subject: Subject, connection: Connection) -> Findings:
    """Tell of a model that is being built, and how many chunks lack a vector of it."""
    left = models.remaining(connection)
    if left is None:
        return
    if not left["remaining"]:
        message = f"Every chunk has a vector of {left['model']}, and it is not the active model yet."
        yield Finding("reembed", NOTE, message, subject.command("embeddings", "activate", left["model"]))
        return
    package, name = next(
        (each for each in _READY.items() if importlib.util.find_spec(each[0])), next(iter(_READY.items()))
    )
    message = f"{left['remaining']:,} chunks lack a vector of {left['model']}; search goes on with the active model."
    if importlib.util.find_spec(package) is None:
        message += f" Name your own embedder, or install this one first: pip install 'vecmigrate[{name}]'."
    yield Finding("reembed", NOTE, message, subject.command("reembed", "--embedder", name))


def provider(subject: Subject, connection: Connection) -> Findings:
    """Tell of rows with a provider that the released service does not know."""
    ladder = Shapes(subject.script, subject.known.head).tables
    for each in objects(connection):
        if each.type == "table" and each.name.lower() in ladder:
            yield from _unknown_providers(connection, each.name)


def _unknown_providers(connection: Connection, name: str) -> Findings:
    if "provider" not in column_names(connection, name):
        return
    found = table(name, column("provider"))
    is_unknown = found.c.provider.not_in(PROVIDERS)
    count = connection.scalar(select(func.count()).select_from(found).where(is_unknown)) or 0
    if not count:
        return
    where = ""
    if is_sqlite(connection):
        shown: Sequence[int] = connection.scalars(
            select(column("rowid")).select_from(found).where(is_unknown).limit(_SHOWN)
        ).all()
        where = f" (rowid {', '.join(map(str, shown))}{' ...' if count > len(shown) else ''})"
    message = (
        f"{_rows(count)} of {name}{where} have a provider that the released MCP The Force does not know (it knows "
        f"{', '.join(sorted(PROVIDERS))}). Its cleaning fails for good once it comes to one of them."
    )
    step = f"register that provider in the service, or change the column provider of these rows of {name}"
    yield Finding("provider", WARNING, message, step)
