"""How far long work is: whoever does it says so here, and whoever wants to know listens for the time of a call."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Listener", "Phase", "Progress", "is_heard", "phase", "tick", "told_to"]

_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """How far one phase of a call is.

    ``phase`` is copy, backup, verify, upgrade, downgrade, restore or embed; ``name`` the revision, model or file it is
    about. ``done`` of ``total`` are counted in ``unit``: bytes, rows or chunks; ``total`` is None where it is not
    known. ``duration_seconds`` is since the phase began.
    """

    phase: str
    name: str
    unit: str
    done: int
    total: int | None
    duration_seconds: float

    @property
    def rate(self) -> float:
        """Units a second, so far."""
        return self.done / max(self.duration_seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """How long it takes at this rate; None where that cannot be told."""
        if self.total is None or not self.done:
            return None
        return max(0, self.total - self.done) / self.rate

    @property
    def model(self) -> str:
        """The embedding model, in the phase embed."""
        return self.name

    @property
    def embedded(self) -> int:
        """The vectors that this call has made, in the phase embed."""
        return self.done

    @property
    def remaining(self) -> int:
        """What is not done yet, about; 0 where that is not known."""
        return max(0, (self.total or 0) - self.done)


Listener = Callable[[Progress], object]
Counts = Callable[[], tuple[int, int | None]]
"""Returns what is done, and of how much."""
_listener: ContextVar[Listener | None] = ContextVar("vecmigrate_listener", default=None)
_current: ContextVar["Phase | None"] = ContextVar("vecmigrate_phase", default=None)


class Phase:
    """A phase under way. ``count`` tells what is done where nobody calls ``at``."""

    def __init__(
        self,
        listener: Listener,
        what: str,
        *,
        name: str,
        unit: str,
        total: int | None,
        count: Counts | None,
    ) -> None:
        self._what, self._name, self._unit, self._total = what, name, unit, total
        self._count = count
        self._listener = listener
        self._done = 0
        self._began = self._told = time.monotonic()
        self.tell()

    def at(self, done: int) -> None:
        """Note what is done, and tell it now and then."""
        self._done = done
        self.tick()

    def tick(self) -> None:
        """Tell where it is, if the last time was long enough ago."""
        if time.monotonic() - self._told >= _PAUSE_SECONDS:
            self.tell()

    def tell(self, *, is_done: bool = False) -> None:
        """Tell where it is. What the listener raises goes on to the caller."""
        self._told = now = time.monotonic()
        if self._count is not None:
            self._done, self._total = self._count()
        elif is_done and self._total is not None:
            self._done = self._total
        # What is counted may be written more than once on its way.
        done = self._done if self._total is None else min(self._done, self._total)
        self._listener(Progress(self._what, self._name, self._unit, done, self._total, now - self._began))


@contextlib.contextmanager
def told_to(listener: Listener | None) -> Iterator[None]:
    """Tell the progress of what is done in this block, in this thread, to a function; None leaves it as it is."""
    if listener is None:
        yield
        return
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def phase(
    what: str, *, name: str = "", unit: str, total: int | None = None, count: Counts | None = None
) -> Iterator[Phase | None]:
    """Begin a phase; give None where nobody listens. It is told at its beginning and at its end, if it gets there."""
    listener = _listener.get()
    if listener is None:
        yield None
        return
    began = Phase(listener, what, name=name, unit=unit, total=total, count=count)
    token = _current.set(began)
    try:
        yield began
    finally:
        _current.reset(token)
    began.tell(is_done=True)


def is_heard() -> bool:
    """Tell whether somebody listens in this thread."""
    return _listener.get() is not None


def tick() -> None:
    """Let the phase under way, if there is one, tell where it is. Called from inside of long statements of SQLite."""
    present = _current.get()
    if present is not None:
        present.tick()
