"""The released service goes on living on a migrated database: nothing is lost, and as much is found as without us."""

import itertools
import json
import multiprocessing
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli, url
from ladder import HEAD, REVISIONS
from released_service import ReleasedService, live

# What the service left when its own code wrote it, in three of its eras; the other shapes are older than a month.


def written(path: Path) -> None:
    """Make what 1.3 leaves: conversation stores under one id in both tables, commit stores in one."""
    live(path, mark="before")
    legacy.execute(path, "PRAGMA journal_mode = delete")


def stores_alone(path: Path) -> None:
    """Make what was there before ``vector_stores`` existed."""
    legacy.execute(path, *legacy.STORES_SQL, "CREATE TABLE memory_meta(key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    _fill_stores(path)


def separate(path: Path) -> None:
    """Make what the era of two tables left; two sessions share a store."""
    legacy.execute(path, *legacy.LEGACY_SQL, *legacy.STORES_SQL)
    _fill_stores(path)
    now = int(time.time())
    with legacy.opened(path) as connection:
        for session, store in ("s-0", "vs_0"), ("s-1", "vs_1"), ("s-prot", "vs_prot"), ("s-shared", "vs_prot"):
            row = (session, store, "openai", now + 7200, int(session == "s-prot"), now, now)
            connection.execute("INSERT INTO vector_stores VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _fill_stores(path: Path) -> None:
    with legacy.opened(path) as connection:
        for number, kind in itertools.product(range(3), ("conversation", "commit")):
            at = datetime.now(UTC)
            text = at.isoformat() if kind == "commit" else f"{at:%Y-%m-%d %H:%M:%S}"
            row = (f"vs_{kind}_{number}", kind, 3 - number, text, int(number == 2))
            connection.execute("INSERT INTO stores VALUES (?, ?, ?, ?, ?)", row)


SAMPLES: dict[str, Callable[[Path], object]] = {
    "absent": lambda _: None,
    "written": written,
    "stores alone": stores_alone,
    "separate": separate,
    "early": lambda path: legacy.build(path, "early"),
    "legacy": lambda path: legacy.build(path, "legacy"),
    "released": lambda path: legacy.build(path, "released"),
    "old script": lambda path: legacy.build(path, "old-script"),
}
SUITED = [name for name in SAMPLES if name not in {"separate", "legacy"}]
"""The service starts on these without us too; the others it ends on, for want of a column."""


def made(name: str, folder: Path) -> Path:
    folder.mkdir()
    path = folder / "sessions.sqlite3"
    SAMPLES[name](path)
    return path


def twin_of(path: Path) -> Path:
    """Copy a database that nobody has open, with what stands beside it, for the same life without us."""
    shutil.copytree(path.parent, path.parent.with_name("without"))
    return path.parent.with_name("without") / path.name


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return made(request.param, tmp_path / "service")


@pytest.fixture(params=SUITED)
def suited(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return made(request.param, tmp_path / "service")


def register(path: Path) -> list[tuple[object, ...]]:
    """Return the stores of the history but for their times, which are those of each life."""
    if not path.exists():
        return []
    return legacy.query(path, "SELECT store_id, store_type, doc_count, is_active FROM stores ORDER BY store_id")


def known(path: Path) -> set[object]:
    return {row[0] for row in legacy.query(path, "SELECT vector_store_id FROM vector_stores")}


def kinds_and_stores(path: Path) -> set[tuple[object, object]]:
    return {(kind, store) for store, kind, *_ in register(path)}


def require_one_register(path: Path) -> None:
    """Fail where ``vector_stores`` counts other documents than ``stores``, or two stores have a name."""
    assert [] == legacy.query(
        path,
        "SELECT store_id, doc_count, document_count FROM stores JOIN vector_stores ON vector_store_id = store_id "
        "WHERE document_count IS NOT doc_count",
    )
    assert [] == legacy.query(
        path, "SELECT name FROM vector_stores GROUP BY name HAVING name IS NOT NULL AND count(*) > 1"
    )
    assert [("ok",)] == legacy.query(path, "PRAGMA integrity_check")


# Before and after.


def test_without_us_the_service_starts_where_we_say_it_does(sample: Path, request: pytest.FixtureRequest) -> None:
    """It ends on a table of the era of two tables, and never finds a commit store: the player is as the service is."""
    name = request.node.callspec.params["sample"]
    if name not in SUITED:
        with pytest.raises(sqlite3.OperationalError, match="no such column"):
            live(sample, mark="now")
        return
    found = live(sample, mark="now")
    assert {"conversation"} == {kind for kind, _ in found}


def test_after_a_migration_the_whole_history_is_found(sample: Path) -> None:
    """Every store that the service ever registered, of commits too, is searched from the first start."""
    before = kinds_and_stores(sample) if sample.exists() else set()
    vecmigrate.upgrade(url(sample))

    with closing(ReleasedService(sample, mark="now")) as service:
        assert before == service.search()


def test_a_life_on_a_migrated_database_finds_no_less(suited: Path) -> None:
    """The same day with and without us: what was found is found, and every commit store of the day besides."""
    twin = twin_of(suited)
    expected = live(twin, mark="now")
    vecmigrate.upgrade(url(suited))

    found = live(suited, mark="now")

    assert set() == expected - found
    of_the_day = {each for each in kinds_and_stores(suited) if "_now_" in str(each[1])}
    assert {"conversation", "commit"} == {kind for kind, _ in of_the_day}
    assert set() == of_the_day - found


def test_a_life_on_a_migrated_database_loses_no_row(suited: Path) -> None:
    """The register is what it is without us, and no store that ``vector_stores`` has without us is missing."""
    twin = twin_of(suited)
    live(twin, mark="now")
    vecmigrate.upgrade(url(suited))

    live(suited, mark="now")

    assert register(twin) == register(suited)
    assert set() == known(twin) - known(suited)
    require_one_register(suited)


def test_a_life_on_tables_that_the_service_ended_on(tmp_path: Path) -> None:
    """After the migration it starts and works, and the sessions of the old era are renewed and not made anew."""
    path = made("separate", tmp_path / "service")
    vecmigrate.upgrade(url(path))

    with closing(ReleasedService(path, mark="now")) as service:
        assert "vs_0" == service.open_session("s-0")
        assert service.renew("s-1")
        assert not service.renew("s-none")
    found = live(path, mark="then")
    assert kinds_and_stores(path) == found
    require_one_register(path)


@pytest.mark.parametrize("name", ["written", "released", "old script"])
def test_after_a_rollback_the_service_lives_as_without_us(name: str, tmp_path: Path) -> None:
    """A day on the migrated database, then the way back, then another day: found is what is found without us."""
    path = made(name, tmp_path / "service")
    twin = twin_of(path)
    expected = [live(twin, mark=mark) for mark in ("one", "two")][-1]
    vecmigrate.upgrade(url(path))
    live(path, mark="one")
    vecmigrate.rollback(url(path), to_version="000")

    found = live(path, mark="two")

    assert register(twin) == register(path)
    assert expected == found
    assert known(twin) == known(path)


@pytest.mark.parametrize("name", ["absent", "stores alone", "early"])
def test_a_rollback_to_before_vector_stores_keeps_what_stood_in_it(name: str, tmp_path: Path) -> None:
    """The table goes, as it was not there, and its rows are kept; the service makes it anew, and its register stays."""
    path = made(name, tmp_path / "service")
    twin = twin_of(path)
    live(twin, mark="one")
    vecmigrate.upgrade(url(path))
    live(path, mark="one")
    there = known(path)
    vecmigrate.rollback(url(path), to_version="000")

    assert "vector_stores" not in legacy.tables(path)
    kept = legacy.query(path, "SELECT row FROM vecmigrate_preserved WHERE source_table = 'vector_stores'")
    told = {json.loads(str(row))["vector_store_id"] for (row,) in kept} | {store for _, store in kinds_and_stores(path)}
    assert set() == there - told
    assert register(twin) == register(path)
    with closing(ReleasedService(path, mark="two", rollover=1)) as service:
        assert {("conversation", service.save_conversation())} == service.search()


def test_after_a_rollback_and_another_migration_the_whole_history_is_found(suited: Path) -> None:
    """What the service made while the database was back is told as well, the commit stores too."""
    vecmigrate.upgrade(url(suited))
    live(suited, mark="one")
    vecmigrate.rollback(url(suited), to_version="000")
    live(suited, mark="two")
    vecmigrate.upgrade(url(suited))

    found = live(suited, mark="three")

    for mark in ("one", "two", "three"):
        of_the_day = {each for each in kinds_and_stores(suited) if f"_{mark}_" in str(each[1])}
        assert {"conversation", "commit"} == {kind for kind, _ in of_the_day}
        assert set() == of_the_day - found
    require_one_register(suited)


# Boots.


def test_four_boots_migrate_once_and_keep_the_history_of_all(sample: Path) -> None:
    """Each boot calls `ensure_current` and works a day; later ones are current, make no backup and find all days."""
    reports, found = [], set()
    for mark in ("one", "two", "three", "four"):
        reports.append(vecmigrate.ensure_current(url(sample), on_failure="raise"))
        found = live(sample, mark=mark)

    assert ["migrated", "current", "current", "current"] == [report.state for report in reports]
    assert [None] * 3 == [report.backup for report in reports[1:]]
    assert len(list((sample.parent / "backups").glob("*.sqlite3"))) <= 1
    assert [(len(REVISIONS),)] == legacy.query(sample, "SELECT count(*) FROM vecmigrate_history")
    assert HEAD == legacy.revision(sample)
    for mark in ("one", "two", "three", "four"):
        of_the_day = {each for each in kinds_and_stores(sample) if f"_{mark}_" in str(each[1])}
        assert {"conversation", "commit"} == {kind for kind, _ in of_the_day}
        assert set() == of_the_day - found
    require_one_register(sample)


def test_four_boots_find_no_less_than_without_us(suited: Path) -> None:
    """Day by day, and the register is the same."""
    twin = twin_of(suited)
    for mark in ("one", "two", "three", "four"):
        expected = live(twin, mark=mark)
        vecmigrate.ensure_current(url(suited), on_failure="raise")
        found = live(suited, mark=mark)
        assert set() == expected - found
        assert register(twin) == register(suited)


def test_a_service_that_runs_goes_on_while_another_process_migrates(suited: Path) -> None:
    """Its connections are open all the while; it finds its stores afterwards, and makes the next."""
    with closing(ReleasedService(suited, mark="now", rollover=1)) as service:
        first = service.save_conversation()
        commit = service.save_commit()
        assert 0 == run_cli("--db-path", suited, "migrate").code
        second = service.save_conversation()
        assert 0 == run_cli("--db-path", suited, "rollback", "--to-version", "000").code
        third = service.save_conversation()
        assert 0 == run_cli("--db-path", suited, "migrate").code
        found = service.search()

    assert {("conversation", first), ("conversation", second), ("conversation", third), ("commit", commit)} <= found
    require_one_register(suited)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    """Names stay unique, every commit store of both is told, and no document goes uncounted.

    Of conversation stores the service itself may lose one in vector_stores: both processes give it the same name.
    """
    path = made("written", tmp_path / "service")
    documents = sum(int(str(row[2])) for row in register(path))
    vecmigrate.upgrade(url(path))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=live, args=(str(path),), kwargs={"mark": mark}) for mark in ("one", "two")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [0, 0] == [process.exitcode for process in processes]
    assert documents + 32 == sum(int(str(row[2])) for row in register(path))
    assert {store for kind, store in kinds_and_stores(path) if kind == "commit"} <= known(path)
    require_one_register(path)


# Cleaning.


def test_cleaning_goes_on(tmp_path: Path) -> None:
    """What has expired goes, what is older than a month goes with it, and the register keeps every store."""
    path = made("released", tmp_path / "service")
    twin = twin_of(path)
    registered = kinds_and_stores(path)
    vecmigrate.upgrade(url(path))
    removed = {}
    for each in (twin, path):
        with closing(ReleasedService(each, mark="now")) as service:
            session = service.open_session("short", ttl=-10)
            # Each time it looks at a hundred.
            removed[each] = sum(iter(service.clean, 0))
            assert session not in known(each)
            service.purge()

    assert removed[twin] == removed[path] > 0
    assert known(twin) == known(path)
    assert registered == kinds_and_stores(path)


def test_no_row_that_we_make_ends_the_cleaning(sample: Path) -> None:
    """Each provider that stands in the table is one that the service knows, and no metadata end its search."""
    vecmigrate.upgrade(url(sample))

    with closing(ReleasedService(sample, mark="now")) as service:
        service.open_session("short", ttl=-10)
        assert service.clean() >= 1
        service.search()
