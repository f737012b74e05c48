"""Make a table of tags, with the view and the trigger that go with it.

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
    tags = op.create_table(
        "tags",
        sa.Column("vector_store_id", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("vector_store_id", "tag"),
    )
    op.bulk_insert(tags, [{"vector_store_id": "*", "tag": "all"}])
    op.execute("CREATE VIEW tagged AS SELECT vector_store_id FROM tags")


def downgrade() -> None:
    op.execute("DROP VIEW tagged")
    op.drop_table("tags")
