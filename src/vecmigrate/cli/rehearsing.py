"""What is printed of a rehearsal."""

from typing import Any

from vecmigrate.cli.looks import Screen
from vecmigrate.cli.output import Output
from vecmigrate.migrator import Migrator
from vecmigrate.tools.rehearsal import ON_A_SERVER, Rehearsal

__all__ = ["say_where", "show_rehearsal"]


def say_where(out: Output, migrator: Migrator) -> None:
    """Say before a rehearsal on a server what it locks."""
    if not migrator.database.is_sqlite:
        out.say(ON_A_SERVER)


def show_rehearsal(out: Output, found: Rehearsal, next_step: str) -> int:
    """Print what a rehearsal came to; return the exit code of the run."""
    for note in found.notes:
        if note != ON_A_SERVER:
            out.say(note)
    document = found.as_dict()
    if found.error is None:
        out.answer(document, _lines(out.screen, found, document, next_step))
        return 0
    found.error.next_step = out.pasteable(found.error.next_step)
    document["error"] = found.error.as_dict()
    out.answer(document, _lines(out.screen, found, document, "") if found.inside.steps else [])
    out.complain(found.error)
    return found.error.exit_code


def _lines(screen: Screen, found: Rehearsal, document: dict[str, Any], next_step: str) -> list[str]:
    if not found.inside.steps:
        return [f"Nothing to do: the database is at {found.from_revision or 'base'}."]
    way = f"from {found.from_revision or 'base'} to {found.to_revision or 'base'}"
    lines = [f"Rehearsed {way}: it works. Nothing was changed." if found.ok else f"Rehearsed {way}: it fails."]
    lines += ["", *_revisions(screen, found.inside.steps), "", *_tables(screen, found.inside.tables)]
    lines += [
        f"{each['revision']}: {count:,} rows kept aside: {why}"
        for each in found.inside.steps
        for why, count in each["reasons"].items()
    ]
    lines += [f"Lost: {each['type']} {each['name']} on {each['table']}" for each in found.inside.objects_lost]
    lines += [
        f"Foreign keys: {each['rows']} rows of {each['table']} without their row in {each['parent']}"
        f" ({each['before']} before)"
        for each in found.inside.foreign_keys
    ]
    lines += [f"Locked: {name} ({mode})" for name, mode in found.inside.locks.items()]
    if not found.ok:
        return lines
    sizes = (f"{document[name] or 0:,}" for name in ("bytes_before", "bytes_after", "disk_needed"))
    told = "{} bytes before, {} after; the run needs {} more on the disk.".format(*sizes)
    lines += ["", *screen.wrapped(told), f"Whoever writes would wait for about {found.lock_seconds:.2f} s."]
    lines += [f"A backup would go into {found.backup_folder}"] if found.backup_folder else []
    return [*lines, f"Next: {next_step}"]


def _revisions(screen: Screen, steps: list[dict[str, Any]]) -> list[str]:
    rows = [("REVISION", "NAME", "WAY", "CONVERTED", "SET ASIDE", "SECONDS")]
    for each in steps:
        counts = (str(each["rows"][kind]) for kind in ("converted", "set_aside"))
        way = "up" if each["direction"] == "upgrade" else "down"
        rows.append((each["revision"] or "base", each["name"], way, *counts, f"{each['seconds']:.3f}"))
    return screen.table(rows, whole=(0, 2, 3, 4, 5), titles=2)


def _tables(screen: Screen, found: dict[str, dict[str, int | None]]) -> list[str]:
    """Return the tables whose rows would be others in number; the rest is one line."""
    changed = {name: each for name, each in found.items() if each["before"] != each["after"]}
    rows = [("TABLE", "ROWS BEFORE", "ROWS AFTER")]
    rows += [(name, _count(each["before"]), _count(each["after"])) for name, each in changed.items()]
    same = len(found) - len(changed)
    lines = screen.table(rows, whole=range(3)) if changed else []
    return [*lines, f"{same} {'other ' if changed else ''}tables keep all their rows."] if same else lines


def _count(rows: int | None) -> str:
    return "not there" if rows is None else f"{rows:,}"
