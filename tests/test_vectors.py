"""Vectors of any kind are checked and packed as little-endian float32, or refused."""

import math
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vecmigrate.embedding import tries
from vecmigrate.embedding.vectors import DimensionsError, pack
from vecmigrate.errors import EmbedderError

NUMBERS = [0.5, -1.25, 3.0]
PACKED = struct.pack("<3f", *NUMBERS)


class Tensor:
    """What NumPy's and PyTorch's arrays have in common."""

    def __init__(self, values: Sequence[float]) -> None:
        self._values = values

    def tolist(self) -> list[float]:
        return list(self._values)


KINDS: dict[str, Any] = {
    "a list": NUMBERS,
    "a tuple": tuple(NUMBERS),
    "an array of float32": array("f", NUMBERS),
    "an array of float64": array("d", NUMBERS),
    "an array with tolist": Tensor(NUMBERS),
    "bytes": PACKED,
    "a bytearray": bytearray(PACKED),
    "a view of float32": memoryview(array("f", NUMBERS)),
    "a view of float64": memoryview(array("d", NUMBERS)),
    "a view of every second": memoryview(array("f", [0.5, 9, -1.25, 9, 3.0, 9]))[::2],
    "an iterator": iter(NUMBERS),
    "whole numbers": [1, 2, 3],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_of_any_kind_becomes_bytes(kind: str) -> None:
    """Lists, tuples, arrays of any float type, and bytes, which are float32 already."""
    expected = struct.pack("<3f", 1, 2, 3) if kind == "whole numbers" else PACKED

    assert [expected] == pack([KINDS[kind]], count=1, dimensions=3)


def test_vectors_may_come_in_any_sequence() -> None:
    """A tuple, a generator, an array of arrays."""
    assert [PACKED, PACKED] == pack((NUMBERS, NUMBERS), count=2, dimensions=3)
    assert [PACKED, PACKED] == pack((NUMBERS for _ in range(2)), count=2, dimensions=3)


FAULTS: dict[str, tuple[Any, str]] = {
    "too few": ([NUMBERS], "1 vectors for 2 texts"),
    "too many": ([NUMBERS] * 3, "3 vectors for 2 texts"),
    "None": (None, "NoneType, which is no sequence"),
    "bytes instead of vectors": (PACKED, "bytes, which is no sequence"),
    "a number": (7, "int, which is no sequence"),
    "NaN": ([NUMBERS, [0.5, math.nan, 1.0]], "NaN or an infinity in vector 2"),
    "infinity": ([[math.inf, 0.5, 1.0], NUMBERS], "NaN or an infinity in vector 1"),
    "two infinities": ([[math.inf, -math.inf, 1.0], NUMBERS], "NaN or an infinity in vector 1"),
    "too large for float32": ([NUMBERS, [1e39, 1.0, 1.0]], "NaN or an infinity in vector 2"),
    "minus infinity": ([NUMBERS, [0.5, 1.0, -math.inf]], "NaN or an infinity in vector 2"),
    "a negative NaN": ([struct.pack("<2f", 1, 1) + b"\x01\x00\x80\xff", NUMBERS], "NaN or an infinity in vector 1"),
    "NaN in bytes": ([struct.pack("<3f", 1, math.nan, 1), NUMBERS], "NaN or an infinity in vector 1"),
    "zeros": ([NUMBERS, [0.0, -0.0, 0.0]], "zeros alone as vector 2"),
    "too small for float32": ([NUMBERS, [1e-60, 0.0, 0.0]], "zeros alone as vector 2"),
    "text": ([NUMBERS, "abc"], "vector 2 what is no sequence of numbers"),
    "a list of lists": ([NUMBERS, [[1.0], [2.0], [3.0]]], "vector 2 what is no sequence of numbers"),
    "None as a vector": ([None, NUMBERS], "vector 1 what is no sequence of numbers"),
    "bytes of no floats": ([b"12345", NUMBERS], "vector 1 what is no sequence of numbers"),
}


def test_the_largest_numbers_are_taken() -> None:
    """They are no infinities, although they begin with almost the same bits."""
    largest = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]

    assert [struct.pack("<3f", largest, largest, -largest)] == pack(
        [[largest, largest, -largest]], count=1, dimensions=3
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_the_vectors_is_refused(fault: str) -> None:
    """With an error that says what was returned, and quotes no text."""
    returned, message = FAULTS[fault]

    with pytest.raises(EmbedderError, match=message):
        pack(returned, count=2, dimensions=3)


@pytest.mark.parametrize("vector", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [], struct.pack("<2f", 1, 2)], ids=str)
def test_other_dimensions_are_told(vector: Any) -> None:
    """The error knows how many they are, so that the message can name them."""
    with pytest.raises(DimensionsError) as caught:
        pack([vector], count=1, dimensions=3)

    assert caught.value.dimensions == (2 if isinstance(vector, bytes) else len(vector))


