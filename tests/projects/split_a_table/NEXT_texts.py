"""Give the texts of chunks a table of their own.

Revision ID: NEXT
Revises: HEAD
"""

import sqlalchemy as sa
from alembic import op

from vecmigrate.operations.v1.notes import stands_elsewhere

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chunk_texts",
        sa.Column("chunk_id", sa.Text, primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.execute("INSERT INTO chunk_texts (chunk_id, content) SELECT chunk_id, content FROM vector_store_chunks")
    with op.batch_alter_table("vector_store_chunks") as table:
        table.drop_column("content")


def downgrade() -> None:
    op.add_column("vector_store_chunks", sa.Column("content", sa.Text, server_default=sa.text("''"), nullable=False))
    op.execute(
        "UPDATE vector_store_chunks SET content = (SELECT t.content FROM chunk_texts AS t "
        "WHERE t.chunk_id = vector_store_chunks.chunk_id)"
    )
    with op.batch_alter_table("vector_store_chunks") as table:
        table.alter_column("content", existing_type=sa.Text, existing_nullable=False, server_default=None)
    count = op.get_bind().scalar(sa.text("SELECT count(*) FROM chunk_texts"))
    stands_elsewhere("chunk_texts", count)
    op.drop_table("chunk_texts")
