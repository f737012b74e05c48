"""Chunks get the vectors of a new model while they are changed and searched, and then the models swap."""

import contextlib
import itertools
import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

import embedding
import legacy
import vecmigrate
from embedding import NEW, NOT_SWAPPED, OLD, STATES, SWAPPED, access, embed, text_of, untrue, vector, vectors
from vecmigrate.embedding import claims, tries
from vecmigrate.embedding.reembed import reembed
from vecmigrate.embedding.worker import Worker
from vecmigrate.errors import DatabaseUnusableError, EmbedderError, LockTimeoutError, ModelError
from vecmigrate.progress import Progress
from vecmigrate.turns import Turns

Place = sa.URL | Path
CHUNKS = 150


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a database of each kind at head, with 150 chunks that lack a vector of the new model."""
    if request.param == "sqlite":
        return embedding.build(tmp_path / "service.sqlite3", CHUNKS)
    return embedding.build_on_server(request.getfixturevalue("postgresql"), CHUNKS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an SQLite database of ten chunks."""
    return embedding.build(tmp_path / "service.sqlite3", 10)


def change(place: Place, number: int, version: int = 1) -> None:
    statement = "UPDATE vector_store_chunks SET content = :text WHERE chunk_id = :id"
    embedding.execute(place, statement, text=text_of(number, version), id=f"c{number:07d}")


def test_every_chunk_gets_its_vector_and_the_models_swap(place: Place) -> None:
    """All vectors are of the texts that stand in the chunks, the new model is active, and no claim is left."""
    done = vecmigrate.reembed(place, embed, batch_size=64)

    assert (NEW, 768, CHUNKS, 0, True) == (done.model, done.dimensions, done.embedded, done.remaining, done.swapped)
    assert [] == untrue(place)
    assert CHUNKS == vectors(place) == vectors(place, OLD)
    assert SWAPPED == embedding.query(place, STATES)
    assert [] == embedding.query(place, "SELECT * FROM vecmigrate_claims")
    assert None is vecmigrate.status(place).reembed
    activated = embedding.query(place, f"SELECT activated_at FROM embedding_models WHERE name = '{NEW}'")
    assert activated[0][0] is not None


def test_once_done_there_is_nothing_to_do(place: Place) -> None:
    """Called again, it asks no embedder."""
    vecmigrate.reembed(place, embed)

    done = vecmigrate.reembed(place, "no_such_module:embed")

    assert (0, 0, False) == (done.embedded, done.remaining, done.swapped)


def test_the_active_model_gets_what_it_lacks(place: Place) -> None:
    """Where nothing is being built, new chunks get a vector of the active model."""
    vecmigrate.reembed(place, embed)
    add = "INSERT INTO vector_store_chunks VALUES ('new', NULL, 'f.py', 1, 2, 'a new text')"
    embedding.execute(place, add)

    done = vecmigrate.reembed(place, embed)

    assert (1, 0, False) == (done.embedded, done.remaining, done.swapped)
    assert [] == untrue(place)


def test_batches_are_as_large_as_was_said_and_in_the_order_of_the_key(place: Place) -> None:
    """The embedder never gets more, every text once, and progress is told after each."""
    batches: list[list[str]] = []
    told: list[Progress] = []

    def embedder(texts: list[str]) -> list[list[float]]:
        batches.append(texts)
        return embed(texts)

    vecmigrate.reembed(place, embedder, batch_size=40, on_progress=told.append)

    assert [40, 40, 40, 30] == [len(batch) for batch in batches]
    assert [text_of(number) for number in range(CHUNKS)] == list(itertools.chain(*batches))
    assert [(40, 110), (80, 70), (120, 30), (150, 0)] == [(each.embedded, each.remaining) for each in told]


def test_a_limit_ends_it_and_the_next_call_goes_on(place: Place) -> None:
    """The limit is exact, and nothing is embedded twice."""
    texts: list[str] = []

    def embedder(batch: list[str]) -> list[list[float]]:
        texts.extend(batch)
        return embed(batch)

    first = vecmigrate.reembed(place, embedder, batch_size=64, limit=100)
    assert (100, 50, False) == (first.embedded, first.remaining, first.swapped)
    assert {"model": NEW, "remaining": 50} == vecmigrate.status(place).reembed
    assert NOT_SWAPPED == embedding.query(place, STATES)
    second = vecmigrate.reembed(place, embedder, batch_size=64, limit=50)

    assert (50, 0, True) == (second.embedded, second.remaining, second.swapped)
    assert CHUNKS == len(texts) == len(set(texts))


