"""What hangs on a table being replaced is put back, or stops the run before it changes anything."""

import sqlite3
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_alembic, run_cli, url
from scripts import Scripts
from vecmigrate.errors import NotOursError

VIEW = "CREATE VIEW expiring AS SELECT vector_store_id, session_id, expires_at FROM vector_stores WHERE expires_at > 0"
TRIGGER = (
    "CREATE TRIGGER trg_stores AFTER INSERT ON vector_stores BEGIN INSERT INTO touched VALUES (new.created_at); END"
)
TRIGGER_ELSEWHERE = (
    "CREATE TRIGGER trg_from_sessions AFTER DELETE ON sessions BEGIN "
    "DELETE FROM vector_stores WHERE session_id = old.session_id; END"
)


def objects(path: Path, *names: str) -> dict[tuple[str, str], str]:
    return {key: text for key, text in legacy.schema(path).items() if key[1] in names}


@pytest.mark.parametrize("shape", ["legacy", "released", "old-script"], indirect=True)
def test_views_and_triggers_of_the_service_are_put_back(legacy_file: Path) -> None:
    """A view over vector_stores, a trigger on it and one that uses it are there after each direction, and work."""
    names = ("expiring", "trg_stores", "trg_from_sessions")
    legacy.execute(legacy_file, VIEW, TRIGGER, TRIGGER_ELSEWHERE)
    before = objects(legacy_file, *names)
    rows = sorted(legacy.query(legacy_file, "SELECT * FROM expiring"), key=repr)

    vecmigrate.upgrade(url(legacy_file))
    assert before == objects(legacy_file, *names)
    assert set(rows) <= set(legacy.query(legacy_file, "SELECT * FROM expiring"))
    touched = len(legacy.rows(legacy_file, "touched"))
    assert 50 == touched
    legacy.execute(
        legacy_file,
        "INSERT INTO vector_stores (vector_store_id, session_id, provider, created_at, expires_at, updated_at) "
        "VALUES ('new', 's-1', 'openai', 1, 2, 3)",
    )
    assert touched + 1 == len(legacy.rows(legacy_file, "touched"))
    legacy.execute(legacy_file, "DELETE FROM sessions WHERE session_id = 's-1'")
    assert [] == legacy.query(legacy_file, "SELECT 1 FROM vector_stores WHERE vector_store_id = 'new'")

    vecmigrate.rollback(url(legacy_file), to_version="000")

    assert before == objects(legacy_file, *names)
    assert rows == sorted(legacy.query(legacy_file, "SELECT * FROM expiring"), key=repr)


ON_STORES = {
    "a view over stores": "CREATE VIEW my_stores AS SELECT store_id FROM stores",
    "a trigger on stores": "CREATE TRIGGER trg_kept AFTER INSERT ON stores BEGIN INSERT INTO touched VALUES (1); END",
    "a trigger that fills stores": (
        "CREATE TRIGGER trg_fills AFTER INSERT ON sessions BEGIN UPDATE stores SET doc_count = doc_count + 1; END"
    ),
    "a foreign key onto stores": "CREATE TABLE child (store_id TEXT REFERENCES stores(store_id))",
}


@pytest.mark.parametrize("name", ON_STORES)
def test_what_hangs_on_stores_stays(name: str, legacy_file: Path) -> None:
    """Nothing happens to stores, and so to nothing that a service has put on it."""
    legacy.execute(legacy_file, ON_STORES[name], "INSERT INTO sessions VALUES ('own', 'r', 1)")
    service = legacy.service_digest(legacy_file)

    vecmigrate.upgrade(url(legacy_file))
    assert service == legacy.service_digest(legacy_file)
    vecmigrate.rollback(url(legacy_file), to_version="000")

    assert service == legacy.service_digest(legacy_file)


