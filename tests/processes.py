"""Processes that call a function, forked from a server that has everything imported: hundreds of them cost little."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["FORKSERVER", "call"]

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "alembic.config",
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.ext.asyncio",
        "vecmigrate.runs",
        "vecmigrate.booting",
        "vecmigrate.cli.changing",
        "vecmigrate.cli.reading",
    ]
)


def call(
    function: Callable[..., object], *arguments: Any, environ: Mapping[str, str], folder: Path, timeout: float = 120
) -> tuple[int, str, str]:
    """Call a function in a process of its own, in a folder and with this environment and no other.

    Return the exit code, and what it wrote to stdout and stderr.
    """
    with tempfile.TemporaryDirectory() as place:
        out, err = printed = Path(place) / "out", Path(place) / "err"
        process = FORKSERVER.Process(target=_enter, args=(printed, dict(environ), folder, function, *arguments))
        process.start()
        process.join(timeout)
        code = process.exitcode
        if code is None:
            process.kill()
        assert code is not None, f"still running after {timeout} s"
        return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


def _enter(
    printed: tuple[Path, Path], environ: dict[str, str], folder: Path, function: Callable[..., object], *arguments: Any
) -> None:
    for number, path in enumerate(printed, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    function(*arguments)
