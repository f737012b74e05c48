"""The command line: parse, call, print. It adds choice and explanation, and no safety of its own."""

import functools
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click

from vecmigrate import settings
from vecmigrate.engine import sqlite_url
from vecmigrate.environment import terminable
from vecmigrate.errors import ConfigurationError, InterruptedRunError, VecmigrateError
from vecmigrate.migrator import Migrator, Plan, app_version_rows
from vecmigrate.runs import Report

__all__ = ["cli", "main"]

F = TypeVar("F", bound=Callable[..., Any])


class _Commands(click.Group):
    """A group with ``upgrade`` as another name of ``migrate``."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "migrate" if cmd_name == "upgrade" else cmd_name)


class _Context:
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


def main() -> None:
    """Run the command line, with the exit codes of the README."""
    with terminable() as received:
        arguments = sys.argv[1:]
        try:
            code = cli.main(arguments, standalone_mode=False)
        except VecmigrateError as error:
            code = _explain(error, arguments)
        except click.ClickException as error:
            code = _explain_usage(error, arguments)
        except (KeyboardInterrupt, click.Abort):
            code = _explain(_interruption(received), arguments)
    sys.exit(code if isinstance(code, int) else 0)


def _interruption(received: Sequence[int]) -> InterruptedRunError:
    error = InterruptedRunError(
        "Stopped by a signal. The database is as it was before the run.",
        next_step="run the same command again",
    )
    error.exit_code = 128 + received[0] if received else 130
    return error


def _explain(error: VecmigrateError, arguments: Sequence[str]) -> int:
    if _wants(arguments, "v", "--verbose"):
        click.echo("".join(traceback.format_exception(error)), err=True)
    click.echo(f"Error: {error}", err=True)
    if "--json" in arguments:
        _print_json(
            {
                "error": {
                    "exit_code": error.exit_code,
                    "type": type(error).__name__,
                    "message": error.message,
                    "backup": error.backup,
                    "next": error.next_step,
                }
            }
        )
    return error.exit_code


def _wants(arguments: Sequence[str], letter: str, long: str) -> bool:
    return long in arguments or any(
        word.startswith("-") and not word.startswith("--") and letter in word for word in arguments
    )


def _explain_usage(error: click.ClickException, arguments: Sequence[str]) -> int:
    error.show()
    if "--json" in arguments:
        _print_json(
            {
                "error": {
                    "exit_code": error.exit_code,
                    "type": "UsageError",
                    "message": error.format_message(),
                    "next": "vecmigrate --help",
                }
            }
        )
    return error.exit_code


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vecmigrate")
@click.option("--database-url", metavar="URL", help="The database, as an SQLAlchemy URL.")
@click.option("--db-path", metavar="FILE", help="The database, as the path of an SQLite file.")
@click.option("--config", metavar="FILE", help="An alembic.ini with a section [vecmigrate].")
@click.option("-v", "--verbose", count=True, help="Tell more; twice, also SQL.")
@click.option("-q", "--quiet", is_flag=True, help="Tell only errors.")
@click.pass_context
def cli(
    ctx: click.Context, database_url: str | None, db_path: str | None, config: str | None, verbose: int, *, quiet: bool
) -> None:
    r"""Migrate the schema and the embedding model of a service's vector stores.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 migrate
    """
    levels = {0: logging.WARNING, 1: logging.INFO}
    logging.basicConfig(level=levels.get(verbose, logging.DEBUG), format="%(message)s", stream=sys.stderr)
    ctx.obj = _Context(url=database_url, path=db_path, config=config, verbosity=-1 if quiet else verbose)


def _command(group: click.Group, name: str | None = None) -> Callable[[F], click.Command]:
    """Make a command with ``--json``; what the function returns is printed as JSON or left unprinted."""

    def decorate(function: F) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
        @click.pass_context
        @functools.wraps(function)
        def wrapped(ctx: click.Context, /, **options: Any) -> int | None:
            out = _Output(ctx.obj, as_json=options.pop("as_json"))
            code = function(ctx.obj, out, **options)
            return code if isinstance(code, int) else None

        return group.command(name)(wrapped)

    return decorate


class _Output:
    """Where a command's answer goes: a JSON document, or lines for a person, on stdout."""

    def __init__(self, context: _Context, *, as_json: bool) -> None:
        self._context = context
        self._as_json = as_json

    def answer(self, document: dict[str, Any], lines: Sequence[str]) -> None:
        if self._as_json:
            _print_json(document)
        else:
            for line in lines:
                click.echo(line)

    def say(self, message: str) -> None:
        self._context.say(message)


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@_command(cli)
@click.option("--check", is_flag=True, help="Exit with 3 when something is pending.")
def status(context: _Context, out: _Output, *, check: bool) -> int:
    r"""Tell where the database is, and what is pending. Writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 status --check
    """
    found = context.migrator().status()
    last = found.last_run
    lines = [
        ("database", f"{found.database} ({found.dialect})"),
        ("state", found.state),
        ("revision", f"{found.revision or 'none'} (head is {found.head})"),
        ("app version", found.app_version or "none"),
        ("pending", ", ".join(found.pending) or "nothing"),
        ("last run", f"{last['migration_id']} {last['status']} at {last['executed_at']}" if last else "never"),
        ("last backup", found.last_backup["path"] if found.last_backup else "none"),
        ("rows kept aside", "{converted} converted, {set_aside} set aside".format(**found.preserved_rows)),
    ]
    if found.reembed:
        lines.append(("re-embedding", "{remaining} chunks left for {model}".format(**found.reembed)))
    out.answer(asdict(found), [*_table([(f"{name}:", value) for name, value in lines]), *found.notes])
    return 3 if check and found.state in {"absent", "unversioned", "pending"} else 0