def asked(embedder: Callable[[list[str]], Any], texts: list[str]) -> list[bytes]:
    return tries.vectors(embedder, texts, dimensions=3, should_stop=bool)


def test_one_vector_for_every_text_is_refused() -> None:
    """An embedder that returns the same for whatever it is given is none."""
    with pytest.raises(EmbedderError, match="the same vector for 3 different texts"):
        asked(lambda texts: [NUMBERS] * len(texts), ["a", "b", "c"])


def test_texts_that_a_model_does_not_tell_apart_are_taken() -> None:
    """A model that reads no case gives two texts one vector, and other texts another one."""

    def embedder(texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), *map(float, text.lower().encode()[:2])] for text in texts]

    packed = asked(embedder, ["IMPORT sys", "import sys"])

    assert 1 == len(set(packed))


def test_equal_texts_may_have_one_vector() -> None:
    """Where all texts of a batch are the same, so are their vectors."""
    assert [PACKED] * 2 == asked(lambda texts: [NUMBERS] * len(texts), ["a", "a"])


def test_what_may_pass_is_tried_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a growing pause before each further try; a service that was away for a moment is back then."""
    paused: list[float] = []
    monkeypatch.setattr("time.sleep", paused.append)
    left = [ConnectionError("gone"), TimeoutError()]

    def embedder(texts: list[str]) -> list[list[float]]:
        if left:
            raise left.pop()
        return [NUMBERS for _ in texts]

    assert [PACKED] == asked(embedder, ["a"])
    assert [1.0, 5.0] == paused


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_what_does_not_pass_is_told_without_the_text(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """After the third time the error names the kind of what was raised, and never what it says."""
    monkeypatch.setattr(tries, "PAUSES", (0.0, 0.0))
    calls = []

    def embedder(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        raise kind(f"cannot embed {texts[0]}") from kind(texts[0])

    with pytest.raises(EmbedderError, match=kind.__name__) as caught:
        asked(embedder, ["the secret text"])

    assert 3 == len(calls)
    assert "secret" not in str(caught.value)
    cause = caught.value.__cause__
    assert cause is not None
    assert "secret" not in f"{cause} {cause.__cause__}"


@pytest.mark.parametrize("ended", [SystemExit(3), EmbedderError("The key is wrong.", next_step="set another one")])
def test_what_says_of_itself_that_it_is_final(ended: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedder that knows why it cannot says so once; one that would end the process does not."""
    monkeypatch.setattr(tries, "PAUSES", (0.0, 0.0))
    calls = []

    def embedder(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        raise ended

    with pytest.raises(EmbedderError):
        asked(embedder, ["a"])

    assert len(calls) == (1 if isinstance(ended, EmbedderError) else 3)


def test_an_embedder_that_changes_its_texts_changes_nothing() -> None:
    """It gets a list of its own."""

    def embedder(texts: list[str]) -> list[list[float]]:
        found = [[float(len(text)), 1.0, 2.0] for text in texts]
        texts.clear()
        return found

    texts = ["a", "bc"]
    asked(embedder, texts)

    assert ["a", "bc"] == texts
