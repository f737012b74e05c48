"""Revision 001 on rows that somebody chose: before, after, and back again."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from revision_001 import (
    FOUND_UNIFIED,
    LEGACY,
    LEGACY_COLUMNS,
    LEGACY_INDEXES,
    LOOSE_LEGACY,
    LOOSE_STORES,
    STORES,
    STORES_COLUMNS,
    STORES_INDEX,
    STORES_VIEW,
    UNIFIED_COLUMNS,
    Database,
    Text,
    revision,
)
from vecmigrate.errors import NotOursError
from vecmigrate.operations.v1 import admission, cells, contest, conversion, kept_rows, plain, reversal

AUTOINDEXES = {"index sqlite_autoindex_stores_1"}
SESSION = {
    "session_id": "s1",
    "vector_store_id": "v1",
    "provider": "openai",
    "expires_at": 200,
    "protected": 0,
    "created_at": 100,
    "updated_at": 150,
}
UNIFIED = {
    "vector_store_id": "v1",
    "name": None,
    "session_id": "s1",
    "provider": "openai",
    "provider_metadata": None,
    "is_protected": 0,
    "is_active": 1,
    "created_at": 100,
    "expires_at": 200,
    "updated_at": 150,
    "document_count": 0,
    "rollover_from": None,
}
STORE = {
    "store_id": "h1",
    "store_type": "conversation",
    "doc_count": 3,
    "created_at": "2025-06-10T10:30:00+00:00",
    "is_active": 1,
}
STORE_TIME = 1749551400

Make = Callable[..., Database]


@pytest.fixture
def database() -> Iterator[Database]:
    found = Database()
    yield found
    found.close()


@pytest.fixture
def legacy(database: Database) -> Make:
    """Return a function that fills a database of the legacy shape."""

    def make(*sessions: dict[str, Any], stores: tuple[dict[str, Any], ...] = (), loose: bool = False) -> Database:
        if loose:
            database.execute(LOOSE_LEGACY, LOOSE_STORES)
        else:
            database.execute(LEGACY, STORES, *LEGACY_INDEXES, STORES_INDEX, STORES_VIEW)
        database.insert("vector_stores", LEGACY_COLUMNS, *((SESSION | row).values() for row in sessions))
        database.insert("stores", STORES_COLUMNS, *((STORE | row).values() for row in stores))
        database.adopt()
        return database

    return make


@pytest.fixture
def unified(database: Database) -> Make:
    """Return a function that fills a database which the service unified by itself."""

    def make(*rows: dict[str, Any], stores: tuple[dict[str, Any], ...] = ()) -> Database:
        database.execute(FOUND_UNIFIED, STORES, STORES_INDEX, STORES_VIEW)
        database.insert("vector_stores", UNIFIED_COLUMNS, *((UNIFIED | row).values() for row in rows))
        database.insert("stores", STORES_COLUMNS, *((STORE | row).values() for row in stores))
        database.adopt()
        return database

    return make


def landed(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    return database.all(f"SELECT {', '.join(columns)} FROM vector_stores ORDER BY vector_store_id")


def state(database: Database) -> tuple[Any, ...]:
    return database.exact("vector_stores"), database.exact("stores"), database.sql()


def there_and_back(database: Database) -> None:
    before = state(database)
    database.upgrade()
    database.downgrade()
    assert before == state(database)
    assert database.kept() == []


def test_files_of_old_services_go_up_down_and_up(legacy_file: Path) -> None:
    """The files that the old services left keep every row, and ``stores`` in all; the way back gives what was found."""
    database = Database(legacy_file)
    database.adopt()
    before, ids = state(database), set(database.all("SELECT store_id FROM stores"))
    database.upgrade()
    ours = {row for row in ids if (repr(row[0]).encode()) not in {row[0][1] for row in before[0]}}
    assert len(before[0]) + len(ours) == len(database.exact("vector_stores"))
    assert before[1] == database.exact("stores")
    for name in ("table stores", "index idx_active_store", "view active_stores"):
        assert before[2].get(name) == database.sql().get(name)
    above = database.exact("vector_stores"), database.sql()
    database.downgrade()
    assert before == state(database)
    database.upgrade()
    assert above == (database.exact("vector_stores"), database.sql())
    database.close()


def test_plain_rows_move_as_they_are(legacy: Make) -> None:
    """A session keeps its values, and nothing is preserved for it."""
    database = legacy({}, {"session_id": "", "vector_store_id": "v\0x", "protected": 1, "provider": "other"})
    database.upgrade()
    assert landed(database, *UNIFIED_COLUMNS) == [
        ("v\0x", None, "", "other", None, 1, 1, 100, 200, 150, 0, None),
        ("v1", None, "s1", "openai", None, 0, 1, 100, 200, 150, 0, None),
    ]
    assert database.kept() == []
    there_and_back_again(database)


def there_and_back_again(database: Database) -> None:
    above = database.exact("vector_stores"), database.sql()
    database.downgrade()
    database.upgrade()
    assert above == (database.exact("vector_stores"), database.sql())


def test_a_store_becomes_a_named_store(legacy: Make) -> None:
    """A row of ``stores`` is named, protected, active and without expiry, and its time is in Unix seconds."""
    database = legacy(stores=({"is_active": 0},))
    before = state(database)
    database.upgrade()
    expected = ("h1", "project-conversations-001", None, "openai", None, 1, 1, STORE_TIME, None, STORE_TIME, 3, None)
    assert [expected] == landed(database, *UNIFIED_COLUMNS)
    assert database.kept() == []
    assert before[1] == database.exact("stores")
    database.downgrade()
    assert before == state(database)
    assert database.elsewhere == {"vector_stores": 1}


@pytest.mark.parametrize(
    ("column", "value", "target", "expected"),
    [
        ("protected", "true", "is_protected", 1),
        ("protected", " No ", "is_protected", 0),
        ("protected", b"on", "is_protected", 1),
        ("protected", 2, "is_protected", 1),
        ("protected", 0.5, "is_protected", 1),
        ("protected", b"1e400", "is_protected", 1),
        ("protected", "", "is_protected", 0),
        ("protected", None, "is_protected", 0),
        ("provider", b"openai", "provider", "openai"),
        ("vector_store_id", b"v\0", "vector_store_id", "v\0"),
        ("created_at", 1.9, "created_at", 1),
        ("created_at", -1.5, "created_at", -2),
        ("created_at", " 12.5 ", "created_at", 12),
        ("created_at", b"12", "created_at", 12),
        ("updated_at", "2025-06-10T10:30:00Z", "updated_at", STORE_TIME),
        ("updated_at", "2025-06-10t10:30:00.999999999z", "updated_at", STORE_TIME),
        ("updated_at", "2025-06-10 12:30:00,5+02", "updated_at", STORE_TIME),
        ("updated_at", "2025-06-10 05:00:00-0530", "updated_at", STORE_TIME),
        ("updated_at", "2025-06-10T10:30", "updated_at", STORE_TIME),
        ("updated_at", "20250610T103000Z", "updated_at", STORE_TIME),
        ("updated_at", "2025-W24-2T10:30:00", "updated_at", STORE_TIME),
        ("updated_at", "2025-161T10:30:00", "updated_at", STORE_TIME),
        ("updated_at", "1969-12-31", "updated_at", -86400),
        ("updated_at", "1969-12-31T24:00:00Z", "updated_at", 0),
        ("updated_at", "2016-12-31T23:59:60Z", "updated_at", 1483228800),
        ("updated_at", "2017-01-01T05:29:60.5+05:30", "updated_at", 1483228800),
        ("expires_at", "2016-12-31T22:59:60Z", "expires_at", None),
        ("expires_at", "2025-06-10T24:00:00.1Z", "expires_at", None),
        ("expires_at", "never", "expires_at", None),
        ("expires_at", float("inf"), "expires_at", None),
        ("expires_at", "2025-02-30", "expires_at", None),
        ("expires_at", "2025-06-10T25:00:00", "expires_at", None),
        ("expires_at", "99999999999999999999", "expires_at", None),
        ("expires_at", b"\xff", "expires_at", None),
    ],
)
def test_a_clear_meaning_is_converted(legacy: Make, column: str, value: Any, target: str, expected: Any) -> None:
    """An odd value of a session lands as what it means, and the original comes back exactly."""
    database = legacy({column: value})
    before = state(database)
    database.upgrade()
    ((found, kind),) = landed(database, target, f"typeof({target})")
    assert (expected, {str: "text", int: "integer", type(None): "null"}[type(expected)]) == (found, kind)
    ((direction, table, has_landed, _, reason, _),) = database.kept()
    assert (direction, table, has_landed) == ("upgrade", "vector_stores", 1)
    assert reason.startswith(f"{column}: ")
    assert not isinstance(value, str) or value.strip() in {"", "1e400"} or value not in reason
    database.downgrade()
    assert before == state(database)
    assert database.kept() == []


@pytest.mark.parametrize(
    ("column", "value", "kept", "reason"),
    [
        ("protected", "maybe", "maybe", "protected: text that means neither yes nor no"),
        ("protected", float("-inf"), {"real": "-inf"}, "protected: real that means neither yes nor no"),
        ("created_at", "yesterday", "yesterday", "created_at: no clear value, and one is needed"),
        ("updated_at", 1e300, 1e300, "updated_at: no clear value, and one is needed"),
        ("session_id", None, None, "session_id: no clear value, and one is needed"),
        ("session_id", b"\xff", {"blob": "/w=="}, "session_id: no clear value, and one is needed"),
        ("provider", Text(b"\xff"), {"text": "/w=="}, "provider: text that is not UTF-8"),
        ("expires_at", Text(b"\xff"), {"text": "/w=="}, "expires_at: text that is not UTF-8"),
        ("expires_at", Text(b"\xff\0"), {"text": "/wA="}, "expires_at: text that is not UTF-8"),
    ],
)
def test_without_a_clear_meaning_a_row_is_set_aside(
    legacy: Make, column: str, value: Any, kept: Any, reason: str
) -> None:
    """A value that is needed and has no clear meaning sets its row aside, exact, with the reason."""
    database = legacy({column: value}, {"session_id": "s2", "vector_store_id": "v2"})
    before = state(database)
    database.upgrade()
    assert landed(database, "vector_store_id") == [("v2",)]
    ((*facts, row),) = database.kept()
    assert ["upgrade", "vector_stores", 0, None, reason] == facts
    assert SESSION | {column: kept} == row
    database.downgrade()
    assert before == state(database)
    assert database.kept() == []


def test_text_with_a_nul_is_kept_as_base64(legacy: Make) -> None:
    """A preserved text with a NUL, a real and a BLOB keep their types in JSON."""
    row = {"session_id": "s\0", "protected": 2.5, "provider": b"p", "created_at": 1.5}
    database = legacy(row)
    database.upgrade()
    ((*_, kept),) = database.kept()
    assert SESSION | row | {"session_id": {"text": "cwA="}, "provider": {"blob": "cA=="}} == kept
    assert isinstance(kept["created_at"], float)
    ((converted,),) = database.all("SELECT converted FROM vecmigrate_preserved")
    assert json.loads(converted) == UNIFIED | {
        "session_id": {"text": "cwA="},
        "is_protected": 1,
        "created_at": 1,
        "provider": "p",
    }


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        ({"protected": 1, "updated_at": 1}, {"protected": 0, "updated_at": 9}),
        ({"protected": "yes", "updated_at": 1}, {"protected": 0, "updated_at": 9}),
        ({"updated_at": 9}, {"updated_at": 8}),
        ({"updated_at": "1970-01-01T00:00:09"}, {"updated_at": 8}),
        ({"updated_at": 8.75}, {"updated_at": "1970-01-01T00:00:08.5Z"}),
    ],
)
def test_of_two_sessions_for_one_store_the_better_wins(
    legacy: Make, winner: dict[str, Any], loser: dict[str, Any]
) -> None:
    """The winner is protected, then the newest; the loser is kept with the name of the column."""
    database = legacy({"session_id": "s1"} | loser, {"session_id": "s2"} | winner, {"session_id": "s0"} | loser)
    before = state(database)
    database.upgrade()
    assert landed(database, "session_id") == [("s2",)]
    aside = [(row["session_id"], reason) for _, _, has_landed, _, reason, row in database.kept() if not has_landed]
    taken = "vector_store_id: already taken by a row that is protected, active or newer"
    assert [("s0", taken), ("s1", taken)] == sorted(aside)
    database.downgrade()
    assert before == state(database)


@pytest.mark.parametrize("store", [{}, {"is_active": 0}, {"created_at": "once"}, {"created_at": "2999-01-01"}])
def test_one_id_in_both_tables_is_one_store(legacy: Make, store: dict[str, Any]) -> None:
    """The session keeps what it has and gets its count from ``stores``; the original is kept as converted."""
    database = legacy({}, stores=({"store_id": "v1"} | store, {"store_id": "h2", "store_type": "commit"}))
    before = state(database)
    database.upgrade()
    assert landed(database, *UNIFIED_COLUMNS) == [
        ("h2", "project-commits-001", None, "openai", None, 1, 1, STORE_TIME, None, STORE_TIME, 3, None),
        ("v1", None, "s1", "openai", None, 0, 1, 100, 200, 150, 3, None),
    ]
    assert database.kept() == [("upgrade", "vector_stores", 1, "v1", "document_count: taken from stores", SESSION)]
    there_and_back_again(database)
    database.downgrade()
    assert before == state(database)
    assert database.kept() == []


@pytest.mark.parametrize("count", [0, 9])
def test_one_id_in_both_tables_is_one_named_store(unified: Make, count: int) -> None:
    """Going back, the count is the one that was found, whatever the service counted meanwhile."""
    named = {"name": "project-conversations-001", "session_id": None, "vector_store_id": "h1"}
    database = unified(named, stores=({"doc_count": count}, {"store_id": "h2", "is_active": 0}))
    before = database.exact("vector_stores"), database.sql()
    database.upgrade()
    assert landed(database, "vector_store_id", "name", "document_count") == [
        ("h1", "project-conversations-001", count),
        ("h2", "project-conversations-002", 3),
    ]
    database.execute("UPDATE stores SET doc_count = doc_count + 1 WHERE is_active = 1")
    assert landed(database, "document_count") == [(count + 1,), (3,)]
    there_and_back_again(database)
    database.downgrade()
    assert before == (database.exact("vector_stores"), database.sql())
    assert database.kept() == []


def test_an_edited_count_of_one_store_is_kept(unified: Make) -> None:
    """A count that is not the one of ``stores`` was edited: it goes back, and comes again."""
    named = {"name": "mine", "session_id": None, "vector_store_id": "h1"}
    database = unified(named, stores=({},))
    database.upgrade()
    database.execute("UPDATE vector_stores SET document_count = 50")
    there_and_back_again(database)
    database.downgrade()
    assert landed(database, "document_count") == [(50,)]
    database.execute("UPDATE stores SET doc_count = 4")
    database.upgrade()
    assert landed(database, "document_count") == [(4,)]


def test_a_named_store_edited_since_comes_back(legacy: Make) -> None:
    """What ``stores`` can't tell of a named store is set aside on the way down, unless the row of stores goes."""
    stores = tuple({"store_id": f"h{number}", "is_active": 0} for number in range(1, 5))
    database = legacy(stores=stores)
    database.upgrade()
    database.execute(
        "UPDATE vector_stores SET rollover_from = 'h1', is_active = 0 WHERE vector_store_id = 'h2'",
        "UPDATE vector_stores SET name = 'mine', document_count = 8 WHERE vector_store_id = 'h3'",
    )
    for _ in range(2):
        there_and_back_again(database)
    assert database.kept() == []
    database.downgrade()
    assert [row[:3] for row in database.kept()] == [("downgrade", "vector_stores", 0)] * 3
    database.execute(
        "DELETE FROM stores WHERE store_id = 'h2'",
        "UPDATE stores SET doc_count = 9 WHERE store_id = 'h3'",
        "INSERT INTO stores VALUES ('h5', 'conversation', 1, '2030-01-01', 0)",
    )
    database.upgrade()
    assert landed(database, "vector_store_id", "name", "document_count", "is_active") == [
        ("h1", "project-conversations-001", 3, 1),
        ("h3", "mine", 9, 1),
        ("h4", "project-conversations-004", 3, 1),
        ("h5", "project-conversations-002", 1, 1),
    ]
    assert database.kept() == []


