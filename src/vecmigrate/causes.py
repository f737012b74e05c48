"""What led to a failure, told without the contents of rows that errors of databases and of Python like to quote."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from vecmigrate.errors import VecmigrateError

__all__ = ["CauseError", "described", "quoting_no_values", "told", "without_values"]

_OF_NAMES = (NameError, ImportError)
_OF_SCRIPTS = (RuntimeError, *_OF_NAMES)
"""Errors whose text is that of a program; the text of any other may be made of a value, as a KeyError's is."""

_NO_VALUES = re.compile(
    r"""
    (UNIQUE|NOT\ NULL|CHECK|FOREIGN\ KEY)\ constraint\ failed .*
    | cannot\ store\ [A-Z]+\ value\ in\ [A-Z]+\ column .*
    | no\ such\ (table|index|view|trigger|module|function|collation\ sequence|savepoint):\ .*
    | unknown\ function:\ .*\(\)
    | no\ such\ column:\ (?P<column>.*)
    | near\ "(?P<word>.*)":\ syntax\ error
    | (table|view|index|trigger)\ .*\ already\ exists
    | there\ is\ already\ (a|an|another)\ .*
    | duplicate\ column\ name:\ .*
    | table\ .*\ has\ (no\ column\ named\ .*|\d+\ columns\ but\ \d+\ values\ were\ supplied)
    | foreign\ key\ mismatch .*
    | database\ (is\ locked|table\ is\ locked|schema\ is\ locked|schema\ has\ changed) .*
    | database\ (or\ disk\ is\ full|disk\ image\ is\ malformed)
    | disk\ I/O\ error | out\ of\ memory | interrupted | file\ is\ not\ a\ database | unable\ to\ open\ database\ file
    | attempt\ to\ write\ a\ readonly\ database
    | cannot\ (commit|rollback|start\ a\ transaction|VACUUM) .*
    | authorizer\ malfunction | not\ authorized | datatype\ mismatch | string\ or\ blob\ too\ big
    | Could\ not\ decode\ to\ UTF-8\ column\ '\w*'
    """,
    re.VERBOSE,
)
"""What SQLite says of its own and of names. Where a trigger, a function or FTS5 speaks, it may be a value."""


class CauseError(Exception):
    """The cause of a VecmigrateError: its kind, where it happened, and what it says as far as that quotes no row."""


def described(error: BaseException, *, of_rows: bool = False) -> str:
    """Return the cause in one line, without parameters or values, which are contents of rows.

    ``of_rows`` is for what is raised by code that has nothing but rows before it: it may quote them in any text.
    """
    if isinstance(error, VecmigrateError):
        return error.message
    if isinstance(error, CauseError):
        return str(error)
    cause = getattr(error, "orig", None) or error
    text = _text(cause, str(getattr(error, "statement", "")), _OF_NAMES if of_rows else _OF_SCRIPTS)
    return ": ".join(filter(None, [type(cause).__name__, text.strip()]))


def _text(cause: BaseException, statement: str, of_programs: tuple[type[BaseException], ...]) -> str:
    """Return what an error says where that is known to hold no value, else only its code."""
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause, statement)
    if isinstance(cause, OSError):
        return cause.strerror or ""
    if hasattr(cause, "diag"):
        return _of_postgresql(cause)
    return str(cause).partition("\n")[0] if isinstance(cause, of_programs) else ""


def _of_sqlite(cause: sqlite3.Error, statement: str) -> str:
    code = getattr(cause, "sqlite_errorname", "")
    known = _NO_VALUES.match(str(cause))
    # FTS5 calls a word of what is searched for a column.
    is_known = known and all(word in statement for word in known.groupdict().values() if word)
    # From SQLite 3.47 on RAISE says what a trigger makes up.
    return known.group() if known and is_known and code != "SQLITE_CONSTRAINT_TRIGGER" else code


def _of_postgresql(cause: Any) -> str:
    """Return the SQLSTATE, and names and message unless a function, which may make them up of rows, was running."""
    diag = cause.diag
    code = diag.sqlstate or ""
    if not code or diag.context is not None:
        return code
    # The parser has read the statement and no row; a table that exists already is told without a place.
    if (code.startswith("42") and diag.statement_position) or code == "42P07":
        return f"{code}, {diag.message_primary}"
    names = {"table": diag.table_name, "column": diag.column_name, "constraint": diag.constraint_name}
    return ", ".join([code, *(f"{kind} {name}" for kind, name in names.items() if name)])


def without_values(error: VecmigrateError) -> VecmigrateError:
    """Put in place of what led to an error what can be told of that, and return it."""
    before = error.__cause__ or _context(error)
    error.__cause__ = told(before) if before else None
    error.__context__ = None
    return error


@contextmanager
def quoting_no_values() -> Iterator[None]:
    """Raise a VecmigrateError without what a service would log with it; also a decorator."""
    try:
        yield
    except VecmigrateError as error:
        without_values(error)
        raise


def told(error: BaseException, *, of_rows: bool = False) -> CauseError:
    """Return an error to raise another one from: whoever logs the chain logs tracebacks, and no values."""
    chain = [error]
    while (before := chain[-1].__cause__ or _context(chain[-1])) is not None and before not in chain:
        chain.append(before)
    causes = [CauseError(described(each, of_rows=of_rows)).with_traceback(each.__traceback__) for each in chain]
    for cause, before in pairwise(causes):
        cause.__cause__ = before
    return causes[0]


def _context(error: BaseException) -> BaseException | None:
    return None if error.__suppress_context__ else error.__context__
