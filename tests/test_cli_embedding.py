"""What an operator sees of embedding models: listed, made, activated and purged on the command line."""

import contextlib
import re
import sqlite3
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

import embedding
import legacy
import vecmigrate
from doors import Result, run_cli
from embedding import NEW, NOT_SWAPPED, OLD, STATES, SWAPPED, embed, untrue, vectors
from vecmigrate.embedding import inventory, tries

CHUNKS = 20
_EMBEDDERS = """
import embedding
from embedding import embed

calls = 0

def second(fault):
    def embedder(texts):
        global calls
        calls += 1
        return embed(texts) if calls == 1 else fault(texts)
    return embedder

def fail(texts):
    raise RuntimeError("the secret " + texts[0])

few = second(lambda texts: embed(texts)[1:])
nan = second(lambda texts: [[float("nan")] * 768 for _ in texts])
zeros = second(lambda texts: [[0.0] * 768 for _ in texts])
short = second(lambda texts: [each[:384] for each in embed(texts)])
same = second(lambda texts: [embedding.vector("one")] * len(texts))
words = second(lambda texts: "vectors")
raising = second(fail)
"""

Place = sa.URL | Path


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a database of each kind with chunks that lack a vector of the model that is being built."""
    if request.param == "sqlite":
        return embedding.build(tmp_path / "service.sqlite3", CHUNKS)
    return embedding.build_on_server(request.getfixturevalue("postgresql"), CHUNKS)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an SQLite database, in the current folder with a module of embedders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tries, "PAUSES", (0.0, 0.0))
    # Of another test, and another folder.
    monkeypatch.delitem(sys.modules, "its_embedders", raising=False)
    monkeypatch.delitem(sys.modules, "short_embedder", raising=False)
    (tmp_path / "its_embedders.py").write_text(_EMBEDDERS, encoding="utf-8")
    return embedding.build(tmp_path / "service.sqlite3", CHUNKS)


def run(place: Place, *words: str) -> Result:
    if isinstance(place, Path):
        return run_cli("--db-path", place, *words)
    return run_cli("--database-url", place.render_as_string(hide_password=False), *words)


def state(path: Path) -> object:
    return legacy.rows(path, "embedding_models"), legacy.rows(path, "vector_store_embeddings")


def test_every_model_is_listed_with_what_it_lacks(place: Place) -> None:
    """The active one first, with its vectors, the chunks that have none, and the bytes."""
    vecmigrate.reembed(place, embed, limit=5)

    found = run(place, "embeddings", "list", "--json").document

    keys = ("name", "dimensions", "state", "vectors", "missing", "bytes")
    assert CHUNKS == found["chunks"]
    assert [(OLD, 384, "active", 20, 0, 20 * 4 * 384), (NEW, 768, "building", 5, 15, 5 * 4 * 768)] == [
        tuple(each[key] for key in keys) for each in found["models"]
    ]
    assert re.search(rf"{NEW} +building +768 +5 +15 +15,360", run(place, "embeddings", "list").out)


def test_an_incomplete_model_is_not_activated(place: Place) -> None:
    """It would not find every chunk: exit 1 with the number, and the old one goes on serving."""
    vecmigrate.reembed(place, embed, limit=5)

    refused = run(place, "embeddings", "activate", NEW)

    assert (1, "") == (refused.code, refused.out)
    assert f"15 chunks have no vector of {NEW}" in refused.err
    assert "reembed --embedder" in refused.err
    assert NOT_SWAPPED == embedding.query(place, STATES)


def test_a_complete_model_is_activated_by_hand_and_the_other_one_again(place: Place) -> None:
    """Reembed --no-swap leaves it to the operator, and the way back is the same command."""
    vecmigrate.reembed(place, embed, swap=False)
    assert NOT_SWAPPED == embedding.query(place, STATES)

    assert {"active": NEW} == run(place, "embeddings", "activate", NEW, "--json").document
    assert SWAPPED == embedding.query(place, STATES)
    assert 0 == run(place, "embeddings", "activate", NEW).code
    assert SWAPPED == embedding.query(place, STATES)
    assert 0 == run(place, "embeddings", "activate", OLD).code
    assert [(OLD, "active"), (NEW, "retired")] == embedding.query(place, STATES)


def test_a_model_that_is_not_there_is_told(path: Path) -> None:
    """By activate and by purge, with exit 1 and a next command."""
    before = state(path)
    for words in (["activate", "nosuch"], ["purge", "nosuch", "--yes"]):
        result = run(path, "embeddings", *words, "--json")
        assert (1, "ModelError") == (result.code, result.document["error"]["type"])
        assert "embeddings list" in result.document["error"]["next"]
    assert before == state(path)


def test_only_vectors_of_retired_models_are_purged(place: Place) -> None:
    """And only where --yes is given; then a thousand at a time, and the model stays."""
    assert "No model is retired" in run(place, "embeddings", "purge", "--yes").out
    for model in (OLD, NEW):
        assert 1 == run(place, "embeddings", "purge", model, "--yes").code
    vecmigrate.reembed(place, embed)
    assert 2 == run(place, "embeddings", "purge").code
    assert CHUNKS == vectors(place, OLD)

    assert {"purged": {OLD: CHUNKS}} == run(place, "embeddings", "purge", "--yes", "--json").document

    assert (0, CHUNKS) == (vectors(place, OLD), vectors(place))
    assert SWAPPED == embedding.query(place, STATES)


def test_a_purge_that_is_stopped_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is a transaction of its own, between two of which others may write."""
    vecmigrate.reembed(path, embed)
    monkeypatch.setattr(inventory, "_BATCH", 6)
    told: list[int] = []

    def stop(_name: str, count: int) -> None:
        told.append(count)
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inventory.purge(embedding.access(path), on_progress=stop)

    assert [6, 12] == told
    assert CHUNKS - 12 == vectors(path, OLD)
    assert {"purged": {OLD: CHUNKS - 12}} == run(path, "embeddings", "purge", "--yes", "--json").document
    assert CHUNKS == vectors(path)


