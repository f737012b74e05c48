"""Each call of the system that a command makes fails once, with each errno that it can have."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vecmigrate
from faults import harness
from faults.harness import ROUNDS, Subject, run_cli, start, tried
from faults.refusals import chosen_calls, refuse_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the path of a descriptor is read from /proc")

CODES = {0, 1, 4, 5, 6}


def _migrated(database: Path) -> str:
    vecmigrate.upgrade(harness.url(database))
    return vecmigrate.backup(harness.url(database)).name


def _with_first_backup(database: Path) -> str:
    _migrated(database)
    return harness.backup_files(database)[0].name


def _legacy(_database: Path) -> str:
    return ""


def _fresh(database: Path) -> str:
    database.unlink()
    return ""


def _missing(database: Path) -> str:
    name = _with_first_backup(database)
    database.unlink()
    return name


def _damaged(database: Path) -> str:
    name = _with_first_backup(database)
    database.write_bytes(b"damaged " * 2000)
    return name


@dataclass(frozen=True)
class Command:
    """A command, and what its database is before; ``{name}`` in its words is the backup that was made then."""

    words: tuple[str, ...]
    prepare: Callable[[Path], str]
    run: Callable[..., Any] = run_cli

    def on(self, database: Path, name: str) -> tuple[str, ...]:
        return ("--db-path", str(database), *(word.format(name=name) for word in self.words))


def boot(_option: str, database: str) -> None:
    """Start as a service does that must not run on an old database."""
    try:
        vecmigrate.ensure_current(f"sqlite:///{database}", on_failure="raise")
    except vecmigrate.VecmigrateError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


COMMANDS = {
    "migrate": Command(("migrate",), _legacy),
    "migrate of a missing database": Command(("migrate",), _fresh),
    "rollback": Command(("rollback", "--to-version", "0"), _migrated),
    "backup create": Command(("backup", "create"), _migrated),
    "restore": Command(("restore", "{name}"), _with_first_backup),
    "restore of a missing database": Command(("restore", "{name}"), _missing),
    "restore over a damaged database": Command(("restore", "{name}"), _damaged),
    "history --rebuild": Command(("history", "--rebuild"), _migrated),
    "ensure_current": Command((), _legacy, boot),
}


def state(database: Path) -> str:
    """Return what the database holds, or that there is none, or that it is damaged."""
    if not database.exists():
        return "missing"
    with database.open("rb") as file:
        if not file.read(16).startswith(b"SQLite format 3"):
            return "damaged" if database.stat().st_size else "missing"
    with harness.looked_at(database) as copy:
        return harness.contents(copy)


def leftovers(database: Path) -> list[str]:
    """Return markers and temporary files; one that could not be removed may stay until a run has something to do."""
    vecmigrate.upgrade(harness.url(database), force=True, backup="always")
    found = [each.name for folder in (database.parent, database.parent / "backups") for each in folder.iterdir()]
    return [name for name in found if ".run-" in name or name.endswith(".tmp")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_that_fails_leaves_old_or_new_and_is_named(name: str, mode: str, small: Subject, tmp_path: Path) -> None:
    """No errno of any call, SQLite's own included, is unexpected; exit 0 means done, and else all is as it was."""
    command = COMMANDS[name]
    template = small.copy(tmp_path / "template")
    backup = command.prepare(template)
    before = state(template)
    calls, after = _counted(command, template, backup)
    rounds = int(os.environ.get("VECMIGRATE_REFUSALS", ROUNDS))
    for step, number in chosen_calls(calls, rounds, f"{name} {mode}"):
        database = tmp_path / f"{step:04d}-{number}" / template.name
        shutil.copytree(template.parent, database.parent)
        words, noted = command.on(database, backup), tmp_path / "noted"
        child = start(refuse_at, step, number, str(database.parent), str(noted), command.run, *words)
        code = child.wait()
        made = noted.read_text(encoding="utf-8").splitlines()
        refused = made[step - 1] if step <= len(made) else "none"
        what = f"call {step}, {refused}: {errno.errorcode[number]}"
        assert code in CODES, (what, child.output)
        assert "Unexpected" not in child.output, (what, child.output)
        assert "Traceback" not in child.output, (what, child.output)
        assert code == 0 or str(database.parent) in child.output, (what, child.output)
        assert state(database) == (after if code == 0 else before), (what, child.output)
        again = start(command.run, *command.on(database, backup))
        assert again.wait() == 0, (what, again.output)
        assert after == state(database), what
        assert [] == leftovers(database), what
        layer = "SQLite" if refused.startswith("sqlite") else "Python"
        told = f"one of the calls that {layer} makes for {name}, {mode}"
        tried("Refused calls", told, "new state" if code == 0 else "old state")
        shutil.rmtree(database.parent)


def _counted(command: Command, template: Path, backup: str) -> tuple[list[str], str]:
    """Return which calls a command makes, and what the database holds then."""
    database = template.parent.parent / "count" / template.name
    shutil.copytree(template.parent, database.parent)
    noted = template.parent.parent / "counted"
    child = start(refuse_at, 0, 0, str(database.parent), str(noted), command.run, *command.on(database, backup))
    assert 0 == child.wait(), child.output
    calls = noted.read_text(encoding="utf-8").splitlines()
    assert any(call.startswith("sqlite ") for call in calls), "the calls of SQLite are out of reach"
    return calls, state(database)
