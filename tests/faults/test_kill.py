"""A run that is killed leaves the old state or the new one, and the next run mends the rest."""

import random
import shutil
import time
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli
from faults import harness
from faults.harness import DOORS, MODES, ROUNDS, Child, Subject, die_at, go, start, tried
from ladder import HEAD, REVISIONS

SIGKILL = -9


def steps_of(door: str, database: Path) -> list[str]:
    """Return the steps of a run, from one that nobody kills."""
    noted = database.parent.parent / "steps"
    child = start(die_at, 0, str(database.parent), str(noted), go, door, str(database))
    assert 0 == child.wait(), child.output
    return noted.read_text(encoding="utf-8").split("\n")


def chosen_steps(total: int, rounds: int) -> list[int]:
    """Return as many steps as there are rounds, evenly spread, with the first and the last; all in a long run."""
    if rounds * 2 >= total:
        return list(range(1, total + 1))
    return sorted({1 + round(n * (total - 1) / max(1, rounds - 1)) for n in range(rounds)})


def chosen_moments(named: dict[int, str], rounds: int, *, first: int) -> dict[int, str]:
    """Return as many named steps as there are rounds, or all; the doors and modes share them out among each other."""
    numbers = list(named)
    return {number: named[number] for number in (numbers[first:] + numbers[:first])[:rounds]}


@pytest.mark.parametrize("door", DOORS)
def test_a_kill_at_any_step_leaves_old_or_new(door: str, mode: str, small: Subject, tmp_path: Path) -> None:
    """Before and after the lock, the backup, each statement, the commit and the mirror: never a mixture."""
    steps = steps_of(door, small.copy(tmp_path / "count"))
    turn = DOORS.index(door) + len(DOORS) * MODES.index(mode)
    named = chosen_moments(harness.moments(steps), ROUNDS, first=turn * 2)
    chosen = sorted({*chosen_steps(len(steps), ROUNDS), *named})
    for step in chosen:
        database = small.copy(tmp_path / f"{step:04d}")
        child = start(die_at, step, str(database.parent), str(tmp_path / "noted"), go, door, str(database))

        assert SIGKILL == child.wait(), child.output
        outcome = small.state(database)
        harness.next_run(small, database)
        tried("Kill", f"SIGKILL at {len(chosen)} of the {len(steps)} steps of a run, {door} door, {mode}", outcome)
        if step in named:
            tried("Kill", f"SIGKILL at a step of a run with a name: {named[step]}", outcome)
        shutil.rmtree(database.parent)


@pytest.mark.parametrize("door", ["cli", "alembic"])
def test_a_kill_while_a_fresh_database_is_made_leaves_nothing_or_all(door: str, tmp_path: Path) -> None:
    """A database that did not exist is made by the next run, which tells of the killed one."""
    (tmp_path / "count").mkdir()
    made = tmp_path / "count" / "sessions.sqlite3"
    total = len(steps_of(door, made))
    chosen = chosen_steps(total, ROUNDS)
    for step in chosen:
        database = tmp_path / f"{step:04d}" / "sessions.sqlite3"
        database.parent.mkdir()
        child = start(die_at, step, str(database.parent), str(tmp_path / "counted"), go, door, str(database))

        assert SIGKILL == child.wait(), child.output
        begun = harness.has_begun(database)
        is_done = database.exists()
        assert not is_done or legacy.revision(database) == HEAD
        vecmigrate.upgrade(harness.url(database))
        assert harness.contents(made) == harness.contents(database)
        killed = ["interrupted"] if begun and not is_done else []
        assert [*killed, *["success"] * len(REVISIONS)] == harness.statuses(database)
        harness.require_tidy(database)
        what = f"SIGKILL at {len(chosen)} of the {total} steps of making a fresh database, {door} door"
        tried("Kill", what, "new" if is_done else "nothing")


