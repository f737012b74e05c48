"""Vectors of a model that the package sentence-transformers runs on this machine."""

import os
from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer

from vecmigrate.causes import described, told
from vecmigrate.embedding.embedders import Embedder
from vecmigrate.errors import EmbedderError

__all__ = ["load"]

_TRUST = "VECMIGRATE_TRUST_REMOTE_CODE"


def load(name: str) -> Embedder:
    """Return the embedder of a model: its name on the hub, which may download it, or a folder. Raises EmbedderError.

    Code that comes with a model runs only where ``VECMIGRATE_TRUST_REMOTE_CODE`` is 1.
    """
    try:
        model = SentenceTransformer(name, trust_remote_code=os.environ.get(_TRUST) == "1")
    except Exception as error:  # noqa: BLE001 - raised on, without what it says
        needs_trust = "trust_remote_code" in str(error)
        raise EmbedderError(
            f"The model {name} cannot be loaded: "
            f"{'it brings code of its own, which is not run unasked' if needs_trust else described(error)}. "
            "No vector was written.",
            next_step=f"set {_TRUST}=1 if you trust the authors of {name}, and run the same command again"
            if needs_trust
            else "name another one as --embedder sentence-transformers:NAME, a model on the hub or its folder; to "
            f"see why: python -c \"from sentence_transformers import SentenceTransformer as S; S('{name}')\"",
        ) from told(error)
    # From version 5 on, models whose documents need a prompt tell it there.
    encode: Any = getattr(model, "encode_document", model.encode)

    def embed(texts: list[str]) -> Sequence[Any]:
        vectors: Sequence[Any] = encode(texts, show_progress_bar=False, convert_to_numpy=True)
        return vectors

    return embed
