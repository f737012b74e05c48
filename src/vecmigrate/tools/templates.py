"""A new revision of a project: its script, its line in the app-version map, and its test."""

import os
import re
from dataclasses import asdict, dataclass

from alembic.script import ScriptDirectory
from packaging.version import Version
from sqlalchemy import Table, Text

from vecmigrate.access import one_at_a_time
from vecmigrate.errors import ConfigurationError
from vecmigrate.schema import metadata
from vecmigrate.steps import unannounced
from vecmigrate.tools import script_files, version_map
from vecmigrate.tools.checkout import Checkout

__all__ = ["TEMPLATES", "Written", "new", "test_name"]

TEMPLATES = ("schema", "data", "embedding-model")
_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Written:
    """What was written. Paths are absolute; ``test_path`` and ``app_version`` are None where there is none."""

    revision: str
    path: str
    test_path: str | None
    app_version: str | None

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


def new(project: Checkout, message: str, *, template: str = "schema", app_version: str | None = None) -> Written:
    """Write the next numbered revision of a template, enter it in the map, and write its test.

    Nothing is written over. Raises ConfigurationError for a project whose revisions are no line, TargetError for an
    app version that is not above the others.
    """
    slug = _slug(message)
    below = _top(project)
    revision = f"{int(below) + 1:03d}"
    path = os.path.join(project.versions, f"{revision}_{slug}.py")
    test_path = os.path.join(project.tests, test_name(f"{revision}_{slug}"))
    for each in (path, test_path):
        _require_free(each)
    entered = _entered(project, app_version, revision)
    sentence = message[:1].upper() + message[1:].rstrip(".") + "."
    with one_at_a_time, unannounced():
        _write_script(project, path, template=template, below=below, sentence=sentence)
    _write(test_path, _test(template, revision, below, message))
    if entered:
        entered[0].write()
    return Written(revision, path, test_path, entered[1] if entered else None)


def test_name(stem: str) -> str:
    """Return the name of the file with the test of a script."""
    return f"test_revision_{stem}.py"


def _slug(message: str) -> str:
    slug = "_".join(re.findall(r"[a-z0-9]+", message.lower()))[:40].strip("_")
    if not slug:
        raise ConfigurationError(
            f"{message!r} has no letter or digit that the name of a file could be made of. Nothing was changed.",
            next_step='say in a few words what changes: vecmigrate new "add tags"',
        )
    return slug


def _top(project: Checkout) -> str:
    """Return the number of the newest script, which the next one follows."""
    files = [each for each in script_files.read(project.versions) if each.number]
    twins = script_files.twins(files)
    below = {each.down_revision for each in files}
    heads = [each for each in files if each.number not in below]
    if twins or len(heads) > 1:
        names = twins[0] if twins else heads
        raise ConfigurationError(
            f"{' and '.join(each.name for each in names)} are of two branches, so there is no newest one. "
            "Nothing was changed.",
            next_step=f"of the one that is not released yet: vecmigrate new --renumber {names[-1].stem}",
        )
    if not heads:
        raise ConfigurationError(
            f"There is no revision script in {project.versions} that is the newest. Nothing was changed.",
            next_step="vecmigrate check",
        )
    return str(heads[0].number)


def _require_free(path: str) -> None:
    if os.path.lexists(path):
        raise ConfigurationError(
            f"{path} is there already. Nothing was changed.", next_step="move it away, or give another message"
        )


def _entered(project: Checkout, version: str | None, revision: str) -> tuple[version_map.VersionMap, str] | None:
    """Return the map with a new entry, not written yet; None for a project without a map of its own."""
    if project.map_file is None:
        if version is not None:
            raise ConfigurationError(
                f"This project has no src/vecmigrate/app_versions.toml to enter {version} in. Nothing was changed.",
                next_step="leave --app-version out, or run it in a checkout of vecmigrate",
            )
        return None
    text = version_map.opened(project.map_file)
    chosen = text.next_version(project.version) if version is None else text.checked(version)
    text.enter(chosen, revision)
    return text, str(Version(chosen))


def _write_script(project: Checkout, path: str, *, template: str, below: str, sentence: str) -> None:
    revision, _, slug = os.path.splitext(os.path.basename(path))[0].partition("_")
    if template == "embedding-model":
        values = {"revision": revision, "below": below, "message": sentence, "model": "my-organization/my-model"}
        _write(path, _filled_in("embedding_model.py.txt", values))
        return
    table = _table()
    texts = _schema(table, slug) if template == "schema" else _data(table)
    script = ScriptDirectory.from_config(project.config)
    script.messaging_opts = {"quiet": True}
    written = script.generate_revision(revision, sentence, changes=texts, upgrades=_UP, downgrades=_DOWN, imports="")
    if written is not None and written.path != path:
        os.replace(written.path, path)


_UP, _DOWN = "op.rebuild_table(**CHANGE)", "op.restore_table(**CHANGE)"


def _table() -> Table:
    """Return the table that the example in a new script is about: the first one with a key of one column."""
    return next(each for each in metadata.tables.values() if len(each.primary_key.columns) == 1)


def _schema(table: Table, slug: str) -> str:
    name = re.sub(r"^add_(?=[a-z])", "", slug)
    name = f"{name}_" if name in table.columns else name
    lines = [
        "# What changes, told once for both directions. Write your table, its key and your columns here:",
        '# "add", "drop" and "change" as docs/writing-revisions.md shows them, and the same in the models (schema.py).',
        *_change(table),
        f'    "add": [sa.Column("{name}", sa.Text())],',
        "}",
    ]
    return "\n".join(lines)


def _data(table: Table) -> str:
    needed = (each for each in table.columns if not (each.nullable or each.primary_key))
    name = next(each.name for each in needed if isinstance(each.type, Text))
    column = f'sa.Column("{name}", sa.Text(), nullable=False)'
    lines = [
        "# The values that change, told once for both directions. `up` gives what a value becomes, `down` what it was;",
        "# a value that could not be told back is kept, and returns where nobody has changed it meanwhile.",
        *_change(table),
        f'    "change": {{"{name}": ({column}, {column})}},',
        f'    "up": {{"{name}": lambda row: row["{name}"]}},',
        f'    "down": {{"{name}": lambda row: row["{name}"]}},',
        "}",
    ]
    return "\n".join(lines)


def _change(table: Table) -> list[str]:
    key = next(iter(table.primary_key.columns)).name
    return ["CHANGE = {", f'    "table": "{table.name}",', '    "revision": revision,', f'    "key": "{key}",']


def _test(template: str, revision: str, below: str, message: str) -> str:
    values = {"revision": revision, "below": below, "message": message.rstrip(".")}
    values["expected"] = "assert below == above" if template == "data" else "assert below != above"
    if template == "data":
        values["expected"] += "  # Until the script changes something."
    return _filled_in("test_revision.py.txt", values)


def _filled_in(name: str, values: dict[str, str]) -> str:
    with open(os.path.join(_HERE, "scripts", name), encoding="utf-8") as file:
        text = file.read()
    # Not by format(): braces have a meaning in Python.
    for key, value in values.items():
        text = text.replace("{" + key + "}", value)
    return text


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
