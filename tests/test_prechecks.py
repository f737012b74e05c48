"""What a script says of its step, and against a database: prechecks, notes, and whether it is still the same."""

from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_alembic, run_cli, url
from ladder import HEAD, NEXT
from scripts import Scripts
from vecmigrate.engine import locate, reading
from vecmigrate.errors import NeedsPersonError, PrecheckError
from vecmigrate.prechecks import Problem, problems

AFTER = f"{int(NEXT) + 1:03d}"
PRECHECK = """

def precheck(connection):
    connection.exec_driver_sql("{statement}").fetchall()
    return {problems}
"""


def with_precheck(path: Path, statement: str, *problems: str) -> None:
    text = PRECHECK.format(statement=statement, problems=list(problems))
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.mark.parametrize("door", ["cli", "alembic", "import"])
def test_problems_of_all_pending_revisions_are_the_error_of_the_run(
    door: str, scripts: Scripts, released_file: Path
) -> None:
    """Each is listed with its revision, exit 5, and nothing is written."""
    with_precheck(scripts.add("pass"), "SELECT 1", "two names are one", "a third")
    with_precheck(scripts.add("pass", revision=AFTER, down=NEXT), "SELECT 1", "and more")
    before = legacy.tree(released_file.parent)

    if door == "import":
        with pytest.raises(PrecheckError) as raised:
            vecmigrate.upgrade(url(released_file))
        told = str(raised.value)
    else:
        migrate = run_cli("--db-path", released_file, "migrate") if door == "cli" else None
        done = migrate or run_alembic(released_file, "upgrade", "head", ini=scripts.ini)
        assert done.code == 5 if door == "cli" else done.code
        told = done.err

    for line in (f"{NEXT}: two names are one", f"{NEXT}: a third", f"{AFTER}: and more", "Nothing was changed."):
        assert line in told
    assert before == legacy.tree(released_file.parent)


def test_a_precheck_may_need_what_a_pending_revision_makes(scripts: Scripts, tmp_path: Path) -> None:
    """It is asked again just before its own step, and a problem then ends the run as well."""
    path = tmp_path / "new.sqlite3"
    scripts.add('op.execute("CREATE TABLE made (x)")')
    added = scripts.add("pass", revision=AFTER, down=NEXT)
    with_precheck(added, "SELECT * FROM made", "made is empty")

    with pytest.raises(PrecheckError, match=f"{AFTER}: made is empty"):
        vecmigrate.upgrade(url(path))

    assert [] == list(tmp_path.glob("new.sqlite3")) or legacy.revision(path) is None
    added.write_text(added.read_text(encoding="utf-8").replace("['made is empty']", "[]"), encoding="utf-8")
    assert AFTER == vecmigrate.upgrade(url(path)).to_revision


def test_a_precheck_that_fails_is_a_problem(scripts: Scripts, released_file: Path) -> None:
    """A run does not go on where it is not known whether it may, and what a precheck writes is taken back."""
    vecmigrate.upgrade(url(released_file))
    added = scripts.add("pass")
    with_precheck(added, "SELECT * FROM nowhere")
    before = legacy.digest(released_file)

    with pytest.raises(PrecheckError, match="its precheck failed: OperationalError"):
        vecmigrate.upgrade(url(released_file))

    added = scripts.add("pass")
    with_precheck(added, "DELETE FROM vector_stores RETURNING 1")
    vecmigrate.upgrade(url(released_file))
    assert before == legacy.digest(released_file)


def test_prechecks_can_be_asked_without_a_run(scripts: Scripts, released_file: Path) -> None:
    """Who only reads gets the problems of scripts in the order of the ladder."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - of the copy that the fixture has made

    vecmigrate.upgrade(url(released_file))
    with_precheck(scripts.add("pass"), "SELECT 1", "no")
    script = ScriptDirectory.from_config(vecmigrate.alembic_config(url(released_file))).get_revision(NEXT)
    assert script is not None

    with reading(locate(url(released_file))) as connection:
        assert [Problem(NEXT, "no")] == problems(connection, [script])


def test_a_note_of_a_script_is_in_the_summary_and_the_history(scripts: Scripts, released_file: Path) -> None:
    """The report, what the command prints and the entry all have it; a run that is taken back has none."""
    vecmigrate.upgrade(url(released_file), HEAD)
    notes = "from vecmigrate import operations\noperations.note('3 rows stay where they are')"
    scripts.add(notes)

    result = run_cli("--db-path", released_file, "migrate", "--json")

    assert ["3 rows stay where they are"] == result.document["notes"]
    assert "3 rows stay where they are" in result.err
    entry = run_cli("--db-path", released_file, "history", "--limit", "1", "--json").document["attempts"][0]
    assert ["3 rows stay where they are"] == entry["metadata"]["notes"]


def test_an_edited_script_is_told_and_not_gone_back_through(scripts: Scripts, released_file: Path) -> None:
    """Status, list and the next run say so; its way down is refused until somebody says that it fits."""
    added = scripts.add("pass")
    vecmigrate.upgrade(url(released_file))
    assert [] == vecmigrate.status(url(released_file)).notes
    added.write_text(added.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    told = f"The script of revision {NEXT} was edited since it was applied"

    assert told in vecmigrate.status(url(released_file)).notes[0]
    listed = run_cli("--db-path", released_file, "list", "--json")
    assert [NEXT] == [each["revision"] for each in listed.document["revisions"] if each["edited"]]
    assert told in listed.err
    before = legacy.tree(released_file.parent)
    with pytest.raises(NeedsPersonError, match=told):
        vecmigrate.rollback(url(released_file), to_version=HEAD)
    assert 6 == run_cli("--db-path", released_file, "rollback", "--to-version", HEAD).code
    assert before == legacy.tree(released_file.parent)

    scripts.add("pass", revision=AFTER, down=NEXT)
    report = vecmigrate.ensure_current(url(released_file), on_failure="raise")
    assert told in report.notes[0]
    assert 0 == run_cli("--db-path", released_file, "rollback", "--to-version", HEAD, "--yes").code


def test_line_ends_do_not_make_another_script(scripts: Scripts, released_file: Path) -> None:
    """A checkout on Windows is the same project."""
    added = scripts.add("pass")
    vecmigrate.upgrade(url(released_file))
    added.write_bytes(added.read_bytes().replace(b"\n", b"\r\n"))

    assert [] == vecmigrate.status(url(released_file)).notes
