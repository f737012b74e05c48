"""Vectors of a model that the package fastembed runs on this machine, without PyTorch."""

from collections.abc import Sequence
from typing import Any

from fastembed import TextEmbedding

from vecmigrate.causes import described, told
from vecmigrate.embedding.embedders import Embedder
from vecmigrate.errors import EmbedderError

__all__ = ["load"]


def load(name: str) -> Embedder:
    """Return the embedder of a model that fastembed knows, which may download it. Raises EmbedderError."""
    try:
        model = TextEmbedding(model_name=name)
    except Exception as error:  # noqa: BLE001 - raised on, without what it says
        is_unknown = name.lower() not in {each["model"].lower() for each in TextEmbedding.list_supported_models()}
        raise EmbedderError(
            f"The model {name} cannot be loaded: {'fastembed does not know it' if is_unknown else described(error)}. "
            "No vector was written.",
            next_step="name one as --embedder fastembed:NAME of those that this prints: "
            "python -c 'import fastembed; print(fastembed.TextEmbedding.list_supported_models())'"
            if is_unknown
            else "see that this machine reaches the hub that it is downloaded from, or put it into the folder "
            "FASTEMBED_CACHE_PATH, then run the same command again",
        ) from told(error)

    def embed(texts: list[str]) -> Sequence[Any]:
        # Some models ask for another prefix before a passage than before a question.
        return list(model.passage_embed(texts))

    return embed