def test_a_named_store_deleted_since_stays_away(legacy: Make) -> None:
    """The service's cleaning deletes old rows of vector_stores: the way down and up brings none of them back."""
    database = legacy(stores=tuple({"store_id": f"h{number}", "is_active": 0} for number in range(3)))
    database.upgrade()
    database.execute("DELETE FROM vector_stores WHERE vector_store_id <> 'h2'")
    there_and_back_again(database)
    there_and_back_again(database)
    assert landed(database, "vector_store_id") == [("h2",)]


def test_stores_of_the_service_s_own_go_down_with_it(unified: Make) -> None:
    """A row that the service wrote at 001 stays in the unified table that was found; one that we made does not."""
    database = unified()
    database.upgrade()
    named = UNIFIED | {"name": "project-conversations-001", "session_id": None, "vector_store_id": "h1"}
    same = {"is_protected": 1, "created_at": STORE_TIME, "updated_at": STORE_TIME, "expires_at": None}
    database.insert("vector_stores", UNIFIED_COLUMNS, (named | same).values())
    database.insert("stores", STORES_COLUMNS, (STORE | {"doc_count": 0}).values())
    database.insert("stores", STORES_COLUMNS, (STORE | {"store_id": "h2", "store_type": "commit"}).values())
    assert landed(database, "vector_store_id", "name") == [
        ("h1", "project-conversations-001"),
        ("h2", "project-commits-001"),
    ]
    there_and_back_again(database)
    database.downgrade()
    assert landed(database, "vector_store_id") == [("h1",)]


