"""Change the embedding model to SFR-Embedding-Code-400M_R; metadata only, no vector is touched.

Without chunks the new model is active at once. With chunks it is building, and the old one stays active
and searchable, until every chunk has a vector of the new model. Where that is so already (after a way down and up
again) it is active at once too, as long as the chunks are few enough to look at each of them: with more than 10,000 the
model is building, so that the cost of this revision does not grow with them, and ``vecmigrate reembed`` or
``vecmigrate embeddings activate`` looks at all and swaps at once.

Revision ID: 002
Revises: 001
"""

import json
import time

import sqlalchemy as sa
from alembic import context, op

from vecmigrate.operations.v1 import kept_rows, notes

revision = "002"
down_revision = "001"
branch_labels = None
depends_on = None

MODEL = "Salesforce/SFR-Embedding-Code-400M_R"
DIMENSIONS = 768
MOST_LOOKED_AT = 10_000
ACTIVATED_KEY = "002_activated_at"
NONE_ACTIVE_KEY = "002_none_was_active"
TABLE = "embedding_models"

models = sa.table(
    TABLE,
    sa.column("name", sa.Text),
    sa.column("dimensions", sa.Integer),
    sa.column("state", sa.Text),
    sa.column("activated_at", sa.BigInteger),
)
chunks = sa.table("vector_store_chunks", sa.column("chunk_id", sa.Text))
embeddings = sa.table("vector_store_embeddings", sa.column("model", sa.Text), sa.column("chunk_id", sa.Text))
meta = sa.table("vecmigrate_meta", sa.column("key", sa.Text), sa.column("value", sa.Text))


def upgrade() -> None:
    if context.is_offline_mode():
        _upgrade_offline()
        return
    bind = op.get_bind()
    found = _model(bind)
    # A model that serves already goes on serving.
    serves = (found is not None and found["state"] == "active") or _is_complete(bind)
    activated_at = _taken_from_meta(bind, ACTIVATED_KEY)
    if not _has_active(bind):
        bind.execute(meta.insert().values(key=NONE_ACTIVE_KEY, value="1"))
    makes_way = ["active", "building"] if serves else ["building"]
    retiring = bind.execute(sa.select(models).where(models.c.state.in_(makes_way), models.c.name != MODEL))
    for row in retiring.mappings().all():
        _retire(bind, dict(row))
    row = dict(found or {"name": MODEL, "dimensions": DIMENSIONS, "activated_at": activated_at})
    row["state"] = "active" if serves else "building"
    if serves and row["activated_at"] is None:
        row["activated_at"] = activated_at or int(time.time())
    bind.execute(models.delete().where(models.c.name == MODEL))
    bind.execute(models.insert().values(**row))
    if found is not None:
        _keep(bind, found, row, reason="state: the model was there before it was asked for")


def downgrade() -> None:
    if context.is_offline_mode():
        _downgrade_offline()
        return
    bind = op.get_bind()
    present = _model(bind)
    bind.execute(models.delete().where(models.c.name == MODEL))
    kept = _take_back_kept(bind)
    was, became = kept.pop(MODEL, (None, None))
    for row, _ in kept.values():
        if _is_free(bind, row["state"]):
            still_retired = sa.and_(models.c.name == row["name"], models.c.state == "retired")
            bind.execute(models.update().where(still_retired).values(state=row["state"]))
    if present is not None and was is not None:
        back = was if present == became else {**present, "state": was["state"]}
        state = back["state"] if _is_free(bind, back["state"]) else "retired"
        bind.execute(models.insert().values(**{**back, "state": state}))
    none_was_active = _taken_from_meta(bind, NONE_ACTIVE_KEY)
    if not none_was_active and not _has_active(bind):
        # The one that was active before: the one retired last.
        bind.execute(models.update().where(models.c.name == bind.scalar(_newest_retired())).values(state="active"))
    _tell_of_missing(bind)
    if present is None:
        return
    if was is not None:
        if was["activated_at"] is None and present == became:
            _keep_activation(bind, present)
    elif bind.scalar(sa.select(embeddings.c.model).where(embeddings.c.model == MODEL).limit(1)):
        bind.execute(models.insert().values(**{**present, "state": "retired"}))
    else:
        _keep_activation(bind, present)


def _has_active(bind: sa.Connection) -> bool:
    return bind.scalar(sa.select(models.c.name).where(models.c.state == "active").limit(1)) is not None


