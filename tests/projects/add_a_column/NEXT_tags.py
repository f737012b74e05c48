"""Add a column of tags.

Revision ID: NEXT
Revises: HEAD
"""

import sqlalchemy as sa
from alembic import op

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("vector_stores", sa.Column("tags", sa.Text))


def downgrade() -> None:
    with op.batch_alter_table("vector_stores") as table:
        table.drop_column("tags")