BREAKING = {
    "a view over a column that goes": (
        "CREATE VIEW guarded AS SELECT protected FROM vector_stores",
        "the view guarded",
    ),
    "a trigger on the table": (
        "CREATE TRIGGER trg_kept AFTER INSERT ON vector_stores BEGIN INSERT INTO touched VALUES (new.protected); END",
        "the trigger trg_kept on vector_stores",
    ),
    "a trigger that fills the table": (
        "CREATE TRIGGER trg_fills AFTER INSERT ON sessions BEGIN UPDATE vector_stores SET protected = 1; END",
        "the trigger trg_fills on sessions",
    ),
    "a foreign key onto a primary key that is another": (
        "CREATE TABLE child (session_id TEXT REFERENCES vector_stores)",
        "the foreign key of child.session_id onto vector_stores",
    ),
    "a foreign key of an adopted table": (
        (
            "CREATE TABLE vector_store_chunks (chunk_id TEXT PRIMARY KEY, vector_store_id TEXT "
            "REFERENCES vector_stores, file_path TEXT NOT NULL, start_line INTEGER, end_line INTEGER, "
            "content TEXT NOT NULL)"
        ),
        "the foreign key of vector_store_chunks.vector_store_id onto vector_stores",
    ),
    "a trigger that names its table in another case": (
        "CREATE TRIGGER trg_case AFTER INSERT ON SESSIONS BEGIN UPDATE Vector_Stores SET Protected = 0; END",
        "the trigger trg_case on SESSIONS",
    ),
}


@pytest.fixture
def separate_file(tmp_path: Path) -> Path:
    """Return a file of the time of two tables."""
    return legacy.build(tmp_path / "separate.sqlite3", "legacy")


@pytest.mark.parametrize("name", BREAKING)
def test_what_would_break_stops_the_run(name: str, separate_file: Path) -> None:
    """What hangs on a table that goes is named, and nothing is written, not even a backup folder."""
    statement, named = BREAKING[name]
    legacy.execute(separate_file, statement)
    before = legacy.tree(separate_file.parent)

    result = run_cli("--db-path", separate_file, "migrate")

    assert 6 == result.code
    assert named in result.err
    assert "Next: drop them" in result.err
    assert before == legacy.tree(separate_file.parent)


def test_only_what_would_break_is_named(separate_file: Path) -> None:
    """A sound trigger on the same table is not blamed for its neighbour."""
    legacy.execute(
        separate_file,
        "CREATE TRIGGER trg_bad AFTER INSERT ON sessions WHEN EXISTS (SELECT protected FROM vector_stores) "
        "BEGIN SELECT 1; END",
    )

    with pytest.raises(NotOursError, match="trg_bad") as raised:
        vecmigrate.upgrade(url(separate_file))

    assert "trg_sessions" not in raised.value.message


def test_plain_alembic_refuses_in_the_same_words(separate_file: Path) -> None:
    """The real alembic command names the foreign key and writes nothing."""
    legacy.execute(separate_file, "CREATE TABLE child (session_id TEXT REFERENCES vector_stores)")
    before = legacy.tree(separate_file.parent)

    result = run_alembic(separate_file, "upgrade", "head")

    assert result.code != 0
    assert "the foreign key of child.session_id onto vector_stores" in result.out + result.err
    assert before == legacy.tree(separate_file.parent)


def test_a_view_over_a_column_that_goes_stops_the_run(tmp_path: Path) -> None:
    """A view that reads `protected`, which 001 renames, would not work afterwards."""
    path = legacy.build(tmp_path / "legacy.sqlite3", "legacy")
    legacy.execute(path, "CREATE VIEW guarded AS SELECT vector_store_id FROM vector_stores WHERE protected = 1")
    before = legacy.tree(tmp_path)

    with pytest.raises(NotOursError, match="the view guarded"):
        vecmigrate.upgrade(url(path))

    assert before == legacy.tree(tmp_path)