def test_where_no_table_was_found_it_goes(database: Database) -> None:
    """001 makes both tables; back at 000 they are gone, but for stores with rows; up again all is back."""
    before = database.sql()
    database.upgrade()
    database.downgrade()
    assert before == database.sql()
    database.upgrade()
    database.insert("vector_stores", UNIFIED_COLUMNS, UNIFIED.values())
    there_and_back_again(database)
    # The view of a service shows nothing without its table, and the service makes both again.
    database.execute(STORES_VIEW)
    database.downgrade()
    assert before == database.sql()
    database.upgrade()
    database.insert("stores", STORES_COLUMNS, STORE.values())
    there_and_back_again(database)
    database.downgrade()
    assert set(database.sql()) - set(before) == {"table stores", "index idx_active_store"} | AUTOINDEXES
    assert [kept[:3] for kept in database.kept()] == [("downgrade", "vector_stores", 0)]


def test_rows_keep_their_rowids(legacy: Make) -> None:
    """What the service remembers of rows, and a full-text index over them, is right on both sides."""
    rows = tuple({"session_id": f"s{number}", "vector_store_id": f"v{9 - number}"} for number in range(1, 8))
    odd = {"session_id": "s0", "vector_store_id": "v0", "protected": "yes"}
    database = legacy(*rows, odd, stores=({},))
    database.execute("UPDATE vector_stores SET rowid = rowid * 10 WHERE session_id <> 's3'")
    before = database.rowids("vector_stores", "session_id")
    fts = "CREATE VIRTUAL TABLE found USING fts5(vector_store_id, provider, content='vector_stores')"
    database.execute(fts, "INSERT INTO found (found) VALUES ('rebuild')")
    for step in (database.upgrade, database.downgrade, database.upgrade):
        step()
        now = database.rowids("vector_stores", "session_id")
        assert before == {session: rowid for session, rowid in now.items() if session is not None}
        database.execute("INSERT INTO found (found, rank) VALUES ('integrity-check', 1)")
    assert database.all("SELECT f.vector_store_id FROM found f WHERE found MATCH 'h1'") == [("h1",)]


