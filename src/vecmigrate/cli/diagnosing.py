"""The command that tells what is wrong with a database."""

import textwrap
from collections import Counter

import click

from vecmigrate.cli.looks import local
from vecmigrate.cli.output import Context, Output, command
from vecmigrate.cli.root import cli
from vecmigrate.tools.doctor import Diagnosis, diagnose
from vecmigrate.tools.finding import Finding

__all__ = ["doctor"]

_WIDEST = 100
"""Lines of text that are longer are hard to read."""


@command(cli)
@click.option("--deep", is_flag=True, help="Also what takes long: integrity_check, and the hashes of all backups.")
def doctor(context: Context, out: Output, *, deep: bool) -> int:
    """Tell what is wrong with a database, and the command that mends it. Writes nothing.

    Exits with 1 if there are errors, with 6 if somebody has to decide.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 doctor
    """
    found = diagnose(context.migrator(), deep=deep)
    document = found.as_dict() | {
        "findings": [each.as_dict() | {"next": out.pasteable(each.next)} for each in found.findings]
    }
    out.answer(document, [*_lines(found, out), _summary(found)])
    return found.exit_code


def _lines(found: Diagnosis, out: Output) -> list[str]:
    return [line for each in found.findings for line in [*_told(each, out), ""]]


def _told(finding: Finding, out: Output) -> list[str]:
    width = min(out.screen.width or _WIDEST, _WIDEST)
    message = finding.message
    for moment in finding.times:
        message = message.replace(moment, local(moment, seconds=True))
    text = textwrap.wrap(message, width - 2, break_long_words=False, break_on_hyphens=False)
    # A command stays on one line, because it is to be pasted.
    next_step = out.pasteable(finding.next)
    return [
        f"{out.screen.coloured(finding.severity)}: {finding.code}",
        *(f"  {line}" for line in text),
        f"  Next: {next_step}",
    ]


def _summary(found: Diagnosis) -> str:
    counts = Counter(each.severity for each in found.findings)
    told = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()]
    return f"{', '.join(told)}." if told else "Nothing is wrong."
