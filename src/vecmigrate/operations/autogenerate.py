"""What ``alembic revision --autogenerate`` writes for columns that come, go or change: operations that lose no row."""

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _render_column
from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    DropColumnOp,
    MigrationScript,
    ModifyTableOps,
)
from alembic.runtime.migration import MigrationContext

from vecmigrate.operations.v1.change import affinity

__all__ = ["propose"]

_OF_COLUMNS = (AddColumnOp, AlterColumnOp, DropColumnOp)


class _ProposedOp(MigrateOperation):
    """A call of an operation with a CHANGE that stands at the top of the script."""

    def __init__(self, function: str, name: str) -> None:
        self.function = function
        self.name = name


@renderers.dispatch_for(_ProposedOp)
def _render(_context: AutogenContext, operation: _ProposedOp) -> str:
    return f"op.{operation.function}(**{operation.name})"


def propose(migration: MigrationContext, script: MigrationScript) -> str:
    """Put ``rebuild_table`` and ``restore_table`` in the place of plain changes of columns.

    Returns the text of their arguments, for the top of the script; it is empty where no column changes.
    """
    up, down = script.upgrade_ops, script.downgrade_ops
    if up is None or down is None:
        return ""
    tables = [each for each in up.ops if isinstance(each, ModifyTableOps) and any(_changes(each))]
    texts = []
    for changed in tables:
        name = "CHANGE" if len(tables) == 1 else f"CHANGE_{changed.table_name.upper()}"
        texts.append(_text(migration, changed, name))
        _exchange(up.ops, changed.table_name, _ProposedOp("rebuild_table", name), is_first=True)
        _exchange(down.ops, changed.table_name, _ProposedOp("restore_table", name), is_first=False)
    return "\n\n".join(texts)


def _changes(table: ModifyTableOps) -> Iterator[Any]:
    return (each for each in table.ops if isinstance(each, _OF_COLUMNS))


def _exchange(operations: list[Any], table: str, proposed: _ProposedOp, *, is_first: bool) -> None:
    """Exchange the changes of columns for one operation; what else changes in the table stays beside it."""
    for position, each in enumerate(operations):
        if isinstance(each, ModifyTableOps) and each.table_name == table:
            rest = [other for other in each.ops if not isinstance(other, _OF_COLUMNS)]
            others = [ModifyTableOps(table, rest)] if rest else []
            operations[position : position + 1] = [proposed, *others] if is_first else [*others, proposed]
            return


def _text(migration: MigrationContext, table: ModifyTableOps, name: str) -> str:
    context = AutogenContext(migration, autogenerate=False)
    added = [each.column for each in _changes(table) if isinstance(each, AddColumnOp)]
    dropped = [each.to_column() for each in _changes(table) if isinstance(each, DropColumnOp)]
    turned = [_turned(each) for each in _changes(table) if isinstance(each, AlterColumnOp)]
    lines = [f"{name} = {{", f'    "table": "{table.table_name}",', '    "revision": revision,']
    lines.append(f'    "key": {_key(migration, table.table_name)},')
    for word, columns in (("add", added), ("drop", dropped)):
        if columns:
            rendered = [_render_column(column, context) for column in columns]
            lines += [f'    "{word}": [', *(f"        {each}," for each in rendered), "    ],"]
    if turned:
        lines.append('    "change": {')
        for old, new in turned:
            pair = ", ".join(_render_column(column, context) for column in (old, new))
            lines.append(f'        "{old.name}": ({pair}),')
        lines.append("    },")
    retyped = [(old, new) for old, new in turned if affinity(old) != affinity(new)]
    lines += _functions("up", [new.name for _, new in retyped] + _without_value(added))
    lines += _functions("down", [old.name for old, _ in retyped] + _without_value(dropped))
    return "\n".join([*lines, "}"])


def _functions(word: str, names: Iterable[str]) -> list[str]:
    """Return the lines of functions that the author has to write; until then, None is told as a mistake."""
    found = [f'        "{name}": None,  # a function: lambda row: ...' for name in names]
    return [f'    "{word}": {{', *found, "    },"] if found else []


def _without_value(columns: Iterable[sa.Column[Any]]) -> list[str]:
    return [column.name for column in columns if not column.nullable and column.server_default is None]


def _turned(operation: AlterColumnOp) -> tuple[sa.Column[Any], sa.Column[Any]]:
    old = sa.Column(operation.column_name, operation.existing_type, nullable=operation.existing_nullable)
    existing, default = operation.existing_server_default, operation.modify_server_default
    old.server_default = _default(existing) if existing is not False else None
    nullable = operation.existing_nullable if operation.modify_nullable is None else operation.modify_nullable
    new = sa.Column(operation.column_name, operation.modify_type or operation.existing_type, nullable=nullable)
    new.server_default = old.server_default if default is False else _default(default)
    return old, new


def _default(value: Any) -> sa.FetchedValue | None:
    return value if value is None or isinstance(value, sa.FetchedValue) else sa.DefaultClause(value)


def _key(migration: MigrationContext, table: str) -> str:
    metadata: Any = migration.opts["target_metadata"]
    names = [column.name for column in metadata.tables[table].primary_key.columns]
    return f'"{names[0]}"' if len(names) == 1 else repr(tuple(names))