def test_a_chunk_that_changes_meanwhile_comes_again(place: Place) -> None:
    """A vector of the text before is not written; chunks that are added, replaced and deleted are seen too."""
    calls = itertools.count()

    def embedder(texts: list[str]) -> list[list[float]]:
        call = next(calls)
        if call == 0:
            change(place, 3)
            add = "INSERT INTO vector_store_chunks VALUES ('a-first', NULL, 'f.py', 1, 2, 'first')"
            embedding.execute(place, add, "DELETE FROM vector_store_chunks WHERE chunk_id = 'c0000005'")
        elif call == 1:
            change(place, 2, version=7)
        return embed(texts)

    done = vecmigrate.reembed(place, embedder, batch_size=64)

    assert [] == untrue(place)
    assert CHUNKS == vectors(place)
    assert (0, True) == (done.remaining, done.swapped)


def test_nothing_is_open_while_the_embedder_works(place: Place) -> None:
    """Somebody else can write and read, and another migration can take its lock."""
    calls: list[list[str]] = []

    def embedder(texts: list[str]) -> list[list[float]]:
        if not calls:
            vecmigrate.upgrade(place, lock_timeout=0.5, force=False)
            with Turns(access(place).database, lock_timeout=0.5) as turns, turns.writing() as connection:
                connection.exec_driver_sql("UPDATE vector_store_chunks SET start_line = 7")
        calls.append(texts)
        return embed(texts)

    assert vecmigrate.reembed(place, embedder).swapped
    assert [(7, CHUNKS)] == embedding.query(
        place, "SELECT start_line, count(*) FROM vector_store_chunks GROUP BY start_line"
    )


def test_no_swap_leaves_it_to_the_operator(place: Place) -> None:
    """All vectors are there, the old model still serves, and the next call swaps without an embedder."""
    done = vecmigrate.reembed(place, embed, swap=False)
    assert (CHUNKS, 0, False) == (done.embedded, done.remaining, done.swapped)
    assert NOT_SWAPPED == embedding.query(place, STATES)

    assert vecmigrate.reembed(place, "no_such_module:embed").swapped
    assert SWAPPED == embedding.query(place, STATES)


