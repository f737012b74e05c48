"""Rows with every value exact, and their form in JSON."""

import base64
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

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

_LONG = 1_000_000

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


def _duration(microseconds: str) -> timedelta:
    return timedelta(microseconds=int(microseconds))


_TYPES: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "microseconds": (timedelta, lambda value: str(value // timedelta(microseconds=1)), _duration),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
}
"""What PostgreSQL has beside the storage classes of SQLite: how each is written as text, and read again."""


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
    if isinstance(value, str):
        return {"text": base64.b64encode(value.encode()).decode()} if "\0" in value else value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"real": str(value)}
    return _encoded_type(value)


def _encoded_type(value: Any) -> Any:
    if isinstance(value, list):
        return {"array": [encoded(each) for each in value]}
    for name, (type_, written, _) in _TYPES.items():
        if isinstance(value, type_):
            return {name: written(value)}
    raise TypeError(f"a value of the type {type(value).__name__} can't be kept exactly")


def decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "real" in value:
        return float(value["real"])
    if "blob" in value:
        return base64.b64decode(value["blob"])
    if "text" in value:
        return decoded_text(base64.b64decode(value["text"]), value.get("encoding", "utf-8"))
    if "array" in value:
        return [decoded(each) for each in value["array"]]
    [(name, text)] = value.items()
    return _TYPES[name][2](text)


def decoded_text(data: bytes, codec: str) -> str | RawText:
    """Return the text that bytes hold, and the bytes marked as raw text where they hold none."""
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return RawText.of(data, codec)


def dumped(row: Row) -> str:
    """Return a row as JSON."""
    if any(isinstance(value, str | bytes) and len(value) > _LONG for value in row.values()):
        return "".join(_pieces(row))
    return json.dumps({column: encoded(value) for column, value in row.items()}, ensure_ascii=False)


def _pieces(row: Row) -> Iterator[str]:
    """Yield the JSON of a row in pieces: json.dumps would copy the Base64 of a huge value once more."""
    for number, (column, value) in enumerate(row.items()):
        yield f"{', ' if number else '{'}{json.dumps(column, ensure_ascii=False)}: "
        found = encoded(value)
        if isinstance(found, dict) and found.keys() <= {"blob", "text"}:
            [(name, text)] = found.items()
            yield from (f'{{"{name}": "', text, '"}')
        else:
            yield json.dumps(found, ensure_ascii=False)
    yield "}"


def loaded(text: str) -> Row:
    """Return the row that ``dumped`` wrote."""
    return {column: decoded(value) for column, value in json.loads(text).items()}


def same(one: Any, other: Any) -> bool:
    """Compare by value and storage class: in Python 1 is 1.0."""
    if type(one) is not type(other):
        return False
    # A decimal keeps its zeros, which PostgreSQL shows.
    return str(one) == str(other) if isinstance(one, Decimal) else bool(one == other)


def same_row(one: Row, other: Row) -> bool:
    return one.keys() == other.keys() and all(same(one[column], other[column]) for column in one)


def key_text(value: Any) -> str:
    """Return a key as ``target_key`` of vecmigrate_preserved holds it: text as it is, others (a tuple too) as JSON."""
    if isinstance(value, tuple):
        return key_text(value[0]) if len(value) == 1 else json.dumps([encoded(each) for each in value])
    return value if isinstance(value, str) else json.dumps(encoded(value))
