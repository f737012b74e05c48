"""Unified vector_stores: the legacy tables vector_stores and stores become one.

Rows that need no conversion move inside the database, set by set. The others pass through Python, where
they are converted if their meaning is clear and otherwise set aside in ``vecmigrate_preserved``.

One idea serves both directions: each shape has a pair of functions, ``convert`` to the unified row and
``restore`` back from it. An original is kept exactly where there and back would not give it again. On the
way back a column returns to its original where the present row and the one that was written agree in it;
elsewhere somebody edited it, and the edit wins.

Revision ID: 001
Revises: 000
"""

import base64
import hashlib
import json
import math
import re
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "001"
down_revision = "000"
branch_labels = None
depends_on = None

LEGACY_COLUMNS = frozenset(
    {"session_id", "vector_store_id", "provider", "expires_at", "protected", "created_at", "updated_at"}
)
UNIFIED_COLUMNS = frozenset(
    {"vector_store_id", "name", "session_id", "provider", "provider_metadata", "is_protected", "is_active"}
    | {"created_at", "expires_at", "updated_at", "document_count", "rollover_from"}
)
STORES_COLUMNS = frozenset({"store_id", "store_type", "doc_count", "created_at", "is_active"})

ADOPTS = {"vector_stores": (LEGACY_COLUMNS, UNIFIED_COLUMNS), "stores": (STORES_COLUMNS,)}
"""The shapes, told by their columns, of tables that may be there before the ladder."""

ADOPTS_VIEWS = ("active_stores",)
"""The views that belong to these tables."""

Row = dict[str, Any]

# Unix seconds outgrow PostgreSQL's INTEGER in 2038; SQLite's own holds 64 bits.
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_TABLE = "vector_stores"
_NEW = "vecmigrate_new_vector_stores"
_PAGE = 1000
_UTF8_PAGE = 50_000
_KEYS = ("vector_store_id", "session_id", "name")
_PREFIXES = {"conversation": "project-conversations", "commit": "project-commits"}
# Reasons that begin so also tell the next run what to do, so they never change.
_BEATEN = "went back as it was; on the way up it waits again while another row has its key: "
_WAITS = "went back as it was; on the way up it waits again unless it was edited: "
_COMPLETED = "has values again that the older table could not hold"
_TAKEN = "already taken by a row that is protected, active or newer"
_TAKEN_SINCE = "taken by another row while this one waited; it comes back by an upgrade once that is gone"

_preserved = sa.table(
    "vecmigrate_preserved",
    sa.column("id", sa.Integer),
    sa.column("revision", sa.Text),
    sa.column("direction", sa.Text),
    sa.column("source_table", sa.Text),
    sa.column("row", sa.Text),
    sa.column("landed", sa.Integer),
    sa.column("target_key", sa.Text),
    sa.column("converted", sa.Text),
    sa.column("reason", sa.Text),
    sa.column("preserved_at", sa.Text),
)


def upgrade() -> None:
    if op.get_context().as_sql:
        _require_empty()
        op.execute("DROP VIEW IF EXISTS active_stores")
        op.drop_table("stores")
        op.drop_table(_TABLE)
        _create_unified(_TABLE)
        _create_keys(_TABLE)
        _create_indexes()
        return
    _unify(op.get_bind())


def downgrade() -> None:
    if op.get_context().as_sql:
        _require_empty(_TABLE)
        op.drop_table(_TABLE)
        _create_legacy_vector_stores()
        _create_legacy_indexes()
        _create_legacy_stores()
        return
    bind = op.get_bind()
    merge_stores(bind)
    _separate(bind)


def merge_stores(bind: sa.Connection) -> None:
    """Merge a ``stores`` that an older service made again after 001 into ``vector_stores``, and drop it.

    Rows that are in ``vector_stores`` win. Does nothing where there is no ``stores``. Writes.
    """
    if "stores" not in _table_names(bind):
        return
    _shape_of(bind, "stores")
    triggers = _triggers(bind)
    for name in triggers:
        bind.exec_driver_sql(f"DROP TRIGGER {_quoted(name)}")
    with _work_tables(bind):
        ledger = _Ledger(bind, "upgrade", _count(bind, _TABLE) + _count(bind, "stores"))
        _stage(bind, _STORES, "SELECT {cells} FROM stores s")
        _land(bind, _TABLE)
        ledger.check(_count(bind, _TABLE))
    _drop_stores(bind)
    for sql in triggers.values():
        bind.exec_driver_sql(sql)


# The tables.


