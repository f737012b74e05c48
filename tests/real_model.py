"""An embedder with a real model: WordLlama's token embeddings, whose weights come in its wheel. 256 dimensions."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import wordllama


@cache
def _model() -> Any:
    # It looks for its own tokenizer in the cache only.
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def embed(texts: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return normalised vectors, one a text."""
    vectors: np.ndarray[Any, np.dtype[np.float32]] = _model().embed(list(texts), norm=True)
    return vectors
