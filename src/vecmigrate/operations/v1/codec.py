"""Rows with every value exact, and their form in JSON."""

import base64
import json
import math
from typing import Any

__all__ = [
    "RawText",
    "Row",
    "decoded",
    "decoded_text",
    "dumped",
    "encoded",
    "key_text",
    "kind",
    "loaded",
    "same",
    "same_row",
]

Row = dict[str, Any]
"""A row by its columns, each value as Python has it: None, int, float, str, RawText or bytes."""


class RawText(bytes):
    """Text that is not what its database says (UTF-8 as a rule): no reader could fetch it."""

    codec = "utf-8"

    @classmethod
    def of(cls, data: bytes, codec: str) -> "RawText":
        found = cls(data)
        found.codec = codec
        return found


def kind(value: Any) -> str:
    """Return the storage class of a value, in SQLite's words."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes) and not isinstance(value, RawText):
        return "blob"
    return {int: "integer", float: "real"}.get(type(value), "text")


def encoded(value: Any) -> Any:
    """Return what JSON can hold of a value, so that ``decoded`` gives it again, type and all."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, RawText):
        # In UTF-16, what is no text may well be some other text in UTF-8.
        encoding = {} if value.codec == "utf-8" else {"encoding": value.codec}
        return {"text": base64.b64encode(value).decode()} | encoding
    if isinstance(value, bytes):
        return {"blob": base64.b64encode(value).decode()}
    if isinstance(value, str) and "\0" in value:
        return {"text": base64.b64encode(value.encode()).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": str(value)}
    return value


def decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "real" in value:
        return float(value["real"])
    if "blob" in value:
        return base64.b64decode(value["blob"])
    return decoded_text(base64.b64decode(value["text"]), value.get("encoding", "utf-8"))


def decoded_text(data: bytes, codec: str) -> str | RawText:
    """Return the text that bytes hold, and the bytes marked as raw text where they hold none."""
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return RawText.of(data, codec)


def dumped(row: Row) -> str:
    """Return a row as JSON."""
    return json.dumps({column: encoded(value) for column, value in row.items()}, ensure_ascii=False)


def loaded(text: str) -> Row:
    """Return the row that ``dumped`` wrote."""
    return {column: decoded(value) for column, value in json.loads(text).items()}


def same(one: Any, other: Any) -> bool:
    """Compare by value and storage class: in Python 1 is 1.0."""
    return type(one) is type(other) and bool(one == other)


def same_row(one: Row, other: Row) -> bool:
    return one.keys() == other.keys() and all(same(one[column], other[column]) for column in one)


def key_text(value: Any) -> str:
    """Return a key as ``target_key`` of vecmigrate_preserved holds it: text as it is, others as JSON."""
    return value if isinstance(value, str) else json.dumps(encoded(value))
