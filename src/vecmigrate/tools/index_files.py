"""The index of an mcp-vector-search folder: how wide its vectors are, and which model it says they are of."""

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field

from vecmigrate import sqlite_files
from vecmigrate.causes import described

__all__ = ["Index", "read"]

_LANCE = (("lance", "vectors"), ("", "vectors"), ("lance", "code_search"), ("", "code_search"))
"""Folders and tables of LanceDB, the newest first: versions 2.1 to 2.2.6 had theirs in the folder itself."""
_MIGRATED = "migrated"
"""What a migration of mcp-vector-search wrote in place of a model."""


@dataclass
class Index:
    """What an index tells. ``width`` is the number of dimensions of its vectors, ``models`` those it names.

    ``source`` is the file in the folder that told it, ``problems`` say what could not be read and why.
    """

    models: list[str] = field(default_factory=list)
    width: int | None = None
    source: str = ""
    problems: list[str] = field(default_factory=list)


def read(folder: str) -> Index:
    """Return what the index in a folder tells, of LanceDB if it is there, else of Chroma. Read-only."""
    index = Index()
    for place, table in _LANCE:
        path = os.path.join(folder, place)
        if os.path.isdir(os.path.join(path, f"{table}.lance")):
            _read_lance(index, path, table, os.path.join(place, f"{table}.lance"))
            if index.width is not None:
                break
    chroma = os.path.join(folder, "chroma.sqlite3")
    if not index.source and os.path.isfile(chroma):
        _read_chroma(index, chroma)
    return index


def _read_lance(index: Index, path: str, table: str, source: str) -> None:
    try:
        import lancedb  # noqa: PLC0415 - of the service, and heavy
    except ImportError:
        problem = "The index is in LanceDB and was not read, because the package lancedb is not installed."
        index.problems += [problem] if problem not in index.problems else []
        return
    try:
        opened = lancedb.connect(path).open_table(table)
        if not opened.count_rows():
            return
        index.width = getattr(opened.schema.field("vector").type, "list_size", None)
        index.source = source
        if "model_version" in opened.schema.names:
            named = opened.search().select(["model_version"]).to_arrow().column("model_version").unique().to_pylist()
            index.models = sorted(name for name in named if name and name != _MIGRATED)
    except Exception as error:  # noqa: BLE001 - a table may be damaged in any way
        index.problems.append(f"{source} cannot be read ({described(error)}), and was left alone.")


def _read_chroma(index: Index, path: str) -> None:
    if any(sqlite_files.size(path + suffix) for suffix in ("-wal", "-journal")):
        # Read as a file that nobody writes it would show an old state; read otherwise it would be written.
        index.problems.append(
            "chroma.sqlite3 was not read, because mcp-vector-search is using it, or left it unfinished."
        )
        return
    try:
        with contextlib.closing(sqlite_files.open_closed_file(path)) as connection:
            rows = connection.execute("SELECT name, dimension FROM collections").fetchall()
    except sqlite3.Error as error:
        index.problems.append(f"chroma.sqlite3 cannot be read ({described(error)}), and was left alone.")
        return
    # A collection without vectors has no dimension yet.
    widths = {name: width for name, width in rows if type(width) is int and width > 0}
    width = widths.get("code_search") or (next(iter(widths.values())) if len(widths) == 1 else None)
    if width is not None:
        index.width, index.source = width, "chroma.sqlite3"
