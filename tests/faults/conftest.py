"""Fixtures of the fault suite, and the table of what it tried."""

import os
import platform
import sqlite3
from pathlib import Path

import pytest

from faults import harness

REPORT = Path(__file__).parent.parent.parent / "docs" / "reliability.md"

# Signals, fork and limits of a process are POSIX; there is no kill -9 to survive elsewhere.
collect_ignore_glob = ["test_*.py"] if os.name == "nt" else []


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


def pytest_sessionfinish(exitstatus: int) -> None:
    """Write docs/reliability.md where the environment asks for it and every check passed."""
    if os.environ.get("VECMIGRATE_RELIABILITY_REPORT") and exitstatus == pytest.ExitCode.OK:
        REPORT.write_text(_document(), encoding="utf-8")


def _document() -> str:
    lines = [
        "# What was broken on purpose, how often, and what came of it",
        "",
        "Written by the fault suite itself, from one run in which every check passed; do not edit it.",
        "",
        "    VECMIGRATE_RELIABILITY_REPORT=1 VECMIGRATE_FAULT_ROUNDS=200 python -m pytest tests/faults",
        "",
        f"This run: {harness.ROUNDS} rounds, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}.",
        "",
        "Old or new state means: `integrity_check` is ok, the rows of every table equal those before or",
        "those after the run, the revision fits the schema, and the next run succeeds by itself.",
        "There is no third outcome.",
    ]
    kind = None
    for (each, what), counts in sorted(harness.outcomes.items(), key=lambda item: item[0][0]):
        if each != kind:
            kind = each
            lines += ["", f"## {kind}", "", "| what was tried | times | outcome |", "|---|---:|---|"]
        shown = ", ".join(f"{outcome} ({count})" for outcome, count in sorted(counts.items()))
        lines.append(f"| {what} | {counts.total():,} | {shown} |")
    return "\n".join(lines) + "\n"
