"""Operations for revision scripts that lose no row, in either direction.

They are the same as ``op.rebuild_table`` and so on, with types, and run in the same Alembic context.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from vecmigrate.operations import directives
from vecmigrate.operations.v1 import notes
from vecmigrate.operations.v1.cells import count
from vecmigrate.operations.v1.change import ChangeError, Function, Turned
from vecmigrate.operations.v1.notes import note

__all__ = ["ChangeError", "keep_rows", "note", "rebuild_table", "restore_table", "return_rows", "stands_elsewhere"]


def rebuild_table(
    table: str,
    *,
    revision: str,
    key: str | Sequence[str],
    add: Sequence[sa.Column[Any]] = (),
    drop: Sequence[sa.Column[Any]] = (),
    change: Mapping[str, Turned] | None = None,
    up: Mapping[str, Function] | None = None,
    down: Mapping[str, Function] | None = None,
    plain: Mapping[str, str] | None = None,
    semantics: int = 1,
) -> None:
    """Add, drop, rename and retype columns of a table and lose no row.

    *revision* is the revision of the script. *key* names the column, or columns, that tell the rows apart: a primary
    key or a unique index. *change* maps the name of a column to what it is and what it becomes. *up* maps columns of
    the new table, *down* columns of the old one, to functions that get a row as a dict and return the value; None
    where a value is needed sets the row aside. *plain* maps changed columns to an SQL condition over that column
    alone: there the functions need nothing but the value, are called once for each value, and the rows move set
    by set. Both directions get the same arguments. Writes; what it keeps stands in ``vecmigrate_preserved``.

    Raises ChangeError before it writes anything if the arguments contradict each other or the table.
    """
    change_ = directives.change_of(
        table,
        revision=revision,
        key=key,
        add=add,
        drop=drop,
        change=change,
        up=up,
        down=down,
        plain=plain,
        semantics=semantics,
    )
    op.invoke(directives.RebuildTableOp(change_))


def restore_table(
    table: str,
    *,
    revision: str,
    key: str | Sequence[str],
    add: Sequence[sa.Column[Any]] = (),
    drop: Sequence[sa.Column[Any]] = (),
    change: Mapping[str, Turned] | None = None,
    up: Mapping[str, Function] | None = None,
    down: Mapping[str, Function] | None = None,
    plain: Mapping[str, str] | None = None,
    semantics: int = 1,
) -> None:
    """Undo ``rebuild_table``, of the same arguments: rows and columns return as they were, later edits stay.

    Raises ChangeError as ``rebuild_table`` does. Writes.
    """
    change_ = directives.change_of(
        table,
        revision=revision,
        key=key,
        add=add,
        drop=drop,
        change=change,
        up=up,
        down=down,
        plain=plain,
        semantics=semantics,
    )
    op.invoke(directives.RestoreTableOp(change_))


def keep_rows(table: str, *, revision: str, semantics: int = 1) -> None:
    """Keep every row of a table in ``vecmigrate_preserved``, with its rowid, before ``op.drop_table``. Writes."""
    op.invoke(directives.KeepRowsOp(table, revision=revision, semantics=semantics))


def return_rows(table: str, *, revision: str, semantics: int = 1) -> bool:
    """Put kept rows back after ``op.create_table``; a row that the table refuses stays kept. Writes.

    Returns whether the table was kept before, with or without rows. Where it was not, a script that has rows of its
    own for the table puts them in now.
    """
    return bool(op.invoke(directives.ReturnRowsOp(table, revision=revision, semantics=semantics)))


def stands_elsewhere(table: str) -> None:
    """Tell, before a table is dropped, that its rows are not lost: the script has put them into another one.

    Without it a run that drops rows which nothing kept asks for ``--yes``. Reads the number of rows.
    """
    if not op.get_context().as_sql:
        notes.stands_elsewhere(table, count(op.get_bind(), table))
