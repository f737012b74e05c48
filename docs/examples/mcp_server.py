"""An MCP server that brings its database up to date on start, and starts even if that fails.

Needs ``pip install 'mcp>=2'``. An MCP client runs it over stdio: ``SESSIONS_DB=sessions.sqlite3 python mcp_server.py``
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from mcp.server import MCPServer

import vecmigrate

APP_VERSION = "1.2.2"


def build(database: Path, boot: vecmigrate.BootReport) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("sessions", version=APP_VERSION)

    @server.tool()
    def list_stores(limit: int = 20) -> list[dict[str, Any]]:
        """List the vector stores, the newest first."""
        if not boot.usable:
            raise RuntimeError(str(boot.error))
        with closing(sqlite3.connect(database)) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT vector_store_id, name, session_id FROM vector_stores ORDER BY updated_at DESC LIMIT ?"
            return [dict(row) for row in connection.execute(query, (limit,))]

    @server.tool()
    def database_state() -> dict[str, Any]:
        """Tell whether the database is up to date, and if it is not, why and what to do."""
        error = str(boot.error) if boot.error else None
        return {"state": boot.state, "before": boot.before, "after": boot.after, "backup": boot.backup, "error": error}

    return server


def main() -> None:
    database = Path(os.environ.get("SESSIONS_DB", "sessions.sqlite3")).absolute()
    # Before the event loop and the first request; what the client sends meanwhile waits in the pipe. A server
    # that exits here would show the user nothing but "failed to connect", so it starts and tells by its tools.
    # stdout belongs to the protocol: vecmigrate writes nothing there, and its log goes to stderr.
    boot = vecmigrate.ensure_current(database, app_version=APP_VERSION)
    build(database, boot).run("stdio")


if __name__ == "__main__":
    main()
