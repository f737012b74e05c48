"""No row goes unasked, whatever revision made the table: rows before, against rows after and rows kept aside."""

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

import legacy
import vecmigrate
from doors import run_alembic, run_cli, url
from ladder import HEAD, NEXT
from scripts import Scripts
from vecmigrate.errors import RunFailedError, WouldLoseRowsError

TABLE = """
op.create_table("tags", sa.Column("tag", sa.Text, primary_key=True), sa.Column("at", sa.Integer))
op.bulk_insert(sa.table("tags", sa.column("tag"), sa.column("at")), [{"tag": "seed", "at": int(time.time())}])
"""
DELETES = "op.execute(\"DELETE FROM vector_stores WHERE provider = 'hnsw'\")"


def with_tags(scripts: Scripts, path: Path, *rows: str) -> Path:
    """Return a database whose newest revision made a table that its downgrade drops."""
    added = scripts.add(TABLE, downgrade='op.drop_table("tags")')
    added.write_text(added.read_text(encoding="utf-8").replace("import os\n", "import time\n"), encoding="utf-8")
    vecmigrate.upgrade(url(path))
    legacy.execute(path, *rows)
    return path


def files(folder: Path) -> dict[str, tuple[int, str]]:
    """Return each file with its mode and hash: a backup that was made and removed again changes a folder's time."""
    return {name: (mode, hashed) for name, (mode, _, hashed) in legacy.tree(folder).items()}


def down(door: str, path: Path, scripts: Scripts, *, allowed: bool) -> str:
    """Go below the newest revision; return what was said of a refusal, else nothing."""
    if door == "import":
        try:
            vecmigrate.rollback(url(path), to_version=HEAD, allow_data_loss=allowed)
        except WouldLoseRowsError as error:
            return str(error)
        return ""
    if door == "cli":
        done = run_cli("--db-path", path, "rollback", "--to-version", HEAD, *(["--yes"] if allowed else []))
        assert done.code == (6 if done.code else 0)
    else:
        words = ["-x", "allow_data_loss=yes"] if allowed else []
        done = run_alembic(path, *words, "downgrade", HEAD, ini=scripts.ini)
    return done.err if done.code else ""


def two_chunks(path: Path) -> str:
    """Make a database at head with two chunks; return what drops the triggers of the ladder on their table."""
    vecmigrate.upgrade(url(path))
    legacy.execute(
        path,
        "INSERT INTO vector_store_chunks VALUES ('a', NULL, 'f', 1, 2, 't')",
        "INSERT INTO vector_store_chunks VALUES ('b', 'v', 'f', 1, 2, 't')",
    )
    found = legacy.query(path, "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE '%chunks'")
    return "".join(f'op.execute("DROP TRIGGER {name}")\n' for (name,) in found)


@pytest.mark.parametrize("door", ["cli", "alembic", "import"])
def test_a_table_of_any_revision_is_not_dropped_with_rows(door: str, scripts: Scripts, released_file: Path) -> None:
    """A row that nothing keeps asks for --yes, and nothing is written until it is given."""
    path = with_tags(scripts, released_file, "INSERT INTO tags VALUES ('mine', 1)")
    before = files(path.parent)

    refused = down(door, path, scripts, allowed=False)

    assert f"{HEAD} would drop tags (1 rows)" in refused
    assert f"rollback --to-version {HEAD} --yes" in refused
    assert before == files(path.parent)
    assert "" == down(door, path, scripts, allowed=True)
    assert ("table", "tags") not in legacy.schema(path)


def test_rows_that_the_script_put_there_are_nobodys(scripts: Scripts, released_file: Path) -> None:
    """A seed goes without a question, also with the time of its making in it."""
    path = with_tags(scripts, released_file)

    assert "" == down("import", path, scripts, allowed=False)


def test_a_seed_that_somebody_changed_is_theirs(scripts: Scripts, released_file: Path) -> None:
    """A key of the script with a value of the user would be lost with its table."""
    added = scripts.add(
        'settings = op.create_table("settings", sa.Column("key", sa.Text, primary_key=True), '
        'sa.Column("value", sa.Text))\nop.bulk_insert(settings, [{"key": "colour", "value": "red"}])',
        downgrade='op.drop_table("settings")',
    )
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, "UPDATE settings SET value = 'blue'")

    assert added.exists()
    assert "would drop settings (1 rows)" in down("import", released_file, scripts, allowed=False)


