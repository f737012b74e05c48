"""002 changes the embedding model: at once without chunks, else as one that is being built."""

import struct
import time
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli, url

OLD = "sentence-transformers/all-MiniLM-L6-v2"
NEW = "Salesforce/SFR-Embedding-Code-400M_R"
MODELS = "SELECT name, dimensions, state FROM embedding_models ORDER BY name"


@pytest.fixture
def at_001(tmp_path: Path) -> Path:
    """Return a database at 001, made from nothing."""
    path = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(path), "001")
    return path


def vector(dimensions: int) -> bytes:
    return struct.pack(f"<{dimensions}f", *[0.5] * dimensions)


def add_chunks(path: Path, *, model: str = OLD, dimensions: int = 384, count: int = 3) -> None:
    with legacy.opened(path) as connection:
        connection.execute("BEGIN")
        for n in range(count):
            row = (f"c{n}", f"f{n}.py", n, n + 9, f"text {n}")
            connection.execute("INSERT INTO vector_store_chunks VALUES (?, NULL, ?, ?, ?, ?)", row)
            connection.execute(
                "INSERT INTO vector_store_embeddings VALUES (?, ?, ?)", (model, f"c{n}", vector(dimensions))
            )
        connection.execute("COMMIT")


def models(path: Path) -> list[tuple[object, ...]]:
    return legacy.query(path, MODELS)


def test_without_chunks_the_new_model_is_active_at_once(at_001: Path) -> None:
    """There is nothing to re-embed, so the new model serves and the old one is retired."""
    vecmigrate.upgrade(url(at_001))

    assert [(NEW, 768, "active"), (OLD, 384, "retired")] == models(at_001)
    assert None is vecmigrate.status(url(at_001)).reembed


def test_with_chunks_the_old_model_stays_active(at_001: Path) -> None:
    """With chunks the new model is being built, the old one serves, and no vector is touched."""
    add_chunks(at_001)
    vectors, chunks = (legacy.rows(at_001, f"vector_store_{name}") for name in ("embeddings", "chunks"))

    vecmigrate.upgrade(url(at_001))

    assert [(NEW, 768, "building"), (OLD, 384, "active")] == models(at_001)
    assert {"model": NEW, "remaining": 3} == vecmigrate.status(url(at_001)).reembed
    assert vectors == legacy.rows(at_001, "vector_store_embeddings")
    assert chunks == legacy.rows(at_001, "vector_store_chunks")


@pytest.mark.parametrize("has_chunks", [False, True])
def test_down_swaps_back_and_deletes_no_vector(has_chunks: bool, at_001: Path) -> None:  # noqa: FBT001
    """After a downgrade the models are as they were found, and every vector is there."""
    if has_chunks:
        add_chunks(at_001)
    found = legacy.digest(at_001)

    vecmigrate.upgrade(url(at_001))
    vecmigrate.rollback(url(at_001), to_version="001")

    assert found == legacy.digest(at_001)


@pytest.mark.parametrize("has_chunks", [False, True])
def test_down_and_up_again_gives_the_same(has_chunks: bool, at_001: Path) -> None:  # noqa: FBT001
    """The time at which the new model became active comes back too."""
    if has_chunks:
        add_chunks(at_001)
    vecmigrate.upgrade(url(at_001))
    legacy.execute(at_001, f"UPDATE embedding_models SET activated_at = 4711 WHERE name = '{NEW}'")
    at_head = legacy.digest(at_001)

    vecmigrate.rollback(url(at_001), to_version="001")
    vecmigrate.upgrade(url(at_001))

    assert at_head == legacy.digest(at_001)


def test_vectors_of_the_new_model_survive_the_way_back(at_001: Path) -> None:
    """What was embedded already is not thrown away: after down and up the re-embedding goes on."""
    add_chunks(at_001)
    vecmigrate.upgrade(url(at_001))
    with legacy.opened(at_001) as connection:
        connection.execute("INSERT INTO vector_store_embeddings VALUES (?, 'c0', ?)", (NEW, vector(768)))
    at_head = legacy.digest(at_001)

    vecmigrate.rollback(url(at_001), to_version="001")
    assert (OLD, 384, "active") in models(at_001)
    assert 4 == len(legacy.rows(at_001, "vector_store_embeddings"))
    vecmigrate.upgrade(url(at_001))

    assert {"model": NEW, "remaining": 2} == vecmigrate.status(url(at_001)).reembed
    assert at_head == legacy.digest(at_001)


