"""A look at a run from inside, for who rehearses it; a run that is no rehearsal has one that sees nothing."""

from sqlalchemy import Connection

from vecmigrate import history
from vecmigrate.shapes import Shapes

__all__ = ["RehearsedError", "Watch"]


class RehearsedError(Exception):
    """Ends a run that was only to be tried, so that its transaction is rolled back."""


class Watch:
    """What a run calls on its way, with the lock held. This one does nothing.

    With ``is_rolled_back`` the run is to leave nothing, not even a record of itself: ``end`` raises RehearsedError.
    """

    is_rolled_back = False

    def begin(self, connection: Connection, shapes: Shapes) -> None:
        """Look at what is there before the first write."""

    def begin_step(self, connection: Connection, revision: str | None, direction: str) -> None:
        """Look at what is there before a step."""

    def end_step(self, connection: Connection, attempt: history.Attempt) -> None:
        """Look at what a step did, of which *attempt* is the record."""

    def end(self, connection: Connection) -> None:
        """Look at what all steps did, as the last thing before the commit."""