def test_a_way_up_that_loses_rows_fails(scripts: Scripts, released_file: Path) -> None:
    """A DELETE that keeps nothing is a mistake of the script: all is as it was, and how to go on is told."""
    vecmigrate.upgrade(url(released_file))
    scripts.add(DELETES)
    before = legacy.digest(released_file)
    count = len(legacy.query(released_file, "SELECT 1 FROM vector_stores WHERE provider = 'hnsw'"))

    with pytest.raises(
        RunFailedError, match=rf"Revision {NEXT} would lose rows of vector_stores \({count} rows\)"
    ) as error:
        vecmigrate.upgrade(url(released_file))

    assert "op.keep_rows" in error.value.next_step
    assert before == legacy.digest(released_file)
    assert 5 == run_cli("--db-path", released_file, "migrate").code
    assert 0 != run_alembic(released_file, "upgrade", "head", ini=scripts.ini).code
    assert before == legacy.digest(released_file)
    assert [("failed",)] * 3 == legacy.query(
        released_file, f"SELECT status FROM vecmigrate_history WHERE revision = '{NEXT}'"
    )


@pytest.mark.parametrize("door", ["cli", "alembic", "import"])
def test_a_way_up_may_lose_rows_where_somebody_says_so(door: str, scripts: Scripts, released_file: Path) -> None:
    """--yes, -x allow_data_loss=yes and allow_data_loss=True let them go."""
    scripts.add(DELETES)
    if door == "import":
        vecmigrate.upgrade(url(released_file), allow_data_loss=True)
    elif door == "cli":
        assert 0 == run_cli("--db-path", released_file, "migrate", "--yes").code
    else:
        done = run_alembic(released_file, "-x", "allow_data_loss=yes", "upgrade", "head", ini=scripts.ini)
        assert 0 == done.code, done.err

    assert [] == legacy.query(released_file, "SELECT 1 FROM vector_stores WHERE provider = 'hnsw'")


@pytest.mark.parametrize(
    "moves",
    [
        'op.rename_table("vector_store_chunks", "chunks")',
        (
            'op.execute("CREATE TABLE chunks AS SELECT * FROM vector_store_chunks WHERE 1")\n'
            'op.drop_table("vector_store_chunks")'
        ),
        (
            'op.execute("CREATE TABLE others AS SELECT * FROM vector_store_chunks WHERE vector_store_id IS NULL")\n'
            'op.execute("DELETE FROM vector_store_chunks WHERE vector_store_id IS NULL")'
        ),
        (
            "from vecmigrate import operations\n"
            'operations.stands_elsewhere("vector_store_chunks")\nop.execute("DELETE FROM vector_store_chunks")'
        ),
    ],
    ids=["renamed", "copied and dropped", "split", "told by the script"],
)
def test_rows_that_move_are_not_lost(moves: str, scripts: Scripts, tmp_path: Path) -> None:
    """A table that the step makes may take them up, and a script may say where else they stand."""
    path = tmp_path / "moving.sqlite3"
    drops = two_chunks(path)
    scripts.add(drops + moves)

    assert [NEXT] == vecmigrate.upgrade(url(path)).applied


def test_half_of_the_rows_of_a_table_that_goes_are_missed(scripts: Scripts, tmp_path: Path) -> None:
    """A table that takes up only some of them does not cover the others."""
    path = tmp_path / "half.sqlite3"
    vecmigrate.upgrade(url(path))
    rows = [f"INSERT INTO vector_store_embeddings VALUES ('m', 'c{n}', x'00')" for n in range(4)]
    legacy.execute(path, *rows)
    scripts.add(
        'op.execute("CREATE TABLE vectors AS SELECT * FROM vector_store_embeddings LIMIT 3")\n'
        'op.execute("DELETE FROM vector_store_embeddings")'
    )

    with pytest.raises(RunFailedError, match=r"would lose rows of vector_store_embeddings \(1 rows\)"):
        vecmigrate.upgrade(url(path))


def test_base_does_not_drop_what_the_first_revision_made_with_rows(tmp_path: Path) -> None:
    """It is refused before the way there is gone, and before a backup is made."""
    path = tmp_path / "new.sqlite3"
    vecmigrate.upgrade(url(path))
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES ('c', NULL, 'f', 1, 2, 'text')")
    before = legacy.tree(tmp_path)

    with pytest.raises(
        WouldLoseRowsError, match=r"base would drop vector_store_chunks \(1 rows\)\. Nothing was changed"
    ):
        vecmigrate.rollback(url(path), to_version="base")

    assert before == legacy.tree(tmp_path)


