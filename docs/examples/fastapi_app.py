"""A FastAPI application that brings its database up to date before it answers.

Needs ``pip install fastapi uvicorn``. Run it: ``DATABASE_URL=sqlite:///sessions.sqlite3 uvicorn fastapi_app:app``
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request

import vecmigrate


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine = sa.create_engine(os.environ.get("DATABASE_URL", "sqlite:///sessions.sqlite3"))
    # It blocks, so it gets a thread. "raise" ends the start when the database may not be used, and what
    # supervises the service sees it; every worker calls this, and one of them migrates.
    app.state.boot = await asyncio.to_thread(vecmigrate.ensure_current, engine, on_failure="raise")
    app.state.engine = engine
    yield
    engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
def health(request: Request) -> dict[str, Any]:
    return {"revision": request.app.state.boot.after}


@app.get("/stores")
def stores(request: Request, limit: int = 20) -> list[dict[str, Any]]:
    table = vecmigrate.metadata.tables["vector_stores"]
    query = sa.select(table).order_by(table.c.updated_at.desc()).limit(limit)
    with request.app.state.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
