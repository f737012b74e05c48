"""Migrations for services that keep vector stores; see the README.

Importing this package is light: SQLAlchemy and Alembic are imported when something needs them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vecmigrate.api import (
        alembic_config,
        backup,
        doctor,
        reembed,
        restore,
        rollback,
        status,
        upgrade,
    )
    from vecmigrate.boot import BootReport, ensure_current
    from vecmigrate.embedding.active import active_model
    from vecmigrate.errors import VecmigrateError
    from vecmigrate.progress import Progress
    from vecmigrate.schema import include_name, metadata

__all__ = [
    "BootReport",
    "Progress",
    "VecmigrateError",
    "__version__",
    "active_model",
    "alembic_config",
    "backup",
    "doctor",
    "ensure_current",
    "include_name",
    "metadata",
    "reembed",
    "restore",
    "rollback",
    "status",
    "upgrade",
]

_HOMES = {
    "BootReport": "vecmigrate.boot",
    "Progress": "vecmigrate.progress",
    "VecmigrateError": "vecmigrate.errors",
    "active_model": "vecmigrate.embedding.active",
    "ensure_current": "vecmigrate.boot",
    "include_name": "vecmigrate.schema",
    "metadata": "vecmigrate.schema",
    **dict.fromkeys(
        ("alembic_config", "backup", "doctor", "reembed", "restore", "rollback", "status", "upgrade"), "vecmigrate.api"
    ),
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - lightness is a promise

        return version("vecmigrate")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Unlike importlib.import_module this imports nothing of its own, and so costs a boot half a millisecond less.
    return getattr(__import__(_HOMES[name], fromlist=[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
