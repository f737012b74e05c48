"""Command lines in messages, which people paste into a shell."""

import shlex
import subprocess
import sys
from collections.abc import Iterable

__all__ = ["moving", "private", "quoted", "removing", "running_sql"]

_IS_WINDOWS = sys.platform == "win32"
_SQL = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"


def quoted(word: str) -> str:
    """Return a word of a command line, quoted for a shell of this system where it has to be."""
    return subprocess.list2cmdline([word]) if _IS_WINDOWS else shlex.quote(word)


def _line(*words: str) -> str:
    return " ".join(map(quoted, words))


def removing(path: str) -> str:
    """Return the command that removes a file."""
    return _line("del", path) if _IS_WINDOWS else _line("rm", "--", path)


def moving(sources: Iterable[str], target: str) -> str:
    """Return the command that moves files into a folder, or one file to a new name; it overwrites nothing."""
    if _IS_WINDOWS:
        return " && ".join(_line("move", "/-Y", source, target) for source in sources)
    return _line("mv", "-n", "--", *sources, target)


def private(paths: Iterable[str]) -> str:
    """Return the command that takes all rights on files from everybody but their owner."""
    return _line("chmod", "go-rwx", "--", *paths)


def running_sql(database: str, *statements: str) -> str:
    """Return the command that runs statements on an SQLite file in one transaction, with nothing but this Python."""
    script = "; ".join(["BEGIN IMMEDIATE", *statements, "COMMIT"])
    return _line(sys.executable, "-c", _SQL, database, script)
