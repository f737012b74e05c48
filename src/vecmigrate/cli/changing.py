"""Commands that change the database: migrate, rollback and restore."""

from typing import Any

import click

from vecmigrate.cli.looks import counted
from vecmigrate.cli.output import Context, Output, command
from vecmigrate.cli.rehearsing import say_where, show_rehearsal
from vecmigrate.cli.root import cli
from vecmigrate.errors import VecmigrateError
from vecmigrate.journal import Report
from vecmigrate.manifests import Backup
from vecmigrate.migrator import Migrator
from vecmigrate.shell import quoted

__all__ = ["migrate", "restore", "rollback"]

_NEWEST = "\0"
"""Stands for the option without a name, which no argument of a process can be."""


@command(cli)
@click.option("--target", help="head (the default), a revision number, +N, or an app version.")
@click.option("--version", help="The app version whose schema is wanted.")
@click.option("--dry-run", is_flag=True, help="Run it on a copy, tell what came of it, and change nothing.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL instead of running it.")
@click.option("--force", is_flag=True, help="Run the target's revision again.")
@click.option("--no-backup", is_flag=True, help="Make no backup first.")
@click.option("--yes", is_flag=True, help="Allow revisions to lose rows that nothing keeps.")
def migrate(
    context: Context,
    out: Output,
    *,
    target: str | None,
    version: str | None,
    dry_run: bool,
    as_sql: bool,
    force: bool,
    no_backup: bool,
    yes: bool,
) -> int:
    """Upgrade the database; it is backed up first, and changed in one transaction.

    \b
    Examples:
      vecmigrate --db-path sessions.sqlite3 migrate
      vecmigrate --db-path sessions.sqlite3 migrate --version 1.0.0 --dry-run
    """
    if target is not None and version is not None:
        raise click.UsageError("--target and --version exclude each other.")
    migrator = context.migrator(backup="never" if no_backup else None)
    target = "head" if target is None else target
    if as_sql:
        if dry_run or force or no_backup or yes:
            raise click.UsageError("--sql goes with --target and --version only.")
        _show_script(out, migrator, target, version)
        return 0
    if dry_run:
        say_where(out, migrator)
        found = migrator.rehearse_upgrade(target, version=version, force=force, allow_data_loss=yes)
        named = ["--version", version] if version is not None else ["--target", target]
        switches = {"--force": force, "--no-backup": no_backup, "--yes": yes}
        words = [
            "migrate",
            *(named if named[1] != "head" else []),
            *(each for each, given in switches.items() if given),
        ]
        return show_rehearsal(out, found, _command(out, migrator, *words))
    _show_report(out, migrator, migrator.upgrade(target, version=version, force=force, allow_data_loss=yes))
    return 0


@command(cli)
@click.option("--to-version", "target", required=True, help="base, a revision number, -N, or an app version.")
@click.option("--from-backup", is_flag=False, flag_value=_NEWEST, help="Restore a backup: the newest fitting, or NAME.")
@click.option("--dry-run", is_flag=True, help="Run it on a copy, tell what came of it, and change nothing.")
@click.option("--yes", is_flag=True, help="Allow to lose rows that nothing keeps.")
def rollback(context: Context, out: Output, *, target: str, from_backup: str | None, dry_run: bool, yes: bool) -> int:
    """Go back to an older revision, by its downgrade script or from a backup.

    \b
    Examples:
      vecmigrate --db-path sessions.sqlite3 rollback --to-version 0
      vecmigrate --db-path sessions.sqlite3 rollback --to-version 0 --from-backup
    """
    if from_backup == "":
        # A variable of a script that is not set must not mean another backup.
        raise click.UsageError("The name after --from-backup is empty; leave it out for the newest one.")
    migrator = context.migrator()
    if from_backup is not None:
        chosen = migrator.backup_of(target, name=None if from_backup == _NEWEST else from_backup)
        if dry_run:
            _show_restorable(out, migrator, chosen)
            return 0
        _show_restored(out, migrator.restore(chosen), chosen.name)
    elif dry_run:
        say_where(out, migrator)
        words = ["--to-version", target, *(["--yes"] if yes else [])]
        found = migrator.rehearse_rollback(target, allow_data_loss=yes)
        return show_rehearsal(out, found, _command(out, migrator, "rollback", *words))
    else:
        _show_report(out, migrator, migrator.rollback(target, allow_data_loss=yes))
    return 0


