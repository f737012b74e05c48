"""What a next revision may do: miniature ladders, one on top of ours, chosen by the name of the test.

Each goes up, down and up again, through each door, from a file that is not there, a legacy one and one at head.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import legacy
import vecmigrate
from doors import run_alembic, run_cli, url
from ladder import HEAD, NEXT
from scripts import Scripts
from vecmigrate.errors import ConfigurationError, RunFailedError

PROJECTS = Path(__file__).parent / "projects"
AFTER = f"{int(NEXT) + 1:03d}"
STARTS = ("fresh", "legacy", "head")
DOORS = ("cli", "alembic", "import")
CHUNKS = [
    "INSERT INTO vector_store_chunks VALUES ('c1', 'vs_u00001', 'a.py', 1, 9, 'def a(): ...')",
    "INSERT INTO vector_store_chunks VALUES ('c2', NULL, 'b.py', NULL, NULL, '')",
]

everywhere = pytest.mark.parametrize(("door", "start"), [(door, start) for door in DOORS for start in STARTS])
Check = Callable[[Path], None]


@pytest.fixture
def add_project(request: pytest.FixtureRequest, scripts: Scripts) -> Callable[[], None]:
    """Give what adds the revisions of the project that the test is named after."""

    def add() -> None:
        folder = PROJECTS / re.sub(r"^test_|_on_postgresql$", "", request.function.__name__)
        for source in folder.glob("*.py"):
            text, name = source.read_text(encoding="utf-8"), source.name
            for word, number in (("AFTER", AFTER), ("NEXT", NEXT), ("HEAD", HEAD)):
                text, name = text.replace(word, number), name.replace(word, number)
            (scripts.versions / name).write_text(text, encoding="utf-8")

    return add


@dataclass(frozen=True)
class Walk:
    """The way of a database up and down, through one door."""

    door: str
    path: Path
    scripts: Scripts

    def up(self, target: str = "head") -> None:
        if self.door == "import":
            vecmigrate.upgrade(url(self.path), target)
        else:
            self._run("migrate --target" if self.door == "cli" else "upgrade", target)

    def down(self, target: str) -> None:
        if self.door == "import":
            vecmigrate.rollback(url(self.path), to_version=target)
        else:
            self._run("rollback --to-version" if self.door == "cli" else "downgrade", target)

    def _run(self, words: str, target: str) -> None:
        if self.door == "cli":
            done = run_cli("--db-path", self.path, *words.split(), target)
        else:
            done = run_alembic(self.path, *words.split(), target, ini=self.scripts.ini)
        assert 0 == done.code, done.out + done.err

    def up_down_and_up(self, check: Check) -> None:
        """Go to the added revision, back to the head below it and up again, each time with the same result."""
        self.up(HEAD)
        if legacy.query(self.path, "SELECT count(*) FROM vector_store_chunks") == [(0,)]:
            legacy.execute(self.path, *CHUNKS)
        below = contents(self.path)
        self.up()
        assert NEXT == legacy.revision(self.path)
        check(self.path)
        above = contents(self.path)
        self.down(HEAD)
        assert below == contents(self.path)
        self.up()
        assert above == contents(self.path)
        assert [("ok",)] == legacy.query(self.path, "PRAGMA integrity_check")


@pytest.fixture
def walk(door: str, start: str, scripts: Scripts, add_project: Callable[[], None], tmp_path: Path) -> Walk:
    """Give a database of the start, and the door to go through."""
    path = tmp_path / "service" / "sessions.sqlite3"
    path.parent.mkdir()
    if start != "fresh":
        legacy.build(path, "released")
    if start == "head":
        vecmigrate.upgrade(url(path), HEAD)
        legacy.execute(path, *CHUNKS)
    add_project()
    return Walk(door, path, scripts)


def contents(path: Path) -> dict[str, object]:
    """Return the columns and the rows of each table, and the names of all else.

    SQL may be written in other words, and a column that comes back comes last.
    """
    names = sorted(name for name in legacy.tables(path) if not name.startswith(("vecmigrate_", "sqlite_")))
    held: dict[str, object] = {name: rows_of(path, name) for name in names}
    return held | {"others": sorted(key for key in legacy.schema(path) if key[0] != "table")}


def rows_of(path: Path, table: str) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return the columns of a table, sorted, and its rows as storage classes and values."""
    names = sorted(map(str, columns(path, table)))
    cells = ", ".join(f'typeof("{name}"), CAST("{name}" AS BLOB)' for name in names)
    return names, sorted(legacy.query(path, f'SELECT {cells} FROM "{table}"'), key=repr)


def columns(path: Path, table: str) -> list[object]:
    return [row[1] for row in legacy.query(path, f"PRAGMA table_info({table})")]


@everywhere
def test_add_a_column(walk: Walk) -> None:
    """A plain column on a table of ours goes on every database there is."""
    walk.up_down_and_up(lambda path: check(columns(path, "vector_stores")[-1] == "tags"))


@everywhere
def test_rename_a_column(walk: Walk) -> None:
    """So does another name for one."""
    walk.up_down_and_up(lambda path: check("path" in columns(path, "vector_store_chunks")))


@everywhere
def test_drop_a_column(walk: Walk) -> None:
    """What the column held comes back with it."""
    walk.up_down_and_up(lambda path: check("provider_metadata" not in columns(path, "vector_stores")))


@everywhere
def test_retype_a_column(walk: Walk) -> None:
    """The values of another type go back to what they were."""
    query = "SELECT DISTINCT typeof(provider) FROM vector_stores"
    walk.up_down_and_up(lambda path: check(set(legacy.query(path, query)) <= {("integer",)}))


