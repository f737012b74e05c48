"""A guest in the service: whatever vecmigrate does or fails at, the process around it is as before."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import legacy
from doors import ROOT, Result, run_alembic, run_python
from ladder import BELOW_HEAD, HEAD, NEXT, REVISIONS

SNAPSHOT = """
import logging, os, signal, sys, threading, time, warnings

def configure():
    # A service that has made up its mind about everything a guest could touch.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="service %(message)s")
    logging.getLogger("service").setLevel(logging.DEBUG)
    logging.getLogger("alembic").addHandler(logging.StreamHandler(sys.stderr))
    logging.getLogger("sqlalchemy.engine").setLevel(logging.CRITICAL)
    logging.getLogger("vecmigrate").setLevel(logging.CRITICAL)
    warnings.filterwarnings("error", category=DeprecationWarning)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(0o027)
    os.environ["SERVICE"] = "here"

def logger_of(name):
    logger = logging.getLogger(name)
    # Alembic adds a handler that does nothing, as libraries do.
    handlers = [each for each in logger.handlers if type(each) is not logging.NullHandler]
    return logger.level, handlers, logger.disabled, logger.propagate, logger.filters[:]

LOGGERS = ("", "service", "alembic", "sqlalchemy.engine", "vecmigrate")

def umask():
    found = os.umask(0)
    os.umask(found)
    return found

def snapshot():
    return {
        "logging": [logger_of(name or None) for name in LOGGERS],
        "formatter": logging.getLogger().handlers[0].formatter._fmt,
        "disabled": logging.root.manager.disable,
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "alarm": signal.getitimer(signal.ITIMER_REAL),
        "warnings": warnings.filters[:],
        "showwarning": warnings.showwarning,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "umask": umask(),
        "threads": [thread.name for thread in threading.enumerate()],
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "arguments": sys.argv[:],
        "path": sys.path[:],
        "recursion": sys.getrecursionlimit(),
    }

configure()
import vecmigrate
before = snapshot()
url = "sqlite:///" + sys.argv[1]
"""

COMPARE = """
after = snapshot()
changed = [name for name in before if before[name] != after[name]]
sys.stderr.write(f"changed {changed}\\n")
"""

SUCCESS = """
for work in (
    lambda: vecmigrate.ensure_current(url, on_failure="raise"),
    lambda: vecmigrate.ensure_current(url, on_failure="raise"),
    lambda: vecmigrate.status(url),
    lambda: vecmigrate.rollback(url, to_version="0"),
    lambda: vecmigrate.upgrade(url),
    lambda: vecmigrate.restore(url, name=vecmigrate.backup(url).name),
):
    work()
from alembic import command
command.downgrade(vecmigrate.alembic_config(url), "000")
command.upgrade(vecmigrate.alembic_config(url), "head")
"""

FAILURE = """
report = vecmigrate.ensure_current(url)
assert report.error is not None
for work in (
    lambda: vecmigrate.ensure_current(url, on_failure="raise"),
    lambda: vecmigrate.upgrade(url),
    lambda: vecmigrate.restore(url, name="none"),
):
    try:
        work()
    except vecmigrate.VecmigrateError:
        pass
    else:
        raise AssertionError
from alembic import command, util
try:
    command.upgrade(vecmigrate.alembic_config(url), "head")
except util.CommandError:
    pass
else:
    raise AssertionError
"""


BAD_REVISION = f"""
import os
from alembic import op

revision = {NEXT!r}
down_revision = {HEAD!r}
branch_labels = None
depends_on = None


def upgrade():
    # Not in the rehearsal before the run, which is in memory.
    if op.get_bind().exec_driver_sql("PRAGMA database_list").fetchone()[2]:
        raise KeyboardInterrupt if "STOP" in os.environ else RuntimeError("on purpose")


def downgrade():
    pass
