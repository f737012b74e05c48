"""Give the chunks of a database the vectors of a model that they lack, beside the service that searches them."""

from collections.abc import Callable

from vecmigrate.access import Access
from vecmigrate.embedding.embedders import Embedder
from vecmigrate.embedding.worker import Reembedding, Worker
from vecmigrate.errors import DatabaseUnusableError, LockTimeoutError, VecmigrateError
from vecmigrate.progress import Progress
from vecmigrate.turns import Turns

__all__ = ["missing", "reembed"]


def missing(access: Access, *, dimensions: int | None = None) -> Reembedding:
    """Return what ``reembed`` would begin with: the model, and how many chunks lack a vector of it. Read-only."""
    with Turns(access.database, lock_timeout=access.settings.lock_timeout) as turns:
        worker = Worker(
            access,
            turns,
            list,
            batch_size=1,
            dimensions=dimensions,
            limit=None,
            should_stop=bool,
            on_progress=bool,
        )
        return worker.look()


def reembed(
    access: Access,
    embedder: Embedder | str,
    *,
    batch_size: int = 64,
    dimensions: int | None = None,
    swap: bool = True,
    limit: int | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] = bool,
) -> Reembedding:
    """Make the vectors that chunks lack of the model being built, else of the active one; swap when none is missing.

    ``embedder`` takes a list of texts and returns their vectors, or is what names one on the command line. It is
    called outside any transaction, with at most ``batch_size`` texts; each batch is written by itself. Chunks may be
    changed, added and deleted meanwhile, and other workers may do the same. After ``limit`` vectors, or after the
    batch in flight once ``should_stop`` returns True, it ends, and goes on when it is called again.

    ``dimensions`` records the true ones of a model that has no vector yet. Raises VecmigrateError; what was embedded
    before is kept then.
    """
    if batch_size < 1 or (limit is not None and limit < 0):
        raise ValueError("batch_size must be at least 1, and limit not below 0")
    with Turns(access.database, lock_timeout=access.settings.lock_timeout) as turns:
        worker = Worker(
            access,
            turns,
            embedder,
            batch_size=batch_size,
            dimensions=dimensions,
            limit=limit,
            should_stop=should_stop,
            on_progress=on_progress or (lambda _: None),
        )
        try:
            return worker.run(swap=swap)
        except (DatabaseUnusableError, LockTimeoutError) as error:
            if worker.embedded:
                kept = f"The {worker.embedded} vectors that were written before are kept."
                raise _with(error, error.message.replace("Nothing was changed.", kept)) from error.__cause__
            raise
        finally:
            worker.give_up()


def _with(error: VecmigrateError, message: str) -> VecmigrateError:
    return type(error)(message, next_step=error.next_step)