@everywhere
def test_new_table(walk: Walk) -> None:
    """A new table, with a row of its own and a view, goes again without a question: nobody has put a row into it."""
    walk.up_down_and_up(lambda path: check([("*",)] == legacy.query(path, "SELECT * FROM tagged")))


@everywhere
def test_split_a_table(walk: Walk) -> None:
    """Values that move into a table of the revision and back are not lost, and nobody is asked."""
    query = "SELECT count(*) > 0 FROM store_metadata"
    is_fresh = not walk.path.exists()
    walk.up_down_and_up(lambda path: check([(int(not is_fresh),)] == legacy.query(path, query)))


@everywhere
def test_data_only(walk: Walk) -> None:
    """A revision may change rows and no table."""
    query = "SELECT count(*) FROM vector_stores WHERE provider <> upper(provider)"
    walk.up_down_and_up(lambda path: check([(0,)] == legacy.query(path, query)))


def has_language_and_triggers(path: Path) -> None:
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'vector_store_chunks'"
    assert [(3,)] == legacy.query(path, query)
    assert "language" in columns(path, "vector_store_chunks")


@pytest.mark.parametrize(("door", "start"), [(door, "head") for door in DOORS])
def test_change_in_a_batch(walk: Walk) -> None:
    """The triggers of the ladder on a table that a batch makes anew are there afterwards, on both ways."""
    walk.up_down_and_up(has_language_and_triggers)


@pytest.mark.parametrize(("door", "start"), [("import", start) for start in STARTS])
def test_make_a_table_anew(walk: Walk) -> None:
    """So are those on a table that a script drops and makes again under its name."""
    walk.up_down_and_up(has_language_and_triggers)


def check(is_true: bool) -> None:  # noqa: FBT001 - an assert that fits into a lambda
    assert is_true


@everywhere
def test_fail_half_way(walk: Walk) -> None:
    """A failure leaves the state below, whatever had been made and changed by then."""
    walk.up(HEAD)
    before = legacy.digest(walk.path)

    with pytest.raises((RunFailedError, AssertionError), match=f"Revision {NEXT} failed"):
        walk.up()

    assert before == legacy.digest(walk.path)
    assert HEAD == legacy.revision(walk.path)


@everywhere
def test_two_heads(walk: Walk) -> None:
    """Two branches that grew on one revision are refused, and both files are named."""
    with pytest.raises((ConfigurationError, AssertionError)) as raised:
        walk.up()

    assert f"{NEXT}_labels.py" in str(raised.value)
    assert f"{AFTER}_tags.py" in str(raised.value)


@everywhere
def test_twin_numbers(walk: Walk) -> None:
    """Two revisions that took one number are refused, and both files are named."""
    with pytest.raises((ConfigurationError, AssertionError)) as raised:
        walk.up()

    assert f"{NEXT}_labels.py" in str(raised.value)
    assert f"{NEXT}_tags.py" in str(raised.value)


# On a server.


def rows_on(engine: sa.Engine) -> dict[str, list[str]]:
    """Return all rows of each table but the tool's, sorted."""
    with engine.connect() as connection:
        names = [name for name in sa.inspect(connection).get_table_names() if not name.startswith("vecmigrate_")]
        return {
            name: sorted(
                str(sorted(row.items())) for row in connection.execute(sa.text(f"SELECT * FROM {name}")).mappings()
            )
            for name in names
        }


@pytest.fixture
def server(postgresql: sa.URL, add_project: Callable[[], None]) -> sa.Engine:
    """Give a database at the head below the project, with rows."""
    vecmigrate.upgrade(postgresql, HEAD)
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in CHUNKS:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(
            "INSERT INTO vector_stores "
            "(vector_store_id, session_id, provider, provider_metadata, created_at, updated_at) "
            "VALUES ('v', 's', 'openai', '{}', 1, 2)"
        )
    add_project()
    return engine


def up_down_and_up_on(server: sa.Engine) -> None:
    below = rows_on(server)
    assert [NEXT] == vecmigrate.upgrade(server.url).applied
    above = rows_on(server)
    assert above != below
    assert [NEXT] == vecmigrate.rollback(server.url, to_version=HEAD).reverted
    assert below == rows_on(server)
    vecmigrate.upgrade(server.url)
    assert above == rows_on(server)


def test_add_a_column_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL."""
    up_down_and_up_on(server)


def test_rename_a_column_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL."""
    up_down_and_up_on(server)


def test_drop_a_column_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL."""
    up_down_and_up_on(server)


def test_retype_a_column_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL."""
    up_down_and_up_on(server)


def test_new_table_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL."""
    up_down_and_up_on(server)


def test_split_a_table_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL."""
    up_down_and_up_on(server)


def test_data_only_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL."""
    up_down_and_up_on(server)


def triggers_on(server: sa.Engine) -> list[tuple[str, str, str]]:
    query = (
        "SELECT tgname, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname"
    )
    with server.connect() as connection:
        return [(name, sql, state) for name, sql, state in connection.exec_driver_sql(query)]


def test_change_in_a_batch_on_postgresql(server: sa.Engine) -> None:
    """The same on PostgreSQL, where a batch changes the table in its place."""
    before = triggers_on(server)
    up_down_and_up_on(server)
    assert before == triggers_on(server)


def test_make_a_table_anew_on_postgresql(server: sa.Engine) -> None:
    """A trigger of the service too, whatever characters are in it, and a switched off one stays so."""
    with server.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER noted AFTER INSERT ON vector_store_chunks FOR EACH ROW "
            "WHEN (NEW.content LIKE '%%:x') EXECUTE FUNCTION noted()"
        )
        connection.exec_driver_sql("ALTER TABLE vector_store_chunks DISABLE TRIGGER noted")
    before = triggers_on(server)
    up_down_and_up_on(server)
    assert before == triggers_on(server)
