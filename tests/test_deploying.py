"""The recipes of docs/deploying.md, as far as they run without their platform."""

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import legacy
from doors import ROOT, url
from ladder import HEAD
from vecmigrate import errors
from vecmigrate.cli import cli

TEXT = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def start(folder: Path, database: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a command by the entrypoint of the container, with the database named in the environment."""
    script = folder / "entrypoint.sh"
    script.write_text(blocks("sh")[0], encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["/bin/sh", str(script), *command],
        env={"PATH": path, "VECMIGRATE_DATABASE_URL": url(database), **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_entrypoint_migrates_and_then_becomes_the_service(released_file: Path, tmp_path: Path) -> None:
    """The service starts on a database at head, and its exit code is that of the container."""
    done = start(tmp_path, released_file, "sh", "-c", "echo serving; exit 7")

    assert 7 == done.returncode, done.stderr
    assert done.stdout.endswith("serving\n")
    assert HEAD == legacy.revision(released_file)


def test_the_entrypoint_ends_with_6_on_a_database_of_somebody_else(released_file: Path, tmp_path: Path) -> None:
    """The service does not start, and the container ends with the code of vecmigrate."""
    legacy.execute(released_file, "DROP TABLE stores", "CREATE TABLE stores (somebody TEXT)")

    done = start(tmp_path, released_file, "echo", "serving")

    assert 6 == done.returncode
    assert "serving" not in done.stdout
    assert "Next: " in done.stderr


def test_the_entrypoint_ends_with_4_on_a_locked_database(released_file: Path, tmp_path: Path) -> None:
    """A database that stays locked ends the container with 4, which is worth another try."""
    with legacy.opened(released_file) as connection:
        connection.execute("BEGIN IMMEDIATE")
        done = start(tmp_path, released_file, "echo", "serving", VECMIGRATE_LOCK_TIMEOUT="0.2")

    assert 4 == done.returncode
    assert "serving" not in done.stdout


def test_the_table_has_every_exit_code() -> None:
    """Every exit code of an error is explained, beside those of success, usage, pending and signals."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    explained = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", TEXT, flags=re.MULTILINE) for code in row.split(",")
    }

    assert {0, 2, 3, 143} | {kind.exit_code for kind in kinds} == explained


def test_only_what_a_retry_can_change_is_retried() -> None:
    """The job and the unit give up on the same codes: all but success, locked and signals."""
    unit = next(each for each in blocks("ini") if "oneshot" in each)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(unit)
    in_unit = parser["Service"]["RestartPreventExitStatus"].split()
    in_job = re.search(r"values: \[(.*?)\]", TEXT)

    assert in_job is not None
    assert ["1", "2", "5", "6"] == in_unit == in_job[1].split(", ")


def commands() -> list[list[str]]:
    """Return the words after `vecmigrate` of every command that the recipes run."""
    lists = re.findall(r'^\s+command: \["vecmigrate", (.*?)\]', TEXT, flags=re.MULTILINE)
    found = [[word.strip(' "') for word in each.split(",")] for each in lists]
    scripts = "\n".join(blocks("sh") + blocks("ini"))
    lines = re.findall(r"^(?:ExecStart=\S*/)?vecmigrate (.*)$", scripts, flags=re.MULTILINE)
    return found + [shlex.split(line) for line in lines]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_of_the_recipes_exists(words: list[str]) -> None:
    """Commands and options in the recipes are those of the command line."""
    command = cli.get_command(click.Context(cli), words[0])

    assert command is not None
    assert set(words[1:]) <= {option for parameter in command.params for option in parameter.opts}


def test_the_recipes_run_something() -> None:
    """The container, both Kubernetes recipes and systemd run the migration."""
    assert 4 == commands().count(["migrate"])
