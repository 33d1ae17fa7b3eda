"""One writer per folder or file, by locks that the system releases when the process that holds them ends."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.core.log import say_once
from igd_jax.core.process import is_first

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""Error numbers of file systems without locks."""

_held: set[Path] = set()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which need not exist. Nested calls in one process do nothing.

    The lock is a file ``.NAME.lock`` in the same folder with process id and host of its holder; it is removed on
    release.

    Raises:
      InputError: another process holds the lock.
    """
    path = Path(os.path.realpath(path))
    if path in _held or not is_first():
        yield
        return
    file = path.with_name(f".{path.name}.lock")
    made = [parent for parent in file.parents if not parent.exists()]
    try:
        descriptor = open_locked(file)
    except BlockingIOError:
        raise InputError(
            f"{path} is being written by {_holder(file)}; wait for its end, stop it, or name another place"
        ) from None
    _held.add(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        _held.discard(path)
        try:
            file.unlink(missing_ok=True)  # while it is held, so that a process waiting for this file looks again
            for parent in made:
                with suppress(OSError):  # not empty
                    parent.rmdir()
        finally:
            os.close(descriptor)


def open_locked(file: Path, flags: int = 0) -> int:
    """Open and lock a file for reading and writing; returns a descriptor that holds the lock until it is closed.

    The file and its folders are created if missing.

    Args:
      file: the file.
      flags: further flags of `os.open`; with `os.O_EXCL` the file must not exist.

    Raises:
      BlockingIOError: another process holds the lock.
      FileExistsError: the file exists, but `os.O_EXCL` is given.
    """
    # A new file can be locked by another process only briefly, which takes it for a leftover.
    how = fcntl.LOCK_EX if flags & os.O_EXCL else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | flags, 0o666)
        except FileNotFoundError:
            if file.parent.is_dir():  # a folder that takes no files, as in /proc
                raise
            continue  # another process removed the folder
        try:
            fcntl.flock(descriptor, how)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(descriptor)
                raise
            say_once(f"note: {file.parent} is on a file system without locks; start one command at a time")
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(file), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # the last holder has removed the file meanwhile


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"
