"""Commands for those who write revisions; they need no database."""

import click

from vecmigrate.cli.output import Context, Output, command
from vecmigrate.cli.root import cli
from vecmigrate.errors import ConfigurationError
from vecmigrate.tools import checkout
from vecmigrate.tools.check import check as findings_of
from vecmigrate.tools.checkout import Checkout
from vecmigrate.tools.renumber import renumber as renumbered
from vecmigrate.tools.templates import TEMPLATES
from vecmigrate.tools.templates import new as newly_written

__all__ = ["check", "new"]


@command(cli)
def check(context: Context, out: Output) -> int:
    """Look whether the revisions of this project are in order, for CI. Needs no database, and writes nothing.

    Exits with 1 when there is an error.

    \b
    Example:
      vecmigrate check
    """
    ini = context.ini()
    found = findings_of(checkout.of_ini(ini) if ini else checkout.of_package())
    ok = not any(each.severity == "error" for each in found)
    lines = []
    for each in found:
        lines += out.screen.wrapped(f"{each.severity}: {each.message}")
        lines.append(f"  Next: {each.next}")
    out.answer(
        {"ok": ok, "findings": [each.as_dict() for each in found]},
        [*lines, "The revisions are in order." if ok else "The revisions are not in order."],
    )
    return 0 if ok else 1


@command(cli)
@click.argument("message", required=False)
@click.option("--template", type=click.Choice(TEMPLATES), help="What the revision changes; schema without it.")
@click.option("--app-version", metavar="V", help="The app version that needs it; the next minor one without it.")
@click.option("--renumber", metavar="NNN_SLUG", help="Give a script of another branch the next free number.")
def new(
    context: Context,
    out: Output,
    *,
    message: str | None,
    template: str | None,
    app_version: str | None,
    renumber: str | None,
) -> None:
    """Write the next revision of this project: its script, its line in the app-version map, and its test.

    \b
    Examples:
      vecmigrate new "add tags"
      vecmigrate new "use another model" --template embedding-model
      vecmigrate new --renumber 004_add_tags
    """
    if (message is None) == (renumber is None):
        raise click.UsageError("Give a MESSAGE, or --renumber NNN_SLUG.")
    if renumber is not None and (template or app_version):
        raise click.UsageError("--renumber takes neither --template nor --app-version.")
    project = _project(context)
    if renumber is not None:
        written = renumbered(project, renumber)
        then = "A database that has run it under its old number must go back first, with the scripts from before."
    else:
        written = newly_written(project, message or "", template=template or "schema", app_version=app_version)
        then = (
            "Write the change into the script, and a change of the schema into the models too; then: vecmigrate check"
        )
    lines = [f"Revision {written.revision}: {project.shown(written.path)}"]
    lines += [f"Test: {project.shown(written.test_path)}"] if written.test_path else []
    lines += [f"App version {written.app_version}, in the map"] if written.app_version else []
    out.answer(written.as_dict(), [*lines, then])


def _project(context: Context) -> Checkout:
    ini = context.ini()
    if ini is None:
        raise ConfigurationError(
            "There is no alembic.ini with a section [vecmigrate] here, so there is no project to write a revision in; "
            "the scripts of the installed package are not to be changed. Nothing was changed.",
            next_step="run it in a checkout of vecmigrate, or name one: vecmigrate --config PATH/alembic.ini new ...",
        )
    return checkout.of_ini(ini)
