"""A table with triggers of ours is made anew by hand.

Revision ID: NEXT
Revises: HEAD
"""

import sqlalchemy as sa
from alembic import op

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None

NAMES = "chunk_id, vector_store_id, file_path, start_line, end_line, content"


def upgrade() -> None:
    make_anew(sa.Column("language", sa.Text(), server_default="python"))


def downgrade() -> None:
    make_anew()


def make_anew(*more: sa.Column) -> None:
    op.create_table(
        "chunks_anew",
        sa.Column("chunk_id", sa.Text(), nullable=False),
        sa.Column("vector_store_id", sa.Text()),
        sa.Column("file_path", sa.Text(), nullable=False),
        sa.Column("start_line", sa.Integer()),
        sa.Column("end_line", sa.Integer()),
        sa.Column("content", sa.Text(), nullable=False),
        *more,
        sa.PrimaryKeyConstraint("chunk_id", name="pk_vector_store_chunks_NEXT" if more else "pk_vector_store_chunks"),
    )
    op.execute(f"INSERT INTO chunks_anew ({NAMES}) SELECT {NAMES} FROM vector_store_chunks")
    indexes = sa.inspect(op.get_bind()).get_indexes("vector_store_chunks")
    op.drop_table("vector_store_chunks")
    op.rename_table("chunks_anew", "vector_store_chunks")
    for index in indexes:
        op.create_index(index["name"], "vector_store_chunks", index["column_names"])
