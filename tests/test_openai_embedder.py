"""The embedder of OpenAI's interface, against a real HTTP server that speaks it, well and badly."""

import json
import logging
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import vecmigrate
from doors import Result, run_cli, url
from vecmigrate.causes import told
from vecmigrate.embedding import embedders, openai_embedder
from vecmigrate.errors import EmbedderError

KEY = "sk-canary-0123456789"
SOON = {"retry-after-ms": "1"}
Answer = tuple[int, dict[str, str], Any]


class Server(ThreadingHTTPServer):
    """Answers as ``answer`` says for the texts of a request, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[list[str]], Answer] = vectors
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing of clients that have gone."""

    @property
    def sizes(self) -> list[int]:
        return [len(each["input"]) for each in self.asked]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        """Answer one request for embeddings."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.keys.append(self.headers["Authorization"])
        status, headers, document = self.server.answer(asked["input"])
        if self.path != "/v1/embeddings":
            status, headers, document = 404, {}, {"error": {"message": "no such path"}}
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def vector(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode())), 1.0]


def vectors(texts: list[str]) -> Answer:
    data = [{"object": "embedding", "index": index, "embedding": vector(text)} for index, text in enumerate(texts)]
    return 200, {}, {"object": "list", "data": data, "model": "small", "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def refusal(status: int, headers: dict[str, str] | None = None) -> Answer:
    message = f"Incorrect API key provided: {KEY}, or too many tokens in: some secret text"
    return status, headers or {}, {"error": {"message": message, "type": "error", "param": KEY, "code": KEY}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a server that the environment names, with a key that nobody is to see."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{running.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield running
        running.shutdown()
        thread.join()


def embed(texts: list[str]) -> Any:
    return embedders.load("openai:small", model="some/model")(texts)


def failing(texts: list[str]) -> EmbedderError:
    with pytest.raises(EmbedderError) as raised:
        embed(texts)
    return raised.value


def first(*answers: Answer) -> Callable[[list[str]], Answer]:
    """Return what gives these answers first, and then vectors."""
    left = list(answers)
    return lambda texts: left.pop(0) if left else vectors(texts)


def test_texts_become_vectors(server: Server) -> None:
    """The server is asked for the model that the spec names, with the key, for numbers as JSON has them."""
    assert [vector("a"), vector("bc")] == embed(["a", "bc"])
    assert [{"model": "small", "input": ["a", "bc"], "encoding_format": "float"}] == server.asked
    assert [f"Bearer {KEY}"] == server.keys


def test_answers_out_of_order_are_put_in_order(server: Server) -> None:
    """The index of each vector tells its text."""

    def backwards(texts: list[str]) -> Answer:
        status, headers, document = vectors(texts)
        return status, headers, document | {"data": document["data"][::-1]}

    server.answer = backwards

    assert [vector("a"), vector("bc"), vector("def")] == embed(["a", "bc", "def"])


def test_an_empty_text_has_a_vector_too(server: Server) -> None:
    """OpenAI's server refuses an empty text, so a space is sent in its place."""
    assert [vector(" "), vector("a")] == embed(["", "a"])
    assert ["a"] == server.asked[0]["input"][1:]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_what_passes_is_tried_again(status: int, server: Server) -> None:
    """After a rate limit or an error of the server the same request is sent again."""
    server.answer = first(refusal(status, SOON), refusal(status, SOON))

    assert [vector("a")] == embed(["a"])
    assert [1, 1, 1] == server.sizes


def test_a_rate_limit_is_waited_for(server: Server) -> None:
    """The server says for how long."""
    server.answer = first(refusal(429, {"Retry-After": "1"}))
    began = time.monotonic()

    assert [vector("a")] == embed(["a"])
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(("status", "told"), [(429, "asked too often, or the quota"), (500, "it failed")])
def test_what_does_not_pass_is_told(status: int, told: str, server: Server) -> None:
    """The tries are bounded, and the error says that what is written stands."""
    server.answer = lambda _texts: refusal(status, SOON)
    error = failing(["a"])

    assert 1 + openai_embedder.TRIES_MORE == len(server.asked)
    assert f"refused, with status {status}" in error.message
    assert told in error.message
    assert error.message.endswith("The vectors written so far stand.")
    assert error.next_step.endswith("then run the same command again")