@pytest.mark.parametrize(
    ("embedder", "told"),
    [
        ("few", "returned 4 vectors for 5 texts"),
        ("nan", "NaN or an infinity"),
        ("zeros", "zeros alone"),
        ("short", "this is another model"),
        ("same", "the same vector for 5 different texts"),
        ("words", "no sequence of vectors"),
        ("raising", "raised RuntimeError, also when it was asked again"),
    ],
)
def test_an_embedder_that_goes_wrong_ends_it_with_what_was_done(embedder: str, told: str, path: Path) -> None:
    """Exit 1 with why and what to do; the batches before are kept, and of this one nothing is written."""
    result = run(path, "reembed", "--embedder", f"its_embedders:{embedder}", "--batch-size", "5")

    assert (1, "") == (result.code, result.out)
    assert told in result.err
    assert "Next: " in result.err
    assert "secret" not in result.err
    assert "Traceback" not in result.err
    assert 5 == vectors(path)
    assert [] == untrue(path)
    assert [] == legacy.rows(path, "vecmigrate_claims")
    assert NOT_SWAPPED == embedding.query(path, STATES)
    assert {"model": NEW, "remaining": 15} == run(path, "status", "--json").document["reembed"]

    done = run(path, "reembed", "--embedder", "embedding:embed", "--json")
    assert (15, True) == (done.document["embedded"], done.document["swapped"])


def test_other_dimensions_are_recorded_when_they_are_named(path: Path) -> None:
    """The error of the first batch names the option, and that records what the vectors really have."""
    (path.parent / "short_embedder.py").write_text(
        "import embedding\ndef embed(texts):\n    return [embedding.vector(each, 1024) for each in texts]\n", "utf-8"
    )
    words = ("reembed", "--embedder", "short_embedder:embed")

    refused = run(path, *words)

    assert 1 == refused.code
    assert "Next: if 1024 are right, run the same command with --dimensions 1024" in refused.err
    assert [(768,)] == legacy.query(path, f"SELECT dimensions FROM embedding_models WHERE name = '{NEW}'")
    assert 1024 == run(path, *words, "--dimensions", "1024", "--json").document["dimensions"]
    assert [(1024,)] == legacy.query(path, f"SELECT dimensions FROM embedding_models WHERE name = '{NEW}'")
    assert SWAPPED == embedding.query(path, STATES)


def test_progress_goes_to_stderr_unless_it_is_quiet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no terminal is, a line now and then with rate and time left; standard output has the document alone."""
    from vecmigrate.cli import bars  # noqa: PLC0415 - only this test looks into it

    monkeypatch.setattr(bars, "_SECONDS_OF_A_LINE", 0.0)
    words = ("reembed", "--embedder", "embedding:embed", "--batch-size", "5", "--json", "--limit", "10")

    shown = run(path, *words)
    quiet = run_cli("--db-path", path, "-q", *words)

    lines = shown.err.splitlines()
    assert 2 == len(lines), shown.err
    assert re.match(r"Embedding 5 of \d+ chunks, [\d,.]+ a second, \d s left$", lines[0])
    assert (10, 10) == (shown.document["embedded"], shown.document["remaining"])
    assert "" == quiet.err
    assert 0 == quiet.document["remaining"]


@pytest.mark.parametrize("words", [("list",), ("activate", NEW), ("purge", "--yes")], ids=["list", "activate", "purge"])
def test_a_database_without_models_leads_to_migrate(words: tuple[str, ...], tmp_path: Path) -> None:
    """One that was never migrated is told as such, and none is made."""
    path = tmp_path / "service.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sessions (id)")
    before = path.read_bytes()

    result = run(path, "embeddings", *words)

    assert 1 == result.code
    assert result.err.rstrip().endswith(f"--db-path {path} migrate")
    assert before == path.read_bytes()