def test_a_full_text_index_that_does_not_fit_stops_the_run(legacy: Make) -> None:
    """Its columns are none of the unified table: the run names it, and nothing has changed."""
    database = legacy({})
    database.execute("CREATE VIRTUAL TABLE found USING fts5(protected, content = 'vector_stores')")
    before = state(database)
    with pytest.raises(NotOursError, match="full-text index found"):
        database.upgrade()
    assert before == state(database)


def test_stores_are_numbered_by_the_instant_meant(legacy: Make) -> None:
    """The zone and every digit of the fraction count, then the id; each type has its own numbers."""
    times = [
        ("a", "2025-06-10T12:00:00+05:00"),
        ("b", "2025-06-10T07:00:00.0000001Z"),
        ("c", "2025-06-10 07:00:00.00000005"),
        ("e", "1749538800.5"),
        ("d", "2025-06-10T07:00:00,50"),
    ]
    rows = [{"store_id": key, "created_at": time, "is_active": 0} for key, time in times]
    rows += [
        {"store_id": "x", "store_type": "commit", "created_at": "1970-01-01"},
        {"store_id": "none", "created_at": "once", "is_active": 0},
    ]
    database = legacy(stores=tuple(rows))
    database.upgrade()
    numbered = dict(landed(database, "name", "vector_store_id"))
    assert numbered == {
        "project-conversations-001": "a",
        "project-conversations-002": "c",
        "project-conversations-003": "b",
        "project-conversations-004": "d",
        "project-conversations-005": "e",
        "project-commits-001": "x",
    }
    there_and_back_again(database)


def test_equal_instants_are_numbered_by_the_id_that_lands(legacy: Make) -> None:
    """An id that is a BLOB stands where the text stands that it becomes."""
    rows = ({"store_id": "b"}, {"store_id": b"a", "is_active": 0}, {"store_id": "c", "is_active": 0})
    database = legacy(stores=rows)
    database.upgrade()
    names = [f"project-conversations-{number:03d}" for number in (1, 2, 3)]
    assert list(zip(("a", "b", "c"), names, strict=True)) == landed(database, "vector_store_id", "name")


def test_numbers_skip_names_that_are_taken(unified: Make) -> None:
    """A name that the service gave already is not given again."""
    named = {"name": "project-conversations-001", "session_id": None}
    odd = {"name": "project-conversations-003", "session_id": None, "vector_store_id": "v2", "created_at": "5.5"}
    database = unified(named, odd, stores=({}, {"store_id": "h2", "is_active": 0}))
    database.upgrade()
    assert landed(database, "vector_store_id", "name") == [
        ("h1", "project-conversations-002"),
        ("h2", "project-conversations-004"),
        ("v1", "project-conversations-001"),
        ("v2", "project-conversations-003"),
    ]


def test_numbers_go_beyond_999(legacy: Make) -> None:
    """The thousandth store has four digits."""
    rows = tuple({"store_id": f"h{number:04}", "is_active": 0} for number in range(1, 2003))
    database = legacy(stores=rows)
    database.upgrade()
    names = [row[0] for row in landed(database, "name")]
    assert [f"project-conversations-{number:03d}" for number in range(1, 2003)] == names


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        ({"store_type": "other"}, "store_type: neither conversation nor commit"),
        ({"store_type": None}, "store_type: neither conversation nor commit"),
        ({"created_at": "once"}, "created_at: no clear time"),
        ({"created_at": None}, "created_at: no clear time"),
        ({"created_at": "2025-02-30T10:00:00"}, "created_at: no clear time"),
        ({"created_at": "2025-06-10T10:30:00.1x"}, "created_at: no clear time"),
        ({"created_at": "2025-06-10T10:30:00\0"}, "created_at: no clear time"),
        ({"store_id": None}, "store_id: none that is text"),
        ({"store_id": b"\xff"}, "store_id: none that is text"),
        ({"store_id": Text(b"\xff")}, "store_id: none that is text"),
    ],
)
def test_a_store_without_a_clear_meaning_stays_in_stores_alone(
    legacy: Make, store: dict[str, Any], reason: str
) -> None:
    """What can't become a named store takes no number, and the summary says why."""
    database = legacy(stores=(store, {"store_id": "h2", "doc_count": "x"}), loose=True)
    before = state(database)
    database.upgrade()
    assert landed(database, "vector_store_id", "name", "document_count") == [("h2", "project-conversations-001", 0)]
    note = "Rows that stay in stores alone, because they can't be told as named stores"
    assert database.notes == [f"{note}: {reason}: 1"]
    assert database.kept() == []
    assert before[1] == database.exact("stores")
    there_and_back_again(database)
    database.downgrade()
    assert before == state(database)


