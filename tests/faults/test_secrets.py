"""Passwords and the contents of rows reach no output, log, traceback, history, manifest or mirror."""

import logging
import os
import sqlite3
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.pool import NullPool

import legacy
import vecmigrate
from doors import Result, run_alembic, run_cli
from faults import harness
from faults.harness import Subject, go, start, tried
from faults.slow import changed_scripts, failing_scripts, with_scripts
from ladder import HEAD, NAMES
from vecmigrate import archive, scripts_folder
from vecmigrate.causes import described

PASSWORD = "c4nary/p@ss:w%rd"  # noqa: S105
ENCODED = urllib.parse.quote(PASSWORD, safe="")
ROW = "c4nary-of-a-row"


def require_secret(*texts: str) -> None:
    for text in texts:
        for canary in (PASSWORD, ENCODED, urllib.parse.quote(PASSWORD), "c4nary"):
            assert canary not in text


def written(folder: Path) -> Iterator[str]:
    """Yield every file but databases and backups, which are there to hold the rows."""
    for path in folder.rglob("*"):
        if path.is_file() and ".sqlite3" not in path.suffixes:
            yield path.read_text(encoding="utf-8")


URLS = [
    f"postgresql://user:{ENCODED}@127.0.0.1:1/x",
    f"postgresql+psycopg://user:{ENCODED}@127.0.0.1:1/x?password={ENCODED}&sslpassword={ENCODED}",
    f"postgresql+asyncpg://user@127.0.0.1:1/x?password={ENCODED}",
    f"postgresql://127.0.0.1:1/x?passfile=/nowhere&nosuch={ENCODED}",
    f"postgresql://user:{ENCODED}@host:notaport/x",
    f"postgresql+nosuch://user:{ENCODED}@host/x",
    f"mysql://user:{ENCODED}@host/x",
    f"nosuch://user:{ENCODED}@host/x",
    f"user:{ENCODED}@host",
    f"postgresql://user:{ENCODED}%zz@127.0.0.1:1/x",
    f"sqlite:////nowhere/x.sqlite3?key={ENCODED}",
    "postgresql://user:pa@c4nary@127.0.0.1:1/x",
    "postgresql://user:pa@c4nary/x@127.0.0.1:1/x",
    "sqlite:///postgresql://user:c4nary@127.0.0.1:1/x",
    "postgresql://user:c4nary\udcff@127.0.0.1:1/x",
    *(f"postgresql://127.0.0.1:1/x?{query}" for query in ("port=c4nary", "sslmode=c4nary", "service=c4nary")),
    *(
        f"postgresql://127.0.0.1:1/x?{query}"
        for query in ("connect_timeout=c4nary", "client_encoding=c4nary", "c4nary=1")
    ),
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_never_shown(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by an error nor by a traceback nor by a log, whatever is wrong with the URL."""
    caplog.set_level(logging.DEBUG)
    for words in (["status"], ["migrate"], ["-v", "status"], ["-vv", "migrate"], ["migrate", "--json"]):
        result = run_cli("--database-url", url, *words) if "v" not in words[0] else _verbose(url, words)
        assert result.code in {1, 2}, result.err
        require_secret(result.out, result.err)
    require_secret(caplog.text)
    tried("Secrets", "a password in a URL, plain, encoded or in the query", "never shown")
    del tmp_path


def _verbose(url: str, words: list[str]) -> Result:
    return run_cli(words[0], "--database-url", url, *words[1:])


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("door", ["service", "command", "library", "status"])
def test_a_password_is_in_no_exception(url: str, door: str) -> None:
    """A service that logs the whole chain logs neither what a driver nor what SQLAlchemy says of the URL."""
    require_secret(logged_by_a_service(url, door))
    tried("Secrets", "a password in the chain of an exception", "never shown")


MISPLACED = "postgresql://user:c4nary@127.0.0.1:1/x"


@pytest.mark.parametrize(
    "words",
    [
        (MISPLACED, "status"),
        ("status", MISPLACED),
        ("migrate", "--target", MISPLACED),
        ("versions", MISPLACED),
        ("--config", MISPLACED, "status"),
        ("--db-path", MISPLACED, "status"),
        ("restore", MISPLACED + "?password=c4nary"),
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_url_in_the_wrong_place_is_not_quoted(
    words: tuple[str, ...], more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the command line expects something else, it repeats it without the password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECMIGRATE_DATABASE_URL", f"sqlite:///{tmp_path}/s.sqlite3")
    result = run_cli(*words, *more)
    assert result.code in {1, 2}
    require_secret(result.out, result.err)
    monkeypatch.setenv("VECMIGRATE_KEEP_BACKUPS", MISPLACED)
    result = run_cli("-v", "status")
    assert (1, True) == (result.code, "VECMIGRATE_KEEP_BACKUPS is" in result.err)
    require_secret(result.out, result.err)
    require_secret(run_alembic(tmp_path / "s.sqlite3", "-x", MISPLACED, "current").err)
    assert [] == list(tmp_path.iterdir())
    tried("Secrets", "a URL given where something else belongs", "its password is not repeated")


@pytest.mark.parametrize("url", URLS[1:3])
def test_plain_alembic_keeps_it_too(url: str, tmp_path: Path) -> None:
    """From the environment and from the ini file, where a % is written twice."""
    result = run_alembic(None, "upgrade", "head", environ={"VECMIGRATE_DATABASE_URL": url})
    assert 255 == result.code
    require_secret(result.out, result.err)
    ini = tmp_path / "alembic.ini"
    for written_url in (url, url.replace("%", "%%")):
        ini.write_text(f"[alembic]\n[vecmigrate]\ndatabase_url = {written_url}\n", encoding="utf-8")
        result = run_cli("--config", ini, "-v", "status")
        assert 1 == result.code
        require_secret(result.out, result.err)
    tried("Secrets", "a password in alembic.ini or the environment", "never shown")


def test_a_server_with_a_password(postgresql: sa.URL, caplog: pytest.LogCaptureFixture) -> None:
    """Also of a run that succeeds, nothing that is printed, logged or recorded holds it."""
    caplog.set_level(logging.DEBUG)
    url = postgresql.set(password=PASSWORD, username=postgresql.username or "postgres")
    text = url.render_as_string(hide_password=False)
    for words in (["-vv", "migrate", "--json"], ["-v", "status"], ["history"], ["migrate", "--force"]):
        options = [word for word in words if word.startswith("-v")]
        rest = [word for word in words if not word.startswith("-v")]
        result = run_cli(*options, "--database-url", text, *rest)
        require_secret(result.out, result.err)
    require_secret(caplog.text)
    engine = sa.create_engine(postgresql)
    with engine.connect() as connection:
        for table in ("vecmigrate_history", "vecmigrate_meta"):
            require_secret(str(connection.exec_driver_sql(f"SELECT * FROM {table}").all()))
    engine.dispose()
    tried("Secrets", "the password of a PostgreSQL server that is migrated", "never shown")


_ODD = ", ".join(
    [f"'{ROW}-1'", "NULL", f"'{ROW}'", "'hnsw'", f"'{ROW}'", "0", "1", *[f"'{ROW}'"] * 2, "1", *[f"'{ROW}'"] * 2]
)
ODD_ROWS = (
    f"INSERT INTO vector_stores VALUES ({_ODD})",
    f"INSERT INTO stores VALUES ('{ROW}', 'conversation', 1, '{ROW}', 0)",
    f"UPDATE sessions SET response_id = '{ROW}'",
)


def test_rows_are_shown_by_nothing_but_preserved(
    small: Subject, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that are converted or set aside are told of by number, also with -vv and in the log."""
    database = small.copy(tmp_path / "service")
    legacy.execute(database, *ODD_ROWS)
    caplog.set_level(logging.DEBUG)
    for words in (["migrate"], ["rollback", "--to-version", "0"], ["migrate", "--json"], ["status"], ["history"]):
        result = run_cli("-vv", "--db-path", database, *words)
        assert 0 == result.code, result.err
        require_secret(result.out, result.err)
    require_secret(caplog.text, *written(database.parent))
    require_secret(str(legacy.query(database, "SELECT * FROM vecmigrate_history")))
    assert ROW in run_cli("--db-path", database, "preserved").out
    tried("Secrets", "contents of rows, in output, logs, history, mirror and manifests", "never shown")


def back_and_forth(database: str) -> None:
    """Migrate in a service that logs all that SQLAlchemy can tell."""
    logging.basicConfig(level=logging.DEBUG)
    logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
    for target in ("001", "000", HEAD):
        go("command", database, "head")
        vecmigrate.rollback(f"sqlite:///{database}", to_version=target)


def very_verbose(database: str) -> None:
    harness.run_cli("-vv", "--db-path", database, "migrate")


@pytest.mark.parametrize("action", [back_and_forth, very_verbose])
def test_sql_in_a_log_has_no_values(action: Callable[..., None], small: Subject, tmp_path: Path) -> None:
    """Whoever logs statements, as with -vv, gets neither their parameters nor the rows that are read."""
    database = small.copy(tmp_path / "service")
    legacy.execute(database, *ODD_ROWS)
    child = start(action, str(database))
    assert 0 == child.wait(), child.output
    assert "INSERT INTO vecmigrate_history" in child.output
    require_secret(child.output)
    tried("Secrets", "statements in a log of SQLAlchemy at DEBUG, and with -vv", "no parameters, no rows")


def verbose(database: str) -> None:
    harness.run_cli("-vv", "--db-path", database, "migrate")


def logging_everything(database: str) -> None:
    logging.basicConfig(level=logging.DEBUG)
    vecmigrate.ensure_current(f"sqlite:///{database}")


FAILURES = {
    "ValueError": "int(found)",
    "KeyError": "{}[found]",
    "assertion": "assert found == 1, found",
    "undecodable": "op.get_bind().exec_driver_sql(\"SELECT CAST(response_id || x'ff' AS TEXT) FROM sessions\").all()",
    "StopIteration": "raise StopIteration(found)",
    "group": "raise ExceptionGroup(found, [RuntimeError(found)])",
    "name of a file": "open('/nowhere/' + found)",
    "JSON path": "op.execute(\"SELECT json_extract('{}', response_id) FROM sessions\")",
    "full-text search": (
        "op.execute('CREATE VIRTUAL TABLE words USING fts5(word)');"
        'op.execute("SELECT 1 FROM words WHERE word MATCH '
        '(SELECT substr(response_id, 1, 6) || char(58, 120) FROM sessions)")'
    ),
    "constraint": "op.execute(sa.text('INSERT INTO embedding_models VALUES (:n, -1, :n, 1)').bindparams(n=found))",
}


@pytest.mark.parametrize("statement", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("mode", ["wal"], indirect=True)
def test_a_failing_revision_does_not_quote_rows(statement: str, small: Subject, tmp_path: Path) -> None:
    """Errors whose own text quotes a value are told without it, also in the traceback of -v."""
    template = small.copy(tmp_path / "service")
    legacy.execute(template, f"UPDATE sessions SET response_id = '{ROW}'")
    scripts = failing_scripts(tmp_path / "scripts", statement)
    for number, action in enumerate((verbose, logging_everything)):
        (tmp_path / str(number)).mkdir()
        database = template.parent.parent / str(number) / template.name
        database.write_bytes(template.read_bytes())
        child = start(with_scripts, str(scripts), action, str(database))
        assert child.wait() == (5 if action is verbose else 0), child.output
        assert "NameError" not in child.output
        require_secret(child.output, *written(database.parent))
        require_secret(str(legacy.query(database, "SELECT * FROM vecmigrate_history")))
    tried("Secrets", "a failing revision whose error quotes a row", "never shown")


def logged_by_a_service(url: sa.URL | str, door: str) -> str:
    """Return what a service writes into its log that catches everything and logs the whole chain."""
    try:
        if door == "command":
            command.upgrade(vecmigrate.alembic_config(url), "head")
        elif door == "service":
            vecmigrate.ensure_current(url, on_failure="raise")
        elif door == "status":
            vecmigrate.status(url)
        else:
            vecmigrate.upgrade(url)
    except Exception as error:  # noqa: BLE001 - as a service does
        chain: list[BaseException | None] = [error]
        for each in chain:
            chain += [more for more in (each and [each.__cause__, each.__context__]) or [] if more not in chain]
        return "".join(traceback.format_exception(error)) + repr(chain)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("door", ["service", "command", "library"])
@pytest.mark.parametrize("statement", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("mode", ["wal"], indirect=True)
def test_an_exception_does_not_quote_rows(
    statement: str, door: str, small: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither do the causes of an exception, which a service logs with it."""
    database = small.copy(tmp_path / "service")
    legacy.execute(database, *ODD_ROWS)
    folder = failing_scripts(tmp_path / "scripts", statement)
    monkeypatch.setattr(scripts_folder, "_HERE", str(folder))
    monkeypatch.setattr(scripts_folder, "_newest", None)
    logged = logged_by_a_service(f"sqlite:///{database}", door)
    assert "CauseError" in logged
    assert f"{HEAD}_{NAMES[HEAD]}.py" in logged
    assert "NameError" not in logged
    require_secret(logged)
    tried("Secrets", "the causes of an exception, as a service logs them", "never shown")


def of_sqlite(text: str, code: str) -> sqlite3.Error:
    error = sqlite3.IntegrityError(text)
    error.sqlite_errorname = code
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (of_sqlite(f"UNIQUE constraint failed: {ROW}", "SQLITE_CONSTRAINT_TRIGGER"), "SQLITE_CONSTRAINT_TRIGGER"),
        (of_sqlite("UNIQUE constraint failed: t.c", "SQLITE_CONSTRAINT_UNIQUE"), "UNIQUE constraint failed: t.c"),
        (sa.exc.OperationalError("SELECT c", {}, of_sqlite("no such column: c", "SQLITE_ERROR")), "no such column: c"),
        (sa.exc.OperationalError("SELECT c", {}, of_sqlite("no such column: x", "SQLITE_ERROR")), "SQLITE_ERROR"),
    ],
)
def test_what_is_no_value_is_told(error: Exception, line: str) -> None:
    """Names say what to correct; a trigger, which can say anything from SQLite 3.47 on, is told by its code."""
    assert f"IntegrityError: {line}" == described(error)
    tried("Secrets", "errors of SQLite that hold names", "told, unless a trigger or FTS5 made them up")


SERVER_FAILURES = {
    "detail of a key": "op.execute('INSERT INTO sessions SELECT * FROM sessions')",
    "text that is no number": "op.execute('SELECT CAST(response_id AS INTEGER) FROM sessions')",
    "RAISE in a trigger": "op.execute('DELETE FROM sessions')",
    "a check at the commit": "op.execute('UPDATE sessions SET parent = response_id')",
    "RAISE with a code of its own": "op.execute('TRUNCATE sessions')",
    "SQL made up in a trigger": "op.execute('INSERT INTO sessions VALUES (1)')",
    "the name of a table": "op.execute('SELECT CAST(response_id AS regclass) FROM sessions')",
}
_FUNCTIONS = {
    "DELETE": "RAISE EXCEPTION 'not %%', OLD.response_id",
    "TRUNCATE": "RAISE EXCEPTION 'not %%', (SELECT response_id FROM sessions) "
    "USING ERRCODE = 'undefined_table', TABLE = (SELECT response_id FROM sessions)",
    "INSERT": "EXECUTE 'SELECT ' || (SELECT max(substr(response_id, 1, 6)) FROM sessions)",
}


@pytest.mark.parametrize("door", ["service", "command", "library"])
@pytest.mark.parametrize("statement", SERVER_FAILURES.values(), ids=SERVER_FAILURES)
def test_a_server_that_quotes_rows_is_not_repeated(
    statement: str, door: str, postgresql: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's messages and details hold values of rows; what is told and raised does not."""
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE sessions (response_id TEXT PRIMARY KEY, "
            "parent TEXT REFERENCES sessions DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.exec_driver_sql(f"INSERT INTO sessions VALUES ('{ROW}', NULL)")
        for event, body in _FUNCTIONS.items():
            connection.exec_driver_sql(
                f"CREATE FUNCTION refuse_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$"
            )
            when, each = ("BEFORE", "STATEMENT") if event == "TRUNCATE" else ("AFTER", "ROW")
            connection.exec_driver_sql(
                f"CREATE TRIGGER keep_{event} {when} {event} ON sessions FOR EACH {each} "
                f"EXECUTE FUNCTION refuse_{event}()"
            )
    if "UPDATE" in statement:
        statement = statement.replace("response_id", "response_id || 1")
    folder = failing_scripts(tmp_path / "scripts", statement)
    monkeypatch.setattr(scripts_folder, "_HERE", str(folder))
    monkeypatch.setattr(scripts_folder, "_newest", None)
    logged = logged_by_a_service(postgresql, door)
    assert f"Revision {HEAD} failed" in logged
    require_secret(logged)
    with engine.connect() as connection:
        require_secret(str(connection.exec_driver_sql("SELECT * FROM vecmigrate_history").all()))
    tried("Secrets", "what a PostgreSQL server says of rows, as a service logs it", "never shown")


def test_notices_of_a_server_are_not_logged(postgresql: sa.URL, caplog: pytest.LogCaptureFixture) -> None:
    """A trigger of the service may raise them with rows, at any level, also in a run that succeeds."""
    vecmigrate.upgrade(postgresql, "001")
    engine = sa.create_engine(postgresql, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE NOTICE '{ROW}'; RAISE WARNING '{ROW}'; RAISE INFO '{ROW}'; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON embedding_models FOR EACH ROW EXECUTE FUNCTION tell()"
        )
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    assert HEAD == vecmigrate.upgrade(postgresql).to_revision
    require_secret(caplog.text)
    tried("Secrets", "notices of a PostgreSQL server", "not logged")


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("SELECT nosuch FROM pg_class", '42703, column "nosuch" does not exist'),
        ("CREATE TABLE vector_stores (i INT)", '42P07, relation "vector_stores" already exists'),
        ("INSERT INTO embedding_models SELECT * FROM embedding_models", "23505, table embedding_models, constraint"),
    ],
)
def test_what_a_server_says_of_names_is_told(
    statement: str, line: str, postgresql: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The author of a script learns which name is wrong, and which constraint a row broke."""
    folder = changed_scripts(
        tmp_path / "scripts", f"\n_up = upgrade\n\n\ndef upgrade():\n    _up()\n    op.execute('{statement}')\n"
    )
    monkeypatch.setattr(scripts_folder, "_HERE", str(folder))
    monkeypatch.setattr(scripts_folder, "_newest", None)
    assert line in logged_by_a_service(postgresql, "library")
    tried("Secrets", "errors of PostgreSQL that hold names", "told with their SQLSTATE")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_under_any_umask(umask: int, small: Subject, tmp_path: Path) -> None:
    """Backups, manifests, mirror and folder are private, also where a readable mirror was there before."""
    database = small.copy(tmp_path / "service")
    mirror = database.with_suffix(".migrations.json")
    mirror.write_text("{}", encoding="utf-8")
    mirror.chmod(0o666)
    child = start(with_umask, umask, str(database))
    assert 0 == child.wait(), child.output
    child = start(with_umask, umask, str(database), "rollback", "--to-version", "0")
    assert 0 == child.wait(), child.output
    folder = database.parent / "backups"
    files = [mirror, *folder.glob("sessions-*")]
    assert 5 == len(files)
    assert {0o600} == {path.stat().st_mode & 0o777 for path in files}
    assert 0o700 == folder.stat().st_mode & 0o777
    tried("Secrets", "modes under umask 000, 022 and 077, also of files that were there", "0600, folder 0700")


def with_umask(umask: int, database: str, *words: str) -> None:
    os.umask(umask)
    if words:
        harness.run_cli("--db-path", database, *words)
    go("cli", database)


def test_a_restore_that_fails_quotes_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sqlite3 quotes of a text that it cannot decode is in no error, history or mirror."""
    database = legacy.build(tmp_path / "sessions.sqlite3", "released")
    vecmigrate.upgrade(harness.url(database))
    name = vecmigrate.backup(harness.url(database)).name
    secret = f"CAST(CAST('{ROW} ' AS BLOB) || x'ff' AS TEXT) AS message"

    def fail(old: sqlite3.Connection, *_: object, **__: object) -> None:
        old.execute(f"SELECT {secret}").fetchone()

    monkeypatch.setattr(archive, "carry_over", fail)
    result = run_cli("-v", "--db-path", database, "restore", name)
    assert 5 == result.code
    assert "Could not decode" in result.err
    history = run_cli("--db-path", database, "history")
    require_secret(result.out, result.err, history.out, *written(tmp_path))
    assert "Could not decode" in history.out
    tried("Secrets", "a row in the error of a restore", "never shown")
