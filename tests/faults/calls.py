"""Every call of the system that a process makes for files below a folder: those of Python, and those of SQLite.

SQLite lets each of its calls be replaced while it runs (https://sqlite.org/c3ref/vfs.html), so nothing has to be built
or installed for it: what is replaced is reached through the very library that Python's own module uses.
"""

import _sqlite3
import builtins
import ctypes
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

__all__ = ["Watcher", "watch"]

_SQLITE_OK, _SQLITE_CANTOPEN, _SQLITE_IOERR_FSYNC = 0, 14, 1034
_AUDITED = {
    "open",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.listdir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.scandir",
    "os.truncate",
}
_INT, _POINTER, _TEXT, _SIZE = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ssize_t
# Of each call: what it returns, what it takes, and which of these names the file: a path, or an open file.
_BY_PATH: dict[str, tuple[Any, ...]] = {
    "open": (_INT, _TEXT, _INT, _INT),
    "access": (_INT, _TEXT, _INT),
    "stat": (_INT, _TEXT, _POINTER),
    "lstat": (_INT, _TEXT, _POINTER),
    "readlink": (_SIZE, _TEXT, _POINTER, ctypes.c_size_t),
    "unlink": (_INT, _TEXT),
    "openDirectory": (_INT, _TEXT, _POINTER),
}
_BY_FILE: dict[str, tuple[Any, ...]] = {
    "fstat": (_INT, _INT, _POINTER),
    "ftruncate": (_INT, _INT, ctypes.c_int64),
    "fcntl": (_INT, _INT, _INT, _POINTER),
    "read": (_SIZE, _INT, _POINTER, ctypes.c_size_t),
    "pread": (_SIZE, _INT, _POINTER, ctypes.c_size_t, ctypes.c_int64),
    "pread64": (_SIZE, _INT, _POINTER, ctypes.c_size_t, ctypes.c_int64),
    "write": (_SIZE, _INT, _POINTER, ctypes.c_size_t),
    "pwrite": (_SIZE, _INT, _POINTER, ctypes.c_size_t, ctypes.c_int64),
    "pwrite64": (_SIZE, _INT, _POINTER, ctypes.c_size_t, ctypes.c_int64),
    "fchmod": (_INT, _INT, _INT),
    "fchown": (_INT, _INT, _INT, _INT),
    "fallocate": (_INT, _INT, ctypes.c_int64, ctypes.c_int64),
}
_WRITES = {"pwrite", "pwrite64"}


class Watcher(Protocol):
    """What is told of each call. ``before`` returns the errno with which it is to fail, or 0: no other call is told of.

    Where sqlite3 is about to raise an error, SQLite may still make calls, and no line of Python may run then.
    """

    def before(self, call: str, path: str) -> int: ...
    def opened(self, path: str) -> None: ...
    def wrote(self, path: str, offset: int, data: bytes) -> None: ...
    def cut(self, path: str, size: int) -> None: ...
    def synced(self, path: str) -> None: ...


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("iVersion", _INT),
        ("szOsFile", _INT),
        ("mxPathname", _INT),
        *((name, _POINTER) for name in ("pNext", "zName", "pAppData", "xOpen")),
        *((f"other{number}", _POINTER) for number in range(12)),
        *((name, _POINTER) for name in ("xSetSystemCall", "xGetSystemCall", "xNextSystemCall")),
    )