"""


def occupy(path: Path) -> None:
    legacy.execute(path, "DROP TABLE stores", "CREATE TABLE stores (somebody TEXT)")


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def test_a_guest_changes_nothing_of_the_process(released_file: Path) -> None:
    """After every function, and alembic.command, all that a service can configure is as it was."""
    result = run_python(SNAPSHOT + SUCCESS + COMPARE, released_file)

    assert (0, "", "changed []\n") == (result.code, result.out, result.err)
    assert HEAD == legacy.revision(released_file)


@pytest.mark.parametrize("spoil", [occupy, damage])
def test_a_guest_that_fails_changes_nothing_of_the_process(released_file: Path, spoil: Callable[[Path], None]) -> None:
    """The same after a database of somebody else and a damaged one."""
    spoil(released_file)

    result = run_python(SNAPSHOT + FAILURE + COMPARE, released_file)

    assert (0, "", "changed []\n") == (result.code, result.out, result.err)


def test_a_run_that_fails_half_way_changes_nothing_of_the_process(released_file: Path, tmp_path: Path) -> None:
    """The same after a revision that raises, and after Ctrl-C in the middle of one, which passes through."""
    scripts = tmp_path / "scripts"
    shutil.copytree(ROOT / "alembic", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / f"{NEXT}_bad.py").write_text(BAD_REVISION, encoding="utf-8")
    code = f"""
from vecmigrate import access, scripts_folder
scripts_folder.script_location = access.script_location = lambda: {str(scripts)!r}
assert vecmigrate.ensure_current(url).state == "failed"
os.environ["STOP"] = "1"
try:
    vecmigrate.ensure_current(url)
except KeyboardInterrupt:
    del os.environ["STOP"]
"""

    result = run_python(SNAPSHOT + code + COMPARE, released_file)

    assert (0, "", "changed []\n") == (result.code, result.out, result.err)
    statuses = f"SELECT status FROM vecmigrate_history WHERE revision = '{NEXT}' ORDER BY id"
    assert [("failed",), ("interrupted",)] == legacy.query(released_file, statuses)


STOPPED = """
import os, signal, sys
from vecmigrate import access, scripts_folder
scripts_folder.script_location = access.script_location = lambda: sys.argv[2]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print(vecmigrate.ensure_current(url, on_failure=sys.argv[3]).state)
"""

STOPS = {
    "a signal": "import os, signal\n        os.kill(os.getpid(), signal.SIGTERM)",
    "a signal in a statement": """import os, signal, threading
        threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()
        counted = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1e10) SELECT max(n) FROM c"
        op.get_bind().exec_driver_sql(counted)""",
    "the script": "import sys\n        sys.exit(9)",
    "the rehearsed script": "pass\n    import sys\n    sys.exit(9)",
}


@pytest.mark.parametrize("on_failure", ["warn", "raise"])
@pytest.mark.parametrize("stop", STOPS)
def test_a_service_is_stopped_by_itself_and_not_by_a_script(
    stop: str, on_failure: str, released_file: Path, tmp_path: Path
) -> None:
    """What the service's handler of SIGTERM decides passes through a run; a script that exits is one that fails."""
    scripts = tmp_path / "scripts"
    shutil.copytree(ROOT / "alembic", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    text = BAD_REVISION.replace(
        'raise KeyboardInterrupt if "STOP" in os.environ else RuntimeError("on purpose")', STOPS[stop]
    )
    (scripts / "versions" / f"{NEXT}_bad.py").write_text(text, encoding="utf-8")

    result = run_python(SNAPSHOT + STOPPED, released_file, scripts, on_failure)

    statuses = [status for (status,) in legacy.query(released_file, "SELECT status FROM vecmigrate_history")]
    if stop.startswith("a signal"):
        assert (9, "", "") == (result.code, result.out, result.err)
        assert [*["skipped"] * len(REVISIONS), "interrupted"] == statuses
    else:
        assert ((0, "failed\n") if on_failure == "warn" else (1, "")) == (result.code, result.out)
        assert [*["skipped"] * len(REVISIONS), "failed"] == statuses
    assert legacy.revision(released_file) is None


def test_a_service_without_any_logging_hears_of_a_failure_on_stderr_only(released_file: Path) -> None:
    """Stdout may belong to a protocol: Python's own last resort shows the warning on stderr."""
    occupy(released_file)
    code = "import sys, vecmigrate; vecmigrate.ensure_current('sqlite:///' + sys.argv[1])"

    result = run_python(code, released_file)

    assert (0, "") == (result.code, result.out)
    assert "The database was not brought up to date" in result.err
    assert "Next: " in result.err


def test_no_warning_is_raised_where_warnings_are_errors(released_file: Path) -> None:
    """A whole boot under `-W error` works."""
    code = "import sys, vecmigrate; print(vecmigrate.ensure_current(sys.argv[1], on_failure='raise').state)"

    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code, f"sqlite:///{released_file}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (0, "migrated\n", "") == (done.returncode, done.stdout, done.stderr)


def run_bare(*arguments: str, cwd: Path) -> Result:
    """Run Python with an empty environment, so without HOME, PATH and locale, in a folder."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_it_works_from_any_folder_and_without_a_home(released_file: Path, tmp_path: Path) -> None:
    """In an empty environment, from another folder, one that holds a strange alembic.ini, everything works."""
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "alembic.ini").write_text("this is [no ini file\n", encoding="utf-8")
    code = (
        "import sys, vecmigrate; url = 'sqlite:///' + sys.argv[1]; "
        "print(vecmigrate.ensure_current(url, on_failure='raise').state); "
        "print(vecmigrate.ensure_current(url, on_failure='raise').state); print(vecmigrate.status(url).state)"
    )

    result = run_bare("-c", code, str(released_file), cwd=elsewhere)

    assert (0, ["migrated", "current", "current"]) == (result.code, result.out.split()), result.err
    assert ["alembic.ini"] == [path.name for path in elsewhere.iterdir()]


# python/cpython#130932: where sys.path[0] is "", so under `-c` but not in a program in a file, `import socket` fails
# in a folder that is gone, and SQLAlchemy imports asyncio, which imports that.
_NEEDS_ITS_FOLDER = (3, 13) <= sys.version_info < (3, 13, 3)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let go of a folder that is in use")
@pytest.mark.parametrize(
    "program",
    ["a file", pytest.param("-c", marks=pytest.mark.xfail(_NEEDS_ITS_FOLDER, reason="python/cpython#130932"))],
)
def test_it_works_from_a_folder_that_is_gone(program: str, released_file: Path, tmp_path: Path) -> None:
    """A service whose working directory was removed under it can still boot."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys, vecmigrate; url = 'sqlite:///' + sys.argv[1]; os.rmdir(os.getcwd()); "
        "print(vecmigrate.ensure_current(url, on_failure='raise').state); "
        "print(vecmigrate.ensure_current(url, on_failure='raise').state)"
    )
    (tmp_path / "service.py").write_text(code, encoding="utf-8")
    words = ["-c", code] if program == "-c" else [str(tmp_path / "service.py")]

    result = run_bare(*words, str(released_file), cwd=gone)

    assert (0, ["migrated", "current"]) == (result.code, result.out.split()), result.err


