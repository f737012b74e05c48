"""What led to a failure, told without the contents of rows that errors of databases and of Python like to quote."""

from itertools import pairwise

from vecmigrate.errors import VecmigrateError

__all__ = ["CauseError", "described", "told", "without_values"]

_QUOTING = (AssertionError, ValueError, TypeError, LookupError)
_QUOTING_STATES = ("22", "P0")
"""The classes of PostgreSQL's SQLSTATE for values that do not fit, and for RAISE in somebody's trigger."""

_UNDECODABLE = " with text '"
"""Here sqlite3 begins to quote a text that it could not decode."""


class CauseError(Exception):
    """The cause of a VecmigrateError: its kind, where it happened, and what it says as far as that quotes no row."""


def described(error: BaseException) -> str:
    """Return the cause in one line, without parameters or values, which are contents of rows."""
    if isinstance(error, VecmigrateError):
        return error.message
    if isinstance(error, CauseError):
        return str(error)
    cause = getattr(error, "orig", None) or error
    text = "" if _quotes_values(cause) else (_primary(cause) or str(cause))
    line = text.strip().partition("\n")[0].partition(_UNDECODABLE)[0]
    return ": ".join(filter(None, [type(cause).__name__, line]))


def _primary(cause: BaseException) -> str | None:
    """Return what PostgreSQL says without its DETAIL, which quotes rows; None for errors of others."""
    return getattr(getattr(cause, "diag", None), "message_primary", None)


def _quotes_values(cause: BaseException) -> bool:
    state = getattr(cause, "sqlstate", None) or ""
    return isinstance(cause, _QUOTING) or state.startswith(_QUOTING_STATES)


def without_values(error: VecmigrateError) -> VecmigrateError:
    """Put in place of what led to an error what can be told of that, and return it."""
    before = error.__cause__ or _context(error)
    error.__cause__ = told(before) if before else None
    error.__context__ = None
    return error


def told(error: BaseException) -> CauseError:
    """Return an error to raise another one from: whoever logs the chain logs tracebacks, and no values."""
    chain = [error]
    while (before := chain[-1].__cause__ or _context(chain[-1])) is not None and before not in chain:
        chain.append(before)
    causes = [CauseError(described(each)).with_traceback(each.__traceback__) for each in chain]
    for cause, before in pairwise(causes):
        cause.__cause__ = before
    return causes[0]


def _context(error: BaseException) -> BaseException | None:
    return None if error.__suppress_context__ else error.__context__
