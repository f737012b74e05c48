"""What commands share: the global options, their answers, and ``--json``."""

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from vecmigrate import settings
from vecmigrate.engine import sqlite_url
from vecmigrate.errors import ConfigurationError
from vecmigrate.migrator import Migrator

__all__ = ["Commands", "Context", "Output", "command", "print_json", "table"]

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
        if self.url and self.path:
            raise click.UsageError("--database-url and --db-path exclude each other.")
        url = sqlite_url(self.path) if self.path else self.url
        return Migrator(settings.resolve({"database_url": url} | arguments, os.environ, ini=self._ini()))

    def _ini(self) -> str | None:
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
            click.echo(message, err=True)


def _is_ours(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return any(line.strip() == f"[{settings.SECTION}]" for line in file)


def command(group: click.Group, name: str | None = None) -> Callable[[F], click.Command]:
    """Make a command with ``--json``; what the function returns is printed as JSON or left unprinted."""

    def decorate(function: F) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
        @click.pass_context
        @functools.wraps(function)
        def wrapped(ctx: click.Context, /, **options: Any) -> int | None:
            out = Output(ctx.obj, as_json=options.pop("as_json"))
            code = function(ctx.obj, out, **options)
            return code if isinstance(code, int) else None

        return group.command(name)(wrapped)

    return decorate


class Output:
    """Where a command's answer goes: a JSON document, or lines for a person, on stdout."""

    def __init__(self, context: Context, *, as_json: bool) -> None:
        self._context = context
        self._as_json = as_json

    def answer(self, document: dict[str, Any], lines: Sequence[str]) -> None:
        if self._as_json:
            print_json(document)
        else:
            for line in lines:
                click.echo(line)

    def say(self, message: str) -> None:
        self._context.say(message)


def print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