def _newest_retired() -> sa.Select[tuple[str]]:
    """Select the model that was active before this one: the other one that was activated last."""
    newest_first = sa.func.coalesce(models.c.activated_at, 0).desc()
    others = sa.and_(models.c.state == "retired", models.c.name != MODEL)
    return sa.select(models.c.name).where(others).order_by(newest_first, models.c.name).limit(1)


def _model(bind: sa.Connection) -> dict[str, object] | None:
    row = bind.execute(sa.select(models).where(models.c.name == MODEL)).mappings().first()
    return dict(row) if row else None


def _is_complete(bind: sa.Connection) -> bool:
    """Tell whether every chunk is seen to have a vector of the new model; the first that has none decides."""
    first = sa.select(chunks.c.chunk_id).limit(MOST_LOOKED_AT + 1).subquery()
    if _is_missing(bind, first, MODEL):
        return False
    return bool(bind.scalar(sa.select(sa.func.count()).select_from(first)) <= MOST_LOOKED_AT)


def _is_missing(bind: sa.Connection, some: sa.Subquery, model: str) -> bool:
    """Tell whether one of some chunks has no vector of a model."""
    has_vector = sa.exists().where(embeddings.c.model == model, embeddings.c.chunk_id == some.c.chunk_id)
    return bind.scalar(sa.select(sa.literal(1)).select_from(some).where(~has_vector).limit(1)) is not None


def _tell_of_missing(bind: sa.Connection) -> None:
    """Tell where a search by the model that is active again would not find all chunks: of the first ones."""
    active = bind.scalar(sa.select(models.c.name).where(models.c.state == "active"))
    if active and _is_missing(bind, sa.select(chunks.c.chunk_id).limit(MOST_LOOKED_AT).subquery(), active):
        notes.note(
            f"{active} is the active model again, and there are chunks without a vector of it, which a search does not "
            "find: they came since, or its vectors were purged. Go forward again, or let the service embed them."
        )


def _retire(bind: sa.Connection, row: dict[str, object]) -> None:
    """Retire a model, and keep a record where the downgrade could not tell its state from what is there."""
    bind.execute(models.update().where(models.c.name == row["name"]).values(state="retired"))
    if row["state"] == "active" and bind.scalar(_newest_retired()) == row["name"]:
        return
    _keep(bind, row, {**row, "state": "retired"}, reason=f"state: made way for {MODEL}")


def _keep(bind: sa.Connection, row: dict[str, object], converted: dict[str, object], *, reason: str) -> None:
    kept = kept_rows.KeptRows(bind, revision=revision)
    kept.add([kept.landed("upgrade", TABLE, row, reason, target_key=row["name"], converted=converted)])


def _is_free(bind: sa.Connection, state: object) -> bool:
    """Tell whether a model may take a state: at most one is active, and one building."""
    return state == "retired" or bind.scalar(sa.select(models.c.name).where(models.c.state == state)) is None


def _take_back_kept(bind: sa.Connection) -> dict[object, tuple[dict[str, object], dict[str, object]]]:
    """Return what the upgrade kept, by name: a row as it was, and as what it landed; and forget it."""
    kept = kept_rows.KeptRows(bind, revision=revision)
    found = [each for page in kept.pages("upgrade", TABLE, landed=1) for each in page]
    kept.forget_landed("upgrade", TABLE)
    return {each.row["name"]: (each.row, each.converted) for each in found}


def _keep_activation(bind: sa.Connection, row: dict[str, object]) -> None:
    """Note when the new model was activated: its row goes, or goes back to what it was."""
    if row["activated_at"] is not None:
        bind.execute(meta.insert().values(key=ACTIVATED_KEY, value=json.dumps(row["activated_at"])))


def _taken_from_meta(bind: sa.Connection, key: str) -> object:
    """Return what the other direction noted, and forget it."""
    kept = bind.scalar(sa.select(meta.c.value).where(meta.c.key == key))
    bind.execute(meta.delete().where(meta.c.key == key))
    return json.loads(kept) if kept else None


def _upgrade_offline() -> None:
    """An SQL script is the way of an empty database: there the new model is active at once."""
    op.execute(models.update().where(models.c.state == "active").values(state="retired"))
    op.execute(models.insert().values(name=MODEL, dimensions=DIMENSIONS, state="active", activated_at=int(time.time())))


def _downgrade_offline() -> None:
    op.execute(models.delete().where(models.c.name == MODEL))
    old = "sentence-transformers/all-MiniLM-L6-v2"
    op.execute(models.update().where(models.c.name == old).values(state="active"))
