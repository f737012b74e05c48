"""Who is embedding which chunk, so that several workers share the work: claims with a lease.

Whether a vector is written is never decided by a clock: a worker writes what it still has a claim on. The clock only
decides when a claim of somebody else may be taken over.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, text

from vecmigrate.catalog import any_text, as_text
from vecmigrate.embedding.models import CHUNKS, EMBEDDINGS
from vecmigrate.schema import CLAIMS

__all__ = ["LONGEST", "SHORTEST", "candidates", "of_others", "put", "release", "take"]

SHORTEST = 60.0
LONGEST = 900.0
"""The bounds of a lease, in seconds. What claims to last longer was written by another clock, and is no claim."""

_LOOKED_AT = 10_000
"""So many keys are looked at in one transaction: a reader that looks at a million holds up writers in the meantime."""

_ADD = text(
    "INSERT INTO vector_store_embeddings (model, chunk_id, vector) VALUES (:model, :id, :vector)"
    # A service that writes with both models may have been faster.
    " ON CONFLICT DO NOTHING"
)


def _now(connection: Connection) -> float:
    """Return the time of the database, which all workers share, in Unix seconds."""
    now: datetime = connection.execute(select(func.current_timestamp())).scalar_one()
    return (now if now.tzinfo else now.replace(tzinfo=UTC)).timestamp()


def _live(now: float) -> ColumnElement[bool]:
    return CLAIMS.c.until.between(now, now + LONGEST)


def of_others(connection: Connection, model: str, worker: str) -> bool:
    """Tell whether another worker has a claim whose lease runs. Read-only."""
    theirs = (CLAIMS.c.model == model) & (CLAIMS.c.worker != worker) & _live(_now(connection))
    return connection.scalar(select(CLAIMS.c.worker).where(theirs).limit(1)) is not None


def candidates(
    connection: Connection, model: str, worker: str, *, after: str | None, limit: int
) -> tuple[list[str], str | None]:
    """Return ids of chunks after one, in the order of the key, that have no vector and that nobody else has claimed.

    Looks at a bounded number of chunks. Return also where to go on, None at the end. Read-only.
    """
    in_order = select(CHUNKS.c.chunk_id).where(CHUNKS.c.chunk_id.is_not(None)).order_by(CHUNKS.c.chunk_id)
    if after is not None:
        in_order = in_order.where(CHUNKS.c.chunk_id > after)
    last = connection.scalar(in_order.offset(_LOOKED_AT - 1).limit(1))
    embedded = select(EMBEDDINGS.c.model).where(EMBEDDINGS.c.model == model, EMBEDDINGS.c.chunk_id == CHUNKS.c.chunk_id)
    theirs = (CLAIMS.c.model == model) & (CLAIMS.c.worker != worker) & _live(_now(connection))
    claimed = select(CLAIMS.c.model).where(theirs, CLAIMS.c.chunk_id == CHUNKS.c.chunk_id)
    free = in_order.where(~embedded.exists(), ~claimed.exists()).limit(limit)
    if last is not None:
        free = free.where(CHUNKS.c.chunk_id <= last)
    with any_text(connection):
        ids = list(connection.scalars(free))
    return ids, ids[-1] if len(ids) == limit else last


def take(connection: Connection, model: str, worker: str, ids: Sequence[str], *, lease: float) -> list[tuple[str, str]]:
    """Claim chunks for ``lease`` seconds; return id and text of those that were to be had. Writes."""
    if not ids:
        return []
    # The rows are locked first, so that whoever has them sees every claim on them.
    texts = _locked_texts(connection, ids)
    now = _now(connection)
    ours = (CLAIMS.c.model == model) & CLAIMS.c.chunk_id.in_(ids)
    theirs = connection.scalars(select(CLAIMS.c.chunk_id).where(ours, CLAIMS.c.worker != worker, _live(now)))
    embedded = connection.scalars(
        select(EMBEDDINGS.c.chunk_id).where(EMBEDDINGS.c.model == model, EMBEDDINGS.c.chunk_id.in_(ids))
    )
    for gone in {*theirs, *embedded}:
        texts.pop(gone, None)
    if texts:
        connection.execute(delete(CLAIMS).where(CLAIMS.c.model == model, CLAIMS.c.chunk_id.in_(list(texts))))
        rows = [{"model": model, "chunk_id": each, "worker": worker, "until": now + lease} for each in texts]
        connection.execute(insert(CLAIMS), rows)
    return list(texts.items())


def put(
    connection: Connection, model: str, worker: str, batch: Sequence[tuple[str, str]], vectors: Sequence[bytes]
) -> int:
    """Write the vectors of chunks that are still claimed and have still the text; give up the claims. Writes.

    ``batch`` is what ``take`` returned. Return how many were written.
    """
    if not batch:
        return 0
    ids = [each for each, _ in batch]
    claimed = select(CLAIMS.c.chunk_id).where(CLAIMS.c.model == model, CLAIMS.c.worker == worker)
    mine = set(connection.scalars(claimed.where(CLAIMS.c.chunk_id.in_(ids))))
    texts = _locked_texts(connection, ids)
    rows = [
        {"model": model, "id": each, "vector": vector}
        for (each, embedded), vector in zip(batch, vectors, strict=True)
        if each in mine and texts.get(each) == embedded
    ]
    if rows:
        connection.execute(_ADD, rows)
    release(connection, model, worker)
    return len(rows)


def release(connection: Connection, model: str, worker: str) -> None:
    """Give up every claim of a worker. Writes."""
    connection.execute(delete(CLAIMS).where(CLAIMS.c.model == model, CLAIMS.c.worker == worker))


def _locked_texts(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Return the texts of chunks that nobody changes until the end of the transaction, in the order of their ids.

    What somebody is changing right now is left out, because to wait for him may be to wait for each other.
    """
    wanted = select(CHUNKS.c.chunk_id, CHUNKS.c.content).where(CHUNKS.c.chunk_id.in_(bindparam("ids", expanding=True)))
    locked = wanted.order_by(CHUNKS.c.chunk_id).with_for_update(skip_locked=True, key_share=True)
    with any_text(connection):
        found = connection.execute(locked, {"ids": list(ids)}).all()
    return {row.chunk_id: "" if row.content is None else as_text(row.content) for row in found}
