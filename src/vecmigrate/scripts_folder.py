"""Where the revision scripts are, and which one is the newest; as light as ``os``."""

import os

__all__ = ["newest_revision", "script_location"]

_HERE = os.path.dirname(os.path.abspath(__file__))
_newest: "tuple[int, str] | None" = None


def script_location() -> str:
    """Return the folder of ``env.py``: inside the installed package, or at the root of a checkout."""
    root = os.path.dirname(os.path.dirname(_HERE))
    # A folder "alembic" two floors above a frozen application may be anybody's.
    is_checkout = os.path.join(root, "src", "vecmigrate") == _HERE and os.path.isfile(os.path.join(root, "alembic.ini"))
    installed = os.path.join(_HERE, "scripts")
    return os.path.join(root, "alembic") if is_checkout and not os.path.isdir(installed) else installed


def newest_revision() -> str:
    """Return the revision of the highest numbered script, from the names of the files. Read-only.

    Remembered in the process for as long as the folder does not change. Raises OSError, ValueError.
    """
    global _newest  # noqa: PLW0603 - a cache of one value
    versions = os.path.join(script_location(), "versions")
    changed = os.stat(versions).st_mtime_ns
    if _newest is None or _newest[0] != changed:
        numbers = (name.partition("_")[0] for name in os.listdir(versions) if name.endswith(".py"))
        _newest = (changed, max((number for number in numbers if number.isdigit()), key=int))
    return _newest[1]