def test_a_chunk_added_at_the_last_moment_holds_up_the_swap(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The swap looks once more under the lock, and what is missing then is embedded first."""
    swap, late = Worker._swap, ["INSERT INTO vector_store_chunks VALUES ('late', NULL, 'f.py', 1, 2, 'late')"]

    def swap_late(worker: Worker) -> bool:
        if late:
            embedding.execute(place, late.pop())
        return swap(worker)

    monkeypatch.setattr(Worker, "_swap", swap_late)
    done = vecmigrate.reembed(place, embed)

    assert (CHUNKS + 1, 0, True) == (done.embedded, done.remaining, done.swapped)
    assert [] == untrue(place)


REFUSALS: dict[str, tuple[Callable[[list[str]], Any], str]] = {
    "another number": (lambda texts: embed(texts)[1:], "vectors for"),
    "zeros": (lambda texts: [[0.0] * 768 for _ in texts], "zeros"),
    "the same": (lambda texts: [vector("x") for _ in texts], "the same vector"),
    "infinity": (lambda texts: [[float("inf")] * 768 for _ in texts], "infinity"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_is_refused_leaves_what_was_done(fault: str, place: Place) -> None:
    """Nothing of the batch is written, no claim stays, and the next call goes on."""
    faulty, message = REFUSALS[fault]
    embedders = itertools.chain([embed], itertools.repeat(faulty))

    def asked(texts: list[str]) -> Any:
        return next(embedders)(texts)

    with pytest.raises(EmbedderError, match=message) as caught:
        vecmigrate.reembed(place, asked, batch_size=64)

    assert 1 == caught.value.exit_code
    assert 64 == vectors(place)
    assert [] == embedding.query(place, "SELECT * FROM vecmigrate_claims")
    assert 86 == vecmigrate.reembed(place, embed).embedded
    assert [] == untrue(place)


def test_other_dimensions_are_recorded_only_while_there_is_no_vector(place: Place) -> None:
    """The message names the option; with it they are recorded, and later it is another model."""

    def larger(texts: list[str]) -> list[list[float]]:
        return [vector(text, 1024) for text in texts]

    with pytest.raises(EmbedderError, match="1024 dimensions where 768") as caught:
        vecmigrate.reembed(place, larger)
    assert "--dimensions 1024" in caught.value.next_step
    assert 0 == vectors(place)

    done = vecmigrate.reembed(place, larger, dimensions=1024, limit=10)
    assert (1024, 10) == (done.dimensions, done.embedded)
    recorded = f"SELECT dimensions FROM embedding_models WHERE name = '{NEW}'"
    assert [(1024,)] == embedding.query(place, recorded)
    with pytest.raises(EmbedderError, match="this is another model"):
        vecmigrate.reembed(place, embed)
    with pytest.raises(ModelError, match="another model"):
        vecmigrate.reembed(place, embed, dimensions=768)

    assert vecmigrate.reembed(place, larger).swapped


def test_dimensions_are_recorded_with_the_first_vectors(path: Path) -> None:
    """An embedder that does not keep to them leaves the model as it was."""
    with pytest.raises(EmbedderError, match="768 dimensions where 1024"):
        vecmigrate.reembed(path, embed, dimensions=1024)

    assert [(768,)] == embedding.query(path, f"SELECT dimensions FROM embedding_models WHERE name = '{NEW}'")


def test_an_exception_that_goes_up_gives_up_the_claims(path: Path) -> None:
    """What a signal raises in the embedder goes on to the caller, and nobody has to wait for a lease."""

    def embedder(_: list[str]) -> list[list[float]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vecmigrate.reembed(path, embedder)

    assert [] == embedding.query(path, "SELECT * FROM vecmigrate_claims")
    assert vecmigrate.reembed(path, embed).swapped


@pytest.fixture
def fast_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "PAUSES", (0.0, 0.0))


@pytest.mark.usefixtures("fast_pauses")
def test_a_failing_embedder_keeps_what_was_done(path: Path) -> None:
    """After three tries the error is told, with progress kept."""
    calls = itertools.count()

    def embedder(texts: list[str]) -> list[list[float]]:
        if next(calls) > 0:
            raise ConnectionError
        return embed(texts)

    with pytest.raises(EmbedderError, match="ConnectionError"):
        vecmigrate.reembed(path, embedder, batch_size=4)

    assert 4 == next(calls)
    assert 4 == vectors(path)


@pytest.mark.parametrize("target", ["002", "001", "base"])
def test_pending_revisions_are_to_be_run_first(target: str, tmp_path: Path) -> None:
    """Below head nothing would keep the vectors true, so the command that goes up is named."""
    path = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(path, "000")
    if target == "base":
        vecmigrate.rollback(path, to_version="base")
    else:
        vecmigrate.upgrade(path, target)

    with pytest.raises(ModelError, match=target) as caught:
        vecmigrate.reembed(path, embed)

    assert caught.value.next_step.endswith("migrate")


def test_an_absent_database_is_not_made(tmp_path: Path) -> None:
    """It is an error, and no file is there afterwards."""
    with pytest.raises(DatabaseUnusableError):
        vecmigrate.reembed(tmp_path / "none.sqlite3", embed)

    assert [] == list(tmp_path.iterdir())


def test_no_model_at_all_is_told(path: Path) -> None:
    """Where the table is empty, there is nothing to make vectors of."""
    legacy.execute(path, "DELETE FROM embedding_models")

    with pytest.raises(ModelError, match="none is active"):
        vecmigrate.reembed(path, embed)


def test_a_database_in_memory_is_served_by_its_engine() -> None:
    """The Engine of a test of a service works as a file does."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    vecmigrate.ensure_current(engine, on_failure="raise")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO vector_store_chunks VALUES ('a', NULL, 'f', 1, 2, 'text')")

    assert 1 == vecmigrate.reembed(engine, embed).embedded
    engine.dispose()


def test_odd_texts_and_ids_get_a_vector(path: Path) -> None:
    """Empty texts, texts with a NUL, BLOBs, and text that is not UTF-8, whose unreadable part is replaced by a mark."""
    legacy.execute(
        path,
        "INSERT INTO vector_store_chunks VALUES ('', NULL, 'f', 1, 2, '')",
        "INSERT INTO vector_store_chunks VALUES (x'00ff', NULL, 'f', 1, 2, x'616263')",
        "INSERT INTO vector_store_chunks VALUES ('nul', NULL, 'f', 1, 2, 'a' || char(0) || 'b')",
        "INSERT INTO vector_store_chunks VALUES ('bad', NULL, 'f', 1, 2, CAST(x'61ff62' AS TEXT))",
        "INSERT INTO vector_store_chunks VALUES ('it''s', NULL, 'f', 1, 2, '100 % ?')",
    )
    texts: set[str] = set()

    def embedder(batch: list[str]) -> list[list[float]]:
        texts.update(batch)
        return embed(batch)

    assert (15, True) == ((done := vecmigrate.reembed(path, embedder)).embedded, done.swapped)
    assert {"", "abc", "a\0b", "a\ufffdb", "100 % ?"} <= texts