def test_down_after_the_swap_makes_the_old_model_active_again(at_001: Path) -> None:
    """Where re-embedding has ended and the models have swapped, downgrade swaps back at once."""
    add_chunks(at_001)
    vecmigrate.upgrade(url(at_001))
    legacy.execute(
        at_001,
        f"INSERT INTO vector_store_embeddings SELECT '{NEW}', chunk_id, zeroblob(3072) FROM vector_store_chunks",
        f"UPDATE embedding_models SET state = 'retired' WHERE name = '{OLD}'",
        f"UPDATE embedding_models SET state = 'active', activated_at = 5 WHERE name = '{NEW}'",
    )
    at_head = legacy.digest(at_001)

    vecmigrate.rollback(url(at_001), to_version="001")
    assert [(OLD, 384, "active")] == [row for row in models(at_001) if row[2] == "active"]
    vecmigrate.upgrade(url(at_001))

    assert at_head == legacy.digest(at_001)


@pytest.mark.parametrize("is_purged", [False, True])
def test_the_way_back_to_a_model_without_vectors_is_told(at_001: Path, *, is_purged: bool) -> None:
    """Who purged the old model, or has chunks that came since, hears that a search will not find them."""
    add_chunks(at_001)
    vecmigrate.upgrade(url(at_001))
    if is_purged:
        legacy.execute(at_001, f"DELETE FROM vector_store_embeddings WHERE model = '{OLD}' AND chunk_id = 'c1'")

    result = run_cli("--db-path", at_001, "rollback", "--to-version", "001")

    assert 0 == result.code, result.err
    assert is_purged == ("chunks without a vector of it" in result.out + result.err)
    assert [(OLD, 384, "active")] == models(at_001)


def test_many_chunks_are_not_looked_at_but_swap_at_once_when_asked(at_001: Path) -> None:
    """Whether very many chunks have their vectors is too much to look at in a run: activating it looks, and swaps."""
    add_chunks(at_001, count=10_001)
    legacy.execute(
        at_001, f"INSERT INTO vector_store_embeddings SELECT '{NEW}', chunk_id, zeroblob(3072) FROM vector_store_chunks"
    )

    vecmigrate.upgrade(url(at_001))
    assert [(NEW, 768, "building"), (OLD, 384, "active")] == models(at_001)
    assert 0 == run_cli("--db-path", at_001, "embeddings", "activate", NEW).code

    assert [(NEW, 768, "active"), (OLD, 384, "retired")] == models(at_001)


def test_a_model_that_was_being_built_makes_way_and_returns(at_001: Path) -> None:
    """There is at most one building model: another one is retired, told in preserved, and comes back by downgrade."""
    add_chunks(at_001)
    legacy.execute(at_001, "INSERT INTO embedding_models VALUES ('their/model', 512, 'building', NULL)")
    found = legacy.digest(at_001)

    vecmigrate.upgrade(url(at_001))

    assert [(NEW, 768, "building"), (OLD, 384, "active"), ("their/model", 512, "retired")] == models(at_001)
    kept = legacy.query(
        at_001, "SELECT source_table, landed, target_key FROM vecmigrate_preserved WHERE revision = '002'"
    )
    assert [("embedding_models", 1, "their/model")] == kept
    vecmigrate.rollback(url(at_001), to_version="001")
    assert found == legacy.digest(at_001)


@pytest.mark.parametrize("count", [0, 3])
def test_a_service_that_has_the_new_model_already_keeps_it(count: int, at_001: Path) -> None:
    """Where the new model is active already, up and down leave it as it is, whatever vectors it has."""
    add_chunks(at_001, count=count)
    legacy.execute(
        at_001,
        f"UPDATE embedding_models SET state = 'retired' WHERE name = '{OLD}'",
        f"INSERT INTO embedding_models VALUES ('{NEW}', 768, 'active', 99)",
    )
    found = legacy.digest(at_001)

    vecmigrate.upgrade(url(at_001))
    assert [(NEW, 768, "active"), (OLD, 384, "retired")] == models(at_001)
    vecmigrate.rollback(url(at_001), to_version="001")

    assert found == legacy.digest(at_001)


