"""What a script tells the run about its step: for the summary, and for the check that no row was lost."""

from alembic import op

__all__ = ["ELSEWHERE", "NOTES", "note", "stands_elsewhere"]

NOTES = "vecmigrate_notes"
ELSEWHERE = "vecmigrate_elsewhere"
"""Where the run finds both, among the options of the migration context."""


def note(text: str) -> None:
    """Put a sentence, without contents of rows, into the summary of the run and the history."""
    op.get_context().opts.setdefault(NOTES, []).append(text)


def stands_elsewhere(table: str, rows: int) -> None:
    """Tell that so many rows leave a table in this step and are not lost: another table, which stays, tells them."""
    told = op.get_context().opts.setdefault(ELSEWHERE, {})
    told[table] = told.get(table, 0) + rows
