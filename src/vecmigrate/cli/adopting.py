"""The command that takes over another tool's folder."""

import click

from vecmigrate.cli.looks import local
from vecmigrate.cli.output import Context, Output, command
from vecmigrate.cli.root import cli
from vecmigrate.tools.adopt import Adoption

__all__ = ["adopt"]


@command(cli)
@click.option("--project-root", required=True, metavar="DIR", help="The project that mcp-vector-search has indexed.")
@click.option("--dimensions", type=click.IntRange(min=1), help="How many dimensions its vectors have, if it is asked.")
@click.option("--model", metavar="NAME", help="The model that its vectors were made with, if it is asked.")
@click.option("--dry-run", is_flag=True, help="Tell what would be taken over, and write nothing.")
def adopt(
    context: Context, out: Output, *, project_root: str, dimensions: int | None, model: str | None, dry_run: bool
) -> None:
    """Take over what mcp-vector-search left in a project: its model, and its record of migrations.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 adopt --project-root . --dry-run
    """
    done = context.migrator().adopt(project_root, dimensions=dimensions, model=model, dry_run=dry_run)
    for note in done.notes:
        out.say(note)
    out.answer(_document(done, dry_run=dry_run), _lines(done, dry_run=dry_run))


def _document(done: Adoption, *, dry_run: bool) -> dict[str, object]:
    found = done.model
    model = found and {"name": found.name, "dimensions": found.dimensions, "source": found.source}
    return {
        "dry_run": dry_run,
        "folder": done.folder,
        "model": model,
        "activated": done.activates,
        "attempts": [each.entry() for each in done.attempts],
        "known": done.known,
        "backup": done.backup,
        "notes": done.notes,
    }


def _lines(done: Adoption, *, dry_run: bool) -> list[str]:
    if not done.is_change:
        return [f"Nothing to take over: the database knows what {done.folder} tells."]
    lines = [f"{'Would take' if dry_run else 'Took'} over from {done.folder}:"]
    if done.activates and done.model:
        lines.append(f"  the model {done.model.name}, {done.model.dimensions} dimensions ({done.model.source}): active")
    lines += [
        f"  {each.migration_id}, {each.status} at {local(each.executed_at) or 'a time not told'}"
        for each in done.attempts
    ]
    return [*lines, f"Backup: {done.backup}"] if done.backup else lines
