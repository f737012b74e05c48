"""Copies of the revision scripts that a test may add to."""

import shutil
import textwrap
from pathlib import Path

import pytest

from doors import ROOT
from ladder import HEAD, NEXT
from vecmigrate import scripts_folder


class Scripts:
    """A copy of the folder of scripts that vecmigrate uses instead of its own, in this process and by ``ini``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = folder / "package"
        shutil.copytree(ROOT / "alembic", package / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        text = (ROOT / "alembic.ini").read_text(encoding="utf-8")
        self.ini = package / "alembic.ini"
        self.ini.write_text(text.replace("%(here)s/alembic", "%(here)s/scripts"), encoding="utf-8")
        self.versions = package / "scripts" / "versions"
        monkeypatch.setattr(scripts_folder, "_HERE", str(package))
        monkeypatch.setattr(scripts_folder, "_newest", None)
        # Away from the alembic.ini of the checkout, which names the real scripts.
        monkeypatch.chdir(package)

    def add(self, upgrade: str, *, revision: str = NEXT, down: str = HEAD, downgrade: str = "pass") -> Path:
        """Add a revision with the given bodies."""
        path = self.versions / f"{revision}_added.py"
        head = f'"""Added by a test.\n\nRevision ID: {revision}\n"""\n\n'
        head += "import os\nimport signal\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n"
        head += f'revision = "{revision}"\ndown_revision = "{down}"\nbranch_labels = None\ndepends_on = None\n\n\n'
        bodies = (("upgrade", upgrade), ("downgrade", downgrade))
        functions = [
            f"def {name}():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n" for name, body in bodies
        ]
        path.write_text(head + "\n\n".join(functions), encoding="utf-8")
        return path
