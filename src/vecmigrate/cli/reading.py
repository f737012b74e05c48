"""Commands that write nothing, apart from ``history --rebuild`` and ``--clear``."""

import json
from dataclasses import asdict
from typing import Any

import click

from vecmigrate.cli.looks import counted, local
from vecmigrate.cli.output import Context, Output, command
from vecmigrate.cli.root import cli
from vecmigrate.errors import AheadError
from vecmigrate.overview import Status, app_version_rows
from vecmigrate.shell import quoted

__all__ = ["history", "list_", "preserved", "status", "versions"]

_STATES = {
    "absent": "not there yet",
    "unversioned": "never migrated",
    "pending": "behind by {}",
    "current": "up to date",
    "ahead": "newer than this version of vecmigrate",
}
"""The states of the JSON answer, in the words of people."""
_WORDS = {"success": "applied"}

_COUNT = click.IntRange(min=1, max=(1 << 63) - 1)
"""What a database can count to."""


@command(cli)
@click.option(
    "--check", is_flag=True, help="Exit with 3 when something is pending, with 6 when it is too new for this version."
)
def status(context: Context, out: Output, *, check: bool) -> int:
    """Tell where the database is, and what is pending. Writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 status --check
    """
    migrator = context.migrator()
    found = migrator.status()
    notes = [out.pasteable(note) for note in found.notes]
    lines = out.screen.facts(_facts(found))
    next_step = _next_of(found, migrator.database.option)
    lines += [line for note in notes for line in out.screen.wrapped(note)]
    lines += [out.pasteable(f"Next: {next_step}")] if next_step else []
    out.answer(asdict(found) | {"notes": notes}, lines)
    return _gate(found) if check else 0


def _facts(found: Status) -> dict[str, str]:
    last, models = found.last_run, found.embedding or {}
    facts = {
        "database": f"{found.database} ({found.dialect})",
        "state": _STATES[found.state].format(counted(len(found.pending), "revision")),
        "revision": f"{found.revision or 'none'} (head is {found.head})",
        "app version": found.app_version or "none",
        "pending": ", ".join(found.pending) or "nothing",
        "last run": _run(last) if last else "never",
        "last backup": found.last_backup["path"] if found.last_backup else "none",
        "rows kept aside": "{converted} converted, {set_aside} set aside".format(**found.preserved_rows),
    }
    if models:
        facts["embedding model"] = models["active"] or "none is active"
    if found.reembed:
        facts["being built"] = f"{found.reembed['model']}: {counted(found.reembed['remaining'], 'chunk')} left"
    return facts


def _run(last: dict[str, Any]) -> str:
    when = local(last["executed_at"], seconds=True)
    return f"{last['migration_id']} {last['status']}" + (f" at {when}" if when else "")


def _next_of(found: Status, option: str) -> str | None:
    """Return what is to be done now; None where nothing is, or where a note says it."""
    if found.notes and found.state in {"absent", "ahead"}:
        return None
    if found.state in {"absent", "unversioned", "pending"}:
        return f"vecmigrate {option} migrate"
    if found.reembed:
        model = found.reembed["model"]
        way = "reembed --embedder E" if found.reembed["remaining"] else f"embeddings activate {quoted(model)}"
        return f"vecmigrate {option} {way}"
    return None


def _gate(found: Status) -> int:
    """Return the exit code for a deployment that waits until its service may start."""
    if found.compatible is False:
        return AheadError.exit_code
    return 3 if found.state in {"absent", "unversioned", "pending"} else 0


