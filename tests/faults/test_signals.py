"""SIGINT and SIGTERM end a run at once, and nothing of it stays."""

import contextlib
import itertools
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import alembic.config
import pytest

import legacy
import vecmigrate
from faults import harness
from faults.harness import ROUNDS, Subject, go, start, tried, wait_until
from faults.slow import changed_scripts, pausing_scripts, slow_scripts, with_scripts
from ladder import REVISIONS
from vecmigrate import effects, engine
from vecmigrate.locks import WatchedTransaction

PROMPTLY = 3.0
MINUTES = 1_000_000_000


def by_alembic(folder: str, database: str) -> None:
    os.environ["VECMIGRATE_DATABASE_URL"] = f"sqlite:///{database}"
    alembic.config.main(argv=["-c", f"{folder}/alembic.ini", "upgrade", "head"], prog="alembic")


def by_cli(folder: str, database: str) -> None:
    with_scripts(folder, go, "cli", database)


def by_library(folder: str, database: str) -> None:
    """Exit with 42 if the library raises KeyboardInterrupt and leaves every handler as it was."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with_scripts(folder, vecmigrate.upgrade, f"sqlite:///{database}")
    except KeyboardInterrupt:
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        sys.exit(42 if before == after else 43)


def by_boot(folder: str, database: str) -> None:
    """Exit with 42 if also a service that wants only warnings gets the KeyboardInterrupt."""
    try:
        with_scripts(folder, vecmigrate.ensure_current, f"sqlite:///{database}")
    except KeyboardInterrupt:
        sys.exit(42)


@pytest.mark.parametrize(
    ("action", "number", "code"),
    [
        (by_cli, signal.SIGINT, 130),
        (by_cli, signal.SIGTERM, 143),
        (by_alembic, signal.SIGINT, 130),
        (by_alembic, signal.SIGTERM, 143),
        (by_library, signal.SIGINT, 42),
        (by_boot, signal.SIGINT, 42),
    ],
)
def test_a_signal_ends_one_long_statement(  # noqa: PLR0917
    action: Callable[..., Any], number: int, code: int, mode: str, small: Subject, tmp_path: Path
) -> None:
    """Inside a statement that takes minutes, a signal rolls back, records the end, and frees the lock."""
    database = small.copy(tmp_path / "service")
    child = start(action, str(slow_scripts(tmp_path / "scripts", MINUTES)), str(database))
    child.await_output("in the long statement")
    began = time.monotonic()
    child.signal(number)

    assert code == child.wait(20), child.output
    assert PROMPTLY > time.monotonic() - began
    harness.require_explained(child.output)
    legacy.execute(database, "PRAGMA busy_timeout = 0", "BEGIN IMMEDIATE", "ROLLBACK")
    assert "old state" == small.state(database)
    assert [*["skipped"] * (len(REVISIONS) - 1), "interrupted"] == harness.statuses(database)
    harness.require_tidy(database)
    vecmigrate.upgrade(harness.url(database))
    assert small.after == harness.contents(database)
    name = f"{signal.Signals(number).name} inside one long statement, {action.__name__.replace('_', ' ')}, {mode}"
    tried("Signals", name, f"old state, interrupted, exit {code}" if code != 42 else "old state, KeyboardInterrupt")


def with_exits(folder: str, database: str, door: str) -> None:
    """Migrate in a service whose own handler ends it, as many do on SIGTERM; exit with 1 if that is lost."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(7))
    with_scripts(folder, _warned if door == "service" else go, *([door] if door != "service" else []), database)
    sys.exit(1)


def _warned(database: str) -> None:
    vecmigrate.ensure_current(f"sqlite:///{database}")


@pytest.mark.parametrize("door", ["service", "command"])
@pytest.mark.parametrize("place", ["in the long statement", "between statements"])
def test_what_the_handler_of_a_service_raises_ends_the_service(
    place: str, door: str, small: Subject, tmp_path: Path
) -> None:
    """A handler that calls sys.exit ends the service wherever the run is; it is no failure of a revision."""
    database = small.copy(tmp_path / "service")
    scripts = slow_scripts if place == "in the long statement" else pausing_scripts
    child = start(with_exits, str(scripts(tmp_path / "scripts", MINUTES)), str(database), door)
    child.await_output(place)
    child.signal(signal.SIGTERM)

    assert 7 == child.wait(20), child.output
    assert "old state" == small.state(database)
    assert [*["skipped"] * (len(REVISIONS) - 1), "interrupted"] == harness.statuses(database)
    harness.require_tidy(database)
    tried("Signals", f"SIGTERM with a handler of the service's own that exits, {place}", "interrupted, SystemExit")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("door", ["cli", "alembic"])
