"""Tags, on another branch.

Revision ID: NEXT
Revises: HEAD
"""

revision = "NEXT"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
