"""What a rebuild changes in a table, told once, and the two ways that it goes."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from vecmigrate.operations.v1.codec import Row

__all__ = ["Change", "ChangeError", "Function", "Turned", "Way", "affinity", "affinity_of"]

Function = Callable[[Row], Any]
Turned = tuple[sa.Column[Any], sa.Column[Any]]


class ChangeError(RuntimeError):
    """The call of an operation is wrong, or the table is not as it says. Nothing was written."""


def affinity_of(declared: str) -> str:
    """Return what SQLite makes of the type of a column.

    https://www.sqlite.org/datatype3.html#determination_of_column_affinity
    """
    name = declared.upper()
    for found, pieces in (("INTEGER", ("INT",)), ("TEXT", ("CHAR", "CLOB", "TEXT")), ("BLOB", ("BLOB",))):
        if any(piece in name for piece in pieces):
            return found
    if not name.strip():
        return "BLOB"
    return "REAL" if any(piece in name for piece in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def affinity(column: sa.Column[Any]) -> str:
    return affinity_of(column.type.compile(dialect=sqlite_dialect()))


@dataclass(frozen=True)
class Way:
    """A change in one direction: from the *source*, the table as it is, to the *target*, as it is to be."""

    direction: str
    table: str
    revision: str
    operation: str
    key: tuple[str, ...]
    gone: tuple[sa.Column[Any], ...]
    come: tuple[sa.Column[Any], ...]
    turned: tuple[Turned, ...]
    forward: Mapping[str, Function]
    backward: Mapping[str, Function]
    plain: Mapping[str, str]
    plain_is_source: bool

    @property
    def opposite(self) -> str:
        return "downgrade" if self.direction == "upgrade" else "upgrade"

    @cached_property
    def names(self) -> dict[str, str]:
        """The columns that stay under another name or type, with their new names."""
        return {old.name: new.name for old, new in self.turned}

    @cached_property
    def target_key(self) -> tuple[str, ...]:
        return tuple(self.names.get(column, column) for column in self.key)

    @cached_property
    def touched(self) -> tuple[str, ...]:
        """The columns of the source that the change is about."""
        return (*self.names, *(column.name for column in self.gone))

    @cached_property
    def target_touched(self) -> tuple[str, ...]:
        return (*self.names.values(), *(column.name for column in self.come))

    @property
    def has_functions(self) -> bool:
        return bool(self.forward or self.backward)


@dataclass(frozen=True)
class Change:
    """The arguments of ``rebuild_table`` and ``restore_table``. Raises ChangeError where they contradict each other."""

    table: str
    revision: str
    key: tuple[str, ...]
    add: Sequence[sa.Column[Any]] = ()
    drop: Sequence[sa.Column[Any]] = ()
    change: Mapping[str, Turned] = field(default_factory=dict)
    up: Mapping[str, Function] = field(default_factory=dict)
    down: Mapping[str, Function] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise ChangeError(f"{self.operation_of_table}: {'; '.join(faults)}. Nothing was changed.")

    @property
    def operation_of_table(self) -> str:
        return f"revision {self.revision}, the change of {self.table}"

    @property
    def operation(self) -> str:
        """What tells this change from others of the same table in the same revision."""
        words = [f"add {column.name}" for column in self.add] + [f"drop {column.name}" for column in self.drop]
        return "; ".join(sorted(words + [f"change {name}" for name in self.change]))

    def way(self, direction: str) -> Way:
        is_up = direction == "upgrade"
        turned = tuple(self.change.values())
        return Way(
            direction=direction,
            table=self.table,
            revision=self.revision,
            operation=self.operation,
            key=self.key if is_up else self._new_key(),
            gone=tuple(self.drop if is_up else self.add),
            come=tuple(self.add if is_up else self.drop),
            turned=turned if is_up else tuple((new, old) for old, new in turned),
            forward=self.up if is_up else self.down,
            backward=self.down if is_up else self.up,
            plain=self.plain if is_up else {self.change[name][1].name: sql for name, sql in self.plain.items()},
            plain_is_source=is_up,
        )

    def _new_key(self) -> tuple[str, ...]:
        return tuple(self.change[name][1].name if name in self.change else name for name in self.key)

    def _faults(self) -> Iterable[str]:
        before = [*self.change, *(column.name for column in self.drop)]
        after = [new.name for _, new in self.change.values()] + [column.name for column in self.add]
        if not before and not after:
            yield "nothing changes"
        yield from (f"the column {name} is named twice" for names in (before, after) for name in _twice(names))
        yield from (f"the key {name} would be dropped" for name in self.key if name in {c.name for c in self.drop})
        yield from (
            f"the column {old.name} is changed under the name {name}"
            for name, (old, _) in self.change.items()
            if old.name != name
        )
        yield from self._faults_of_functions(before, after)
        if not self.key:
            yield "a key is needed"
        columns = [*self.add, *self.drop, *(each for turned in self.change.values() for each in turned)]
        yield from (f"the column {c.name} has no type" for c in columns if isinstance(c.type, sa.types.NullType))
        for name in (*before, *after, *self.key):
            if not re.fullmatch(r"[^\W\d]\w*", name):
                yield f"{name!r} is no plain name of a column"

    def _faults_of_functions(self, before: Sequence[str], after: Sequence[str]) -> Iterable[str]:
        for word, functions, known in (("up", self.up, after), ("down", self.down, before)):
            yield from (f"{word} has {name}, which it does not make" for name in functions if name not in known)
        yield from (f"plain has {name}, which is not changed" for name in self.plain if name not in self.change)
        for old, new in self.change.values():
            if isinstance(old.type, sa.types.NullType) or isinstance(new.type, sa.types.NullType):
                continue
            if affinity(old) != affinity(new):
                # Without a function 'openai' would become 0, or stay a text in a column of numbers.
                yield from _missing(self.up, new, "up", f"{old.name} gets another type")
                yield from _missing(self.down, old, "down", f"{new.name} gets its old type again")
        for word, columns, functions in (("up", self.add, self.up), ("down", self.drop, self.down)):
            for column in columns:
                if not column.nullable and column.server_default is None and column.identity is None:
                    yield from _missing(functions, column, word, f"{column.name} may not be NULL and has no default")


def _missing(functions: Mapping[str, Function], column: sa.Column[Any], word: str, why: str) -> Iterable[str]:
    if column.name not in functions:
        yield f"{word} needs a function for {column.name}, because {why}"


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
