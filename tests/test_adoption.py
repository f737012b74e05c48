"""What was there before is told by its columns: known shapes are adopted, anything else is left alone."""

from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError

import legacy
import vecmigrate
from doors import DOORS, run_alembic, run_cli, url
from vecmigrate.errors import NotOursError, WouldLoseRowsError

FOREIGN = {
    "unknown column": (
        ("ALTER TABLE vector_stores ADD COLUMN colour TEXT",),
        "vector_stores has the unknown columns colour",
    ),
    "two unknown columns": (
        ("ALTER TABLE stores ADD COLUMN b TEXT", "ALTER TABLE stores ADD COLUMN a TEXT"),
        "stores has the unknown columns a, b",
    ),
    "somebody else's chunks": (
        ("CREATE TABLE vector_store_chunks (chunk_id TEXT, body TEXT)",),
        "vector_store_chunks has the unknown columns body and lacks the columns content, end_line, file_path",
    ),
    "a view": (("CREATE VIEW embedding_models AS SELECT 1 AS name",), "embedding_models is a view, not a table"),
    "a virtual table": (
        ("CREATE VIRTUAL TABLE embedding_models USING fts5(name, dimensions, state, activated_at)",),
        "embedding_models is a virtual table, not a table",
    ),
    "a generated column": (
        (
            (
                "CREATE TABLE embedding_models (name TEXT, dimensions INTEGER, state TEXT, activated_at INTEGER, "
                "twice AS (dimensions * 2))"
            ),
        ),
        "embedding_models has the unknown columns twice (generated)",
    ),
    "without rowid": (
        (
            (
                "CREATE TABLE embedding_models (name TEXT PRIMARY KEY, dimensions INTEGER, state TEXT, "
                "activated_at INTEGER) WITHOUT ROWID"
            ),
        ),
        "embedding_models is a table WITHOUT ROWID",
    ),
    "a table of the tool": (("CREATE TABLE vecmigrate_history (a)",), "vecmigrate_history"),
    "an index": (
        ("DROP INDEX idx_vs_rollover", "CREATE INDEX idx_vs_rollover ON sessions(session_id)"),
        "the index idx_vs_rollover is on sessions",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_somebody_elses_object_stops_the_run(name: str, released_file: Path) -> None:
    """An object with a name of ours and no known shape is refused with its difference, and nothing is written."""
    statements, difference = FOREIGN[name]
    legacy.execute(released_file, *statements)
    before = legacy.tree(released_file.parent)

    result = run_cli("--db-path", released_file, "migrate")

    assert 6 == result.code
    assert difference in result.err
    assert "Nothing was changed." in result.err
    assert "Next: " in result.err
    assert before == legacy.tree(released_file.parent)


@pytest.mark.parametrize("door", DOORS[1:])
def test_the_other_doors_refuse_it_too(door: str, released_file: Path) -> None:
    """Plain Alembic and alembic.command refuse somebody else's table in the same words."""
    legacy.execute(released_file, "ALTER TABLE vector_stores ADD COLUMN colour TEXT")
    before = legacy.tree(released_file.parent)

    if door == "alembic":
        result = run_alembic(released_file, "upgrade", "head")
        assert result.code != 0
        message = result.out + result.err
    else:
        with pytest.raises(CommandError) as raised:
            command.upgrade(vecmigrate.alembic_config(url(released_file)), "head")
        assert isinstance(raised.value.__cause__, NotOursError)
        message = str(raised.value)

    assert "vector_stores has the unknown columns colour" in message
    assert before == legacy.tree(released_file.parent)


def test_every_fault_is_told_at_once(released_file: Path) -> None:
    """Several foreign objects are all named in one refusal."""
    legacy.execute(
        released_file,
        "ALTER TABLE vector_stores ADD COLUMN colour TEXT",
        "CREATE VIEW embedding_models AS SELECT 1 AS name",
    )

    with pytest.raises(NotOursError) as raised:
        vecmigrate.upgrade(url(released_file))

    assert "vector_stores has the unknown columns colour" in raised.value.message
    assert "embedding_models is a view" in raised.value.message


def test_the_names_of_tables_are_compared_without_case(tmp_path: Path) -> None:
    """SQLite's names ignore case, and so does the search for foreign objects."""
    path = tmp_path / "upper.sqlite3"
    legacy.execute(path, "CREATE TABLE Vector_Stores (something TEXT)")

    with pytest.raises(NotOursError, match="Vector_Stores"):
        vecmigrate.upgrade(url(path))


def test_tables_of_ours_written_in_another_case_are_adopted(tmp_path: Path) -> None:
    """SQL's names ignore case: such tables migrate like any other, and come back as they were written."""
    path = tmp_path / "case.sqlite3"
    statements = [text.replace("stores", "Stores") for text in (*legacy.LEGACY_SQL, *legacy.STORES_SQL)]
    statements[0] = statements[0].replace("session_id", "SESSION_ID")
    legacy.execute(
        path,
        *statements,
        "CREATE TABLE Embedding_Models (Name TEXT PRIMARY KEY, dimensions INTEGER, state TEXT, activated_at INTEGER)",
        "INSERT INTO vector_stores VALUES ('s', 'v', 'openai', 3, 1, 1, 2)",
        "INSERT INTO stores VALUES ('st', 'commit', 1, '2025-01-01T00:00:00', 1)",
        "INSERT INTO embedding_models VALUES ('own', 3, 'active', 1)",
        "CREATE TABLE log (a)",
        "CREATE TRIGGER [Own Trigger] AFTER INSERT ON VECTOR_stores BEGIN INSERT INTO log VALUES (1); END",
    )
    before = legacy.digest(path)

    assert 0 == run_cli("--db-path", path, "migrate").code
    assert [("s",), ("project-commits-001",)] == legacy.query(
        path, "SELECT coalesce(session_id, name) FROM vector_stores ORDER BY vector_store_id DESC"
    )
    assert 0 == run_cli("--db-path", path, "rollback", "--to-version", "base").code

    assert before == legacy.digest(path)


def test_a_view_called_active_stores_over_other_tables_stays(released_file: Path) -> None:
    """Only the old service's own view goes with the table it reads."""
    legacy.execute(
        released_file,
        "DROP VIEW active_stores",
        "CREATE TABLE shops (name, is_open)",
        "CREATE VIEW active_stores AS SELECT name FROM shops WHERE is_open",
    )
    before = legacy.digest(released_file)

    vecmigrate.upgrade(url(released_file))
    assert [] == legacy.query(released_file, "SELECT * FROM active_stores")
    vecmigrate.rollback(url(released_file), to_version="base")

    assert before == legacy.digest(released_file)


def test_the_service_keeps_its_own_alembic(released_file: Path) -> None:
    """A table alembic_version is the service's, and is neither read nor written."""
    legacy.execute(
        released_file,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('abc123')",
    )

    vecmigrate.upgrade(url(released_file))

    assert [("abc123",)] == legacy.query(released_file, "SELECT version_num FROM alembic_version")


def test_unusual_tables_of_the_service_stay_as_they_are(released_file: Path) -> None:
    """WITHOUT ROWID, full text, generated columns, AUTOINCREMENT and the settings of the file all survive."""
    legacy.execute(
        released_file,
        "CREATE TABLE pairs (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "INSERT INTO pairs VALUES (1, 'x'), (3, x'00ff')",
        "CREATE VIRTUAL TABLE notes USING fts5(title, body)",
        "INSERT INTO notes VALUES ('a title', 'a body')",
        "CREATE TABLE sized (n INTEGER, twice AS (n * 2), stored AS (n * 3) STORED)",
        "INSERT INTO sized (n) VALUES (7)",
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "INSERT INTO counted (v) VALUES ('x'), ('y')",
        "DELETE FROM counted WHERE v = 'y'",
        "CREATE TABLE unified_sessions_new (left_over TEXT)",
        "CREATE VIEW recent AS SELECT * FROM sessions WHERE updated_at > 1753870010",
        "PRAGMA user_version = 42",
        "PRAGMA application_id = 4711",
    )
    service = legacy.service_digest(released_file)

    vecmigrate.upgrade(url(released_file))
    assert service == legacy.service_digest(released_file)
    assert [(1,)] == legacy.query(released_file, "SELECT count(*) FROM notes WHERE notes MATCH 'body'")
    vecmigrate.rollback(url(released_file), to_version="base", allow_data_loss=True)

    assert service == legacy.service_digest(released_file)


def test_extra_indexes_of_the_service_come_back(released_file: Path) -> None:
    """An index that the service added to a table being replaced is there again at 000."""
    index = "CREATE INDEX my_own ON vector_stores(provider, created_at DESC) WHERE is_active = 1"
    legacy.execute(released_file, index)

    vecmigrate.upgrade(url(released_file))
    vecmigrate.rollback(url(released_file), to_version="000")

    assert index == legacy.schema(released_file)["index", "my_own"]


def test_what_the_old_service_changed_at_000_is_what_comes_back(released_file: Path) -> None:
    """A new index made at 000, between two upgrades, belongs to what is found."""
    vecmigrate.upgrade(url(released_file))
    vecmigrate.rollback(url(released_file), to_version="000")
    legacy.execute(released_file, "CREATE INDEX later ON vector_stores(provider)")
    found = legacy.digest(released_file)

    vecmigrate.upgrade(url(released_file))
    vecmigrate.rollback(url(released_file), to_version="000")

    assert found == legacy.digest(released_file)


# Base.


def test_base_leaves_what_was_adopted(released_file: Path) -> None:
    """Tables that were found, with their rows, are not dropped, and nobody has to allow it."""
    found = legacy.digest(released_file)
    vecmigrate.upgrade(url(released_file))

    report = vecmigrate.rollback(url(released_file), to_version="base")

    assert None is report.to_revision
    assert found == legacy.digest(released_file)


CHUNK = "INSERT INTO vector_store_chunks VALUES ('c1', NULL, 'a.py', 1, 2, 'text')"


@pytest.mark.parametrize("door", DOORS)
def test_base_refuses_to_drop_rows_of_tables_that_we_made(door: str, released_file: Path) -> None:
    """Rows in a table of ours stop the way to base at every door, with counts, before anything is written."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, CHUNK)
    before = legacy.tree(released_file.parent)

    if door == "cli":
        result = run_cli("--db-path", released_file, "rollback", "--to-version", "base")
        assert 6 == result.code
        message = result.err
    elif door == "alembic":
        result = run_alembic(released_file, "downgrade", "base")
        assert result.code != 0
        message = result.out + result.err
    else:
        with pytest.raises(CommandError) as raised:
            command.downgrade(vecmigrate.alembic_config(url(released_file)), "base")
        assert isinstance(raised.value.__cause__, WouldLoseRowsError)
        message = str(raised.value)

    assert "vector_store_chunks (1 rows)" in message
    assert "--yes" in message
    assert "-x allow_data_loss=yes" in message
    assert before == legacy.tree(released_file.parent)


@pytest.mark.parametrize("door", DOORS)
def test_base_drops_rows_where_that_is_allowed(door: str, released_file: Path) -> None:
    """With the word of the user, the tables go, after a backup that has the rows."""
    found = legacy.digest(released_file)
    vecmigrate.upgrade(url(released_file))
    legacy.execute(released_file, CHUNK)

    if door == "cli":
        assert 0 == run_cli("--db-path", released_file, "rollback", "--to-version", "base", "--yes").code
    elif door == "alembic":
        assert 0 == run_alembic(released_file, "-x", "allow_data_loss=yes", "downgrade", "base").code
    else:
        vecmigrate.rollback(url(released_file), to_version="base", allow_data_loss=True)

    assert found == legacy.digest(released_file)
    newest = max((released_file.parent / "backups").glob("*.sqlite3"))
    assert 1 == len(legacy.rows(newest, "vector_store_chunks"))


def test_base_does_not_count_the_models_that_revisions_put_in(tmp_path: Path) -> None:
    """The seed model is not a row of the user."""
    path = tmp_path / "fresh.sqlite3"
    vecmigrate.upgrade(url(path))

    vecmigrate.rollback(url(path), to_version="base")

    assert {} == legacy.schema(path)


def test_base_keeps_preserved_rows(released_file: Path) -> None:
    """What is kept aside survives base, for as long as it is not empty."""
    legacy.execute(released_file, "INSERT INTO stores VALUES (NULL, 'commit', 1, '2025-01-01', 0)")
    vecmigrate.upgrade(url(released_file))
    legacy.execute(
        released_file,
        "INSERT INTO vector_stores (vector_store_id, name, provider, created_at, updated_at) "
        "VALUES ('mine', 'a name of my own', 'chroma', 1, 2)",
    )

    vecmigrate.rollback(url(released_file), to_version="base", allow_data_loss=True)

    kept = legacy.query(
        released_file, "SELECT json_extract(\"row\", '$.vector_store_id') FROM vecmigrate_preserved WHERE landed = 0"
    )
    assert [("mine",)] == kept


def schema_of(path: Path) -> list[tuple[object, ...]]:
    """Return the SQL of everything but the tables of the tool."""
    return legacy.query(
        path, "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%vecmigrate%' ORDER BY 1, 2"
    )


def test_what_the_service_puts_on_tables_of_the_baseline_comes_back(tmp_path: Path) -> None:
    """Also where it made its tables at 000, and also on columns that the newer shape lacks."""
    path = tmp_path / "new.sqlite3"
    vecmigrate.upgrade(url(path), "000")
    legacy.execute(
        path,
        *legacy.LEGACY_SQL,
        *legacy.STORES_SQL[:2],
        "CREATE INDEX by_protection ON vector_stores (protected)",
        "CREATE UNIQUE INDEX by_provider ON vector_stores (provider, session_id)",
        "CREATE INDEX by_count ON stores (doc_count)",
        legacy.STORES_SQL[2],
    )
    before = schema_of(path)
    for _ in range(2):
        vecmigrate.upgrade(url(path))
        vecmigrate.rollback(url(path), to_version="0")
        assert before == schema_of(path)
    vecmigrate.rollback(url(path), to_version="base")
    assert {"vector_stores", "stores"} == {row[1] for row in schema_of(path) if row[0] == "table"}


def test_names_count_in_any_case(tmp_path: Path) -> None:
    """SQLite takes a name in any case, so tables, columns, indexes and the view are ours in any case."""
    path = tmp_path / "upper.sqlite3"
    legacy.execute(
        path,
        *(sql.replace("CREATE TABLE vector_stores", 'CREATE TABLE "Vector_Stores"') for sql in legacy.LEGACY_SQL[:1]),
        "CREATE INDEX IDX_VECTOR_STORES_UPDATED ON vector_stores (UPDATED_AT)",
        "CREATE TABLE STORES (STORE_ID TEXT PRIMARY KEY, STORE_TYPE, DOC_COUNT, CREATED_AT, IS_ACTIVE)",
        "CREATE VIEW ACTIVE_STORES AS SELECT * FROM stores WHERE is_active = 1",
        "INSERT INTO vector_stores VALUES ('s', 'v', 'openai', 9, 1, 1, 1)",
        "INSERT INTO stores VALUES ('h', 'commit', 1, '2025-06-10', 1)",
    )
    before = schema_of(path)
    vecmigrate.upgrade(url(path))
    assert [("h", "project-commits-001"), ("v", None)] == legacy.query(
        path, "SELECT vector_store_id, name FROM vector_stores ORDER BY 1"
    )
    vecmigrate.rollback(url(path), to_version="0")
    assert set(before) <= set(schema_of(path))
    vecmigrate.rollback(url(path), to_version="base")
    assert before == schema_of(path)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_utf_16_database_goes_up_and_down_with_its_backups(tmp_path: Path, encoding: str) -> None:
    """Whatever the encoding of the file, its backups are known as its own."""
    path = tmp_path / "utf16.sqlite3"
    legacy.execute(path, f"PRAGMA encoding = '{encoding}'", *legacy.LEGACY_SQL)
    legacy.execute(path, "INSERT INTO vector_stores VALUES ('é', 'v', 'openai', 9, 'true', 1, 1)")
    before = legacy.digest(path)["sql"], legacy.rows(path, "vector_stores")
    vecmigrate.upgrade(url(path))
    vecmigrate.rollback(url(path), to_version="base")
    assert before == (legacy.digest(path)["sql"], legacy.rows(path, "vector_stores"))
    backup = vecmigrate.backup(url(path))
    assert run_cli("--db-path", path, "backup", "verify", backup.name).code == 0
