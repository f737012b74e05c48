"""003 keeps vectors true while chunks change: those of models that are not active go with the text they are of."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import legacy
import vecmigrate
from doors import DOORS, downgrade, run_alembic, upgrade, url
from vecmigrate.errors import VecmigrateError

OLD = "sentence-transformers/all-MiniLM-L6-v2"
NEW = "Salesforce/SFR-Embedding-Code-400M_R"
OTHER = "their/retired-model"
ADD_CHUNK = "INSERT INTO vector_store_chunks VALUES ('{id}', NULL, 'f.py', 1, 9, '{content}')"
TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'vector_store_chunks'"
POSTGRESQL_TRIGGERS = (
    "SELECT tgname FROM pg_trigger WHERE tgrelid = 'vector_store_chunks'::regclass AND NOT tgisinternal "
    "UNION ALL SELECT proname FROM pg_proc WHERE proname = 'vecmigrate_forget_vectors'"
)
MODELS = (
    "DELETE FROM embedding_models",
    f"INSERT INTO embedding_models VALUES ('{OLD}', 384, 'active', 1)",
    f"INSERT INTO embedding_models VALUES ('{NEW}', 768, 'building', NULL)",
    f"INSERT INTO embedding_models VALUES ('{OTHER}', 512, 'retired', 1)",
)


class Database:
    """A database at head with two chunks, each with a vector of three models; SQLite or PostgreSQL."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self._engine = sa.create_engine(url, poolclass=NullPool)
        vecmigrate.upgrade(url, backup="never")
        self.run(*MODELS, ADD_CHUNK.format(id="a", content="text a"), ADD_CHUNK.format(id="b", content="text b"))
        for model in (OLD, NEW, OTHER):
            self.add_vectors(model, "a", "b")

    def add_vectors(self, model: str, *chunks: str) -> None:
        add = sa.text("INSERT INTO vector_store_embeddings VALUES (:model, :chunk, :vector)")
        with self._engine.begin() as connection:
            connection.execute(add, [{"model": model, "chunk": chunk, "vector": b"\0" * 4} for chunk in chunks])

    def run(self, *statements: str) -> None:
        with self._engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def vectors(self, model: str) -> list[str]:
        query = sa.text("SELECT chunk_id FROM vector_store_embeddings WHERE model = :model ORDER BY 1")
        with self._engine.connect() as connection:
            return list(connection.scalars(query, {"model": model}))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Return a database of each kind."""
    if request.param == "sqlite":
        return Database(sa.make_url(url(tmp_path / "service.sqlite3")))
    return Database(request.getfixturevalue("postgresql"))


CHANGES = {
    "the text": "UPDATE vector_store_chunks SET content = 'another text' WHERE chunk_id = 'a'",
    "the case of the text": "UPDATE vector_store_chunks SET content = 'TEXT A' WHERE chunk_id = 'a'",
    "gone": "DELETE FROM vector_store_chunks WHERE chunk_id = 'a'",
    "the id": "UPDATE vector_store_chunks SET chunk_id = 'c' WHERE chunk_id = 'a'",
    "an upsert": (
        "INSERT INTO vector_store_chunks VALUES ('a', NULL, 'f.py', 1, 9, 'another text') "
        "ON CONFLICT (chunk_id) DO UPDATE SET content = excluded.content"
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_vector_goes_with_its_text(database: Database, change: str) -> None:
    """Whatever changes a text or takes it away, only the active model keeps its vector, as the service's affair."""
    database.run(change)

    assert ["a", "b"] == database.vectors(OLD)
    assert ["b"] == database.vectors(NEW)
    assert ["b"] == database.vectors(OTHER)


UNCHANGED = {
    "another column": "UPDATE vector_store_chunks SET file_path = 'g.py', start_line = 3",
    "the same text": "UPDATE vector_store_chunks SET content = content, chunk_id = chunk_id",
    "an upsert of the same text": (
        "INSERT INTO vector_store_chunks VALUES ('a', NULL, 'g.py', 1, 9, 'text a') "
        "ON CONFLICT (chunk_id) DO UPDATE SET file_path = excluded.file_path, content = excluded.content"
    ),
    "a new chunk": ADD_CHUNK.format(id="c", content="text c"),
}


