"""The documents say what is true: every command and option is there, and every example does what it shows."""

import contextlib
import inspect
import io
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import pytest

import legacy
from doors import ROOT, Result, run_alembic, run_cli
from vecmigrate import errors, settings
from vecmigrate.cli import cli

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN_FOLDER = "/srv/app"
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"\s+# exits with (\d+)$")
_CHANGING = (
    (re.compile(r"\d{8}T\d{6}\.\d{6}Z"), "STAMP"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?"), "TIME"),
    (re.compile(r"\d+\.\d{2,3}\b(?! 0)"), "SECONDS"),
    (re.compile(r"\b\d{1,3}(,\d{3})+\b"), "BYTES"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"(?<=TIME )\d{5,}"), "BYTES"),
)


def blocks(language: str) -> list[str]:
    return [match["text"] for match in _BLOCK.finditer(README) if match["language"] == language]


@dataclass(frozen=True)
class Example:
    """A command in the README, the exit code it is said to have, and what it is said to print."""

    words: tuple[str, ...]
    code: int
    output: tuple[str, ...]


def examples() -> list[Example]:
    """Return every command of vecmigrate and Alembic in a block of the README, in order."""
    found = []
    for match in _BLOCK.finditer(README):
        if match["language"] == "console":
            parts = re.split(r"^\$ ", match["text"], flags=re.MULTILINE)[1:]
            found += [_example(*part.rstrip("\n").split("\n")) for part in parts]
        elif match["language"] == "sh":
            found += [_example(line) for line in match["text"].splitlines()]
    return [example for example in found if example.words[0] in {"vecmigrate", "alembic", "export", "unset"}]


def _example(command: str, *output: str) -> Example:
    stated = _EXIT.search(command)
    return Example(
        tuple(shlex.split(_EXIT.sub("", command).partition(" > ")[0])), int(stated[1]) if stated else 0, output
    )


