"""Trial runs of the revision scripts on scratch databases: each one up, down and up again, empty and filled."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, inspect

from vecmigrate import prechecks
from vecmigrate.catalog import objects
from vecmigrate.causes import described
from vecmigrate.engine import scratch
from vecmigrate.operations import ChangeError
from vecmigrate.schema import OWN_PREFIX, tool_metadata
from vecmigrate.shapes import is_of_the_clock
from vecmigrate.steps import run_scripts
from vecmigrate.tools import filled
from vecmigrate.tools.finding import Finding
from vecmigrate.triggers import broken

__all__ = ["on_empty", "on_filled"]

_NEW_TRIAL = "mend the script, then run: vecmigrate check"
_ANEW = (
    "drop it in the script and make it anew, so that it fits (docs/writing-revisions.md, Triggers), then run: "
    "vecmigrate check"
)
_KEEP = (
    "give it back in downgrade, with op.rebuild_table and op.restore_table, or op.keep_rows and op.return_rows "
    "(docs/writing-revisions.md), then run: vecmigrate check"
)


class _Stopped(Exception):  # noqa: N818 - no error of the program's
    """A script did not run, so nothing above it can be tried."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


@dataclass(frozen=True)
class _State:
    schema: frozenset[str]
    rows: dict[str, list[str]]


class _Trial:
    """One scratch database, and the scripts that run on it."""

    def __init__(self, connection: Connection, script: ScriptDirectory, where: str) -> None:
        self.connection = connection
        self._script = script
        self._where = where
        self._began = time.time()

    def ladder(self) -> list[Script]:
        return list(self._script.walk_revisions())[::-1]

    def up(self, revision: Script) -> _State:
        steps = self._script._upgrade_revs(revision.revision, _below(revision))  # noqa: SLF001
        return self._run(revision, "upgrade", steps)

    def down(self, revision: Script) -> _State:
        steps = self._script._downgrade_revs(_below(revision), revision.revision)  # noqa: SLF001
        return self._run(revision, "downgrade", steps)

    def _run(self, revision: Script, direction: str, steps: Any) -> _State:
        try:
            with self.connection.begin_nested():
                run_scripts(self.connection, self._script, steps)
        except ChangeError as error:
            raise _Stopped(Finding("operation", "error", f"{direction} of {error}", _NEW_TRIAL)) from error
        except Exception as error:  # whatever a script raises
            message = f"The {direction} of {revision.revision} fails on {self._where}: {described(error)}."
            raise _Stopped(Finding(direction, "error", message, _NEW_TRIAL)) from error
        return self.state()

    def state(self) -> _State:
        rows = filled.rows(self.connection)
        # What a script takes from the clock is another value each time.
        masked = {name: sorted(self._without_clock(row) for row in found) for name, found in rows.items()}
        return _State(frozenset(_schema(self.connection)), masked)

    def _without_clock(self, row: str) -> str:
        values = json.loads(row)
        return json.dumps({k: "the clock" if is_of_the_clock(v, self._began) else v for k, v in values.items()})


def _below(revision: Script) -> str:
    return str(revision.down_revision or "base")


def _trial(script: ScriptDirectory, where: str, walk: Callable[[_Trial, Script], Iterator[Finding]]) -> list[Finding]:
    """Walk up the ladder on a scratch database, as far as the scripts run."""
    found: list[Finding] = []
    with scratch() as connection:
        tool_metadata.create_all(connection)
        trial = _Trial(connection, script, where)
        try:
            for revision in trial.ladder():
                found.extend(walk(trial, revision))
        except _Stopped as stopped:
            found.append(stopped.finding)
    return found


def on_empty(script: ScriptDirectory, at_head: Callable[[Connection], Iterator[Finding]]) -> list[Finding]:
    """Run each revision up, down and up on a database without rows; then ask ``at_head`` of what that gives."""
    newest = script.get_current_head()

    def walk(trial: _Trial, revision: Script) -> Iterator[Finding]:
        for problem in prechecks.problems(trial.connection, [revision]):
            yield Finding(
                "precheck", "error", f"The precheck of {problem} This is said of an empty database.", _NEW_TRIAL
            )
        below = trial.state()
        working = _broken(trial.connection)
        above = trial.up(revision)
        for name in sorted(_broken(trial.connection) - working):
            message = f"After {revision.revision} {name}, which the scripts made, would not work any more."
            yield Finding("trigger", "error", message, _ANEW)
        yield from _differences(revision, below, trial.down(revision), "downgrade", "what was there before")
        yield from _differences(revision, above, trial.up(revision), "second upgrade", "what the first one gave")
        if revision.revision == newest:
            yield from at_head(trial.connection)

    return _trial(script, "an empty database", walk)


