"""What a value means that is not of the type of its column: text, times, counts, flags, JSON."""

import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from vecmigrate.operations.v1.codec import Row, kind

__all__ = [
    "UnfitError",
    "count",
    "flag",
    "instant",
    "is_json",
    "iso",
    "json_text",
    "means_no",
    "needed",
    "number",
    "text",
    "time",
    "trimmed",
]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_ISO = re.compile(
    r"(?P<year>[0-9]{4})"
    r"(?:(?P<dash>-?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})"
    r"|-?W(?P<week>[0-9]{2})(?:-?(?P<weekday>[1-7]))?"
    r"|-?(?P<ordinal>[0-9]{3}))"
    r"(?:(?:T|[ ]+)(?P<hour>[0-9]{2})(?::?(?P<minute>[0-9]{2})(?::?(?P<second>[0-9]{2})"
    r"(?:[.,](?P<fraction>[0-9]+))?)?)?"
    r"[ ]*(?:Z|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>[0-9]{2})(?::?(?P<zone_minute>[0-9]{2}))?)?)?",
    re.IGNORECASE,
)
_EPOCH = date(1970, 1, 1)
_YES = {"true", "yes", "on", "t", "y"}
_NO = {"false", "no", "off", "f", "n", ""}


class UnfitError(ValueError):
    """The row has no place in the other shape; the message says why, without its contents."""


def trimmed(value: Any) -> str | None:
    """Return the text that a text or a BLOB holds, without space around it; None for other values."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    return value.strip(" \t\r\n\f\v") if isinstance(value, str) else None


def number(value: Any) -> Decimal | None:
    """Return what a finite number, or a text that is one, means; None for others."""
    if isinstance(value, (int, float)):
        found = Decimal(value)
        return found if found.is_finite() else None
    text = trimmed(value)
    return Decimal(text) if text is not None and _NUMBER.fullmatch(text) else None


def _number_of_64_bits(value: Any) -> Decimal | None:
    found = number(value)
    # The first comparison keeps the second one from writing out 1e9999.
    fits = found is not None and found.adjusted() < 20 and -(2**63) <= math.floor(found) < 2**63  # noqa: PLR2004
    return found if fits else None


def instant(value: Any) -> tuple[int, str] | None:
    """Return the Unix seconds, rounded down, and the digits of the fraction, or None if there is no time."""
    found = _number_of_64_bits(value)
    if found is not None:
        seconds = math.floor(found)
        digits = len(found.as_tuple().digits) + abs(int(found.as_tuple().exponent)) + 25
        fraction = Context(prec=digits).subtract(found, Decimal(seconds))
        return seconds, format(fraction, "f").partition(".")[2].rstrip("0")
    match = _ISO.fullmatch(trimmed(value) or "")
    try:
        return _iso_instant(match) if match else None
    except ValueError:
        return None


def _iso_instant(match: re.Match[str]) -> tuple[int, str]:
    """Return what instant does. Raises ValueError for a day or a time of day that does not exist."""
    hour, minute, second, zone_hour, zone_minute = (
        int(match[name] or 0) for name in ("hour", "minute", "second", "zone_hour", "zone_minute")
    )
    offset = (zone_hour * 60 + zone_minute) * (-60 if match["sign"] == "-" else 60)
    clock, fraction = hour * 3600 + minute * 60 + second, (match["fraction"] or "").rstrip("0")
    # 24:00 is the end of a day; a leap second ends a day of UTC, and is the next second in Unix time.
    is_late = hour > 23 and (clock, fraction) != (86400, "")  # noqa: PLR2004
    is_leap = second == 60 and (clock - offset) % 86400 == 0  # noqa: PLR2004
    if is_late or minute > 59 or (second > 59 and not is_leap) or zone_hour > 23 or zone_minute > 59:  # noqa: PLR2004
        raise ValueError(match.group())
    return (_day(match) - _EPOCH).days * 86400 + clock - offset, fraction


def _day(match: re.Match[str]) -> date:
    year = int(match["year"])
    if match["week"]:
        return date.fromisocalendar(year, int(match["week"]), int(match["weekday"] or 1))
    if match["ordinal"]:
        day = date(year, 1, 1) + timedelta(days=int(match["ordinal"]) - 1)
        if day.year != year:
            raise ValueError(match["ordinal"])
        return day
    return date(year, int(match["month"]), int(match["day"]))


def iso(value: Any) -> Any:
    """Return Unix seconds as ISO text in UTC, and what is no integer as it is."""
    if not isinstance(value, int):
        return value
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)).isoformat()
    except OverflowError:
        return str(value)


def text(value: Any, column: str, notes: list[str]) -> str | None:
    """Read text; a BLOB that is UTF-8 and an integer are it too. What was read otherwise than it stands is noted."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        found: str | None = str(value)
    else:
        try:
            found = value.decode() if isinstance(value, bytes) else None
        except UnicodeDecodeError:
            found = None
    notes.append(f"{column}: {kind(value)} " + ("read as text" if found is not None else "is no text, left empty"))
    return found


def time(value: Any, column: str, notes: list[str]) -> int | None:
    """Read Unix seconds, also from a real, from digits and from ISO text; what has no clear time is None."""
    if value is None or isinstance(value, int):
        return value
    found = instant(value)
    notes.append(f"{column}: " + (f"{kind(value)} read as a time" if found else "no clear time, none set"))
    return found[0] if found else None


def count(value: Any, column: str, notes: list[str]) -> int | None:
    """Read a whole number; what is no number is 0."""
    if value is None or isinstance(value, int):
        return value
    found = _number_of_64_bits(value)
    notes.append(f"{column}: " + ("no clear number, 0 set" if found is None else f"{kind(value)} read as a number"))
    return 0 if found is None else int(found)


def flag(value: Any, column: str, notes: list[str]) -> int | None:
    """Read 0 or 1 from numbers and from words like yes. Raises UnfitError for what means neither."""
    if value is None or (isinstance(value, int) and value in (0, 1)):
        return value
    meant, word = number(value), trimmed(value)
    if meant is not None:
        found = int(meant != 0)
    elif word is not None and word.lower() in _YES | _NO:
        found = int(word.lower() in _YES)
    else:
        raise UnfitError(f"{column}: {kind(value)} that means neither yes nor no")
    notes.append(f"{column}: {kind(value)} read as {found}")
    return found


def means_no(value: Any) -> bool:
    """Tell whether a flag clearly says no."""
    try:
        return flag(value, "", []) == 0
    except UnfitError:
        return False


def json_text(value: Any, column: str, notes: list[str]) -> str | None:
    """Read text that is valid JSON; other text is None."""
    found = text(value, column, notes)
    if found is None or is_json(found):
        return found
    notes.append(f"{column}: no valid JSON, left empty")
    return None


def is_json(value: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        # Numbers stay text: Python refuses integers of very many digits, JSON does not.
        json.loads(value, parse_constant=refuse, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def needed(row: Row, *columns: str) -> None:
    """Raise UnfitError if one of the columns has no value."""
    for column in columns:
        if row[column] is None:
            raise UnfitError(f"{column}: no clear value, and one is needed")
