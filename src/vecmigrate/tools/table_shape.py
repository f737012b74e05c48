"""The shape of a table of SQLite, told so that two spellings of the same are equal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from vecmigrate.catalog import Object, quoted
from vecmigrate.operations.v1.definition import name_of, parsed, tokens

__all__ = ["TableShape", "normal", "table_shape"]


def normal(sql: str) -> str:
    """Return SQL without what means nothing: spaces, comments, quotes and the case of names."""
    pieces = ((kind, piece) for kind, piece in tokens(sql) if kind != "space")
    return " ".join(name_of(piece) if kind == "name" else piece for kind, piece in pieces).rstrip(" ;")


@dataclass(frozen=True)
class TableShape:
    """Columns by name, CHECKs, unique keys, foreign keys, and the ending.

    ``constraints`` are the unique keys that are constraints of the table, ``indexes`` those of unique indexes by the
    name of the index; either serves.
    """

    columns: Mapping[str, str]
    checks: frozenset[str]
    constraints: frozenset[str]
    indexes: Mapping[str, str]
    references: frozenset[str]
    ending: str
    sql: str

    @property
    def keys(self) -> frozenset[str]:
        return self.constraints | frozenset(self.indexes.values())

    def is_like(self, other: "TableShape") -> bool:
        return self.columns.keys() == other.columns.keys() and not self.faults(other) and not other.faults(self)

    def faults(self, there: "TableShape") -> list[str]:
        """Return how another shape differs, in words; of columns, those that both have."""
        shared = [name for name in self.columns if name in there.columns]
        found = [
            f"the column {name} is {there.columns[name]}, not {self.columns[name]}"
            for name in shared
            if there.columns[name] != self.columns[name]
        ]
        found += [f"it lacks CHECK {check}" for check in sorted(self.checks - there.checks)]
        found += [f"it has CHECK {check} of its own" for check in sorted(there.checks - self.checks)]
        found += [f"it lacks the unique key {key}" for key in sorted(self.constraints - there.keys)]
        found += [f"it lacks the foreign key {key}" for key in sorted(self.references - there.references)]
        found += [f"it has the foreign key {key} of its own" for key in sorted(there.references - self.references)]
        if self.ending != there.ending:
            found.append(f"it ends with {there.ending or 'nothing'}, not {self.ending or 'nothing'}")
        return found

    def addition(self, table: str, column: str) -> str | None:
        """Return the statement that adds a column again, None where SQLite cannot add one like it."""
        told = self.columns[column]
        if "PRIMARY KEY" in told or "generated" in told or ("NOT NULL" in told and "default" not in told):
            return None
        part = " ".join(parsed(self.sql).column(column).sql.split())
        is_plain = not {"unique", "references"} & set(normal(part).split())
        return f"ALTER TABLE {quoted(table)} ADD COLUMN {part}" if is_plain else None


def table_shape(connection: Connection, table: Object) -> TableShape:
    """Return the shape of a table. Read-only."""
    keys = list(_keys(connection, table.name))
    return TableShape(
        columns=dict(_columns(connection, table.name)),
        checks=frozenset(_checks(table.sql)),
        constraints=frozenset(key for name, key in keys if name.startswith("sqlite_autoindex_")),
        indexes={name: key for name, key in keys if not name.startswith("sqlite_autoindex_")},
        references=frozenset(_references(connection, table.name)),
        ending=_ending(table.sql),
        sql=table.sql,
    )


def _columns(connection: Connection, table: str) -> Iterator[tuple[str, str]]:
    for row in connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(table)})").mappings():
        default = f"default {normal(row['dflt_value'])}" if row["dflt_value"] is not None else ""
        told = (
            " ".join(row["type"].upper().split()),
            "NOT NULL" if row["notnull"] else "",
            default,
            f"PRIMARY KEY {row['pk']}" if row["pk"] else "",
            "generated" if row["hidden"] else "",
        )
        yield row["name"].lower(), " ".join(filter(None, told))


def _checks(sql: str) -> Iterator[str]:
    """Yield what stands in brackets behind each CHECK."""
    pieces = [(kind, piece) for kind, piece in tokens(sql) if kind != "space"]
    for place, (kind, piece) in enumerate(pieces):
        if kind == "name" and piece.upper() == "CHECK":
            depth, inside = 0, []
            for _, each in pieces[place + 1 :]:
                depth += (each == "(") - (each == ")")
                inside.append(each)
                if depth == 0:
                    break
            yield normal(" ".join(inside))


def _keys(connection: Connection, table: str) -> Iterator[tuple[str, str]]:
    """Yield each unique key with the name of its index, which for a constraint SQLite has made."""
    for index in connection.exec_driver_sql(f"PRAGMA index_list({quoted(table)})").mappings().all():
        if not index["unique"]:
            continue
        rows = connection.exec_driver_sql(f"PRAGMA index_xinfo({quoted(index['name'])})").mappings()
        columns = [f"{(row['name'] or '?').lower()} {row['coll'].lower()}" for row in rows if row["key"]]
        query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?"
        sql = connection.exec_driver_sql(query, (index["name"],)).scalar() or ""
        # Only its SQL tells the condition of a partial index, and an expression.
        is_told_by_sql = index["partial"] or any(each.startswith("? ") for each in columns)
        told = normal(sql).partition(" ( ")[2] if is_told_by_sql else ", ".join(columns)
        yield index["name"].lower(), f"({told})"


def _references(connection: Connection, table: str) -> Iterator[str]:
    rows = connection.exec_driver_sql(f"PRAGMA foreign_key_list({quoted(table)})").mappings().all()
    for number in {row["id"] for row in rows}:
        mine = sorted((row for row in rows if row["id"] == number), key=lambda row: row["seq"])
        own = ", ".join(row["from"].lower() for row in mine)
        others = ", ".join((row["to"] or "").lower() for row in mine)
        first = mine[0]
        actions = f"on update {first['on_update']} on delete {first['on_delete']}".lower()
        yield f"({own}) onto {first['table'].lower()} ({others}) {actions}"


def _ending(sql: str) -> str:
    try:
        return normal(parsed(sql).ending)
    except ValueError:
        return ""
