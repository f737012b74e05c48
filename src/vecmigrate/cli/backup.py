"""The commands under ``backup``."""

import click

from vecmigrate.cli.output import Context, Output, command, table
from vecmigrate.cli.root import cli

__all__ = ["backup"]


@cli.group()
def backup() -> None:
    """Make, list, verify and remove backups.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup list
    """


@command(backup, "create")
def backup_create(context: Context, out: Output) -> None:
    """Back up the present state.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup create
    """
    made = context.migrator().create_backup()
    out.answer({"backup": made.as_dict(verified=True)}, [f"Backup: {made.path}"])


@command(backup, "list")
def backup_list(context: Context, out: Output) -> None:
    """List the backups of this database, newest first. Writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup list
    """
    found = context.migrator().verified_backups()
    rows = [("NAME", "REVISION", "CREATED AT", "BYTES", "REASON", "VERIFIED")]
    rows += [
        (
            each["name"],
            each["revision"] or "base",
            each["created_at"],
            str(each["bytes"]),
            each["reason"],
            "yes" if each["verified"] else "NO",
        )
        for each in found
    ]
    out.answer({"backups": found}, table(rows) if found else ["No backup yet."])


@command(backup, "verify")
@click.argument("name", required=False)
def backup_verify(context: Context, out: Output, *, name: str | None) -> int:
    """Verify one backup, or all of this database. Exits with 1 if one is damaged.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup verify
    """
    results = context.migrator().verify_backups(name)
    lines = [f"{each['name']}: {'ok' if each['verified'] else each['problem']}" for each in results]
    out.answer({"backups": results}, lines or ["No backup yet."])
    return 0 if all(each["verified"] for each in results) else 1


@command(backup, "prune")
@click.option("--keep", type=click.IntRange(min=1), help="How many to keep (default: keep_backups).")
def backup_prune(context: Context, out: Output, *, keep: int | None) -> None:
    """Remove all but the newest backups; never the last verified one of a revision below head.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup prune --keep 3
    """
    removed = context.migrator().prune_backups(keep=keep)
    out.answer({"removed": removed}, [f"Removed: {name}" for name in removed] or ["Nothing to remove."])
