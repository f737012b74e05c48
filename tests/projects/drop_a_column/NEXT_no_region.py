"""Drop a column that no service uses any more.

Revision ID: NEXT
Revises: HEAD
"""

import sqlalchemy as sa
from alembic import op

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None

CHANGE = {
    "table": "vector_stores",
    "revision": revision,
    "key": "vector_store_id",
    "drop": [sa.Column("provider_metadata", sa.Text)],
}


def upgrade() -> None:
    op.rebuild_table(**CHANGE)


def downgrade() -> None:
    op.restore_table(**CHANGE)