def test_oddities_of_a_table_that_the_service_unified(unified: Make) -> None:
    """Invalid JSON becomes NULL, an unclear count 0, NULL counts and any rollover stay, the FK is gone."""
    database = unified(
        {"provider_metadata": "{", "document_count": "many", "rollover_from": "gone"},
        {"vector_store_id": "v2", "session_id": "s2", "document_count": None, "rollover_from": "v2"},
        {"vector_store_id": "v3", "session_id": "s3", "provider_metadata": "{}\0", "document_count": 2.9},
        {"vector_store_id": "v4", "session_id": "s4", "provider_metadata": '{"n": 1}', "rollover_from": b"v3"},
        {"vector_store_id": None, "session_id": "s5"},
    )
    before = state(database)
    database.upgrade()
    assert landed(database, "vector_store_id", "provider_metadata", "document_count", "rollover_from") == [
        ("v1", None, 0, "gone"),
        ("v2", None, None, "v2"),
        ("v3", None, 2, None),
        ("v4", '{"n": 1}', 0, "v3"),
    ]
    assert sorted(kept[2] for kept in database.kept()) == [0, 1, 1, 1]
    database.downgrade()
    assert before == state(database)
    assert database.kept() == []


def test_exactly_one_of_name_and_session_must_be_there(database: Database) -> None:
    """A row with both or neither is set aside, also where the table that was found has no such CHECK."""
    database.execute(FOUND_UNIFIED.partition(", CHECK ((")[0] + ")", STORES)
    both, neither = UNIFIED | {"name": "n"}, UNIFIED | {"session_id": None, "vector_store_id": "v2"}
    database.insert("vector_stores", UNIFIED_COLUMNS, tuple(both.values()), tuple(neither.values()))
    database.adopt()
    before = state(database)
    database.upgrade()
    assert landed(database, "vector_store_id") == []
    database.downgrade()
    assert before == state(database)


def test_the_reasons_stay_the_same_on_every_way_up(legacy: Make) -> None:
    """Also after a way down and up, what is kept says why each row was converted or set aside."""
    rows: list[dict[str, Any]] = [
        {"protected": "true"},
        {"session_id": "s2"},
        {"session_id": "s3", "updated_at": "once"},
        {"session_id": "s4", "vector_store_id": "v4", "created_at": b"7"},
        {"session_id": "s5", "vector_store_id": "h1"},
    ]
    database = legacy(*rows, stores=({"doc_count": "x"},))
    database.upgrade()
    reasons = sorted(kept[4] for kept in database.kept())
    assert len(reasons) == 5
    database.execute("UPDATE vector_stores SET rollover_from = 'v0'")
    for _ in range(2):
        database.downgrade()
        database.upgrade()
        assert reasons == sorted(kept[4] for kept in database.kept())


def test_an_edit_wins_over_the_original(legacy: Make) -> None:
    """Going back, only the columns that still hold the converted value get their original."""
    database = legacy({"protected": "true", "created_at": 1.5, "expires_at": "never"})
    database.upgrade()
    database.execute("UPDATE vector_stores SET created_at = 7 WHERE vector_store_id = 'v1'")
    database.downgrade()
    assert database.all("SELECT * FROM vector_stores") == [("s1", "v1", "openai", "never", "true", 7, 150)]
    database.upgrade()
    assert landed(database, "vector_store_id", "name", "created_at", "is_protected") == [("v1", None, 7, 1)]


def test_a_row_deleted_since_stays_deleted(legacy: Make) -> None:
    """Neither direction brings back what somebody deleted, and its record goes too."""
    database = legacy({"protected": "true"}, {"session_id": "s2", "vector_store_id": "v2", "created_at": 1.5})
    database.upgrade()
    database.execute("DELETE FROM vector_stores")
    database.downgrade()
    assert state(database)[0] == []
    assert database.kept() == []


def test_what_the_older_table_can_not_hold_comes_back(legacy: Make) -> None:
    """Named, inactive and unlimited rows wait with a reason, and are back after the next upgrade."""
    database = legacy()
    database.upgrade()
    rows = (
        {"name": "n", "session_id": None, "rollover_from": "v2"},
        {"vector_store_id": "v2", "is_active": 0, "provider_metadata": "{}"},
        {"vector_store_id": "v3", "session_id": "s3", "expires_at": None},
    )
    database.insert("vector_stores", UNIFIED_COLUMNS, *((UNIFIED | row).values() for row in rows))
    above = database.exact("vector_stores")
    database.downgrade()
    assert state(database)[:2] == ([], [])
    assert sorted(kept[4] for kept in database.kept()) == [
        "expires_at: the older table needs one",
        "is_active: the older table can't tell an inactive session",
        "name: the older table has only sessions",
    ]
    database.upgrade()
    assert above == database.exact("vector_stores")
    assert database.kept() == []


def test_a_row_that_waits_gives_way_to_one_that_is_there(legacy: Make) -> None:
    """If the key of a waiting row was taken meanwhile, the row stays preserved."""
    database = legacy()
    database.upgrade()
    database.insert("vector_stores", UNIFIED_COLUMNS, tuple((UNIFIED | {"is_active": 0}).values()))
    database.downgrade()
    database.insert("vector_stores", LEGACY_COLUMNS, tuple((SESSION | {"vector_store_id": "new"}).values()))
    database.upgrade()
    assert landed(database, "vector_store_id") == [("new",)]
    assert [(kept[0], kept[4].partition(":")[0]) for kept in database.kept()] == [("downgrade", "session_id")]
    assert "taken by another row while this one waited" in database.kept()[0][4]
    database.downgrade()
    database.execute("DELETE FROM vector_stores")
    database.upgrade()
    assert landed(database, "vector_store_id") == [("v1",)]
    assert database.kept() == []


def test_columns_that_the_older_table_lacks_come_back(legacy: Make) -> None:
    """After edits at 000 the columns without a counterpart return, and the edits stay."""
    database = legacy()
    database.upgrade()
    full = {"provider_metadata": '{"a": 1}', "document_count": 4, "rollover_from": "v0", "is_protected": 1}
    gone = full | {"vector_store_id": "v2", "session_id": "s2"}
    database.insert("vector_stores", UNIFIED_COLUMNS, *((UNIFIED | row).values() for row in (full, gone)))
    database.downgrade()
    assert [kept[2] for kept in database.kept()] == [1, 1]
    database.execute(
        "UPDATE vector_stores SET protected = 0, updated_at = 151 WHERE session_id = 's1'",
        "DELETE FROM vector_stores WHERE session_id = 's2'",
    )
    database.upgrade()
    edited = UNIFIED | full | {"is_protected": 0, "updated_at": 151}
    assert [tuple(edited.values())] == landed(database, *UNIFIED_COLUMNS)
    assert database.kept() == []


