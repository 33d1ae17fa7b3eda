"""One writer per folder or file, by locks that the system releases when their holder ends, however it ends."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.process import is_first

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""What file systems answer that know no locks."""

_held: set[Path] = set()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that writes a file or folder, which need not be there; inside itself, it does nothing.

    The lock is a file beside it, ``.NAME.lock``, that tells process id and host of its holder and goes with the lock.

    Raises:
      InputError: another process holds it.
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
            file.unlink(missing_ok=True)  # while it is held: who waits for this very file looks again
            for parent in made:
                with suppress(OSError):  # there is something in it
                    parent.rmdir()
        finally:
            os.close(descriptor)


def open_locked(file: Path, flags: int = 0) -> int:
    """Open a file for reading and writing and lock it; returns its descriptor, which holds the lock until it is closed.

    The file is made, with the folders above it, where it is not there; with `os.O_EXCL` among `flags` it is a new one.

    Raises:
      BlockingIOError: another process holds the lock.
      FileExistsError: it is there, and should be new.
    """
    # Nobody holds a new one, but for a moment somebody who takes it for a leftover.
    how = fcntl.LOCK_EX if flags & os.O_EXCL else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | flags, 0o666)
        except FileNotFoundError:
            if file.parent.is_dir():  # one that takes no files, such as those of /proc
                raise
            continue  # somebody took the folder away
        try:
            fcntl.flock(descriptor, how)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(descriptor)
                raise
            _say_once(f"note: {file.parent} is on a file system without locks; start one command at a time")
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(file), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # its last holder has removed it meanwhile


_say_once = cache(say)


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"