@pytest.mark.parametrize("change", UNCHANGED.values(), ids=UNCHANGED)
def test_a_vector_stays_with_its_text(database: Database, change: str) -> None:
    """What leaves a text as it is costs no vector."""
    database.run(change)

    for model in (OLD, NEW, OTHER):
        assert ["a", "b"] == database.vectors(model)


def test_a_vector_without_a_chunk_is_none_of_a_chunk_that_comes(database: Database) -> None:
    """A chunk that takes an id of which vectors are left over has no vector, because nobody knows of what they are."""
    for model in (OLD, NEW, OTHER):
        database.add_vectors(model, "c")

    database.run(ADD_CHUNK.format(id="c", content="text c"))

    assert [["a", "b", "c"], ["a", "b"], ["a", "b"]] == [database.vectors(model) for model in (OLD, NEW, OTHER)]


def test_a_renamed_chunk_gets_no_vector_of_another_text(database: Database) -> None:
    """A chunk that gets an id of which vectors are left over has none either."""
    database.run("DELETE FROM vector_store_chunks WHERE chunk_id = 'a'")
    database.add_vectors(NEW, "a")

    database.run("UPDATE vector_store_chunks SET chunk_id = 'a' WHERE chunk_id = 'b'")

    assert [] == database.vectors(NEW)


def test_truncate_takes_the_vectors_with_the_chunks(postgresql: sa.URL) -> None:
    """On PostgreSQL, where a table can be emptied without its rows being deleted one by one."""
    database = Database(postgresql)

    database.run("TRUNCATE vector_store_chunks")

    assert [["a", "b"], [], []] == [database.vectors(model) for model in (OLD, NEW, OTHER)]


def test_another_search_path_changes_nothing(postgresql: sa.URL) -> None:
    """On PostgreSQL the triggers find our tables, wherever the search path of who changes a chunk leads."""
    database = Database(postgresql)

    database.run("SET search_path = pg_catalog", "UPDATE public.vector_store_chunks SET content = 'another text'")

    assert [["a", "b"], [], []] == [database.vectors(model) for model in (OLD, NEW, OTHER)]


@pytest.mark.parametrize("is_recursive", [False, True])
def test_replace_takes_the_vector_only_with_another_text(tmp_path: Path, *, is_recursive: bool) -> None:
    """SQLite's INSERT OR REPLACE, which fires no delete trigger as a rule, is seen all the same."""
    path = tmp_path / "service.sqlite3"
    database = Database(sa.make_url(url(path)))
    replace = "INSERT OR REPLACE INTO vector_store_chunks VALUES (?, NULL, 'g.py', 1, 9, ?)"
    with legacy.opened(path) as connection:
        connection.execute(f"PRAGMA recursive_triggers = {int(is_recursive)}")
        connection.execute(replace, ("b", "another text"))
        assert ["a"] == database.vectors(NEW)
        connection.execute(replace, ("a", "text a"))

    # With recursive triggers the replaced row tells of itself as one that is deleted, and nobody sees what follows.
    assert ([] if is_recursive else ["a"]) == database.vectors(NEW)
    assert ["a", "b"] == database.vectors(OLD)


def test_an_update_or_replace_takes_both_vectors(tmp_path: Path) -> None:
    """A chunk that is renamed over another one leaves no vector of either."""
    database = Database(sa.make_url(url(tmp_path / "service.sqlite3")))

    database.run("UPDATE OR REPLACE vector_store_chunks SET chunk_id = 'b' WHERE chunk_id = 'a'")

    assert [] == database.vectors(NEW)


def test_texts_are_compared_by_their_bytes(tmp_path: Path) -> None:
    """Also in a table of the service whose columns have a collation that tells no case apart."""
    path = tmp_path / "service.sqlite3"
    legacy.execute(
        path,
        "CREATE TABLE vector_store_chunks (chunk_id TEXT PRIMARY KEY, vector_store_id TEXT, "
        "file_path TEXT NOT NULL, start_line INTEGER, end_line INTEGER, content TEXT COLLATE NOCASE NOT NULL)",
    )
    database = Database(sa.make_url(url(path)))

    database.run(CHANGES["the case of the text"])
    legacy.execute(path, "INSERT OR REPLACE INTO vector_store_chunks VALUES ('b', NULL, 'f.py', 1, 9, 'TEXT B')")

    assert [] == database.vectors(NEW)