def test_a_server_that_does_not_answer_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once more after the time-out, and then told to be out of reach."""
    monkeypatch.setattr(openai_embedder, "TIMEOUT", 0.1)
    monkeypatch.setattr(openai_embedder, "TRIES_MORE", 1)
    done = threading.Event()

    def hang(texts: list[str]) -> Answer:
        done.wait(30)
        return vectors(texts)

    server.answer = hang
    try:
        error = failing(["a"])
    finally:
        done.set()

    assert 2 == len(server.asked)
    assert "cannot be reached (APITimeoutError)" in error.message


def test_a_server_that_is_not_there_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message shows its address without the password in it."""
    monkeypatch.setattr(openai_embedder, "TRIES_MORE", 0)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://somebody:secret-word@127.0.0.1:9/v1?key=secret-word")
    error = failing(["a"])

    assert "The server http://127.0.0.1:9/v1/ cannot be reached (APIConnectionError)" in error.message
    assert "secret-word" not in str(error)
    assert [] == server.asked


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_told_without_it(status: int, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Not even where the server quotes it, in the causes of the error, or in the log of the library."""
    server.answer = lambda _texts: refusal(status)
    caplog.set_level(logging.DEBUG)
    error = failing(["some secret text"])
    everything = "".join(map(repr, [error, error.next_step, told(error), error.__cause__, error.__context__]))
    said = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("openai"))

    assert 1 == len(server.asked)
    assert "it does not take the key" in error.message
    assert "OPENAI_API_KEY" in error.next_step
    assert KEY not in everything + said
    assert "some secret text" not in everything + said


def test_a_model_that_the_server_lacks_is_named(server: Server) -> None:
    """Asking again would not help."""
    server.answer = lambda _texts: refusal(404)

    assert "it knows no model small" in failing(["a"]).message
    assert 1 == len(server.asked)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_too_many_tokens_are_asked_for_in_smaller_batches(status: int, server: Server) -> None:
    """Each half is tried, down to one text, and the vectors come in the order of the texts."""
    server.answer = lambda texts: refusal(status) if sum(map(len, texts)) > 4 else vectors(texts)
    texts = ["a", "bb", "cccc", "d", "e"]

    assert [vector(text) for text in texts] == embed(texts)
    assert max(len("".join(each["input"])) for each in server.asked) == 9
    assert [5, 2, 3, 1, 2] == server.sizes


def test_one_text_that_is_too_long_is_told(server: Server) -> None:
    """By its length, and not by its words."""
    server.answer = lambda texts: refusal(400) if "some secret text" in texts else vectors(texts)
    error = failing(["a", "b", "c", "some secret text"])

    assert "it does not take a text of 16 characters alone either" in error.message
    assert "some secret text" not in f"{error}{error.__cause__!r}"
    assert [4, 2, 2, 1, 1] == server.sizes


def _data(*indexes: object) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": [1.0]} for index in indexes]}


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"index": 0, "embed',
        b"<html>not an interface</html>",
        b"null",
        b"[1]",
        b"{}",
        {"data": "a text"},
        {"data": [1, 2]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]},
        _data(),
        _data(0),
        _data(0, 1, 2),
        _data(0, 0),
        _data(1, 2),
        _data(0, 1, 1),
    ],
)
def test_an_answer_that_is_not_one_vector_for_each_text_is_told(body: Any, server: Server) -> None:
    """Broken JSON, another document, other counts, and indexes that name no text."""
    server.answer = lambda _texts: (200, {}, body)
    error = failing(["a", "b"])

    assert "answered, but not with one vector for each text" in error.message
    assert "OPENAI_BASE_URL" in error.next_step


def test_a_page_of_another_kind_is_told(server: Server) -> None:
    """Nothing of it is shown, and nothing of it is taken."""
    server.answer = lambda _texts: (200, {"Content-Type": "text/html"}, b"<html>some page</html>")

    assert "answered, but not with one vector for each text" in failing(["a"]).message


def test_another_server_needs_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on the same machine mostly has none."""
    monkeypatch.delenv("OPENAI_API_KEY")

    assert [vector("a")] == embed(["a"])
    assert [f"Bearer {'none'}"] == server.keys


def test_without_a_key_and_a_server_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both variables."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    assert "OPENAI_API_KEY is not set, and OPENAI_BASE_URL names no other server." in failing(["a"]).message


@pytest.mark.parametrize("spec", ["openai", "openai:"])
def test_a_model_must_be_named(spec: str) -> None:
    """The names of models on such a server are its own, so the building model's would be a guess."""
    with pytest.raises(EmbedderError, match="needs the name of a model") as raised:
        embedders.load(spec, model="some/model")

    assert "name it, for example --embedder openai:text-embedding-3-small" == raised.value.next_step


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a database with three chunks and no vector."""
    path = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(path))
    with sqlite3.connect(path) as connection:
        rows = [(f"c{number}", "a.py", f"text {number}") for number in range(3)]
        connection.executemany("INSERT INTO vector_store_chunks (chunk_id, file_path, content) VALUES (?, ?, ?)", rows)
    connection.close()
    return path


def reembed(database: Path) -> Result:
    return run_cli("-vv", "--db-path", database, "reembed", "--embedder", "openai:small", "--json")


def wide(text: str) -> list[float]:
    """Return a vector as wide as the model's."""
    return [*vector(text), *[0.0] * 765]


def test_chunks_get_the_vectors_of_a_server(server: Server, database: Path) -> None:
    """Through the command line, to the bytes of each vector."""
    server.answer = lambda texts: (
        200,
        {},
        {"data": [{"index": index, "embedding": wide(text)} for index, text in enumerate(texts)]},
    )
    done = reembed(database)
    assert (0, 3) == (done.code, done.document.get("embedded")), done.out
    with sqlite3.connect(database) as connection:
        found = dict(connection.execute("SELECT chunk_id, vector FROM vector_store_embeddings").fetchall())
    connection.close()

    assert {f"c{number}": struct.pack("<768f", *wide(f"text {number}")) for number in range(3)} == found


def test_the_command_line_shows_no_key(server: Server, database: Path) -> None:
    """With a traceback and the log of all libraries; nor does a file beside the database hold it."""
    server.answer = lambda _texts: refusal(401)
    done = reembed(database)
    written = b"".join(path.read_bytes() for path in database.parent.rglob("*") if path.is_file())

    assert 1 == done.code
    assert "it does not take the key" in done.document["error"]["message"]
    assert KEY not in done.out + done.err
    assert KEY.encode() not in written
