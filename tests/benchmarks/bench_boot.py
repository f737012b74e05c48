"""Measure a boot with nothing to do: in process and as a whole process, at 3 and at 1,000 revisions.

Run it by itself: ``python tests/benchmarks/bench_boot.py``. What is compared is measured alternately, in one
run, and told as ratios of medians; it exits with 1 when a goal is missed.
"""

import gc
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

from alembic import command

import vecmigrate
from vecmigrate import access, scripts_folder

ROOT = Path(__file__).parent.parent.parent
IN_PROCESS_ROUNDS = 600
PROCESS_ROUNDS = 60
ALEMBIC_ROUNDS = 8

FLOOR = (
    "import sqlite3; c = sqlite3.connect({path!r}); "
    "c.execute('SELECT version_num FROM vecmigrate_version').fetchone(); c.close()"
)
BOOT = "import vecmigrate; vecmigrate.ensure_current({url!r})"
ELSEWHERE = "from vecmigrate import scripts_folder; scripts_folder.script_location = lambda: {scripts!r}; "

EMPTY_REVISION = '''"""Nothing."""

revision = "{number:03d}"
down_revision = "{before:03d}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
'''

INI = """[alembic]
script_location = {scripts}
path_separator = os

[vecmigrate]
database_url = sqlite:///{path}
"""

Work = Callable[[], object]


def medians(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Return the median seconds of each piece of work, all of them run once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    gc.disable()
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    gc.enable()
    return {name: statistics.median(values) for name, values in seconds.items()}


def process(*arguments: str, cache: Path) -> Work:
    """Return the work of a whole process, whose bytecode is compiled once, as that of an installed package is."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(cache)

    def run() -> object:
        return subprocess.run([sys.executable, *arguments], check=True, env=environ, cwd=cache.parent)

    run()
    return run


def read_version(path: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("SELECT version_num FROM vecmigrate_version").fetchone()
    connection.close()


def with_revisions(folder: Path, count: int) -> Path:
    """Copy the revision scripts, and add empty ones up to a count."""
    scripts = folder / "scripts"
    shutil.copytree(ROOT / "alembic", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    for number in range(len(list((scripts / "versions").glob("*.py"))), count):
        text = EMPTY_REVISION.format(number=number, before=number - 1)
        (scripts / "versions" / f"{number:03d}_empty.py").write_text(text, encoding="utf-8")
    return scripts


def measure(count: int) -> list[tuple[str, float, float, float]]:
    """Return (what, median seconds, ratio, goal) at a number of revisions; a goal below 0 is a least ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scripts, path = str(with_revisions(folder, count)), str(folder / "service.sqlite3")
        url = f"sqlite:///{path}"
        with (
            mock.patch.object(scripts_folder, "script_location", partial(str, scripts)),
            mock.patch.object(access, "script_location", partial(str, scripts)),
        ):
            assert vecmigrate.ensure_current(url, on_failure="raise").state == "migrated"
            assert vecmigrate.ensure_current(url).state == "current"
            return in_process(path, url) + whole_process(folder, scripts, path, url)


def in_process(path: str, url: str) -> list[tuple[str, float, float, float]]:
    config = vecmigrate.alembic_config(url)
    boots = {"floor": lambda: read_version(path), "boot": lambda: vecmigrate.ensure_current(url)}
    seconds = medians(boots, IN_PROCESS_ROUNDS)
    alembic = medians({"alembic": lambda: command.upgrade(config, "head")}, ALEMBIC_ROUNDS)["alembic"]
    floor, boot = seconds["floor"], seconds["boot"]
    return [
        ("in process, boot against the floor", boot, boot / floor, 2.0),
        ("in process, alembic upgrade head against boot", alembic, alembic / boot, -1.0),
    ]


def whole_process(folder: Path, scripts: str, path: str, url: str) -> list[tuple[str, float, float, float]]:
    ini, cache = folder / "alembic.ini", folder / "cache"
    ini.write_text(INI.format(scripts=scripts, path=path), encoding="utf-8")
    boots = {
        "floor": process("-c", FLOOR.format(path=path), cache=cache),
        "boot": process("-c", ELSEWHERE.format(scripts=scripts) + BOOT.format(url=url), cache=cache),
    }
    upgrade = process("-m", "alembic", "-c", str(ini), "upgrade", "head", cache=cache)
    seconds = medians(boots, PROCESS_ROUNDS)
    alembic = medians({"alembic": upgrade}, ALEMBIC_ROUNDS)["alembic"]
    floor, boot = seconds["floor"], seconds["boot"]
    return [
        ("whole process, boot against the floor", boot, boot / floor, 1.3),
        ("whole process, alembic upgrade head against boot", alembic, alembic / boot, -8.0),
    ]


def main() -> int:
    missed = 0
    for count in (3, 1000):
        print(f"{count} revisions")  # noqa: T201 - this is its output
        for what, seconds, ratio, goal in measure(count):
            is_met = ratio <= goal if goal > 0 else ratio >= -goal
            missed += not is_met
            wanted = f"at {'most' if goal > 0 else 'least'} {abs(goal):g}"
            print(f"  {what:50} {seconds * 1000:9.3f} ms  {ratio:7.2f} times ({wanted})")  # noqa: T201 - the same
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
