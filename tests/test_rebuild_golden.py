"""What semantics 1 did when it was released, up, down and up: released revisions rest on it, so it never changes.

``python tests/test_rebuild_golden.py`` writes the files of new cases. A difference in an old one is a defect.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from operations import database, down, kept, rows, schema, up
from vecmigrate.operations.v1.cells import insert
from vecmigrate.operations.v1.codec import RawText

GOLDEN = Path(__file__).parent / "golden"
NUMBERS = {"openai": 1, "pinecone": 2}
NAMES = {number: name for name, number in NUMBERS.items()}
TABLE = (
    "CREATE TABLE stores (id TEXT PRIMARY KEY, provider TEXT NOT NULL, metadata TEXT, "
    "size INTEGER DEFAULT 0, CHECK (size >= 0))"
)
ROWS: list[tuple[Any, ...]] = [
    ("plain", "openai", None, 1),
    ("kept", "pinecone", '{"a": "é"}', 2),
    ("unknown", "hnsw", "x", 3),
    ("blob", "openai", b"\x00\xff", None),
    ("nul", "openai", "a\0b", 0),
    ("raw", "pinecone", RawText(b"\xff\xfe"), 2**62),
    ("real", "openai", 1.0, 7),
    (None, "openai", None, 0),
    (None, "openai", "lost key", 0),
    ("", "openai", "", 5),
    (b"key", b"openai", float("inf"), 6),
]
BASE: dict[str, Any] = {"table": "stores", "revision": "003", "key": "id"}
RETYPE = {
    "change": {
        "provider": (sa.Column("provider", sa.Text, nullable=False), sa.Column("kind", sa.Integer, nullable=False))
    },
    "up": {"kind": lambda row: NUMBERS.get(row["provider"])},
    "down": {"provider": lambda row: NAMES.get(row["kind"])},
}
UNIQUE = {
    "change": {"size": (sa.Column("size", sa.Integer), sa.Column("size", sa.Integer, unique=True))},
    "up": {"size": lambda row: (row["size"] or 0) % 5},
    "down": {"size": lambda row: row["size"]},
}
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "drop": (
        BASE | {"drop": [sa.Column("metadata", sa.Text), sa.Column("size", sa.Integer, server_default="0")]},
        ("DELETE FROM stores WHERE id = 'real'", "UPDATE stores SET provider = 'edited' WHERE id = 'kept'"),
    ),
    "add": (
        BASE | {"add": [sa.Column("tags", sa.Text), sa.Column("rank", sa.Integer, nullable=False, server_default="5")]},
        ("UPDATE stores SET tags = 'red' WHERE id = 'plain'", "UPDATE stores SET rank = 1.5 WHERE id = 'kept'"),
    ),
    "retype": (
        BASE | RETYPE | {"drop": [sa.Column("metadata", sa.Text)]},
        ("UPDATE stores SET kind = 9 WHERE id = 'plain'", "UPDATE stores SET kind = 1 WHERE id = 'kept'"),
    ),
    "retype-sets": (
        BASE | RETYPE | {"plain": {"provider": "provider = 'openai'"}},
        ("UPDATE stores SET kind = 2 WHERE id = 'nul'", "INSERT INTO stores (id, kind) VALUES ('new', 1)"),
    ),
    "refused": (BASE | UNIQUE, ("DELETE FROM stores WHERE id = 'plain'",)),
}


def recorded(name: str) -> list[Any]:
    """Return the schema, the rows and what is kept: before, after up, after edits, after down, and after up again."""
    change, edits = CASES[name]
    states: list[Any] = []
    with database(TABLE) as connection:
        insert(connection, "stores", ("id", "provider", "metadata", "size"), ROWS)

        def note(when: str) -> None:
            found = {"rows": rows(connection, "stores"), "kept": kept(connection)}
            states.append({"when": when, "schema": schema(connection)} | found)

        note("before")
        up(connection, change)
        note("up")
        for edit in edits:
            connection.exec_driver_sql(edit)
        note("edited")
        for when, way in (("down", down), ("up again", up), ("down again", down)):
            way(connection, change)
            note(when)
    return states


def written(states: list[Any]) -> str:
    return json.dumps(states, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_semantics_1_does_what_it_always_did(name: str) -> None:
    """Rows, schema and kept rows are those on record."""
    assert json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8")) == json.loads(written(recorded(name)))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        path = GOLDEN / f"{case}.json"
        if not path.exists():
            path.write_text(written(recorded(case)), encoding="utf-8")
