"""Scripts that were edited since they were applied: their hash in the history differs."""

from collections.abc import Iterable

from vecmigrate.history import Attempt
from vecmigrate.revisions import Revision

__all__ = ["edited", "told"]


def edited(applied: Iterable[Revision], attempts: Iterable[Attempt]) -> list[Revision]:
    """Return those of the applied revisions whose script has changed since, by all attempts in their order.

    Nothing is claimed of a revision whose hash the history does not tell, because it was cleared or is older.
    """
    hashes = {
        attempt.revision: attempt.metadata.get("script_sha256")
        for attempt in attempts
        if attempt.status == "success" and attempt.direction == "upgrade"
    }
    return [each for each in applied if each.path and hashes.get(each.id) not in {None, each.sha256}]


def told(revisions: list[Revision]) -> list[str]:
    """Return a note for each, for a person."""
    return [f"The script of revision {each.id} was edited since it was applied." for each in revisions]