@_command(cli, "list")
def list_(context: _Context, out: _Output) -> None:
    r"""List every revision, and whether it is applied. Writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 list
    """
    found = context.migrator().listing()
    rows = [("", "REVISION", "APP VERSION", "NAME", "STATUS", "EXECUTED AT", "SECONDS")]
    for each in found:
        seconds = each["duration_seconds"]
        rows.append(
            (
                "->" if each["current"] else "",
                each["revision"],
                each["app_version"] or "",
                each["name"],
                each["status"],
                each["executed_at"] or "",
                "" if seconds is None else f"{seconds:.3f}",
            )
        )
    out.answer({"revisions": found}, _table(rows))


@_command(cli)
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest N attempts.")
@click.option("--rebuild", is_flag=True, help="Write the JSON mirror anew from the table.")
@click.option("--clear", is_flag=True, help="Forget every attempt; the schema stays.")
@click.option("--yes", is_flag=True, help="Confirm --clear.")
def history(context: _Context, out: _Output, *, limit: int | None, rebuild: bool, clear: bool, yes: bool) -> None:
    r"""Show every attempt, oldest first.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 history --limit 10
    """
    migrator = context.migrator()
    if clear:
        if not yes:
            raise click.UsageError("--clear forgets every attempt; confirm with --yes.")
        count = migrator.clear_history()
        out.answer({"cleared": count}, [f"{count} attempts forgotten; the schema is as it was."])
    elif rebuild:
        path = migrator.rebuild_mirror()
        out.answer({"mirror": path}, [f"Written: {path}"])
    else:
        attempts = [attempt.entry() for attempt in migrator.attempts(limit=limit)]
        rows = [("EXECUTED AT", "MIGRATION", "DIRECTION", "STATUS", "MESSAGE")]
        rows += [
            (each["executed_at"], each["migration_id"], each["metadata"]["direction"], each["status"], each["message"])
            for each in attempts
        ]
        out.answer({"attempts": attempts}, _table(rows) if attempts else ["No attempt yet."])


@_command(cli)
@click.option("--target", default="head", help="head, a revision number, +N, or an app version.")
@click.option("--version", help="The app version whose schema is wanted.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--force", is_flag=True, help="Run the target's revision again.")
@click.option("--no-backup", is_flag=True, help="Make no backup first.")
def migrate(
    context: _Context, out: _Output, *, target: str, version: str | None, dry_run: bool, force: bool, no_backup: bool
) -> None:
    r"""Upgrade the database; it is backed up first, and changed in one transaction.

    \b
    Examples:
      vecmigrate --db-path sessions.sqlite3 migrate
      vecmigrate --db-path sessions.sqlite3 migrate --version 1.0.0 --dry-run
    """
    migrator = context.migrator(backup="never" if no_backup else None)
    if dry_run:
        _show_plan(out, migrator.plan_upgrade(target, version=version), "applied")
        return
    report = migrator.upgrade(target, version=version, force=force)
    _show_report(out, report, "applied")


@_command(cli)
@click.option("--to-version", "target", required=True, help="base, a revision number, -N, or an app version.")
@click.option("--from-backup", is_flag=False, flag_value="", help="Restore a backup: the newest fitting, or NAME.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--yes", is_flag=True, help="Allow base to drop tables that hold rows.")
def rollback(
    context: _Context, out: _Output, *, target: str, from_backup: str | None, dry_run: bool, yes: bool
) -> None:
    r"""Go back to an older revision, by its downgrade script or from a backup.

    \b
    Examples:
      vecmigrate --db-path sessions.sqlite3 rollback --to-version 0
      vecmigrate --db-path sessions.sqlite3 rollback --to-version 0 --from-backup
    """
    migrator = context.migrator()
    if from_backup is not None:
        chosen = migrator.backup_of(target, name=from_backup or None)
        if dry_run:
            out.answer({"backup": chosen.as_dict(verified=True)}, [f"Would restore {chosen.path}"])
            return
        _show_restored(out, migrator.restore(chosen), chosen.name)
    elif dry_run:
        _show_plan(out, migrator.plan_rollback(target), "reverted")
    else:
        _show_report(out, migrator.rollback(target, allow_data_loss=yes), "reverted")


