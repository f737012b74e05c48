"""The three doors: the command line, plain Alembic in a process of its own, and ``alembic.command``."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import alembic.config
from alembic import command

import vecmigrate
from processes import call
from vecmigrate import cli

ROOT = Path(__file__).parent.parent
DOORS = ("cli", "alembic", "command")


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def run_cli(*arguments: str | Path) -> Result:
    """Run ``vecmigrate`` in this process, through its real entry point."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    words = ["vecmigrate", *map(str, arguments)]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", words),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        finally:
            # With -vv it is the process that logs SQL, and this one goes on.
            logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
    assert isinstance(code, int)
    return Result(code, out.getvalue(), err.getvalue())


def run_alembic(
    database: Path | None, *arguments: str, ini: Path = ROOT / "alembic.ini", environ: Mapping[str, str] | None = None
) -> Result:
    """Run the ``alembic`` command, by its entry point, with the real ``alembic.ini`` in a process of its own."""
    named = {"VECMIGRATE_DATABASE_URL": f"sqlite:///{database}"} if database else {}
    words = ["alembic", "-c", str(ini), *arguments]
    return Result(*call(_alembic, words, environ={**os.environ, **named, **(environ or {})}, folder=ini.parent))


def _alembic(words: list[str]) -> None:
    sys.argv = words
    alembic.config.main()


def run_python(code: str, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> Result:
    """Run Python code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def run_forked(code: str, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> Result:
    """Run Python code in a process of its own that has our modules imported already."""
    words = ["-c", *map(str, arguments)]
    return Result(*call(_execute, code, words, environ={**os.environ, **(environ or {})}, folder=Path.cwd()))


def _execute(code: str, words: list[str]) -> None:
    sys.argv = words
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - the code is a test's own


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def upgrade(door: str, path: Path, target: str = "head") -> None:
    """Go up through a door, and fail if it does."""
    if door == "cli":
        _done(run_cli("--db-path", path, "migrate", "--target", target))
    elif door == "alembic":
        _done(run_alembic(path, "upgrade", target))
    else:
        command.upgrade(vecmigrate.alembic_config(url(path)), target)


def downgrade(door: str, path: Path, target: str) -> None:
    """Go down through a door, and fail if it does."""
    if door == "cli":
        _done(run_cli("--db-path", path, "rollback", "--to-version", target))
    elif door == "alembic":
        _done(run_alembic(path, "downgrade", target))
    else:
        command.downgrade(vecmigrate.alembic_config(url(path)), target)


def _done(result: Result) -> None:
    assert result.code == 0, result.err
