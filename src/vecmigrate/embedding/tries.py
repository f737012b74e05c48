"""Asking an embedder for vectors: again where it raises what may pass, and once more where it cannot be believed."""

import logging
import time
from collections.abc import Callable

from vecmigrate.causes import described, told
from vecmigrate.embedding.embedders import Embedder
from vecmigrate.embedding.vectors import KEPT, are_all_the_same, pack
from vecmigrate.errors import EmbedderError

__all__ = ["PAUSES", "vectors"]

log = logging.getLogger("vecmigrate")

PAUSES = (1.0, 5.0)
"""Seconds between the three tries of an embedder that raises."""
_PROBES = ["The quick brown fox jumps over the lazy dog.", "SELECT count(*) FROM embedding_models"]


def vectors(embedder: Embedder, texts: list[str], *, dimensions: int, should_stop: Callable[[], bool]) -> list[bytes]:
    """Return the vectors of texts as they are stored. Raises EmbedderError.

    Different texts may get one vector, where a model reads only their beginning. Where a whole batch does, the
    embedder is asked for two texts that no model takes for each other.
    """
    packed = _tried(embedder, texts, dimensions, should_stop)
    if are_all_the_same(texts, packed) and are_all_the_same(
        _PROBES, _tried(embedder, list(_PROBES), dimensions, should_stop)
    ):
        raise EmbedderError(
            f"The embedder returned the same vector for {len(set(texts))} different texts. {KEPT}",
            next_step="mend the embedder, then run the same command again",
        )
    return packed


def _tried(embedder: Embedder, texts: list[str], dimensions: int, should_stop: Callable[[], bool]) -> list[bytes]:
    for pause in (*PAUSES, None):
        try:
            return pack(_called(embedder, texts), count=len(texts), dimensions=dimensions)
        except EmbedderError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever somebody else's code raises
            if pause is None or should_stop():
                raise _failed(error) from told(error, of_rows=True)
            log.warning("The embedder raised %s; it is asked again in %g s.", type(error).__name__, pause)
            time.sleep(pause)
    raise AssertionError


def _called(embedder: Embedder, texts: list[str]) -> object:
    # A copy, because an embedder may change what it is given. What comes one by one raises when it is asked for.
    returned = embedder(list(texts))
    return list(returned) if hasattr(returned, "__next__") else returned


def _failed(error: BaseException) -> EmbedderError:
    return EmbedderError(
        f"The embedder raised {described(error, of_rows=True)}, also when it was asked again. {KEPT}",
        next_step="see where with -v before the command's name, then run the same command again",
    )
