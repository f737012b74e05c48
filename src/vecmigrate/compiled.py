"""SQL that SQLAlchemy has compiled for SQLite, kept for all engines of the process."""

from typing import Any

from sqlalchemy.engine import Dialect

__all__ = ["OF_SQLITE"]

_MOST = 1000


class _Shared(dict[Any, Any]):
    """A ``compiled_cache`` whose keys leave the dialect out: each engine has one of its own, and all are alike.

    See https://docs.sqlalchemy.org/en/20/core/connections.html#disabling-or-using-an-alternate-dictionary-to-cache-some-or-all-statements
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_without_dialect(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        if len(self) >= _MOST:
            self.clear()
        super().__setitem__(_without_dialect(key), compiled)


def _without_dialect(key: Any) -> Any:
    first, *others = key
    return tuple(others) if isinstance(first, Dialect) else key


OF_SQLITE = _Shared()