@pytest.mark.parametrize("door", DOORS)
def test_it_goes_up_and_down_through_every_door(door: str, tmp_path: Path) -> None:
    """The triggers are there after the upgrade and gone after the downgrade, and nothing else differs."""
    path = tmp_path / "service.sqlite3"
    upgrade(door, path, "002")
    legacy.execute(path, ADD_CHUNK.format(id="a", content="text a"))
    below = legacy.digest(path)

    upgrade(door, path, "003")
    assert 3 == len(legacy.query(path, TRIGGERS))
    above = legacy.digest(path)
    downgrade(door, path, "002")
    assert below == legacy.digest(path)
    upgrade(door, path, "003")

    assert above == legacy.digest(path)


def test_it_goes_up_and_down_on_postgresql(postgresql: sa.URL) -> None:
    """The same on PostgreSQL, where the function goes too."""
    engine = sa.create_engine(postgresql, poolclass=NullPool)

    def found() -> int:
        with engine.connect() as connection:
            return len(connection.exec_driver_sql(POSTGRESQL_TRIGGERS).all())

    vecmigrate.upgrade(postgresql, "003")
    assert 5 == found()
    vecmigrate.rollback(postgresql, to_version="002")
    assert 0 == found()
    vecmigrate.upgrade(postgresql, "003")

    assert 5 == found()


def test_the_script_for_an_empty_database_has_the_triggers(tmp_path: Path) -> None:
    """``alembic upgrade head --sql`` prints them too, and SQLite takes them."""
    script = run_alembic(tmp_path / "none.sqlite3", "upgrade", "003", "--sql").out
    with sqlite3.connect(tmp_path / "made.sqlite3") as connection:
        connection.executescript(script)
    connection.close()

    assert 3 == len(legacy.query(tmp_path / "made.sqlite3", TRIGGERS))


def test_triggers_that_are_gone_do_not_bar_the_way_back(tmp_path: Path) -> None:
    """A service that built its table of chunks anew has lost them; down and up again, they are back."""
    path = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(path))
    legacy.execute(path, "DROP TRIGGER vecmigrate_chunk_inserted")

    vecmigrate.rollback(url(path), to_version="002")
    vecmigrate.upgrade(url(path), "003")

    assert 3 == len(legacy.query(path, TRIGGERS))


def test_a_trigger_of_the_service_on_the_chunks_stays(tmp_path: Path) -> None:
    """What is not ours is untouched on both ways."""
    path = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(path), "002")
    legacy.execute(
        path,
        "CREATE TABLE log (id TEXT)",
        "CREATE TRIGGER theirs AFTER DELETE ON vector_store_chunks BEGIN INSERT INTO log VALUES (OLD.chunk_id); END",
    )
    vecmigrate.upgrade(url(path), "003")
    legacy.execute(path, ADD_CHUNK.format(id="a", content="x"), "DELETE FROM vector_store_chunks")
    vecmigrate.rollback(url(path), to_version="002")

    assert [("theirs",)] == legacy.query(path, TRIGGERS)
    assert [("a",)] == legacy.query(path, "SELECT id FROM log")


def test_a_thousand_new_chunks_look_up_little(tmp_path: Path) -> None:
    """For a new chunk the trigger asks whether there is a vector, and does no more."""
    path = tmp_path / "service.sqlite3"
    database = Database(sa.make_url(url(path)))
    database.run("DELETE FROM vector_store_chunks")
    add = "INSERT INTO vector_store_chunks SELECT value, NULL, 'f.py', 1, 9, 'text' FROM json_each(?)"

    def steps(prefix: str) -> int:
        counted = [0]

        def count() -> int:
            counted[0] += 1
            return 0

        with legacy.opened(path) as connection:
            connection.set_progress_handler(count, 1)
            connection.execute(add, ("[" + ",".join(f'"{prefix}{n}"' for n in range(1000)) + "]",))
        return counted[0]

    with_triggers = steps("x")
    vecmigrate.rollback(url(path), to_version="002")
    without = steps("y")

    assert (with_triggers - without) / 1000 < 60


def test_a_database_below_is_pending(tmp_path: Path) -> None:
    """A database at 002 is one that 003 is still to come to."""
    path = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(path), "002")

    assert "003" in vecmigrate.status(url(path)).pending
    with pytest.raises(VecmigrateError):
        vecmigrate.rollback(url(path), to_version="003")
