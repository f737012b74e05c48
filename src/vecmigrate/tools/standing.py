"""Where a database stands on the ladder: what is pending, edited, interrupted, and what its mirror says."""

from sqlalchemy import Connection

from vecmigrate import adoption, edited_scripts, history, prechecks, records
from vecmigrate.errors import NotOursError
from vecmigrate.mirror import NoMirrorError
from vecmigrate.shapes import Shapes
from vecmigrate.tools.finding import ERROR, NOTE, WARNING, Finding, Findings, Subject

__all__ = ["absent", "edited_script", "interrupted", "mirror", "pending"]


def pending(subject: Subject, connection: Connection) -> Findings:
    """Tell what is to be applied, and for what it would be refused."""
    above = subject.known.ordered[subject.known.position(subject.revision) + 1 :] if subject.is_known else ()
    if not above:
        return
    refusals = list(_refusals(subject, connection))
    yield from refusals
    if not refusals:
        what = "1 revision is" if len(above) == 1 else f"{len(above)} revisions are"
        names = ", ".join(each.id for each in above)
        yield Finding("pending", WARNING, f"{what} pending: {names}.", subject.command("migrate"))


def _refusals(subject: Subject, connection: Connection) -> Findings:
    scripts = list(subject.script.iterate_revisions("heads", subject.revision or "base"))[::-1]
    shapes = Shapes(subject.script, subject.known.head)
    try:
        adoption.require_known_shapes(connection, shapes, subject.revision, scripts)
    except NotOursError as error:
        yield Finding("pending", ERROR, error.message, error.next_step, needs_person=True)
        return
    for problem in prechecks.problems(connection, scripts):
        message = f"Revision {problem.revision} is pending and would refuse to run: {problem.text}"
        yield Finding("pending", ERROR, message, f"put that right, then: {subject.command('migrate')}")


def absent(subject: Subject) -> Findings:
    """Tell of a database that is not there, and of backups that are left of it."""
    status = subject.access.status()
    lost = [note for note in status.notes if "Next: " in note]
    for note in lost:
        message, _, step = note.partition(" Next: ")
        yield Finding("pending", ERROR, f"{subject.access.database} is not there. {message}", step)
    if not lost:
        yield Finding("pending", WARNING, f"{subject.access.database} is not there yet.", subject.command("migrate"))


def edited_script(subject: Subject) -> Findings:
    """Tell which scripts are not the ones that were applied."""
    applied = subject.known.upto(subject.revision) if subject.is_known else ()
    for revision in edited_scripts.edited(applied, subject.attempts):
        yield Finding(
            "edited-script",
            WARNING,
            f"The script of revision {revision.id} was edited since it was applied: {revision.path}.",
            f"put it back as it was; or, where its way down fits what was applied, run it again: "
            f"{subject.command('migrate', '--force', '--target', revision.id, '--yes')}",
        )


def interrupted(subject: Subject) -> Findings:
    """Tell of runs that have left their marker, and of one that was recorded and not repeated."""
    left = history.markers(subject.path) if subject.path else []
    for marker in left:
        begun = f", begun {marker.started_at}," if marker.started_at else ""
        yield Finding(
            "interrupted",
            WARNING,
            f"A run ({marker.direction}){begun} has not recorded how it ended: its process died, or is still at it. "
            "What it had not committed is not in the database. The command records that, and waits for a run that "
            "still goes on.",
            _settling(subject),
            times=(marker.started_at,) if marker.started_at else (),
        )
    last = subject.attempts[-1] if subject.attempts else None
    if not left and last and last.status == "interrupted" and last.revision in _pending(subject):
        message = f"The last run was interrupted, and revision {last.revision} is still pending."
        yield Finding("interrupted", NOTE, message, subject.command("migrate"))


def _settling(subject: Subject) -> str:
    """Return the command that settles what dead runs have left, and moves the database nowhere if it can."""
    if not subject.is_known or subject.revision is None:
        return subject.command("migrate")
    return subject.command("migrate", "--target", subject.revision)


def _pending(subject: Subject) -> tuple[str, ...]:
    return subject.known.ids[subject.known.position(subject.revision) + 1 :] if subject.is_known else ()


def mirror(subject: Subject) -> Findings:
    """Tell of a mirror that is missing, damaged, or not what the table says."""
    try:
        is_right = records.is_mirror_right(subject.access.database, subject.access.settings)
    except NoMirrorError as error:
        message = f"{error.filename}, where the mirror of the history belongs, is somebody else's file."
        step = f"name another file by VECMIGRATE_HISTORY_FILE, then: {subject.command('history', '--rebuild')}"
        yield Finding("mirror", WARNING, message, step)
        return
    if not is_right:
        path = subject.access.settings.mirror(subject.path or "")
        message = f"The mirror of the history, {path}, is missing or is not what the database says."
        yield Finding("mirror", WARNING, message, subject.command("history", "--rebuild"))
