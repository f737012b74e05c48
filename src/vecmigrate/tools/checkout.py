"""The project that revisions are written in: a checkout, or a folder with an ``alembic.ini`` of its own."""

import os
import tomllib
from dataclasses import dataclass
from importlib import metadata

from alembic.config import Config

from vecmigrate import app_versions, settings
from vecmigrate.access import alembic_config
from vecmigrate.errors import ConfigurationError

__all__ = ["Checkout", "of_ini", "of_package"]

_MAP = os.path.join("src", "vecmigrate", "app_versions.toml")


@dataclass(frozen=True)
class Checkout:
    """Where the parts of a project are. ``ini`` is None for the scripts of the package itself.

    ``map_file`` is the project's own app-version map, None where it has none and the package's counts.
    """

    ini: str | None
    scripts: str
    map_file: str | None

    @property
    def versions(self) -> str:
        return os.path.join(self.scripts, "versions")

    @property
    def tests(self) -> str:
        return os.path.join(os.path.dirname(self.ini or self.scripts), "tests")

    @property
    def version(self) -> str:
        """The version of the project as its pyproject.toml has it, else that of the package. Read-only."""
        try:
            with open(os.path.join(os.path.dirname(self.ini or self.scripts), "pyproject.toml"), "rb") as file:
                return str(tomllib.load(file)["project"]["version"])
        except (OSError, tomllib.TOMLDecodeError, KeyError):
            return metadata.version("vecmigrate")

    @property
    def config(self) -> Config:
        """The configuration of Alembic for its scripts."""
        config = alembic_config()
        config.set_main_option("script_location", self.scripts.replace("%", "%%"))
        return config

    @property
    def is_what_runs(self) -> bool:
        """Tell whether the map that vecmigrate reads in this process is the project's."""
        return self.map_file is None or os.path.realpath(self.map_file) == os.path.realpath(app_versions.MAP_FILE)

    def shown(self, path: str) -> str:
        """Return a path as it is seen from the project."""
        return os.path.relpath(path, os.path.dirname(self.ini)) if self.ini else path


def of_package() -> Checkout:
    """Return the scripts of the package that runs."""
    return Checkout(None, alembic_config().get_main_option("script_location") or "", None)


def of_ini(ini: str) -> Checkout:
    """Return the project of an ``alembic.ini``. Read-only. Raises ConfigurationError where it names no scripts."""
    scripts = (settings.read_ini(ini) or {}).get("script_location")
    if not scripts or not os.path.isdir(os.path.join(scripts, "versions")):
        raise ConfigurationError(
            f"{ini} names no folder of revision scripts: script_location in [alembic], with a folder versions in it. "
            "Nothing was changed.",
            next_step="run it in a checkout of vecmigrate, or name its file: vecmigrate --config PATH/alembic.ini ...",
        )
    own = os.path.join(os.path.dirname(ini), _MAP)
    return Checkout(ini, os.path.abspath(scripts), own if os.path.isfile(own) else None)
