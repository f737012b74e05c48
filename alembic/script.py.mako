"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}

For authors. A revision is frozen once it is released. It imports only alembic.op, sqlalchemy, the standard library and
vecmigrate.operations, names its constraints, never commits, and has no effects outside the database, because it is also
rehearsed on a copy of the schema, without rows, before every run. Its downgrade gives back what its upgrade found.

- A column that comes, goes, gets another name or type: op.rebuild_table(**CHANGE) up, op.restore_table(**CHANGE) down.
  What the other shape cannot hold is kept in vecmigrate_preserved, and comes back.
- A table that goes: op.keep_rows("name", revision=revision), then op.drop_table("name"); down, op.create_table(...), then
  op.return_rows("name", revision=revision). For a new table the other way round.
- An index: op.create_index, op.drop_index. Rows: op.execute with plain SQL.

Triggers of a table that a script makes anew are put back, unless it drops them by name.

docs/writing-revisions.md has an example of each. `vecmigrate new "add tags"` writes the script, its line in the app-version
map and its test; what another command has written has to be entered in src/vecmigrate/app_versions.toml by hand. Then run
`vecmigrate check`. Where two branches have taken one number: `vecmigrate new --renumber NNN_slug`.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
% if changes:

${changes}
% endif


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
