"""Keep the vectors of models that are not active true while chunks change.

Triggers on the chunks delete, for every model that is not active, the vector of a chunk whose text changes or
that goes, so that no model is ever activated with a vector of a text that is no longer there. The vectors of
the active model are the service's affair.

Revision ID: 003
Revises: 002
"""

from alembic import context, op

revision = "003"
down_revision = "002"
branch_labels = None
depends_on = None

FORGET = (
    "DELETE FROM vector_store_embeddings WHERE chunk_id IN ({ids}) "
    "AND model IN (SELECT name FROM embedding_models WHERE state <> 'active')"
)

# REPLACE deletes without a delete trigger, unless recursive_triggers is on: https://sqlite.org/lang_conflict.html
# So the vectors go with whatever is inserted, unless a chunk of that id and with that text is there already. Asked
# first is whether there are any, because of new chunks there are none, and these come by the thousand.
HAS_VECTORS = (
    "EXISTS (SELECT 1 FROM embedding_models AS m CROSS JOIN vector_store_embeddings AS e "
    "ON e.model = m.name AND e.chunk_id = NEW.chunk_id WHERE m.state <> 'active')"
)
# Texts are compared by their bytes, whatever the collation of the column.
IS_THERE = (
    "EXISTS (SELECT 1 FROM vector_store_chunks WHERE chunk_id = NEW.chunk_id AND content COLLATE BINARY IS NEW.content)"
)
IS_CHANGED = "OLD.content COLLATE BINARY IS NOT NEW.content OR OLD.chunk_id COLLATE BINARY IS NOT NEW.chunk_id"
SQLITE = {
    "vecmigrate_chunk_inserted": (
        f"BEFORE INSERT ON vector_store_chunks WHEN {HAS_VECTORS} AND NOT {IS_THERE}",
        "NEW.chunk_id",
    ),
    "vecmigrate_chunk_updated": (
        f"AFTER UPDATE OF chunk_id, content ON vector_store_chunks WHEN {IS_CHANGED}",
        "OLD.chunk_id, NEW.chunk_id",
    ),
    "vecmigrate_chunk_deleted": ("AFTER DELETE ON vector_store_chunks", "OLD.chunk_id"),
}

# The search path is the one of this run, because whoever changes a chunk may have another one.
POSTGRESQL_FUNCTION = f"""
CREATE FUNCTION vecmigrate_forget_vectors() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        {FORGET.format(ids="OLD.chunk_id")};
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        {FORGET.format(ids="NEW.chunk_id")};
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM vector_store_embeddings
        WHERE model IN (SELECT name FROM embedding_models WHERE state <> 'active');
    END IF;
    RETURN NULL;
END
$$
"""
POSTGRESQL = {
    "vecmigrate_chunk_inserted": "AFTER INSERT ON vector_store_chunks FOR EACH ROW",
    "vecmigrate_chunk_updated": (
        "AFTER UPDATE OF chunk_id, content ON vector_store_chunks FOR EACH ROW "
        "WHEN ((OLD.chunk_id, OLD.content) IS DISTINCT FROM (NEW.chunk_id, NEW.content))"
    ),
    "vecmigrate_chunk_deleted": "AFTER DELETE ON vector_store_chunks FOR EACH ROW",
    "vecmigrate_chunks_truncated": "AFTER TRUNCATE ON vector_store_chunks FOR EACH STATEMENT",
}


def upgrade() -> None:
    if context.get_context().dialect.name == "sqlite":
        for name, (when, ids) in SQLITE.items():
            op.execute(f"CREATE TRIGGER {name} {when} BEGIN {FORGET.format(ids=ids)}; END")
        return
    op.execute(POSTGRESQL_FUNCTION)
    for name, when in POSTGRESQL.items():
        op.execute(f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION vecmigrate_forget_vectors()")


def downgrade() -> None:
    """Drop the triggers that are there: a service that built its chunks anew has dropped them itself."""
    if context.get_context().dialect.name == "sqlite":
        for name in SQLITE:
            op.execute(f"DROP TRIGGER IF EXISTS {name}")
        return
    for name in POSTGRESQL:
        op.execute(f"DROP TRIGGER IF EXISTS {name} ON vector_store_chunks")
    op.execute("DROP FUNCTION IF EXISTS vecmigrate_forget_vectors()")