def test_a_foreign_key_onto_a_column_that_stays_unique_is_fine(tmp_path: Path) -> None:
    """A child of vector_stores(session_id) keeps its parent, in both directions, with keys enforced."""
    path = legacy.build(tmp_path / "legacy.sqlite3", "legacy")
    legacy.execute(
        path,
        "CREATE TABLE child (session_id TEXT REFERENCES vector_stores(session_id) ON DELETE CASCADE)",
        "INSERT INTO child VALUES ('session-00001'), ('session-00002')",
    )
    service = legacy.service_digest(path)

    vecmigrate.upgrade(url(path))
    assert service == legacy.service_digest(path)
    with legacy.opened(path) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("INSERT INTO child VALUES ('session-00003')")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO child VALUES ('nobody')")
        connection.execute("DELETE FROM vector_stores WHERE session_id = 'session-00003'")
        assert 2 == connection.execute("SELECT count(*) FROM child").fetchone()[0]
    vecmigrate.rollback(url(path), to_version="000")

    assert service == legacy.service_digest(path)


def test_a_foreign_key_onto_the_primary_key_that_changes_stops_the_run(tmp_path: Path) -> None:
    """A child that refers to vector_stores without a column would mean another column afterwards."""
    path = legacy.build(tmp_path / "legacy.sqlite3", "legacy")
    legacy.execute(path, "CREATE TABLE child (session_id TEXT REFERENCES vector_stores)")
    before = legacy.tree(tmp_path)

    with pytest.raises(NotOursError, match=r"the foreign key of child\.session_id onto vector_stores"):
        vecmigrate.upgrade(url(path))

    assert before == legacy.tree(tmp_path)


def test_a_foreign_key_onto_the_primary_key_that_stays_is_fine(released_file: Path) -> None:
    """In an already unified file, a child that refers to vector_stores without a column means the same."""
    legacy.execute(
        released_file,
        "CREATE TABLE child (id TEXT REFERENCES vector_stores)",
        "INSERT INTO child VALUES ('vs_u00001')",
    )
    service = legacy.service_digest(released_file)

    vecmigrate.upgrade(url(released_file))

    assert service == legacy.service_digest(released_file)
    assert [] == legacy.query(released_file, "PRAGMA foreign_key_check")


def test_old_violations_of_the_service_do_not_stop_the_run(released_file: Path) -> None:
    """Only violations that a run would add count; those that were there are the service's own."""
    legacy.execute(
        released_file,
        "CREATE TABLE child (id TEXT REFERENCES vector_stores(vector_store_id))",
        "INSERT INTO child VALUES ('never was')",
        "CREATE TABLE other (s TEXT REFERENCES sessions(session_id))",
        "INSERT INTO other VALUES ('never was')",
    )
    service = legacy.service_digest(released_file)

    vecmigrate.upgrade(url(released_file))

    assert service == legacy.service_digest(released_file)


def test_a_child_whose_parent_would_be_set_aside_stops_the_run(tmp_path: Path) -> None:
    """Setting a row aside that another table refers to would orphan the child: it is named, nothing changes."""
    path = legacy.build(tmp_path / "legacy.sqlite3", "legacy")
    legacy.execute(
        path,
        "INSERT INTO vector_stores VALUES ('doomed', 'vs_doomed', 'openai', 1, 0, 'no time at all', 1)",
        "CREATE TABLE child (session_id TEXT REFERENCES vector_stores(session_id))",
        "INSERT INTO child VALUES ('doomed')",
    )
    before = legacy.digest(path)

    with pytest.raises(NotOursError, match="the row 1 of child"):
        vecmigrate.upgrade(url(path))

    assert before == legacy.digest(path)
    assert legacy.revision(path) is None


def test_a_view_that_was_broken_before_does_not_stop_the_run(released_file: Path) -> None:
    """A view of the service that never worked is put back as it is."""
    legacy.execute(released_file, "CREATE VIEW lame AS SELECT * FROM nowhere")
    service = legacy.service_digest(released_file)

    vecmigrate.upgrade(url(released_file))

    assert service == legacy.service_digest(released_file)


