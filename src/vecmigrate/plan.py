"""What a run would do, as it is known before the run."""

from dataclasses import dataclass, field

from vecmigrate.revisions import Revision

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What a run would do. Revisions are None for base; ``reverted`` are those that ``steps`` then run again."""

    from_revision: str | None
    to_revision: str | None
    steps: list[Revision]
    direction: str
    backup_folder: str | None
    note: str | None
    reverted: list[Revision] = field(default_factory=list)
