"""Call the file of a chunk its path.

Revision ID: NEXT
Revises: HEAD
"""

from alembic import op

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("vector_store_chunks", "file_path", new_column_name="path")


def downgrade() -> None:
    op.alter_column("vector_store_chunks", "path", new_column_name="file_path")
