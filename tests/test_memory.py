"""What memory a run needs where a huge value is set aside or kept."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from processes import call
from revision_001 import LOOSE_LEGACY, LOOSE_STORES, LOOSE_UNIFIED, Database
from vecmigrate import operations

SIZE = 40_000_000
"""So long that the allocator gives the memory of a value back at once: it keeps blocks of up to 32 MiB."""
TEXT = f"hex(zeroblob({SIZE // 2}))"
BLOB = f"CAST({TEXT} || CAST(x'ff' AS TEXT) AS BLOB)"
STORES = "CREATE TABLE stores (id TEXT PRIMARY KEY, provider TEXT NOT NULL, metadata TEXT)"


def revision_001(database: Database) -> None:
    database.upgrade()


def rebuild_with_functions(database: Database) -> None:
    with database.run():
        operations.rebuild_table(
            "stores",
            revision="004",
            key="id",
            change={"provider": (sa.Column("provider", sa.Text), sa.Column("kind", sa.Integer, nullable=False))},
            up={"kind": lambda row: {"openai": 1}.get(row["provider"])},
            down={"provider": lambda _row: "openai"},
        )


def rebuild_without_a_column(database: Database) -> None:
    with database.run():
        operations.rebuild_table("stores", revision="004", key="id", drop=[sa.Column("metadata", sa.Text)])


def report_memory(change: Callable[[Database], None], path: Path) -> None:
    """Print by how many bytes the process grew at most."""
    database = Database(path)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak()
    change(database)
    print(_peak() - before)  # noqa: T201 - the answer


def _peak() -> int:
    # Unlike ru_maxrss, this does not begin with the peak of the process that this one was forked from.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize(
    ("table", "row", "change", "times"),
    [
        pytest.param(
            LOOSE_LEGACY, f"{TEXT}, 'vs_1', 'openai', 1, 'maybe', 1, 1", revision_001, 3.5, id="a key set aside"
        ),
        # SQLite's own cache holds another part of it.
        pytest.param(
            LOOSE_UNIFIED,
            f"'vs_1', NULL, 's', 'openai', {TEXT}, 0, 1, 1, NULL, 1, 0, NULL",
            revision_001,
            4.3,
            id="metadata kept",
        ),
        pytest.param(STORES, f"'id', {TEXT}, NULL", rebuild_with_functions, 3.5, id="rebuilt, text set aside"),
        # As Base64 it is a third longer.
        pytest.param(STORES, f"'id', 'openai', {BLOB}", rebuild_without_a_column, 4.5, id="rebuilt, a blob kept"),
    ],
)
def test_a_huge_value_that_is_kept_is_in_memory_about_three_times(
    tmp_path: Path, table: str, row: str, change: Callable[[Database], None], times: float
) -> None:
    """As JSON, as what is bound, and as the record that SQLite writes: more copies there are at no time."""
    database = Database(tmp_path / "sessions.db")
    database.execute(table, f"INSERT INTO {table.split()[2]} VALUES ({row})")
    if table != STORES:
        database.execute(LOOSE_STORES)
    database.close()

    code, printed, error = call(
        report_memory, change, tmp_path / "sessions.db", environ=dict(os.environ), folder=tmp_path
    )

    assert (0, "") == (code, error)
    assert SIZE < int(printed) < times * SIZE
    kept = Database(tmp_path / "sessions.db")
    assert [(SIZE,)] < kept.all("SELECT length(row) FROM vecmigrate_preserved")
    kept.close()
