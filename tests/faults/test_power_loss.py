"""The power goes: what a command has reported is there, and what it has not is there whole or not at all."""

import contextlib
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doors import run_cli
from faults.harness import ROUNDS, Subject, start, tried
from faults.power import MODELS, Record, left_by, recorded
from faults.test_refused_calls import COMMANDS, Command, leftovers, state
from vecmigrate import backups, manifests

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the path of a descriptor is read from /proc")

CHANGES = [name for name in COMMANDS if name != "history --rebuild"]


def cuts(record: Record, rounds: int, dice: random.Random) -> Iterator[tuple[int, str]]:
    """Yield moments and models: in turn right after the end, and somewhere before it; all moments in a long run."""
    end = len(record.events)
    moments = list(range(end)) if rounds >= end else sorted(dice.sample(range(end), rounds))
    for number in range(rounds):
        yield end, MODELS[number % len(MODELS)]
    for moment in moments:
        yield moment, dice.choice(MODELS)


def whole_backups(database: Path) -> set[str]:
    """Return the backups that have a manifest, each verified."""
    folder = database.parent / "backups"
    found = [backup for backup, _ in manifests.manifests(str(folder))] if folder.exists() else []
    for backup in found:
        assert backup is not None
        backups.verify(backup)
    return {backup.name for backup in found if backup}


def again(command: Command, database: Path, backup: str) -> int:
    words = command.on(database, backup)
    return run_cli(*words, *(() if command.words else ("migrate",))).code


@pytest.mark.parametrize("name", CHANGES)
def test_a_loss_of_power_leaves_old_or_new(name: str, mode: str, small: Subject, tmp_path: Path) -> None:
    """After the end it is the new state with its backups; before it the old or the new one, whole."""
    command, seed = COMMANDS[name], f"{name} {mode}"
    database = small.copy(tmp_path / "service")
    backup = command.prepare(database)
    before, old_backups = state(database), whole_backups(database)
    noted = tmp_path / "noted"
    child = start(recorded, str(database.parent), str(noted), command.run, *command.on(database, backup))
    assert 0 == child.wait(), child.output
    after, new_backups = state(database), whole_backups(database)
    record = Record.read(noted)
    dice = random.Random(seed)  # noqa: S311 - it must be the same each time
    for moment, model in cuts(record, max(1, ROUNDS // 3), dice):
        is_end = moment == len(record.events)
        left_by(record, moment, model, dice, database.parent)
        with noted_on_failure(f"{seed}: power lost after {moment} of {len(record.events)} events, {model}"):
            found = state(database)
            assert found == after if is_end else found in {before, after}
            kept = whole_backups(database)
            assert kept == new_backups if is_end else old_backups & new_backups <= kept <= old_backups | new_backups
            assert 0 == again(command, database, backup)
            assert after == state(database)
            assert [] == leftovers(database)
        place = "right after its end" if is_end else "before its end"
        told = "new state" if found == after else "old state"
        tried("Loss of power", f"{name}, {place}, {mode}", f"{told}, backups whole")
    shutil.rmtree(database.parent)


@contextlib.contextmanager
def noted_on_failure(what: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise
