"""Each call of the system that a command makes fails once, with each errno that it can have."""

import errno
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import vecmigrate
from faults import harness
from faults.harness import ROUNDS, Subject, run_cli, start, tried
from faults.refusals import refuse_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the path of a descriptor is read from /proc")

ERRNOS = (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EPERM, errno.EROFS, errno.EMFILE, errno.EINTR, errno.ENOENT)


def _migrated(database: Path) -> str:
    vecmigrate.upgrade(harness.url(database))
    return vecmigrate.backup(harness.url(database)).name


def _legacy(_database: Path) -> str:
    return ""


def _fresh(database: Path) -> str:
    database.unlink()
    return ""


def _missing(database: Path) -> str:
    name = _migrated(database)
    database.unlink()
    return name


def _damaged(database: Path) -> str:
    name = _migrated(database)
    database.write_bytes(b"damaged " * 2000)
    return name


@dataclass(frozen=True)
class Command:
    """A command, and what its database is before; ``{name}`` in its words is the backup that was made then."""

    words: tuple[str, ...]
    prepare: Callable[[Path], str]
    again: tuple[int, ...] = (0,)

    def on(self, database: Path, name: str) -> tuple[str, ...]:
        return ("--db-path", str(database), *(word.format(name=name) for word in self.words))


COMMANDS = {
    "migrate": Command(("migrate",), _legacy),
    "migrate of a missing database": Command(("migrate",), _fresh),
    "rollback": Command(("rollback", "--to-version", "0"), _migrated),
    "backup create": Command(("backup", "create"), _migrated),
    "restore": Command(("restore", "{name}"), _migrated),
    "restore of a missing database": Command(("restore", "{name}"), _missing),
    "restore over a damaged database": Command(("restore", "{name}"), _damaged),
    "history --rebuild": Command(("history", "--rebuild"), _migrated),
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
    """No errno of any call is unexpected, exit 0 means done, anything else that all is as it was."""
    command = COMMANDS[name]
    template = small.copy(tmp_path / "template")
    backup = command.prepare(template)
    before = state(template)
    total, after = _counted(command, template, backup)
    chosen = _chosen(total)
    for step, number in chosen:
        database = tmp_path / f"{step:04d}-{number}" / template.name
        shutil.copytree(template.parent, database.parent)
        words, noted = command.on(database, backup), tmp_path / "noted"
        child = start(refuse_at, step, number, str(database.parent), str(noted), run_cli, *words)
        code = child.wait()
        what = f"{noted.read_text(encoding='utf-8').splitlines()[step - 1]} {errno.errorcode[number]}"
        assert code in {0, 1, 5, 6}, (what, child.output)
        assert "Unexpected" not in child.output, (what, child.output)
        assert "Traceback" not in child.output, (what, child.output)
        assert state(database) == (after if code == 0 else before), (what, child.output)
        again = start(run_cli, *command.on(database, backup))
        assert again.wait() in command.again, (what, again.output)
        assert after == state(database), what
        assert [] == leftovers(database), what
        tried("Refused calls", f"one of the {total} calls of {name}, {mode}", "new state" if code == 0 else "old state")
        shutil.rmtree(database.parent)


def _counted(command: Command, template: Path, backup: str) -> tuple[int, str]:
    """Return how many calls a command makes, and what the database holds then."""
    database = template.parent.parent / "count" / template.name
    shutil.copytree(template.parent, database.parent)
    noted = template.parent.parent / "counted"
    child = start(refuse_at, 0, 0, str(database.parent), str(noted), run_cli, *command.on(database, backup))
    assert 0 == child.wait(), child.output
    return len(noted.read_text(encoding="utf-8").splitlines()), state(database)


def _chosen(total: int) -> list[tuple[int, int]]:
    """Return calls and errnos: all of each in a long run, else as many as there are rounds, evenly spread."""
    every = list(itertools.product(range(1, total + 1), ERRNOS))
    rounds = int(os.environ.get("VECMIGRATE_REFUSALS", 2 * ROUNDS))
    if rounds >= len(every):
        return every
    return [(1 + step, ERRNOS[step % len(ERRNOS)]) for step in sorted({n * total // rounds for n in range(rounds)})]
