"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}

A revision is frozen once it is released. It imports only alembic.op, sqlalchemy and the standard library,
names its constraints, never commits, loses no row (what a column cannot hold goes to
vecmigrate_preserved), and its downgrade gives back what its upgrade found. It has no effects outside the
database, because it is also rehearsed on a copy of the schema, without rows, before every run.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
