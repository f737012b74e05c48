"""The embedding models of a database: their states, and how many chunks lack a vector of each."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Subquery, delete, except_, func, literal, select, update

from vecmigrate.catalog import table_names
from vecmigrate.errors import ModelError
from vecmigrate.locks import freeze
from vecmigrate.schema import CLAIMS, metadata

__all__ = [
    "CHUNKS",
    "EMBEDDINGS",
    "TABLES",
    "Model",
    "activate",
    "count_of_chunks",
    "count_of_vectors",
    "find",
    "has_vectors",
    "is_complete",
    "missing",
    "models",
    "purge_range",
    "record_dimensions",
    "remaining",
    "require_retired",
    "states",
    "target",
]

_MODELS = metadata.tables["embedding_models"]
CHUNKS = metadata.tables["vector_store_chunks"]
EMBEDDINGS = metadata.tables["vector_store_embeddings"]
TABLES = {_MODELS.name, CHUNKS.name, EMBEDDINGS.name}
_ALL = select(_MODELS.c.name, _MODELS.c.dimensions, _MODELS.c.state, _MODELS.c.activated_at)


@dataclass(frozen=True)
class Model:
    """An embedding model. ``state`` is active, building or retired, ``activated_at`` in Unix seconds."""

    name: str
    dimensions: int
    state: str
    activated_at: int | None


def models(connection: Connection) -> list[Model]:
    """Return every model, the active one first, then the one being built. Read-only."""
    found = [Model(*row) for row in connection.execute(_ALL)]
    return sorted(found, key=lambda model: (model.state, model.name))


def find(connection: Connection, name: str) -> Model | None:
    """Return a model by its name. Read-only."""
    return next((model for model in models(connection) if model.name == name), None)


def target(connection: Connection) -> Model | None:
    """Return the model that vectors are to be made of: the one being built, else the active one. Read-only."""
    by_state = {model.state: model for model in models(connection)}
    return by_state.get("building") or by_state.get("active")


def remaining(connection: Connection) -> dict[str, Any] | None:
    """Return the model being built and the number of chunks without a vector of it, else None. Read-only."""
    if not table_names(connection) >= TABLES:
        return None
    model = connection.scalar(select(_MODELS.c.name).where(_MODELS.c.state == "building"))
    return None if model is None else {"model": model, "remaining": missing(connection, model)}


def states(connection: Connection) -> dict[str, str | None] | None:
    """Return the names of the active model and of the one being built; None without their table. Read-only."""
    if not table_names(connection) >= TABLES:
        return None
    found = {state: name for name, _, state, _ in connection.execute(_ALL)}
    return {state: found.get(state) for state in ("active", "building")}


def _without_vector(model: str) -> Subquery:
    """Select the chunks that lack a vector of a model.

    Both keys are read once in their order and compared, because to look up a million one by one takes three times
    as long. A chunk without an id can have no vector.
    """
    all_chunks = select(CHUNKS.c.chunk_id).where(CHUNKS.c.chunk_id.is_not(None))
    embedded = select(EMBEDDINGS.c.chunk_id).where(EMBEDDINGS.c.model == model)
    return except_(all_chunks, embedded).order_by("chunk_id").subquery()


def missing(connection: Connection, model: str) -> int:
    """Return how many chunks lack a vector of a model. Read-only."""
    return int(connection.scalar(select(func.count()).select_from(_without_vector(model))) or 0)


def is_complete(connection: Connection, model: str) -> bool:
    """Tell whether every chunk has a vector of a model. Read-only."""
    return connection.scalar(select(literal(1)).select_from(_without_vector(model)).limit(1)) is None


def has_vectors(connection: Connection, model: str) -> bool:
    return connection.scalar(select(EMBEDDINGS.c.model).where(EMBEDDINGS.c.model == model).limit(1)) is not None


def count_of_vectors(connection: Connection, model: str) -> int:
    counted = select(func.count()).select_from(EMBEDDINGS).where(EMBEDDINGS.c.model == model)
    return int(connection.scalar(counted) or 0)


def count_of_chunks(connection: Connection) -> int:
    return int(connection.scalar(select(func.count()).select_from(CHUNKS)) or 0)


def record_dimensions(connection: Connection, model: str, dimensions: int) -> None:
    """Record what a model's vectors really have. Writes."""
    connection.execute(update(_MODELS).where(_MODELS.c.name == model).values(dimensions=dimensions))


def activate(connection: Connection, name: str) -> bool:
    """Make a model the active one and retire the one before, in the caller's transaction. Writes.

    Nobody changes chunks until its end. Return False, with nothing written, where a chunk lacks a vector of it.
    Raises ModelError for a model that there is not.
    """
    freeze(connection, CHUNKS.name)
    if find(connection, name) is None:
        raise ModelError(
            f"There is no embedding model {name}. Nothing was changed.",
            next_step="vecmigrate embeddings list, with the options that name the database",
        )
    if not is_complete(connection, name):
        return False
    others = (_MODELS.c.state == "active") & (_MODELS.c.name != name)
    connection.execute(update(_MODELS).where(others).values(state="retired"))
    is_new = (_MODELS.c.name == name) & (_MODELS.c.state != "active")
    connection.execute(update(_MODELS).where(is_new).values(state="active", activated_at=int(time.time())))
    connection.execute(delete(CLAIMS).where(CLAIMS.c.model == name))
    return True


def require_retired(connection: Connection, model: str) -> None:
    """Raise ModelError for a model whose vectors are not to be dropped. Read-only."""
    found = find(connection, model)
    if found is None or found.state != "retired":
        what = f"is {found.state}" if found else "is not there"
        raise ModelError(
            f"The embedding model {model} {what}, and only vectors of retired models are dropped.",
            next_step="vecmigrate embeddings list, with the options that name the database",
        )


def purge_range(connection: Connection, model: str, after: str | None, limit: int) -> tuple[int, str | None]:
    """Delete so many vectors of a retired model, after a chunk id in the order of the key. Writes.

    Return how many, and the last id, None at the end. Raises ModelError for a model that is not retired.
    """
    require_retired(connection, model)
    mine: ColumnElement[bool] = EMBEDDINGS.c.model == model
    if after is not None:
        mine &= EMBEDDINGS.c.chunk_id > after
    keys = select(EMBEDDINGS.c.chunk_id).where(mine).order_by(EMBEDDINGS.c.chunk_id)
    last = connection.scalar(keys.offset(limit - 1).limit(1))
    if last is not None:
        mine &= EMBEDDINGS.c.chunk_id <= last
    return connection.execute(delete(EMBEDDINGS).where(mine)).rowcount, last
