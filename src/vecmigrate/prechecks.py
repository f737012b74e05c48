"""What revisions have to say against a database before they run: their ``precheck(connection)``."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from alembic.script import Script
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from vecmigrate.causes import described
from vecmigrate.locks import end_behind

__all__ = ["Problem", "problems"]


@dataclass(frozen=True)
class Problem:
    """What a revision finds in a database that it cannot run on, in words."""

    revision: str
    text: str

    def __str__(self) -> str:
        return f"{self.revision}: {self.text}"


def problems(connection: Connection, pending: Iterable[Script]) -> list[Problem]:
    """Ask all pending scripts, lowest first, for problems. Whatever a precheck writes is rolled back.

    ``connection`` has a transaction. A precheck that fails in the database is a problem of the lowest script; of one
    above it says nothing yet, because it may need what a script below makes: ask it again before its own step.
    """
    found: list[Problem] = []
    handled = sys.exc_info()[1]
    for number, script in enumerate(pending):
        precheck = getattr(script.module, "precheck", None)
        if precheck is None:
            continue
        with connection.begin_nested() as savepoint:
            try:
                found += [Problem(script.revision, str(text)) for text in precheck(connection)]
            except Exception as error:  # whatever it is, the script must not run
                if end_behind(error, handled=handled) is not None:
                    raise
                if not (number and isinstance(error, DBAPIError)):
                    found.append(Problem(script.revision, f"its precheck failed: {described(error)}"))
            if savepoint.is_active:
                savepoint.rollback()
    return found
