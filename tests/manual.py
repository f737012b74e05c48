"""The page of the commands, written from the commands themselves: ``python tests/manual.py > docs/cli.md``."""

import inspect
import sys
from collections.abc import Iterator

import click

from vecmigrate.cli import cli

__all__ = ["commands", "rendered"]

_TOP = """# Commands

This page is written from the commands themselves, by `python tests/manual.py > docs/cli.md`. What they print with
`--json` is described in [json.md](json.md), exit codes in the [README](../README.md#exit-codes).
"""


def commands(group: click.Group, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that call it."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        else:
            yield (*above, name), command


def rendered() -> str:
    """Return the page."""
    parts = [_TOP, *_section("vecmigrate", "vecmigrate [OPTIONS] COMMAND [OPTIONS]", cli)]
    for words, command in commands(cli):
        arguments = [_named(each) for each in command.params if isinstance(each, click.Argument)]
        parts += _section(" ".join(words), " ".join(["vecmigrate [OPTIONS]", *words, "[OPTIONS]", *arguments]), command)
    return "\n".join(parts)


def _named(argument: click.Argument) -> str:
    name = argument.metavar or str(argument.name).upper()
    return name if argument.required else f"[{name}]"


def _section(title: str, usage: str, command: click.Command) -> list[str]:
    lines = [f"## `{title}`\n", f"```text\n{usage}\n```\n"]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            heading, *examples = paragraph.removeprefix("\b\n").split("\n")
            lines.append(f"{heading}\n\n```sh\n" + "\n".join(line.strip() for line in examples) + "\n```\n")
        else:
            lines.append(" ".join(paragraph.split()) + "\n")
    options = [each for each in command.params if isinstance(each, click.Option)]
    return [*lines, "| option | |\n|---|---|", *(_row(each) for each in options), ""]


def _row(option: click.Option) -> str:
    value = ""
    if not (option.is_flag or option.count):
        choices = getattr(option.type, "choices", None)
        value = " " + ("/".join(choices) if choices else option.metavar or option.type.name.partition(" ")[0].upper())
    names = ", ".join(sorted([*option.opts, *option.secondary_opts], key=len))
    notes = [option.help or ""]
    if option.required:
        notes.append("Required.")
    if option.show_default and option.default is not None:
        notes.append(f"Without it: {option.default}.")
    return f"| `{names}{value}` | {' '.join(notes)} |"


if __name__ == "__main__":
    sys.stdout.write(rendered())