def test_a_command_line_puts_the_handler_back(door: str, fails: bool, small: Subject, tmp_path: Path) -> None:  # noqa: FBT001
    """A program that calls a command line in its own process has its handler of SIGTERM again afterwards."""
    database = small.copy(tmp_path / "service")
    child = start(with_own_handler, door, str(database), "77" if fails else "head")
    assert 0 == child.wait(), child.output
    tried("Signals", f"a handler of SIGTERM set before a command line is called, {door} door", "put back")


def with_own_handler(door: str, database: str, target: str) -> None:
    """Exit with 0 if the handler of before is that of afterwards."""

    def mine(_number: int, _frame: object) -> None:
        pass

    signal.signal(signal.SIGTERM, mine)
    with contextlib.suppress(SystemExit):
        go(door, database, target)
    sys.exit(0 if signal.getsignal(signal.SIGTERM) is mine else 1)


def checking(database: str) -> None:
    """Exit with 42 if a signal gets through to a program that checks a database."""
    named = engine.locate(f"sqlite:///{database}")
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write("checking\n")
        sys.stdout.flush()
        while True:
            engine.quick_check(named)
    sys.exit(42)


@pytest.mark.parametrize("constraint", ["", "CHECK (fold(i) IS NULL)"])
def test_a_signal_ends_the_check_of_a_database(constraint: str, tmp_path: Path) -> None:
    """A signal inside quick_check, which takes long on a large file, is not taken for damage."""
    database = tmp_path / "sessions.sqlite3"
    with legacy.opened(database) as connection:
        connection.create_function("fold", 1, lambda _: None)
        connection.execute(f"CREATE TABLE t (i {constraint})")
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000) SELECT i FROM n"
        connection.execute(f"INSERT INTO t {numbers}")
        connection.commit()
    child = start(checking, str(database))
    child.await_output("checking")
    time.sleep(0.2)
    child.signal(signal.SIGINT)
    assert 42 == child.wait(20), child.output
    what = " that asks a function of the service" if constraint else ""
    tried("Signals", f"SIGINT inside quick_check{what}", "KeyboardInterrupt")


class RaisedByHandlerError(BaseException):
    """What the handler of a service raises."""


def preparing(watches: Callable[[Any], AbstractContextManager[Any]]) -> None:
    """Exit with 0 if what a handler raises comes through each time that a statement is being prepared."""

    def ring(_number: int, _frame: object) -> None:
        raise RaisedByHandlerError

    signal.signal(signal.SIGALRM, ring)
    columns = ", ".join(["typeof(name)"] * 300)
    with engine.scratch() as connection:
        for number in range(200):
            with contextlib.suppress(RaisedByHandlerError), watches(connection):
                signal.setitimer(signal.ITIMER_REAL, 0.0003 + number * 0.00002)
                for each in itertools.count():
                    # Each text is new, or it would be prepared only once.
                    connection.exec_driver_sql(f"SELECT {columns} FROM sqlite_master WHERE {number} = {each}")
    sys.exit(0)


@contextlib.contextmanager
def counted_first(connection: Any) -> Iterator[None]:
    """Await the first writes to a table, as a step of a run does."""
    effects.tell_first_writes(connection, ["never_written"], lambda _: None)
    try:
        yield
    finally:
        connection.connection.driver_connection.set_authorizer(None)


def preparing_what_is_long() -> None:
    """Exit with 0 if a statement that never ends is ended, also where the signal comes while it is being prepared."""

    def ring(_number: int, _frame: object) -> None:
        raise RaisedByHandlerError

    signal.signal(signal.SIGALRM, ring)
    columns = ", ".join(["typeof(i)"] * 300)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    with engine.scratch() as connection:
        for number in range(100):
            with contextlib.suppress(RaisedByHandlerError), counted_first(connection):
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + number * 0.00002)
                connection.exec_driver_sql(f"{endless} SELECT {columns} FROM n WHERE i < -{number}")
    sys.exit(0)


def test_a_signal_ends_a_long_statement_that_it_found_being_prepared() -> None:
    """It is not kept until the statement, which it could not refuse, has ended by itself."""
    child = start(preparing_what_is_long)
    assert 0 == child.wait(), child.output
    harness.require_explained(child.output)
    tried("Signals", "100 signals while a statement that never ends is prepared or runs", "ended at once")