class _Methods(ctypes.Structure):
    _fields_ = (
        ("iVersion", _INT),
        *((name, _POINTER) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync")),
        *((f"other{number}", _POINTER) for number in range(13)),
    )


class _File(ctypes.Structure):
    _fields_ = (("pMethods", ctypes.POINTER(_Methods)),)


_kept: list[object] = []
"""What SQLite calls from now on must never be collected."""
_undo: list[Callable[[], None]] = []


def watch(folder: str, watcher: Watcher) -> None:
    """Tell a watcher of every call below a folder, from now on until one of them fails."""
    _Python(folder, watcher).watch()
    _watch_sqlite(folder, watcher)


def _is_refused(watcher: Watcher, call: str, path: str) -> int:
    number = watcher.before(call, path)
    if number:
        for undo in _undo:
            undo()
    return number


# Python.


class _Python:
    """The calls that Python makes: by its audit events, which tell of one before it is made, or in place of it."""

    def __init__(self, folder: str, watcher: Watcher) -> None:
        self._folder = folder
        self._watcher = watcher
        self._sync, self._open = os.fsync, builtins.open
        self._stat, self._lstat, self._access = os.stat, os.lstat, os.access

    def watch(self) -> None:
        for module, name, call in (
            (os, "fsync", self.fsync),
            (os, "stat", self.stat),
            (os, "lstat", self.lstat),
            (os, "access", self.access),
            (os, "fdopen", self.open),
            (builtins, "open", self.open),
        ):
            setattr(module, name, call)
        sys.addaudithook(self.audit)

    def point(self, call: str, path: object) -> None:
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else _path_of(path)
        number = _is_refused(self._watcher, call, name) if name.startswith(self._folder) else 0
        if number:
            raise OSError(number, os.strerror(number), name)

    def audit(self, event: str, details: tuple[Any, ...]) -> None:
        if event in _AUDITED:
            self.point(event, details[0])

    def fsync(self, descriptor: int) -> None:
        self.point("os.fsync", descriptor)
        self._sync(descriptor)
        self._watcher.synced(_path_of(descriptor))

    def stat(self, path: Any, **options: Any) -> os.stat_result:
        self.point("os.stat", path)
        return self._stat(path, **options)

    def lstat(self, path: Any, **options: Any) -> os.stat_result:
        self.point("os.lstat", path)
        return self._lstat(path, **options)

    def access(self, path: Any, mode: int, **options: Any) -> bool:
        try:
            self.point("os.access", path)
        except OSError:
            return False
        return self._access(path, mode, **options)

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
        # Python itself writes text alone, and reads nothing of that.
        if "b" in mode or not set(mode) & set("wxa"):
            return self._open(file, mode, buffering, *arguments, **options)
        return io.TextIOWrapper(io.BufferedWriter(_Raw(file, mode, self)), *arguments, **options)


class _Raw(io.FileIO):
    """A file whose writes are told of."""

    def __init__(self, file: Any, mode: str, of: _Python) -> None:
        super().__init__(file, mode)
        self._of = of

    def write(self, data: Any) -> int:
        self._of.point("os.write", self.fileno())
        return super().write(data)


def _path_of(descriptor: object) -> str:
    """Return the path of an open file, empty for what is none."""
    if not isinstance(descriptor, int):
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


# SQLite.


def _watch_sqlite(folder: str, watcher: Watcher) -> None:
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    vfs = library.sqlite3_vfs_find(None)
    get = ctypes.CFUNCTYPE(_POINTER, _POINTER, _TEXT)(vfs.contents.xGetSystemCall)
    put = ctypes.CFUNCTYPE(_INT, _POINTER, _TEXT, _POINTER)(vfs.contents.xSetSystemCall)
    for name, (returned, *taken) in (_BY_PATH | _BY_FILE).items():
        present = get(vfs, name.encode())
        if present is not None:
            kind = ctypes.CFUNCTYPE(returned, *taken, use_errno=True)
            hooked = kind(_call(name, kind(present), folder, watcher))
            _kept.append(hooked)
            assert put(vfs, name.encode(), ctypes.cast(hooked, _POINTER)) == _SQLITE_OK
    _undo.append(lambda: put(vfs, None, None))
    _watch_syncs(vfs.contents, folder, watcher)


def _call(name: str, real: Callable[..., int], folder: str, watcher: Watcher) -> Callable[..., int]:
    def hooked(named: Any, *arguments: Any) -> int:
        path = os.fsdecode(named) if name in _BY_PATH else _path_of(named)
        if name == "openDirectory":
            # It names a file, and opens the folder of that for nothing else but to sync it, at once.
            path = os.path.dirname(path)
        if not path.startswith(folder):
            return real(named, *arguments)
        number = _is_refused(watcher, f"sqlite {name}", path)
        if number:
            ctypes.set_errno(number)
            return _SQLITE_CANTOPEN if name == "openDirectory" else -1
        done = real(named, *arguments)
        kept = ctypes.get_errno()
        if name in _WRITES and done > 0:
            watcher.wrote(path, arguments[2], ctypes.string_at(arguments[0], done))
        elif name == "ftruncate" and done == 0:
            watcher.cut(path, arguments[0])
        elif name == "openDirectory" and done == _SQLITE_OK:
            watcher.synced(path)
        ctypes.set_errno(kept)
        return done

    return hooked


def _watch_syncs(vfs: _Vfs, folder: str, watcher: Watcher) -> None:
    """Tell of the syncs too, which SQLite makes without asking for a replacement: by the methods of its open files."""
    # SQLite keeps the name, and what stands behind it: a copy of it would not do.
    opening = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, ctypes.POINTER(_File), _INT, _POINTER)
    syncing = ctypes.CFUNCTYPE(_INT, _POINTER, _INT)
    plain_open = opening(vfs.xOpen)
    paths: dict[int, str] = {}
    changed: dict[int, _Methods] = {}

    def xopen(of: int, name: int | None, file: Any, flags: int, told: int | None) -> int:
        done = plain_open(of, name, file, flags, told)
        path = os.fsdecode(ctypes.string_at(name) if name else b"")
        if done == _SQLITE_OK and path.startswith(folder):
            watcher.opened(path)
            place = ctypes.addressof(file.contents.pMethods.contents)
            if place not in changed:
                changed[place] = _with_sync(file.contents.pMethods.contents, xsync)
            paths[ctypes.addressof(file.contents)] = path
            file.contents.pMethods = ctypes.pointer(changed[place])
        return int(done)

    def xsync(plain: Callable[[int, int], int], file: int, flags: int) -> int:
        path = paths[file]
        if _is_refused(watcher, "sqlite fsync", path):
            return _SQLITE_IOERR_FSYNC
        done = plain(file, flags)
        if done == _SQLITE_OK:
            watcher.synced(path)
        return done

    def _with_sync(methods: _Methods, sync: Callable[..., int]) -> _Methods:
        plain = syncing(methods.xSync)
        hooked = syncing(lambda file, flags: sync(plain, file, flags))
        copy = _Methods.from_buffer_copy(methods)
        copy.xSync = ctypes.cast(hooked, _POINTER).value
        _undo.append(partial(setattr, copy, "xSync", methods.xSync))
        _kept.extend((plain, hooked, copy))
        return copy

    hooked = opening(xopen)
    _kept.append(hooked)
    _undo.append(partial(setattr, vfs, "xOpen", vfs.xOpen))
    vfs.xOpen = ctypes.cast(hooked, _POINTER).value