# The logging section of alembic.ini.

_LOGGED = """
import logging, sys
service = logging.getLogger("service.requests")
service.setLevel(logging.INFO)
logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="service %(message)s")
before = logging.root.handlers[:]
from alembic import command
from alembic.config import CommandLine, Config
"""


def test_the_logging_section_is_not_applied_to_a_service(released_file: Path) -> None:
    """`alembic.command` with our alembic.ini leaves the logging of the service alone."""
    code = f"""{_LOGGED}
config = Config({str(ROOT / "alembic.ini")!r})
config.attributes["database_url"] = "sqlite:///" + sys.argv[1]
command.upgrade(config, "head")
assert logging.root.handlers == before and logging.root.level == logging.ERROR
assert (service.disabled, service.level) == (False, logging.INFO)
"""
    result = run_python(code, released_file)

    assert (0, "", "") == (result.code, result.out, result.err)
    assert HEAD == legacy.revision(released_file)


def test_the_alembic_command_disables_no_logger(released_file: Path) -> None:
    """The `alembic` command line applies the section, and loggers that exist go on logging."""
    code = f"""{_LOGGED}
CommandLine(prog="alembic").main(["-c", {str(ROOT / "alembic.ini")!r}, "upgrade", "head"])
assert logging.root.handlers != before
assert (service.disabled, service.level) == (False, logging.INFO)
"""
    result = run_python(code, environ={"VECMIGRATE_DATABASE_URL": f"sqlite:///{released_file}"})

    assert 0 == result.code, result.err
    assert f"[alembic.runtime.migration] Running upgrade {BELOW_HEAD} -> {HEAD}" in result.err


def test_the_alembic_command_logs_to_stderr_only(released_file: Path) -> None:
    """The section sends the steps to stderr; stdout stays for what a command prints."""
    result = run_alembic(released_file, "upgrade", "head")

    assert (0, "") == (result.code, result.out)
    assert f"Running upgrade {BELOW_HEAD} -> {HEAD}" in result.err
