"""What commands share: the global options, their answers, and ``--json``."""

import contextlib
import errno
import functools
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from vecmigrate import settings
from vecmigrate.causes import told
from vecmigrate.cli.bars import Shown
from vecmigrate.cli.looks import Screen, printable
from vecmigrate.engine import sqlite_url
from vecmigrate.errors import ConfigurationError, VecmigrateError
from vecmigrate.migrator import Migrator
from vecmigrate.progress import told_to
from vecmigrate.shell import quoted

__all__ = ["Commands", "Context", "Output", "command", "complain", "echo", "print_json"]

F = TypeVar("F", bound=Callable[..., Any])


class Commands(click.Group):
    """A group with ``upgrade`` as another name of ``migrate``."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "migrate" if cmd_name == "upgrade" else cmd_name)


class Context:
    """What the global options say; the database is named only when a command needs it."""

    def __init__(self, *, url: str | None, path: str | None, config: str | None, verbosity: int) -> None:
        self.url = url
        self.path = path
        self.config = config
        self.verbosity = verbosity

    def migrator(self, **arguments: Any) -> Migrator:
        if self.url is not None and self.path is not None:
            raise click.UsageError("--database-url and --db-path exclude each other.")
        if "" in {self.url, self.path}:
            # A variable of a script that is not set must not lead to the database of a lower source.
            raise click.UsageError(f"{'--db-path' if self.path == '' else '--database-url'} is empty.")
        if "://" in (self.path or ""):
            raise click.UsageError("--db-path is the path of a file; a URL is given by --database-url.")
        url = self.url if self.path is None else sqlite_url(self.path)
        return Migrator(settings.resolve({"database_url": url} | arguments, os.environ, ini=self.ini()))

    def ini(self) -> str | None:
        """Return the ``alembic.ini`` in use: the one of ``--config``, else ours in the current folder, if any."""
        if self.config is not None:
            if settings.read_ini(self.config) is None:
                raise ConfigurationError(
                    f"{self.config} has no section [vecmigrate], so it is not ours. Nothing was changed.",
                    next_step="name another file by --config, or the database by --db-path FILE",
                )
            return os.path.abspath(self.config)
        if not os.path.isfile("alembic.ini"):
            return None
        path = os.path.abspath("alembic.ini")
        try:
            if settings.read_ini(path) is not None:
                return path
        except ConfigurationError:
            if _is_ours(path):
                raise
        self.say("alembic.ini here has no section [vecmigrate]; it is another project's, and ignored.")
        return None

    def say(self, message: str) -> None:
        if self.verbosity >= 0:
            echo(message, err=True)

    def pasteable(self, next_step: str) -> str:
        """Return what to do next with ``--config`` in its commands, where this one was given it."""
        if self.config is None:
            return next_step
        named = f"vecmigrate --config {quoted(os.path.abspath(self.config))} --d"
        return next_step.replace("vecmigrate --d", named)


def _is_ours(path: str) -> bool:
    """Tell whether a file that cannot be used may hold settings of ours; one that cannot be read may."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(line.strip() == f"[{settings.SECTION}]" for line in file)
    except OSError:
        return True


def command(group: click.Group, name: str | None = None) -> Callable[[F], click.Command]:
    """Make a command with ``--json``; what the function returns is printed as JSON or left unprinted."""

    def decorate(function: F) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
        @click.pass_context
        @functools.wraps(function)
        def wrapped(ctx: click.Context, /, **options: Any) -> int | None:
            out = Output(ctx.obj, as_json=options.pop("as_json"))
            try:
                # What a revision script prints must not stand in the answer.
                with contextlib.redirect_stdout(sys.stderr), told_to(out.shown.show):
                    code = function(ctx.obj, out, **options)
            except VecmigrateError as error:
                error.next_step = ctx.obj.pasteable(error.next_step)
                raise
            finally:
                out.shown.end()
            return code if isinstance(code, int) else None

        return group.command(name)(wrapped)

    return decorate


class Output:
    """Where a command's answer goes: a JSON document, or lines for a person, on stdout."""

    def __init__(self, context: Context, *, as_json: bool) -> None:
        self._context = context
        self._as_json = as_json
        self._stdout = sys.stdout
        self.screen = Screen(sys.stdout)
        self.shown = Shown(is_quiet=context.verbosity < 0)

    def answer(self, document: dict[str, Any], lines: Sequence[str]) -> None:
        self.shown.end()
        with contextlib.redirect_stdout(self._stdout):
            if self._as_json:
                print_json(document)
            else:
                for line in lines:
                    echo(line)

    def say(self, message: str) -> None:
        self.shown.end()
        self._context.say(self.pasteable(message))

    def complain(self, error: VecmigrateError) -> None:
        """Tell of an error on stderr, for a command that has answered all the same."""
        complain(error, verbose=self._context.verbosity > 0)

    def pasteable(self, text: str) -> str:
        return self._context.pasteable(text)


def complain(error: VecmigrateError, *, verbose: bool) -> None:
    """Print an error on stderr, with its traceback where that is wanted; nothing where stderr is gone."""
    text = "".join(traceback.format_exception(told(error))) if verbose else ""
    named = Screen(sys.stderr).coloured("Error:", "red")
    for each in filter(None, [text, f"{named} {error}"]):
        with contextlib.suppress(VecmigrateError):
            echo(each, err=True)


def print_json(document: dict[str, Any]) -> None:
    # Escaped, so that it can be printed whatever the encoding of stdout is.
    echo(json.dumps(document, indent=2))


def echo(text: str, *, err: bool = False) -> None:
    """Print a line. A reader that has gone is no error, because what the command did stands.

    Raises VecmigrateError where the line cannot be written for another reason.
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        shown = printable(text, in_lines=True)
        click.echo(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream)
    except OSError as error:
        _discard(stream)
        # On Windows a closed pipe is an invalid argument.
        if error.errno not in {errno.EPIPE, errno.EINVAL}:
            raise VecmigrateError(
                f"The answer could not be written ({error.strerror}). What the command did stands.",
                next_step="vecmigrate status, with the options that name the database, tells how that is now",
            ) from error


def _discard(stream: Any) -> None:
    """Send what is still to be written to a stream nowhere, so that closing it does not fail once more."""
    with contextlib.suppress(OSError, io.UnsupportedOperation), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
