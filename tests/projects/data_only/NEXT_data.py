"""Write the providers in capital letters.

Revision ID: NEXT
Revises: HEAD
"""

from alembic import op

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE vector_stores SET provider = upper(provider)")


def downgrade() -> None:
    op.execute("UPDATE vector_stores SET provider = lower(provider)")
