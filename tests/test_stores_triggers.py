"""What the released service registers in ``stores`` is a named store of ``vector_stores``, by triggers."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import url
from released_service import ReleasedService


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection to a migrated database of the service's own making."""
    path = tmp_path / "sessions.sqlite3"
    with closing(ReleasedService(path, mark="now")):
        pass
    vecmigrate.upgrade(url(path))
    with legacy.opened(path) as connection:
        yield connection


ADD = "INSERT INTO stores VALUES (?, ?, ?, ?, ?)"
NOW = "2026-01-31 10:30:00"
SECONDS = 1769855400


def named(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT vector_store_id, name FROM vector_stores ORDER BY name").fetchall()


@pytest.mark.parametrize(
    "at", [NOW, "2026-01-31T10:30:00+00:00", "2026-01-31T10:30:00.123456+00:00", "2026-01-31T11:30:00+01:00"]
)
def test_a_store_that_is_registered_is_a_named_one(at: str, migrated: sqlite3.Connection) -> None:
    """It has the name that the service itself would give, no expiry, the documents it was given and its time."""
    migrated.execute(ADD, ("vs_a", "commit", 7, at, 1))

    assert [("vs_a", "project-commits-001", None, "openai", None, 1, 1, SECONDS, None, SECONDS, 7, None)] == (
        migrated.execute(
            "SELECT vector_store_id, name, session_id, provider, provider_metadata, is_protected, is_active, "
            "created_at, expires_at, updated_at, document_count, rollover_from FROM vector_stores"
        ).fetchall()
    )


def test_the_number_in_the_name_is_that_of_the_store(migrated: sqlite3.Connection) -> None:
    """Each type counts for itself, and right beyond 999."""
    for number in range(1, 4):
        migrated.execute(ADD, (f"vs_t{number}", "commit", 0, NOW, 0))
        migrated.execute(ADD, (f"vs_c{number}", "conversation", 0, NOW, 0))
    migrated.execute(
        "WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 1001) "
        "INSERT INTO stores SELECT 'vs_n' || i, 'commit', 0, '2026-01-31 10:30:00', 0 FROM n"
    )

    names = dict(named(migrated))
    assert [f"project-commits-{number:03d}" for number in (1, 2, 3)] == [names[f"vs_t{each}"] for each in (1, 2, 3)]
    assert [f"project-conversations-{number:03d}" for number in (1, 2, 3)] == [
        names[f"vs_c{each}"] for each in (1, 2, 3)
    ]
    assert ["project-commits-999", "project-commits-1000"] == [names["vs_n999"], names["vs_n1000"]]


def test_a_name_that_is_taken_is_passed_over(migrated: sqlite3.Connection) -> None:
    """The store is told under another name, and whoever has the name keeps it."""
    migrated.execute(
        "INSERT INTO vector_stores (vector_store_id, name, provider, created_at, updated_at) "
        "VALUES ('vs_theirs', 'project-commits-001', 'hnsw', 1, 1)"
    )
    migrated.execute(ADD, ("vs_a", "commit", 0, NOW, 0))
    migrated.execute(ADD, ("vs_b", "commit", 0, NOW, 1))

    names = dict(named(migrated))
    assert ("project-commits-001", 3) == (names["vs_theirs"], len(set(names.values())))
    assert {"vs_a", "vs_b", "vs_theirs"} == set(names)


def test_documents_are_counted_in_both(migrated: sqlite3.Connection) -> None:
    """A count that changes in the register is carried over, and the rest of the row is left alone."""
    migrated.execute(ADD, ("vs_a", "conversation", 0, NOW, 1))
    migrated.execute("UPDATE vector_stores SET updated_at = 5, is_active = 0")
    migrated.execute("UPDATE stores SET doc_count = doc_count + 1 WHERE store_type = 'conversation' AND is_active = 1")
    migrated.execute("UPDATE stores SET is_active = 0 WHERE store_type = 'conversation'")

    assert [(1, 5, 0)] == migrated.execute("SELECT document_count, updated_at, is_active FROM vector_stores").fetchall()


def test_a_store_that_the_service_has_told_itself_stays_as_it_told_it(migrated: sqlite3.Connection) -> None:
    """Its conversation stores stand in both tables: no second one is made, and only the count is carried over."""
    migrated.execute(
        "INSERT OR REPLACE INTO vector_stores (vector_store_id, name, provider, is_protected, created_at, updated_at, "
        "rollover_from) VALUES ('vs_a', 'project-conversations-009', 'hnsw', 0, 1, 2, 'vs_0')"
    )
    migrated.execute(ADD, ("vs_a", "conversation", 4, NOW, 1))

    assert [("project-conversations-009", "hnsw", 0, 1, 2, 4, "vs_0")] == migrated.execute(
        "SELECT name, provider, is_protected, created_at, updated_at, document_count, rollover_from FROM vector_stores"
    ).fetchall()


def test_replacing_in_either_table_leaves_one_store(migrated: sqlite3.Connection) -> None:
    """A replaced row of the register is the same store, and a replaced row of ``vector_stores`` is the service's."""
    migrated.execute(ADD, ("vs_a", "commit", 1, NOW, 1))
    migrated.execute(ADD.replace("INSERT", "INSERT OR REPLACE"), ("vs_a", "commit", 5, NOW, 1))
    assert [("vs_a", "project-commits-001")] == named(migrated)
    assert [(5,)] == migrated.execute("SELECT document_count FROM vector_stores").fetchall()

    migrated.execute(
        "INSERT OR REPLACE INTO vector_stores (vector_store_id, name, provider, created_at, updated_at) "
        "VALUES ('vs_a', 'theirs', 'hnsw', 1, 1)"
    )
    migrated.execute(ADD.replace("INSERT", "INSERT OR REPLACE"), ("vs_a", "commit", 6, NOW, 1))
    assert [("vs_a", "theirs")] == named(migrated)
    assert [(6,)] == migrated.execute("SELECT document_count FROM vector_stores").fetchall()

    # The next active one pushes the first out of the register, by its unique index; both can be searched still.
    migrated.execute(ADD.replace("INSERT", "INSERT OR REPLACE"), ("vs_b", "commit", 0, NOW, 1))
    assert [("vs_b",)] == migrated.execute("SELECT store_id FROM stores").fetchall()
    assert {"vs_a", "vs_b"} == {store for store, _ in named(migrated)}


ODD = [
    ("vs_a", "commit", 0, "soon", 1),
    ("vs_a", "commit", 0, "", 1),
    ("vs_a", "commit", 0, "2026-02-30T00:00:00+00:00", 1),
    ("vs_a", "commit", 0, "9999999999999999", 1),
    ("vs_a", "commit", 0, b"\xff\x00", 1),
    ("vs_a", "commit", "many", NOW, 1),
    ("vs_a", "commit", 2.5, NOW, 1),
    ("vs_a", "commit", b"\x00", NOW, 1),
    ("vs_a", "commit", -(2**63), NOW, 1),
    (None, "commit", 0, NOW, 1),
    (b"\xff\x00", "commit", 0, NOW, 1),
    ("", "commit", 0, NOW, 1),
    ("vs\x00a", "commit", 0, NOW, 1),
]


@pytest.mark.parametrize("row", ODD, ids=range(len(ODD)))
def test_no_odd_row_is_refused_for_us(row: tuple[object, ...], migrated: sqlite3.Connection) -> None:
    """The register takes whatever it took before, and the next store is told as if nothing had been."""
    migrated.execute(ADD, row)
    migrated.execute("UPDATE stores SET doc_count = 'more', is_active = 0")
    migrated.execute(ADD, ("vs_next", "commit", 3, NOW, 1))

    assert [(2,)] == migrated.execute("SELECT count(*) FROM stores").fetchall()
    assert [(3,)] == migrated.execute(
        "SELECT document_count FROM vector_stores WHERE vector_store_id = 'vs_next'"
    ).fetchall()
    assert [("ok",)] == migrated.execute("PRAGMA integrity_check").fetchall()


@pytest.mark.parametrize(
    "obstacle",
    [
        "CREATE UNIQUE INDEX theirs ON vector_stores(provider)",
        "CREATE TRIGGER theirs BEFORE INSERT ON vector_stores BEGIN SELECT RAISE(IGNORE); END",
    ],
)
def test_what_keeps_us_from_telling_a_store_stops_no_insert(obstacle: str, migrated: sqlite3.Connection) -> None:
    """The service's register takes the store, and once nothing is in the way the next is told."""
    migrated.execute(ADD, ("vs_a", "commit", 0, NOW, 0))
    migrated.execute(obstacle)
    migrated.execute(ADD, ("vs_b", "commit", 0, NOW, 0))
    assert [("vs_a",), ("vs_b",)] == migrated.execute("SELECT store_id FROM stores ORDER BY store_id").fetchall()
    migrated.execute(f"DROP {obstacle.split()[1 if 'TRIGGER' in obstacle else 2]} theirs")
    migrated.execute(ADD, ("vs_c", "commit", 0, NOW, 1))

    assert {"vs_a", "vs_c"} <= {store for store, _ in named(migrated)}
