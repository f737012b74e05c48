"""Embedding models: which one is being built, and how much of it is missing."""

from typing import Any

from sqlalchemy import Connection, exists, func, select

from vecmigrate.catalog import table_names
from vecmigrate.schema import metadata

__all__ = ["remaining"]

_MODELS = metadata.tables["embedding_models"]
_CHUNKS = metadata.tables["vector_store_chunks"]
_EMBEDDINGS = metadata.tables["vector_store_embeddings"]


def remaining(connection: Connection) -> dict[str, Any] | None:
    """Return the model being built and the number of chunks without a vector of it, else None. Read-only."""
    if not {_MODELS.name, _CHUNKS.name, _EMBEDDINGS.name} <= table_names(connection):
        return None
    model = connection.scalar(select(_MODELS.c.name).where(_MODELS.c.state == "building"))
    if model is None:
        return None
    has_vector = exists().where(_EMBEDDINGS.c.model == model, _EMBEDDINGS.c.chunk_id == _CHUNKS.c.chunk_id)
    missing = connection.scalar(select(func.count()).select_from(_CHUNKS).where(~has_vector))
    return {"model": model, "remaining": missing}
