"""The models of a database, listed, activated by hand and purged."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from vecmigrate.access import Access
from vecmigrate.catalog import table_names
from vecmigrate.embedding import models
from vecmigrate.engine import reading
from vecmigrate.errors import ModelError
from vecmigrate.turns import Turns

__all__ = ["activate", "listing", "purge", "purgeable"]

_BATCH = 1000
_FLOAT_BYTES = 4


def listing(access: Access) -> dict[str, Any]:
    """Return how many chunks there are, and every model with its vectors and what it lacks. Read-only."""
    with reading(access.database, timeout=access.settings.lock_timeout) as connection:
        _require_tables(access, connection)
        return {
            "chunks": models.count_of_chunks(connection),
            "models": [_listed(connection, model) for model in models.models(connection)],
        }


def _require_tables(access: Access, connection: Connection) -> None:
    if not table_names(connection) >= models.TABLES:
        raise ModelError(
            f"{access.database} has no tables of embedding models yet. Nothing was changed.",
            next_step=f"vecmigrate {access.database.option} migrate",
        )


def _listed(connection: Connection, model: models.Model) -> dict[str, Any]:
    vectors = models.count_of_vectors(connection, model.name)
    return {
        "name": model.name,
        "dimensions": model.dimensions,
        "state": model.state,
        "activated_at": model.activated_at,
        "vectors": vectors,
        "missing": models.missing(connection, model.name),
        "bytes": vectors * model.dimensions * _FLOAT_BYTES,
    }


def activate(access: Access, name: str) -> None:
    """Make a model the active one, and retire the one before. Raises ModelError for one that a chunk lacks."""
    option = access.database.option
    access.current(access.revisions())  # Refuses a database that is too new.
    with Turns(access.database, lock_timeout=access.settings.lock_timeout) as turns:
        with turns.reading() as connection:
            _require_tables(access, connection)
        with turns.writing() as connection:
            if models.activate(connection, name):
                return
            missing = models.missing(connection, name)
    raise ModelError(
        f"{missing} chunks have no vector of {name}, and a search would not find them. Nothing was changed.",
        next_step=f"vecmigrate {option} reembed --embedder EMBEDDER, which gives them one and then activates it",
    )


def purgeable(access: Access, name: str | None = None) -> dict[str, int]:
    """Return how many vectors ``purge`` would drop, by model. Read-only. Raises ModelError as that does."""
    access.current(access.revisions())
    with reading(access.database, timeout=access.settings.lock_timeout) as connection:
        _require_tables(access, connection)
        retired = [model.name for model in models.models(connection) if model.state == "retired"]
        chosen = [name] if name is not None else retired
        for each in chosen:
            models.require_retired(connection, each)
        return {each: models.count_of_vectors(connection, each) for each in chosen}


def purge(
    access: Access, name: str | None = None, *, on_progress: Callable[[str, int], object] | None = None
) -> dict[str, int]:
    """Delete the vectors of one retired model, or of all, a thousand at a time; return how many of each.

    The models stay, and so can be built anew. What is stopped goes on when it is called again. Raises ModelError.
    """
    purged: dict[str, int] = {}
    access.current(access.revisions())
    with Turns(access.database, lock_timeout=access.settings.lock_timeout) as turns:
        with turns.reading() as connection:
            _require_tables(access, connection)
            retired = [model.name for model in models.models(connection) if model.state == "retired"]
        for each in [name] if name is not None else retired:
            purged[each], after = 0, None
            while True:
                with turns.writing() as connection:
                    count, after = models.purge_range(connection, each, after, _BATCH)
                purged[each] += count
                if on_progress is not None:
                    on_progress(each, purged[each])
                if after is None:
                    break
    return purged