def test_a_chunk_without_an_id_holds_up_nothing(tmp_path: Path) -> None:
    """A TEXT PRIMARY KEY of SQLite admits NULL, of which no vector can be."""
    path = tmp_path / "service.sqlite3"
    legacy.execute(
        path,
        "CREATE TABLE vector_store_chunks (chunk_id TEXT PRIMARY KEY, vector_store_id TEXT, "
        "file_path TEXT NOT NULL, start_line INTEGER, end_line INTEGER, content TEXT NOT NULL)",
        "INSERT INTO vector_store_chunks VALUES (NULL, NULL, 'f', 1, 2, 'text'), ('a', NULL, 'f', 1, 2, 'text')",
    )
    vecmigrate.upgrade(path)

    assert (1, 0, True) == (
        (done := vecmigrate.reembed(path, embed)).embedded,
        done.remaining,
        done.swapped,
    )


def test_an_id_that_nobody_can_name_is_told(path: Path) -> None:
    """An id that is not UTF-8 cannot be asked for, so it ends with an error and not never."""
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES (CAST(x'61ff' AS TEXT), NULL, 'f', 1, 2, 'text')")

    with pytest.raises(ModelError, match="1 chunks"):
        reembed(access(path, lock_timeout=0.3), embed)

    assert 10 == vectors(path)


def test_the_keys_are_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch goes on where the one before ended, in pieces, so that twice as many chunks take twice as long."""
    monkeypatch.setattr(claims, "_LOOKED_AT", 7)

    def instructions(count: int) -> int:
        made = embedding.build(path.with_name(f"{count}.sqlite3"), count)
        counted = [0]

        def note() -> int:
            counted[0] += 1
            return 0

        connect = sqlite3.connect

        def counting(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*arguments, **options)
            connection.set_progress_handler(note, 10)
            return connection

        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", counting)
            assert count == vecmigrate.reembed(made, embed, batch_size=5).embedded
        return counted[0]

    assert instructions(800) < 2.6 * instructions(400)


def test_memory_is_bounded_by_the_batch(tmp_path: Path) -> None:
    """Ten times as many chunks need no more memory."""

    def peak(count: int) -> int:
        made = embedding.build(tmp_path / f"{count}.sqlite3", count)
        tracemalloc.start()
        vecmigrate.reembed(made, embed, batch_size=16)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(50)  # What is imported and compiled for the first time.
    few, many = peak(100), peak(1000)

    assert many < 1.3 * few + 300_000


def test_the_active_model_is_told_on_any_connection(place: Place) -> None:
    """A Connection of SQLAlchemy, a Session, and the driver's own, whatever its rows are like."""
    engine = sa.create_engine(
        place if isinstance(place, sa.URL) else sa.URL.create("sqlite", database=str(place)), poolclass=NullPool
    )
    with engine.connect() as connection, Session(connection) as session:
        driver: Any = connection.connection.driver_connection
        assert OLD == vecmigrate.active_model(connection)
        assert OLD == vecmigrate.active_model(session)
        assert OLD == vecmigrate.active_model(driver)
    vecmigrate.reembed(place, embed)
    with engine.connect() as connection:
        assert NEW == vecmigrate.active_model(connection)
    embedding.execute(place, "UPDATE embedding_models SET state = 'retired'")
    with engine.connect() as connection:
        assert None is vecmigrate.active_model(connection)


