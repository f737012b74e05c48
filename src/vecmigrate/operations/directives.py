"""The operations as Alembic has them: small classes with a reverse, registered by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations

from vecmigrate.operations.v1.change import Change, ChangeError, Function, Turned
from vecmigrate.operations.v1.rebuild import rebuild
from vecmigrate.operations.v1.sql_script import kept_script, rebuild_script, returned_script
from vecmigrate.operations.v1.whole_table import keep, put_back

__all__ = ["KeepRowsOp", "RebuildTableOp", "RestoreTableOp", "ReturnRowsOp", "change_of"]


def _require_known(semantics: int) -> None:
    if semantics != 1:
        raise ChangeError(f"semantics={semantics} is not known here: 1 is. Nothing was changed.")


class _ChangeOp(MigrateOperation):
    direction = ""

    def __init__(self, change: Change) -> None:
        self.change = change

    def run(self, operations: Operations) -> None:
        if operations.migration_context.as_sql:
            rebuild_script(operations, self.change.way(self.direction))
        else:
            rebuild(operations, self.change, self.direction)


def change_of(
    table: str,
    *,
    revision: str,
    key: str | Sequence[str],
    add: Sequence[sa.Column[Any]] = (),
    drop: Sequence[sa.Column[Any]] = (),
    change: Mapping[str, Turned] | None = None,
    up: Mapping[str, Function | None] | None = None,
    down: Mapping[str, Function | None] | None = None,
    plain: Mapping[str, str] | None = None,
    semantics: int = 1,
) -> Change:
    _require_known(semantics)
    keys = (key,) if isinstance(key, str) else tuple(key)
    return Change(table, revision, keys, add, drop, change or {}, _written(up), _written(down), plain or {})


def _written(functions: Mapping[str, Function | None] | None) -> dict[str, Function]:
    """Leave out what autogenerate wrote as None, for the author to fill in: the change then tells what is missing."""
    return {name: function for name, function in (functions or {}).items() if function is not None}


@Operations.register_operation("rebuild_table")
class RebuildTableOp(_ChangeOp):
    """Changes the columns of a table, with its rows."""

    direction = "upgrade"

    @classmethod
    def rebuild_table(cls, operations: Operations, table: str, **change: Any) -> None:
        """Change the columns of a table and lose no row: see ``vecmigrate.operations.rebuild_table``."""
        operations.invoke(cls(change_of(table, **change)))

    def reverse(self) -> "RestoreTableOp":
        return RestoreTableOp(self.change)


@Operations.register_operation("restore_table")
class RestoreTableOp(_ChangeOp):
    """Gives a table the columns back that ``rebuild_table`` with the same arguments changed."""

    direction = "downgrade"

    @classmethod
    def restore_table(cls, operations: Operations, table: str, **change: Any) -> None:
        """Undo ``rebuild_table`` of the same arguments: see ``vecmigrate.operations.restore_table``."""
        operations.invoke(cls(change_of(table, **change)))

    def reverse(self) -> "RebuildTableOp":
        return RebuildTableOp(self.change)


@Operations.implementation_for(RebuildTableOp)
def _rebuild(operations: Operations, operation: RebuildTableOp) -> None:
    operation.run(operations)


@Operations.implementation_for(RestoreTableOp)
def _restore(operations: Operations, operation: RestoreTableOp) -> None:
    operation.run(operations)


class _RowsOp(MigrateOperation):
    def __init__(self, table: str, *, revision: str, semantics: int = 1) -> None:
        _require_known(semantics)
        self.table = table
        self.revision = revision


@Operations.register_operation("keep_rows")
class KeepRowsOp(_RowsOp):
    """Keeps every row of a table that is to be dropped."""

    @classmethod
    def keep_rows(cls, operations: Operations, table: str, *, revision: str, semantics: int = 1) -> None:
        """Keep the rows of a table: see ``vecmigrate.operations.keep_rows``."""
        operations.invoke(cls(table, revision=revision, semantics=semantics))

    def reverse(self) -> "ReturnRowsOp":
        return ReturnRowsOp(self.table, revision=self.revision)


@Operations.register_operation("return_rows")
class ReturnRowsOp(_RowsOp):
    """Gives a table that was made again the rows that ``keep_rows`` kept."""

    @classmethod
    def return_rows(cls, operations: Operations, table: str, *, revision: str, semantics: int = 1) -> bool:
        """Put kept rows back: see ``vecmigrate.operations.return_rows``."""
        return bool(operations.invoke(cls(table, revision=revision, semantics=semantics)))

    def reverse(self) -> "KeepRowsOp":
        return KeepRowsOp(self.table, revision=self.revision)


@Operations.implementation_for(KeepRowsOp)
def _keep(operations: Operations, operation: KeepRowsOp) -> None:
    run = kept_script if operations.migration_context.as_sql else keep
    run(operations, operation.table, operation.revision)


@Operations.implementation_for(ReturnRowsOp)
def _return(operations: Operations, operation: ReturnRowsOp) -> bool:
    if operations.migration_context.as_sql:
        returned_script(operations, operation.table, operation.revision)
        return False
    return put_back(operations, operation.table, operation.revision)
