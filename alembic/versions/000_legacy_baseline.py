"""Legacy baseline: the state before this project, whatever it was.

What services made (``vector_stores``, ``stores``, ``active_stores``) is left alone, and not made where it is missing:
a service starts on a file without it, and on none with a shape that it does not know. Missing tables of our own are
created.

Revision ID: 000
Revises:
"""

import time

import sqlalchemy as sa
from alembic import context, op

revision = "000"
down_revision = None
branch_labels = None
depends_on = None

# Unix seconds outgrow PostgreSQL's INTEGER in 2038; SQLite's own holds 64 bits.
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SEED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

ADOPTS = {
    "vector_store_chunks": (
        frozenset({"chunk_id", "vector_store_id", "file_path", "start_line", "end_line", "content"}),
    ),
    "embedding_models": (frozenset({"name", "dimensions", "state", "activated_at"}),),
    "vector_store_embeddings": (frozenset({"model", "chunk_id", "vector"}),),
}
"""The shapes, told by their columns, of tables that may be there before the ladder."""


def upgrade() -> None:
    present = set() if context.is_offline_mode() else _present()
    for create in (_vector_store_chunks, _embedding_models, _embeddings):
        create(present)


def downgrade() -> None:
    """Drop the tables that upgrade created; what was found stays. Who loses rows was asked before."""
    created = ("vector_store_embeddings", "embedding_models", "vector_store_chunks")
    found = set() if context.is_offline_mode() else _present() - _created()
    for table in created:
        if table not in found and (context.is_offline_mode() or table in _present()):
            op.drop_table(table)


def _present() -> set[str]:
    bind = op.get_bind()
    names = sa.inspect(bind).get_table_names()
    # SQLite tells no case apart in any name, PostgreSQL does in quoted ones.
    return {name.lower() for name in names} if bind.dialect.name == "sqlite" else set(names)


def _created() -> set[str]:
    adopted = sa.table("vecmigrate_adopted", sa.column("type"), sa.column("name"))
    query = sa.select(adopted.c.name).where(adopted.c.type == "table")
    return _present() - {name.lower() for name in op.get_bind().scalars(query)}


def _vector_store_chunks(present: set[str]) -> None:
    if "vector_store_chunks" in present:
        return
    op.create_table(
        "vector_store_chunks",
        sa.Column("chunk_id", sa.Text, primary_key=True),
        sa.Column("vector_store_id", sa.Text),
        sa.Column("file_path", sa.Text, nullable=False),
        sa.Column("start_line", sa.Integer),
        sa.Column("end_line", sa.Integer),
        sa.Column("content", sa.Text, nullable=False),
    )


def _embedding_models(present: set[str]) -> None:
    if "embedding_models" in present:
        return
    models = op.create_table(
        "embedding_models",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("activated_at", BIG),
        sa.CheckConstraint("dimensions > 0", name="ck_embedding_models_dimensions"),
        sa.CheckConstraint("state IN ('active', 'building', 'retired')", name="ck_embedding_models_state"),
    )
    _partial_index("uq_embedding_models_active", "embedding_models", "state", "state = 'active'")
    _partial_index("uq_embedding_models_building", "embedding_models", "state", "state = 'building'")
    op.bulk_insert(
        models,
        [{"name": SEED_MODEL, "dimensions": 384, "state": "active", "activated_at": int(time.time())}],
    )


def _embeddings(present: set[str]) -> None:
    if "vector_store_embeddings" in present:
        return
    op.create_table(
        "vector_store_embeddings",
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("chunk_id", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model", "chunk_id"),
    )


def _partial_index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], unique=True, sqlite_where=where, postgresql_where=where)