def test_a_view_over_the_new_table_stops_the_way_back(released_file: Path) -> None:
    """On the way down too: what was hung on a table that goes is named before anything changes."""
    path = released_file.with_name("legacy.sqlite3")
    legacy.build(path, "legacy")
    vecmigrate.upgrade(url(path))
    legacy.execute(path, "CREATE VIEW named AS SELECT name FROM vector_stores")
    before = legacy.tree(path.parent)

    with pytest.raises(NotOursError, match="the view named"):
        vecmigrate.rollback(url(path), to_version="000")

    assert before == legacy.tree(path.parent)


def test_a_refusal_that_only_the_rows_show_leaves_no_backup(tmp_path: Path) -> None:
    """A row that others refer to and that has to be set aside stops the run again and again, and fills no disk."""
    path = legacy.build(tmp_path / "sessions.sqlite3", "legacy")
    legacy.execute(
        path,
        "CREATE TABLE kids (id INTEGER PRIMARY KEY, session TEXT REFERENCES vector_stores (session_id))",
        "INSERT INTO vector_stores VALUES ('s-odd', x'ff', 'openai', 1, 0, 1, 1)",
        "INSERT INTO kids VALUES (1, 's-odd')",
    )
    kept = vecmigrate.backup(url(path)).name
    before = {name: entry[2] for name, entry in legacy.tree(tmp_path).items()}

    for _ in range(2):
        result = run_cli("--db-path", path, "migrate")
        assert 6 == result.code
        assert "kids" in result.err
        assert "Nothing was changed." in result.err

    assert before == {name: entry[2] for name, entry in legacy.tree(tmp_path).items()}
    assert (tmp_path / "backups" / kept).exists()


# What only the service's own process can do: its functions and collations are unknown here.


def fold(text: str | None) -> str:
    return (text or "").casefold()


def execute_as_service(path: Path, *statements: str) -> None:
    """Run statements in a process that has the functions and the collation of the service."""
    with legacy.opened(path) as connection:
        connection.create_function("fold", 1, fold, deterministic=True)
        connection.create_collation("de", lambda one, other: (one > other) - (one < other))
        for statement in statements:
            connection.execute(statement)


UNKNOWN_HERE = {
    "an index on an expression": (
        ["CREATE INDEX i ON vector_stores (fold(provider))"],
        "the index i on vector_stores, which needs the function fold of the service",
    ),
    "a partial index": (
        ["CREATE INDEX i ON vector_stores (provider) WHERE fold(provider) <> ''"],
        "the index i on vector_stores, which needs the function fold of the service",
    ),
    "an index in an order of the service's own": (
        ["CREATE INDEX i ON vector_stores (provider COLLATE de)"],
        "the index i on vector_stores, which needs the collation de of the service",
    ),
}
GONE_FROM = ("migrate", "rollback --to-version 0")


@pytest.mark.parametrize("direction", GONE_FROM)
@pytest.mark.parametrize("name", UNKNOWN_HERE)
def test_what_this_process_cannot_make_again_stops_the_run(name: str, direction: str, released_file: Path) -> None:
    """Both ways it is named with what it needs, before the first write."""
    statements, named = UNKNOWN_HERE[name]
    if direction.startswith("rollback"):
        vecmigrate.upgrade(url(released_file))
    execute_as_service(released_file, *statements)
    before = legacy.tree(released_file.parent)

    result = run_cli("--db-path", released_file, *direction.split())

    assert 6 == result.code, result.err
    assert named in result.err
    assert "Next: drop them" in result.err
    assert before == legacy.tree(released_file.parent)


def test_a_check_of_the_service_s_own_stops_the_run(tmp_path: Path) -> None:
    """A table that was found with such a CHECK could not be made again on the way back."""
    path = tmp_path / "checked.sqlite3"
    sql = legacy.LEGACY_SQL[0].replace("provider TEXT NOT NULL", "provider TEXT NOT NULL CHECK (fold(provider) <> '')")
    execute_as_service(path, sql, "INSERT INTO vector_stores VALUES ('s', 'v', 'openai', 1, 0, 1, 1)")
    before = legacy.tree(tmp_path)

    result = run_cli("--db-path", path, "migrate")

    assert 6 == result.code, result.err
    assert "the table vector_stores, which needs the function fold of the service" in result.err
    assert before == legacy.tree(tmp_path)


