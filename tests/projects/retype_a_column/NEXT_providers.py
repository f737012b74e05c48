"""Number the providers.

Revision ID: NEXT
Revises: HEAD
"""

import sqlalchemy as sa
from alembic import op

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None

NUMBERS = {"openai": 1, "hnsw": 2, "inmemory": 3, "pinecone": 4}
NAMES = {number: name for name, number in NUMBERS.items()}
CHANGE = {
    "table": "vector_stores",
    "revision": revision,
    "key": "vector_store_id",
    "change": {
        "provider": (
            sa.Column("provider", sa.Text, nullable=False),
            sa.Column("provider", sa.Integer, nullable=False),
        )
    },
    "up": {"provider": lambda row: NUMBERS.get(row["provider"])},
    "down": {"provider": lambda row: NAMES.get(row["provider"])},
}


def upgrade() -> None:
    op.rebuild_table(**CHANGE)


def downgrade() -> None:
    op.restore_table(**CHANGE)
