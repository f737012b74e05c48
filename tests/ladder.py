"""The ladder as the project has it: read from the scripts and the map, so that a new revision changes no test."""

import tomllib
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_SCRIPTS = sorted((_ROOT / "alembic" / "versions").glob("[0-9]*.py"))
_MAP = tomllib.loads((_ROOT / "src" / "vecmigrate" / "app_versions.toml").read_text(encoding="utf-8"))

REVISIONS = [path.name.partition("_")[0] for path in _SCRIPTS]
"""Every revision, base to head."""
HEAD = REVISIONS[-1]
BELOW_HEAD = REVISIONS[-2]
NEXT = f"{int(HEAD) + 1:03d}"
"""The number that the next revision gets, which no revision has yet."""
NAMES = {path.stem.partition("_")[0]: path.stem.partition("_")[2] for path in _SCRIPTS}
"""The name of each revision, as in the name of its file."""
APP_VERSIONS = {entry["revision"]: version for version, entry in _MAP.items()}
"""The app version of each revision."""
NEWEST = APP_VERSIONS[HEAD]
MIGRATION_IDS = [f"{APP_VERSIONS[revision]}_{NAMES[revision]}" for revision in REVISIONS]
COMPATIBLE_FROM = {entry["revision"]: entry.get("compatible_from", version) for version, entry in _MAP.items()}
"""The oldest app version that may run on each revision."""


def above(revision: str) -> list[str]:
    """Return the revisions above one, lowest first."""
    return REVISIONS[REVISIONS.index(revision) + 1 :]
