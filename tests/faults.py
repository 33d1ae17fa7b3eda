"""Faults of the disk, in the manner of SQLite's test VFS: the n-th write, rename or fsync fails, or is the last one.

A process that is killed does nothing any more, so after a kill everything that would change a file raises `Killed`,
also what cleans up. It is half of a write that a kill leaves.
"""

import builtins
import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from igd_jax.data import safetensors_io

FAIL, KILL = "fail", "kill"
ERRORS = (errno.ENOSPC, errno.EIO)


class Killed(BaseException):
    """The process is no more."""


class Faults:
    """Counts writes, renames and fsyncs below a folder, and lets one of them fail.

    Attributes:
      names: each one so far.
      struck: the path below the folder at which one failed, None before.
      is_dead: whether the process was killed.
    """

    def __init__(self, folder: Path, *, at: int, kind: str):
        self._folder, self._at, self._kind = str(folder), at, kind
        self._lock = threading.Lock()
        self.names: list[str] = []
        self.struck: str | None = None
        self.is_dead = False

    def point(self, name: str, path: Any, half: Callable[[], Any] = lambda: None) -> None:
        """Before a write, rename or fsync: the chosen one raises; `half` is what a killed one does."""
        if not str(path).startswith(self._folder):
            return
        with self._lock:
            if self.is_dead:
                raise Killed
            self.names.append(name)
            if len(self.names) - 1 != self._at:
                return
            self.struck = os.path.relpath(path, self._folder)
            if self._kind == FAIL:
                number = ERRORS[self._at % len(ERRORS)]
                raise OSError(number, os.strerror(number), str(path))
            half()
            self.is_dead = True
            raise Killed

    def change(self, function: Callable) -> Callable:
        """A function that changes the disk in another way: not by the dead."""

        def changed(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:
                raise Killed
            return function(*args, **kwargs)

        return changed


class _File:
    """A file that is written to."""

    def __init__(self, file: Any, path: Any, faults: Faults):
        self._file, self._path, self._faults = file, path, faults

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._faults.point("write", self._path, half)
        return self._file.write(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def faults(folder: Path, *, at: int = -1, kind: str = FAIL) -> Iterator[Faults]:
    """Inside, the point number `at`, counted from 0, of what is done below a folder fails or kills; -1 = none."""
    found = Faults(folder, at=at, kind=kind)
    real_open, fsync = io.open, os.fsync

    def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        is_below = str(path).startswith(str(folder)) if not isinstance(path, int) else False
        if not is_below or not set(mode) & set("wax+"):
            return real_open(path, mode, *args, **kwargs)
        found.change(lambda: None)()
        return _File(real_open(path, mode, *args, **kwargs), path, found)

    def synced(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        found.point("fsync", os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    def renamed(function: Callable) -> Callable:
        def rename(source: Any, target: Any, **kwargs: Any) -> None:
            found.point("rename", source)
            function(source, target, **kwargs)

        return rename

    def native(function: Callable, place: int) -> Callable:
        """Of a library that opens the file itself."""

        def write(*args: Any, **kwargs: Any) -> Any:
            def half() -> None:
                function(*args, **kwargs)
                os.truncate(args[place], os.path.getsize(args[place]) // 2)

            found.point("write", args[place], half)
            return function(*args, **kwargs)

        return write

    with (
        mock.patch.object(builtins, "open", opened),
        mock.patch.object(io, "open", opened),
        mock.patch.object(os, "fsync", synced),
        mock.patch.multiple(os, **{name: renamed(getattr(os, name)) for name in ("rename", "replace")}),
        mock.patch.multiple(os, **{name: found.change(getattr(os, name)) for name in ("unlink", "remove", "rmdir")}),
        mock.patch.object(pq, "write_table", native(pq.write_table, 1)),
        mock.patch.object(safetensors_io, "save_file", native(safetensors_io.save_file, 1)),
    ):
        yield found
