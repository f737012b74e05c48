"""Whoever adds a revision to the project changes no test: they read the ladder, and know nothing of its head."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from doors import ROOT
from ladder import COMPATIBLE_FROM, HEAD, NEWEST, NEXT

PARTS = ("alembic", "alembic.ini", "src", "tests", "docs", "README.md", "CHANGELOG.md", "pyproject.toml")
SCRIPT = '''"""Change nothing

Revision ID: {revision}
Revises: {below}
"""

revision = "{revision}"
down_revision = "{below}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
'''
ENTRY = '\n["{version}"]\nrevision = "{revision}"\ncompatible_from = "{oldest}"\n'
TESTS = ("test_ladder.py", "test_app_versions.py", "test_history.py", "test_doors.py")
OF_THE_RELEASE = "test_the_map_of_the_head_is_the_version_of_the_package"
"""The version of the package is raised with a release, and is not what is tried here."""
LEFT_OUT = ("-alembic", "killed", "early", "old-script", "crashes", "repeated", "thousand", "damaged", "not_cleared")
OF_A_FILE = ("link", "longest", "long_name", "every_door", "any_name")
"""For time: processes of their own, two of the four shapes, and what is tried of the file of the mirror alone."""


def test_another_revision_changes_no_test(tmp_path: Path) -> None:
    """With one revision more, entered in the map, the tests of a copy of the project hold as they are."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    script = tmp_path / "alembic" / "versions" / f"{NEXT}_nothing.py"
    script.write_text(SCRIPT.format(revision=NEXT, below=HEAD), encoding="utf-8")
    with (tmp_path / "src" / "vecmigrate" / "app_versions.toml").open("a", encoding="utf-8") as file:
        file.write(ENTRY.format(version=f"{NEWEST}.1", revision=NEXT, oldest=COMPATIBLE_FROM[HEAD]))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
        + ["-k", " and ".join(f"not {name}" for name in (OF_THE_RELEASE, *LEFT_OUT, *OF_A_FILE))]
        + [str(tmp_path / "tests" / name) for name in TESTS],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert 0 == done.returncode, done.stdout[-4000:] + done.stderr[-1000:]
    assert f"[{NEXT}_nothing.py] PASSED" in done.stdout
