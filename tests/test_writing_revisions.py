"""The page about writing revisions: each script on it runs, up, down and up again, and loses nothing."""

import re
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from doors import ROOT
from operations import database, in_script, rows
from vecmigrate.schema import metadata

PAGE = (ROOT / "docs" / "writing-revisions.md").read_text(encoding="utf-8")
HEAD, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SCRIPTS = dict(re.findall(r"\n## ([^\n]+)\n\n```python\n(.*?)```", PAGE, re.DOTALL))
STORES = [
    ("a", None, "s1", "openai", '{"x": 1}', 0, 1, 1700000000, None, 1700000000, 3, None),
    ("b", None, "s2", "pinecone", None, 1, 0, 1700000000, 1800000000, 1700000000, 0, "a"),
    ("c", "project", None, "hnsw", "not json", 0, 1, 1.5, None, 1700000000, None, None),
]


def script(text: str) -> ModuleType:
    module = ModuleType("revision")
    exec(compile(f"{HEAD}\n{text}", "docs/writing-revisions.md", "exec"), vars(module))  # noqa: S102 - our own page
    return module


def filled(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    marks = ", ".join("?" * 12)
    connection.exec_driver_sql(f"INSERT INTO vector_stores VALUES ({marks})", STORES)
    connection.exec_driver_sql("INSERT INTO vector_store_embeddings VALUES ('m', 'c', x'00'), ('m', 'd', x'01')")


def state(connection: sa.Connection) -> dict[str, Any]:
    names = sorted(name for name in sa.inspect(connection).get_table_names() if not name.startswith("vecmigrate"))
    return {name: rows(connection, name) for name in names}


def test_the_page_has_a_script_for_each_kind_of_change() -> None:
    """Each section of the first part shows one."""
    assert {
        "A column more",
        "A column less",
        "Another type",
        "Another name",
        "A new table",
        "A table less",
        "One table becomes two",
    } == set(SCRIPTS)


@pytest.mark.parametrize("title", SCRIPTS)
def test_a_script_of_the_page_goes_up_and_down_and_up(title: str) -> None:
    """After each pair of ways every table holds the same rows, by value, type and rowid."""
    module = script(SCRIPTS[title])
    with database() as connection:
        filled(connection)
        before = state(connection)
        in_script(connection, module.upgrade)
        at_new = state(connection)
        assert before != at_new or title == "A new table"
        for _ in range(2):
            in_script(connection, module.downgrade)
            assert before == state(connection)
            in_script(connection, module.upgrade)
            assert at_new == state(connection)


@pytest.mark.parametrize("title", SCRIPTS)
def test_a_script_of_the_page_is_not_the_same_after_an_edit(title: str) -> None:
    """An edit of the new shape is there after the way down, and after the next way up."""
    edits = {
        "A column more": "UPDATE vector_stores SET tags = 'red', rank = 4 WHERE vector_store_id = 'b'",
        "A column less": "UPDATE vector_stores SET provider = 'new' WHERE vector_store_id = 'a'",
        "Another type": "UPDATE vector_stores SET provider = 2 WHERE vector_store_id = 'a'",
        "Another name": "UPDATE vector_stores SET previous_store = 'c' WHERE vector_store_id = 'a'",
        "A new table": "INSERT INTO vector_store_labels VALUES ('a', 'red')",
        "One table becomes two": "UPDATE vector_store_metadata SET metadata = '[]' WHERE vector_store_id = 'a'",
    }
    module = script(SCRIPTS[title])
    with database() as connection:
        filled(connection)
        in_script(connection, module.upgrade)
        connection.exec_driver_sql(edits.get(title, "DELETE FROM vector_store_chunks"))
        at_new = state(connection)
        in_script(connection, module.downgrade)
        in_script(connection, module.upgrade)
        assert at_new == state(connection)
