"""SIGINT and SIGTERM on the two command lines; a library leaves signals alone."""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["exit_code", "finishing", "terminable"]

_AGAIN_SECONDS = 0.01


@contextmanager
def terminable() -> Iterator[list[int]]:
    """Let SIGTERM raise KeyboardInterrupt as SIGINT does, and put everything back at the end.

    Yields a list that gets the number of each SIGTERM. Outside the main thread, which alone gets signals, it
    does nothing.
    """
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    def raise_again(dropped: Any) -> None:
        # Python drops what is raised while an object is collected, and with it the signal. It has to come again
        # once this hook has returned, because what is raised here is dropped as well.
        if dropped.exc_type is KeyboardInterrupt:
            threading.Timer(_AGAIN_SECONDS, _signal_main_thread, [exit_code(received) - 128]).start()
        else:
            hook(dropped)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    hook, sys.unraisablehook = sys.unraisablehook, raise_again
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = hook


@contextmanager
def finishing(on_first: Callable[[], object]) -> Iterator[list[int]]:
    """Note the first SIGINT or SIGTERM, so that what is under way can be finished; the second one ends it at once.

    Yields a list that gets the number of the signal; ``on_first`` is called in the handler. Outside the main thread it
    does nothing.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        if received:
            before[number](number, frame)
        received.append(number)
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    for each in (signal.SIGINT, signal.SIGTERM):
        before[each] = signal.signal(each, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_main_thread(number: int) -> None:
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        # Unlike interrupt_main it also ends a system call.
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def exit_code(received: Sequence[int]) -> int:
    """Return what a shell sees of a process that ends after a KeyboardInterrupt."""
    return 128 + (received[0] if received else signal.SIGINT)