@pytest.mark.parametrize("factory", [sqlite3.Row, lambda cursor, row: dict(zip(cursor.description, row, strict=True))])
def test_the_active_model_is_told_whatever_the_rows_are_like(path: Path, factory: Any) -> None:
    """A service that makes rows of its own kind gets a name all the same."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = factory
        connection.text_factory = bytes
        assert OLD == vecmigrate.active_model(connection)


def test_the_way_back_is_at_once_and_forward_goes_on(place: Place) -> None:
    """A rollback in the middle keeps what was done, and a rollback after the swap makes the old model active."""
    vecmigrate.reembed(place, embed, limit=100)
    vecmigrate.rollback(place, to_version="001")
    assert OLD == embedding.query(place, "SELECT name FROM embedding_models WHERE state = 'active'")[0][0]
    vecmigrate.upgrade(place)

    done = vecmigrate.reembed(place, embed)
    assert (50, True) == (done.embedded, done.swapped)
    vecmigrate.rollback(place, to_version="001")
    assert [(OLD,)] == embedding.query(place, "SELECT name FROM embedding_models WHERE state = 'active'")
    assert CHUNKS == vectors(place) == vectors(place, OLD)


def test_workers_share_the_chunks(place: Place) -> None:
    """What one has claimed another one leaves alone, and takes over when the lease has run out, or is none."""
    turns = Turns(access(place).database, lock_timeout=5)
    ids = [f"c{number:07d}" for number in range(4)]

    def take(worker: str, lease: float = 60.0) -> list[str]:
        with turns.writing() as connection:
            return [chunk for chunk, _ in claims.take(connection, NEW, worker, ids, lease=lease)]

    def free(worker: str) -> list[str]:
        with turns.reading() as connection:
            return claims.candidates(connection, NEW, worker, after=None, limit=4)[0]

    assert ids == take("one")
    assert [] == take("two")
    assert ids == free("one")
    assert [f"c{number:07d}" for number in range(4, 8)] == free("two")
    embedding.execute(place, "UPDATE vecmigrate_claims SET until = 1")
    assert ids == take("two")
    # A claim that a clock of the future has written would last for years.
    embedding.execute(place, "UPDATE vecmigrate_claims SET until = until + 1e9")
    assert ids == take("three")
    with turns:
        pass


def test_a_late_batch_is_not_written(place: Place) -> None:
    """A worker whose claims somebody else has taken over writes nothing, and gives up only its own."""
    texts = [(f"c{number:07d}", text_of(number)) for number in range(4)]
    ready = [embedding.packed(text) for _, text in texts]
    with Turns(access(place).database, lock_timeout=5) as turns:
        with turns.writing() as connection:
            assert texts == claims.take(connection, NEW, "late", [chunk for chunk, _ in texts], lease=60)
        embedding.execute(place, "UPDATE vecmigrate_claims SET until = 1 WHERE chunk_id < 'c0000002'")
        with turns.writing() as connection:
            claims.take(connection, NEW, "other", ["c0000000", "c0000001"], lease=60)
        with turns.writing() as connection:
            assert 2 == claims.put(connection, NEW, "late", texts, ready)
        with turns.reading() as connection:
            assert claims.of_others(connection, NEW, "late")

    assert [("other",), ("other",)] == embedding.query(place, "SELECT worker FROM vecmigrate_claims")
    written = embedding.query(place, f"SELECT chunk_id FROM vector_store_embeddings WHERE model = '{NEW}' ORDER BY 1")
    assert [("c0000002",), ("c0000003",)] == written


def test_a_vector_that_the_service_wrote_first_stays(place: Place) -> None:
    """A service that writes new chunks with both models is not in the way, and its vector is not replaced."""
    wrote = embedding.packed(text_of(1))

    def embedder(texts: list[str]) -> list[list[float]]:
        add = f"INSERT INTO vector_store_embeddings VALUES ('{NEW}', 'c0000001', :vector)"
        if not vectors(place):
            embedding.execute(place, add, vector=wrote)
        return [[each + 1 for each in found] for found in embed(texts)]

    assert (0, True) == ((done := vecmigrate.reembed(place, embedder)).remaining, done.swapped)
    found = f"SELECT vector FROM vector_store_embeddings WHERE model = '{NEW}' AND chunk_id = 'c0000001'"
    assert wrote == bytes(embedding.query(place, found)[0][0])


def test_a_change_that_is_under_way_is_not_waited_for(postgresql: sa.URL) -> None:
    """On PostgreSQL a chunk that an open transaction changes is left out, and comes again."""
    embedding.build_on_server(postgresql, 5)
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE vector_store_chunks SET content = 'other' WHERE chunk_id = 'c0000002'")
        done = reembed(access(postgresql), embed, limit=4)
        connection.commit()

    assert (4, 1) == (done.embedded, done.remaining)
    assert vecmigrate.reembed(postgresql, embed).swapped
    assert [] == untrue(postgresql)


def test_the_swap_waits_shortly_for_who_changes_chunks(postgresql: sa.URL) -> None:
    """On PostgreSQL it gives way again and again, so that no writer has to queue behind it, and ends at the timeout."""
    embedding.build_on_server(postgresql, 5)
    vecmigrate.reembed(postgresql, embed, swap=False)
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE vector_store_chunks SET start_line = 2")
        with pytest.raises(LockTimeoutError):
            reembed(access(postgresql, lock_timeout=0.2), embed)
        connection.rollback()

    assert vecmigrate.reembed(postgresql, embed).swapped
