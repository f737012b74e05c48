"""Triggers of others where a run writes: those on the tool's own tables are refused, none changes what the run did."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.util import CommandError

import legacy
import vecmigrate
from doors import DOORS, downgrade, run_alembic, run_cli, url
from ladder import HEAD
from scripts import Scripts
from vecmigrate import history
from vecmigrate.errors import NeedsPersonError, NotOursError, RunFailedError

DELETES = "CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN DELETE FROM sessions; END"
WRITES = {
    "vecmigrate_history": "INSERT",
    "vecmigrate_meta": "INSERT",
    "vecmigrate_adopted": "INSERT",
    "vecmigrate_preserved": "INSERT",
    "Vecmigrate_Version": "UPDATE",
}


def sessions(path: Path) -> int:
    return len(legacy.rows(path, "sessions"))


def plant(path: Path, table: str = "vecmigrate_history", event: str = "INSERT") -> None:
    legacy.execute(path, DELETES.format(name="planted", event=event, table=table))


@pytest.mark.parametrize("table", WRITES)
def test_a_trigger_on_a_table_of_the_tool_stops_the_run(table: str, released_file: Path) -> None:
    """It is named with its table, before anything is written, and with the statement that takes it away."""
    vecmigrate.upgrade(url(released_file), "001")
    plant(released_file, table, WRITES[table])
    before = legacy.tree(released_file.parent)

    done = run_cli("--db-path", released_file, "migrate")

    assert 6 == done.code
    assert f"planted on {table}" in done.err
    assert "DROP TRIGGER planted" in done.err
    assert before == legacy.tree(released_file.parent)


@pytest.mark.parametrize("door", DOORS)
def test_no_door_goes_down_past_one(door: str, released_file: Path) -> None:
    """Every door refuses it on the way down too."""
    vecmigrate.upgrade(url(released_file))
    plant(released_file)
    before = legacy.digest(released_file)

    with pytest.raises((AssertionError, CommandError, NotOursError), match="planted on vecmigrate_history"):
        downgrade(door, released_file, "000")

    assert before == legacy.digest(released_file)


def test_once_it_is_dropped_the_run_goes_on(released_file: Path) -> None:
    """The command that the refusal names is all that is needed."""
    vecmigrate.upgrade(url(released_file), "001")
    plant(released_file)
    with pytest.raises(NotOursError) as raised:
        vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, "DROP TRIGGER planted")

    assert "DROP TRIGGER planted" in raised.value.next_step
    assert ["002"] == vecmigrate.upgrade(url(released_file), "002").applied
    assert 50 == sessions(released_file)


def test_the_history_is_not_cleared_past_one(released_file: Path) -> None:
    """`history --clear` writes to the table too."""
    vecmigrate.upgrade(url(released_file))
    plant(released_file, event="DELETE")

    assert 6 == run_cli("--db-path", released_file, "history", "--clear", "--yes").code
    assert 50 == sessions(released_file)


def test_the_record_of_a_run_that_died_waits(released_file: Path) -> None:
    """Who finds the marker of a dead run writes nothing while such a trigger is there, and the marker stays."""
    vecmigrate.upgrade(url(released_file))
    step = {"revision": "002", "direction": "upgrade", "migration_id": "002_x", "version": None, "name": "x"}
    marker = history.Marker(
        run_id="a" * 32, database_id="b", started_at="2026", direction="upgrade", steps=[step], backup=None
    )
    marker.write(str(released_file))
    plant(released_file)

    assert 6 == run_cli("--db-path", released_file, "migrate").code
    assert 50 == sessions(released_file)
    assert [marker] == history.markers(str(released_file))


def test_a_failed_run_is_not_recorded_past_one(scripts: Scripts, released_file: Path) -> None:
    """A script may have put one there, which was rolled back with it; one that came since is not set off."""
    vecmigrate.upgrade(url(released_file))
    scripts.add(f'op.execute("{DELETES.format(name="planted", event="INSERT", table="vecmigrate_history")}"); 1 / 0')

    with pytest.raises(RunFailedError):
        vecmigrate.upgrade(url(released_file))

    assert 50 == sessions(released_file)


def test_a_backup_that_holds_one_is_not_restored(released_file: Path) -> None:
    """The restore would write its record there; it is refused before anything is touched."""
    vecmigrate.upgrade(url(released_file))
    plant(released_file)
    made = vecmigrate.backup(url(released_file))
    legacy.execute(released_file, "DROP TRIGGER planted")
    before = legacy.tree(released_file.parent)

    done = run_cli("--db-path", released_file, "restore", made.name)

    assert 6 == done.code
    assert "planted on vecmigrate_history" in done.err
    assert before == legacy.tree(released_file.parent)


def test_a_database_that_has_one_is_restored(released_file: Path) -> None:
    """A sound backup takes its place, which is a way out: nothing is written to the tables of the present state."""
    vecmigrate.upgrade(url(released_file))
    made = vecmigrate.backup(url(released_file))
    plant(released_file)

    assert 0 == run_cli("--db-path", released_file, "restore", made.name).code
    assert 50 == sessions(released_file)


REWRITES = {
    "another revision": "UPDATE vecmigrate_version SET version_num = '000'",
    "no revision": "DELETE FROM vecmigrate_version",
    "a revision that nobody knows": "UPDATE vecmigrate_version SET version_num = 'zzz'",
}


@pytest.mark.parametrize("what", REWRITES)
def test_the_version_table_says_what_the_run_did(what: str, scripts: Scripts, released_file: Path) -> None:
    """Where a trigger or a script has put something else there, nothing is committed, and a person has to look."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(
        released_file,
        f"CREATE TRIGGER rewriting AFTER UPDATE ON memory_meta BEGIN {REWRITES[what]}; END",
    )
    before = legacy.digest(released_file)
    # What runs last: the row that says that the run is done.
    scripts.add(
        'op.execute("CREATE TRIGGER later AFTER INSERT ON vecmigrate_history BEGIN '
        "UPDATE memory_meta SET value = 'x'; END\")"
    )

    with pytest.raises(NeedsPersonError, match="before its commit the table vecmigrate_version said"):
        vecmigrate.upgrade(url(released_file))

    assert before == legacy.digest(released_file)
    assert [(HEAD,)] == legacy.query(released_file, "SELECT version_num FROM vecmigrate_version")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER planted AFTER INSERT ON vecmigrate_history EXECUTE FUNCTION tsvector_update_trigger()",
        "CREATE RULE planted AS ON INSERT TO vecmigrate_history DO ALSO DELETE FROM sessions",
    ],
    ids=["trigger", "rule"],
)
def test_triggers_and_rules_of_postgresql_stop_the_run(statement: str, postgresql: sa.URL) -> None:
    """There a rule does what a trigger does."""
    vecmigrate.upgrade(postgresql, "001")
    engine = sa.create_engine(postgresql)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE sessions (id int)")
        connection.exec_driver_sql(statement)
    engine.dispose()

    with pytest.raises(NotOursError, match="planted on vecmigrate_history"):
        vecmigrate.upgrade(postgresql)


def test_plain_alembic_names_it_too(released_file: Path) -> None:
    """The `alembic` command refuses it in the same words."""
    vecmigrate.upgrade(url(released_file), "001")
    plant(released_file)

    done = run_alembic(released_file, "upgrade", "head")

    assert 0 != done.code
    assert "planted on vecmigrate_history" in done.out + done.err