def _broken(connection: Connection) -> set[str]:
    found = objects(connection)
    hanging = [each for each in found if each.type in {"view", "trigger"}]
    return {f"the {each.type} {each.name}" for each in broken(connection, found, hanging)}


def on_filled(script: ScriptDirectory) -> list[Finding]:
    """Run each revision up, down and up on a database with rows, of the shape below it and then of its own."""

    def walk(trial: _Trial, revision: Script) -> Iterator[Finding]:
        below = trial.state()
        above = trial.up(revision)
        yield from _losses(revision, below, trial.down(revision), "up and down")
        yield from _losses(revision, above, trial.up(revision), "up, down and up")
        for name in filled.fill(trial.connection):
            yield Finding(
                "no-rows",
                "note",
                f"No row could be made for the table {name} at {revision.revision}, so it is tried without rows.",
                f"try {revision.revision} with rows of your own in a test: tests/test_revision_{revision.revision}...",
            )
        if revision.down_revision is not None:
            # The lowest one is not asked: below it is the base, where rows go only after a question.
            above = trial.state()
            below = trial.down(revision)
            yield from _losses(revision, above, trial.up(revision), "down and up")
            yield from _losses(revision, below, trial.down(revision), "down, up and down")
            trial.up(revision)

    return _trial(script, "a database with rows", walk)


def _differences(revision: Script, expected: _State, found: _State, direction: str, wanted: str) -> Iterator[Finding]:
    differing = [f"without {each}" for each in sorted(expected.schema - found.schema)]
    differing += [f"with {each}" for each in sorted(found.schema - expected.schema)]
    if differing:
        message = f"The {direction} of {revision.revision} does not give {wanted}: {'; '.join(differing)}."
        yield Finding("schema", "error", message, _NEW_TRIAL)
    yield from _losses(revision, expected, found, direction)


def _losses(revision: Script, expected: _State, found: _State, way: str) -> Iterator[Finding]:
    """Tell the tables whose rows are not the same, without what is in them."""
    for table in sorted(expected.rows.keys() | found.rows.keys()):
        before, after = expected.rows.get(table, []), found.rows.get(table, [])
        if before != after:
            lost, new = len(_minus(before, after)), len(_minus(after, before))
            told = f"{lost} of {len(before)} rows of {table} are gone or changed{_columns(before, after)}"
            message = f"{revision.revision}, {way}: {told}, and {new} are there instead."
            if not lost:
                message = f"{revision.revision}, {way}: {new} rows of {table} are there that were not there before."
            yield Finding("rows", "error", message, _KEEP)


def _minus(rows: list[str], others: list[str]) -> list[str]:
    rest = list(others)
    return [row for row in rows if row not in rest or rest.remove(row)]  # type: ignore[func-returns-value]


def _columns(before: list[str], after: list[str]) -> str:
    """Return the columns that have other values, where the rows can be told apart by the others."""
    gone, come = ([json.loads(row) for row in _minus(*pair)] for pair in ((before, after), (after, before)))
    if not gone or len(gone) != len(come):
        return ""
    names = {
        name
        for one, other in zip(gone, come, strict=True)
        for name in one.keys() | other.keys()
        if one.get(name) != other.get(name)
    }
    return f" ({', '.join(sorted(names))})"


def _schema(connection: Connection) -> Iterator[str]:
    """Tell what the schema holds so that two spellings of the same are equal."""
    inspector = inspect(connection)
    for each in objects(connection):
        if each.table.startswith(OWN_PREFIX) or each.name.startswith("sqlite_"):
            continue
        yield f"the {each.type} {each.name}"
        if each.type == "table" and not each.is_virtual:
            for column in inspector.get_columns(each.name):
                kind = f"{column['type']}{'' if column['nullable'] else ' NOT NULL'}"
                default = f" DEFAULT {column['default']}" if column["default"] is not None else ""
                yield f"the column {each.name}.{column['name']} {kind}{default}"
            for check in inspector.get_check_constraints(each.name):
                yield f"the CHECK of {each.name} ({' '.join(check['sqltext'].split())})"
