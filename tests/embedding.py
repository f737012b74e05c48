"""Databases in the middle of a change of models, embedders without a model, and what must be true of vectors."""

import hashlib
import sqlite3
import struct
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import legacy
import vecmigrate
from vecmigrate import settings
from vecmigrate.access import Access

OLD = "sentence-transformers/all-MiniLM-L6-v2"
NEW = "Salesforce/SFR-Embedding-Code-400M_R"
STATES = "SELECT name, state FROM embedding_models ORDER BY state"
SWAPPED = [(NEW, "active"), (OLD, "retired")]
NOT_SWAPPED = [(OLD, "active"), (NEW, "building")]


def vector(text: str, dimensions: int = 768) -> list[float]:
    """Return the vector of a text: numbers that are exact in float32, and differ from those of any other text."""
    digest = hashlib.sha256(text.encode()).digest()
    return [1.0 + each for each in digest * (dimensions // 32)]


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Embed by nothing but the text: 768 dimensions."""
    return [vector(text) for text in texts]


def packed(text: str, dimensions: int = 768) -> bytes:
    return struct.pack(f"<{dimensions}f", *vector(text, dimensions))


def text_of(number: int, version: int = 0) -> str:
    return f"def function_{number}(): return {version}"


def build(path: Path, chunks: int, *, mode: str = "wal") -> Path:
    """Make a database at head with chunks that have a vector of the old model, and none of the one being built."""
    url = sa.URL.create("sqlite", database=str(path))
    vecmigrate.upgrade(url, "001", backup="never")
    with legacy.opened(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("BEGIN")
        add_chunks(connection, range(chunks))
        connection.execute("COMMIT")
    vecmigrate.upgrade(url, backup="never")
    return path


def add_chunks(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    for number in numbers:
        row = (f"c{number:07d}", f"f{number}.py", text_of(number))
        connection.execute("INSERT INTO vector_store_chunks VALUES (?, 'vs', ?, 1, 9, ?)", row)
        vectors = (OLD, row[0], packed(row[2], 384))
        connection.execute("INSERT INTO vector_store_embeddings VALUES (?, ?, ?)", vectors)


def build_on_server(url: sa.URL, chunks: int) -> sa.URL:
    """Make the same on PostgreSQL."""
    vecmigrate.upgrade(url, "001")
    rows = [{"id": f"c{n:07d}", "text": text_of(n), "vector": packed(text_of(n), 384)} for n in range(chunks)]
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO vector_store_chunks VALUES (:id, 'vs', 'f.py', 1, 9, :text)"), rows)
        add = f"INSERT INTO vector_store_embeddings VALUES ('{OLD}', :id, :vector)"
        connection.execute(sa.text(add), rows)
    vecmigrate.upgrade(url)
    return url


def query(url: sa.URL | Path, statement: str, **values: object) -> list[tuple[Any, ...]]:
    """Read from a file or a server."""
    named = sa.URL.create("sqlite", database=str(url)) if isinstance(url, Path) else url
    engine = sa.create_engine(named, poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), values)]


def execute(url: sa.URL | Path, *statements: str, **values: object) -> None:
    """Write to a file or a server, in one transaction."""
    named = sa.URL.create("sqlite", database=str(url)) if isinstance(url, Path) else url
    engine = sa.create_engine(named, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement), values)


def untrue(url: sa.URL | Path, model: str = NEW) -> list[str]:
    """Return the chunks with a vector of another text than the one that stands in them, and vectors without a chunk."""
    rows = query(
        url,
        "SELECT e.chunk_id, c.content, e.vector FROM vector_store_embeddings AS e "
        "LEFT JOIN vector_store_chunks AS c ON c.chunk_id = e.chunk_id WHERE e.model = :model",
        model=model,
    )
    return [chunk for chunk, text, found in rows if text is None or bytes(found) != packed(text)]


def vectors(url: sa.URL | Path, model: str = NEW) -> int:
    found = query(url, "SELECT count(*) FROM vector_store_embeddings WHERE model = :model", model=model)
    return int(found[0][0])


def access(url: sa.URL | Path, **arguments: Any) -> Access:
    return Access(settings.resolve({"database_url": url} | arguments, {}))


def as_doubles(texts: Sequence[str]) -> list["array[float]"]:
    return [array("d", vector(text)) for text in texts]