def test_a_winner_stays_the_winner(legacy: Make) -> None:
    """After an edit that would let the loser win, down and up again still gives what was there."""
    database = legacy({"protected": 1}, {"session_id": "s2"})
    database.upgrade()
    database.execute("UPDATE vector_stores SET is_protected = 0, updated_at = 1")
    there_and_back_again(database)
    assert landed(database, "session_id", "updated_at") == [("s1", 1)]


def test_a_loser_does_not_take_the_place_of_a_deleted_winner(legacy: Make) -> None:
    """Down and up again gives what was there; once the loser is edited at 000, it lands."""
    database = legacy({"protected": 1}, {"session_id": "s2"})
    database.upgrade()
    database.execute("DELETE FROM vector_stores")
    there_and_back_again(database)
    assert landed(database, "session_id") == []
    database.downgrade()
    database.execute("UPDATE vector_stores SET updated_at = 151")
    database.upgrade()
    assert landed(database, "session_id") == [("s2",)]


def test_a_loser_lands_once_its_winner_is_deleted_in_the_older_table(legacy: Make) -> None:
    """What went back as it was waits again only while another row has its key."""
    database = legacy({"protected": 1}, {"session_id": "s2"})
    database.upgrade()
    database.downgrade()
    taken = "vector_store_id: already taken by a row that is protected, active or newer"
    assert [kept[2:5] for kept in database.kept()] == [
        (
            1,
            "s2",
            taken,
        )
    ]
    database.execute("DELETE FROM vector_stores WHERE session_id = 's1'")
    database.upgrade()
    assert landed(database, "session_id") == [("s2",)]
    assert database.kept() == []


def test_a_record_stays_with_its_row_among_others_of_its_key(legacy: Make) -> None:
    """Of several rows with one key, the one that landed gets back what the older table can't hold."""
    database = legacy({"expires_at": 1}, {"updated_at": 151}, {"expires_at": 1}, loose=True)
    database.upgrade()
    for store in ("v0", "v9"):
        database.execute(f"UPDATE vector_stores SET document_count = 4, rollover_from = '{store}'")
        there_and_back_again(database)
        assert landed(database, "updated_at", "document_count", "rollover_from") == [(151, 4, store)]
    database.downgrade()
    database.execute("UPDATE vector_stores SET updated_at = 152 WHERE updated_at = 151")
    before = state(database)
    database.upgrade()
    assert landed(database, "updated_at", "document_count", "rollover_from") == [(152, 4, "v9")]
    database.downgrade()
    assert before == state(database)


def test_identical_rows_are_told_apart_by_their_number(legacy: Make) -> None:
    """Rows that are equal in all columns go up, down and up again, none of them twice."""
    database = legacy({}, {}, {}, stores=({}, {}), loose=True)
    before = state(database)
    database.upgrade()
    database.execute("UPDATE vector_stores SET rollover_from = 'v0'")
    there_and_back_again(database)
    assert landed(database, "vector_store_id", "rollover_from") == [("h1", "v0"), ("v1", "v0")]
    database.downgrade()
    assert before == state(database)


@pytest.mark.parametrize("conflict", ["REPLACE", "IGNORE"])
def test_conflict_clauses_of_the_found_table_lose_no_row(database: Database, conflict: str) -> None:
    """What the found table would replace or ignore by itself waits like any row that it refuses."""
    columns = ", ".join(LEGACY_COLUMNS[1:])
    unique = f"vector_store_id UNIQUE ON CONFLICT {conflict}"
    database.execute(f"CREATE TABLE vector_stores (session_id, {columns.replace('vector_store_id', unique)})", STORES)
    database.insert("vector_stores", LEGACY_COLUMNS, (SESSION | {"created_at": "once"}).values())
    database.adopt()
    database.upgrade()
    database.insert("vector_stores", UNIFIED_COLUMNS, (UNIFIED | {"session_id": "s2"}).values())
    above = database.exact("vector_stores")
    database.downgrade()
    assert landed(database, "session_id") == [("s2",)]
    database.upgrade()
    assert above == database.exact("vector_stores")


@pytest.mark.parametrize("declared", ["STRING", "REAL", "NUMERIC", "INTEGER", "TEXT", ""])
def test_declared_types_of_the_found_table_change_nothing(database: Database, declared: str) -> None:
    """What a column's declared type makes of a value on the way down is undone on the way up."""
    columns = ", ".join(f"{column.upper()} {declared}" for column in LEGACY_COLUMNS)
    database.execute(f"CREATE TABLE vector_stores ({columns})", LOOSE_STORES)
    database.insert("vector_stores", LEGACY_COLUMNS, SESSION.values(), (SESSION | {"session_id": "007"}).values())
    database.adopt()
    before = state(database)
    database.upgrade()
    database.downgrade()
    assert before == state(database)
    database.upgrade()
    rows = (
        {"vector_store_id": "1e3", "session_id": "0010", "created_at": 2**53 + 1},
        {"vector_store_id": "+1", "session_id": "1e1", "provider": "0x1"},
    )
    database.insert("vector_stores", UNIFIED_COLUMNS, *((UNIFIED | row).values() for row in rows))
    there_and_back_again(database)


def test_views_triggers_and_indexes_of_the_service_stay(legacy: Make) -> None:
    """What hangs on the table is put back, fires for nothing that the migration does, and all returns."""
    database = legacy({}, {"session_id": "s2", "protected": "true", "vector_store_id": "v2"})
    database.execute(
        "CREATE TABLE log (id)",
        "CREATE VIEW mine AS SELECT vector_store_id FROM vector_stores",
        "CREATE TRIGGER seen AFTER INSERT ON vector_stores BEGIN INSERT INTO log VALUES (new.vector_store_id); END",
        "CREATE TRIGGER gone AFTER DELETE ON vector_stores BEGIN INSERT INTO log VALUES (old.vector_store_id); END",
        "CREATE INDEX by_provider ON vector_stores (provider COLLATE NOCASE, length(provider)) WHERE provider <> ''",
        "CREATE INDEX by_protection ON vector_stores (protected)",
    )
    database.adopt()
    before = database.sql()
    database.upgrade()
    above = database.sql()
    for name in ("view mine", "trigger seen", "trigger gone", "index by_provider", "table log"):
        assert before[name] == above[name]
    assert "index by_protection" not in above
    database.execute("CREATE INDEX by_count ON vector_stores (document_count)")
    database.downgrade()
    assert before == database.sql()
    assert database.all("SELECT * FROM log") == []
    assert database.all("SELECT * FROM mine ORDER BY 1") == [("v1",), ("v2",)]


