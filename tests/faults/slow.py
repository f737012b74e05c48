"""A copy of the revision scripts in which one does something else, and processes that use it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doors import ROOT
from ladder import HEAD, NAMES
from vecmigrate import scripts_folder

# The rehearsal on an empty copy of the schema has no sessions, and must not be held up.
_SLOW = """
_upgrade = upgrade


def upgrade():
    _upgrade()
    if op.get_bind().exec_driver_sql("SELECT count(*) FROM sessions").scalar():
        print("in the long statement", flush=True)
        op.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {limit}) SELECT count(*) FROM n"
        )
"""
_PAUSING = """
_upgrade = upgrade


def upgrade():
    _upgrade()
    if op.get_bind().exec_driver_sql("SELECT count(*) FROM sessions").scalar():
        import time

        print("between statements", flush=True)
        time.sleep({seconds})
"""
_FAILING = """
import sqlalchemy as sa

_upgrade = upgrade


def upgrade():
    _upgrade()
    found = op.get_bind().exec_driver_sql("SELECT response_id FROM sessions").scalar()
    {statement}
"""


def slow_scripts(folder: Path, limit: int) -> Path:
    """Make scripts whose newest revision has one statement of so many rounds; a million are about 0.2 s."""
    return changed_scripts(folder, _SLOW.format(limit=limit))


def pausing_scripts(folder: Path, seconds: float) -> Path:
    """Make scripts whose newest revision does nothing for a while, after its last statement."""
    return changed_scripts(folder, _PAUSING.format(seconds=seconds))


def failing_scripts(folder: Path, statement: str) -> Path:
    """Make scripts whose newest revision ends with a statement; ``found`` is the contents of a row."""
    return changed_scripts(folder, _FAILING.format(statement=statement))


def changed_scripts(folder: Path, more: str) -> Path:
    """Make scripts whose newest revision goes on with these lines, and the configuration that names them."""
    copied = Path(shutil.copytree(ROOT / "alembic", folder / "scripts"))
    script = copied / "versions" / f"{HEAD}_{NAMES[HEAD]}.py"
    script.write_text(script.read_text(encoding="utf-8") + more, encoding="utf-8")
    ini = (ROOT / "alembic.ini").read_text(encoding="utf-8").replace("%(here)s/alembic", str(copied))
    (folder / "alembic.ini").write_text(ini, encoding="utf-8")
    return folder


def with_scripts(folder: str, action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function as if the package had been installed with other scripts."""
    scripts_folder._HERE = folder
    # Away from the alembic.ini of the checkout, which names the real scripts.
    os.chdir(folder)
    action(*arguments)
