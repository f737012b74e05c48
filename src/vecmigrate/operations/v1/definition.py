"""The SQL of a table of SQLite, taken apart so that a changed one keeps everything else word for word."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from vecmigrate.catalog import quoted

__all__ = ["Definition", "Part", "mentions", "parsed", "renamed"]

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))
    | (?P<text>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|[^\W\d][\w$]*)
    | (?P<other>[\d.][\w.]*|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"}
_OF_COLUMNS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "COLLATE", "NOT", "NULL", "DEFAULT"}
_OF_COLUMNS |= {"GENERATED", "AS"}
_GOES_ON = {"CONSTRAINT", "NOT", "SET", "DEFAULT", "ALWAYS"}
"""What the next word belongs to: NOT NULL, ON DELETE SET NULL, DEFAULT NULL, ALWAYS AS, and a name."""

Token = tuple[str, str]
"""The kind of a piece of SQL (space, text, name, other) and the piece."""


def tokens(sql: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(sql):
        yield str(match.lastgroup), match.group()


def name_of(piece: str) -> str:
    """Return what an identifier names, in lower case, because SQLite tells no case apart."""
    if piece[0] == "[":
        return piece[1:-1].lower()
    mark = piece[0]
    return (piece[1:-1].replace(mark * 2, mark) if mark in '"`' else piece).lower()


def mentions(sql: str, columns: Iterable[str]) -> bool:
    """Tell whether SQL has one of the names in it, outside of texts."""
    wanted = {column.lower() for column in columns}
    return any(kind == "name" and name_of(piece) in wanted for kind, piece in tokens(sql))


def renamed(sql: str, names: Mapping[str, str]) -> str:
    """Return SQL with columns by their new names; behind REFERENCES stand the names of another table."""
    new = {old.lower(): quoted(name) for old, name in names.items() if old.lower() != name.lower()}
    pieces, is_ours = [], True
    for kind, piece in tokens(sql):
        is_ours = is_ours and piece.upper() != "REFERENCES"
        pieces.append(new.get(name_of(piece), piece) if kind == "name" and is_ours else piece)
    return "".join(pieces)


@dataclass(frozen=True)
class Part:
    """A column or a constraint, as it stands between two commas of CREATE TABLE."""

    sql: str

    @property
    def column(self) -> str | None:
        """The column that is defined here, in lower case; None for a constraint of the table."""
        for kind, piece in tokens(self.sql):
            if kind != "space":
                return None if piece.upper() in _CONSTRAINTS else name_of(piece)
        return None

    def clauses(self) -> list[tuple[str, str]]:
        """Return the constraints of a column, each with the word it begins with (behind CONSTRAINT and its name)."""
        found, depth, previous = [["", ""]], 0, ""
        for kind, piece in tokens(self.sql):
            word = piece.upper()
            if kind == "name" and depth == 0 and word in _OF_COLUMNS and previous and previous not in _GOES_ON:
                if found[-1][0] == "CONSTRAINT":
                    found[-1][0] = word
                else:
                    found.append([word, ""])
            found[-1][1] += piece
            depth += (piece == "(") - (piece == ")")
            previous = word if kind != "space" else previous
        return [(word, sql) for word, sql in found[1:]]


@dataclass(frozen=True)
class Definition:
    """CREATE TABLE as its parts; ``ending`` is what stands behind the last one (WITHOUT ROWID, STRICT)."""

    parts: tuple[Part, ...]
    ending: str

    def sql(self, table: str) -> str:
        """Return the statement that makes this table under the name *table*."""
        return f"CREATE TABLE {quoted(table)} ({','.join(part.sql for part in self.parts)}){self.ending}"

    @property
    def columns(self) -> list[str]:
        return [part.column for part in self.parts if part.column is not None]

    def column(self, name: str) -> Part:
        return next(part for part in self.parts if part.column == name.lower())

    def before(self, name: str) -> str | None:
        """Return the column that stands before the one named, None for the first one."""
        columns = self.columns
        position = columns.index(name.lower())
        return columns[position - 1] if position else None

    def without(self, columns: Iterable[str]) -> "Definition":
        gone = {column.lower() for column in columns}
        return replace(self, parts=tuple(part for part in self.parts if part.column not in gone))

    def constraints_on(self, columns: Iterable[str]) -> list[Part]:
        """Return the constraints of the table that have one of the columns in them."""
        wanted = list(columns)
        return [part for part in self.parts if part.column is None and mentions(part.sql, wanted)]

    def less(self, constraints: Iterable[Part]) -> "Definition":
        gone = set(constraints)
        return replace(self, parts=tuple(part for part in self.parts if part not in gone))

    def with_column(self, part: Part, *, after: str | None = None, first: bool = False) -> "Definition":
        """Return it with one more column, behind *after* if that is there, else behind the last column."""
        columns = self.columns
        place = 0 if first else columns.index(after) + 1 if after in columns else len(columns)
        return replace(self, parts=(*self.parts[:place], part, *self.parts[place:]))

    def with_constraints(self, parts: Iterable[Part]) -> "Definition":
        return replace(self, parts=(*self.parts, *(part for part in parts if part not in self.parts)))

    def mapped(self, change: Callable[[Part], Part]) -> "Definition":
        return replace(self, parts=tuple(map(change, self.parts)))


def parsed(sql: str) -> Definition:
    """Return CREATE TABLE as its parts. Raises ValueError for what is none (a virtual table, AS SELECT)."""
    parts, found, depth, ending = [""], 0, 0, ""
    for _, piece in tokens(sql):
        depth += (piece == "(") - (piece == ")")
        if found == 0:
            found = int(piece == "(")
        elif found == 1 and depth == 0:
            found += 1
        elif found == 1 and depth == 1 and piece == ",":
            parts.append("")
        elif found == 1:
            parts[-1] += piece
        else:
            ending += piece
    if found != 2 or not re.match(r"\s*CREATE\s+(TEMP\w*\s+)?TABLE\b", sql, re.IGNORECASE):  # noqa: PLR2004
        raise ValueError("no CREATE TABLE with columns")
    return Definition(tuple(Part(_closed(part)) for part in parts), _closed(ending))


def _closed(sql: str) -> str:
    """End a comment that would swallow what comes behind it."""
    return f"{sql}\n" if "--" in sql.rpartition("\n")[2] else sql