def test_an_index_made_since_the_upgrade_goes_down_too(legacy: Make) -> None:
    """An index of the service on columns that both shapes have is carried along."""
    database = legacy({})
    database.upgrade()
    sql = "CREATE INDEX by_provider ON vector_stores (provider)"
    database.execute(sql)
    database.downgrade()
    assert sql == database.sql()["index by_provider"]


def test_what_the_found_rules_refuse_waits(unified: Make) -> None:
    """A provider that the CHECK of the found table refuses is set aside on the way down, and comes back."""
    database = unified({}, {"vector_store_id": "v2", "session_id": "s2"})
    database.upgrade()
    database.execute("UPDATE vector_stores SET provider = 'chroma' WHERE vector_store_id = 'v2'")
    above = database.exact("vector_stores")
    database.downgrade()
    assert landed(database, "vector_store_id") == [("v1",)]
    assert [kept[4] for kept in database.kept()] == ["refused by the rules of the older table"]
    database.upgrade()
    assert above == database.exact("vector_stores")


def test_undecodable_text_is_found_among_many_rows(legacy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with bad text are examined row by row, others are not."""
    monkeypatch.setattr(plain, "_UTF8_PAGE", 7)
    rows = [{"session_id": f"s{number}", "vector_store_id": f"v{number}"} for number in range(50)]
    rows[20]["provider"] = Text(b"a\xc3")  # type: ignore[assignment]
    rows[49]["vector_store_id"] = Text(b"\xed\xa0\x80")  # type: ignore[assignment]
    database = legacy(*rows)
    before = state(database)
    database.upgrade()
    assert len(landed(database, "vector_store_id")) == 48
    assert [kept[5]["session_id"] for kept in database.kept()] == ["s20", "s49"]
    database.downgrade()
    assert before == state(database)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_utf_16_database_is_read_as_such(tmp_path: Path, encoding: str) -> None:
    """SQLite may keep its text as UTF-16: odd text in it comes back all the same, also what is text in UTF-8."""
    path = tmp_path / "utf16.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.executescript(f"PRAGMA encoding = '{encoding}'; {LEGACY}; {STORES};")
    connection.close()
    database = Database(path)
    lone = [Text(text.encode(encoding, "surrogatepass")) for text in ("\ud800", "\ud841\u4180", "a\udc00b", "A\ud880A")]
    rows: list[dict[str, Any]] = [
        {"session_id": f"s{number}", "vector_store_id": text} for number, text in enumerate(lone, start=2)
    ]
    odd: dict[str, Any] = {"provider": "é\0", "protected": "yes"}
    database.insert("vector_stores", LEGACY_COLUMNS, *((SESSION | row).values() for row in (odd, *rows)))
    database.adopt()
    before = state(database)
    for _ in range(2):
        database.upgrade()
        assert landed(database, "provider", "is_protected") == [("é\0", 1)]
        database.downgrade()
        assert before == state(database)
    database.close()


def lose_plain(original: Any) -> Any:
    def copy(change: Any, connection: sa.Connection, shape: Any, new: str) -> None:
        original(change, connection, shape, new)
        connection.exec_driver_sql(f"DELETE FROM {new} WHERE vector_store_id = 'v1'")

    return copy


def swap_times(original: Any) -> Any:
    def copy(change: Any, connection: sa.Connection, shape: Any, new: str) -> None:
        original(change, connection, shape, new)
        connection.exec_driver_sql(f"UPDATE {new} SET created_at = updated_at")

    return copy


def lose_odd(original: Any) -> Any:
    def insert(stage: Any, new: str) -> None:
        stage.connection.exec_driver_sql("DELETE FROM vecmigrate_stage WHERE pos = 1")
        original(stage, new)

    return insert


def lose_kept(original: Any) -> Any:
    return lambda kept, entries: original(kept, [entry for entry in entries if entry.landed])


@pytest.mark.parametrize(
    ("owner", "mistake", "message"),
    [
        ((conversion, "_copy_plain"), lose_plain, "would have changed rows"),
        ((conversion, "_copy_plain"), swap_times, "would have changed rows"),
        ((contest, "_insert"), lose_odd, "lost or doubled"),
        ((kept_rows.KeptRows, "add"), lose_kept, "lost or doubled"),
    ],
)
def test_a_mistake_ends_the_run(
    legacy: Make, monkeypatch: pytest.MonkeyPatch, owner: tuple[Any, str], mistake: Any, message: str
) -> None:
    """The check inside the migration finds lost and changed rows, and the database stays as it was."""
    odd = {"session_id": "s2", "vector_store_id": "v2", "protected": "true"}
    lost = {"session_id": "s3", "vector_store_id": "v3", "created_at": "once"}
    database = legacy({}, odd, lost)
    before = state(database)
    monkeypatch.setattr(*owner, mistake(getattr(*owner)))
    with pytest.raises(RuntimeError, match=message):
        database.upgrade()
    assert before == state(database)
    assert database.kept() == []


@pytest.mark.parametrize("function", ["_copy_plain", "admit"])
def test_a_mistake_on_the_way_down_ends_the_run(legacy: Make, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """The way down is checked like the way up."""
    database = legacy({}, {"session_id": "s2", "vector_store_id": "v2", "protected": "true"})
    database.upgrade()
    before = database.exact("vector_stores"), database.sql()
    owner = {"_copy_plain": reversal.Way, "admit": admission.Admission}[function]
    monkeypatch.setattr(
        owner, function, {"_copy_plain": lambda *_: None, "admit": lambda _, rows: dict(rows)}[function]
    )
    with pytest.raises(RuntimeError, match="Revision 001 would have"):
        database.downgrade()
    assert before == (database.exact("vector_stores"), database.sql())


def create_otherwise(table: str, *, keyed: bool) -> None:
    revision.create_unified(table, keyed=keyed)
    if keyed:
        op.create_index("uq_otherwise", table, ["session_id", "provider"], unique=True)


def test_rowids_stay_where_sqlite_copies_no_b_trees(legacy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables that are not alike are copied row by row, and the rowids are the same."""
    database = legacy({}, {"session_id": "s2", "vector_store_id": "v0"})
    database.execute("UPDATE vector_stores SET rowid = rowid * 10")
    monkeypatch.setattr(revision, "UNIFY", replace(revision.UNIFY, create=create_otherwise))
    database.upgrade()
    assert database.rowids("vector_stores", "session_id") == {"s1": 10, "s2": 20}


def test_an_unknown_shape_ends_the_run(database: Database) -> None:
    """A table with other columns is nobody's that we know."""
    database.execute("CREATE TABLE vector_stores (a)")
    with pytest.raises(RuntimeError, match="none of the shapes"):
        database.upgrade()


def words(sql: dict[str, str]) -> dict[str, list[str]]:
    return {name: (text or "").replace('"', "").split() for name, text in sql.items()}


def offline(dialect: str, step: Callable[[], None]) -> str:
    buffer = StringIO()
    migration = MigrationContext.configure(
        dialect_name=dialect, opts={"as_sql": True, "literal_binds": True, "output_buffer": buffer}
    )
    with Operations.context(migration):
        step()
    return buffer.getvalue()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_offline_sql_is_plain_ddl(dialect: str) -> None:
    """The script begins with what fails on rows to convert, and then drops and creates."""
    up, down = offline(dialect, revision.upgrade), offline(dialect, revision.downgrade)
    assert up.lstrip().startswith("CREATE TEMPORARY TABLE vecmigrate_offline")
    assert "CONSTRAINT ck_vector_stores_name_or_session" in up
    assert "PRAGMA" not in up + down


def test_offline_sql_runs_on_an_empty_database_only(database: Database) -> None:
    """Run as a script it gives the same tables as the run itself, and fails where there are rows or tables."""
    before = database.sql()
    database.raw.executescript(offline("sqlite", revision.upgrade))
    by_script = database.sql()
    database.raw.executescript(offline("sqlite", revision.downgrade))
    assert before == database.sql()
    database.upgrade()
    assert words(by_script) == words(database.sql())
    database.insert("stores", STORES_COLUMNS, STORE.values())
    with pytest.raises(sqlite3.IntegrityError, match="empty_database"):
        database.raw.executescript(offline("sqlite", revision.downgrade))


def test_offline_sql_stops_where_a_service_was(legacy: Make) -> None:
    """Its first statement fails on tables that only a run can take over."""
    database = legacy()
    with pytest.raises(sqlite3.IntegrityError, match="empty_database"):
        database.raw.executescript(offline("sqlite", revision.upgrade))


def test_a_lost_unique_key_is_an_error_not_a_loss(legacy: Make) -> None:
    """At 001 the database itself refuses a second row for a key."""
    database = legacy({})
    database.upgrade()
    with pytest.raises(IntegrityError), database.run() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO vector_stores (vector_store_id, session_id, provider, created_at, updated_at) "
                "VALUES ('v2', 's1', 'openai', 1, 1)"
            )
        )