def test_a_model_changed_since_keeps_the_later_state(at_001: Path) -> None:
    """A model that was removed after the upgrade stays removed."""
    add_chunks(at_001)
    legacy.execute(at_001, "INSERT INTO embedding_models VALUES ('their/model', 512, 'building', NULL)")
    vecmigrate.upgrade(url(at_001))
    legacy.execute(at_001, "DELETE FROM embedding_models WHERE name = 'their/model'")

    vecmigrate.rollback(url(at_001), to_version="001")

    assert [(OLD, 384, "active")] == models(at_001)


def test_there_is_never_more_than_one_active_model(at_001: Path) -> None:
    """The schema itself refuses a second active or building model."""
    add_chunks(at_001)
    vecmigrate.upgrade(url(at_001))

    states = [state for _, _, state in models(at_001)]
    assert (1, 1) == (states.count("active"), states.count("building"))
    result = run_cli("--db-path", at_001, "status", "--json").document
    assert {"model": NEW, "remaining": 3} == result["reembed"]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_cost_does_not_grow_with_the_vectors(direction: str, at_001: Path) -> None:
    """Whatever the number of vectors, 002 reads at most one row of theirs and writes none: it finds by the index."""
    add_chunks(at_001, count=500)
    if direction == "down":
        vecmigrate.upgrade(url(at_001))
    steps = []
    for extra in (0, 2000):
        with legacy.opened(at_001) as connection:
            connection.execute("BEGIN")
            for n in range(extra):
                connection.execute("INSERT INTO vector_store_embeddings VALUES (?, ?, x'00')", (OLD, f"more-{n}"))
            connection.execute("COMMIT")
        steps.append(virtual_machine_steps(at_001, direction))

    assert steps[1] <= steps[0] * 1.1 + 100


def virtual_machine_steps(path: Path, direction: str) -> int:
    """Run the script of 002 and roll it back; return how many hundreds of SQLite's instructions it took."""
    import sqlalchemy as sa  # noqa: PLC0415 - only this function drives a script by itself
    from alembic.operations import Operations  # noqa: PLC0415
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = vecmigrate.alembic_config(url(path))
    script = ScriptDirectory.from_config(config)
    module = script.get_revision("002").module
    engine = sa.create_engine(url(path))
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    with (
        engine.connect() as connection,
        EnvironmentContext(config, script),
        Operations.context(MigrationContext.configure(connection)),
    ):
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count, 10)
        (module.upgrade if direction == "up" else module.downgrade)()
        driver.set_progress_handler(None, 0)
        connection.rollback()
    engine.dispose()
    return counted[0]


STATES = ("active", "building", "retired", None)
PAIRS = [(old, new) for old in STATES for new in STATES if old != new or new in {"retired", None}]


@pytest.mark.parametrize(("old", "new"), PAIRS)
@pytest.mark.parametrize("chunks", [0, 3])
def test_any_states_come_back(
    at_001: Path, monkeypatch: pytest.MonkeyPatch, old: str | None, new: str | None, chunks: int
) -> None:
    """Down gives the models back as they were, also where none was active, and up again they are the same."""
    legacy.execute(at_001, "DELETE FROM embedding_models")
    for name, dimensions, state in ((OLD, 384, old), (NEW, 768, new)):
        if state:
            values = f"('{name}', {dimensions}, '{state}', {'NULL' if state == 'building' else 7})"
            legacy.execute(at_001, f"INSERT INTO embedding_models VALUES {values}")
    add_chunks(at_001, count=chunks)
    found = legacy.digest(at_001)

    vecmigrate.upgrade(url(at_001))
    above = legacy.rows(at_001, "embedding_models")
    vecmigrate.rollback(url(at_001), to_version="001")
    assert found == legacy.digest(at_001)

    later = time.time() + 1000
    monkeypatch.setattr(time, "time", lambda: later)
    vecmigrate.upgrade(url(at_001))
    assert above == legacy.rows(at_001, "embedding_models")