def test_a_generated_column_of_the_service_s_own_stops_the_run(released_file: Path) -> None:
    """On a table of ours it would be gone, and could not be made again here."""
    vecmigrate.upgrade(url(released_file))
    execute_as_service(released_file, "ALTER TABLE vector_stores ADD COLUMN folded TEXT AS (fold(provider))")
    before = legacy.tree(released_file.parent)

    result = run_cli("--db-path", released_file, "rollback", "--to-version", "0")

    assert 6 == result.code, result.err
    assert "vector_stores" in result.err
    assert before == legacy.tree(released_file.parent)


def test_what_hangs_on_no_table_that_is_written_to_is_no_obstacle(released_file: Path) -> None:
    """The service's own tables may need of its process what they like, and so may ours that a run leaves alone."""
    execute_as_service(
        released_file,
        "CREATE INDEX folded ON sessions (fold(session_id))",
        "CREATE VIEW folds AS SELECT fold(session_id) FROM sessions",
    )
    schema = legacy.schema(released_file)
    ours = {"folded", "folds"}

    vecmigrate.upgrade(url(released_file))
    execute_as_service(released_file, "CREATE INDEX folded_chunks ON vector_store_chunks (fold(content))")
    vecmigrate.rollback(url(released_file), to_version="000")
    vecmigrate.upgrade(url(released_file))

    after = legacy.schema(released_file)
    assert {key: sql for key, sql in schema.items() if key[1] in ours} == {
        key: sql for key, sql in after.items() if key[1] in ours
    }
    assert ("index", "folded_chunks") in after


def test_an_index_that_cannot_be_put_back_is_named(scripts: Scripts, released_file: Path) -> None:
    """Where a revision fails by what of the service it puts back, that is told and not the revision blamed."""
    vecmigrate.upgrade(url(released_file))
    legacy.execute(
        released_file,
        "CREATE INDEX sound ON vector_store_chunks (content)",
        "CREATE INDEX on_lines ON vector_store_chunks (start_line) WHERE end_line > 1",
    )
    scripts.add(
        """
        bind = op.get_bind()
        query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'vector_store_chunks' AND sql <> ''"
        indexes = list(bind.scalars(sa.text(query)))
        op.execute("CREATE TABLE anew (chunk_id TEXT PRIMARY KEY, content TEXT, start_line INTEGER)")
        op.execute("INSERT INTO anew SELECT chunk_id, content, start_line FROM vector_store_chunks")
        op.execute("DROP TABLE vector_store_chunks")
        op.execute("ALTER TABLE anew RENAME TO vector_store_chunks")
        for sql in indexes:
            op.execute(sql)
        """
    )
    before = legacy.tree(released_file.parent)

    result = run_cli("--db-path", released_file, "migrate")

    assert 6 == result.code, result.err
    assert "the index on_lines on vector_store_chunks" in result.err
    assert "sound" not in result.err
    assert before == legacy.tree(released_file.parent)


def test_a_trigger_that_a_run_would_set_off_stops_it(released_file: Path) -> None:
    """Rows of the service do not change by a run, and so no trigger of a table of ours may change them."""
    vecmigrate.upgrade(url(released_file), "001")
    legacy.execute(
        released_file,
        "CREATE TRIGGER planted AFTER INSERT ON embedding_models BEGIN DELETE FROM sessions; END",
        "CREATE TRIGGER quiet AFTER DELETE ON vector_store_chunks BEGIN DELETE FROM sessions; END",
    )
    before = legacy.tree(released_file.parent)

    result = run_cli("--db-path", released_file, "migrate", "--target", "002")

    assert 6 == result.code, result.err
    assert "the trigger planted on embedding_models, which would run and write to sessions" in result.err
    assert "quiet" not in result.err
    assert before == legacy.tree(released_file.parent)
