"""Paths, atomic writes and the layout of a run's folder.

A file or folder is written under another name, ``.NAME.XXXXXXXX.partial``, synced to disk, and then renamed. So if a
process is killed or the machine loses power, either the old or the new version is left, complete. Leftovers under
other names are removed when the same file or folder is written again.

Of several processes only the first writes; output of the others is discarded (see `core.process`).
"""

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.locks import locked, open_locked
from igd_jax.core.process import is_first
from igd_jax.core.shown import shown


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `InputError` if it is missing, not a regular file, or not JSON."""
    if not path.is_file():  # reading a pipe would block
        raise InputError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from None


def write_text(path: Path, text: str) -> None:
    """Write a file atomically; a file that holds this text already is left untouched."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file, which is renamed to `path` only if the block ends without an error."""
    if not is_first():
        with tempfile.TemporaryDirectory() as thrown_away:
            yield Path(thrown_away, path.name)
        return
    for left in _siblings(path, "partial"):
        _remove_unless_in_use(left)
    partial = _sibling(path, "partial")
    descriptor = open_locked(partial, os.O_EXCL)  # the lock shows that its writer is alive
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _remove_unless_in_use(left: Path) -> None:
    """Remove a partial file of a killed process, but not one that is being written."""
    try:
        descriptor = open_locked(left)
    except BlockingIOError:
        return
    try:
        left.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _sibling(path: Path, ending: str) -> Path:
    """A unique path in the folder of `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{ending}")


_OF_SIBLING = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(partial|old)", re.DOTALL)


def _siblings(path: Path, ending: str) -> list[Path]:
    """Existing paths that `_sibling` may have made for `path`."""
    if not path.parent.is_dir():
        return []
    names = ((entry, _OF_SIBLING.fullmatch(entry.name)) for entry in path.parent.iterdir())
    return [entry for entry, found in names if found and found.groups() == (path.name, ending)]


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is, by its name, half written or about to be removed, if its writer is still alive."""
    return bool(_OF_SIBLING.fullmatch(path.name))


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Sync a folder and everything in it to disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def append_lines(path: Path, lines: Iterable[str], *, keep: int | None = None) -> None:
    """Append lines to a file, which is created if missing, and sync it to disk.

    Args:
      path: the file.
      lines: text without line ends.
      keep: number of bytes to keep; the file is truncated to it first. None = all.
    """
    if not is_first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.truncate(keep)
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


MARK = ".igd_jax"
"""File in each folder that `atomic_folder` writes, a JSON list of all others. Folders without it are not replaced."""


def check_replaceable(path: Path) -> None:
    """Raise `InputError` unless `path` can be made, or is an empty folder or one that `atomic_folder` wrote."""
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link, which is never replaced; name another folder")
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        if is_first() and not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):  # the others write nothing
            raise InputError(f"{path} cannot be made, as {above} is not a folder to write to; name another place")
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; name a folder that does not exist yet")
    names = {entry.name for entry in path.iterdir()}
    if foreign := names - _written(path):
        raise InputError(
            f"{path} holds {min(foreign)!r}, which this program did not write, and is left as it is; name another "
            "folder, or remove it yourself"
        )


def _written(path: Path) -> set[str]:
    """Names that `atomic_folder` wrote into a folder; empty if it did not write the folder."""
    try:
        names = json.loads((path / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {MARK, *map(str, names)} if isinstance(names, list) else set()


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Hold the lock of a folder that `atomic_folder` writes, and clean up after a killed process.

    Raises:
      InputError: another process holds the lock.
    """
    with locked(path):
        if is_first():
            _recover(path)
        yield


def _recover(path: Path) -> None:
    """Restore the old folder if a process was killed before it renamed the new one, and remove leftovers."""
    for old in _siblings(path, "old"):
        if not os.path.lexists(path):
            os.replace(old, path)
            sync(path.parent)
    for left in (*_siblings(path, "old"), *_siblings(path, "partial")):
        if left.is_dir() and ((left / MARK).exists() or not any(left.iterdir())):
            shutil.rmtree(left)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `path` only if the block ends without an error.

    An older folder of this program is replaced as a whole. If the process is killed, the older one stays.

    Raises:
      InputError: `path` was not written by this program (see `check_replaceable`), or another process is writing it.
    """
    if not is_first():
        with tempfile.TemporaryDirectory() as thrown_away:
            yield Path(thrown_away)
        return
    with owned(path):
        check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, old = _sibling(path, "partial"), _sibling(path, "old")
        partial.mkdir()
        try:
            (partial / MARK).touch()  # marks the folder as ours in case it is left over
            yield partial
            write_json(partial / MARK, sorted({entry.name for entry in partial.iterdir()} - {MARK}))
            sync_tree(partial)
            check_replaceable(path)
            if path.exists():
                os.replace(path, old)
            os.replace(partial, path)
            sync(path.parent)
        except BaseException:
            if old.exists() and not path.exists():
                os.replace(old, path)
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)  # a leftover is removed by the next writer


def is_url(given: str) -> bool:
    """Whether a text begins like a URL; as a path it would name a local folder such as ``gs:``."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", given))


def local_path(given: str, *, option: str) -> Path:
    """The path that `option` gives; raises `InputError` for '', for a URL, and for a link that leads to itself."""
    if not given:
        raise InputError(f"{option} is empty; expected a path, or '.' for the current folder")
    if is_url(given):
        raise InputError(
            f"{option} is {shown(given)}, which is a URL; expected a path on this machine, such as one in the folder "
            "where the bucket is mounted"
        )
    try:
        os.stat(given)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            raise InputError(f"{option} is {shown(given)}, a link that leads to itself; name another path") from None
    return Path(given)


def check_name(name: str, *, option: str) -> None:
    """Raise `InputError` unless the value of `option` is a plain file name of at most 100 characters, not hidden."""
    if not re.fullmatch(r"[A-Za-z0-9_=,][A-Za-z0-9._=,-]{0,99}", name):
        raise InputError(
            f"{option} is {shown(name)}; expected the name of a folder to make: letters, digits, '.', '_', '-', '=' "
            "and ',', at most 100 of them, the first not '.' or '-'"
        )


class Workdir:
    """Paths of a run's files. Names are fixed, as scripts rely on them. Raises `InputError` as `local_path` does."""

    def __init__(self, path: str):
        self.path = Path(os.path.abspath(local_path(path, option="--workdir")))
        self.config = self.path / "config.json"
        self.env = self.path / "env.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tb"
        self.picture = self.path / "loss.png"
        self.tokenizer = self.path / "tokenizer"
        self.checkpoints = self.path / "checkpoints"
        self.evaluations = self.path / "eval"
        self.profile = self.path / "profile"
        self.cache = self.path / "cache"

    def eval(self, name: str) -> Path:
        """Folder of one evaluation, with metrics.json and predictions.jsonl."""
        return self.evaluations / name

    def unfinished(self, name: str) -> Path:
        """Folder of what one evaluation has found so far."""
        return self.cache / "unfinished" / name

    def analysis(self, name: str) -> Path:
        """Folder of the figures about one evaluation."""
        return self.path / "analysis" / name
