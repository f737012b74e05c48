"""The parts of semantics 1 of the operations, each by itself."""

import json
import math
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from vecmigrate.engine import scratch
from vecmigrate.operations.v1 import cells, codec, plain, readers
from vecmigrate.operations.v1.codec import RawText
from vecmigrate.operations.v1.kept_rows import WAIT, KeptRows
from vecmigrate.operations.v1.ledger import Ledger, require_equal
from vecmigrate.schema import tool_metadata

ODD_VALUES = [
    None,
    0,
    -(2**63),
    2**63 - 1,
    1.0,
    -0.0,
    0.1,
    math.inf,
    -math.inf,
    "",
    "plain",
    "nul\0inside",
    "ü€😀",
    "1",
    b"",
    b"\0\xff",
    RawText(b"\xff\xfe"),
    RawText(b"a\0\xff"),
]
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    with scratch() as found:
        tool_metadata.create_all(found)
        yield found


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), VALUES, max_size=6))
def test_a_row_in_json_is_the_same_row_again(row: codec.Row) -> None:
    """Value and storage class survive, also of what JSON has no word for."""
    assert codec.same_row(row, codec.loaded(codec.dumped(row)))


@pytest.mark.parametrize("huge", ['é"' * 600_000, "\0" * 1_200_000, b"\xff" * 1_200_000], ids=["text", "nul", "blob"])
def test_a_huge_value_does_not_change_how_the_rest_of_its_row_is_written(huge: str | bytes) -> None:
    """The JSON is the one that a small row would have, byte for byte."""
    others = dict(zip(map(str, range(99)), ODD_VALUES, strict=False))
    row = {'a"é': 1, **others, "raw": codec.RawText.of(b"\xd8", "utf-16-le")}
    whole = json.dumps({name: codec.encoded(value) for name, value in (row | {"z": huge}).items()}, ensure_ascii=False)

    assert whole == codec.dumped(row | {"z": huge})
    assert codec.same_row(row | {"z": huge}, codec.loaded(whole))


def test_a_row_with_a_huge_value_ends_its_page(connection: sa.Connection) -> None:
    """Every row comes once and in order, whether its page is a query of its own or not."""
    connection.exec_driver_sql("CREATE TABLE t (x INTEGER PRIMARY KEY, y)")
    connection.exec_driver_sql(f"INSERT INTO t VALUES (1, NULL), (2, zeroblob({cells.PAGE_BYTES})), (3, ''), (4, 'a')")
    query = "SELECT s.x, s.y FROM t s"

    for found in (cells.fetched(connection, query), cells.fetched_by_key(connection, query, "s.x")):
        assert [[1, 2], [3, 4]] == [[key for key, _ in page] for page in found]


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_a_value_goes_into_a_table_and_out_again_as_it_is(connection: sa.Connection, value: Any) -> None:
    """Whatever SQLite can hold is written and read with its storage class, in a column without a type."""
    connection.exec_driver_sql("CREATE TABLE t (x, y)")

    cells.insert(connection, "t", ("x", "y"), [(value, 1)])
    [page] = cells.fetched(connection, f"SELECT {cells.cells(connection, ('x', 'y'))} FROM t s")
    row = cells.row_of(("x", "y"), page[0], cells.codec_of(connection))

    assert codec.same_row({"x": value, "y": 1}, row)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_raw_text_of_a_utf_16_database_keeps_its_bytes(encoding: str) -> None:
    """A lone surrogate is no text; its bytes come back, and JSON tells the encoding."""
    raw = RawText.of(b"\x00\xd8" if encoding == "UTF-16le" else b"\xd8\x00", encoding.lower())
    with scratch() as connection:
        connection.exec_driver_sql(f"PRAGMA encoding = '{encoding}'")
        connection.exec_driver_sql("CREATE TABLE t (x)")
        cells.insert(connection, "t", ("x",), [(raw,)])
        [page] = cells.fetched(connection, f"SELECT {cells.cells(connection, ('x',))} FROM t s")
        found = cells.row_of(("x",), page[0], cells.codec_of(connection))["x"]

    assert (raw, raw.codec) == (found, found.codec)
    assert raw.codec == codec.loaded(codec.dumped({"x": found}))["x"].codec


def test_an_insert_that_breaks_a_rule_is_an_error_also_where_the_table_would_ignore_it(
    connection: sa.Connection,
) -> None:
    """ON CONFLICT clauses of a table that was found would drop rows without a word."""
    connection.exec_driver_sql("CREATE TABLE t (x TEXT PRIMARY KEY ON CONFLICT IGNORE)")

    with pytest.raises(sa.exc.IntegrityError):
        cells.insert(connection, "t", ("x",), [("a",), ("a",)])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1.5, 1),
        ("1700000000", 1700000000),
        (" 1e3 ", 1000),
        ("2024-01-01", 1704067200),
        ("2024-01-01T00:00:00Z", 1704067200),
        ("20240101T000000+0100", 1704063600),
        ("2024-W01-1", 1704067200),
        ("2016-12-31T23:59:60Z", 1483228800),
        (b"2024-01-01 00:00", 1704067200),
        ("2024-02-30", None),
        ("soon", None),
        ("1e9999", None),
        (math.inf, None),
    ],
)
def test_a_time_is_read_where_it_is_clear(value: Any, seconds: int | None) -> None:
    """Every ISO form and every number is read, and what is no time is none; each is noted."""
    notes: list[str] = []

    assert seconds == readers.time(value, "at", notes)
    assert 1 == len(notes)


