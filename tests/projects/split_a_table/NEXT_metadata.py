"""Give what providers say of their stores a table of its own.

Revision ID: NEXT
Revises: HEAD
"""

import sqlalchemy as sa
from alembic import op

from vecmigrate import operations

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "store_metadata",
        sa.Column("vector_store_id", sa.Text, primary_key=True),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.execute(
        "INSERT INTO store_metadata SELECT vector_store_id, provider_metadata FROM vector_stores "
        "WHERE provider_metadata IS NOT NULL"
    )
    with op.batch_alter_table("vector_stores") as table:
        table.drop_column("provider_metadata")


def downgrade() -> None:
    op.add_column("vector_stores", sa.Column("provider_metadata", sa.Text))
    op.execute(
        "UPDATE vector_stores SET provider_metadata = (SELECT m.metadata FROM store_metadata AS m "
        "WHERE m.vector_store_id = vector_stores.vector_store_id)"
    )
    operations.stands_elsewhere("store_metadata")
    op.drop_table("store_metadata")
