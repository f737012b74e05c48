"""What is wrong with the revisions of a project: for CI, and for authors before they commit. Needs no database."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from vecmigrate import app_versions, revisions
from vecmigrate.access import one_at_a_time
from vecmigrate.catalog import table_names
from vecmigrate.errors import ConfigurationError
from vecmigrate.schema import OWN_PREFIX, is_in_models, is_ours, metadata
from vecmigrate.shapes import adopts
from vecmigrate.steps import unannounced
from vecmigrate.tools import script_files, trial
from vecmigrate.tools.checkout import Checkout
from vecmigrate.tools.finding import Finding
from vecmigrate.tools.script_files import ScriptFile

__all__ = ["check"]

_AGAIN = "then run: vecmigrate check"


def check(project: Checkout) -> list[Finding]:
    """Return what is wrong with a project, errors first. Runs its scripts on databases in memory; writes no file."""
    with one_at_a_time, unannounced():
        found = [*_installed(project), *_files(project)]
        if not _errors(found):
            found += _loaded(project)
        if not _errors(found):
            script = ScriptDirectory.from_config(project.config)
            found += trial.on_empty(script, partial(_models, script))
            found += [each for each in trial.on_filled(script) if each not in found]
        elif not any(each.code in {"upgrade", "downgrade"} for each in found):
            message = "The scripts were not run, because of the errors."
            found.append(Finding("not-run", "note", message, f"correct the errors, {_AGAIN}"))
    order = ("error", "warning", "note")
    return sorted(found, key=lambda each: order.index(each.severity))


def _errors(found: Iterable[Finding]) -> bool:
    return any(each.severity == "error" for each in found)


def _installed(project: Checkout) -> Iterator[Finding]:
    if not project.is_what_runs:
        yield Finding(
            "not-this-project",
            "warning",
            f"The vecmigrate that runs is installed elsewhere ({os.path.dirname(app_versions.MAP_FILE)}): its models "
            "and operations count here, not those of this project.",
            "pip install -e . in this project, " + _AGAIN,
        )


# What the files say, without running them.


def _files(project: Checkout) -> Iterator[Finding]:
    files = script_files.read(project.versions)
    for each in files:
        yield from _well_formed(each)
        for name in each.imports_that_may_change():
            yield Finding(
                "imports",
                "error",
                f"{each.name} imports {name}, which may change after the revision is released. A revision imports only "
                "alembic, sqlalchemy, the standard library and vecmigrate.operations.",
                f"write what it needs into {project.shown(each.path)}, {_AGAIN}",
            )
    twins = script_files.twins(files)
    for group in twins:
        names = " and ".join(each.name for each in group)
        yield Finding(
            "twins",
            "error",
            f"{names} have one number: two branches have taken it.",
            f"of the one that is not released yet: vecmigrate new --renumber {group[-1].stem}",
        )
    if not twins:
        yield from _line(files)


def _well_formed(each: ScriptFile) -> Iterator[Finding]:
    faults = []
    if each.tree is None:
        faults.append("it is not valid Python")
    elif each.number is None:
        faults.append("its name is not a number, a line below and words, such as 004_add_tags.py")
    else:
        if each.revision != each.number:
            faults.append(f'its name says {each.number}, and it has no line revision = "{each.number}"')
        faults += [f"it has no {name}()" for name in ("upgrade", "downgrade") if name not in each.functions]
    for fault in faults:
        yield Finding("script", "error", f"{each.name}: {fault}.", f"correct {each.name}, {_AGAIN}")


def _line(files: list[ScriptFile]) -> Iterator[Finding]:
    """Look at the line of revisions as the files tell it: one base, one head, each number one above the last."""
    known = [each for each in files if each.number is not None and each.tree is not None]
    below = {each.down_revision for each in known}
    heads = [each for each in known if each.number not in below]
    if len(heads) != 1:
        names = " and ".join(each.name for each in heads) or "none"
        step = (
            f"of the one that is not released yet: vecmigrate new --renumber {heads[-1].stem}"
            if heads
            else (f"correct down_revision, {_AGAIN}")
        )
        yield Finding("heads", "error", f"There must be one head, and there are {len(heads)}: {names}.", step)
        return
    ordered = sorted(known, key=lambda each: int(each.number or 0))
    for number, each in enumerate(ordered):
        if int(each.number or 0) != number:
            yield Finding(
                "gap",
                "error",
                f"{each.name} follows {ordered[number - 1].name if number else 'nothing'}: {number:03d} is missing.",
                f"vecmigrate new --renumber {each.stem}, or add the script that is missing",
            )
            return
        wanted = ordered[number - 1].number if number else None
        if each.down_revision != wanted:
            yield Finding(
                "line",
                "error",
                f"{each.name} has down_revision = {each.down_revision!r}, and the one before it is {wanted!r}.",
                f"correct down_revision in {each.name}, {_AGAIN}",
            )


def _loaded(project: Checkout) -> Iterator[Finding]:
    """Load the scripts as a run does, and look whether the map names each."""
    try:
        scripts = [each.revision for each in ScriptDirectory.from_config(project.config).walk_revisions()][::-1]
        entries = app_versions.load(project.map_file or app_versions.MAP_FILE, revisions=scripts).entries
        if project.is_what_runs:
            revisions.load(project.config)
    except ConfigurationError as error:
        yield Finding("map" if "map" in error.message else "script", "error", error.message, error.next_step)
        return
    except Exception as error:  # noqa: BLE001 - whatever a script raises while it is imported
        yield Finding("script", "error", f"A script cannot be imported: {type(error).__name__}: {error}", _AGAIN[5:])
        return
    for missing in sorted(set(scripts) - {each.revision for each in entries}):
        path = project.shown(project.map_file or app_versions.MAP_FILE)
        message = f"The app-version map does not name revision {missing}."
        if project.map_file or project.ini is None:
            step = f'add ["VERSION"] and revision = "{missing}" to {path}, {_AGAIN}'
            yield Finding("map", "error", message, step)
        else:
            message += " This project has no map of its own (src/vecmigrate/app_versions.toml)."
            yield Finding("map", "warning", message, "nothing has to be done: such a revision has no app version")


# What they give.


def _models(script: ScriptDirectory, connection: Connection) -> Iterator[Finding]:
    adopted = {name for each in script.walk_revisions() for name in adopts(each)}
    made = {name for name in table_names(connection) if not name.startswith((OWN_PREFIX, "sqlite_"))}
    for name in sorted(made - adopted - metadata.tables.keys()):
        yield Finding(
            "models",
            "error",
            "src/vecmigrate/schema.py is not what the scripts give: the scripts have and the models do not: "
            f"table {name}.",
            f"add the table to the models, {_AGAIN}",
        )
    options = {"include_name": is_ours, "include_object": is_in_models, "target_metadata": metadata}
    with unannounced():
        context = MigrationContext.configure(connection, opts=options)
    for difference in compare_metadata(context, metadata):
        yield Finding(
            "models",
            "error",
            f"src/vecmigrate/schema.py is not what the scripts give: {'; '.join(_told(difference))}.",
            "change the models, or write the revision: alembic revision --autogenerate -m MESSAGE, " + _AGAIN,
        )


def _told(difference: Any) -> Iterator[str]:
    """Tell a difference of Alembic: a tuple, or a list of them for one column."""
    if isinstance(difference, list):
        for each in difference:
            yield from _told(each)
        return
    kind, *parts = difference
    subject = parts[-1]
    names = [part for part in parts[:4] if isinstance(part, str)]
    if kind.startswith("modify_"):
        yield f"{kind.removeprefix('modify_')} of {'.'.join(names[:2])} is {parts[-2]!r} there, and {parts[-1]!r} here"
        return
    named = getattr(subject, "name", None) or str(subject)
    where = [*names, str(named)] if kind.endswith("column") else [str(named)]
    verb, _, thing = kind.partition("_")
    state = "the models have and the scripts do not" if verb == "add" else "the scripts have and the models do not"
    yield f"{state}: {thing} {'.'.join(where)}"
