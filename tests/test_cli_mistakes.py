"""The command line with what people do wrong, and with what the world around it does: pipes, disks, encodings."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import legacy
from doors import ROOT, Result, run_alembic, run_cli, run_forked
from faults.slow import changed_scripts
from ladder import HEAD, NEXT, REVISIONS, above
from scripts import Scripts
from test_bad_input import UNPRIVILEGED, untouched
from vecmigrate import shell

PROGRAM = (sys.executable, "-c", "from vecmigrate.cli import main; main()")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, the current one, without an alembic.ini."""
    path = tmp_path / "service"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def released(folder: Path) -> Path:
    return legacy.build(folder / "sessions.sqlite3", "released")


def paste(command: str) -> Result:
    """Run a command line of a message."""
    program, *words = shlex.split(command)
    assert "vecmigrate" == program
    return run_cli(*words)


# Naming the database.


@pytest.mark.parametrize("option", ["--db-path", "--database-url"])
def test_an_empty_name_leads_to_no_other_database(option: str, released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of a script that is not set must not migrate what the environment names."""
    monkeypatch.setenv("VECMIGRATE_DATABASE_URL", f"sqlite:///{released}")
    before = untouched(released.parent)
    result = run_cli(option, "", "migrate")
    assert (2, True) == (result.code, f"{option} is empty" in result.err)
    assert before == untouched(released.parent)


@pytest.mark.parametrize("given", ["sqlite://sessions.sqlite3", "sqlite://srv/app/sessions.sqlite3"])
def test_a_url_with_a_slash_missing_is_refused_at_every_door(given: str, folder: Path) -> None:
    """Its file would be taken for a host: the run would be one in memory, and its success a lie."""
    result = run_cli("--database-url", given, "migrate", "--json")
    assert (1, "ConfigurationError") == (result.code, result.document["error"]["type"])
    assert "sqlite:////absolute/path.sqlite3" in result.document["error"]["next"]
    through_alembic = run_alembic(None, "upgrade", "head", environ={"VECMIGRATE_DATABASE_URL": given})
    assert "The database URL is not one" in through_alembic.err
    assert [] == list(folder.iterdir())


def test_a_name_that_is_not_utf_8_is_refused(folder: Path) -> None:
    """No message could show it, and no record hold it."""
    path = os.fsdecode(os.fsencode(folder) + b"/\xff.sqlite3")
    result = run_cli("--db-path", path, "migrate", "--json")
    assert (1, "ConfigurationError") == (result.code, result.document["error"]["type"])
    assert "not UTF-8" in result.document["error"]["message"]
    assert [] == list(folder.iterdir())


def test_a_database_made_by_mistake_is_mentioned(folder: Path) -> None:
    """Whoever mistypes a path sees that a new database was made, and which."""
    assert f"Created {folder}/sesions.sqlite3." in run_cli("--db-path", "sesions.sqlite3", "migrate").out
    assert "Created" not in run_cli("--db-path", "sesions.sqlite3", "rollback", "--to-version", "0").out


def test_where_none_can_be_made_the_next_step_is_another(folder: Path) -> None:
    """A database that is not there, in a folder that may not be written, is not created by trying again."""
    folder.chmod(0o555)
    try:
        result = run_forked(UNPRIVILEGED, "--db-path", folder / "new.sqlite3", "migrate", "--json")
    finally:
        folder.chmod(0o755)
    error = result.document["error"]
    assert (1, "DatabaseUnusableError") == (result.code, error["type"])
    assert "new.sqlite3 does not exist, and its folder is read-only" in error["message"]
    assert error["next"].startswith(f"make {folder} writable")


@pytest.mark.parametrize(
    "words", [("history",), ("preserved",), ("history", "--rebuild"), ("history", "--clear", "--yes")]
)
def test_an_empty_file_is_like_none(words: tuple[str, ...], folder: Path) -> None:
    """What tells of a database, or clears its history, makes none of an empty file."""
    path = folder / "empty.sqlite3"
    path.touch()
    result = run_cli("--db-path", path, *words, "--json")
    assert (1, "DatabaseUnusableError") == (result.code, result.document["error"]["type"])
    assert ([path], 0) == (list(folder.iterdir()), path.stat().st_size)


@pytest.mark.parametrize("words", [("current",), ("check",), ("history", "-i")])
def test_an_empty_file_is_like_none_for_alembic(words: tuple[str, ...], folder: Path) -> None:
    """As for the readers of the command line."""
    path = folder / "empty.sqlite3"
    path.touch()
    result = run_alembic(path, *words)
    assert (255, True) == (result.code, f"{path} is an empty file" in result.err)
    assert ([path], 0) == (list(folder.iterdir()), path.stat().st_size)


# Configuration.


def test_the_default_database_is_the_same_however_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ini, by its path, by a relative URL, by a link, through Alembic: its backups are in one place."""
    (folder / "data").mkdir()
    path = legacy.build(folder / "data" / "own.sqlite3", "released")
    (folder / "link.sqlite3").symlink_to(path)
    ini = folder / "alembic.ini"
    ini.write_text(
        f"[alembic]\nscript_location = {ROOT}/alembic\n"
        "[vecmigrate]\ndatabase_url = sqlite:///%(here)s/data/own.sqlite3\n"
    )
    made = run_cli("migrate", "--json").document["backup"]
    assert folder / "backups" == Path(made).parent
    for named in (
        ("--db-path", "data/own.sqlite3"),
        ("--db-path", "link.sqlite3"),
        ("--database-url", "sqlite:///data/own.sqlite3"),
        ("--database-url", f"sqlite+pysqlite:///{path}"),
    ):
        found = run_cli(*named, "backup", "list", "--json").document["backups"]
        assert (named, [made]) == (named, [each["path"] for each in found])
    monkeypatch.delenv("VECMIGRATE_DATABASE_URL", raising=False)
    assert 0 == run_alembic(path, "downgrade", "001", ini=ini).code
    assert not (folder / "data" / "backups").exists()


def test_the_next_command_names_the_configuration_that_was_named(released: Path, tmp_path: Path) -> None:
    """Otherwise it would look for the backups, or the lock timeout, of another configuration."""
    ini = tmp_path / "my config.ini"
    ini.write_text(f"[vecmigrate]\nbackup_dir = {tmp_path}/saved\n")
    legacy.execute(released, "UPDATE vector_stores SET expires_at = '2027-01-01T00:00:00Z' WHERE name IS NULL")
    named = ("--config", ini, "--db-path", released)
    run_cli(*named, "migrate")
    error = run_cli(*named, "restore", "nothing", "--json").document["error"]
    assert str(tmp_path / "saved") in paste(error["next"]).out or "yes" in paste(error["next"]).out
    assert 0 == run_cli(*named, "rollback", "--to-version", "1").code
    refused = run_cli(*named, "rollback", "--to-version", "head", "--json").document["error"]
    assert 0 == paste(refused["next"]).code
    assert [] == [each for each in released.parent.iterdir() if each.name == "backups"]
    lines = run_cli(*named, "migrate", "--force", "--target", "1").out.splitlines()
    (shown,) = [line for line in lines if line.startswith("Their originals are kept: ")]
    assert 0 == paste(shown.partition(": ")[2]).code


def test_notes_name_the_configuration_too(released: Path, tmp_path: Path) -> None:
    """Without it the command of a note would look for the backups in another folder."""
    ini = tmp_path / "other.ini"
    ini.write_text(f"[vecmigrate]\nbackup_dir = {tmp_path / 'saved'}\n", encoding="utf-8")
    assert 0 == run_cli("--config", ini, "--db-path", released, "migrate").code
    released.unlink()
    result = run_cli("--config", ini, "--db-path", released, "status", "--json")
    (note,) = (each for each in result.document["notes"] if "There are backups of" in each)
    assert f"vecmigrate --config {ini} --db-path {released}" in note
    assert note in run_cli("--config", ini, "--db-path", released, "status").out


def test_what_a_script_prints_is_not_in_the_answer(released: Path, tmp_path: Path) -> None:
    """It goes to stderr, so that stdout is one JSON document."""
    changed_scripts(tmp_path / "scripts", "\n_up = upgrade\n\n\ndef upgrade():\n    _up()\n    print('hello')\n")
    ini = tmp_path / "scripts" / "alembic.ini"
    result = run_cli("--config", ini, "--db-path", released, "migrate", "--json")
    assert (HEAD, True) == (result.document["to"], "hello" in result.err)


def test_a_configuration_that_is_not_there_is_not_to_be_corrected(folder: Path) -> None:
    """Nor one that may not be read: named or found, it is told what it lacks."""
    missing = run_cli("--config", "nowhere.ini", "status", "--json").document["error"]
    assert "name another file by --config FILE" in missing["next"]
    ini = folder / "alembic.ini"
    ini.write_text("[vecmigrate]\n")
    ini.chmod(0)
    try:
        result = run_forked(UNPRIVILEGED, "--db-path", folder / "x.sqlite3", "status", "--json")
    finally:
        ini.chmod(0o644)
    assert (1, "ConfigurationError") == (result.code, result.document["error"]["type"])
    assert f"make {ini} readable" in result.document["error"]["next"]


@pytest.mark.parametrize(
    ("text", "where"),
    [("[vecmigrate]\nbackup\n", "line 2"), ("x\n", "line 1"), ("[vecmigrate]\ndatabase_url = a%b\n", "database_url")],
)
def test_a_malformed_file_is_told_with_the_place(text: str, where: str, folder: Path) -> None:
    """The line, or the setting."""
    (folder / "my.ini").write_text(text)
    message = run_cli("--config", "my.ini", "status", "--json").document["error"]["message"]
    assert f" in {where}, not a valid ini file" in message


# Plans, targets and history.


def test_the_plan_of_force_is_what_force_does(released: Path) -> None:
    """Down to just before the revision and up again; nothing is written."""
    run_cli("--db-path", released, "migrate")
    before = untouched(released.parent)
    words = ("--db-path", released, "migrate", "--force", "--target", "1")
    plan = run_cli(*words, "--dry-run", "--json").document
    assert (HEAD, HEAD, above("000")[::-1], above("000")) == tuple(
        plan[key] for key in ("from", "to", "reverted", "applied")
    )
    lines = [line.split()[:3] for line in run_cli(*words, "--dry-run").out.splitlines()]
    assert [["001", "unified_vector_stores", way] for way in ("down", "up")] == [
        each for each in lines if "001" in each
    ]
    assert before == untouched(released.parent)
    done = run_cli(*words, "--json").document
    assert {key: plan[key] for key in ("from", "to", "reverted", "applied")} == {
        key: done[key] for key in ("from", "to", "reverted", "applied")
    }
    assert f"(reverted: {', '.join(above('000')[::-1])}; applied: {', '.join(above('000'))})" in run_cli(*words).out


def test_the_plan_for_a_newer_database_is_what_migrate_does(released: Path) -> None:
    """Nothing, with a note, as long as this version may run on it."""
    run_cli("--db-path", released, "migrate")
    legacy.execute(released, "UPDATE vecmigrate_version SET version_num = '909'")
    plan, done = (run_cli("--db-path", released, "migrate", *more, "--json") for more in (("--dry-run",), ()))
    assert (0, "909", []) == (plan.code, plan.document["to"], plan.document["applied"])
    assert (done.code, done.err) == (plan.code, plan.err)
    refused = run_cli("--db-path", released, "rollback", "--to-version", "-1", "--from-backup", "--json")
    assert (1, "TargetError") == (refused.code, refused.document["error"]["type"])
    assert "909" in refused.document["error"]["message"]


def test_a_relative_target_of_a_backup_counts_from_the_database(released: Path) -> None:
    """As it does without --from-backup."""
    run_cli("--db-path", released, "migrate", "--target", REVISIONS[-2])
    run_cli("--db-path", released, "migrate")
    result = run_cli("--db-path", released, "rollback", "--to-version", "-1", "--from-backup", "--json")
    assert (0, HEAD, REVISIONS[-2]) == (result.code, result.document["from"], result.document["to"])


def test_the_history_of_somebody_else_is_not_cleared(folder: Path) -> None:
    """A table with that name that is not ours keeps its rows."""
    path = folder / "theirs.sqlite3"
    legacy.execute(path, "CREATE TABLE vecmigrate_history (note TEXT)")
    legacy.execute(path, "INSERT INTO vecmigrate_history VALUES ('theirs')")
    before = untouched(folder)
    result = run_cli("--db-path", path, "history", "--clear", "--yes", "--json")
    assert (6, "NotOursError") == (result.code, result.document["error"]["type"])
    assert before == untouched(folder)
    assert [("theirs",)] == legacy.query(path, "SELECT note FROM vecmigrate_history")


def test_list_tells_when_a_revision_was_applied(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt to revert it that failed is no execution of it."""
    Scripts(tmp_path / "scripts", monkeypatch).add("pass", downgrade='raise RuntimeError("canary")')
    run_cli("--db-path", released, "migrate")
    before = run_cli("--db-path", released, "list", "--json").document
    assert 5 == run_cli("--db-path", released, "rollback", "--to-version", "2").code
    assert before == run_cli("--db-path", released, "list", "--json").document


def test_an_empty_backup_list_says_where_it_looked(released: Path) -> None:
    """Whoever has set another folder in another shell sees why there is none."""
    result = run_cli("--db-path", released, "backup", "list")
    assert f"No backup of {released} yet in {released.parent}/backups.\n" == result.out


def test_a_manifest_that_cannot_be_read_is_mentioned(released: Path) -> None:
    """Its backup would be missing from the list without a word."""
    made = Path(run_cli("--db-path", released, "backup", "create", "--json").document["backup"]["path"])
    made.with_suffix(".json").write_text("{")
    for words in (("backup", "list"), ("backup", "verify")):
        result = run_cli("--db-path", released, *words, "--json")
        assert [] == result.document["backups"]
        assert made.with_suffix(".json").name in result.err
        # None is listed, and there is one.
        assert f"Next: vecmigrate --db-path {released} doctor\n" == run_cli("--db-path", released, *words).out


def test_options_on_the_wrong_side_are_told_their_place(folder: Path) -> None:
    """Newcomers write the database last; the error has the command as it must be."""
    result = run_cli("status", "--db-path", folder / "x.sqlite3")
    assert (2, True) == (result.code, "Next: vecmigrate --db-path FILE status\n" in result.err)


# What is printed.


def test_a_reader_that_has_heard_enough_is_no_error(released: Path) -> None:
    """The exit code is that of the work, and nothing is said."""
    cases: list[tuple[tuple[str, ...], int]] = [
        (("status", "--check"), 3),
        (("list",), 0),
        (("migrate", "--json"), 0),
        (("restore", "nothing", "--json"), 1),
        (("nonsense", "--json"), 2),
    ]
    for words, code in cases:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*PROGRAM, "--db-path", released, *words], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
        os.close(writing)
        assert (words, code, False) == (words, done.returncode, "Traceback" in done.stderr)
        assert (words, code in {0, 3}) == (words, "" == done.stderr)
    assert HEAD == legacy.revision(released)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_answer_that_cannot_be_written_is_not_taken_for_a_failed_run(released: Path) -> None:
    """It exits with 1, and says that what was done stands."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "--db-path", released, "migrate"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert 1 == done.returncode
    assert "could not be written" in done.stderr
    assert "What the command did stands" in done.stderr
    assert "rolled back" not in done.stderr
    assert HEAD == legacy.revision(released)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_of_stdout_will_do(encoding: str, folder: Path) -> None:
    """Paths and rows hold any letter; JSON comes through whole, text with the letters escaped that cannot be shown."""
    path = legacy.build(folder / "日本é.sqlite3", "released")

    def run(*words: str) -> bytes:
        environ = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
        return subprocess.run(
            [*PROGRAM, "--db-path", path, *words], env=environ, stdout=subprocess.PIPE, check=True
        ).stdout

    assert str(path) == json.loads(run("status", "--json"))["database"]
    shown = run("status").decode(encoding).splitlines()[0]
    assert ("日" in shown) is (encoding == "utf-8")
    assert ("\\u65e5" in shown) is (encoding != "utf-8")


def test_commands_are_quoted_for_the_shell_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of Windows knows no single quotes."""
    assert "'/a b/x'" == shell.quoted("/a b/x")
    monkeypatch.setattr("vecmigrate.shell._IS_WINDOWS", True)
    assert '"C:\\a b\\x"' == shell.quoted("C:\\a b\\x")
    assert "C:\\x" == shell.quoted("C:\\x")


def test_the_alembic_command_logs_a_run_once_and_its_backup(released: Path) -> None:
    """Planning and rehearsing are not announced; where the backup is, a deployment finds in its log."""
    log = run_alembic(released, "upgrade", "head").err
    assert 1 == log.count("Context impl SQLiteImpl")
    (backup,) = (released.parent / "backups").glob("*.sqlite3")
    assert f"INFO  [vecmigrate] Backup: {backup}\n" in log
    assert 1 == run_alembic(released, "current").err.count("Context impl SQLiteImpl")
    assert 1 == run_alembic(released, "upgrade", "head", "--sql").err.count("Context impl SQLiteImpl")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("def broken(:\n", "SyntaxError in {added}, line 1"),
        ("import os\nimport nothing_here\n", "ModuleNotFoundError in {added}, line 2"),
        ("import os\nos.environ['NOT_SET']\n", "KeyError in {added}, line 2"),
        (f'revision = "{NEXT}"\ndown_revision = "917"\n', "a down_revision names '917', and there is no such revision"),
        ("x = 1\n", "Could not determine revision id from filename {added}"),
    ],
)
@pytest.mark.filterwarnings("ignore:Revision 917 referenced")
def test_a_faulty_script_is_named(
    text: str, fault: str, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes revisions reads where the mistake is, at each command, and nothing is changed."""
    scripts = Scripts(tmp_path / "scripts", monkeypatch)
    added = scripts.add("pass")
    added.write_text(text)
    before = untouched(released.parent)
    for words in (("status",), ("migrate",), ("versions",)):
        result = run_cli("--db-path", released, *words, "--json")
        assert (1, "ConfigurationError") == (result.code, result.document["error"]["type"])
        assert fault.format(added=added.name) in result.document["error"]["message"]
        assert ".. " not in result.document["error"]["message"]
    assert before == untouched(released.parent)


# Values that are none, and options that do not go together.


def test_an_empty_name_is_not_the_newest_backup(released: Path) -> None:
    """A variable of a script that is not set restores nothing; without a name it is the newest one."""
    assert 0 == run_cli("--db-path", released, "migrate").code
    before = untouched(released.parent)

    empty = run_cli("--db-path", released, "rollback", "--to-version", "base", "--from-backup", "")

    assert 2 == empty.code
    assert "--from-backup is empty" in empty.err
    assert before == untouched(released.parent)
    assert 0 == run_cli("--db-path", released, "rollback", "--to-version", "base", "--from-backup").code


@pytest.mark.parametrize("command", ["history", "preserved"])
def test_a_limit_beyond_what_a_database_counts_to_is_a_usage_error(command: str, released: Path) -> None:
    """2**63 rows are more than there can be; one less is a limit like any other."""
    assert 0 == run_cli("--db-path", released, "migrate").code

    assert 2 == run_cli("--db-path", released, command, "--limit", str(1 << 63)).code
    assert 0 == run_cli("--db-path", released, command, "--limit", str((1 << 63) - 1)).code


@pytest.mark.parametrize("options", ["--clear --yes --limit 1", "--clear --yes --rebuild", "--rebuild --limit 1"])
def test_options_of_history_that_exclude_each_other_are_a_usage_error(options: str, released: Path) -> None:
    """Who clears with a limit means to clear something, and not all."""
    assert 0 == run_cli("--db-path", released, "migrate").code
    before = run_cli("--db-path", released, "history", "--json").document

    assert 2 == run_cli("--db-path", released, "history", *options.split()).code
    assert before == run_cli("--db-path", released, "history", "--json").document


def test_thousands_of_manifests_that_cannot_be_read_are_one_line(released: Path) -> None:
    """The folder, how many there are, and one of them by name."""
    assert 0 == run_cli("--db-path", released, "migrate").code
    folder = released.parent / "backups"
    for number in range(2000):
        (folder / f"x-20260101T000000.{number:06d}Z-base.json").write_text("{", encoding="utf-8")

    listed = run_cli("--db-path", released, "backup", "list")

    assert 1 == len(listed.err.splitlines())
    assert f"2000 manifests in {folder} cannot be read" in listed.err
    assert "x-20260101T000000.000000Z-base.json" in listed.err


def test_sql_that_is_stored_as_bytes_is_sql(released: Path) -> None:
    """Who edits the schema by hand may leave a BLOB there, which SQLite takes."""
    legacy.execute(
        released,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = CAST(sql AS BLOB) WHERE name IN ('touched', 'vector_stores')",
        "PRAGMA writable_schema = RESET",
    )

    migrated = run_cli("--db-path", released, "migrate")

    assert 0 == migrated.code, migrated.err
    assert 0 == run_cli("--db-path", released, "rollback", "--to-version", "0").code
