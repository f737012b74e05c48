"""Where the revision scripts are looked for: in the package, in a real checkout, and nowhere else."""

import shutil
from pathlib import Path

import pytest

import vecmigrate
from doors import ROOT, run_python, url
from scripts import Scripts
from vecmigrate.errors import ConfigurationError

_FROZEN = """
import sys
sys.path.insert(0, sys.argv[1])
import vecmigrate
assert vecmigrate.__file__.startswith(sys.argv[1]), vecmigrate.__file__
print(vecmigrate.ensure_current("sqlite:///" + sys.argv[2]).error)
"""


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Return the folder that a frozen application unpacks itself into, without the scripts, as PyInstaller makes it."""
    folder = tmp_path / "tmp" / "_MEI123"
    shutil.copytree(ROOT / "src" / "vecmigrate", folder / "vecmigrate", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("where", [".", ".."])
def test_scripts_that_somebody_put_near_a_frozen_application_are_not_run(
    where: str, unpacked: Path, tmp_path: Path
) -> None:
    """The package is incomplete, which is told with the option of PyInstaller; nothing from outside is imported."""
    planted = (unpacked / where).resolve() / "alembic"
    (planted / "versions").mkdir(parents=True)
    for name in ("env.py", "versions/000_planted.py"):
        (planted / name).write_text(f"open({str(tmp_path / 'proof')!r}, 'w')\n", encoding="utf-8")
    (planted.parent / "alembic.ini").write_text("[vecmigrate]\n", encoding="utf-8")

    done = run_python(_FROZEN, unpacked, tmp_path / "s.sqlite3")

    assert 0 == done.code, done.err
    assert "The package vecmigrate is incomplete" in done.out
    assert "--collect-all vecmigrate" in done.out
    assert not (tmp_path / "proof").exists()
    assert not (tmp_path / "s.sqlite3").exists()


def test_a_checkout_has_them_at_its_root(tmp_path: Path) -> None:
    """As `pip install -e` leaves it."""
    assert "migrated" == vecmigrate.ensure_current(url(tmp_path / "s.sqlite3"), on_failure="raise").state


def test_twins_are_told_with_both_files(scripts: Scripts, tmp_path: Path) -> None:
    """Two branches have made the same number: no warning of Alembic's, and both files by name."""
    first = scripts.add("pass")
    second = first.with_name(f"{first.name.partition('_')[0]}_of_another_branch.py")
    shutil.copy(first, second)

    with pytest.raises(ConfigurationError) as raised:
        vecmigrate.upgrade(url(tmp_path / "s.sqlite3"))

    assert " and ".join(sorted([first.name, second.name])) in raised.value.message
    last = max(first.stem, second.stem)
    assert f"of the one that is not released yet: vecmigrate new --renumber {last}" == raised.value.next_step


def test_twins_under_other_names_are_told_too(scripts: Scripts, tmp_path: Path) -> None:
    """A script may be named with one number and hold another."""
    first = scripts.add("pass")
    shutil.copy(first, first.with_name("900_of_another_branch.py"))

    with pytest.raises(ConfigurationError, match="present more than once"):
        vecmigrate.upgrade(url(tmp_path / "s.sqlite3"))
