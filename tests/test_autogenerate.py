"""What `alembic revision --autogenerate` writes, with the real command in a copy of the project."""

import runpy
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from operations import database, in_script, rows
from scripts import Scripts
from test_environment import configured
from vecmigrate import environment, schema


@pytest.fixture
def model(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> sa.Table:
    """Return the model of vector_store_chunks in a copy of the metadata that autogenerate compares with."""
    assert scripts.versions.exists()
    metadata = sa.MetaData()
    for table in schema.metadata.tables.values():
        table.to_metadata(metadata)
    monkeypatch.setattr(environment, "metadata", metadata)
    return metadata.tables["vector_store_chunks"]


def generated(path: Path) -> Path:
    config = configured(path)
    command.upgrade(config, "head")
    made = command.revision(config, message="Change chunks", autogenerate=True)
    return Path(made.path)  # type: ignore[union-attr]


def test_changed_columns_become_a_rebuild_of_the_table(model: sa.Table, tmp_path: Path) -> None:
    """Dropped, retyped and added columns stand in one CHANGE, which both directions use."""
    model._columns.remove(model.c.end_line)
    model.c.start_line.type = sa.Text()
    model.append_column(sa.Column("language", sa.Text, nullable=False, server_default="none"))

    script = runpy.run_path(str(generated(tmp_path / "service.sqlite3")))

    change = script["CHANGE"]
    assert ("vector_store_chunks", script["revision"], "chunk_id") == (
        change["table"],
        change["revision"],
        change["key"],
    )
    assert ["language"] == [column.name for column in change["add"]]
    assert ["end_line"] == [column.name for column in change["drop"]]
    assert ["INTEGER", "TEXT"] == [str(column.type) for column in change["change"]["start_line"]]
    assert ({"start_line": None}, {"start_line": None}) == (change["up"], change["down"])


def test_a_function_that_is_not_written_yet_is_told(model: sa.Table, tmp_path: Path) -> None:
    """The generated script does not run before its author says what the values become."""
    model.c.start_line.type = sa.Text()
    path = tmp_path / "service.sqlite3"
    generated(path)

    with pytest.raises(Exception, match="up needs a function for start_line, because start_line gets another type"):
        command.upgrade(configured(path), "head")


def test_a_generated_script_runs_up_and_down(model: sa.Table, tmp_path: Path) -> None:
    """With columns that only come and go it needs no author, and loses no value."""
    model._columns.remove(model.c.end_line)
    model.append_column(sa.Column("language", sa.Text))
    script = runpy.run_path(str(generated(tmp_path / "service.sqlite3")))
    table = schema.metadata.tables["vector_store_chunks"]

    with database() as connection:
        table.create(connection)
        connection.exec_driver_sql("INSERT INTO vector_store_chunks VALUES ('c', 'v', 'f', 1, 2, 'text')")
        before = rows(connection, "vector_store_chunks")
        in_script(connection, script["upgrade"])
        assert [("c", None)] == connection.exec_driver_sql("SELECT chunk_id, language FROM vector_store_chunks").all()
        in_script(connection, script["downgrade"])
        assert before == rows(connection, "vector_store_chunks")


def test_other_changes_of_the_table_stay_beside_it(model: sa.Table, tmp_path: Path) -> None:
    """A new index is made after the columns are there."""
    model.append_column(sa.Column("language", sa.Text))
    sa.Index("idx_chunks_language", model.c.language)

    text = generated(tmp_path / "service.sqlite3").read_text(encoding="utf-8")

    text = text.partition("def upgrade")[2]
    assert text.index("op.rebuild_table(**CHANGE)") < text.index("create_index")
    assert text.index("drop_index") < text.rindex("op.restore_table(**CHANGE)")
