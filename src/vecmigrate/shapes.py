"""What the revision scripts make, learned by running them on an empty database."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, column, inspect, select, table

from vecmigrate.catalog import Object, column_names, objects
from vecmigrate.engine import scratch
from vecmigrate.schema import OWN_PREFIX, tool_metadata
from vecmigrate.steps import Steps, run_scripts, script_of, target_of
from vecmigrate.triggers import broken

__all__ = ["Seeds", "Shape", "Shapes", "adopts", "adopts_views", "is_of_the_clock"]


_LADDERS = 8
_learned: dict[tuple[bytes, ...], Mapping[str | None, "Shape"]] = {}
"""The shapes by the texts of the scripts: a process runs the same scripts on an empty database once."""


@dataclass(frozen=True)
class Seeds:
    """The rows that scripts themselves put into a table, and its key. They are no user's rows."""

    key: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Shape:
    """What the scripts up to a revision give on an empty database: columns by table, other objects by name.

    Names of tables, indexes, views and triggers are in lower case.
    """

    tables: Mapping[str, frozenset[str]] = field(default_factory=dict)
    indexes: frozenset[str] = frozenset()
    hanging: frozenset[str] = frozenset()
    """Views and triggers."""
    broken: frozenset[str] = frozenset()
    """Those of them that do not work, in words."""
    seeds: Mapping[str, Seeds] = field(default_factory=dict)


class Shapes:
    """The shape at each revision up to one, all from one run of the scripts on an empty SQLite database.

    Tables for the bookkeeping of scripts (``vecmigrate_...``) are left out. ``fault`` is what a script raised that
    does not run there (it may need a table of the service); what it and those above make is not known then.
    """

    def __init__(self, script: ScriptDirectory, top: str | None) -> None:
        self._script = script
        self._top = top
        self.fault: Exception | None = None

    @property
    def is_known(self) -> bool:
        """Tell whether all scripts ran."""
        return bool(self._shapes) and self.fault is None

    def at(self, revision: str | None) -> Shape:
        """Return the shape at a revision, None for base; an empty one where it is not known."""
        return self._shapes.get(revision, Shape())

    @cached_property
    def every(self) -> Shape:
        """What the scripts make at any of the revisions, as one."""
        shapes = self._shapes.values()
        return Shape(
            tables={name: columns for shape in shapes for name, columns in shape.tables.items()},
            indexes=frozenset().union(*(shape.indexes for shape in shapes)),
            hanging=frozenset().union(*(shape.hanging for shape in shapes)),
        )

    def scripts(self, above: str | None = None) -> list[Script]:
        """Return all scripts of the ladder above a revision, lowest first: also those above the top."""
        return list(self._script.iterate_revisions("heads", above or "base"))[::-1]

    def seeds(self, name: str) -> tuple[tuple[str, ...], list[list[Mapping[str, Any]]]]:
        """Return the key of a table, and what each row that scripts put there looks like at the revisions."""
        found = [shape.seeds[name] for shape in self._shapes.values() if name in shape.seeds]
        key = found[-1].key if found else ()
        versions: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
        for row in (row for seeds in found if seeds.key == key for row in seeds.rows):
            # Without its key, which comes from the clock, a row could not be known again.
            if row.keys() >= set(key):
                versions.setdefault(tuple(row[each] for each in key), []).append(row)
        return key, list(versions.values())

    @cached_property
    def adopted(self) -> Mapping[str, tuple[frozenset[str], ...]]:
        """The shapes of tables that may be there before the ladder, of all scripts."""
        return {name: shapes for each in self.scripts() for name, shapes in adopts(each).items()}

    @cached_property
    def tables(self) -> frozenset[str]:
        """The tables of the ladder: all that the scripts make or adopt."""
        return frozenset(self.every.tables) | frozenset(self.adopted)

    @cached_property
    def hanging(self) -> frozenset[str]:
        """Views and triggers of the ladder: those that the scripts make, and the views that they adopt."""
        return self.every.hanging.union(*(adopts_views(each) for each in self.scripts()))

    @cached_property
    def _shapes(self) -> Mapping[str | None, Shape]:
        if self._top is None:
            return {None: Shape()}
        steps = self._script._upgrade_revs(self._top, "base")  # noqa: SLF001
        texts = tuple(Path(script.path).read_bytes() for step in steps if (script := script_of(step)))
        shapes = _learned.get(texts) or self._learn(steps)
        if self.fault is None:
            if len(_learned) >= _LADDERS:
                _learned.clear()
            _learned[texts] = shapes
        return shapes

    def _learn(self, steps: Steps) -> Mapping[str | None, Shape]:
        shapes: dict[str | None, Shape] = {None: Shape()}
        with scratch() as empty:
            tool_metadata.create_all(empty)
            began = time.time()
            for step in steps:
                try:
                    run_scripts(empty, self._script, [step])
                    shapes[target_of(step)] = _shape(empty, began)
                except Exception as error:  # noqa: BLE001 - kept, and who needs to know all asks for it
                    self.fault = error
                    break
        return shapes


def adopts(script: Script) -> Mapping[str, tuple[frozenset[str], ...]]:
    """Return the shapes of tables that may be there before a script: its ``ADOPTS``, columns by table."""
    return getattr(script.module, "ADOPTS", {})


def adopts_views(script: Script) -> tuple[str, ...]:
    """Return the views that are kept with the tables that a script adopts: its ``ADOPTS_VIEWS``."""
    return getattr(script.module, "ADOPTS_VIEWS", ())


def _shape(connection: Connection, began: float) -> Shape:
    found = [each for each in objects(connection) if not each.table.startswith(OWN_PREFIX)]
    tables = [each.name for each in found if each.type == "table" and not each.name.startswith("sqlite_")]
    return Shape(
        tables={name.lower(): column_names(connection, name) for name in tables},
        indexes=_named(found, {"index"}),
        hanging=_named(found, {"view", "trigger"}),
        broken=frozenset(f"the {each.type} {each.name}" for each in broken(connection, found, _hanging(found))),
        seeds={name.lower(): seeds for name in tables if (seeds := _seeds(connection, name, began)).rows},
    )


def _hanging(found: list[Object]) -> list[Object]:
    return [each for each in found if each.type in {"view", "trigger"}]


def _named(found: list[Object], types: set[str]) -> frozenset[str]:
    return frozenset(each.name.lower() for each in found if each.type in types and each.sql)


def _seeds(connection: Connection, name: str, began: float) -> Seeds:
    inspector = inspect(connection)
    columns = [each["name"] for each in inspector.get_columns(name)]
    key = tuple(inspector.get_pk_constraint(name)["constrained_columns"]) or tuple(columns)
    rows = connection.execute(select(*map(column, columns)).select_from(table(name))).mappings()
    # What a script takes from the clock is another value in each database.
    told = [{each: row[each] for each in columns if not is_of_the_clock(row[each], began)} for row in rows]
    return Seeds(key, tuple(told))


def is_of_the_clock(value: object, began: float) -> bool:
    """Tell whether a value is a time since ``began``: in (milli- or micro-)seconds since 1970, or in ISO form."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return False
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not isinstance(value, int | float):
        return False
    return any(began - 1 <= value / unit <= time.time() + 1 for unit in (1, 1_000, 1_000_000))
