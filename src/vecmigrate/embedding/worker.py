"""One of those who make vectors at the same time: what it has claimed, embeds and writes, batch by batch."""

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from vecmigrate.access import Access
from vecmigrate.embedding import claims, embedders, models, tries
from vecmigrate.embedding.anchor import Anchor
from vecmigrate.embedding.embedders import Embedder
from vecmigrate.embedding.vectors import KEPT, DimensionsError
from vecmigrate.errors import AheadError, EmbedderError, LockTimeoutError, ModelError, VecmigrateError
from vecmigrate.progress import Progress
from vecmigrate.turns import Turns

__all__ = ["Progress", "Reembedding", "Worker"]

log = logging.getLogger("vecmigrate")

_POLL_SECONDS = 0.2
_FIRST_POLL_SECONDS = 0.01
_COUNTING_SHARE = 20


@dataclass(frozen=True)
class Reembedding:
    """What was done. ``remaining`` chunks still lack a vector, ``swapped`` tells that the model was made active."""

    model: str
    dimensions: int
    embedded: int
    remaining: int
    swapped: bool
    duration_seconds: float


class Worker:
    """One call: at any time at most one batch in flight, which it has claimed."""

    def __init__(
        self,
        access: Access,
        turns: Turns,
        embedder: Embedder | str,
        *,
        batch_size: int,
        dimensions: int | None,
        limit: int | None,
        should_stop: Callable[[], bool],
        on_progress: Callable[[Progress], object],
    ) -> None:
        self._access = access
        self._turns = turns
        self._embedder = embedder
        self._size = batch_size
        self._dimensions = dimensions
        self._limit = limit
        self._should_stop = should_stop
        self._on_progress = on_progress
        self._id = uuid.uuid4().hex
        self._lease = claims.SHORTEST
        self._batch: list[tuple[str, str]] = []
        self._after: str | None = None
        self._is_catching_up = False
        self._anchor: Anchor | None = None
        self._began = time.monotonic()
        self._counted_at = self._counting_took = 0.0
        self._remaining = 0
        self.embedded = 0

    @property
    def _option(self) -> str:
        return self._access.database.option

    @property
    def anchor(self) -> Anchor:
        assert self._anchor is not None  # noqa: S101 - every way leads through _begin
        return self._anchor

    @property
    def _model(self) -> str:
        return self.anchor.model.name

    def run(self, *, swap: bool) -> Reembedding:
        self._begin()
        swapped = self._make_vectors(swaps=swap and self.anchor.model.state == "building")
        return Reembedding(
            model=self._model,
            dimensions=self.anchor.model.dimensions,
            embedded=self.embedded,
            remaining=self._remaining,
            swapped=swapped,
            duration_seconds=time.monotonic() - self._began,
        )

    def look(self) -> Reembedding:
        """Return what is to be done, without an embedder. Read-only. Raises what ``run`` raises before it begins."""
        self._begin()
        return Reembedding(
            model=self._model,
            dimensions=self._dimensions or self.anchor.model.dimensions,
            embedded=0,
            remaining=self._remaining,
            swapped=False,
            duration_seconds=time.monotonic() - self._began,
        )

    def _begin(self) -> None:
        """Read what is to be done. Raises AheadError, and ModelError where there is nothing to do it with."""
        known = self._access.revisions()
        with self._turns.reading() as connection:
            try:
                revision = self._access.revision(connection, known)
            except AheadError as error:
                if not error.compatible:
                    raise
                log.warning("%s", error.message)
            else:
                if revision != known.head:
                    raise ModelError(
                        f"The database is at revision {revision or 'base'}, and vectors are made at {known.head}, "
                        "where triggers keep them true. Nothing was changed.",
                        next_step=f"vecmigrate {self._option} migrate",
                    )
            model = models.target(connection)
            if model is None:
                raise ModelError(
                    "No embedding model is being built, and none is active. Nothing was changed.",
                    next_step="INSERT INTO embedding_models the model that vectors are wanted of, as 'building'",
                )
            self._anchor = Anchor.of(connection, model)
            self._require_own_dimensions(models.has_vectors(connection, model.name))
            self._count(connection)
        if self._remaining and isinstance(self._embedder, str):
            self._embedder = embedders.load(self._embedder, model=self._model)

    def _require_own_dimensions(self, has_vectors: bool) -> None:  # noqa: FBT001 - private, and called once
        recorded = self.anchor.model.dimensions
        if self._dimensions not in {None, recorded} and has_vectors:
            raise ModelError(
                f"{self._model} has vectors of {recorded} dimensions, so one of {self._dimensions} is another model. "
                "Nothing was changed.",
                next_step="add that model as a revision of its own, or name the embedder of this one",
            )

    def _make_vectors(self, *, swaps: bool) -> bool:
        """Go through the chunks until none is missing, and swap then if that is wanted; return whether it was done."""
        idle_since, pause = None, _FIRST_POLL_SECONDS
        while True:
            if self._pass():
                idle_since, pause = None, _FIRST_POLL_SECONDS
            with self._turns.reading() as connection:
                self._count(connection)
                is_claimed = claims.of_others(connection, self._model, self._id)
            if swaps and not self._remaining and not self._should_stop():
                if self._swap():
                    return True
                continue  # A chunk has changed since.
            if not self._remaining or self._is_ended():
                return False
            # What others have is theirs as long as their lease runs.
            idle_since = None if is_claimed else idle_since or time.monotonic()
            if idle_since and time.monotonic() - idle_since > self._access.settings.lock_timeout:
                raise self._unobtainable()
            if is_claimed or idle_since:
                # At the end others have one batch in flight; who waits for the lease of a dead one looks less often.
                time.sleep(pause)
                pause = min(2 * pause, _POLL_SECONDS)

    def _unobtainable(self) -> ModelError:
        return ModelError(
            f"{self._remaining} chunks of {self._access.database} have no vector, and cannot be had: an open "
            "transaction holds them, or their ids are not UTF-8. What was embedded is kept.",
            next_step="end that transaction, or correct these ids, and run the same command again",
        )

    def _pass(self) -> bool:
        """Go through the chunks until none is left that could be had; return whether there was any."""
        found = False
        while True:
            vectors = self._vectors()
            ids = self._candidates()
            if self._batch or ids:
                self._turn(vectors, ids)
            found = found or bool(self._batch)
            if not self._batch and (self._is_catching_up or self._is_ended()):
                return found

    def _candidates(self) -> list[str]:
        """Return the ids of a batch that follows the one in flight, fewer at the end of the chunks."""
        wanted = 0 if self._is_ended() else self._wanted()
        if wanted == 0:
            self._after = None
            return []
        if self._is_catching_up:
            with self._turns.reading() as connection:
                ids = claims.missing(connection, self._model, limit=wanted)
            self._is_catching_up = len(ids) < wanted
            return ids
        ids = []
        while len(ids) < wanted and not self._is_catching_up and not self._should_stop():
            with self._turns.reading() as connection:
                found, self._after = claims.candidates(
                    connection, self._model, self._id, after=self._after, limit=wanted - len(ids)
                )
            ids += found
            # Behind the last chunk, what is missing has changed meanwhile, and is found faster without looking at all.
            self._is_catching_up = self._after is None
        return ids

    def _wanted(self) -> int:
        if self._limit is None:
            return self._size
        return max(0, min(self._size, self._limit - self.embedded - len(self._batch)))

    def _is_ended(self) -> bool:
        return self._wanted() == 0 or self._should_stop()

    def _turn(self, vectors: list[bytes], ids: list[str]) -> None:
        """Write the batch in flight and claim the next one, in one short transaction."""
        with self._turns.writing() as connection:
            self._anchor = self.anchor.require_unchanged(connection, option=self._option)
            if vectors:
                self._record_dimensions(connection, len(vectors[0]) // 4)
            written = claims.put(connection, self._model, self._id, self._batch, vectors)
            taken = claims.take(connection, self._model, self._id, ids, lease=self._lease)
            if ids and not taken and self._after is not None:
                # Another worker was faster; what follows is free, and nobody comes between any more.
                ids, self._after = claims.candidates(
                    connection, self._model, self._id, after=self._after, limit=len(ids)
                )
                taken = claims.take(connection, self._model, self._id, ids, lease=self._lease)
        self._batch = taken
        self.embedded += written
        self._remaining = max(0, self._remaining - written)
        if vectors:
            self._tell()

    def _record_dimensions(self, connection: Connection, dimensions: int) -> None:
        if dimensions != self.anchor.model.dimensions:
            self._require_own_dimensions(models.has_vectors(connection, self._model))
            models.record_dimensions(connection, self._model, dimensions)
            self._anchor = replace(self.anchor, model=replace(self.anchor.model, dimensions=dimensions))

    def _vectors(self) -> list[bytes]:
        """Embed the batch in flight, outside any transaction. Raises EmbedderError."""
        if not self._batch:
            return []
        began = time.monotonic()
        wanted = self._dimensions or self.anchor.model.dimensions
        embedder = self._embedder
        assert not isinstance(embedder, str)  # noqa: S101 - loaded before the first batch
        texts = [text for _, text in self._batch]
        try:
            packed = tries.vectors(embedder, texts, dimensions=wanted, should_stop=self._should_stop)
        except DimensionsError as error:
            raise self._of_other_dimensions(error, wanted) from None
        self._lease = min(max(self._lease, 4 * (time.monotonic() - began)), claims.LONGEST)
        return packed

    def _of_other_dimensions(self, error: DimensionsError, wanted: int) -> EmbedderError:
        with self._turns.reading() as connection:
            has_vectors = models.has_vectors(connection, self._model)
        if has_vectors:
            return EmbedderError(
                f"The embedder returned a vector of {error.dimensions} dimensions, and {self._model} has vectors of "
                f"{wanted}: this is another model. {KEPT}",
                next_step=f"name the embedder of {self._model}",
            )
        return EmbedderError(
            f"The embedder returned a vector of {error.dimensions} dimensions where {wanted} are wanted of "
            f"{self._model}, which has no vector yet. {KEPT}",
            next_step=f"if {error.dimensions} are right, run the same command with --dimensions {error.dimensions}",
        )

    def _swap(self) -> bool:
        """Make the model the active one, unless a chunk lacks a vector by now; wait for who is changing chunks."""
        deadline = time.monotonic() + self._access.settings.lock_timeout
        while True:
            try:
                with self._turns.writing() as connection:
                    self._anchor = self.anchor.require_unchanged(connection, option=self._option)
                    is_swapped = self.anchor.model.state == "building" and models.activate(connection, self._model)
                    is_done = self.anchor.model.state == "active"
            except LockTimeoutError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return is_swapped or is_done

    def _count(self, connection: Connection) -> None:
        began = time.monotonic()
        self._remaining = models.missing(connection, self._model)
        self._counted_at = time.monotonic()
        self._counting_took = self._counted_at - began

    def _tell(self) -> None:
        """Tell how far it is; others embed and change chunks too, so it is counted anew where that costs little."""
        if time.monotonic() - self._counted_at > 1 + _COUNTING_SHARE * self._counting_took:
            with self._turns.reading() as connection:
                self._count(connection)
        total, seconds = self.embedded + self._remaining, time.monotonic() - self._began
        self._on_progress(Progress("embed", self._model, "chunks", self.embedded, total, seconds))

    def give_up(self) -> None:
        """Give up the claims of a worker that ends before its batch; if that fails, their lease runs out."""
        if self._batch:
            with suppress(VecmigrateError), self._turns.writing() as connection:
                claims.release(connection, self._model, self._id)
