"""Taking over the folder of mcp-vector-search: the model its vectors are of, and what it recorded of migrations."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, insert, select, update

from vecmigrate import history, meta, places, records
from vecmigrate.access import Access, one_at_a_time
from vecmigrate.embedding import models
from vecmigrate.engine import reading, translated, writing
from vecmigrate.errors import AdoptionError, TargetError
from vecmigrate.locks import freeze
from vecmigrate.preflight import back_up
from vecmigrate.revisions import Revisions
from vecmigrate.schema import CLAIMS, metadata
from vecmigrate.shell import quoted
from vecmigrate.tools import index_files, project_folder
from vecmigrate.tools.indexed_model import FIRST_MODEL, IndexedModel, indexed_model
from vecmigrate.tools.registry import DIRECTION, adopted_attempts, is_same

__all__ = ["Adoption", "adopt"]

_MODELS = metadata.tables["embedding_models"]


@dataclass
class Adoption:
    """What was, or would be, taken over. ``activates`` tells that the model becomes the active one.

    ``attempts`` are the entries of migrations.json that the history lacked, ``known`` the number of those that it
    had, ``notes`` what the user is to know, ``backup`` is the absolute path of the backup made before.
    """

    folder: str
    model: IndexedModel | None = None
    activates: bool = False
    attempts: list[history.Attempt] = field(default_factory=list)
    known: int = 0
    backup: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_change(self) -> bool:
        return self.activates or bool(self.attempts)


def adopt(
    access: Access, root: str, *, dimensions: int | None = None, model: str | None = None, dry_run: bool = False
) -> Adoption:
    """Take over what the folder of mcp-vector-search in the project ``root`` tells; a second time changes nothing.

    Nothing in that folder is written. The database must be at head. Takes the migration lock, and makes a backup
    first, only where there is something to take over. With ``dry_run`` it only reads. ``model`` and ``dimensions``
    are asked for where the files do not tell them. Raises VecmigrateError.
    """
    return _Adopting(access, root, dimensions=dimensions, model=model).run(dry_run=dry_run)


class _Adopting:
    def __init__(self, access: Access, root: str, *, dimensions: int | None, model: str | None) -> None:
        self._access = access
        self._database = access.database
        self._settings = access.settings
        self._root = root
        self._dimensions = dimensions
        self._model = model
        self._command = f"vecmigrate {self._database.option} adopt --project-root {quoted(root)}"

    def run(self, *, dry_run: bool) -> Adoption:
        places.require_apart(self._database, self._settings)
        records.require_mirror_apart(self._database, self._settings)
        found = self._read_folder()
        known = self._access.revisions()
        self._require_head(self._access.current(known), known)
        with reading(self._database, timeout=self._settings.lock_timeout) as connection:
            planned = self._planned(connection, found)
        if dry_run or not planned.is_change:
            return planned
        with one_at_a_time:
            return self._write(found, known)

    def _read_folder(self) -> Adoption:
        folder = project_folder.read(self._root)
        index = index_files.read(folder.path)
        attempts, problems = adopted_attempts(folder.entries, folder.registry)
        model = indexed_model(folder, index, model=self._model, dimensions=self._dimensions, command=self._command)
        found = Adoption(folder.path, model, attempts=attempts, notes=[*folder.problems, *index.problems, *problems])
        if model is None and not attempts:
            why = " ".join(found.notes) or "It names no model, and records no migration."
            raise AdoptionError(
                f"Nothing of {folder.path} could be taken over. {why} Nothing was changed.",
                next_step=f"{self._command} --model NAME, if you know which model its vectors are of",
            )
        if model is None:
            found.notes.append(
                f"No file names the model of the vectors. Next, if you know it: {self._command} --model NAME"
            )
        return found

    def _require_head(self, revision: str | None, known: Revisions) -> None:
        if revision != known.head:
            raise TargetError(
                f"{self._database} is at {revision or 'base'}, and a folder is taken over at {known.head}. "
                "Nothing was changed.",
                next_step=f"vecmigrate {self._database.option} migrate, then: {self._command}",
            )

    def _planned(self, connection: Connection, found: Adoption) -> Adoption:
        """Return what the database lacks of what was found. Read-only."""
        recorded = [each for each in history.read(connection) if each.direction == DIRECTION]
        attempts = [each for each in found.attempts if not any(is_same(each, other) for other in recorded)]
        known = len(found.attempts) - len(attempts)
        planned = replace(found, attempts=attempts, known=known, notes=list(found.notes))
        if found.model is not None:
            planned.activates = self._activates(connection, found.model, planned.notes)
        return planned

    def _activates(self, connection: Connection, model: IndexedModel, notes: list[str]) -> bool:
        """Tell whether a model is to become the active one, and note why not where that may surprise."""
        known = {each.name: each for each in models.models(connection)}
        active = next((each.name for each in known.values() if each.state == "active"), None)
        own = known.get(model.name)
        if own is not None and own.dimensions != model.dimensions and models.has_vectors(connection, model.name):
            raise AdoptionError(
                f"The database has vectors of {model.name} with {own.dimensions} dimensions, and the folder's have "
                f"{model.dimensions}: these are not the same model. Nothing was changed.",
                next_step=f"{self._command} --model NAME, with another name for the model of the folder",
            )
        if own is not None and (own.state, own.dimensions) == ("active", model.dimensions):
            return False
        if own is not None and model.name == FIRST_MODEL:
            notes.append(f"The database knows {model.name} already; its active model stays {active}.")
            return False
        if active not in {None, model.name} and _would_end_search(connection, str(active), model.name):
            notes.append(
                f"The active model stays {active}: it finds chunks that have no vector of {model.name} in the database."
            )
            return False
        return True

    def _write(self, found: Adoption, known: Revisions) -> Adoption:
        began_at, began = history.now(), time.monotonic()
        records.settle(self._database, self._settings)
        lock = writing(self._database, lock_timeout=self._settings.lock_timeout)
        with translated(self._database), lock as connection:
            # Somebody else may have changed it since it was looked at; chunks stay as they are until the end.
            freeze(connection, models.CHUNKS.name)
            revision = self._access.revision(connection, known)
            self._require_head(revision, known)
            adoption = self._planned(connection, found)
            if not adoption.is_change:
                return adoption
            adoption.backup = self._backed_up(connection, revision, known.app_version(revision))
            if adoption.activates and adoption.model is not None:
                _activate(connection, adoption.model)
            own = _record(adoption, at=began_at.isoformat(), duration=round(time.monotonic() - began, 6))
            history.add(connection, [*adoption.attempts, own])
        records.write_mirror(self._database, self._settings, token=meta.new_database_id())
        return adoption

    def _backed_up(self, connection: Connection, revision: str | None, app_version: str | None) -> str | None:
        backup, _ = back_up(
            connection,
            self._database,
            self._settings,
            database_id=meta.read(connection).get("database_id") or meta.new_database_id(),
            revision=revision,
            app_version=app_version,
            direction=DIRECTION,
        )
        return backup


def _would_end_search(connection: Connection, active: str, model: str) -> bool:
    """Tell whether a chunk is found by its vector of the active model, and has none of another model."""
    missing = _of_chunk(active) & ~_of_chunk(model)
    return bool(connection.scalar(select(exists().where(missing).select_from(models.CHUNKS))))


def _of_chunk(model: str) -> ColumnElement[bool]:
    vectors, chunks = models.EMBEDDINGS, models.CHUNKS
    return exists().where(vectors.c.model == model, vectors.c.chunk_id == chunks.c.chunk_id).correlate(chunks)


def _activate(connection: Connection, model: IndexedModel) -> None:
    """Make a model the active one. The one that was is built again where no other is, because head asks for it."""
    states = {each.state: each.name for each in models.models(connection)}
    before, values = states.get("active"), {"dimensions": model.dimensions, "activated_at": int(time.time())}
    connection.execute(update(_MODELS).where(_MODELS.c.state == "active").values(state="retired"))
    is_known = _MODELS.c.name == model.name
    if not connection.execute(update(_MODELS).where(is_known).values(state="active", **values)).rowcount:
        connection.execute(insert(_MODELS).values(name=model.name, state="active", **values))
    if before != model.name and "building" not in states:
        connection.execute(update(_MODELS).where(_MODELS.c.name == before).values(state="building"))
    connection.execute(delete(CLAIMS).where(CLAIMS.c.model == model.name))


def _record(adoption: Adoption, *, at: str, duration: float) -> history.Attempt:
    """Return the attempt that tells of the adoption itself."""
    what = [f"{len(adoption.attempts)} entries of migrations.json"] if adoption.attempts else []
    told: dict[str, Any] = {"source": adoption.folder, "backup_path": adoption.backup}
    if adoption.activates and adoption.model is not None:
        model = adoption.model
        what.append(f"the model {model.name} with {model.dimensions} dimensions")
        told |= {"model": model.name, "dimensions": model.dimensions, "model_source": model.source}
    return history.Attempt(
        migration_id="adopt_mcp_vector_search",
        revision=None,
        version=None,
        name="adopt_mcp_vector_search",
        direction=DIRECTION,
        status="success",
        message=f"Took over {' and '.join(what)} from {adoption.folder}",
        executed_at=at,
        duration_seconds=duration,
        metadata=told,
    )
