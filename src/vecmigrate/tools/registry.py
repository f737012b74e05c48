"""The entries of an mcp-vector-search registry of migrations, as attempts of the history."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vecmigrate.history import Attempt

__all__ = ["DIRECTION", "adopted_attempts", "is_same"]

DIRECTION = "adopt"
_KEYS = frozenset(
    {"migration_id", "version", "name", "status", "message", "executed_at", "duration_seconds", "metadata"}
)
_STATUSES = frozenset({"pending", "running", "success", "failed", "skipped"})
_SECRET_NAME = re.compile(r"api_?key|secret|password|(^|_)token$", re.IGNORECASE)
_SECRET = re.compile(r"\b(sk|pk|hf|gh[a-z]|xox[a-z])[-_][\w-]{8,}|(?<=Bearer )\S+")
"""What a message of a failure may quote: keys of the services that mcp-vector-search asks."""


def adopted_attempts(entries: Sequence[Any], source: str) -> tuple[list[Attempt], list[str]]:
    """Return the entries of the file ``source`` as attempts, and what is to be said of those that are none.

    Their times, which have no zone, are taken as local. What looks like a key is not taken over.
    """
    attempts, problems = [], []
    for number, entry in enumerate(entries, 1):
        try:
            attempts.append(_attempt(entry, source))
        except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
            problems.append(
                f"Entry {number} of migrations.json is none that mcp-vector-search writes; it was left alone."
            )
    return attempts, problems


def is_same(one: Attempt, other: Attempt) -> bool:
    """Tell whether two attempts are of one entry: a local time is another instant where the zone is another."""
    return _identity(one) == _identity(other)


def _identity(attempt: Attempt) -> tuple[Any, ...]:
    told = attempt.metadata
    return attempt.migration_id, attempt.status, attempt.message, told.get("source"), told.get("recorded_at")


def _attempt(entry: Any, source: str) -> Attempt:
    if not isinstance(entry, dict) or entry.keys() - _KEYS or entry["status"] not in _STATUSES:
        raise ValueError
    told, at, duration = entry.get("metadata"), entry.get("executed_at"), entry.get("duration_seconds", 0.0)
    if not isinstance(told, dict | None) or type(duration) not in {int, float} or not math.isfinite(duration):
        raise TypeError
    names = [_line(entry[key]) for key in ("migration_id", "version", "name", "status")]
    return Attempt(
        migration_id=names[0],
        # Its registry may have the id of a revision of ours, whose attempt this is not.
        revision=None,
        version=names[1],
        name=names[2],
        direction=DIRECTION,
        status=names[3],
        message=_without_secrets(_text(entry.get("message", ""))),
        executed_at=_instant(at) if at is not None else "",
        duration_seconds=float(duration),
        metadata=_clean(told or {}) | {"source": source, "recorded_at": at},
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()
    return value


def _line(value: Any) -> str:
    if not _text(value).isprintable() or not value:
        raise ValueError
    return _without_secrets(value)


def _instant(text: Any) -> str:
    """Return a time in UTC; one without a zone is local, as Python takes it."""
    return datetime.fromisoformat(_text(text)).astimezone(UTC).isoformat()


def _clean(value: Any) -> Any:
    """Return a value of JSON without what looks like a key."""
    if isinstance(value, Mapping):
        return {
            _without_secrets(_text(key)): "***" if _SECRET_NAME.search(key) else _clean(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, str):
        return _without_secrets(_text(value))
    # Python reads NaN and Infinity, which JSON has not.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _without_secrets(text: str) -> str:
    return _SECRET.sub("***", text)
