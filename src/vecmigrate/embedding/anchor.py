"""What must stay as it is while a model's vectors are made: the revision, the model, and that nothing was restored."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection, column, func, select, table

from vecmigrate.embedding.models import Model, find
from vecmigrate.errors import ModelError
from vecmigrate.schema import HISTORY, VERSION_TABLE

__all__ = ["Anchor"]

_VERSION = select(table(VERSION_TABLE, column("version_num")).c.version_num)
_RESTORES = select(func.max(HISTORY.c.id)).where(HISTORY.c.direction == "restore")
_RUNS = select(_VERSION.scalar_subquery(), _RESTORES.scalar_subquery())


@dataclass(frozen=True)
class Anchor:
    """The state of a database that vectors are made for. ``restores`` is the newest entry of one in the history."""

    revision: str | None
    model: Model
    restores: int | None

    @classmethod
    def of(cls, connection: Connection, model: Model) -> "Anchor":
        """Read-only."""
        revision, restores = connection.execute(_RUNS).one()
        return cls(revision, model, restores)

    def require_unchanged(self, connection: Connection, *, option: str) -> "Anchor":
        """Return the anchor with the model as it is now: another worker may have made it the active one. Read-only.

        Raises ModelError where somebody has rolled back, migrated, restored, or changed the model.
        """
        model = find(connection, self.model.name)
        found = Anchor.of(connection, model or self.model)
        if model is None:
            what = f"the model {self.model.name} is gone"
        elif found.revision != self.revision:
            what = f"it went from revision {self.revision} to {found.revision or 'base'}"
        elif found.restores != self.restores:
            what = "a backup was restored"
        elif model.state != self.model.state and (self.model.state, model.state) != ("building", "active"):
            what = f"the model {model.name} is {model.state} now"
        elif model.dimensions != self.model.dimensions:
            what = f"the model {model.name} has {model.dimensions} dimensions now"
        else:
            return replace(self, model=model)
        raise ModelError(
            f"The database was changed by somebody else: {what}. The batch in flight was not written; what was "
            "embedded before is as that change has left it.",
            next_step=f"vecmigrate {option} status, and then, if vectors are still wanted, the same command again",
        )
