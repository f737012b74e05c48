"""The change of the embedding model with a model that knows what texts mean."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import embedding
import vecmigrate
from doors import run_cli
from embedding import NEW, OLD, STATES, SWAPPED
from real_model import embed

TEXTS = {
    "bread": "A recipe for bread: knead the dough and bake it in a hot oven.",
    "orbit": "The rocket carries a satellite into orbit around the planet.",
    "tax": "Citizens pay their income tax to the government every year.",
    "lock": "Another process holds the lock of the database, so the transaction waits.",
}
QUESTIONS = {
    "how do I bake a cake": "bread",
    "spacecraft launch": "orbit",
    "money owed to the state": "tax",
    "concurrent writers of a table": "lock",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a database with these texts, and no vector of the model being built."""
    path = embedding.build(tmp_path / "service.sqlite3", 0)
    vecmigrate.rollback(path, to_version="001")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO vector_store_chunks VALUES (?, NULL, 'f.txt', 1, 1, ?)", TEXTS.items())
    vecmigrate.upgrade(path)
    return path


def nearest(path: Path, question: str) -> str:
    """Return the chunk that the active model finds for a question, as a service does."""
    with closing(sqlite3.connect(path)) as connection:
        model = vecmigrate.active_model(connection)
        query = "SELECT chunk_id, vector FROM vector_store_embeddings WHERE model = ?"
        names, vectors = zip(*connection.execute(query, (model,)), strict=True)
    found = np.stack([np.frombuffer(each, dtype="<f4") for each in vectors])
    return str(names[int(np.argmax(found @ embed([question])[0]))])


def test_the_new_model_finds_what_is_meant(path: Path) -> None:
    """Its true dimensions are recorded, the models swap, and each question finds the text about it."""
    words = ("--db-path", path, "reembed", "--embedder", "real_model:embed")
    refused = run_cli(*words)
    assert 1 == refused.code
    assert "--dimensions 256" in refused.err

    done = run_cli(*words, "--dimensions", "256", "--json").document

    assert (len(TEXTS), 0, 256, True) == tuple(
        done[each] for each in ("embedded", "remaining", "dimensions", "swapped")
    )
    assert SWAPPED == embedding.query(path, STATES)
    assert QUESTIONS == {question: nearest(path, question) for question in QUESTIONS}


def test_the_way_back_and_forward_keeps_its_vectors(path: Path) -> None:
    """The old model is active at once; forward again there is nothing left to embed."""
    vecmigrate.reembed(path, embed, dimensions=256)
    before = embedding.query(path, "SELECT * FROM vector_store_embeddings ORDER BY chunk_id")

    vecmigrate.rollback(path, to_version="001")
    assert [(OLD,)] == embedding.query(path, "SELECT name FROM embedding_models WHERE state = 'active'")
    vecmigrate.upgrade(path)

    assert [(NEW,)] == embedding.query(path, "SELECT name FROM embedding_models WHERE state = 'active'")
    assert before == embedding.query(path, "SELECT * FROM vector_store_embeddings ORDER BY chunk_id")
    assert QUESTIONS == {question: nearest(path, question) for question in QUESTIONS}
