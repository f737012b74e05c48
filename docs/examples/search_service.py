"""A service that searches chunks by their vectors, and goes on while another process changes the embedding model.

Needs nothing but vecmigrate. Run it: ``python search_service.py sessions.sqlite3 my_embedders:EMBEDDERS "a question"``
"""

import importlib
import math
import sqlite3
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import vecmigrate

Embed = Callable[[list[str]], Sequence[Sequence[float]]]

_VECTORS = """
    SELECT c.chunk_id, e.vector FROM vector_store_chunks AS c
    JOIN vector_store_embeddings AS e ON e.chunk_id = c.chunk_id AND e.model = ?
"""
_TEXT = "SELECT content FROM vector_store_chunks WHERE chunk_id = ?"
_MODELS = "SELECT name FROM embedding_models WHERE state IN ('active', 'building')"
_PUT_CHUNK = """
    INSERT INTO vector_store_chunks (chunk_id, file_path, content) VALUES (?, ?, ?)
    ON CONFLICT (chunk_id) DO UPDATE SET file_path = excluded.file_path, content = excluded.content
"""
_PUT_VECTOR = "INSERT OR REPLACE INTO vector_store_embeddings (model, chunk_id, vector) VALUES (?, ?, ?)"


class SearchService:
    """Searches with the model that is active, whichever that is; has an embedder for each model that it may be."""

    def __init__(self, database: Path, embedders: Mapping[str, Embed]) -> None:
        vecmigrate.ensure_current(database, on_failure="raise")
        self._database = database
        self._embedders = embedders

    def search(self, question: str, limit: int = 5) -> list[tuple[str, float]]:
        """Return the ids of the chunks that are nearest to a question, each with its cosine, best first."""
        with closing(self._connect()) as connection:
            # One transaction, so that model and vectors belong together whenever the models swap.
            connection.execute("BEGIN")
            model = vecmigrate.active_model(connection)
            if model is None:
                return []
            wanted = array("f", self._embedders[model]([question])[0])
            scored = [(chunk, _cosine(wanted, vector)) for chunk, vector in connection.execute(_VECTORS, (model,))]
        return sorted(scored, key=lambda each: -each[1])[:limit]

    def put(self, chunk: str, file_path: str, text: str) -> None:
        """Write a chunk, and its vector of each model that is searched now or will be."""
        with closing(self._connect()) as connection:
            known = [name for (name,) in connection.execute(_MODELS) if name in self._embedders]
            # Before the transaction: nobody else can write while it is open.
            vectors = {name: array("f", self._embedders[name]([text])[0]) for name in known}
            connection.execute("BEGIN IMMEDIATE")
            # The chunk first, because a trigger takes away what there is of the text before.
            connection.execute(_PUT_CHUNK, (chunk, file_path, text))
            for name, vector in vectors.items():
                connection.execute(_PUT_VECTOR, (name, chunk, _bytes(vector)))
            connection.execute("COMMIT")

    def text(self, chunk: str) -> str:
        with closing(self._connect()) as connection:
            return str(connection.execute(_TEXT, (chunk,)).fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._database, timeout=30, isolation_level=None)


def _bytes(vector: "array[float]") -> bytes:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return vector.tobytes()


def _cosine(one: "array[float]", stored: bytes) -> float:
    other = array("f", stored)
    if sys.byteorder == "big":
        other.byteswap()
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))


if __name__ == "__main__":
    module, _, name = sys.argv[2].partition(":")
    service = SearchService(Path(sys.argv[1]), getattr(importlib.import_module(module), name))
    for found, cosine in service.search(sys.argv[3]):
        print(f"{cosine:.3f} {found}: {service.text(found)}")  # noqa: T201 - this is its answer