def _show_plan(out: _Output, plan: Plan, verb: str) -> None:
    steps = [step.id for step in plan.steps]
    document = {
        "dry_run": True,
        "from": plan.from_revision,
        "to": plan.to_revision,
        verb: steps,
        "backup": None,
        "backup_folder": plan.backup_folder,
    }
    if plan.note:
        out.say(plan.note)
    lines = [f"Would {plan.direction} from {plan.from_revision or 'base'} to {plan.to_revision or 'base'}:"]
    lines += [f"  {step.id} {step.name}" for step in plan.steps]
    lines += [f"A backup would go into {plan.backup_folder}"] if plan.backup_folder else []
    out.answer(document, lines if steps else ["Nothing to do."])


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


def _show_report(out: _Output, report: Report, verb: str) -> None:
    for note in report.notes:
        out.say(note)
    steps = report.applied if verb == "applied" else report.reverted
    lines = [f"Nothing to do: the database is at {report.to_revision or 'base'}."]
    if report.applied or report.reverted:
        lines = [
            (
                f"From {report.from_revision or 'base'} to {report.to_revision or 'base'} "
                f"({verb}: {', '.join(steps)}) in {report.duration_seconds:.2f} s."
            ),
            (
                f"Rows: {report.converted} converted, {report.set_aside} set aside; "
                "the originals are kept (vecmigrate preserved)."
            ),
        ]
        lines += [f"Backup: {report.backup}"] if report.backup else []
    out.answer(_report_document(report), lines)


@cli.group()
def backup() -> None:
    r"""Make, list, verify and remove backups.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup list
    """


@_command(backup, "create")
def backup_create(context: _Context, out: _Output) -> None:
    r"""Back up the present state.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup create
    """
    made = context.migrator().create_backup()
    out.answer({"backup": made.as_dict(verified=True)}, [f"Backup: {made.path}"])


@_command(backup, "list")
def backup_list(context: _Context, out: _Output) -> None:
    r"""List the backups of this database, newest first. Writes nothing.

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
    out.answer({"backups": found}, _table(rows) if found else ["No backup yet."])


@_command(backup, "verify")
@click.argument("name", required=False)
def backup_verify(context: _Context, out: _Output, *, name: str | None) -> int:
    r"""Verify one backup, or all of this database. Exits with 1 if one is damaged.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup verify
    """
    results = context.migrator().verify_backups(name)
    lines = [f"{each['name']}: {'ok' if each['verified'] else each['problem']}" for each in results]
    out.answer({"backups": results}, lines or ["No backup yet."])
    return 0 if all(each["verified"] for each in results) else 1


@_command(backup, "prune")
@click.option("--keep", type=click.IntRange(min=1), help="How many to keep (default: keep_backups).")
def backup_prune(context: _Context, out: _Output, *, keep: int | None) -> None:
    r"""Remove all but the newest backups; never the last verified one of a revision below head.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 backup prune --keep 3
    """
    removed = context.migrator().prune_backups(keep=keep)
    out.answer({"removed": removed}, [f"Removed: {name}" for name in removed] or ["Nothing to remove."])


@_command(cli)
@click.argument("name")
def restore(context: _Context, out: _Output, *, name: str) -> None:
    r"""Put a backup in place of the present state, which is saved first.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 restore sessions-20260131T103000.000000Z-000
    """
    migrator = context.migrator()
    _show_restored(out, migrator.restore(migrator.find_backup(name)), name)


def _show_restored(out: _Output, report: Report, name: str) -> None:
    for note in report.notes:
        out.say(note)
    lines = [f"Restored {name}: the database is at {report.to_revision or 'base'}."]
    lines += [f"The state before is saved in {report.backup}"] if report.backup else []
    out.answer(_report_document(report) | {"restored": name}, lines)


@_command(cli)
@click.argument("version", required=False)
def versions(context: _Context, out: _Output, *, version: str | None) -> None:
    r"""Show the app versions that changed the schema, or the revision of one.

    \b
    Examples:
      vecmigrate versions
      vecmigrate versions 1.1.0
    """
    del context
    found, note = app_version_rows(version)
    if note:
        click.echo(note, err=True)
    rows = [("APP VERSION", "REVISION", "COMPATIBLE FROM")]
    rows += [(each["app_version"], each["revision"], each["compatible_from"]) for each in found]
    out.answer(
        {"versions": found} | ({"revision": found[0]["revision"], "note": note} if version else {}), _table(rows)
    )


@_command(cli)
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest N rows.")
def preserved(context: _Context, out: _Output, *, limit: int | None) -> None:
    r"""Show rows that were converted or set aside, and why. Shows their contents; writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 preserved --limit 20
    """
    rows = context.migrator().preserved(limit=limit)
    lines = []
    for each in rows:
        lines.append(f"{each['source_table']} ({'converted' if each['landed'] else 'set aside'}): {each['reason']}")
        lines.append(f"  {json.dumps(each['row'], ensure_ascii=False)}")
    out.answer({"rows": rows}, lines or ["Every row landed as it was."])