@pytest.mark.parametrize(
    "deletes",
    [
        'op.get_bind().connection.driver_connection.execute("DELETE FROM vector_store_chunks")',
        (
            "op.get_bind().connection.driver_connection.executemany("
            '"DELETE FROM vector_store_chunks WHERE chunk_id = ?", iter([("a",), ("b",)]))'
        ),
        (
            "op.get_bind().connection.cursor().executemany("
            '"DELETE FROM vector_store_chunks WHERE chunk_id = ?", (each for each in [("a",), ("b",)]))'
        ),
        'op.execute("INSERT INTO bin VALUES (1)")',
        (
            "op.execute(\"REPLACE INTO vector_store_chunks SELECT 1, NULL, 'f', 1, 2, 't' WHERE 0\")\n"
            'op.execute("DELETE FROM vector_store_chunks WHERE 1")'
        ),
        'op.execute("SAVEPOINT s")\nop.execute("DELETE FROM vector_store_chunks")\nop.execute("RELEASE s")',
        (
            'op.execute("PRAGMA writable_schema = ON")\n'
            "op.execute(\"DELETE FROM sqlite_master WHERE name = 'vector_store_chunks'\")"
        ),
    ],
    ids=["driver", "driver, many", "cursor, many", "trigger", "none, then all", "savepoint", "schema"],
)
def test_rows_are_missed_by_whatever_way_they_went(deletes: str, scripts: Scripts, tmp_path: Path) -> None:
    """A table is counted before the first statement that writes to it, also for a driver or a trigger."""
    path = tmp_path / "ways.sqlite3"
    drops = two_chunks(path)
    bin_ = (
        'op.execute("CREATE TABLE bin (x)")\nop.execute("CREATE TRIGGER vecmigrate_bin AFTER INSERT ON bin '
        'BEGIN DELETE FROM vector_store_chunks; END")\n'
    )
    scripts.add(drops + bin_ + deletes)
    before = legacy.digest(path)

    with pytest.raises(RunFailedError, match=r"would lose rows of vector_store_chunks \(2 rows\)"):
        vecmigrate.upgrade(url(path))

    assert before == legacy.digest(path)


def test_a_cursor_of_another_kind_is_refused(scripts: Scripts, tmp_path: Path) -> None:
    """One that the connection did not make could not be told of: it writes nothing before the table was counted."""
    path = tmp_path / "cursor.sqlite3"
    vecmigrate.upgrade(url(path))
    legacy.execute(path, "INSERT INTO vector_store_embeddings VALUES ('m', 'c', x'00')")
    delete = '.execute("DELETE FROM vector_store_embeddings")'
    scripts.add(f"import sqlite3\nsqlite3.Cursor(op.get_bind().connection.driver_connection){delete}")

    with pytest.raises(RunFailedError, match="not authorized"):
        vecmigrate.upgrade(url(path))

    assert 1 == len(legacy.query(path, "SELECT 1 FROM vector_store_embeddings"))


def test_each_step_is_looked_at_by_itself(scripts: Scripts, tmp_path: Path) -> None:
    """Statements that the first of two steps has used are watched in the second one too."""
    path = tmp_path / "two.sqlite3"
    vecmigrate.upgrade(url(path))
    legacy.execute(path, "INSERT INTO vector_store_embeddings VALUES ('m', 'c', x'00')")
    delete = 'op.get_bind().exec_driver_sql("DELETE FROM vector_store_embeddings WHERE model = ?", ("{}",))'
    scripts.add(delete.format("another"))
    scripts.add(delete.format("m"), revision=f"{int(NEXT) + 1:03d}", down=NEXT)

    with pytest.raises(RunFailedError, match=r"would lose rows of vector_store_embeddings \(1 rows\)"):
        vecmigrate.upgrade(url(path))


def test_what_no_step_writes_to_is_not_counted(scripts: Scripts, tmp_path: Path) -> None:
    """A run costs what its steps touch, however many rows the other tables have."""
    path = tmp_path / "uncounted.sqlite3"
    vecmigrate.upgrade(url(path))
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES ('a', NULL, 'f', 1, 2, 't')")
    scripts.add('op.execute("UPDATE vector_stores SET updated_at = 1")')
    statements: list[str] = []

    def listen(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(sa.Engine, "before_cursor_execute", listen)
    try:
        assert [NEXT] == vecmigrate.upgrade(url(path)).applied
    finally:
        event.remove(sa.Engine, "before_cursor_execute", listen)

    found = (re.search(r"SELECT count\(\*\) AS count_1 \nFROM (\w+)$", each) for each in statements)
    assert {"vector_stores"} == {each[1] for each in found if each}
