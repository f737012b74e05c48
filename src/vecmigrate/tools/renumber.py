"""Two branches that took one number: one script gets the next free one, with all that names it."""

import os
import re

from vecmigrate.errors import ConfigurationError
from vecmigrate.tools import script_files, version_map
from vecmigrate.tools.checkout import Checkout
from vecmigrate.tools.script_files import ScriptFile
from vecmigrate.tools.templates import Written, test_name

__all__ = ["renumber"]


def renumber(project: Checkout, stem: str) -> Written:
    """Put a script (``NNN_slug``) on top of the others: its file, its ids, its line in the map, its test.

    Raises ConfigurationError, with nothing changed, for a script that is not there, or that has no twin and is
    no second head or above a gap: what may be released is not touched.
    """
    files = [each for each in script_files.read(project.versions) if each.number]
    script = _named(files, stem.removesuffix(".py"), project)
    others = [each for each in files if each is not script]
    below = str(max(others, key=lambda each: int(each.number or 0)).number) if others else None
    number = f"{int(below or -1) + 1:03d}"
    _require_wrong(script, others, number, below)
    old = str(script.number)
    name = number + script.stem.removeprefix(old)
    path = os.path.join(project.versions, f"{name}.py")
    text = _rewritten(script, number, below)
    changed = version_map.opened(project.map_file) if project.map_file else None
    version = changed.renumber(old, number, project.version, has_twin=_has_twin(script, others)) if changed else None
    test, test_path = _test(project, script, name, number, below)
    _move(script.path, path, text)
    if test_path is not None and test is not None:
        _move(os.path.join(project.tests, test_name(script.stem)), test_path, test)
    if changed:
        changed.write()
    return Written(number, path, test_path, version)


def _named(files: list[ScriptFile], stem: str, project: Checkout) -> ScriptFile:
    for each in files:
        if each.stem == stem:
            return each
    raise ConfigurationError(
        f"There is no script {stem}.py in {project.versions}. Nothing was changed.",
        next_step="vecmigrate check, which names the scripts to renumber",
    )


def _has_twin(script: ScriptFile, others: list[ScriptFile]) -> bool:
    return any(int(each.number or 0) == int(script.number or 0) for each in others)


def _require_wrong(script: ScriptFile, others: list[ScriptFile], number: str, below: str | None) -> None:
    """Refuse a script in its right place."""
    has_twin = _has_twin(script, others)
    is_branch = any(each.down_revision == script.down_revision for each in others)
    is_above_gap = script.number != number and int(script.number or 0) > int(number)
    if not (has_twin or is_branch or is_above_gap) or (script.number, script.down_revision) == (number, below):
        raise ConfigurationError(
            f"{script.name} has a number of its own and stands in the line, so it keeps it. Nothing was changed.",
            next_step="vecmigrate check",
        )


def _rewritten(script: ScriptFile, number: str, below: str | None) -> str:
    """Return the text of a script with its new revision and the one before it."""
    with open(script.path, encoding="utf-8", newline="") as file:
        text = file.read()
    shown = f'"{below}"' if below else "None"
    for name, value in (("revision", f'"{number}"'), ("down_revision", shown)):
        text, count = re.subn(rf"(?m)^({name}(?:\s*:[^=\n]+)?\s*=\s*).*?(?=\r?$)", rf"\g<1>{value}", text, count=1)
        if not count:
            raise ConfigurationError(
                f"{script.name} has no line {name} = ... to rewrite. Nothing was changed.",
                next_step=f"write it into {script.path}, then run the same command again",
            )
    for name, value in (("Revision ID", number), ("Revises", below or "")):
        text = re.sub(rf"(?m)^({name}: ).*?(?=\r?$)", rf"\g<1>{value}", text, count=1)
    return text


def _test(
    project: Checkout, script: ScriptFile, name: str, number: str, below: str | None
) -> tuple[str | None, str | None]:
    """Return the text of the script's test under its new number, and its new path; None where it has none."""
    before = os.path.join(project.tests, test_name(script.stem))
    if not os.path.isfile(before):
        return None, None
    with open(before, encoding="utf-8", newline="") as file:
        text = file.read()
    text = re.sub(r"(?m)^(REVISION\s*=\s*).*?(?=\r?$)", rf'\g<1>"{number}"', text, count=1)
    text = re.sub(r"(?m)^(BELOW\s*=\s*).*?(?=\r?$)", rf'\g<1>"{below}"', text, count=1)
    text = text.replace(f'"""Revision {script.number},', f'"""Revision {number},', 1)
    return text, os.path.join(project.tests, test_name(name))


def _move(before: str, after: str, text: str) -> None:
    """Write a file under its new name, then remove the old one; the same name is replaced."""
    if before != after and os.path.lexists(after):
        raise ConfigurationError(
            f"{after} is there already.", next_step="move it away, then run the same command again"
        )
    replacement = f"{after}.new"
    with open(replacement, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(replacement, after)
    if before != after:
        os.remove(before)
