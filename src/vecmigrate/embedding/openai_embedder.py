"""Vectors of a model behind the HTTP interface of OpenAI, on whichever server speaks it."""

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import openai

from vecmigrate.causes import told
from vecmigrate.embedding.embedders import Embedder
from vecmigrate.errors import EmbedderError

__all__ = ["load"]

TIMEOUT = 120.0
"""Seconds that a server may take for one answer."""
TRIES_MORE = 4
"""Times that a request is sent again after a 429, a 5xx or no answer; the library waits as ``Retry-After`` says."""

_TOO_MUCH = {400, 413, 422}
"""What servers answer to a batch of too many tokens or texts; nothing else in a request of ours changes."""


def load(name: str) -> Embedder:
    """Return the embedder of a model of the server that ``OPENAI_BASE_URL`` names, else of OpenAI's own.

    ``OPENAI_API_KEY`` is its key; a server that ``OPENAI_BASE_URL`` names may need none. Raises EmbedderError.
    """
    key = os.environ.get("OPENAI_API_KEY")
    if not key and not os.environ.get("OPENAI_BASE_URL"):
        raise EmbedderError(
            "OPENAI_API_KEY is not set, and OPENAI_BASE_URL names no other server. No vector was written.",
            next_step="set one of them, then run the same command again",
        )
    try:
        client = openai.OpenAI(api_key=key or "none", timeout=TIMEOUT, max_retries=TRIES_MORE)
    except Exception as error:  # noqa: BLE001 - raised on, without what it says
        raise EmbedderError(
            f"No client for the server of openai can be made ({type(error).__name__}). No vector was written.",
            next_step="write OPENAI_BASE_URL as https://HOST/v1, then run the same command again",
        ) from told(error)
    return _Server(client, name).embed


class _Server:
    def __init__(self, client: openai.OpenAI, model: str) -> None:
        self._client = client
        self._model = model
        # Without a name, a password or a key, which a URL may hold too.
        parts = urlsplit(str(client.base_url))
        self._shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    def embed(self, texts: list[str]) -> Sequence[Any]:
        """Return the vectors of texts, asked for in smaller batches where these are too much. Raises EmbedderError."""
        try:
            return self._asked(texts)
        except (openai.OpenAIError, ValueError) as error:
            failure = error
        # Raised out here, an error has no context, which would hold what the server says.
        if not isinstance(failure, openai.APIStatusError):
            raise self._failed(failure) from told(failure)
        if failure.status_code not in _TOO_MUCH or len(texts) == 1:
            raise self._refused(failure, texts) from told(failure)
        half = len(texts) // 2
        return [*self.embed(texts[:half]), *self.embed(texts[half:])]

    def _asked(self, texts: list[str]) -> Sequence[Any]:
        # An empty text is an error there, and a vector must be given for it too.
        answer: Any = self._client.embeddings.create(
            model=self._model, input=[text or " " for text in texts], encoding_format="float"
        )
        try:
            vectors = {each.index: each.embedding for each in answer.data}
            is_whole = len(answer.data) == len(texts) and vectors.keys() == set(range(len(texts)))
        except (AttributeError, TypeError):
            is_whole = False
        if not is_whole:
            raise _AnswerError
        return [vectors[index] for index in range(len(texts))]

    def _failed(self, error: Exception) -> EmbedderError:
        is_answer = not isinstance(error, openai.APIConnectionError)
        return EmbedderError(
            f"The server {self._shown} "
            + ("answered, but not with one vector for each text" if is_answer else "cannot be reached")
            + f" ({type(error).__name__.strip('_')}). The vectors written so far stand.",
            next_step="see that it speaks OpenAI's interface for embeddings and OPENAI_BASE_URL ends where that does, "
            "mostly in /v1, then run the same command again"
            if is_answer
            else "see that it runs and OPENAI_BASE_URL is right, then run the same command again",
        )

    def _refused(self, error: openai.APIStatusError, texts: list[str]) -> EmbedderError:
        # Never what the server says: it may quote the key, or a text.
        why, step = "it failed", "see what the log of the server says"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            why, step = "it does not take the key", "set OPENAI_API_KEY to one that may use the model"
        elif isinstance(error, openai.NotFoundError):
            why, step = f"it knows no model {self._model}, or has another address", "correct NAME or OPENAI_BASE_URL"
        elif isinstance(error, openai.RateLimitError):
            why, step = "it is asked too often, or the quota is used up", "wait, or see the limits of the key"
        elif error.status_code in _TOO_MUCH:
            why = f"it does not take a text of {len(texts[0])} characters alone either"
            step = f"shorten the longest chunks, or name a model that takes longer texts than {self._model}"
        return EmbedderError(
            f"The server {self._shown} refused, with status {error.status_code}: {why}. "
            "The vectors written so far stand.",
            next_step=f"{step}; then run the same command again",
        )


class _AnswerError(ValueError):
    """An answer that is not one vector for each text, told by its index."""
