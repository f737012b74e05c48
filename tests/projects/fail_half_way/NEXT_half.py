"""Make a table, change rows, and fail.

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
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("UPDATE vector_stores SET provider = 'half'")
    op.execute("INSERT INTO nowhere VALUES (1)")


def downgrade() -> None:
    op.drop_table("half")