def _create_unified(table: str) -> None:
    op.create_table(
        table,
        sa.Column("vector_store_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("provider_metadata", sa.Text),
        sa.Column("is_protected", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("is_active", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("created_at", _BIG, nullable=False),
        sa.Column("expires_at", _BIG),
        sa.Column("updated_at", _BIG, nullable=False),
        sa.Column("document_count", _BIG, server_default=sa.text("0")),
        sa.Column("rollover_from", sa.Text),
        sa.PrimaryKeyConstraint("vector_store_id", name="pk_vector_stores"),
        sa.CheckConstraint("(name IS NULL) <> (session_id IS NULL)", name="ck_vector_stores_name_or_session"),
    )


def _create_keys(table: str) -> None:
    op.create_index("uq_vector_stores_name", table, ["name"], unique=True)
    op.create_index("uq_vector_stores_session_id", table, ["session_id"], unique=True)


def _create_indexes() -> None:
    op.create_index("idx_vector_stores_updated", _TABLE, ["updated_at"])
    for name, columns in (
        ("idx_vs_expires_at", ["expires_at"]),
        ("idx_vs_active_named", ["name", "is_active"]),
        ("idx_vs_rollover", ["rollover_from"]),
    ):
        where = sa.text(f"{columns[0]} IS NOT NULL")
        op.create_index(name, _TABLE, columns, sqlite_where=where, postgresql_where=where)


def _create_legacy_vector_stores() -> None:
    op.create_table(
        _TABLE,
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("vector_store_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("expires_at", _BIG, nullable=False),
        sa.Column("protected", sa.Integer, server_default=sa.text("0")),
        sa.Column("created_at", _BIG, nullable=False),
        sa.Column("updated_at", _BIG, nullable=False),
    )


def _create_legacy_indexes() -> None:
    op.create_index("idx_vector_stores_updated", _TABLE, ["updated_at"])
    op.create_index("idx_vector_stores_expires", _TABLE, ["expires_at"])


def _create_legacy_stores() -> None:
    op.create_table(
        "stores",
        sa.Column("store_id", sa.Text, primary_key=True),
        sa.Column("store_type", sa.Text, nullable=False),
        sa.Column("doc_count", _BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("is_active", sa.Integer, nullable=False),
        sa.CheckConstraint("store_type IN ('conversation', 'commit')", name="ck_stores_store_type"),
        sa.CheckConstraint("is_active IN (0, 1)", name="ck_stores_is_active"),
    )
    where = sa.text("is_active = 1")
    op.create_index(
        "idx_active_store", "stores", ["store_type"], unique=True, sqlite_where=where, postgresql_where=where
    )


def _require_empty(*tables: str) -> None:
    """Emit SQL that fails where there are rows: only a run on the database itself can convert them."""
    op.execute(
        "CREATE TEMPORARY TABLE vecmigrate_offline (found INTEGER, "
        "CONSTRAINT ck_vecmigrate_sql_is_for_an_empty_database CHECK (found = 0))"
    )
    for table in tables or (_TABLE, "stores"):
        op.execute(f"INSERT INTO vecmigrate_offline (found) SELECT count(*) FROM {table}")
    op.execute("DROP TABLE vecmigrate_offline")


# The meaning of values that are not of the type of their column.


class _RawText(bytes):
    """Text that is not what its database says (UTF-8 as a rule): no reader could fetch it."""

    codec = "utf-8"

    @classmethod
    def of(cls, data: bytes, codec: str) -> "_RawText":
        found = cls(data)
        found.codec = codec
        return found


class _UnfitError(ValueError):
    """The row has no place in the other shape; the message says why, without its contents."""


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


def _kind(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return "blob"
    return {int: "integer", float: "real"}.get(type(value), "text")


def _trimmed(value: Any) -> str | None:
    """Return the text that a text or a BLOB holds, None for other values."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    return value.strip(" \t\r\n\f\v") if isinstance(value, str) else None


def _number(value: Any) -> Decimal | None:
    """Return what a finite number, or a text that is one, means; None for others."""
    if isinstance(value, (int, float)):
        found = Decimal(value)
        return found if found.is_finite() else None
    text = _trimmed(value)
    return Decimal(text) if text is not None and _NUMBER.fullmatch(text) else None


def _number_of_64_bits(value: Any) -> Decimal | None:
    found = _number(value)
    # The first comparison keeps the second one from writing out 1e9999.
    fits = found is not None and found.adjusted() < 20 and -(2**63) <= math.floor(found) < 2**63  # noqa: PLR2004
    return found if fits else None


def _instant(value: Any) -> tuple[int, str] | None:
    """Return the Unix seconds, rounded down, and the digits of the fraction, or None if there is no time."""
    number = _number_of_64_bits(value)
    if number is not None:
        seconds = math.floor(number)
        digits = len(number.as_tuple().digits) + abs(int(number.as_tuple().exponent)) + 25
        fraction = Context(prec=digits).subtract(number, Decimal(seconds))
        return seconds, format(fraction, "f").partition(".")[2].rstrip("0")
    match = _ISO.fullmatch(_trimmed(value) or "")
    try:
        return _iso_instant(match) if match else None
    except ValueError:
        return None


def _iso_instant(match: re.Match[str]) -> tuple[int, str]:
    """Return what _instant does. Raises ValueError for a day or a time of day that does not exist."""
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


def _text(value: Any, column: str, notes: list[str]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        text: str | None = str(value)
    else:
        try:
            text = value.decode() if isinstance(value, bytes) else None
        except UnicodeDecodeError:
            text = None
    notes.append(f"{column}: {_kind(value)} " + ("read as text" if text is not None else "is no text, left empty"))
    return text


def _time(value: Any, column: str, notes: list[str]) -> int | None:
    if value is None or isinstance(value, int):
        return value
    found = _instant(value)
    notes.append(f"{column}: " + (f"{_kind(value)} read as a time" if found else "no clear time, none set"))
    return found[0] if found else None


def _count_of(value: Any, column: str, notes: list[str]) -> int | None:
    if value is None or isinstance(value, int):
        return value
    found = _number_of_64_bits(value)
    notes.append(f"{column}: " + ("no clear number, 0 set" if found is None else f"{_kind(value)} read as a number"))
    return 0 if found is None else int(found)


def _flag(value: Any, column: str, notes: list[str]) -> int | None:
    if value is None or (isinstance(value, int) and value in (0, 1)):
        return value
    number, text = _number(value), _trimmed(value)
    if number is not None:
        found = int(number != 0)
    elif text is not None and text.lower() in _YES | _NO:
        found = int(text.lower() in _YES)
    else:
        raise _UnfitError(f"{column}: {_kind(value)} that means neither yes nor no")
    notes.append(f"{column}: {_kind(value)} read as {found}")
    return found


def _json(value: Any, column: str, notes: list[str]) -> str | None:
    text = _text(value, column, notes)
    if text is None or _is_json(text):
        return text
    notes.append(f"{column}: no valid JSON, left empty")
    return None


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        # Numbers stay text: Python refuses integers of very many digits, JSON does not.
        json.loads(text, parse_constant=refuse, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def _needed(row: Row, *columns: str) -> None:
    for column in columns:
        if row[column] is None:
            raise _UnfitError(f"{column}: no clear value, and one is needed")


# The shapes.


@dataclass(frozen=True)
class _Shape:
    """A table before this revision; ``kinds`` names each column with what a plain value in it is."""

    table: str
    key: str
    kinds: dict[str, str]
    to_unified: Callable[[Row, list[str]], Row]
    restore: Callable[[Row], Row]
    selected: dict[str, str]
    plain_unified: str = "TRUE"

    @property
    def texts(self) -> list[str]:
        return [column for column, kind in self.kinds.items() if kind.startswith(("text", "json"))]

    def convert(self, row: Row, notes: list[str] | None = None) -> Row:
        """Return the unified row that a row of this shape means. Raises _UnfitError."""
        for column, value in row.items():
            if isinstance(value, _RawText):
                raise _UnfitError(f"{column}: text that is not UTF-8")
        return self.to_unified(row, [] if notes is None else notes)


_UNIFIED_KINDS = {
    "vector_store_id": "text",
    "name": "text?",
    "session_id": "text?",
    "provider": "text",
    "provider_metadata": "json?",
    "is_protected": "flag",
    "is_active": "flag",
    "created_at": "integer",
    "expires_at": "integer?",
    "updated_at": "integer",
    "document_count": "integer?",
    "rollover_from": "text?",
}
_READERS: dict[str, Callable[[Any, str, list[str]], Any]] = {
    "text": _text,
    "json?": _json,
    "flag": _flag,
    "integer": _time,
}


def _from_unified(row: Row, notes: list[str]) -> Row:
    found = {}
    for column, kind in _UNIFIED_KINDS.items():
        read = _READERS.get(kind) or _READERS[kind.rstrip("?")]
        found[column] = (_count_of if column == "document_count" else read)(row[column], column, notes)
    _needed(found, *(column for column, kind in _UNIFIED_KINDS.items() if not kind.endswith("?")))
    _require_one_owner(found)
    return found


def _require_one_owner(row: Row) -> None:
    if (row["name"] is None) == (row["session_id"] is None):
        raise _UnfitError("name, session_id: exactly one of them must have a value")


def _from_legacy(row: Row, notes: list[str]) -> Row:
    found = dict.fromkeys(_UNIFIED_KINDS) | {"is_active": 1, "document_count": 0}
    for column in ("vector_store_id", "session_id", "provider"):
        found[column] = _text(row[column], column, notes)
    for column in ("created_at", "expires_at", "updated_at"):
        found[column] = _time(row[column], column, notes)
    protected = _flag(row["protected"], "protected", notes)
    if protected is None:
        notes.append("protected: NULL read as 0")
    found["is_protected"] = protected or 0
    _needed(found, "vector_store_id", "session_id", "provider", "created_at", "updated_at")
    return found


def _to_legacy(row: Row) -> Row:
    return {column: row["is_protected" if column == "protected" else column] for column in _LEGACY.kinds}


def _from_store(row: Row, notes: list[str]) -> Row:
    if _text(row["store_type"], "store_type", []) not in _PREFIXES:
        raise _UnfitError("store_type: neither conversation nor commit")
    instant = _instant(row["created_at"])
    found = dict.fromkeys(_UNIFIED_KINDS) | {
        "vector_store_id": _text(row["store_id"], "store_id", notes),
        "provider": "openai",
        "is_protected": 1,
        "is_active": _flag(row["is_active"], "is_active", notes),
        "created_at": instant and instant[0],
        "updated_at": instant and instant[0],
        "document_count": _count_of(row["doc_count"], "doc_count", notes) or 0,
    }
    _needed(found, "vector_store_id", "is_active", "created_at")
    return found


def _to_store(row: Row) -> Row:
    """Return the row of stores. Its type is nowhere in the unified row: it comes from the original."""
    active = row["is_active"]
    return {
        "store_id": row["vector_store_id"],
        "store_type": None,
        "doc_count": 0 if row["document_count"] is None else row["document_count"],
        "created_at": _iso(row["created_at"]),
        "is_active": int(active != 0) if isinstance(active, int) else active,
    }


def _iso(value: Any) -> Any:
    if not isinstance(value, int):
        return value
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)).isoformat()
    except OverflowError:
        return str(value)


_LEGACY = _Shape(
    table=_TABLE,
    key="session_id",
    kinds={
        "session_id": "text",
        "vector_store_id": "text",
        "provider": "text",
        "expires_at": "integer",
        "protected": "flag",
        "created_at": "integer",
        "updated_at": "integer",
    },
    to_unified=_from_legacy,
    restore=_to_legacy,
    selected={"protected": "is_protected"},
    plain_unified=(
        "name IS NULL AND session_id IS NOT NULL AND provider_metadata IS NULL AND rollover_from IS NULL "
        "AND is_active = 1 AND document_count = 0 AND expires_at IS NOT NULL"
    ),
)
_FOUND_UNIFIED = _Shape(
    table=_TABLE,
    key="vector_store_id",
    kinds=_UNIFIED_KINDS,
    to_unified=_from_unified,
    restore=lambda row: {column: row[column] for column in _UNIFIED_KINDS},
    selected={},
)
_STORES = _Shape(
    table="stores",
    key="store_id",
    kinds=dict.fromkeys(("store_id", "store_type", "doc_count", "created_at", "is_active"), "any"),
    to_unified=_from_store,
    restore=_to_store,
    selected={},
)


def _shape_of(bind: sa.Connection, table: str) -> _Shape:
    found = bind.execute(sa.text(f"SELECT * FROM {table} LIMIT 0"))
    columns = set(map(str.lower, found.keys()))
    for shape in (_LEGACY, _FOUND_UNIFIED, _STORES):
        if shape.table == table and columns == set(shape.kinds):
            return shape
    raise RuntimeError(f"The table {table} has none of the shapes that revision 001 knows.")


def _are_plain(bind: sa.Connection, kinds: dict[str, str]) -> str:
    """Return the SQL condition that every column holds a value as the unified table has it."""
    conditions = _SQLITE_PLAIN if _is_sqlite(bind) else _POSTGRES_PLAIN
    found = [conditions[kind].format(c=column) for column, kind in kinds.items()]
    if "name" in kinds:
        found.append("(name IS NULL) <> (session_id IS NULL)")
    return " AND ".join(found)


_SQLITE_PLAIN = {
    "text": "typeof({c}) = 'text'",
    "text?": "typeof({c}) IN ('text', 'null')",
    "json?": "({c} IS NULL OR (typeof({c}) = 'text' AND json_valid({c}) AND instr(CAST({c} AS BLOB), x'00') = 0))",
    "flag": "typeof({c}) = 'integer' AND {c} IN (0, 1)",
    "integer": "typeof({c}) = 'integer'",
    "integer?": "typeof({c}) IN ('integer', 'null')",
}
_POSTGRES_PLAIN = {
    "text": "{c} IS NOT NULL",
    "text?": "TRUE",
    "json?": "{c} IS NULL",
    "flag": "{c} IN (0, 1)",
    "integer": "{c} IS NOT NULL",
    "integer?": "TRUE",
}


# Rows and their exact form in JSON.


def _encoded(value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, _RawText):
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


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "real" in value:
        return float(value["real"])
    if "blob" in value:
        return base64.b64decode(value["blob"])
    return _decoded_text(base64.b64decode(value["text"]), value.get("encoding", "utf-8"))


def _decoded_text(data: bytes, codec: str) -> str | _RawText:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return _RawText.of(data, codec)


def _dump(row: Row) -> str:
    return json.dumps({column: _encoded(value) for column, value in row.items()}, ensure_ascii=False)


def _load(text: str) -> Row:
    return {column: _decoded(value) for column, value in json.loads(text).items()}


def _same(one: Any, other: Any) -> bool:
    """Compare by value and storage class: in Python 1 is 1.0."""
    return type(one) is type(other) and bool(one == other)


def _same_row(one: Row, other: Row) -> bool:
    return one.keys() == other.keys() and all(_same(one[column], other[column]) for column in one)


def _key_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_encoded(value))


def _cells(bind: sa.Connection, columns: Iterable[str]) -> str:
    """Return what to select so that _row can tell every value exactly, whatever SQLite holds there."""
    if not _is_sqlite(bind):
        return ", ".join(f"s.{column}" for column in columns)
    return ", ".join(
        f"typeof(s.{column}), CASE typeof(s.{column}) WHEN 'text' THEN CAST(s.{column} AS BLOB) ELSE s.{column} END"
        for column in columns
    )


def _row(columns: Iterable[str], values: Sequence[Any], codec: str | None) -> Row:
    if codec is None:
        return dict(zip(columns, values, strict=True))
    return {
        column: _decoded_text(value, codec) if kind == "text" else value
        for column, kind, value in zip(columns, values[::2], values[1::2], strict=True)
    }


def _codec(bind: sa.Connection) -> str | None:
    """Return how SQLite encodes text in this database, None elsewhere."""
    return str(bind.exec_driver_sql("PRAGMA encoding").scalar_one()).lower() if _is_sqlite(bind) else None


def _insert(bind: sa.Connection, table: str, rows: Sequence[Row]) -> None:
    """Insert the rows; one that breaks a rule of the table is an error, whatever the table would do by itself."""
    plain = [row for row in rows if not any(isinstance(value, _RawText) for value in row.values())]
    if plain:
        bind.execute(sa.text(_insert_sql(bind, table, plain[0])), plain)
    for row in rows if len(plain) < len(rows) else ():
        if any(isinstance(value, _RawText) for value in row.values()):
            values = {column: value for column, value in row.items() if not isinstance(value, _RawText)}
            bind.execute(sa.text(_insert_sql(bind, table, row)), values)


def _insert_sql(bind: sa.Connection, table: str, row: Row) -> str:
    # Only of a literal does SQLite take the bytes as they are, whatever the encoding of the database.
    values = (
        f"CAST(x'{value.hex()}' AS TEXT)" if isinstance(value, _RawText) else f":{column}"
        for column, value in row.items()
    )
    return f"{_insert_into(bind, table)} ({', '.join(row)}) VALUES ({', '.join(values)})"


def _insert_into(bind: sa.Connection, table: str) -> str:
    # A table that was found may have ON CONFLICT clauses of its own, which would drop rows silently.
    return f"INSERT {'OR ABORT ' if _is_sqlite(bind) else ''}INTO {table}"


# What is kept of rows in vecmigrate_preserved.


@dataclass(frozen=True)
class _Record:
    """A row of vecmigrate_preserved, as far as this revision needs it."""

    id: int
    source_table: str
    row: Row
    converted: Row
    reason: str

    @classmethod
    def of(cls, found: Any) -> "_Record":
        return cls(found.id, found.source_table, _load(found.row), _load(found.converted), found.reason)

    @property
    def is_note(self) -> bool:
        """Tell whether it only says that a row which went back as it was is to wait again."""
        return self.reason.startswith((_BEATEN, _WAITS))

    @property
    def noted_memory(self) -> str | None:
        """Return what a note carries of an earlier record of its row."""
        return self.converted.get("memory")

    def memory(self) -> str:
        """Return this record for a row that is set aside now, so that it comes back with the row."""
        kept = {"source_table": self.source_table, "row": _dump(self.row)}
        return json.dumps(kept | {"converted": _dump(self.converted), "reason": self.reason})


def _entry(direction: str, source: str, row: str, reason: str, **rest: Any) -> Row:
    return {
        "revision": revision,
        "direction": direction,
        "source_table": source,
        "row": row,
        "landed": 0,
        "target_key": None,
        "converted": None,
        "reason": reason,
        "preserved_at": datetime.now(UTC).isoformat(timespec="seconds"),
    } | rest


def _remembered(memory: str, direction: str, target_key: str) -> Row:
    kept = json.loads(memory)
    source, row, reason = kept["source_table"], kept["row"], kept["reason"]
    return _entry(direction, source, row, reason, landed=1, target_key=target_key, converted=kept["converted"])


def _preserve(bind: sa.Connection, entries: list[Row]) -> None:
    if entries:
        bind.execute(sa.insert(_preserved), entries)


def _kept(direction: str, landed: int) -> sa.ColumnElement[bool]:
    columns = _preserved.c
    return sa.and_(columns.revision == revision, columns.direction == direction, columns.landed == landed)


def _kept_pages(bind: sa.Connection, direction: str, landed: int) -> Iterator[Sequence[Any]]:
    """Yield pages of what is kept now; meanwhile rows may be added and deleted.

    Newest first: what went back the last time goes back again, also where the rules of the found table admit
    only one of two.
    """
    bind.execute(sa.text("DELETE FROM vecmigrate_pages"))
    ids = sa.select(_preserved.c.id).where(_kept(direction, landed)).order_by(_preserved.c.id.desc())
    bind.execute(sa.insert(sa.table("vecmigrate_pages", sa.column("id"))).from_select(["id"], ids))
    query = "SELECT q.pos, p.* FROM vecmigrate_pages q JOIN vecmigrate_preserved p ON p.id = q.id WHERE q.pos > :last"
    yield from _pages(bind, f"{query} ORDER BY q.pos")


def _records(bind: sa.Connection, direction: str, keys: Iterable[Any]) -> dict[str, list[_Record]]:
    """Return the records of rows that landed, by their key there, newest first."""
    wanted = [_key_text(key) for key in keys]
    query = sa.select(_preserved).where(_kept(direction, 1), _preserved.c.target_key.in_(wanted))
    found: dict[str, list[_Record]] = {}
    for each in bind.execute(query.order_by(_preserved.c.id.desc())):
        found.setdefault(each.target_key, []).append(_Record.of(each))
    return found


def _merged(turn: Callable[[Row], Row], present: Row, record: _Record) -> Row:
    """Return the original, but the present meaning in the columns that were edited. Raises _UnfitError."""
    if _same_row(present, record.converted):
        return record.row
    now = turn(present)
    try:
        then = turn(record.converted)
    except _UnfitError:
        return now
    return {column: record.row[column] if _same(now[column], then[column]) else now[column] for column in now}


class _Ledger:
    """Counts of one run: every row that went in must be found again, in the tables or set aside."""

    def __init__(self, bind: sa.Connection, direction: str, source: int) -> None:
        self._bind = bind
        self._direction = direction
        self._opposite = "downgrade" if direction == "upgrade" else "upgrade"
        self._source = source
        self._newest = bind.scalar(sa.select(sa.func.max(_preserved.c.id))) or 0
        self._waiting = self._kept(self._opposite, 0, after=0)

    def _kept(self, direction: str, landed: int, after: int) -> int:
        query = sa.select(sa.func.count()).select_from(_preserved).where(_kept(direction, landed))
        return int(self._bind.scalar(query.where(_preserved.c.id > after)) or 0)

    def check(self, landed: int) -> None:
        """Raise RuntimeError, which ends the run, if a row was lost or doubled."""
        aside = self._kept(self._direction, 0, after=self._newest)
        returned = self._waiting - self._kept(self._opposite, 0, after=0)
        if landed + aside != self._source + returned:
            raise RuntimeError(
                f"Revision 001 would have lost or doubled rows: of {self._source} rows and {returned} kept ones "
                f"that came back, {landed} landed and {aside} were set aside."
            )


def _require_equal(bind: sa.Connection, kinds: dict[str, str], *sides: tuple[str, dict[str, str]]) -> None:
    """Raise RuntimeError if the rows that moved set by set differ between the two sides."""
    sums = [
        f"sum(length({{{column}}}))" if kind.startswith(("text", "json")) else f"sum({{{column}}} % 1000003)"
        for column, kind in kinds.items()
    ]
    template = ", ".join(["count(*)", *sums])
    before, after = (
        bind.execute(sa.text(f"SELECT {template.format(**{each: each for each in kinds} | names)} FROM {rows}")).one()
        for rows, names in sides
    )
    if before != after:
        raise RuntimeError(
            f"Revision 001 would have changed rows that need no conversion: {before[0]} left, {after[0]} arrived."
        )


# The database.


def _is_sqlite(bind: sa.Connection) -> bool:
    return bind.dialect.name == "sqlite"


def _table_names(bind: sa.Connection) -> set[str]:
    return {name.lower() for name in sa.inspect(bind).get_table_names()}


def _count(bind: sa.Connection, table: str) -> int:
    return int(bind.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _row_key(bind: sa.Connection) -> str:
    return "s.rowid" if _is_sqlite(bind) else "s.ctid::text"


def _triggers(bind: sa.Connection) -> dict[str, str]:
    """Return the triggers that go with the table, in the order they were made."""
    if not _is_sqlite(bind):
        return {}
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = ? ORDER BY rowid"
    return {found.name: found.sql for found in bind.exec_driver_sql(query, (_TABLE,))}


def _indexes(bind: sa.Connection) -> dict[str, str]:
    """Return the SQL of the indexes on the table."""
    if not _is_sqlite(bind):
        return {}
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND lower(tbl_name) = ? AND sql IS NOT NULL"
    return {found.name: found.sql for found in bind.exec_driver_sql(query, (_TABLE,))}


def _carried(indexes: dict[str, str], ours: set[str], gone: set[str]) -> list[str]:
    """Return the SQL of the indexes of the service, but those on columns that go."""
    mentions = re.compile(rf"\b(?:{'|'.join(sorted(gone))})\b", re.IGNORECASE)
    return [sql for name, sql in indexes.items() if name.lower() not in ours and not (gone and mentions.search(sql))]


_OUR_INDEXES = {
    "uq_vector_stores_name",
    "uq_vector_stores_session_id",
    "idx_vector_stores_updated",
    "idx_vs_expires_at",
    "idx_vs_active_named",
    "idx_vs_rollover",
}
_OLD_INDEXES = {"idx_vector_stores_expires", "idx_vs_session_id", "idx_vs_name"}


def _drop_our_indexes(bind: sa.Connection) -> None:
    """Free the names of our indexes, which are unique in the whole database."""
    for name in sorted(_OUR_INDEXES):
        bind.execute(sa.text(f"DROP INDEX IF EXISTS {name}"))


def _drop_stores(bind: sa.Connection) -> None:
    """Drop the legacy table with its view; a view of that name over other tables is the service's own."""
    has_view = _has_view(bind)
    if has_view and not _is_sqlite(bind):
        bind.execute(sa.text("DROP VIEW active_stores"))
    if "stores" in _table_names(bind):
        bind.execute(sa.text("DROP TABLE stores"))
    if has_view and _is_sqlite(bind) and not _is_readable(bind, "active_stores"):
        bind.execute(sa.text("DROP VIEW active_stores"))


def _has_view(bind: sa.Connection) -> bool:
    return "active_stores" in {name.lower() for name in sa.inspect(bind).get_view_names()}


def _is_readable(bind: sa.Connection, view: str) -> bool:
    try:
        bind.execute(sa.text(f"EXPLAIN SELECT * FROM {view}")).close()
    except sa.exc.OperationalError:
        return False
    return True


@contextmanager
def _work_tables(bind: sa.Connection, key: str = "INTEGER") -> Iterator[None]:
    """Make temporary tables, which go to disk where they are large."""
    serial, big = ("INTEGER", "INTEGER") if _is_sqlite(bind) else ("SERIAL", "BIGINT")
    unified = ", ".join(
        f"{column} {big if kind.startswith(('integer', 'flag')) else 'TEXT'}" for column, kind in _UNIFIED_KINDS.items()
    )
    tables = {
        "odd": f"key {key} PRIMARY KEY",
        "stage": f"id {serial} PRIMARY KEY, priority INTEGER, source TEXT, store_type TEXT, original TEXT, "
        f"landing TEXT, memory TEXT, record_id INTEGER, reason TEXT, vector_store_id TEXT, session_id TEXT, "
        f"name TEXT, protected INTEGER, active INTEGER, seconds {big}, fraction TEXT, tie TEXT",
        "queue": f"pos {serial} PRIMARY KEY, id INTEGER",
        "unnamed": "id INTEGER PRIMARY KEY, vector_store_id TEXT",
        "numbering": f"pos {serial} PRIMARY KEY, id INTEGER",
        "contested": "vector_store_id TEXT PRIMARY KEY",
        "pages": f"pos {serial} PRIMARY KEY, id INTEGER",
        "kept": "id INTEGER PRIMARY KEY, source TEXT, key TEXT, exact TEXT, is_note INTEGER",
        "edited": f"pos {serial} PRIMARY KEY, original TEXT",
        "unified": f"pos {serial} PRIMARY KEY, {unified}",
    }
    for name, columns in tables.items():
        bind.execute(sa.text(f"CREATE TEMPORARY TABLE vecmigrate_{name} ({columns})"))
    for table, column in (("unnamed", "vector_store_id"), ("kept", "exact"), ("kept", "key")):
        bind.execute(sa.text(f"CREATE INDEX vecmigrate_{table}_{column} ON vecmigrate_{table} ({column})"))
    yield
    for name in tables:
        bind.execute(sa.text(f"DROP TABLE vecmigrate_{name}"))


_NOT_ODD = "NOT EXISTS (SELECT 1 FROM vecmigrate_odd o WHERE o.key = {key})"


def _mark_odd(bind: sa.Connection, key: str, rows: str, condition: str, **values: Any) -> None:
    """Mark rows of a table, which is named s, for the way through Python."""
    not_odd = _NOT_ODD.format(key=key)
    query = f"INSERT INTO vecmigrate_odd (key) SELECT {key} FROM {rows} WHERE ({condition}) AND {not_odd}"
    bind.execute(sa.text(query), values)


def _mark_undecodable(bind: sa.Connection, table: str, columns: Sequence[str]) -> None:
    """Mark the rows with text that is not UTF-8.

    Fetching the text as Python's str, which checks it, is several times faster than a condition in SQL. In
    a UTF-16 database it checks nothing, because SQLite makes some UTF-8 of anything.
    """
    if not _is_sqlite(bind):
        return
    # The DBAPI's own cursor: SQLAlchemy would wrap a million rows that nobody looks at.
    cursor = bind.connection.cursor()
    texts = f"SELECT {', '.join(columns)} FROM {table} WHERE rowid BETWEEN ? AND ?"
    bound = f"SELECT max(r) FROM (SELECT rowid AS r FROM {table} WHERE rowid >= ? ORDER BY rowid LIMIT {_UTF8_PAGE})"
    low = cursor.execute(f"SELECT min(rowid) FROM {table}").fetchone()[0]
    while low is not None:
        high = cursor.execute(bound, (low,)).fetchone()[0]
        try:
            if _codec(bind) != "utf-8":
                _mark_undecodable_between(bind, table, columns, low, high)
            deque(cursor.execute(texts, (low, high)), maxlen=0)
        except sqlite3.OperationalError as error:
            # Only errors of SQLite itself have a code; text that can't be decoded is Python's.
            if hasattr(error, "sqlite_errorcode"):
                raise
            _mark_undecodable_between(bind, table, columns, low, high)
        low = cursor.execute(f"SELECT min(rowid) FROM {table} WHERE rowid > ?", (high,)).fetchone()[0]
    cursor.close()


def _mark_undecodable_between(bind: sa.Connection, table: str, columns: Sequence[str], low: int, high: int) -> None:
    query = f"SELECT s.rowid, {_cells(bind, columns)} FROM {table} s WHERE s.rowid BETWEEN ? AND ?"
    codec = _codec(bind)
    for rowid, *values in bind.exec_driver_sql(query, (low, high)).all():
        if any(isinstance(value, _RawText) for value in _row(columns, values, codec).values()):
            _mark_odd(bind, "s.rowid", f"{table} s", "s.rowid = :rowid", rowid=rowid)


# The way up.


def _unify(bind: sa.Connection) -> None:
    shape = _shape_of(bind, _TABLE)
    stores = "stores" in _table_names(bind)
    triggers = _triggers(bind)
    gone = set(shape.kinds) - set(_UNIFIED_KINDS)
    indexes = _carried(_indexes(bind), _OUR_INDEXES | _OLD_INDEXES, gone)
    _drop_our_indexes(bind)
    with _work_tables(bind, "INTEGER" if _is_sqlite(bind) else "TEXT"):
        ledger = _Ledger(bind, "upgrade", _count(bind, _TABLE) + (_count(bind, "stores") if stores else 0))
        _load_kept(bind)
        _load_plain(bind, shape)
        odd = f"SELECT {{cells}} FROM vecmigrate_odd o JOIN {_TABLE} s ON {_row_key(bind)} = o.key"
        _stage(bind, shape, odd)
        if stores:
            _stage(bind, _shape_of(bind, "stores"), "SELECT {cells} FROM stores s")
        _stage_contested(bind, shape)
        _stage_returning(bind)
        _land(bind, _NEW)
        bind.execute(sa.delete(_preserved).where(_kept("downgrade", 1)))
        ledger.check(_count(bind, _NEW))
    _drop_stores(bind)
    op.drop_table(_TABLE)
    op.rename_table(_NEW, _TABLE)
    _create_indexes()
    for sql in (*indexes, *triggers.values()):
        bind.exec_driver_sql(sql)


def _load_plain(bind: sa.Connection, shape: _Shape) -> None:
    """Move the rows that need no conversion, and leave the others marked."""
    key, rows = _row_key(bind), f"{_TABLE} s"
    _mark_odd(bind, key, rows, f"({_are_plain(bind, shape.kinds)}) IS NOT TRUE")
    _mark_undecodable(bind, _TABLE, shape.texts)
    _mark_odd(bind, key, rows, f"s.{shape.key} IN (SELECT k.key FROM vecmigrate_kept k)")
    if not _is_sqlite(bind):
        # A failed statement would end PostgreSQL's transaction: look before, not after.
        _mark_duplicates(bind, shape)
    try:
        _insert_plain(bind, shape)
    except sa.exc.IntegrityError:
        if not _is_sqlite(bind):
            raise
        op.drop_table(_NEW)
        _mark_duplicates(bind, shape)
        _insert_plain(bind, shape)
    plain = f"{rows} WHERE {_NOT_ODD.format(key=key)}"
    _require_equal(bind, shape.kinds, (plain, {}), (_NEW, shape.selected))


def _insert_plain(bind: sa.Connection, shape: _Shape) -> None:
    _create_unified(_NEW)
    columns = ", ".join(shape.selected.get(column, column) for column in shape.kinds)
    rows = f"{_TABLE} s WHERE {_NOT_ODD.format(key=_row_key(bind))} ORDER BY s.vector_store_id"
    bind.execute(sa.text(f"INSERT INTO {_NEW} ({columns}) SELECT {', '.join(shape.kinds)} FROM {rows}"))
    _create_keys(_NEW)


def _mark_duplicates(bind: sa.Connection, shape: _Shape) -> None:
    for column in set(_KEYS) & set(shape.kinds):
        key, rows = _row_key(bind), f"{_TABLE} s"
        among = _NOT_ODD.format(key=key)
        twice = f"SELECT s.{column} FROM {rows} WHERE {among} GROUP BY s.{column} HAVING count(*) > 1"
        _mark_odd(bind, key, rows, f"s.{column} IN ({twice})")


def _load_kept(bind: sa.Connection) -> None:
    """Note what the way down kept of rows that are in the tables now, and how each of them looked there."""
    copies: Counter[str] = Counter()
    for page in _kept_pages(bind, "downgrade", 1):
        kept = []
        for found in page:
            record = _Record.of(found)
            became = {column: value for column, value in record.converted.items() if column != "memory"}
            source = "stores" if became.keys() == _STORES.kinds.keys() else _TABLE
            exact = _exact(became, copies)
            kept.append({"id": record.id, "source": source, "key": found.target_key, "exact": exact})
            kept[-1]["is_note"] = int(record.is_note)
        _insert(bind, "vecmigrate_kept", kept)


def _exact(row: Row, copies: Counter[str]) -> str:
    """Return a short key of the content of a row that tells equal rows apart by their number."""
    content = json.dumps({column: _encoded(value) for column, value in row.items()}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    copies[digest] += 1
    return f"{digest}-{copies[digest]}"


def _stage(bind: sa.Connection, shape: _Shape, query: str) -> None:
    """Convert rows and queue them for landing; set aside those without a clear meaning.

    A record of the way down belongs to the row that is as it was then, and else to one with its key.
    """
    columns, codec = tuple(shape.kinds), _codec(bind)
    copies: Counter[str] = Counter()
    any_kept = sa.text("SELECT EXISTS (SELECT 1 FROM vecmigrate_kept k WHERE k.source = :source)")
    is_kept = bool(bind.scalar(any_kept, {"source": shape.table}))
    statement = sa.text(query.format(cells=_cells(bind, columns)))
    for page in bind.execute(statement, execution_options={"stream_results": True}).partitions(_PAGE):
        rows = [_row(columns, values, codec) for values in page]
        if not is_kept:
            _stage_rows(bind, shape, [(row, None) for row in rows])
            continue
        exact = [_exact(row, copies) for row in rows]
        records = _take(bind, "exact", shape, exact)
        same = [(row, records.get(each)) for row, each in zip(rows, exact, strict=True)]
        _stage_rows(bind, shape, [pair for pair in same if pair[1]])
        _insert(bind, "vecmigrate_edited", [{"original": _dump(row)} for row, record in same if not record])
    _stage_edited(bind, shape)


def _stage_edited(bind: sa.Connection, shape: _Shape) -> None:
    bind.execute(sa.text("DELETE FROM vecmigrate_kept WHERE is_note = 1 AND source = :source"), {"source": shape.table})
    for page in _pages(bind, "SELECT e.pos, e.original FROM vecmigrate_edited e WHERE e.pos > :last ORDER BY e.pos"):
        rows = [_load(item.original) for item in page]
        records = _take(bind, "key", shape, {_key_text(row[shape.key]) for row in rows})
        _stage_rows(bind, shape, [(row, records.pop(_key_text(row[shape.key]), None)) for row in rows])
    bind.execute(sa.text("DELETE FROM vecmigrate_edited"))


def _take(bind: sa.Connection, by: str, shape: _Shape, wanted: Iterable[str]) -> dict[str, _Record]:
    """Return one record for each of the keys, and let no other row have it."""
    kept = sa.table("vecmigrate_kept", *map(sa.column, ("id", "source", by)))
    query = sa.select(kept.c[by].label("by"), _preserved).join_from(kept, _preserved, _preserved.c.id == kept.c.id)
    chosen = query.where(kept.c[by].in_(wanted), kept.c.source == shape.table).order_by(kept.c.id)
    found = {each.by: _Record.of(each) for each in bind.execute(chosen)}
    bind.execute(sa.delete(kept).where(kept.c.id.in_([record.id for record in found.values()])))
    return found


def _stage_rows(bind: sa.Connection, shape: _Shape, pairs: Iterable[tuple[Row, _Record | None]]) -> None:
    staged, aside = [], []
    for row, record in pairs:
        memory, original = _memory_of(record), record.row if record and record.is_note else row
        try:
            staged.append(_candidate(shape, row, record) | {"original": _dump(original), "memory": memory})
        except _UnfitError as unfit:
            aside.append(_entry("upgrade", shape.table, _dump(original), str(unfit), converted=memory))
    _insert(bind, "vecmigrate_stage", staged)
    _preserve(bind, aside)


def _memory_of(record: _Record | None) -> str | None:
    """Return what a row that is set aside keeps of the way down."""
    if record is None:
        return None
    return record.noted_memory if record.is_note else record.memory()


def _candidate(shape: _Shape, row: Row, record: _Record | None) -> Row:
    if record and record.reason.startswith(_WAITS):
        raise _UnfitError(record.reason.removeprefix(_WAITS))
    is_beaten = bool(record and record.is_note)
    notes: list[str] = []
    if record is None or is_beaten:
        found = shape.convert(row, notes)
    else:
        found = _merged(shape.convert, row, record)
        with suppress(_UnfitError):
            shape.convert(row, notes)
    is_store = shape is _STORES
    if not is_store:
        _require_one_owner(found)
    notes = [f"{shape.table} row became a named store", *notes] if is_store else notes
    exact = not is_store and _same_row(shape.restore(found), row)
    seconds, fraction = _instant(row["created_at" if is_store else "updated_at"]) or (found["updated_at"], "")
    return {
        "priority": 2 if is_beaten else 0,
        "source": shape.table,
        "store_type": _text(row["store_type"], "", []) if is_store else None,
        "landing": _dump(found),
        "record_id": None,
        "reason": None if exact else "; ".join(notes) or _COMPLETED,
        **{key: found[key] for key in _KEYS},
        "protected": 0 if is_store else found["is_protected"],
        "active": found["is_active"],
        "seconds": seconds,
        "fraction": fraction,
        "tie": found["vector_store_id" if is_store else shape.key],
    }


def _stage_contested(bind: sa.Connection, shape: _Shape) -> None:
    """Take back rows that moved set by set where a staged row wants one of their keys."""
    # CROSS JOIN makes SQLite look from the staged rows, which are few.
    wanted = " UNION ".join(
        f"SELECT n.vector_store_id FROM vecmigrate_stage s CROSS JOIN {_NEW} n WHERE n.{key} = s.{key}" for key in _KEYS
    )
    bind.execute(sa.text(f"INSERT INTO vecmigrate_contested (vector_store_id) {wanted}"))
    columns, codec = tuple(_UNIFIED_KINDS), _codec(bind)
    statement = sa.text(
        f"SELECT {_cells(bind, columns)} FROM vecmigrate_contested c "
        f"JOIN {_NEW} s ON s.vector_store_id = c.vector_store_id"
    )
    for page in bind.execute(statement, execution_options={"stream_results": True}).partitions(_PAGE):
        rows = [shape.restore(_row(columns, values, codec)) for values in page]
        _stage_rows(bind, shape, [(row, None) for row in rows])
    taken_back = "vector_store_id IN (SELECT vector_store_id FROM vecmigrate_contested)"
    bind.execute(sa.text(f"DELETE FROM {_NEW} WHERE {taken_back}"))


def _stage_returning(bind: sa.Connection) -> None:
    """Queue, behind all others, the rows that the legacy shape could not hold."""
    for page in _kept_pages(bind, "downgrade", 0):
        staged = []
        for record in page:
            row = _load(record.row)
            staged.append(
                dict.fromkeys(("store_type", "original", "reason", "seconds", "fraction"))
                | {"priority": 1, "source": _TABLE, "landing": record.row, "memory": record.converted}
                | {"record_id": record.id, "protected": 0, "active": 0, "tie": f"{record.id:020}"}
                | {key: row[key] for key in _KEYS}
            )
        _insert(bind, "vecmigrate_stage", staged)


def _pages(bind: sa.Connection, query: str) -> Iterator[Sequence[Any]]:
    """Yield pages of a query that compares its first column, ``pos``, with the last one seen."""
    last = 0
    while page := bind.execute(sa.text(f"{query} LIMIT {_PAGE}"), {"last": last}).all():
        yield page
        last = page[-1].pos


def _land(bind: sa.Connection, target: str) -> None:
    """Land what is staged, the best first; who finds a key taken is set aside."""
    order = "priority, protected DESC, active DESC, seconds DESC, fraction DESC, source DESC, tie, original"
    bind.execute(sa.text(f"INSERT INTO vecmigrate_queue (id) SELECT id FROM vecmigrate_stage ORDER BY {order}"))
    taken = ", ".join(f"EXISTS (SELECT 1 FROM {target} n WHERE n.{key} = s.{key}) AS {key}_taken" for key in _KEYS[1:])
    query = (
        "SELECT q.pos, s.id, s.source, s.store_type, s.original, s.landing, s.memory, s.record_id, s.reason, "
        f"(EXISTS (SELECT 1 FROM {target} n WHERE n.vector_store_id = s.vector_store_id) "
        "OR EXISTS (SELECT 1 FROM vecmigrate_unnamed u WHERE u.vector_store_id = s.vector_store_id)) "
        f"AS vector_store_id_taken, {taken} "
        "FROM vecmigrate_queue q JOIN vecmigrate_stage s ON s.id = q.id WHERE q.pos > :last ORDER BY q.pos"
    )
    for page in _pages(bind, query):
        _land_page(bind, target, page)
    _land_unnamed(bind, target)


def _land_page(bind: sa.Connection, target: str, page: Sequence[Any]) -> None:
    taken: set[tuple[str, str]] = set()
    rows, unnamed, entries, returned, waiting = [], [], [], [], []
    for item in page:
        row = _load(item.landing)
        key = _taken_key(item, row, taken)
        if key == "name" and item.store_type:
            # A store that lost its name meanwhile only takes another number.
            row["name"], key = None, None
        if key is not None:
            if item.record_id is None:
                reason = f"{key}: {_TAKEN}"
                entries.append(_entry("upgrade", item.source, item.original, reason, converted=item.memory))
            else:
                waiting.append({"kept": item.record_id, "reason": f"{key}: {_TAKEN_SINCE}"})
            continue
        taken.update((each, _key_text(row[each])) for each in _KEYS if row[each] is not None)
        if item.record_id is not None:
            returned.append(item.record_id)
        if item.store_type and row["name"] is None:
            unnamed.append({"id": item.id, "vector_store_id": row["vector_store_id"]})
            continue
        rows.append(row)
        entries.extend(_landed_entry(item, row))
    _insert(bind, target, rows)
    _insert(bind, "vecmigrate_unnamed", unnamed)
    _preserve(bind, entries)
    if returned:
        bind.execute(sa.delete(_preserved).where(_preserved.c.id.in_(returned)))
    if waiting:
        bind.execute(sa.update(_preserved).where(_preserved.c.id == sa.bindparam("kept")), waiting)


def _taken_key(item: Any, row: Row, taken: set[tuple[str, str]]) -> str | None:
    for key in _KEYS:
        if row[key] is not None and (getattr(item, f"{key}_taken") or (key, _key_text(row[key])) in taken):
            return key
    return None


def _landed_entry(item: Any, row: Row) -> list[Row]:
    """Return the record of a landed row, if it needs one."""
    key = _key_text(row["vector_store_id"])
    if item.record_id is not None:
        return [_remembered(item.memory, "upgrade", key)] if item.memory else []
    if item.reason is None:
        return []
    kept = _entry("upgrade", item.source, item.original, item.reason, landed=1)
    return [kept | {"target_key": key, "converted": _dump(row) if item.store_type else item.landing}]


def _land_unnamed(bind: sa.Connection, target: str) -> None:
    """Land the rows of ``stores``, numbered for each type by the instant meant."""
    for store_type, prefix in _PREFIXES.items():
        bind.execute(sa.text("DELETE FROM vecmigrate_numbering"))
        ordered = (
            "INSERT INTO vecmigrate_numbering (id) SELECT s.id FROM vecmigrate_unnamed u "
            "JOIN vecmigrate_stage s ON s.id = u.id WHERE s.store_type = :type ORDER BY s.seconds, s.fraction, s.tie"
        )
        bind.execute(sa.text(ordered), {"type": store_type})
        names = _free_names(bind, target, prefix)
        query = (
            "SELECT q.pos, s.source, s.store_type, s.original, s.landing, s.record_id, s.reason "
            "FROM vecmigrate_numbering q JOIN vecmigrate_stage s ON s.id = q.id WHERE q.pos > :last ORDER BY q.pos"
        )
        for page in _pages(bind, query):
            items = [(item, _load(item.landing) | {"name": next(names)}) for item in page]
            _insert(bind, target, [row for _, row in items])
            _preserve(bind, [entry for item, row in items for entry in _landed_entry(item, row)])


def _free_names(bind: sa.Connection, target: str, prefix: str) -> Iterator[str]:
    table = sa.table(target, sa.column("name", sa.Text))
    number = 1
    while True:
        names = [f"{prefix}-{each:03d}" for each in range(number, number + _PAGE)]
        taken = set(bind.scalars(sa.select(table.c.name).where(table.c.name.in_(names))))
        yield from (name for name in names if name not in taken)
        number += _PAGE


# The way down.


def _separate(bind: sa.Connection) -> None:
    triggers, indexes = _triggers(bind), _indexes(bind)
    adopted = _adopted(bind)
    with _work_tables(bind):
        ledger = _Ledger(bind, "downgrade", _count(bind, _TABLE))
        columns = ", ".join(_UNIFIED_KINDS)
        ordered = f"SELECT {columns} FROM {_TABLE} ORDER BY vector_store_id"
        bind.execute(sa.text(f"INSERT INTO vecmigrate_unified ({columns}) {ordered}"))
        op.drop_table(_TABLE)
        _create_found_tables(bind, adopted)
        shape = _shape_of(bind, _TABLE)
        with _mirrors(bind):
            _return_plain(bind, shape)
            _return_odd(bind, shape)
            _return_set_aside(bind, shape)
        bind.execute(sa.delete(_preserved).where(_kept("upgrade", 1)))
        ledger.check(_count(bind, _TABLE) + _count(bind, "stores"))
    if not adopted.tables.get(_TABLE):
        _create_legacy_indexes()
    ours = _OUR_INDEXES | _OLD_INDEXES | {name.lower() for name, _ in adopted.indexes}
    carried = _carried(indexes, ours, set(_UNIFIED_KINDS) - set(shape.kinds))
    others = [sql for _, sql in adopted.indexes if not _is_unique(sql)]
    views = [] if _has_view(bind) else adopted.views
    for sql in (*others, *carried, *triggers.values(), *views):
        bind.exec_driver_sql(sql)


@dataclass(frozen=True)
class _Adopted:
    tables: dict[str, str]
    indexes: list[tuple[str, str]]
    views: list[str]


def _adopted(bind: sa.Connection) -> _Adopted:
    """Return the SQL of what was found; SQLite keeps it word for word, PostgreSQL not at all."""
    query = sa.text("SELECT type, name, lower(table_name) AS table_name, sql FROM vecmigrate_adopted ORDER BY name")
    found = bind.execute(query).all() if _is_sqlite(bind) else []
    ours = [each for each in found if each.sql and each.table_name in (_TABLE, "stores", "active_stores")]
    return _Adopted(
        tables={each.table_name: each.sql for each in ours if each.type == "table"},
        indexes=[(each.name, each.sql) for each in ours if each.type == "index"],
        views=[each.sql for each in ours if each.type == "view"],
    )


def _is_unique(sql: str) -> bool:
    return sql.upper().startswith("CREATE UNIQUE")


def _create_found_tables(bind: sa.Connection, adopted: _Adopted) -> None:
    """Create the tables as they were found, under their own names: a renamed one would keep other SQL."""
    for table, create in ((_TABLE, _create_legacy_vector_stores), ("stores", _create_legacy_stores)):
        if sql := adopted.tables.get(table):
            bind.exec_driver_sql(sql)
        else:
            create()
    # These decide which rows are admitted; the others are built faster after the rows.
    for _, sql in adopted.indexes:
        if _is_unique(sql):
            bind.exec_driver_sql(sql)


@contextmanager
def _mirrors(bind: sa.Connection) -> Iterator[None]:
    """Make temporary tables whose columns turn values into others as those of the found tables do."""
    tables = (_TABLE, "stores") if _is_sqlite(bind) else ()
    for table in tables:
        bind.execute(sa.text(f"CREATE TEMPORARY TABLE vecmigrate_as_{table} AS SELECT * FROM {table} LIMIT 0"))
    yield
    for table in tables:
        bind.execute(sa.text(f"DROP TABLE vecmigrate_as_{table}"))


def _stored(bind: sa.Connection, table: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows as the found table keeps them: a column may have another type than what goes into it."""
    if not (rows and _is_sqlite(bind)):
        return rows
    mirror, columns, codec = f"vecmigrate_as_{table}", tuple(rows[0]), _codec(bind)
    _insert(bind, mirror, [row | {"rowid": number} for number, row in enumerate(rows)])
    found = bind.execute(sa.text(f"SELECT {_cells(bind, columns)} FROM {mirror} s ORDER BY rowid")).all()
    bind.execute(sa.text(f"DELETE FROM {mirror}"))
    return [_row(columns, values, codec) for values in found]


def _keeps_plain(bind: sa.Connection, shape: _Shape) -> bool:
    """Tell whether every column of the found table keeps what a plain row has there, as it is or as text."""
    if not _is_sqlite(bind):
        return True
    found = bind.exec_driver_sql(f"PRAGMA table_info(vecmigrate_as_{_TABLE})")
    types = {column.name.lower(): column.type for column in found}
    keeping = {True: {"", "TEXT"}, False: {"", "TEXT", "INT", "NUM"}}
    return all(types[column] in keeping[column in shape.texts] for column in shape.kinds)


def _kept_shape(shape: _Shape, record: Any, row: Row) -> _Shape | None:
    """Return the shape that a kept row goes back to, None where the table has another shape now."""
    found = _STORES if record.source_table == "stores" else shape
    return found if row.keys() == found.kinds.keys() else None


def _return_plain(bind: sa.Connection, shape: _Shape) -> None:
    key, rows = "s.pos", "vecmigrate_unified s"
    names = {column: shape.selected.get(column, column) for column in shape.kinds}
    plain = _are_plain(bind, {names[column]: kind for column, kind in shape.kinds.items()})
    keeps = shape.plain_unified if _keeps_plain(bind, shape) else "FALSE"
    _mark_odd(bind, key, rows, f"({plain} AND {keeps}) IS NOT TRUE")
    _mark_undecodable(bind, "vecmigrate_unified", _FOUND_UNIFIED.texts)
    landed = "SELECT p.target_key FROM vecmigrate_preserved p WHERE p.revision = '001' AND p.direction = 'upgrade'"
    _mark_odd(bind, key, rows, f"s.vector_store_id IN ({landed} AND p.landed = 1 AND p.target_key IS NOT NULL)")
    last = bind.execute(sa.text("SELECT max(pos) FROM vecmigrate_unified")).scalar() or 0
    _copy_plain(bind, shape, 1, last)
    moved = f"{rows} WHERE {_NOT_ODD.format(key=key)}"
    _require_equal(bind, shape.kinds, (moved, names), (_TABLE, {}))


def _copy_plain(bind: sa.Connection, shape: _Shape, first: int, last: int) -> None:
    """Copy rows set by set; where the found table refuses a set, halve it until only that row is left."""
    columns = [shape.selected.get(column, column) for column in shape.kinds]
    rows = f"vecmigrate_unified s WHERE s.pos BETWEEN :first AND :last AND {_NOT_ODD.format(key='s.pos')}"
    copied = f"SELECT {', '.join(columns)} FROM {rows} ORDER BY {shape.key}"
    statement = sa.text(f"{_insert_into(bind, _TABLE)} ({', '.join(shape.kinds)}) {copied}")
    try:
        with bind.begin_nested():
            bind.execute(statement, {"first": first, "last": last})
    except sa.exc.IntegrityError:
        if first == last:
            bind.execute(sa.text("INSERT INTO vecmigrate_odd (key) VALUES (:key)"), {"key": first})
            return
        middle = (first + last) // 2
        _copy_plain(bind, shape, first, middle)
        _copy_plain(bind, shape, middle + 1, last)


def _admitted(bind: sa.Connection, table: str, rows: Sequence[Row]) -> list[bool]:
    """Insert the rows that the found table admits, and return which they are."""
    if not rows:
        return []
    try:
        with bind.begin_nested():
            _insert(bind, table, rows)
    except sa.exc.IntegrityError:
        if len(rows) == 1:
            return [False]
        middle = len(rows) // 2
        return _admitted(bind, table, rows[:middle]) + _admitted(bind, table, rows[middle:])
    return [True] * len(rows)


@dataclass(frozen=True)
class _Return:
    """A unified row on its way back, with the row it becomes in the table of its shape."""

    shape: _Shape
    row: Row
    becomes: Row
    record: _Record | None

    def entry(self, *, admitted: bool) -> list[Row]:
        """Return what must be kept so that the way up gives the unified row again."""
        if not admitted:
            return [_aside(self.row, self.record, _refusal(self.becomes))]
        reason = self._loss()
        if reason is None:
            return []
        kept = _entry("downgrade", _TABLE, _dump(self.row), reason, landed=1)
        return [kept | {"target_key": _key_text(self.becomes[self.shape.key]), "converted": _dump(self.becomes)}]

    def _loss(self) -> str | None:
        if self.shape is _STORES:
            return "went back to stores, which has no place for its name"
        try:
            again = self.shape.convert(self.becomes)
        except _UnfitError as unfit:
            return str(unfit)
        lost = [column for column in self.row if not _same(again[column], self.row[column])]
        return f"the older table can't tell: {', '.join(lost)}" if lost else None


def _refusal(row: Row) -> str:
    if row.get("expires_at", 0) is None:
        return "expires_at: the older table needs one"
    return "refused by the rules of the older table"


def _aside(row: Row, record: _Record | None, reason: str) -> Row:
    return _entry("downgrade", _TABLE, _dump(row), reason, converted=record and record.memory())


def _return_odd(bind: sa.Connection, shape: _Shape) -> None:
    columns, codec = tuple(_UNIFIED_KINDS), _codec(bind)
    query = (
        f"SELECT s.pos, {_cells(bind, columns)} FROM vecmigrate_odd o JOIN vecmigrate_unified s ON s.pos = o.key "
        "WHERE o.key > :last ORDER BY o.key"
    )
    for page in _pages(bind, query):
        rows = [_row(columns, values, codec) for _, *values in page]
        records = _records(bind, "upgrade", (row["vector_store_id"] for row in rows))
        returns, entries = [], []
        for row in rows:
            record = _record_of(shape, row, records)
            try:
                returns.append(_return_of(shape, row, record))
            except _UnfitError as unfit:
                entries.append(_aside(row, record, str(unfit)))
        for target in (shape, _STORES):
            chosen = [each for each in returns if each.shape is target]
            rows = [each.becomes for each in chosen]
            admitted, stored = _admitted(bind, target.table, rows), _stored(bind, target.table, rows)
            chosen = [replace(each, becomes=row) for each, row in zip(chosen, stored, strict=True)]
            entries += [entry for each, ok in zip(chosen, admitted, strict=True) for entry in each.entry(admitted=ok)]
        _preserve(bind, entries)


def _record_of(shape: _Shape, row: Row, records: dict[str, list[_Record]]) -> _Record | None:
    for record in records.get(_key_text(row["vector_store_id"]), ()):
        is_its = _same(record.converted["vector_store_id"], row["vector_store_id"])
        if is_its and _kept_shape(shape, record, record.row) is not None:
            return record
    return None


def _return_of(shape: _Shape, row: Row, record: _Record | None) -> _Return:
    came_from_stores = record is not None and record.source_table == "stores"
    if came_from_stores and row["name"] is not None:
        shape = _STORES
    elif shape is _LEGACY:
        _require_legacy_session(row)
    if came_from_stores and shape is not _STORES:
        record = None
    becomes = _merged(shape.restore, row, record) if record else shape.restore(row)
    return _Return(shape, row, becomes, record)


def _require_legacy_session(row: Row) -> None:
    if row["session_id"] is None:
        raise _UnfitError("name: the older table has only sessions")
    try:
        active = _flag(row["is_active"], "is_active", [])
    except _UnfitError:
        return
    if active == 0:
        raise _UnfitError("is_active: the older table can't tell an inactive session")


def _return_set_aside(bind: sa.Connection, shape: _Shape) -> None:
    """Put rows that never landed back where they came from, if they still fit there."""
    if not bind.scalar(sa.select(sa.exists().where(_kept("upgrade", 0)))):
        return
    for key in _KEYS:
        bind.execute(sa.text(f"CREATE INDEX vecmigrate_unified_{key} ON vecmigrate_unified ({key})"))
    for page in _kept_pages(bind, "upgrade", 0):
        rows = [(record, _load(record.row)) for record in page]
        for target in (shape, _STORES):
            chosen = [(record, row) for record, row in rows if _kept_shape(shape, record, row) is target]
            originals = [row for _, row in chosen]
            admitted, stored = _admitted(bind, target.table, originals), _stored(bind, target.table, originals)
            back = [(record, row) for (record, _), row, ok in zip(chosen, stored, admitted, strict=True) if ok]
            _preserve(bind, _entries_back(bind, target, back))
            ids = [record.id for record, _ in back]
            bind.execute(sa.delete(_preserved).where(_preserved.c.id.in_(ids)))


def _entries_back(bind: sa.Connection, shape: _Shape, back: Sequence[tuple[Any, Row]]) -> list[Row]:
    """Return what must be kept so that the rows are set aside again on the way up, as long as nobody edits them."""
    meant = [_meant(shape, row) for _, row in back]
    taken = _taken_before(bind, [found for found in meant if found])
    entries = []
    for (record, row), found in zip(back, meant, strict=True):
        key = _key_text(row[shape.key])
        # Landing, now that its rival is gone, would put a row into the unified table that was not there.
        if found is not None or not _same_row(row, _load(record.row)):
            is_beaten = found is not None and any((each, found[each]) in taken for each in _KEYS)
            reason = (_BEATEN if is_beaten else _WAITS) + record.reason
            memory = {} if record.converted is None else {"memory": record.converted}
            entry = _entry("downgrade", shape.table, record.row, reason, landed=1)
            entries.append(entry | {"target_key": key, "converted": _dump(row | memory)})
        elif record.converted:
            entries.append(_remembered(record.converted, "downgrade", key))
    return entries


def _taken_before(bind: sa.Connection, rows: Sequence[Row]) -> set[tuple[str, Any]]:
    """Return the keys of the rows that the unified table had."""
    unified = sa.table("vecmigrate_unified", *map(sa.column, _KEYS))
    taken: set[tuple[str, Any]] = set()
    for key in _KEYS:
        wanted = {row[key] for row in rows if row[key] is not None}
        query = sa.select(unified.c[key]).where(unified.c[key].in_(wanted))
        taken.update((key, value) for value in bind.scalars(query))
    return taken


def _meant(shape: _Shape, row: Row) -> Row | None:
    try:
        return shape.convert(row)
    except _UnfitError:
        return None
