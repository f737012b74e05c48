"""A column in a table with triggers of ours, in the words of plain Alembic.

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
    with op.batch_alter_table("vector_store_chunks", recreate="auto") as batch:
        batch.add_column(sa.Column("language", sa.Text()))
        batch.alter_column("end_line", existing_type=sa.Integer(), type_=sa.BigInteger())


def downgrade() -> None:
    with op.batch_alter_table("vector_store_chunks", recreate="auto") as batch:
        batch.alter_column("end_line", existing_type=sa.BigInteger(), type_=sa.Integer())
        batch.drop_column("language")
