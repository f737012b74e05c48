"""What an embedder returns, checked and packed: little-endian float32, whatever kind of sequence it was."""

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from vecmigrate.errors import EmbedderError

__all__ = ["KEPT", "DimensionsError", "are_all_the_same", "pack"]

KEPT = "No vector of this batch was written; what was embedded before is kept."


def pack(returned: Any, *, count: int, dimensions: int | None) -> list[bytes]:
    """Return vectors as the bytes that are stored, ``4 * dimensions`` each.

    ``returned`` is any sequence of lists, tuples, arrays of any float type, or bytes that are little-endian float32
    already. With ``dimensions`` of None the first vector tells them. Raises EmbedderError for another number of
    vectors, vectors of other dimensions, what is no number, NaN, infinities (also of what is too large for float32),
    and vectors of zeros.
    """
    if isinstance(returned, str | bytes | bytearray | memoryview) or not isinstance(returned, Iterable):
        raise _refused(f"returned {type(returned).__name__}, which is no sequence of vectors")
    found = list(returned)
    if len(found) != count:
        raise _refused(f"returned {len(found)} vectors for {count} texts")
    packed = [_packed(vector, number) for number, vector in enumerate(found, 1)]
    for number, values in enumerate(packed, 1):
        dimensions = dimensions or len(values)
        _require_sound(values, number, dimensions)
    return [_little_endian(values) for values in packed]


def are_all_the_same(texts: Sequence[str], packed: Sequence[bytes]) -> bool:
    """Tell whether different texts have all got one and the same vector."""
    return len(set(texts)) > 1 and len(set(packed)) == 1


def _packed(vector: Any, number: int) -> "array[float]":
    values = array("f")
    try:
        if isinstance(vector, bytes | bytearray):
            values.frombytes(vector)
            return _swapped(values)
        if isinstance(vector, memoryview) and vector.format == "f" and vector.contiguous:
            values.frombytes(vector.tobytes())
            return values
        # Arrays of NumPy, PyTorch and the standard library; a list is what is left.
        values.extend(array("f", vector.tolist() if hasattr(vector, "tolist") else vector))
    except (TypeError, ValueError, OverflowError):
        raise _refused(f"returned as vector {number} what is no sequence of numbers") from None
    return values


def _require_sound(values: "array[float]", number: int, dimensions: int) -> None:
    if len(values) != dimensions:
        raise DimensionsError(
            f"The embedder returned a vector of {len(values)} dimensions where {dimensions} are wanted. {KEPT}",
            next_step="name the embedder of this model",
            dimensions=len(values),
        )
    # A sum of float32 is finite in double precision, unless one of them is not.
    if _has_highest_exponent(values) and not math.isfinite(sum(values)):
        raise _refused(f"returned NaN or an infinity in vector {number}")
    if not any(values):
        raise _refused(f"returned zeros alone as vector {number}")


def _has_highest_exponent(values: "array[float]") -> bool:
    """Tell whether a value may be NaN or an infinity, by the first bits of each: a sum takes ten times as long."""
    first = values.tobytes()[3 if sys.byteorder == "little" else 0 :: 4]
    return b"\x7f" in first or b"\xff" in first


def _swapped(values: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _little_endian(values: "array[float]") -> bytes:
    return _swapped(values).tobytes()


def _refused(what: str) -> EmbedderError:
    return EmbedderError(f"The embedder {what}. {KEPT}", next_step="mend the embedder, then run the same command again")


class DimensionsError(EmbedderError):
    """The vectors of an embedder have other dimensions than are wanted: ``dimensions``."""

    def __init__(self, message: str, *, next_step: str, dimensions: int) -> None:
        super().__init__(message, next_step=next_step)
        self.dimensions = dimensions