@pytest.mark.parametrize("watches", [WatchedTransaction, effects.watched, counted_first])
def test_a_signal_is_no_refusal_of_a_statement(watches: Callable[[Any], AbstractContextManager[Any]]) -> None:
    """What a handler raises while SQLite asks whether a statement is allowed is not taken for a no."""
    child = start(preparing, watches)
    assert 0 == child.wait(), child.output
    harness.require_explained(child.output)
    what = "the rehearsal before it" if watches is effects.watched else "the run"
    tried("Signals", f"200 signals while statements of {what} are prepared", "what the handler raised")


COLLECTED = """
class Garbage:
    pass


def signal_while_it_is_collected(number):
    import os
    import weakref

    garbage = Garbage()
    reference = weakref.ref(garbage, lambda _: os.kill(os.getpid(), number))
    del garbage


_upgrade = upgrade


def upgrade():
    _upgrade()
    if op.get_bind().exec_driver_sql("SELECT count(*) FROM sessions").scalar():
        signal_while_it_is_collected({number})
        import time

        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("action", [by_cli, by_alembic])
def test_a_signal_that_python_drops_ends_a_command_line_all_the_same(
    action: Callable[..., Any], number: int, small: Subject, tmp_path: Path
) -> None:
    """Python drops what is raised while an object is collected, and the signal must not be lost with it."""
    database = small.copy(tmp_path / "service")
    scripts = changed_scripts(tmp_path / "scripts", COLLECTED.replace("{number}", str(int(number))))
    child = start(action, str(scripts), str(database))

    assert 128 + number == child.wait(20), child.output
    harness.require_explained(child.output)
    assert "ignored" not in child.output
    assert "old state" == small.state(database)
    assert [*["skipped"] * (len(REVISIONS) - 1), "interrupted"] == harness.statuses(database)
    name = f"{signal.Signals(number).name} while an object is collected, {action.__name__.replace('_', ' ')}"
    tried("Signals", name, f"old state, interrupted, exit {128 + number}")


SAVEPOINT_GONE = """
_upgrade = upgrade


def upgrade():
    _upgrade()
    if op.get_bind().exec_driver_sql("SELECT count(*) FROM sessions").scalar():
        {upgrade}(op.get_bind())


def precheck(connection):
    {precheck}(connection)
    return ()


def signal_after_release(connection):
    import os
    import time

    with connection.begin_nested() as savepoint:
        # What SQLAlchemy does at the end of the block, whose next line a signal may keep it from.
        connection.exec_driver_sql(f"RELEASE {savepoint._savepoint}")
        os.kill(os.getpid(), {number})
        time.sleep(60)
"""


@pytest.mark.parametrize("place", ["upgrade", "precheck"])
@pytest.mark.parametrize(("action", "number"), [(by_alembic, signal.SIGTERM), (by_cli, signal.SIGINT)])
def test_a_signal_right_after_a_savepoint_is_no_failure(  # noqa: PLR0917
    action: Callable[..., Any], number: int, place: str, mode: str, small: Subject, tmp_path: Path
) -> None:
    """To go back to a savepoint that is gone fails, and the run says all the same that a signal ended it."""
    database = small.copy(tmp_path / "service")
    here = {"upgrade": "bool", "precheck": "bool"} | {place: "signal_after_release"}
    texts = here | {"number": str(int(number))}
    scripts = changed_scripts(
        tmp_path / "scripts", re.sub(r"\{(\w+)\}", lambda m: texts.get(m[1], m[0]), SAVEPOINT_GONE)
    )
    child = start(action, str(scripts), str(database))

    assert 128 + number == child.wait(20), child.output
    harness.require_explained(child.output)
    assert "old state" == small.state(database)
    if place == "upgrade":
        assert [*["skipped"] * (len(REVISIONS) - 1), "interrupted"] == harness.statuses(database)
        harness.require_tidy(database)
    else:
        assert {database.name} == {each.name for each in database.parent.iterdir()} - {
            f"{database.name}-wal",
            f"{database.name}-shm",
        }
    what = f"{signal.Signals(number).name} right after a savepoint has gone, {place}, {mode}"
    tried("Signals", what, f"old state, exit {128 + number}")


HALF_READ = """
_upgrade = upgrade


def upgrade():
    _upgrade()
    rows = op.get_bind().exec_driver_sql("SELECT * FROM vector_stores, sqlite_master")
    if rows.fetchone():
        import os

        {then}
