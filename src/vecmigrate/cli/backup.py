"""The commands under ``backup``."""

import click

from vecmigrate.cli.looks import local
from vecmigrate.cli.output import Context, Output, command
from vecmigrate.cli.root import cli
from vecmigrate.migrator import Migrator

__all__ = ["backup"]

_FEW = 3


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
    migrator = context.migrator()
    found = migrator.verified_backups()
    _say_of_damaged(migrator, out)
    rows = [("NAME", "REVISION", "CREATED AT", "BYTES", "REASON", "VERIFIED")]
    rows += [
        (
            _printable(each["name"]),
            _printable(each["revision"] or "base"),
            _printable(local(each["created_at"])),
            f"{each['bytes']:,}",
            _printable(each["reason"]),
            "yes" if each["verified"] else "NO",
        )
        for each in found
    ]
    lines = out.screen.table(rows, whole=(0, 1, 2, 3, 5)) if found else [_none(migrator, out)]
    if not all(each["verified"] for each in found):
        lines.append(out.pasteable(f"Next: vecmigrate {migrator.database.option} doctor"))
    out.answer({"backups": found}, lines)


def _printable(text: str) -> str:
    # Anybody may have written a manifest, also one with codes that a terminal obeys.
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _none(migrator: Migrator, out: Output) -> str:
    if migrator.damaged_manifests():
        return out.pasteable(f"Next: vecmigrate {migrator.database.option} doctor")
    none = f"No backup of {migrator.database} yet in {migrator.backup_folder()}."
    others = len(migrator.foreign_backups())
    return none + f" {others} are of another one that was at this path." if others else none


def _say_of_damaged(migrator: Migrator, out: Output) -> None:
    names, folder = migrator.damaged_manifests(), migrator.backup_folder()
    if len(names) > _FEW:
        out.say(f"{len(names)} manifests in {folder} cannot be read, so their backups are not listed; one: {names[0]}.")
        return
    for name in names:
        out.say(f"The manifest {name} in {folder} cannot be read, so its backup is not listed.")


@command(backup, "verify")
@click.argument("name", required=False)
def backup_verify(context: Context, out: Output, *, name: str | None) -> int:
    """Verify one backup, or all of this database. Exits with 1 if one is damaged.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup verify
    """
    migrator = context.migrator()
    results = migrator.verify_backups(name)
    _say_of_damaged(migrator, out)
    lines = [_printable(f"{each['name']}: {'ok' if each['verified'] else each['problem']}") for each in results]
    if not all(each["verified"] for each in results):
        lines.append(out.pasteable(f"Next: vecmigrate {migrator.database.option} doctor"))
    out.answer({"backups": results}, lines or [_none(migrator, out)])
    return 0 if all(each["verified"] for each in results) else 1


@command(backup, "prune")
@click.option("--keep", type=click.IntRange(min=1), help="How many to keep (default: keep_backups).")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
def backup_prune(context: Context, out: Output, *, keep: int | None, dry_run: bool) -> None:
    """Remove all but the newest backups; never the last verified one of a revision below head.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup prune --keep 3
    """
    removed = context.migrator().prune_backups(keep=keep, dry_run=dry_run)
    document = {"dry_run": True, "removed": removed} if dry_run else {"removed": removed}
    verb = "Would remove" if dry_run else "Removed"
    out.answer(document, [f"{verb}: {name}" for name in removed] or ["Nothing to remove."])
