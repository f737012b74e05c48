"""docs/embedding-models.md and the service that searches while another process re-embeds do what they say."""

import re
import shutil
import sqlite3
import subprocess
import sys
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
import sqlite_vec

import embedding
import vecmigrate
from doors import ROOT, run_cli
from embedding import NEW, OLD, SWAPPED, packed, untrue, vector

DOCUMENT = (ROOT / "docs" / "embedding-models.md").read_text(encoding="utf-8")
CHUNKS = 300
_LOADS = hasattr(sqlite3.Connection, "enable_load_extension")
_SLOW = """
import time
from embedding import embed as fast

def embed(texts):
    time.sleep(0.1)
    return fast(texts)
"""


@pytest.fixture
def service_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the example as the program it is."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))
    import search_service  # noqa: PLC0415 - it is no module of the suite

    yield search_service
    del sys.modules["search_service"]


def old(texts: list[str]) -> list[list[float]]:
    return [vector(text, 384) for text in texts]


EMBEDDERS = {OLD: old, NEW: embedding.embed}


def example(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def test_no_search_fails_or_finds_less_while_another_process_reembeds(service_module: Any, tmp_path: Path) -> None:
    """From before the re-embedding to after the swap each question is answered by its own chunk, of all there are."""
    path = embedding.build(tmp_path / "service.sqlite3", CHUNKS)
    (tmp_path / "slow_embedder.py").write_text(_SLOW, encoding="utf-8")
    service = service_module.SearchService(path, EMBEDDERS)
    command = [sys.executable, "-m", "vecmigrate.cli", "--db-path", str(path), "reembed", "--embedder"]
    code = "import sys; from vecmigrate.cli import main; main()"
    command = [sys.executable, "-c", code, *command[3:]]
    words = [*command, "slow_embedder:embed", "--batch-size", "20"]
    environ = {"PYTHONPATH": str(ROOT / "tests"), "PATH": "/usr/bin:/bin"}
    worker = subprocess.Popen(words, cwd=tmp_path, env=environ, stderr=subprocess.PIPE)
    searches, number, seen = 0, 0, set()
    while (is_running := worker.poll() is None) or searches < 20:
        with closing(sqlite3.connect(path)) as connection:
            seen.add(vecmigrate.active_model(connection))
        found = service.search(embedding.text_of(number), limit=CHUNKS + 100)
        assert f"c{number:07d}" == found[0][0]
        assert found[0][1] == pytest.approx(1.0)
        assert CHUNKS + min(searches, 5) == len(found)
        if is_running and searches < 5:
            service.put(f"new-{searches}", "f.py", f"a chunk that comes meanwhile {searches}")
        elif searches < 5:
            pytest.fail("the re-embedding was over before the searches")
        searches, number = searches + 1, (number + 37) % CHUNKS

    assert worker.stderr is not None
    assert 0 == worker.returncode, worker.stderr.read()
    worker.stderr.close()
    assert {OLD, NEW} == seen | {NEW}
    assert SWAPPED == embedding.query(path, embedding.STATES)
    assert [] == untrue(path)
    assert "new-3" == service.search("a chunk that comes meanwhile 3")[0][0]


def test_the_queries_of_the_document_search_and_write(tmp_path: Path) -> None:
    """The Python that searches, that writes, and NumPy's part of it, run as they stand there."""
    path = embedding.build(tmp_path / "service.sqlite3", 20)
    names: dict[str, Any] = {"vecmigrate": vecmigrate, "numpy": np, "question": np.array(vector("new", 384))}
    names |= {"chunk_id": "c0000003", "file_path": "f.py", "text": "new"}
    names |= {"vectors": {OLD: packed("new", 384), NEW: packed("new")}}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        names["connection"] = connection
        for part in ("BEGIN IMMEDIATE", 'execute("BEGIN")', "numpy.linalg"):
            exec(compile(example("python", part), "embedding-models.md", "exec"), names)  # noqa: S102 - ours

    assert "c0000003" == names["best"][0]
    assert 1 == embedding.vectors(path)
    assert [] == untrue(path)


def test_sqlite_vec_searches_the_vectors_as_they_are(tmp_path: Path) -> None:
    """Its functions take the BLOBs of the table."""
    path = embedding.build(tmp_path / "service.sqlite3", 20)
    question = array("f", vector(embedding.text_of(7), 384)).tobytes()
    query = example("sql", "vec_distance_cosine").strip()

    found = nearest_by_driver(path, query, question) if _LOADS else nearest_by_shell(path, query, question)

    assert ("c0000007", 5) == (found[0][0], len(found))
    assert float(found[0][1]) == pytest.approx(0, abs=1e-6)


def nearest_by_driver(path: Path, query: str, question: bytes) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        connection.enable_load_extension(True)
        sqlite_vec.load(connection)
        return connection.execute(query, {"question": question}).fetchall()


def nearest_by_shell(path: Path, query: str, question: bytes) -> list[Any]:
    """Ask SQLite's own shell, because not every Python can load extensions."""
    if shutil.which("sqlite3") is None:
        pytest.skip("neither this Python nor a sqlite3 shell can load an extension of SQLite")
    hexed = f".parameter set :question \"x'{question.hex()}'\""
    script = "\n".join([f".load {sqlite_vec.loadable_path()}", ".parameter init", hexed, f"{query};"])
    done = subprocess.run(["sqlite3", str(path)], input=script, capture_output=True, text=True, check=True)
    return [line.split("|") for line in done.stdout.splitlines()]


def test_pgvector_searches_a_table_of_the_active_model(postgresql: sa.URL) -> None:
    """Its table is made, filled, filled anew and searched, as the document has it."""
    embedding.build_on_server(postgresql, 20)
    vecmigrate.reembed(postgresql, embedding.embed)
    question = str(vector(embedding.text_of(7)))
    names: dict[str, Any] = {"vecmigrate": vecmigrate, "numpy": np}
    with psycopg.connect(postgresql.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        for statement in example("sql", "CREATE EXTENSION").split(";")[:-1]:
            connection.execute(statement)
        for _ in range(2):
            exec(compile(example("python", "chunk_vectors"), "embedding-models.md", "exec"), names | locals())  # noqa: S102 - ours
        found = connection.execute(example("sql", "<=>"), {"question": question}).fetchall()

    assert ("c0000007", 5) == (found[0][0], len(found))
    assert found[0][1] == pytest.approx(0, abs=1e-6)
    assert found[1][1] > found[0][1]


def test_the_steps_of_the_document_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands change the model of a database with chunks."""
    embedding.build(tmp_path / "sessions.sqlite3", 20)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_embedder.py").write_text("from embedding import embed\n", encoding="utf-8")
    for line in example("sh", "reembed").splitlines():
        result = run_cli(*line.split()[1:])
        assert 0 == result.code, result.err

    assert SWAPPED == embedding.query(tmp_path / "sessions.sqlite3", embedding.STATES)
