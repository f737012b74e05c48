"""Triggers that go with a table in a revision are put back, and what the scripts made goes on to work."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import legacy
import vecmigrate
from doors import run_alembic, run_cli, url
from ladder import HEAD, NEXT
from scripts import Scripts
from vecmigrate.errors import RunFailedError

ANEW = """
op.create_table("anew", {columns})
op.drop_table("vector_store_chunks")
op.rename_table("anew", "vector_store_chunks")
"""
WITHOUT_CONTENT = ANEW.format(columns='sa.Column("chunk_id", sa.Text(), primary_key=True)')
RENAMED = 'op.alter_column("vector_stores", "document_count", new_column_name="documents")'


def triggers(path: Path) -> dict[str, str]:
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    return {str(name): str(sql) for name, sql in legacy.query(path, query)}


def at_head(path: Path) -> Path:
    vecmigrate.upgrade(url(path), HEAD)
    return path


def test_a_trigger_of_the_service_is_put_back_too(scripts: Scripts, released_file: Path) -> None:
    """Its SQL is the same, whoever made it, and those of the ladder still do their work."""
    path = at_head(released_file)
    legacy.execute(path, "CREATE TRIGGER mine AFTER INSERT ON vector_store_chunks BEGIN SELECT new.chunk_id; END")
    before = triggers(path)
    scripts.add(
        'with op.batch_alter_table("vector_store_chunks", recreate="always") as b:\n    b.alter_column("content")'
    )

    vecmigrate.upgrade(url(path))

    assert before == triggers(path)
    legacy.execute(
        path,
        "INSERT INTO vector_store_chunks VALUES ('c', NULL, 'f', 1, 2, 'old')",
        "INSERT INTO embedding_models VALUES ('m', 1, 'retired', NULL)",
        "INSERT INTO vector_store_embeddings VALUES ('m', 'c', x'00000000')",
        "UPDATE vector_store_chunks SET content = 'new'",
    )
    assert [] == legacy.query(path, "SELECT 1 FROM vector_store_embeddings WHERE model = 'm'")
    findings = run_cli("--db-path", path, "doctor", "--json").document["findings"]
    assert [] == [each for each in findings if each["code"] == "drift"]


def test_a_trigger_that_a_script_drops_stays_dropped(scripts: Scripts, released_file: Path) -> None:
    """Whoever drops one by its name means it, also where the table is made anew afterwards."""
    path = at_head(released_file)
    before = triggers(path)
    gone = "vecmigrate_chunk_updated"
    scripts.add(
        f"op.execute('drop trigger if exists \"{gone}\"')\n"
        'with op.batch_alter_table("vector_store_chunks", recreate="always") as b:\n    b.alter_column("content")'
    )

    vecmigrate.upgrade(url(path))

    assert before.keys() - {gone} == triggers(path).keys()


def test_a_revision_that_breaks_a_trigger_is_refused(scripts: Scripts, released_file: Path) -> None:
    """Each door names it and what to write, and nothing is changed, not even a backup folder made."""
    path = at_head(released_file)
    scripts.add(WITHOUT_CONTENT)
    before = legacy.tree(path.parent)

    by_cli, by_alembic = run_cli("--db-path", path, "migrate"), run_alembic(path, "upgrade", "head", ini=scripts.ini)

    assert (5, 255) == (by_cli.code, by_alembic.code)
    for result in (by_cli, by_alembic):
        assert f"After revision {NEXT} these would not work any more, which the scripts made: the trigger" in result.err
        assert "drop each and make it anew" in result.err
        assert "Nothing was changed." in result.err
    assert before == legacy.tree(path.parent)
    findings = run_cli("--config", scripts.ini, "check", "--json").document["findings"]
    assert any(each["code"] == "trigger" and NEXT in each["message"] for each in findings)


def test_triggers_follow_the_name_of_a_column(scripts: Scripts, released_file: Path) -> None:
    """SQLite itself writes it into the triggers that name it."""
    path = at_head(released_file)
    scripts.add(RENAMED)

    assert [NEXT] == vecmigrate.upgrade(url(path)).applied
    legacy.execute(path, "UPDATE stores SET doc_count = doc_count + 7")
    assert [] == legacy.query(
        path,
        "SELECT 1 FROM stores JOIN vector_stores ON vector_store_id = store_id WHERE documents <> doc_count",
    )


@pytest.mark.parametrize("body", [WITHOUT_CONTENT, RENAMED], ids=["a table without the column", "another name"])
def test_a_revision_that_breaks_a_trigger_is_refused_on_postgresql(
    body: str, scripts: Scripts, postgresql: sa.URL
) -> None:
    """There the server itself would not tell before the trigger runs: an empty SQLite database does."""
    vecmigrate.upgrade(postgresql, HEAD)
    scripts.add(body)

    with pytest.raises(RunFailedError, match=f"After revision {NEXT} .* would not work any more"):
        vecmigrate.upgrade(postgresql)

    assert HEAD == vecmigrate.status(postgresql).revision


def test_a_revision_that_makes_the_function_anew_runs(scripts: Scripts, postgresql: sa.URL) -> None:
    """What is asked for is enough."""
    vecmigrate.upgrade(postgresql, HEAD)
    scripts.add(
        """
        bind = op.get_bind()
        query = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'vecmigrate_store_%'"
        found = bind.scalars(sa.text(query)).all()
        for sql in found:
            bind.exec_driver_sql(sql.replace("document_count", "documents"), execution_options={"no_parameters": True})
        """
        + RENAMED
    )

    assert [NEXT] == vecmigrate.upgrade(postgresql).applied


def test_a_trigger_of_a_server_that_does_not_fit_is_named(scripts: Scripts, postgresql: sa.URL) -> None:
    """One of the service, whose column is gone from the table that was made anew, ends the run as it began."""
    vecmigrate.upgrade(postgresql, HEAD)
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE vector_store_chunks ADD COLUMN note text")
        connection.exec_driver_sql(
            "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER noted AFTER UPDATE OF note ON vector_store_chunks FOR EACH ROW EXECUTE FUNCTION noted()"
        )
    columns = ('sa.Column("chunk_id", sa.Text(), primary_key=True)', 'sa.Column("content", sa.Text(), nullable=False)')
    scripts.add(ANEW.format(columns=", ".join(columns)))

    with pytest.raises(RunFailedError, match="takes the trigger noted away with the table vector_store_chunks"):
        vecmigrate.upgrade(postgresql)

    assert HEAD == vecmigrate.status(postgresql).revision
