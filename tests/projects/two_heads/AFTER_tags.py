"""Tags, on another branch.

Revision ID: AFTER
Revises: HEAD
"""

revision = "AFTER"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