Fill = Callable[[int], list[dict[str, Any]]]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(lambda n: [{"session_id": f"s{i}", "vector_store_id": f"v{i}"} for i in range(n)], id="plain"),
        pytest.param(lambda n: [{"protected": "no"} for _ in range(n)], id="identical"),
        pytest.param(lambda n: [{"session_id": f"s{i}"} for i in range(n)], id="one store"),
        pytest.param(lambda n: [{"session_id": None, "vector_store_id": f"v{i}"} for i in range(n)], id="no key"),
        pytest.param(
            lambda n: [{"session_id": f"s{i}", "vector_store_id": f"v{i}", "protected": "no"} for i in range(n)],
            id="odd",
        ),
    ],
)
@pytest.mark.parametrize("edit", ["SELECT 1", "DELETE FROM vector_stores", "UPDATE vector_stores SET is_active = 0"])
def test_the_work_grows_no_faster_than_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Fill, edit: str
) -> None:
    """Counted in steps of SQLite: four times the rows take hardly more than four times the work."""
    for module in (cells, contest, kept_rows):
        monkeypatch.setattr(module, "PAGE", 20)
    monkeypatch.setattr(plain, "_UTF8_PAGE", 20)
    small, large = (work_of(Database(tmp_path / f"{n}.sqlite3"), rows(n), edit) for n in (200, 800))
    assert large < 5 * small


def test_the_work_of_refused_rows_grows_no_faster_than_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that the CHECK of the found table refuses are found set by set, and come back."""
    monkeypatch.setattr(cells, "PAGE", 20)
    small, large = (refused_work_of(Database(tmp_path / f"{n}.sqlite3"), n) for n in (400, 1600))
    assert large < 5 * small


def refused_work_of(database: Database, count: int) -> int:
    database.execute(FOUND_UNIFIED)
    rows = ({"session_id": f"s{number}", "vector_store_id": f"v{number}"} for number in range(count))
    database.insert("vector_stores", UNIFIED_COLUMNS, *((UNIFIED | row).values() for row in rows))
    database.adopt()
    database.upgrade()
    database.execute("UPDATE vector_stores SET provider = 'chroma' WHERE rowid % 3 = 0")
    above = database.exact("vector_stores")
    steps = [0]

    def seen() -> int:
        steps[0] += 1
        return 0

    database.raw.set_progress_handler(seen, 100)
    database.downgrade()
    database.raw.set_progress_handler(None, 0)
    assert len(database.exact("vector_stores")) == count - count // 3
    database.upgrade()
    assert above == database.exact("vector_stores")
    database.close()
    return steps[0]


def work_of(database: Database, rows: list[dict[str, Any]], edit: str) -> int:
    """Return the steps, in hundreds, that SQLite takes for a way up, down, up and down."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    database.execute(LOOSE_LEGACY, LOOSE_STORES)
    database.insert("vector_stores", LEGACY_COLUMNS, *((SESSION | row).values() for row in rows))
    database.adopt()
    database.raw.set_progress_handler(count, 100)
    database.upgrade()
    database.execute(edit)
    database.downgrade()
    database.upgrade()
    database.downgrade()
    database.close()
    return steps
