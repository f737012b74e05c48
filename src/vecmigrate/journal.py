"""What a run notes down while it goes on: its report, its attempts, and its marker."""

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alembic.runtime.migration import MigrationStep, StampStep

from vecmigrate import history
from vecmigrate.revisions import Revision, Revisions
from vecmigrate.steps import direction_of, revision_of, target_of

__all__ = ["Journal", "Report"]

log = logging.getLogger("vecmigrate")
_VERBS = {"upgrade": "Upgraded", "downgrade": "Downgraded", "stamp": "Stamped"}


@dataclass
class Report:
    """What a run did, filled in while it goes on. Revisions are None for base, paths are absolute.

    ``logged`` are those of its notes that the log had as warnings when they arose.
    """

    from_revision: str | None = None
    to_revision: str | None = None
    applied: list[str] = field(default_factory=list)
    reverted: list[str] = field(default_factory=list)
    backup: str | None = None
    created: bool = False
    waited: bool = False
    is_ahead: bool = False
    converted: int = 0
    set_aside: int = 0
    duration_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    def warn(self, note: str) -> None:
        """Log a note at once, because what follows is what it warns of; it stands in the report too."""
        log.warning("%s", note)
        self.notes.append(note)
        self.logged.append(note)

    def note_logged(self, notes: Sequence[str]) -> None:
        """Add notes that the log has had."""
        self.notes += notes
        self.logged += notes

    def take_back(self) -> None:
        """Forget the steps that were rolled back."""
        self.applied, self.reverted, self.to_revision = [], [], self.from_revision
        self.converted = self.set_aside = 0


class Journal:
    """The notes of one run over some steps. Writes nothing by itself."""

    def __init__(self, report: Report, revisions: Revisions) -> None:
        self.run_id = uuid.uuid4().hex
        self.report = report
        self.attempts: list[history.Attempt] = []
        self._revisions = revisions
        self._steps: Sequence[MigrationStep] = ()
        self._done = 0
        self._began_at = history.now()
        self._began = time.monotonic()

    def plan(self, steps: Sequence[MigrationStep]) -> None:
        self._steps = steps
        self.begin_step()

    def begin_anew(self) -> None:
        """Forget what was done: it came to nothing, and is done again."""
        self.attempts, self._done = [], 0
        self.report.take_back()

    def begin_step(self) -> None:
        self._began_at, self._began = history.now(), time.monotonic()

    def end_step(self, step: MigrationStep, *, converted: int, set_aside: int, notes: Sequence[str]) -> None:
        revision = revision_of(step)
        self._done += 1
        self.report.to_revision = target_of(step)
        if revision is not None and not isinstance(step, StampStep):
            (self.report.applied if step.is_upgrade else self.report.reverted).append(revision)
        self.report.converted += converted
        self.report.set_aside += set_aside
        rows = {"converted": converted, "set_aside": set_aside}
        message = f"{_VERBS[direction_of(step)]}: {converted} rows converted, {set_aside} set aside"
        more = {"notes": list(notes)} if notes else {}
        self.attempts.append(
            self._attempt(self._named(step), direction_of(step), "success", message, rows=rows, **more)
        )

    @property
    def notes(self) -> list[str]:
        """What the scripts that ran have to say."""
        return [note for attempt in self.attempts for note in attempt.metadata.get("notes", ())]

    def failing_revision(self) -> str | None:
        """Return the revision that was running last."""
        return revision_of(self._last_step())

    def _last_step(self) -> MigrationStep:
        return self._steps[min(self._done, len(self._steps) - 1)]

    def failed(self, status: str, why: str) -> list[history.Attempt]:
        """Return the records of a run that was rolled back: what it had done is skipped."""
        name = self.failing_revision()
        undone = [replace(each, status="skipped", message=f"rolled back with {name}") for each in self.attempts]
        if self._done < len(self._steps):
            named, direction = self._named(self._last_step()), direction_of(self._last_step())
        else:
            # It failed after the last step, so that one failed.
            last = undone.pop()
            named, direction = self._named_by(last.revision), last.direction
        return [*undone, self._attempt(named, direction, status, f"{why}; rolled back", error=why)]

    def _named(self, step: MigrationStep) -> Revision:
        return self._named_by(revision_of(step))

    def _named_by(self, revision: str | None) -> Revision:
        return self._revisions.get(revision) or Revision(revision or "base", revision or "base", None, None)

    def _attempt(
        self, revision: Revision, direction: str, status: str, message: str, **metadata: Any
    ) -> history.Attempt:
        script = {"script_sha256": revision.sha256} if revision.path else {}
        return history.Attempt(
            migration_id=revision.migration_id,
            revision=revision.id if revision.id != "base" else None,
            version=revision.app_version,
            name=revision.name,
            direction=direction,
            status=status,
            message=message,
            executed_at=self._began_at.isoformat(),
            duration_seconds=round(time.monotonic() - self._began, 6),
            metadata={"run_id": self.run_id, "backup_path": self.report.backup} | script | metadata,
        )

    @property
    def direction(self) -> str:
        """Where the run leads: the direction of its last step."""
        return direction_of(self._steps[-1])

    def marker(self, database_id: str) -> history.Marker:
        """Return the marker that tells the next run of this one, should it die."""
        steps = []
        for step in self._steps:
            named = self._named(step)
            steps.append(
                {"revision": revision_of(step), "direction": direction_of(step)}
                | {"migration_id": named.migration_id, "version": named.app_version, "name": named.name}
            )
        return history.Marker(
            run_id=self.run_id,
            database_id=database_id,
            started_at=self._began_at.isoformat(),
            direction=self.direction,
            steps=steps,
            backup=self.report.backup,
        )
