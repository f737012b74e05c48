"""Who is embedding which chunk, so that several workers share the work: claims with a lease.

Whether a vector is written is never decided by a clock: a worker writes what it still has a claim on. The clock only
decides when a claim of somebody else may be taken over.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam, delete, except_, func, select

from vecmigrate.catalog import any_text, as_text, execute_many
from vecmigrate.embedding.models import CHUNKS, EMBEDDINGS
from vecmigrate.schema import CLAIMS

__all__ = ["LONGEST", "SHORTEST", "candidates", "missing", "of_others", "put", "release", "take"]

SHORTEST = 60.0
LONGEST = 900.0
"""The bounds of a lease, in seconds. What claims to last longer was written by another clock, and is no claim."""

_LOOKED_AT = 10_000
"""So many keys are looked at in one transaction: a reader that looks at a million holds up writers in the meantime."""

# Statements are made once, because to make one costs SQLAlchemy more than to run it.
_model: BindParameter[str] = bindparam("model")
_worker: BindParameter[str] = bindparam("worker")
_IS_LIVE = CLAIMS.c.until.between(bindparam("now"), bindparam("latest"))
_OF_OTHERS = select(CLAIMS.c.chunk_id).where(CLAIMS.c.model == _model, CLAIMS.c.worker != _worker, _IS_LIVE)
_EMBEDDED = select(EMBEDDINGS.c.model).where(EMBEDDINGS.c.model == _model, EMBEDDINGS.c.chunk_id == CHUNKS.c.chunk_id)
_IN_ORDER = select(CHUNKS.c.chunk_id).where(CHUNKS.c.chunk_id.is_not(None)).order_by(CHUNKS.c.chunk_id)
_TEXTS = select(CHUNKS.c.chunk_id, CHUNKS.c.content).order_by(CHUNKS.c.chunk_id)
# What somebody is changing right now is left out, because to wait for him may be to wait for each other.
_LOCKED = _TEXTS.with_for_update(skip_locked=True, key_share=True, of=CHUNKS)
_FREE = _LOCKED.where(CHUNKS.c.chunk_id.in_(bindparam("ids", expanding=True)), ~_EMBEDDED.exists())
_CLAIMED = _LOCKED.join(CLAIMS, CLAIMS.c.chunk_id == CHUNKS.c.chunk_id).where(
    CLAIMS.c.model == _model, CLAIMS.c.worker == _worker
)
_RELEASE = delete(CLAIMS).where(CLAIMS.c.model == _model, CLAIMS.c.worker == _worker)
_CLAIM = (
    "INSERT INTO vecmigrate_claims (model, chunk_id, worker, until) VALUES (?, ?, ?, ?) "
    # One that is there still is one whose lease has run out.
    "ON CONFLICT (model, chunk_id) DO UPDATE SET worker = excluded.worker, until = excluded.until"
)
_NOW = select(func.current_timestamp())
_ADD = (
    "INSERT INTO vector_store_embeddings (model, chunk_id, vector) VALUES (?, ?, ?)"
    # A service that writes with both models may have been faster.
    " ON CONFLICT DO NOTHING"
)


def _candidates(*, is_first: bool, is_last: bool) -> Select[Any]:
    theirs = _OF_OTHERS.where(CLAIMS.c.chunk_id == CHUNKS.c.chunk_id)
    query = _IN_ORDER.where(~_EMBEDDED.exists(), ~theirs.exists()).limit(bindparam("limit"))
    query = query if is_first else query.where(CHUNKS.c.chunk_id > bindparam("after"))
    return query if is_last else query.where(CHUNKS.c.chunk_id <= bindparam("last"))


_CANDIDATES = {
    (first, last): _candidates(is_first=first, is_last=last) for first in (True, False) for last in (True, False)
}
# As in models.missing, both keys are read in their order.
_MISSING = (
    except_(
        select(CHUNKS.c.chunk_id).where(CHUNKS.c.chunk_id.is_not(None)),
        select(EMBEDDINGS.c.chunk_id).where(EMBEDDINGS.c.model == _model),
        select(CLAIMS.c.chunk_id).where(CLAIMS.c.model == _model, _IS_LIVE),
    )
    .order_by("chunk_id")
    .limit(bindparam("limit"))
)
_LAST: dict[bool, Select[Any]] = {
    True: _IN_ORDER.limit(1).offset(bindparam("skipped")),
    False: _IN_ORDER.where(CHUNKS.c.chunk_id > bindparam("after")).limit(1).offset(bindparam("skipped")),
}


def _live(connection: Connection) -> dict[str, float]:
    """Return between what times a lease runs, by the clock of the database, which all workers share."""
    found: datetime = connection.execute(_NOW).scalar_one()
    now = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return {"now": now, "latest": now + LONGEST}


def of_others(connection: Connection, model: str, worker: str) -> bool:
    """Tell whether another worker has a claim whose lease runs. Read-only."""
    values = {"model": model, "worker": worker, **_live(connection)}
    return connection.execute(_OF_OTHERS, values).first() is not None


def candidates(
    connection: Connection, model: str, worker: str, *, after: str | None, limit: int
) -> tuple[list[str], str | None]:
    """Return ids of chunks after one, in the order of the key, that have no vector and that nobody else has claimed.

    Looks at a bounded number of chunks. Return also where to go on, None at the end. Read-only.
    """
    is_first = after is None
    values = {"model": model, "worker": worker, "after": after, "limit": limit, **_live(connection)}
    with any_text(connection):
        last = connection.scalar(_LAST[is_first], {"after": after, "skipped": _LOOKED_AT - 1})
        query = _CANDIDATES[is_first, last is None]
        ids = list(connection.scalars(query, values | {"last": last}))
    return ids, ids[-1] if len(ids) == limit else last


def missing(connection: Connection, model: str, *, limit: int) -> list[str]:
    """Return ids of chunks that have no vector and that nobody has claimed, also not this worker. Read-only."""
    with any_text(connection):
        return list(connection.scalars(_MISSING, {"model": model, "limit": limit, **_live(connection)}))


def take(connection: Connection, model: str, worker: str, ids: Sequence[str], *, lease: float) -> list[tuple[str, str]]:
    """Claim chunks for ``lease`` seconds; return id and text of those that were to be had. Writes."""
    if not ids:
        return []
    # The rows are locked first, so that whoever has them sees every claim on them.
    texts = _texts(connection, _FREE, {"model": model, "ids": list(ids)})
    live = _live(connection)
    for theirs in connection.scalars(_OF_OTHERS, {"model": model, "worker": worker, **live}).all():
        texts.pop(theirs, None)
    if texts:
        until = live["now"] + lease
        execute_many(connection, _CLAIM, [(model, each, worker, until) for each in texts])
    return list(texts.items())


def put(
    connection: Connection, model: str, worker: str, batch: Sequence[tuple[str, str]], vectors: Sequence[bytes]
) -> int:
    """Write the vectors of chunks that are still claimed and have still the text; give up the claims. Writes.

    ``batch`` is what ``take`` returned. Return how many were written.
    """
    if not batch:
        return 0
    texts = _texts(connection, _CLAIMED, {"model": model, "worker": worker})
    rows = [
        (model, each, vector)
        for (each, embedded), vector in zip(batch, vectors, strict=True)
        if texts.get(each) == embedded
    ]
    if rows:
        execute_many(connection, _ADD, rows)
    release(connection, model, worker)
    return len(rows)


def release(connection: Connection, model: str, worker: str) -> None:
    """Give up every claim of a worker. Writes."""
    connection.execute(_RELEASE, {"model": model, "worker": worker})


def _texts(connection: Connection, query: Select[Any], values: dict[str, object]) -> dict[str, str]:
    """Return the texts of chunks, by their ids, that nobody changes until the end of the transaction."""
    with any_text(connection):
        found = connection.execute(query, values).all()
    return {each: "" if content is None else as_text(content) for each, content in found}
