"""Fixtures of the fault suite, and the table of what it tried."""

import os
import platform
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults import harness

REPORT = Path(__file__).parent.parent.parent / "docs" / "reliability.md"

# Signals, fork and limits of a process are POSIX; there is no kill -9 to survive elsewhere.
collect_ignore_glob = ["test_*.py"] if os.name == "nt" else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a test of many rounds the time that it needs, of which there is a minute for each."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(max(300, 60 * harness.ROUNDS)))


@pytest.fixture(scope="session", params=harness.MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def big(mode: str, tmp_path_factory: pytest.TempPathFactory) -> harness.Subject:
    """Return a database of thousands of rows, in WAL and in rollback-journal mode."""
    return harness.Subject.of(harness.big_legacy(tmp_path_factory.mktemp("big") / "sessions.sqlite3", mode))


@pytest.fixture(scope="session")
def small(mode: str, tmp_path_factory: pytest.TempPathFactory) -> harness.Subject:
    """Return a database of a few rows, in WAL and in rollback-journal mode."""
    return harness.Subject.of(harness.big_legacy(tmp_path_factory.mktemp("small") / "sessions.sqlite3", mode, rows=10))


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that passes and is in no row of the table: the page would not tell of it."""
    before = _total()
    yield
    report = request.node.stash.get(_PASSED, None)
    assert report is None or _total() > before, "the test counted nothing by harness.tried"


_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on a test that it has passed, for the fixture above."""
    report = yield
    if report.when == "call" and report.passed:
        item.stash[_PASSED] = True
    return report


def _total() -> int:
    return sum(counts.total() for counts in harness.outcomes.values())


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write docs/reliability.md where the environment asks for it, every check passed, and none was left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["outcomes"] = [
            (kind, what, dict(counts)) for (kind, what), counts in harness.outcomes.items()
        ]
        return
    if not os.environ.get("VECMIGRATE_RELIABILITY_REPORT") or exitstatus != pytest.ExitCode.OK:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats if reporter else {}
    done = {Path(report.nodeid.partition("::")[0]).name for report in stats.get("passed", [])}
    left_out = {path.name for path in Path(__file__).parent.glob("test_*.py")} - done
    if left_out or stats.keys() & {"skipped", "deselected"}:
        pytest.exit("docs/reliability.md was not written: some fault tests were left out.", returncode=1)
    REPORT.write_text(_document(), encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add up what the processes of pytest-xdist have tried."""
    for kind, what, counts in getattr(node, "workeroutput", {}).get("outcomes", []):
        harness.outcomes.setdefault((kind, what), Counter()).update(counts)


def _document() -> str:
    versions = f"{platform.system()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    lines = [
        "# What was broken on purpose, how often, and what came of it",
        "",
        "Written by the fault suite itself, from one run in which every check passed; do not edit it.",
        "",
        "    VECMIGRATE_RELIABILITY_REPORT=1 VECMIGRATE_FAULT_ROUNDS=200 python -m pytest -n auto tests/faults",
        "",
        f"This run: {harness.ROUNDS} rounds, {_total():,} trials, {versions}.",
        "",
        "Old or new state means: `integrity_check` is ok, the rows of every table equal those before or",
        "those after the run, the revision fits the schema, and the next run succeeds by itself.",
        "There is no third outcome.",
        "",
        "- A *step* is an SQL statement on a file, or a file made, renamed or removed. The process is killed",
        "  right before it. From half as many rounds as there are steps on, it is killed at every one.",
        "- The *doors* are `vecmigrate` (cli), the `alembic` command (alembic), `alembic.command.upgrade` in a",
        "  program (command) and `vecmigrate.ensure_current` in a service (service).",
        "- *wal* and *delete* are the two journal modes of SQLite.",
        "- A *call* is one of the system for a file or folder, made by Python or by SQLite itself. It fails once, with",
        "  an error that it can have; all else goes on as ever. With `VECMIGRATE_REFUSALS=100000` all calls fail, with",
        "  each of their errors.",
        "- A *loss of power* is replayed: the writes, syncs and names of a command are recorded, and its folder is",
        "  made anew as a disk may have it then. What was not synced is there, missing, or torn at 512 bytes.",
        "- Not tried: disks that lie about what they have written, network folders, and other systems than the one",
        "  named above.",
    ]
    for kind in sorted({kind for kind, _ in harness.outcomes}):
        lines += ["", f"## {kind}", "", "| what was tried | times | outcome |", "|---|---:|---|"]
        for what in sorted(what for each, what in harness.outcomes if each == kind):
            counts = harness.outcomes[kind, what]
            shown = ", ".join(f"{outcome} ({count:,})" for outcome, count in sorted(counts.items()))
            lines.append(f"| {what} | {counts.total():,} | {shown} |")
    return "\n".join(lines) + "\n"