@command(cli, "list")
def list_(context: Context, out: Output) -> None:
    """List every revision, and whether it is applied. Writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 list
    """
    migrator = context.migrator()
    found = migrator.listing()
    rows = [("", "REVISION", "VERSION", "NAME", "STATUS", "EXECUTED AT", "SECONDS")]
    for each in found:
        seconds = each["duration_seconds"]
        rows.append(
            (
                "->" if each["current"] else "",
                each["revision"],
                each["app_version"] or "",
                each["name"] + (f" (depends on {', '.join(each['depends_on'])})" if each["depends_on"] else ""),
                _WORDS.get(each["status"], each["status"]),
                local(each["executed_at"]),
                "" if seconds is None else f"{seconds:.3f}",
            )
        )
    for each in found:
        if each["edited"]:
            out.say(f"The script of revision {each['revision']} was edited since it was applied.")
    lines = out.screen.table(rows, whole=(0, 1, 2, 4, 5, 6), titles=2)
    if any(each["status"] != "success" for each in found):
        lines.append(out.pasteable(f"Next: vecmigrate {migrator.database.option} migrate"))
    out.answer({"revisions": found}, lines)


@command(cli)
@click.option("--limit", type=_COUNT, help="Only the newest N attempts.")
@click.option("--rebuild", is_flag=True, help="Write the JSON mirror anew from the table.")
@click.option("--clear", is_flag=True, help="Forget every attempt; the schema stays.")
@click.option("--yes", is_flag=True, help="Confirm --clear.")
def history(context: Context, out: Output, *, limit: int | None, rebuild: bool, clear: bool, yes: bool) -> None:
    """Show every attempt, in the order of recording.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 history --limit 10
    """
    if sum((clear, rebuild, limit is not None)) > 1:
        raise click.UsageError("--limit, --rebuild and --clear exclude each other.")
    migrator = context.migrator()
    if clear:
        if not yes:
            raise click.UsageError("--clear forgets every attempt; confirm with --yes.")
        count = migrator.clear_history()
        out.answer({"cleared": count}, [f"{counted(count, 'attempt')} forgotten; the schema is as it was."])
    elif rebuild:
        path = migrator.rebuild_mirror()
        out.answer({"mirror": path}, [f"Written: {path}"])
    else:
        attempts = [attempt.entry() for attempt in migrator.attempts(limit=limit)]
        rows = [("EXECUTED AT", "MIGRATION", "DIRECTION", "STATUS", "MESSAGE")]
        rows += [
            (
                local(each["executed_at"]),
                each["migration_id"],
                each["metadata"]["direction"],
                each["status"],
                each["message"],
            )
            for each in attempts
        ]
        out.answer(
            {"attempts": attempts},
            out.screen.table(rows, whole=(0, 1, 2, 3), titles=2) if attempts else ["No attempt yet."],
        )


@command(cli)
@click.argument("version", required=False)
def versions(context: Context, out: Output, *, version: str | None) -> None:
    """Show the app versions that changed the schema, or the revision of one.

    \b
    Examples:
      vecmigrate versions
      vecmigrate versions 1.1.0
    """
    del context
    found, note = app_version_rows(version)
    if note:
        out.say(note)
    rows = [("APP VERSION", "REVISION", "COMPATIBLE FROM")]
    rows += [(each["app_version"], each["revision"], each["compatible_from"]) for each in found]
    out.answer(
        {"versions": found} | ({"revision": found[0]["revision"], "note": note} if version else {}),
        out.screen.table(rows),
    )


@command(cli)
@click.option("--limit", type=_COUNT, help="Only the newest N rows.")
def preserved(context: Context, out: Output, *, limit: int | None) -> None:
    """Show rows that were converted or set aside, and why. Shows their contents; writes nothing.

    \b
    Example:
      vecmigrate --db-path sessions.sqlite3 preserved --limit 20
    """
    rows = context.migrator().preserved(limit=limit)
    lines = []
    for each in rows:
        lines.append(f"{each['source_table']} ({_fate(each)}): {each['reason']}")
        lines.append(f"  {json.dumps(each['row'], ensure_ascii=False)}")
    out.answer({"rows": rows}, lines or ["Every row landed as it was."])


def _fate(kept: dict[str, Any]) -> str:
    if not kept["landed"]:
        return "set aside"
    return "as it was" if kept["row"] == kept["converted"] else "converted"
