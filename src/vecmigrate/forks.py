"""Keeps fork() apart from what threads have open here; as light as ``os``.

A child that is forked while another thread has an SQLite file open inherits its locks, which nobody there will ever
release, and perhaps a mutex in the middle: https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_
"""

import _thread
import os
import time

__all__ = ["WAIT_SECONDS", "Gate", "gate"]

WAIT_SECONDS = 30.0
"""How long a fork waits for other threads to leave."""

_POLL_SECONDS = 0.005


class Gate:
    """Entered by a thread for as long as it has something open; a fork waits until all others have left.

    ``is_torn``: this process was forked when that had taken too long, and must open nothing.
    """

    def __init__(self) -> None:
        self.is_torn = False
        # The same thread may take it again: a handler of a signal may fork.
        self._lock = _thread.RLock()
        self._inside: dict[int, int] = {}

    def __enter__(self) -> None:
        with self._lock:
            me = _thread.get_ident()
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            me = _thread.get_ident()
            left = self._inside.get(me, 1) - 1
            if left:
                self._inside[me] = left
            else:
                self._inside.pop(me, None)

    def _others(self) -> bool:
        return bool(self._inside.keys() - {_thread.get_ident()})

    def close(self) -> None:
        """Wait for the others, and let nobody in until ``open``."""
        deadline = time.monotonic() + WAIT_SECONDS
        self._lock.acquire()
        while self._others() and time.monotonic() < deadline:
            self._lock.release()
            time.sleep(_POLL_SECONDS)
            self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    def begin_anew(self) -> None:
        """In the child there are no others, only what they left."""
        self.is_torn = self.is_torn or self._others()
        me = _thread.get_ident()
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._lock = _thread.RLock()


gate = Gate()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=gate.close, after_in_parent=gate.open, after_in_child=gate.begin_anew)
