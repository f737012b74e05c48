"""Plain rows: they move inside the database, set by set, and what of them is lost is kept the same way."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from vecmigrate.catalog import is_sqlite, quoted
from vecmigrate.operations.v1 import json_sql, plain
from vecmigrate.operations.v1.cells import insert_into, run
from vecmigrate.operations.v1.change import Way
from vecmigrate.operations.v1.exchange import Tables
from vecmigrate.operations.v1.kept_rows import RESTORE, KeptRows
from vecmigrate.operations.v1.mapping import Mapping as ValueMapping
from vecmigrate.operations.v1.mirror import keeps_sql
from vecmigrate.operations.v1.present import UNKNOWN
from vecmigrate.operations.v1.returns import RETURNS, Returns

__all__ = ["Sets"]

_REFUSALS = (sa.exc.IntegrityError, sa.exc.DataError)


class Sets:
    """The way of plain rows. First ``mark_odd`` tells which rows are none, and need Python."""

    def __init__(
        self,
        way: Way,
        kept: KeptRows,
        tables: Tables,
        *,
        maps: Sequence[ValueMapping],
        records: Returns,
        gone_defaults: Mapping[str, Any],
    ) -> None:
        self._way, self._kept, self._tables = way, kept, tables
        self._maps, self._records = maps, records
        self._gone_defaults = gone_defaults
        self._connection = kept.connection
        self._is_sqlite = is_sqlite(kept.connection)
        self._key = plain.row_key(kept.connection)
        mapped = {each.target for each in maps}
        unmapped = {new for new in way.forward if new not in mapped}
        self._needs_python = bool(unmapped or {old for old in way.backward if way.names.get(old) not in mapped})
        self._rows = f"{quoted(tables.rows)} s"

    # What is odd.

    def mark_odd(self) -> None:
        conditions = list(self._odd())
        if conditions:
            joins = self._joins(maps="LEFT JOIN")
            where = " OR ".join(f"({each})" for each in conditions)
            run(
                self._connection,
                f"INSERT INTO {plain.ODD} (key) SELECT {self._key} FROM {self._rows}{joins} WHERE {where}",
            )
        if self._is_sqlite and self._way.gone and not self._needs_python and self._loses_something():
            plain.mark_undecodable(self._connection, self._tables.rows, self._kept_columns())

    def has_odd(self) -> bool:
        return bool(run(self._connection, f"SELECT EXISTS (SELECT 1 FROM {plain.ODD})").scalar())

    def _kept_columns(self) -> list[str]:
        return list(dict.fromkeys((*self._way.key, *self._way.touched)))

    def _odd(self) -> Iterator[str]:
        way, mapped = self._way, {each.target for each in self._maps}
        if self._needs_python:
            yield "TRUE"
            return
        yield from (f"{each.name}.old IS NULL" for each in self._maps)
        for old, new in way.names.items():
            if new not in mapped:
                target, name = self._tables.target.column(new), f"s.{quoted(old)}"
                if self._is_sqlite and target.affinity != "BLOB":
                    yield f"NOT ({keeps_sql(target.affinity, name)})"
                if target.is_needed:
                    yield f"{name} IS NULL"
        if self._records.any:
            yield "r.is_plain = 0"
        if self._way.gone:
            source = self._tables.source
            simple = json_sql.is_simple(self._connection, map(source.column, self._kept_columns()))
            keys = " AND ".join(f"s.{quoted(column)} IS NOT NULL" for column in way.key)
            yield f"({self._lost()}) AND NOT ({simple} AND {keys})"

    def _loses_something(self) -> bool:
        query = f"SELECT EXISTS (SELECT 1 FROM {self._rows} WHERE {self._lost()})"
        return bool(run(self._connection, query).scalar())

    def _lost(self) -> str:
        return " OR ".join(f"({self._lost_in(column.name)})" for column in self._way.gone) or "FALSE"

    def _lost_in(self, column: str) -> str:
        """Return the condition that the way back would not give this value by itself."""
        default, name = self._gone_defaults[column], f"s.{quoted(column)}"
        if default is UNKNOWN:
            return "TRUE"
        if default is None:
            return f"{name} IS NOT NULL"
        literal = str(default) if isinstance(default, int) else "'" + default.replace("'", "''") + "'"
        if not self._is_sqlite:
            return f"{name} IS DISTINCT FROM {literal}"
        return f"{name} COLLATE BINARY IS NOT {literal} OR typeof({name}) <> typeof({literal})"

    # How they move.

    def _joins(self, *, maps: str = "JOIN") -> str:
        joins = "".join(f" {maps} {each.name} ON {each.match()}" for each in self._maps)
        if self._records.any:
            joins += f" LEFT JOIN {RETURNS} r ON {self._records.match()}"
        return joins

    def _values(self) -> dict[str, str]:
        """Return for each column of the target the expression of its value; who is not named gets its default."""
        way, mapped = self._way, {each.target: f"{each.name}.new" for each in self._maps}
        gone = {column.name for column in way.gone}
        stay = [name for name in self._tables.source.names if name not in gone]
        found = {way.names.get(name, name): f"s.{quoted(name)}" for name in stay} | mapped
        if self._records.any:
            for column in way.come:
                target = self._tables.target.column(column.name)
                value = json_sql.read_value(self._connection, "p.row", column.name, target.type)
                found[column.name] = f"CASE WHEN r.id IS NULL THEN {target.default or 'NULL'} ELSE {value} END"
        return found

    def copy(self, *, must_be_unique: bool) -> None:
        """Move the plain rows. Those that the rules of the target refuse are marked as odd."""
        if self._needs_python:
            self._tables.make_unique()
            return
        try:
            with self._connection.begin_nested():
                self._insert(insert_into(self._connection, self._tables.target.name))
                if must_be_unique:
                    self._tables.make_unique()
        except _REFUSALS:
            self._tables.make_unique()
            self._copy_admitted()

    def _insert(self, into: str) -> None:
        values = self._values()
        if self._tables.source.has_rowid and self._tables.target.has_rowid and not self._tables.target.rowid_is_column:
            values["rowid"] = self._key
        joins = self._joins()
        if self._records.any:
            joins += " LEFT JOIN vecmigrate_preserved p ON p.id = r.id"
        order = f" ORDER BY {self._key}" if joins else ""
        run(
            self._connection,
            f"{into} ({', '.join(map(quoted, values))}) SELECT {', '.join(values.values())} "
            f"FROM {self._rows}{joins} WHERE {plain.is_not_odd(self._key)}{order}",
        )

    def _copy_admitted(self) -> None:
        target, source = self._tables.target, self._tables.source
        missing = f"NOT EXISTS (SELECT 1 FROM {quoted(target.name)} n WHERE n.rowid = {self._key})"
        if self._is_sqlite and source.has_rowid and target.has_rowid:
            try:
                with self._connection.begin_nested():
                    self._insert(f"INSERT OR IGNORE INTO {quoted(target.name)}")
                    self._mark_rest(missing)
            except _REFUSALS:
                self._mark_rest("TRUE")
        else:
            self._mark_rest("TRUE")

    def _mark_rest(self, where: str) -> None:
        among = plain.is_not_odd(self._key)
        run(
            self._connection,
            f"INSERT INTO {plain.ODD} (key) SELECT {self._key} FROM {self._rows} WHERE {among} AND {where}",
        )

    def keep_lost(self) -> None:
        """Keep what plain rows lose, each with its key."""
        if not self._way.gone or self._needs_python:
            return
        way, values = self._way, self._values()
        row = [(column, f"s.{quoted(column)}") for column in self._kept_columns()]
        landed = [(name, values[name]) for name in dict.fromkeys((*way.target_key, *way.names.values()))]
        key = json_sql.key_sql(self._connection, [values[name] for name in way.target_key])
        lost = [f"CASE WHEN {self._lost_in(c.name)} THEN ', {c.name}' ELSE '' END" for c in way.gone]
        texts = ", ".join(["CAST(? AS TEXT)"] * 3)
        order = f" ORDER BY {self._key}"
        run(
            self._connection,
            "INSERT INTO vecmigrate_preserved (revision, direction, source_table, treatment, operation, preserved_at, "
            f"landed, row, target_key, converted, reason) SELECT {texts}, {texts}, 1, "
            f"{json_sql.json_row(self._connection, row)}, {key}, {json_sql.json_row(self._connection, landed)}, "
            f"'no column for ' || substr({' || '.join(lost)}, 3) FROM {self._rows}{self._joins()} "
            f"WHERE {plain.is_not_odd(self._key)} AND ({self._lost()}){order}",
            (way.revision, way.direction, way.table, RESTORE, self._kept.operation, self._kept.now),
        )