@pytest.mark.parametrize(
    ("value", "meant"), [(0, 0), (1, 1), (2, 1), ("true", 1), ("No", 0), ("", 0), (b"on", 1), (0.0, 0), (None, None)]
)
def test_a_flag_is_read_where_it_is_clear(value: Any, meant: int | None) -> None:
    """Numbers and words like yes and no are flags."""
    assert meant == readers.flag(value, "flag", [])


def test_a_flag_that_means_neither_is_refused() -> None:
    """The message names the column and the kind of the value, never the value."""
    with pytest.raises(readers.UnfitError, match=r"^flag: text that means neither yes nor no$"):
        readers.flag("secret", "flag", [])


@pytest.mark.parametrize(
    ("value", "meant"), [("{}", "{}"), ("[1e9999]", "[1e9999]"), ("NaN", None), ("{", None), (b"[]", "[]"), (1.5, None)]
)
def test_json_is_kept_where_it_is_valid(value: Any, meant: str | None) -> None:
    """What is no JSON is left out."""
    assert meant == readers.json_text(value, "data", [])


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_odd_values_are_marked_and_plain_ones_are_not(connection: sa.Connection, value: Any) -> None:
    """A row moves set by set only if its value is text that a reader can fetch."""
    connection.exec_driver_sql("CREATE TABLE t (x)")
    cells.insert(connection, "t", ("x",), [(value,), ("plain",)])

    with plain.odd_rows(connection):
        where = f"({plain.condition(connection, {'x': 'text'})}) IS NOT TRUE"
        plain.mark_odd(connection, plain.row_key(connection), "t s", where)
        plain.mark_undecodable(connection, "t", ("x",))
        odd = connection.exec_driver_sql("SELECT count(*) FROM vecmigrate_odd").scalar()

    assert int(not isinstance(value, str)) == odd


def test_kept_rows_come_newest_first_page_by_page_while_they_go(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting a page, and adding rows of the other direction, disturbs the next page not at all."""
    monkeypatch.setattr("vecmigrate.operations.v1.kept_rows.PAGE", 3)
    kept = KeptRows(connection, revision="003")
    kept.add([kept.aside("upgrade", "t", {"n": number}, "odd") for number in range(8)])
    kept.add([kept.aside("upgrade", "other", {"n": 0}, "odd")])

    seen = []
    for page in kept.pages("upgrade", "t", landed=0):
        seen += [each.row["n"] for each in page]
        kept.forget(each.id for each in page)
        kept.add([kept.aside("downgrade", "t", {"n": -1}, "odd")])

    assert [7, 6, 5, 4, 3, 2, 1, 0] == seen
    assert 3 == kept.count("downgrade", "t", landed=0)


def test_a_record_is_found_by_its_key_and_remembered_with_its_treatment(connection: sa.Connection) -> None:
    """The newest comes first, and what is remembered of it makes the same record again."""
    kept = KeptRows(connection, revision="003")
    for reason in ("old", "new"):
        entry = kept.landed("upgrade", "t", {"n": 1.0}, reason, target_key=5, converted={"n": 1}, treatment=WAIT)
        kept.add([entry])

    found = kept.of("upgrade", [5, 6])
    again = kept.remembered(found["5"][0].as_memory(), "upgrade", target_key=7)

    assert {"5": ["new", "old"]} == {key: [each.reason for each in rows] for key, rows in found.items()}
    assert entry._replace(target_key="7") == again


def test_the_ledger_misses_a_row(connection: sa.Connection) -> None:
    """Three rows went in, one landed, one was set aside: the run ends."""
    kept = KeptRows(connection, revision="003")
    ledger = Ledger(kept, "upgrade", source=3, tables=("t",))
    kept.add([kept.aside("upgrade", "t", {"n": 1}, "odd")])

    ledger.check(2)
    with pytest.raises(RuntimeError, match="of 3 rows and 0 kept ones that came back, 1 landed and 1 were set aside"):
        ledger.check(1)


def test_rows_that_changed_on_their_way_are_noticed(connection: sa.Connection) -> None:
    """What moved set by set is summed up on both sides, by the names it has there."""
    connection.exec_driver_sql("CREATE TABLE a (x)")
    connection.exec_driver_sql("CREATE TABLE b (y)")
    cells.insert(connection, "a", ("x",), [("one",)])
    cells.insert(connection, "b", ("y",), [("once",)])

    with pytest.raises(RuntimeError, match="would have changed rows"):
        require_equal(connection, {"x": "text"}, ("a", {}), ("b", {"x": "y"}), revision="003")
    cells.insert(connection, "b", ("y",), [("two",)])
    connection.exec_driver_sql("DELETE FROM b WHERE y = 'once'")
    require_equal(connection, {"x": "text"}, ("a", {}), ("b", {"x": "y"}), revision="003")


def test_an_error_of_sqlite_itself_is_not_taken_for_text_that_is_no_text(connection: sa.Connection) -> None:
    """A table that is not there is an error, not an odd row."""
    with plain.odd_rows(connection), pytest.raises(sqlite3.OperationalError, match="no such table"):
        plain.mark_undecodable(connection, "gone", ("x",))
