"""Revision 001 on generated content, in both directions."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revision_001 import (
    EXAMPLES,
    FOUND_UNIFIED,
    LEGACY,
    LEGACY_COLUMNS,
    LEGACY_INDEXES,
    LOOSE_LEGACY,
    LOOSE_STORES,
    LOOSE_UNIFIED,
    STORES,
    STORES_COLUMNS,
    STORES_INDEX,
    STORES_VIEW,
    UNIFIED_COLUMNS,
    Database,
    Text,
)

generated = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

keys = st.sampled_from(["a", "b", "c", "d", "", "a\0", "é", b"a", b"b", b"\xff", 5, 2.5, Text(b"\xff"), None])
names = st.sampled_from(
    ["project-conversations-001", "project-commits-001", "project-commits-002", "n", "", b"n", b"\xff", None]
)
odd = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=4),
    st.binary(max_size=4).map(Text),
)
times = st.one_of(
    st.integers(0, 5),
    st.sampled_from(
        [
            "3",
            " 3.5 ",
            b"4",
            1.5,
            "2025-06-10T10:30:00+00:00",
            "2025-06-10 10:30:00.123456789",
            "2025-06-10t10:30:00,5z",
            "20250610T103000+0200",
            "2025-06-10",
            "yesterday",
            "1e300",
            float("inf"),
            Text(b"\xff3"),
        ]
    ),
    odd,
)
flags = st.one_of(st.sampled_from([0, 1, 0, 1, 2, "true", "no", "", b"yes", 0.5, "maybe", None]), odd)
providers = st.sampled_from(["openai", "hnsw", "new", b"openai", None, 7])
metadata = st.sampled_from([None, "{}", '{"a": 1}', "{", "{}\0", b"{}", "", Text(b"\xff")])
counts = st.one_of(st.sampled_from([0, 1, 7, None, "12", 2.5, b"x"]), odd)

legacy_rows = st.tuples(keys, keys, providers, times, flags, times, times)
unified_rows = st.tuples(
    keys, names, keys, providers, metadata, flags, flags, times, times, times, counts, st.one_of(keys, odd)
)
stores_rows = st.tuples(
    keys, st.sampled_from(["conversation", "commit", b"commit", "else", None]), counts, times, flags
)


def rows(of: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=6)


def insert(database: Database, table: str, columns: Sequence[str], content: Sequence[Sequence[Any]]) -> None:
    """Insert the rows that the table admits."""
    for row in content:
        with suppress(sqlite3.IntegrityError):
            database.insert(table, columns, row)


def start(shape: str, vector_stores: Sequence[Any], stores: Sequence[Any]) -> Database:
    database = Database()
    tables = {
        "legacy": (LEGACY, STORES, *LEGACY_INDEXES, STORES_INDEX, STORES_VIEW),
        "loose": (LOOSE_LEGACY, LOOSE_STORES),
        "unified": (FOUND_UNIFIED, STORES, STORES_INDEX, STORES_VIEW),
        "loose unified": (LOOSE_UNIFIED, LOOSE_STORES),
    }
    database.execute(*tables[shape])
    insert(database, "vector_stores", UNIFIED_COLUMNS if "unified" in shape else LEGACY_COLUMNS, vector_stores)
    insert(database, "stores", STORES_COLUMNS, stores)
    database.adopt()
    return database


def content(database: Database) -> tuple[Any, ...]:
    return tuple(database.exact(table) for table in ("vector_stores", "stores"))


def made(database: Database) -> list[tuple[str, int]]:
    """Return the named stores that came out of ``stores``, with their counts."""
    return database.all(
        "SELECT vector_store_id, document_count FROM vector_stores WHERE vector_store_id IN "
        "(SELECT vector_store_id FROM vecmigrate_named_stores)"
    )


def set_aside(database: Database) -> Counter[tuple[str, str]]:
    return Counter(
        database.all(
            "SELECT source_table, \"row\" FROM vecmigrate_preserved WHERE direction = 'upgrade' AND landed = 0"
        )
    )


def check_up_and_down(shape: str, vector_stores: Sequence[Any], stores: Sequence[Any]) -> None:
    with closing(start(shape, vector_stores, stores)) as database:
        before, sql = content(database), database.sql()
        database.upgrade()
        unified, named = database.exact("vector_stores"), made(database)
        assert len(before[0]) == len(unified) - len(named) + set_aside(database).total()
        assert before[1] == database.exact("stores")
        assert {"vector_stores"} >= {kept[1] for kept in database.kept()}
        database.downgrade()
        assert before == content(database)
        assert sql == database.sql()
        assert {"downgrade"} >= {kept[0] for kept in database.kept()}
        database.upgrade()
        assert unified == database.exact("vector_stores")


@generated
@given(st.sampled_from(["legacy", "loose"]), rows(legacy_rows), rows(stores_rows))
def test_legacy_content_comes_back(shape: str, vector_stores: list[Any], stores: list[Any]) -> None:
    """Up and down again gives the rows of a legacy database by value and storage class, and its SQL."""
    check_up_and_down(shape, vector_stores, stores)


@generated
@given(st.sampled_from(["unified", "loose unified"]), rows(unified_rows), rows(stores_rows))
def test_content_unified_by_the_service_comes_back(shape: str, vector_stores: list[Any], stores: list[Any]) -> None:
    """Up and down again gives the rows of a database that the service unified, and its SQL."""
    check_up_and_down(shape, vector_stores, stores)


changes = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), unified_rows),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("update"), st.integers(0, 9), st.integers(0, 11), unified_rows),
    ),
    max_size=8,
)


def change(database: Database, table: str, edits: Sequence[Any]) -> None:
    columns = [row[1] for row in database.all(f"PRAGMA table_info({table})")]
    for action, *rest in edits:
        with suppress(sqlite3.IntegrityError):
            if action == "insert":
                database.insert(table, columns, rest[0][: len(columns)])
                continue
            rowids = [row[0] for row in database.all(f"SELECT rowid FROM {table} ORDER BY rowid")]
            if not rowids:
                continue
            rowid = rowids[rest[0] % len(rowids)]
            if action == "delete":
                database.raw.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
            else:
                column, value = columns[rest[1] % len(columns)], rest[2][rest[1]]
                place = "CAST(? AS TEXT)" if isinstance(value, Text) else "?"
                plain = bytes(value) if isinstance(value, Text) else value
                database.raw.execute(f"UPDATE {table} SET {column} = {place} WHERE rowid = ?", (plain, rowid))


@generated
@given(
    st.sampled_from(["legacy", "loose", "unified", "loose unified"]),
    rows(legacy_rows),
    rows(unified_rows),
    rows(stores_rows),
    changes,
)
def test_unified_content_comes_back(
    shape: str, legacy: list[Any], unified: list[Any], stores: list[Any], edits: list[Any]
) -> None:
    """Down and up again gives any unified content, with rows added, edited and deleted since the upgrade.

    A row that was set aside because another has its key is there again once that one is deleted, or has another key.
    """
    with closing(start(shape, unified if "unified" in shape else legacy, stores)) as database:
        database.upgrade()
        change(database, "vector_stores", edits)
        before, sql, aside = Counter(database.exact("vector_stores")), database.sql(), set_aside(database)
        database.downgrade()
        old, old_aside = content(database), set_aside(database)
        database.upgrade()
        after = Counter(database.exact("vector_stores"))
        assert before <= after
        assert (after - before).total() == (aside - set_aside(database)).total()
        assert before == after or any(edit[0] != "insert" for edit in edits)
        assert sql == database.sql()
        database.downgrade()
        assert old == content(database)
        assert old_aside == set_aside(database)


@generated
@given(rows(legacy_rows), rows(stores_rows), changes, changes, changes)
def test_no_row_is_lost_by_edits_on_both_sides(
    legacy: list[Any], stores: list[Any], above: list[Any], below: list[Any], beside: list[Any]
) -> None:
    """Whatever is edited at 000 and at 001, the check inside the migration agrees and up and down is exact."""
    with closing(start("loose", legacy, stores)) as database:
        database.upgrade()
        change(database, "vector_stores", above)
        database.downgrade()
        change(database, "vector_stores", below)
        change(database, "stores", beside)
        before = content(database)
        database.upgrade()
        database.downgrade()
        assert before == content(database)