@pytest.mark.parametrize("door", DOORS)
def test_a_kill_at_any_moment_leaves_old_or_new(door: str, mode: str, big: Subject, tmp_path: Path) -> None:
    """With thousands of rows under way, in memory, in the journal or in the WAL: never a mixture."""
    dice = random.Random(f"{door} {mode}")  # noqa: S311 - it must be the same each time
    for number in range(max(1, ROUNDS // 3)):
        database = big.copy(tmp_path / str(number))
        child = start(go, door, str(database))
        time.sleep(dice.uniform(0.02, 0.8))
        child.kill()

        bytes_on_disk = harness.journal_bytes(database)
        outcome = big.state(database)
        harness.next_run(big, database)
        what = f"SIGKILL at a random moment, 12,000 rows, {door} door, {mode}"
        tried("Kill", what, outcome)
        if bytes_on_disk:
            tried("Kill", f"{what}: those with bytes in journal or WAL", outcome)
        shutil.rmtree(database.parent)


@pytest.mark.parametrize("what", ["downgrade", "restore"])
def test_a_kill_on_the_way_back_leaves_either_state(what: str, mode: str, small: Subject, tmp_path: Path) -> None:
    """Going down and restoring are as safe as going up."""
    template = small.copy(tmp_path / "template")
    vecmigrate.upgrade(harness.url(template))
    name = harness.backup_files(template)[0].name
    words = ("rollback", "--to-version", "0") if what == "downgrade" else ("restore", name)
    work = tmp_path / "count" / "service"
    shutil.copytree(template.parent, work)
    arguments = (str(work), str(tmp_path / "steps"), harness.run_cli, "--db-path", str(work / template.name), *words)
    child = start(die_at, 0, *arguments)
    assert 0 == child.wait(), child.output
    above, below = harness.contents(template), harness.contents(work / template.name)
    total = len((tmp_path / "steps").read_text(encoding="utf-8").split("\n"))
    chosen = chosen_steps(total, max(2, ROUNDS // 2))
    for step in chosen:
        shutil.rmtree(work)
        shutil.copytree(template.parent, work)
        assert SIGKILL == start(die_at, step, *arguments).wait()

        database = work / template.name
        assert [("ok",)] == legacy.query(database, "PRAGMA integrity_check")
        found = harness.contents(database)
        assert found in {above, below}
        vecmigrate.upgrade(harness.url(database))
        assert above == harness.contents(database)
        # What a restore leaves that died before it held the lock, goes with the next change.
        vecmigrate.upgrade(harness.url(database), force=True)
        harness.require_tidy(database)
        tried(
            "Kill",
            f"SIGKILL at {len(chosen)} of the {total} steps of a {what}, {mode}",
            "new state" if found == below else "old state",
        )


def test_a_kill_while_a_damaged_database_is_replaced_leaves_it_or_the_backup(
    mode: str, small: Subject, tmp_path: Path
) -> None:
    """Under the name of the database is the damaged file with every byte, or all of the backup, and never less."""
    template = small.copy(tmp_path / "template")
    vecmigrate.upgrade(harness.url(template))
    above, name = harness.contents(template), harness.backup_files(template)[0].name
    damaged = template.read_bytes()[: template.stat().st_size // 2]
    template.write_bytes(damaged)
    work = tmp_path / "count" / "service"
    database = work / template.name
    shutil.copytree(template.parent, work)
    arguments = (str(work), str(tmp_path / "steps"), harness.run_cli, "--db-path", str(database), "restore", name)
    child = start(die_at, 0, *arguments)
    assert 0 == child.wait(), child.output
    below = harness.contents(database)
    total = len((tmp_path / "steps").read_text(encoding="utf-8").split("\n"))
    chosen = chosen_steps(total, max(2, ROUNDS))
    for step in chosen:
        shutil.rmtree(work)
        shutil.copytree(template.parent, work)
        assert SIGKILL == start(die_at, step, *arguments).wait()

        is_replaced = database.read_bytes() != damaged
        if is_replaced:
            assert below == harness.contents(database)
        vecmigrate.restore(harness.url(database), name=name)
        assert below == harness.contents(database)
        vecmigrate.upgrade(harness.url(database))
        assert above == harness.contents(database)
        aside = [each for each in work.iterdir() if ".damaged-" in each.name]
        assert {damaged} == {each.read_bytes() for each in aside if not each.name.endswith(("-wal", "-shm"))}
        for each in aside:
            each.unlink()
        # What a restore leaves that died before it wrote its marker, goes with the next change.
        vecmigrate.upgrade(harness.url(database), force=True)
        harness.require_tidy(database)
        tried(
            "Kill",
            f"SIGKILL at {len(chosen)} of the {total} steps of a restore over a damaged file, {mode}",
            "new state" if is_replaced else "old state",
        )


def test_a_cleared_history_says_nothing_untrue_of_a_killed_run(mode: str, small: Subject, tmp_path: Path) -> None:
    """A run that was killed after its commit is not taken for an interrupted one when its record has been cleared."""
    steps = steps_of("cli", small.copy(tmp_path / "count"))
    (committed,) = (step for step, name in harness.moments(steps).items() if name == "after the commit")
    database = small.copy(tmp_path / "service")
    child = start(die_at, committed, str(database.parent), str(tmp_path / "noted"), go, "cli", str(database))
    assert SIGKILL == child.wait(), child.output
    assert harness.has_begun(database)

    assert 0 == run_cli("--db-path", database, "history", "--clear", "--yes").code
    vecmigrate.upgrade(harness.url(database))

    assert [] == harness.statuses(database)
    harness.require_tidy(database)
    tried("Kill", f"history --clear after a SIGKILL after the commit, {mode}", "nothing untrue told")


def test_a_restore_that_dies_again_and_again_leaves_one_backup(mode: str, small: Subject, tmp_path: Path) -> None:
    """Its saved state serves again, as that of a run does, and no older backup has to go for it."""
    database = small.copy(tmp_path / "service")
    vecmigrate.upgrade(harness.url(database))
    name = harness.backup_files(database)[0].name

    def restoring(work: Path, step: int) -> Child:
        words = ("--db-path", str(work / database.name), "restore", name)
        return start(die_at, step, str(work), str(tmp_path / "steps"), harness.run_cli, *words)

    for number in range(min(50, max(3, ROUNDS // 2))):
        # Which step it is depends on whether the state has to be saved.
        rehearsal = Path(shutil.copytree(database.parent, tmp_path / f"rehearsal{number}"))
        assert 0 == restoring(rehearsal, 0).wait()
        steps = (tmp_path / "steps").read_text(encoding="utf-8").split("\n")
        carrying = [number for number, step in enumerate(steps, 1) if step.startswith("DELETE FROM vecmigrate_history")]
        assert SIGKILL == restoring(database.parent, carrying[0]).wait()
        tried("Kill", f"crash loop: a restore killed again and again, {mode}", "one backup, older ones kept")

    assert 2 == len(harness.backup_files(database))
    vecmigrate.restore(harness.url(database), name=name)
    assert small.before == harness.contents(database)
    assert 2 == len(harness.backup_files(database))
    assert name in {each.name for each in harness.backup_files(database)}
    harness.require_tidy(database)


def test_a_crash_loop_leaves_one_backup_of_its_state(mode: str, small: Subject, tmp_path: Path) -> None:
    """Killed again and again during the change, the state is backed up once, and older backups stay."""
    database = small.copy(tmp_path / "service")
    older = [vecmigrate.backup(harness.url(database)).name for _ in range(3)]
    total = len(steps_of("service", small.copy(tmp_path / "count")))
    crashes = min(50, max(3, ROUNDS))
    for _ in range(crashes):
        child = start(
            die_at, total * 2 // 3, str(database.parent), str(tmp_path / "counted"), go, "service", str(database)
        )
        assert SIGKILL == child.wait()
        assert "old state" == small.state(database)
        tried("Kill", f"crash loop: killed in the same place again and again, {mode}", "one backup, older ones kept")

    vecmigrate.upgrade(harness.url(database))
    assert small.after == harness.contents(database)
    assert [*["interrupted"] * crashes, *["success"] * len(REVISIONS)] == harness.statuses(database)
    kept = [each.name for each in harness.backup_files(database)]
    assert older == kept[:3]
    assert 4 == len(kept)
    harness.require_tidy(database)