def normalised(text: str, folder: str = SHOWN_FOLDER) -> list[str]:
    """Return the lines without what differs from run to run."""
    text = text.replace(folder, SHOWN_FOLDER)
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.splitlines()]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the README's tour: a released database with odd times, and a copy of our Alembic project."""
    folder = tmp_path / "app"
    folder.mkdir()
    legacy.add_fractions(legacy.build(folder / "sessions.sqlite3", "released"))
    shutil.copy(ROOT / "alembic.ini", folder)
    shutil.copytree(ROOT / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    return folder


def run(example: Example, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    program, *arguments = example.words
    if program == "export":
        name, _, value = arguments[0].partition("=")
        monkeypatch.setenv(name, value.replace(SHOWN_FOLDER, str(folder)))
    elif program == "unset":
        monkeypatch.delenv(arguments[0])
    elif program == "alembic":
        return run_alembic(None, *arguments, ini=folder / "alembic.ini")
    else:
        return run_cli(*arguments)
    return Result(0, "", "")


def test_every_example_of_the_readme_does_what_it_shows(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one after the other, each command ends with the exit code and prints the lines that stand below it."""
    for example in examples():
        result = run(example, service, monkeypatch)
        shown = shlex.join(example.words)
        assert (shown, example.code) == (shown, result.code), result.err
        if example.output:
            expected = normalised("\n".join(example.output))
            assert (shown, expected) == (shown, normalised(result.err + result.out, str(service)))


def test_the_tour_shows_what_its_commands_print() -> None:
    """Each command of a console block has its output below it."""
    consoles = "".join(blocks("console"))
    assert [] == [
        example.words for example in examples() if f"$ {shlex.join(example.words)}" in consoles and not example.output
    ]


def test_the_python_examples_run(service: Path) -> None:
    """The Python that names the database of the tour runs on it."""
    ours = [text for text in blocks("python") if SHOWN_FOLDER in text]
    assert 2 <= len(ours)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for text in ours:
            exec(compile(text.replace(SHOWN_FOLDER, str(service)), "README.md", "exec"), {})  # noqa: S102 - ours
    assert "current\n0\n" == printed.getvalue()


def commands(group: click.Group, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        else:
            yield (*above, name), command


COMMANDS = dict(commands(cli))
COMMAND_LINES = [line for line in README.splitlines() if line.startswith("| `")]


def options(command: click.Command) -> list[str]:
    named: Sequence[click.Parameter] = [each for each in command.params if isinstance(each, click.Option)]
    return [max(each.opts, key=len) for each in named]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_in_the_readme(words: tuple[str, ...]) -> None:
    """The table of commands has each command, and each option beside its command."""
    mine = [
        line
        for line in COMMAND_LINES
        if line.startswith(f"| `{' '.join(words)}") and line[3 + len(" ".join(words))] in "` "
    ]
    missing = [name for name in options(COMMANDS[words]) if name != "--json" and not any(name in line for line in mine)]
    assert (True, []) == (bool(mine), missing)
    assert "Every command has `--json`." in README
    assert "--json" in options(COMMANDS[words])


def test_every_global_option_is_in_the_readme() -> None:
    """The table of options has each option of the program itself, short forms too."""
    names = [name for each in cli.params for name in each.opts]
    assert [] == [name for name in names if not any(f"`{name}" in line for line in COMMAND_LINES)]


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    """Each first word of the table of commands is a command or an option."""
    table = README.partition("| command | what it does |")[2].partition("\n\n")[0]
    named = {match[1] for match in re.finditer(r"^\| `([a-z]+)", table, re.MULTILINE)}
    assert set(cli.commands) == named


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example(words: tuple[str, ...]) -> None:
    """Help is printed with exit code 0, and shows a whole command line on a line of its own."""
    result = run_cli(*words, "--help")
    assert 0 == result.code
    lines = [line.strip() for line in result.out.splitlines()]
    assert any(line.startswith("vecmigrate ") and f" {' '.join(words)}" in line for line in lines)


def test_the_settings_of_the_readme_are_those_of_the_code() -> None:
    """The table of settings has every setting, its variable and its default."""
    rows = re.findall(r"^\| `(\w+)` \| `(VECMIGRATE_\w+)` \| (.*?) \|", README, re.MULTILINE)
    assert [(name, f"VECMIGRATE_{name.upper()}") for name in settings.NAMES] == [row[:2] for row in rows]
    shown = {name: default for name, _, default in rows}
    plain = settings.Settings(database_url="")
    assert (f"`{plain.backup}`", str(plain.keep_backups), f"{plain.lock_timeout:g}") == (
        shown["backup"],
        shown["keep_backups"],
        shown["lock_timeout"],
    )


def test_the_exit_codes_of_the_readme_are_those_of_the_code() -> None:
    """Every exit code of an error is in the table, and the table has no others than those of DESIGN."""
    table = README.partition("## Exit codes")[2].partition("\n## ")[0]
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    raised = {getattr(errors, name).exit_code for name in errors.__all__}
    assert {0, 1, 2, 3, 4, 5, 6, 130, 143} == shown
    assert set() == raised - shown


def test_every_function_of_the_package_is_in_the_readme() -> None:
    """Whatever ``import vecmigrate`` offers is named, so that nobody has to read the source for it."""
    import vecmigrate  # noqa: PLC0415 - to read its __all__ only here

    text = re.sub(r"\s+", " ", README)
    assert [] == [name for name in vecmigrate.__all__ if name not in text]


def test_the_signatures_of_the_readme_are_those_of_the_code() -> None:
    """Each function that is listed takes what stands there, in that order and with these defaults."""
    import vecmigrate  # noqa: PLC0415 - to read its functions only here

    listed = next(text for text in blocks("text") if text.startswith("status("))
    names = re.findall(r"^\w+", listed, re.MULTILINE)
    assert [f"{name}{_signature(vecmigrate, name)}" for name in names] == listed.replace('"', "'").splitlines()


def _signature(package: ModuleType, name: str) -> str:
    found = inspect.signature(getattr(package, name))
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()]
    return str(inspect.Signature(plain))


@pytest.mark.parametrize(
    "document", sorted({"README.md", "CHANGELOG.md"} | {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")})
)
def test_links_lead_somewhere(document: str) -> None:
    """A relative link names a file that is there, an anchor a heading."""
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    broken = [
        target
        for target in targets
        if not target.startswith(("http://", "https://"))
        and not (target[1:] in anchors if target.startswith("#") else (path.parent / target.partition("#")[0]).exists())
    ]
    assert [] == broken


def test_the_changelog_has_the_version_of_the_package() -> None:
    """The newest heading of the changelog is the version that pip installs."""
    declared = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared
    assert newest
    assert declared[1] == newest[1]