def _command(out: Output, migrator: Migrator, *words: str) -> str:
    return out.pasteable(" ".join(["vecmigrate", migrator.database.option, *map(quoted, words)]))


def _show_script(out: Output, migrator: Migrator, target: str, version: str | None) -> None:
    plan, script = migrator.script(target, version=version)
    if plan.note:
        out.say(plan.note)
    if not script:
        out.say(f"Nothing to do: the database is at {plan.from_revision or 'base'}.")
    out.answer({"from": plan.from_revision, "to": plan.to_revision, "sql": script}, script.splitlines())


def _report_document(report: Report) -> dict[str, Any]:
    return {
        "from": report.from_revision,
        "to": report.to_revision,
        "applied": report.applied,
        "reverted": report.reverted,
        "backup": report.backup,
        "created": report.created,
        "waited": report.waited,
        "rows": {"converted": report.converted, "set_aside": report.set_aside},
        "duration_seconds": round(report.duration_seconds, 6),
        "notes": report.notes,
    }


def _say_notes(out: Output, report: Report) -> None:
    for note in report.notes:
        # The log, which has gone to stderr, told the others as they arose.
        if note not in report.logged:
            out.say(note)


def _show_report(out: Output, migrator: Migrator, report: Report) -> None:
    _say_notes(out, report)
    lines = [f"Nothing to do: the database is at {report.to_revision or 'base'}."]
    if report.applied or report.reverted:
        verbs = {"reverted": report.reverted, "applied": report.applied}
        steps = "; ".join(f"{verb}: {', '.join(ids)}" for verb, ids in verbs.items() if ids)
        lines = [f"Created {migrator.database}."] if report.created else []
        lines += [
            (
                f"From {report.from_revision or 'base'} to {report.to_revision or 'base'} ({steps}) "
                f"in {report.duration_seconds:.2f} s."
            ),
            f"Rows: {report.converted} converted, {report.set_aside} set aside.",
        ]
        if report.converted or report.set_aside:
            lines.append(out.pasteable(f"Their originals are kept: vecmigrate {migrator.database.option} preserved"))
        lines += [f"Backup: {report.backup}"] if report.backup else []
        lines += _next_lines(out, migrator)
    out.answer(_report_document(report), lines)


def _next_lines(out: Output, migrator: Migrator) -> list[str]:
    """Return what is to be done after a run: vectors of a new model, if there is one and chunks lack them."""
    in_memory = migrator.database.is_sqlite and migrator.database.path is None
    try:
        left = None if in_memory else migrator.reembedding()
    except VecmigrateError as error:
        # The run has ended, and it ended well.
        out.say(f"How many chunks are left to embed could not be read: {error.message}")
        return []
    if not left or not left["remaining"]:
        return []
    lines = [f"The model {left['model']} is being built: {counted(left['remaining'], 'chunk')} left."]
    return [*lines, f"Next: {_command(out, migrator, 'reembed', '--embedder', 'E')}"]


@command(cli)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Check the backup, tell where it leads, and change nothing.")
def restore(context: Context, out: Output, *, name: str, dry_run: bool) -> None:
    """Put a backup in place of the present state, which is saved first.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 restore sessions-20260131T103000.000000Z-000
    """
    migrator = context.migrator()
    chosen = migrator.find_backup(name)
    if dry_run:
        _show_restorable(out, migrator, chosen)
        return
    _show_restored(out, migrator.restore(chosen), name)


def _show_restorable(out: Output, migrator: Migrator, chosen: Backup) -> None:
    found = migrator.rehearse_restore(chosen)
    document = {
        "dry_run": True,
        "ok": True,
        "from": found.from_revision,
        "to": found.to_revision,
        "backup": chosen.as_dict(verified=True),
        "backup_folder": migrator.backup_folder(),
    }
    way = f"from {found.from_revision or 'base'} to {found.to_revision or 'base'}"
    lines = [
        f"Would restore {chosen.path}, which is sound: {way}.",
        f"The present state would be saved in {migrator.backup_folder()}",
    ]
    out.answer(document, lines)


def _show_restored(out: Output, report: Report, name: str) -> None:
    _say_notes(out, report)
    lines = [f"Restored {name}: the database is at {report.to_revision or 'base'}."]
    lines += [f"The state before is saved in {report.backup}"] if report.backup else []
    out.answer(_report_document(report) | {"restored": name}, lines)
