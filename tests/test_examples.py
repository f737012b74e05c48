"""The programs in docs/examples, run as their users run them."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest
from fastapi.testclient import TestClient
from mcp import Client, StdioServerParameters

import legacy
import vecmigrate
from doors import ROOT, run_python, url
from ladder import HEAD

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(autouse=True)
def examples_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the examples as the programs they are."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in {"click_app", "fastapi_app", "mcp_server"}:
            del sys.modules[name]


def mcp_client(path: Path) -> Client:
    """Return a real client that starts the MCP example as a process and speaks to it over stdio."""
    environ = {name: value for name, value in os.environ.items() if name.startswith(("PYTHON", "COVERAGE"))}
    server = StdioServerParameters(
        command=sys.executable,
        args=["-W", "error::ResourceWarning", str(EXAMPLES / "mcp_server.py")],
        env={**environ, "SESSIONS_DB": str(path)},
        cwd=path.parent,
    )
    return Client(server, read_timeout_seconds=60)


async def call(client: Client, tool: str, **arguments: object) -> Any:
    result = await client.call_tool(tool, dict(arguments))
    assert not result.is_error, result.content
    return result.structured_content


async def converse(path: Path) -> tuple[set[str], dict[str, Any], list[dict[str, Any]]]:
    """Start a server, ask for its tools, the state of its database and its stores."""
    async with mcp_client(path) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        state = await call(client, "database_state")
        stores = await call(client, "list_stores", limit=1000)
    return tools, state, stores["result"]


def test_an_mcp_server_migrates_a_legacy_database_before_its_first_answer(released_file: Path) -> None:
    """A client of a server that starts on an old database sees the new one, and every row of it."""
    tools, state, stores = asyncio.run(converse(released_file))

    assert {"list_stores", "database_state"} == tools
    assert ("migrated", HEAD, None) == (state["state"], state["after"], state["error"])
    assert Path(state["backup"]).is_file()
    assert legacy.SOURCE_ROWS["released"] == len(stores)


def test_two_mcp_servers_that_start_at_once_both_serve(released_file: Path) -> None:
    """Of two servers on one legacy database one migrates, the other finds it done, and both answer alike."""

    async def both() -> Any:
        return await asyncio.gather(converse(released_file), converse(released_file))

    (_, first, first_stores), (_, second, second_stores) = asyncio.run(both())

    states = {first["state"], second["state"]}
    assert "migrated" in states
    assert states <= {"migrated", "waited", "current"}
    assert first["state"] != second["state"]
    assert legacy.SOURCE_ROWS["released"] == len(first_stores)
    assert sorted(map(str, first_stores)) == sorted(map(str, second_stores))
    counted = "SELECT count(*) FROM vecmigrate_history WHERE status = 'success' AND revision = '001'"
    assert [(1,)] == legacy.query(released_file, counted)
    assert 1 == len(list((released_file.parent / "backups").glob("*.sqlite3")))


def test_an_mcp_server_on_a_database_it_cannot_use_starts_and_says_why(tmp_path: Path) -> None:
    """On a damaged file the server starts, and its tools tell the user what is wrong and what to do."""
    path = tmp_path / "sessions.sqlite3"
    path.write_bytes(b"this is not a database, and long enough to tell" * 100)

    async def ask() -> tuple[dict[str, Any], bool]:
        async with mcp_client(path) as client:
            refused = await client.call_tool("list_stores", {})
            return await call(client, "database_state"), bool(refused.is_error)

    state, is_refused = asyncio.run(ask())

    assert "failed" == state["state"]
    assert "is not an SQLite database" in state["error"]
    assert "Next: " in state["error"]
    assert is_refused


def test_a_fastapi_application_migrates_in_its_lifespan(released_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application answers from the migrated database, and has migrated before the first answer."""
    monkeypatch.setenv("DATABASE_URL", url(released_file))
    import fastapi_app  # noqa: PLC0415 - it is no module of the suite

    assert legacy.revision(released_file) is None
    with TestClient(fastapi_app.app) as client:
        assert HEAD == legacy.revision(released_file)
        assert {"revision": HEAD} == client.get("/health").json()
        stores = client.get("/stores", params={"limit": 1000}).json()

    assert legacy.SOURCE_ROWS["released"] == len(stores)
    assert {"vector_store_id", "name", "session_id", "provider"} <= stores[0].keys()


def test_a_fastapi_application_does_not_start_on_a_database_it_may_not_use(
    released_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lifespan raises, so that whatever supervises the application sees that it did not start."""
    legacy.execute(released_file, "DROP TABLE stores", "CREATE TABLE stores (somebody TEXT, elses TEXT)")
    monkeypatch.setenv("DATABASE_URL", url(released_file))
    import fastapi_app  # noqa: PLC0415 - it is no module of the suite

    with pytest.raises(vecmigrate.VecmigrateError, match="stores"), TestClient(fastapi_app.app):
        pass


def test_a_click_application_migrates_on_its_first_command_after_an_upgrade(released_file: Path) -> None:
    """The first command says that it migrated and where the backup is, the second one only answers."""
    import click_app  # noqa: PLC0415 - it is no module of the suite

    runner = click.testing.CliRunner()
    first = runner.invoke(click_app.app, ["--db", str(released_file), "stores"])
    second = runner.invoke(click_app.app, ["--db", str(released_file), "stores"])

    assert (0, 0) == (first.exit_code, second.exit_code)
    assert f"upgraded to revision {HEAD}" in first.stderr
    assert str(released_file.parent / "backups") in first.stderr
    assert "" == second.stderr
    assert legacy.SOURCE_ROWS["released"] == len(second.stdout.split())
    assert first.stdout == second.stdout


@pytest.mark.parametrize("words", [["--help"], ["stores", "--help"], ["stores", "--nonsense"], ["nonsense"]], ids=str)
def test_a_click_application_only_migrates_for_a_command_that_runs(words: list[str], tmp_path: Path) -> None:
    """Whoever asks for help, or mistypes a command, gets no database and no migration."""
    import click_app  # noqa: PLC0415 - it is no module of the suite

    click.testing.CliRunner().invoke(click_app.app, ["--db", str(tmp_path / "sessions.sqlite3"), *words])

    assert [] == list(tmp_path.iterdir())


def test_the_examples_open_the_file_that_they_migrate(released_file: Path) -> None:
    """Also where the name has characters that mean something in a URL."""
    import click_app  # noqa: PLC0415 - it is no module of the suite

    path = released_file.rename(released_file.with_name("100% of it?.sqlite3"))
    result = click.testing.CliRunner().invoke(click_app.app, ["--db", str(path), "stores"])

    assert legacy.SOURCE_ROWS["released"] == len(result.stdout.split())
    assert HEAD == legacy.revision(path)
    _, state, stores = asyncio.run(converse(path))
    assert ("current", legacy.SOURCE_ROWS["released"]) == (state["state"], len(stores))


def test_a_click_application_ends_with_the_exit_code_of_the_failure(released_file: Path) -> None:
    """A database of somebody else ends the command with 6 and the next step, and without a traceback."""
    legacy.execute(released_file, "DROP TABLE stores", "CREATE TABLE stores (somebody TEXT, elses TEXT)")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import click_app; click_app.app()"

    result = run_python(code, EXAMPLES, "--db", released_file, "stores")

    assert (6, "") == (result.code, result.out)
    assert result.err.startswith("Error: ")
    assert "Next: " in result.err
    assert "Traceback" not in result.err