"""


@pytest.mark.parametrize(
    ("then", "code", "status"),
    [(f"os.kill(os.getpid(), {int(signal.SIGTERM)})", 143, "interrupted"), ("raise RuntimeError('no')", 5, "failed")],
)
def test_a_statement_that_is_half_read_is_let_go(  # noqa: PLR0917
    then: str, code: int, status: str, mode: str, small: Subject, tmp_path: Path
) -> None:
    """A run that ends while it reads rows is recorded at once: it does not keep itself from writing."""
    database = small.copy(tmp_path / "service")
    scripts = changed_scripts(tmp_path / "scripts", HALF_READ.replace("{then}", then))
    child = start(by_cli, str(scripts), str(database))

    assert code == child.wait(), child.output
    assert "could not be recorded" not in child.output
    assert [*["skipped"] * (len(REVISIONS) - 1), status] == harness.statuses(database)
    assert "old state" == small.state(database)
    harness.require_tidy(database)
    tried("Signals", f"the end of a run that has half read a statement, {mode}", f"old state, {status}")


def sigterm_of_its_own(folder: str, database: str) -> None:
    """Exit with 0 if a service's own SIGTERM handler is called during a run, which goes on."""
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    with_scripts(folder, vecmigrate.upgrade, f"sqlite:///{database}")
    sys.exit(0 if received == [signal.SIGTERM] else 1)


def test_the_handler_of_a_service_stays_in_charge(small: Subject, tmp_path: Path) -> None:
    """The library leaves SIGTERM to the service, whose handler may let the run go on."""
    database = small.copy(tmp_path / "service")
    child = start(sigterm_of_its_own, str(slow_scripts(tmp_path / "scripts", 3_000_000)), str(database))
    child.await_output("in the long statement")
    child.signal(signal.SIGTERM)

    assert 0 == child.wait(), child.output
    assert small.after == harness.contents(database)
    tried("Signals", "SIGTERM with a handler of the service's own", "handler called, run completed")


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize(("door", "number", "code"), [("cli", signal.SIGTERM, 143), ("alembic", signal.SIGINT, 130)])
def test_a_signal_ends_the_wait_for_a_lock(  # noqa: PLR0917
    door: str, number: int, code: int, lock: str, small: Subject, tmp_path: Path
) -> None:
    """Who waits for another process can be stopped at once, having written nothing."""
    database = small.copy(tmp_path / "service")
    with legacy.opened(database) as holder:
        holder.execute(f"BEGIN {lock}")
        child = start(go, door, str(database))
        child.await_open(database)
        began = time.monotonic()
        child.signal(number)
        assert code == child.wait(20), child.output
        assert PROMPTLY > time.monotonic() - began
    assert "old state" == small.state(database)
    assert "vecmigrate_history" not in legacy.tables(database)
    tried("Signals", f"{signal.Signals(number).name} while waiting for a lock", f"nothing written, exit {code}")


@pytest.mark.parametrize(("door", "code"), [("cli", 143), ("alembic", 143)])
def test_sigterm_at_any_moment_leaves_old_or_new(door: str, code: int, mode: str, big: Subject, tmp_path: Path) -> None:
    """Whenever the signal comes, the exit code tells of it, and the history tells the truth."""
    dice = random.Random(f"{door} {mode}")  # noqa: S311 - it must be the same each time
    for number in range(max(1, ROUNDS // 3)):
        database = big.copy(tmp_path / str(number))
        child = start(go, door, str(database))
        # Before its first line the process has no handler, and dies as by SIGKILL.
        time.sleep(dice.uniform(0.1, 0.8))
        child.signal(signal.SIGTERM)
        assert child.wait() in {code, 0, -signal.SIGTERM}, child.output

        harness.require_explained(child.output)
        outcome = big.state(database)
        if child.process.exitcode == code:
            assert not harness.has_begun(database) or outcome == "new state"
            expected = {"success"} if outcome == "new state" else {"interrupted", "skipped"}
            found = set(harness.statuses(database)) if "vecmigrate_history" in legacy.tables(database) else set()
            assert found <= expected
        vecmigrate.upgrade(harness.url(database))
        assert big.after == harness.contents(database)
        harness.require_tidy(database)
        tried("Signals", f"SIGTERM at a random moment, {door} door, {mode}", outcome)


def test_a_second_signal_during_the_record_loses_nothing(small: Subject, tmp_path: Path) -> None:
    """An impatient second and third Ctrl-C still leave the old state, and the next run tells of the end."""
    database = small.copy(tmp_path / "service")
    child = start(by_cli, str(slow_scripts(tmp_path / "scripts", MINUTES)), str(database))
    child.await_output("in the long statement")
    for _ in range(3):
        if child.process.is_alive():
            child.signal(signal.SIGINT)
        time.sleep(0.005)

    wait_until(lambda: not child.process.is_alive())
    assert "old state" == small.state(database)
    vecmigrate.upgrade(harness.url(database))
    assert 1 == harness.statuses(database).count("interrupted")
    harness.require_tidy(database)
    tried("Signals", "SIGINT three times within 15 ms", "old state")
