"""How a service calls: what it passes to name its database, in which thread that lives, and whether it may at all."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import await_only

from vecmigrate.engine import locate
from vecmigrate.errors import ConfigurationError
from vecmigrate.forks import gate

__all__ = ["called", "taking_connections"]

P = ParamSpec("P")
T = TypeVar("T")


def called(url: Any, work: Callable[[Any], T]) -> T:
    """Return what *work* makes of the URL, the path or the Engine that *url* stands for.

    Of a Connection to a file or a server that is its URL. One to memory is used itself: of an asynchronous driver in
    the thread of that driver, while the event loop goes on. Raises ConfigurationError for one with a transaction open.
    """
    if not isinstance(url, Connection):
        return _inside(work, url)
    named = locate(url.engine.url)
    if named.path is not None or not named.is_sqlite:
        return _inside(work, url.engine.url)
    pooled: Any = url.connection
    driver = pooled.driver_connection
    if not url.dialect.is_async:
        return _inside(work, _engine_on(driver))
    # Its connection of sqlite3 may be used by no other thread than its own.
    result: T = await_only(driver._execute(lambda: _inside(work, _engine_on(driver._conn))))  # noqa: SLF001
    return result


def _inside(work: Callable[[Any], T], named: Any) -> T:
    if gate.is_torn:
        raise ConfigurationError(
            "This process was forked while another thread of its parent was at work on a database, and has inherited "
            "half of what that thread had open. Nothing was changed.",
            next_step="bring the database up to date before the process forks, or start workers by spawn: "
            'multiprocessing.set_start_method("spawn")',
        )
    with gate:
        return work(named)


def _engine_on(driver: Any) -> Engine:
    if driver.in_transaction:
        raise ConfigurationError(
            "The connection has a transaction open, in which no run can begin its own. Nothing was changed.",
            next_step="commit it first, or pass a connection that has done nothing yet",
        )
    return create_engine("sqlite://", creator=lambda: driver, poolclass=StaticPool, hide_parameters=True)


def taking_connections(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function that takes a URL as its first argument take a Connection there as well."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        url, *others = args or (kwargs.pop("url", None),)
        inner: Callable[..., T] = function
        return called(url, lambda named: inner(named, *others, **kwargs))

    return wrapped
