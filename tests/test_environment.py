"""Plain Alembic behaves as its users expect, behind the safety net."""

import io
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

import legacy
import vecmigrate
from doors import DOORS, run_alembic, run_cli, upgrade, url
from ladder import APP_VERSIONS, BELOW_HEAD, COMPATIBLE_FROM, HEAD, NEWEST, NEXT, REVISIONS, above
from scripts import Scripts
from vecmigrate import manifests
from vecmigrate.errors import AheadError, NeedsPersonError, RunFailedError


def configured(path: Path) -> Config:
    """Return a configuration whose output is kept."""
    config = vecmigrate.alembic_config(url(path))
    config.stdout = io.StringIO()
    config.output_buffer = io.StringIO()
    return config


def printed(config: Config) -> str:
    assert isinstance(config.stdout, io.StringIO)
    return config.stdout.getvalue()


def sql(config: Config) -> str:
    assert isinstance(config.output_buffer, io.StringIO)
    return config.output_buffer.getvalue()


def attempts(path: Path) -> list[tuple[object, ...]]:
    return legacy.query(path, "SELECT revision, direction, status FROM vecmigrate_history ORDER BY id")


READERS: dict[str, Callable[[Config], object]] = {
    "current": command.current,
    "check": command.check,
    "heads": command.heads,
    "branches": command.branches,
    "history": command.history,
    "history -i": lambda config: command.history(config, indicate_current=True),
    "show 001": lambda config: command.show(config, "001"),
    "show current": lambda config: command.show(config, "current"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_creates_nothing(reader: str, tmp_path: Path) -> None:
    """A command that only reads leaves the folder of an absent database empty."""
    folder = tmp_path / "empty"
    folder.mkdir()
    config = configured(folder / "absent.sqlite3")

    if reader in {"heads", "branches", "history", "history -i", "show 001"}:
        READERS[reader](config)
    else:
        with pytest.raises(CommandError, match=r"does not exist"):
            READERS[reader](config)

    assert {} == legacy.tree(folder)


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_writes_nothing(reader: str, released_file: Path) -> None:
    """A command that only reads changes no byte and no time of a database at head, and leaves nothing beside it."""
    vecmigrate.upgrade(url(released_file))
    before = legacy.tree(released_file.parent)

    READERS[reader](configured(released_file))

    assert before == legacy.tree(released_file.parent)


@pytest.mark.parametrize("reader", ["current", "history -i", "show current"])
def test_a_reader_writes_nothing_to_a_database_that_is_not_ours_yet(reader: str, legacy_file: Path) -> None:
    """A legacy database gets no version table from a command that only reads."""
    before = legacy.tree(legacy_file.parent)

    READERS[reader](configured(legacy_file))

    assert before == legacy.tree(legacy_file.parent)


def test_the_readers_of_the_real_command_tell_what_they_should(released_file: Path) -> None:
    """current, check, history and heads print what is true, and end with 0."""
    vecmigrate.upgrade(url(released_file), "001")
    assert "001" in run_alembic(released_file, "current").out
    behind = run_alembic(released_file, "check")
    assert behind.code != 0
    assert "Target database is not up to date" in behind.out + behind.err

    vecmigrate.upgrade(url(released_file))
    assert f"{HEAD} (head)" in run_alembic(released_file, "current").out
    assert "No new upgrade operations detected." in run_alembic(released_file, "check").out
    assert f"{HEAD} (head)" in run_alembic(released_file, "heads").out
    history = run_alembic(released_file, "history", "-i").out
    assert f"{BELOW_HEAD} -> {HEAD} (head) (current)" in history


def test_a_failed_command_prints_no_traceback(tmp_path: Path) -> None:
    """The command `current` on an absent database says so in one line, and what to do next."""
    result = run_alembic(tmp_path / "absent.sqlite3", "current")

    assert result.code != 0
    assert "Traceback" not in result.out + result.err
    assert "absent.sqlite3 does not exist" in result.out + result.err
    assert "Next: vecmigrate --db-path" in result.out + result.err


def test_the_real_command_takes_settings_by_x(released_file: Path) -> None:
    """-x backup=never makes no backup."""
    assert 0 == run_alembic(released_file, "-x", "backup=never", "upgrade", "head").code

    assert HEAD == legacy.revision(released_file)
    assert not (released_file.parent / "backups").exists()


def test_an_unknown_x_is_refused(released_file: Path) -> None:
    """A misspelt -x stops the run before anything is written, and the known ones are named."""
    before = legacy.tree(released_file.parent)

    result = run_alembic(released_file, "-x", "bakcup=never", "upgrade", "head")

    assert result.code != 0
    assert "-x bakcup is not known" in result.out + result.err
    assert "allow_data_loss" in result.out + result.err
    assert before == legacy.tree(released_file.parent)


def test_relative_targets_move_one_step(released_file: Path) -> None:
    """+1 and -1 mean what they mean in Alembic."""
    reached = []
    for call, target in (*((command.upgrade, "+1") for _ in REVISIONS), (command.downgrade, "-1")):
        call(configured(released_file), target)
        reached.append(legacy.revision(released_file))

    assert [*REVISIONS, BELOW_HEAD] == reached


def test_a_relative_target_beyond_head_is_refused(released_file: Path) -> None:
    """+1 at head is an error, as in Alembic, and changes nothing."""
    vecmigrate.upgrade(url(released_file))
    before = legacy.tree(released_file.parent)

    with pytest.raises(CommandError):
        command.upgrade(configured(released_file), "+1")

    assert before == legacy.tree(released_file.parent)


def test_an_unknown_target_is_refused(released_file: Path) -> None:
    """An unknown revision is an error that changes nothing."""
    before = legacy.tree(released_file.parent)

    with pytest.raises(CommandError, match="xyz"):
        command.upgrade(configured(released_file), "xyz")

    assert before == legacy.tree(released_file.parent)


# Stamps.


def test_stamp_is_refused_where_tables_are_missing(legacy_file: Path) -> None:
    """A legacy database cannot be stamped head, and the refusal names what is missing."""
    before = legacy.tree(legacy_file.parent)

    with pytest.raises(CommandError, match=f"cannot be stamped {HEAD}: it lacks .*embedding_models"):
        command.stamp(configured(legacy_file), "head")

    assert before == legacy.tree(legacy_file.parent)


def test_stamp_on_an_absent_database_creates_nothing(tmp_path: Path) -> None:
    """A database that is not there has no tables to stamp."""
    folder = tmp_path / "empty"
    folder.mkdir()

    with pytest.raises(CommandError, match=f"cannot be stamped {HEAD}"):
        command.stamp(configured(folder / "absent.sqlite3"), "head")

    assert {} == legacy.tree(folder)


def test_stamp_records_a_revision_whose_tables_are_there(released_file: Path) -> None:
    """A lost version row can be put back, is backed up before, and stands in the history."""
    vecmigrate.upgrade(url(released_file))
    digest = legacy.digest(released_file)
    legacy.execute(released_file, "DELETE FROM vecmigrate_version")

    assert 0 == run_alembic(released_file, "stamp", "head").code

    assert HEAD == legacy.revision(released_file)
    assert digest == legacy.digest(released_file)
    assert (HEAD, "stamp", "success") == attempts(released_file)[-1]
    assert 2 == len(list((released_file.parent / "backups").glob("*.sqlite3")))


def test_stamp_with_purge_mends_a_version_table_with_two_rows(released_file: Path) -> None:
    """Two rows in the version table are refused everywhere but by stamp --purge."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, "INSERT INTO vecmigrate_version VALUES ('001')")
    before = legacy.tree(released_file.parent)
    for call in (command.upgrade, command.stamp):
        with pytest.raises(CommandError, match="names 2 revisions"):
            call(configured(released_file), "head")
    assert before == legacy.tree(released_file.parent)

    command.stamp(configured(released_file), "head", purge=True)

    assert [(HEAD,)] == legacy.query(released_file, "SELECT version_num FROM vecmigrate_version")


@pytest.mark.parametrize("revision", [HEAD, "777"])
def test_stamp_with_purge_works_from_any_single_revision(revision: str, released_file: Path) -> None:
    """The backup before it tells the revision that was there, known here or not."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, f"UPDATE vecmigrate_version SET version_num = '{revision}'")

    command.stamp(configured(released_file), "head", purge=True)

    assert HEAD == legacy.revision(released_file)
    folder = released_file.parent / "backups"
    assert {None, revision} == {backup.revision for backup, _ in manifests.manifests(str(folder)) if backup}


# New revisions.


def test_a_new_revision_gets_the_next_number_without_a_database(scripts: Scripts, tmp_path: Path) -> None:
    """The command `revision` writes <number>_<slug>.py and neither needs nor makes a database."""
    absent = tmp_path / "absent.sqlite3"

    result = run_alembic(absent, "revision", "-m", "Add tags", ini=scripts.ini)

    assert 0 == result.code, result.err
    text = (scripts.versions / f"{NEXT}_add_tags.py").read_text(encoding="utf-8")
    assert text.startswith(f'"""Add tags\n\nRevision ID: {NEXT}\nRevises: {HEAD}\n')
    assert (f"revision = '{NEXT}'" in text, f"down_revision = '{HEAD}'" in text) == (True, True)
    assert not absent.exists()


def test_a_new_revision_keeps_a_given_id(scripts: Scripts, tmp_path: Path) -> None:
    """--rev-id wins over the next number."""
    command.revision(configured(tmp_path / "absent.sqlite3"), message="Later", rev_id="910")

    assert (scripts.versions / "910_later.py").exists()
    assert not (scripts.versions / f"{NEXT}_later.py").exists()


def test_autogenerate_at_head_proposes_nothing(scripts: Scripts, released_file: Path) -> None:
    """Beside the service's tables, `revision --autogenerate` on a migrated database makes an empty revision."""
    vecmigrate.upgrade(url(released_file))

    command.revision(configured(released_file), message="Nothing", autogenerate=True)

    text = (scripts.versions / f"{NEXT}_nothing.py").read_text(encoding="utf-8")
    assert "op." not in text.partition("def upgrade")[2]


# SQL scripts.


def rendered(path: Path, call: Callable[..., None], span: str) -> str:
    config = configured(path)
    call(config, span, sql=True)
    return sql(config)


def apply(path: Path, script: str) -> None:
    """Apply a script as any client would that stops at the first error."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def spelt(path: Path) -> dict[tuple[str, str], str]:
    """Return the SQL of the schema without what a rename changes in it: quotes and white space."""
    return {name: re.sub(r'[\s"]+', " ", text).replace(" (", "(") for name, text in legacy.schema(path).items()}


def test_the_script_of_all_revisions_makes_a_current_database(tmp_path: Path) -> None:
    """The script of `upgrade head` opens no database, and applied to an empty one gives one that is at head."""
    path = tmp_path / "empty.sqlite3"
    script = rendered(path, command.upgrade, "head")
    assert not path.exists()

    apply(path, script)

    assert "current" == vecmigrate.status(url(path)).state
    assert 0 == run_cli("--db-path", path, "status", "--check").code
    command.check(configured(path))
    migrated = tmp_path / "migrated.sqlite3"
    vecmigrate.upgrade(url(migrated))
    assert spelt(migrated) == spelt(path)


def test_the_script_gives_every_database_an_identity_of_its_own(tmp_path: Path) -> None:
    """Two databases made by one script have different identities."""
    script = rendered(tmp_path / "any.sqlite3", command.upgrade, "head")
    identities = set()
    for name in ("one", "two"):
        apply(tmp_path / name, script)
        identities.update(legacy.query(tmp_path / name, "SELECT value FROM vecmigrate_meta WHERE key = 'database_id'"))

    assert 2 == len(identities)


def test_a_database_made_by_script_goes_on_by_runs(tmp_path: Path) -> None:
    """What a script made can be downgraded and upgraded like any other."""
    path = tmp_path / "scripted.sqlite3"
    apply(path, rendered(path, command.upgrade, "head"))
    schema = spelt(path)

    vecmigrate.rollback(url(path), to_version="000")
    vecmigrate.upgrade(url(path))

    assert schema == spelt(path)


def test_the_script_fails_at_once_on_a_database_with_rows_to_convert(legacy_file: Path) -> None:
    """On a legacy database the script's first statement fails, and nothing is changed."""
    script = rendered(legacy_file, command.upgrade, "head")
    before = legacy.digest(legacy_file)

    with pytest.raises(sqlite3.Error):
        apply(legacy_file, script)

    assert before == legacy.digest(legacy_file)
    assert legacy.revision(legacy_file) is None


def test_the_script_of_001_fails_at_once_on_rows(legacy_file: Path) -> None:
    """The script of `upgrade 000:001` too refuses a database whose rows would have to be converted."""
    vecmigrate.upgrade(url(legacy_file), "000")
    before = legacy.digest(legacy_file)

    with pytest.raises(sqlite3.Error):
        apply(legacy_file, rendered(legacy_file, command.upgrade, "000:001"))

    assert before == legacy.digest(legacy_file)


def test_the_script_down_undoes_the_script_up(tmp_path: Path) -> None:
    """The script of a downgrade, applied to an empty database at head, leads to base."""
    path = tmp_path / "scripted.sqlite3"
    apply(path, rendered(path, command.upgrade, "head"))

    apply(path, rendered(path, command.downgrade, f"{HEAD}:base"))

    assert legacy.revision(path) is None
    assert set() == legacy.OUR_TABLES & legacy.tables(path)


def test_the_real_command_prints_the_script_on_stdout_alone(tmp_path: Path) -> None:
    """The command `upgrade head --sql` has SQL on standard output and nothing else."""
    path = tmp_path / "empty.sqlite3"
    result = run_alembic(path, "upgrade", "head", "--sql")
    assert (0, False) == (result.code, path.exists())

    apply(path, result.out)

    assert HEAD == legacy.revision(path)


@pytest.mark.parametrize("start", ["base", "002"])
def test_our_own_command_prints_the_script_from_where_the_database_is(start: str, tmp_path: Path) -> None:
    """It writes nothing, and what it prints leads from there to the target; with nothing to do that is nothing."""
    path = tmp_path / "empty.sqlite3"
    if start != "base":
        vecmigrate.upgrade(url(path), start)
    files = sorted(tmp_path.iterdir())

    printed = run_cli("--db-path", path, "migrate", "--sql")

    assert (0, "") == (printed.code, printed.err)
    assert files == sorted(tmp_path.iterdir())
    apply(path, printed.out)
    assert HEAD == legacy.revision(path)
    again = run_cli("--db-path", path, "migrate", "--sql")
    assert (0, "", True) == (again.code, again.out, "Nothing to do" in again.err)


@pytest.mark.parametrize("option", ["--dry-run", "--force", "--no-backup", "--yes"])
def test_the_script_goes_with_no_option_of_a_run(option: str, tmp_path: Path) -> None:
    """A script is not run, so what only a run can do is a mistake."""
    assert 2 == run_cli("--db-path", tmp_path / "empty.sqlite3", "migrate", "--sql", option).code


# Failing revisions.

RAISES = """
    op.execute("CREATE TABLE half (x)")
    op.execute("DELETE FROM vector_stores")
    raise RuntimeError("the revision is wrong")
"""
COMMITS = """
    op.execute("DELETE FROM vector_stores")
    op.get_bind().connection.driver_connection.commit()
"""
SCRIPTS = """
    op.execute("DELETE FROM vector_stores")
    op.get_bind().connection.driver_connection.executescript("CREATE TABLE half (x); DROP TABLE half;")
"""
BEGINS = """
    op.execute("DELETE FROM vector_stores")
    op.get_bind().exec_driver_sql("BEGIN")
"""
SWALLOWS = """
    op.execute("DELETE FROM vector_stores")
    try:
        op.get_bind().exec_driver_sql("COMMIT")
    except Exception:
        pass
"""
ENDS = {
    "raises": (RAISES, 5),
    "commits": (COMMITS, 6),
    "executescript": (SCRIPTS, 6),
    "begins": (BEGINS, 6),
    "swallows the refusal": (SWALLOWS, 6),
}


@pytest.mark.parametrize(("body", "code"), ENDS.values(), ids=ENDS)
def test_a_revision_that_fails_leaves_the_old_state(
    body: str, code: int, scripts: Scripts, released_file: Path
) -> None:
    """Whatever a revision does wrong, the whole run is undone, recorded, and ends with the right exit code."""
    scripts.add(body)
    before, service = legacy.digest(released_file), legacy.service_digest(released_file)

    result = run_cli("--db-path", released_file, "migrate", "--json")

    assert code == result.code, result.err
    error = result.document["error"]
    assert code == error["exit_code"]
    assert Path(error["backup"]).exists()
    assert error["next"]
    assert "Traceback" not in result.err
    assert before == legacy.digest(released_file)
    assert service == legacy.service_digest(released_file)
    assert legacy.revision(released_file) is None
    skipped = [(revision, "upgrade", "skipped") for revision in REVISIONS]
    assert [*skipped, (NEXT, "upgrade", "failed")] == attempts(released_file)
    messages = legacy.query(released_file, "SELECT message FROM vecmigrate_history WHERE status = 'skipped'")
    assert {(f"rolled back with {NEXT}",)} == set(messages)


@pytest.mark.parametrize("door", DOORS[1:])
def test_a_failing_revision_leaves_the_old_state_at_the_other_doors(
    door: str, scripts: Scripts, released_file: Path
) -> None:
    """Plain Alembic and alembic.command undo and record the whole run too, and name the backup."""
    scripts.add(RAISES)
    before = legacy.digest(released_file)

    if door == "alembic":
        result = run_alembic(released_file, "upgrade", "head", ini=scripts.ini)
        assert result.code != 0
        message = result.out + result.err
        assert "Traceback" not in message
    else:
        with pytest.raises(CommandError) as raised:
            command.upgrade(vecmigrate.alembic_config(url(released_file)), "head")
        assert isinstance(raised.value.__cause__, RunFailedError)
        message = str(raised.value)

    assert f"Revision {NEXT} failed" in message
    assert "Backup: " in message
    assert before == legacy.digest(released_file)
    assert (NEXT, "upgrade", "failed") == attempts(released_file)[-1]


def test_a_corrected_revision_runs_after_its_failure(scripts: Scripts, released_file: Path) -> None:
    """After the cause is mended, the same command succeeds by itself."""
    scripts.add(RAISES)
    assert 5 == run_cli("--db-path", released_file, "migrate").code
    scripts.add('op.execute("CREATE TABLE whole (x)")', downgrade='op.execute("DROP TABLE whole")')

    assert 0 == run_cli("--db-path", released_file, "migrate").code

    assert NEXT == legacy.revision(released_file)
    assert (NEXT, "upgrade", "success") == attempts(released_file)[-1]


def test_a_failing_downgrade_leaves_the_state_at_head(scripts: Scripts, released_file: Path) -> None:
    """A run down is all or nothing too."""
    scripts.add('op.execute("CREATE TABLE whole (x)")')
    vecmigrate.upgrade(url(released_file), NEXT)
    before = legacy.digest(released_file)
    scripts.add("pass", downgrade='op.execute("DROP TABLE whole")')
    broken = scripts.versions / "001_unified_vector_stores.py"
    broken.write_text(
        broken.read_text(encoding="utf-8") + "\n\ndef downgrade() -> None:\n    raise RuntimeError\n", encoding="utf-8"
    )

    # The scripts are not the ones any more that were applied, so somebody has to say that their way down fits.
    assert 5 == run_cli("--db-path", released_file, "rollback", "--to-version", "0", "--yes").code

    assert before == legacy.digest(released_file)
    assert NEXT == legacy.revision(released_file)
    undone = [(each, "downgrade", "skipped") for each in (NEXT, *above("001")[::-1])]
    ended = [*undone, ("001", "downgrade", "failed")]
    assert ended == attempts(released_file)[-len(ended) :]


def test_an_error_shows_no_contents_of_rows(scripts: Scripts, released_file: Path) -> None:
    """The values of a failing statement are in no message and in no record."""
    scripts.add(
        'op.get_bind().execute(sa.text("INSERT INTO memory_meta VALUES (:k, :v)"), '
        '{"k": "schema", "v": "canary-in-a-row"})'
    )

    result = run_cli("--db-path", released_file, "migrate", "--json")

    assert 5 == result.code
    assert "canary" not in result.out + result.err
    assert [] == legacy.query(
        released_file, "SELECT 1 FROM vecmigrate_history WHERE message || metadata LIKE '%canary%'"
    )


# A database that is newer than this version.


def make_ahead(path: Path, compatible_from: str) -> None:
    vecmigrate.upgrade(url(path))
    legacy.execute(
        path,
        "UPDATE vecmigrate_version SET version_num = '909'",
        "UPDATE vecmigrate_meta SET value = '99.0.0' WHERE key = 'app_version'",
        "DELETE FROM vecmigrate_meta WHERE key = 'compatible_from'",
        f"INSERT INTO vecmigrate_meta VALUES ('compatible_from', '{compatible_from}')",
    )


@pytest.mark.parametrize(
    ("oldest", "usable"), [("1.0.0", True), (NEWEST, True), (f"{NEWEST}.1", False), ("99.0.0", False)]
)
def test_a_newer_database_is_known_as_such(oldest: str, usable: bool, released_file: Path) -> None:  # noqa: FBT001
    """An unknown revision says who wrote it and whether this version may run on it, at every door."""
    make_ahead(released_file, oldest)
    before = legacy.tree(released_file.parent)

    status = vecmigrate.status(url(released_file))
    assert ("ahead", "909", "99.0.0", []) == (status.state, status.revision, status.app_version, status.pending)
    may = "may still run on it" if usable else "must not run on it"
    assert may in status.notes[0]
    assert usable == status.compatible
    assert 0 == run_cli("--db-path", released_file, "status").code
    # A deployment that waits with it must not start a service that may not run on the database.
    assert (0 if usable else 6) == run_cli("--db-path", released_file, "status", "--check").code

    result = run_cli("--db-path", released_file, "migrate")
    assert (0 if usable else 6) == result.code
    assert "written by app version 99.0.0" in result.err
    assert may in result.err

    report = vecmigrate.ensure_current(url(released_file))
    assert ("ahead_compatible" if usable else "ahead_incompatible") == report.state
    assert usable == report.usable
    if usable:
        vecmigrate.upgrade(url(released_file))
        command.upgrade(configured(released_file), "head")
    else:
        with pytest.raises(AheadError, match=r"install app version 99\.0\.0"):
            vecmigrate.upgrade(url(released_file))
        with pytest.raises(CommandError, match="must not run on it"):
            command.upgrade(configured(released_file), "head")
    assert before == legacy.tree(released_file.parent)


def test_the_version_of_the_application_decides_about_a_newer_database(released_file: Path) -> None:
    """With app_version given, that one is compared instead of the newest of the map."""
    make_ahead(released_file, "50.0.0")

    assert "ahead_incompatible" == vecmigrate.ensure_current(url(released_file)).state
    assert "ahead_compatible" == vecmigrate.ensure_current(url(released_file), app_version="50.1.0").state
    assert "ahead_incompatible" == vecmigrate.ensure_current(url(released_file), app_version="49.0.0").state


def test_a_newer_database_without_a_word_of_its_writer_is_not_used(released_file: Path) -> None:
    """Where compatible_from is not known, this version must not run."""
    make_ahead(released_file, "1.0.0")
    legacy.execute(released_file, "DELETE FROM vecmigrate_meta WHERE key IN ('compatible_from', 'app_version')")

    result = run_cli("--db-path", released_file, "migrate")

    assert 6 == result.code
    assert "written by app version unknown" in result.err


def test_a_newer_database_is_not_downgraded_or_stamped(released_file: Path) -> None:
    """Even a compatible one: its scripts are not here."""
    make_ahead(released_file, "1.0.0")
    before = legacy.tree(released_file.parent)

    assert 6 == run_cli("--db-path", released_file, "rollback", "--to-version", "0").code
    for call in (command.downgrade, command.stamp):
        with pytest.raises(CommandError, match="909"):
            call(configured(released_file), "001")

    assert before == legacy.tree(released_file.parent)


def test_the_history_can_be_cleared_without_forgetting_what_is_compatible(released_file: Path) -> None:
    """Clearing keeps the identity of the database and compatible_from."""
    make_ahead(released_file, "1.0.0")
    known = legacy.query(released_file, "SELECT * FROM vecmigrate_meta ORDER BY key")

    assert 0 == run_cli("--db-path", released_file, "history", "--clear", "--yes").code

    assert known == legacy.query(released_file, "SELECT * FROM vecmigrate_meta ORDER BY key")
    assert "ahead_compatible" == vecmigrate.ensure_current(url(released_file)).state


def test_revision_and_app_version_are_kept_in_the_database(released_file: Path) -> None:
    """After each run the database says which app version wrote it, and the oldest that may use it."""
    told: list[dict[object, object]] = []
    for target in REVISIONS:
        vecmigrate.upgrade(url(released_file), target)
        known = legacy.query(released_file, "SELECT key, value FROM vecmigrate_meta")
        told.append({row[0]: row[1] for row in known})

    assert [APP_VERSIONS[each] for each in REVISIONS] == [each["app_version"] for each in told]
    assert [COMPATIBLE_FROM[each] for each in REVISIONS] == [each["compatible_from"] for each in told]
    assert 1 == len({each["database_id"] for each in told})


# Nothing to do.


@pytest.mark.parametrize("door", DOORS)
def test_nothing_to_do_writes_nothing(door: str, released_file: Path) -> None:
    """At head, an upgrade changes no byte, no time and no folder."""
    vecmigrate.upgrade(url(released_file))
    before = legacy.tree(released_file.parent)

    upgrade(door, released_file)

    assert before == legacy.tree(released_file.parent)


def test_a_target_below_the_database_writes_nothing(released_file: Path) -> None:
    """An upgrade to a revision that is applied already does nothing."""
    vecmigrate.upgrade(url(released_file))
    before = legacy.tree(released_file.parent)

    vecmigrate.upgrade(url(released_file), "001")
    command.upgrade(configured(released_file), "001")

    assert before == legacy.tree(released_file.parent)


def test_history_survives_going_to_base_and_back(released_file: Path) -> None:
    """Neither base nor a restore forgets an attempt."""
    vecmigrate.upgrade(url(released_file))
    vecmigrate.rollback(url(released_file), to_version="base", allow_data_loss=True)
    assert 2 * len(REVISIONS) == len(attempts(released_file))
    vecmigrate.upgrade(url(released_file))
    known = attempts(released_file)
    backups = sorted((released_file.parent / "backups").glob(f"*-{HEAD}.sqlite3"))

    vecmigrate.restore(url(released_file), name=backups[0].name)

    assert known == attempts(released_file)[:-1]
    assert (HEAD, "restore", "success") == attempts(released_file)[-1]


def test_a_fresh_database_is_created_without_a_backup(tmp_path: Path) -> None:
    """There is nothing to save of a database that did not exist."""
    report = vecmigrate.upgrade(url(tmp_path / "fresh.sqlite3"))

    assert (True, None, HEAD) == (report.created, report.backup, report.to_revision)
    assert not (tmp_path / "backups").exists()


def test_the_command_of_alembic_leaves_the_logging_of_a_service_alone(released_file: Path) -> None:
    """Called from Python, a run configures no logger, disables none, and prints nothing."""
    import logging  # noqa: PLC0415 - what the test is about

    service = logging.getLogger("service.of.its.own")
    before = (logging.root.handlers[:], logging.root.level, service.disabled)
    config = configured(released_file)

    command.upgrade(config, "head")

    assert before == (logging.root.handlers, logging.root.level, service.disabled)
    assert "" == printed(config)


def test_a_refusal_is_an_error_of_ours(released_file: Path) -> None:
    """The cause of Alembic's CommandError is the VecmigrateError with its exit code."""
    with pytest.raises(CommandError) as raised:
        command.stamp(configured(released_file), "head")

    assert isinstance(raised.value.__cause__, NeedsPersonError)
    assert 6 == raised.value.__cause__.exit_code


def test_the_environment_names_the_database(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument, VECMIGRATE_DATABASE_URL names the database for the Python functions too."""
    monkeypatch.setitem(os.environ, "VECMIGRATE_DATABASE_URL", url(released_file))

    command.upgrade(vecmigrate.alembic_config(), "head")

    assert HEAD == vecmigrate.status().revision
