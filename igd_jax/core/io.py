"""Paths, atomic writes and the layout of a run's folder.

Of several processes only the first writes; what the others would write is thrown away: see `core.process`.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.process import is_first


def read_json(path: Path) -> Any:
    """Read one JSON file; raises `InputError` when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from None


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a sibling's name to write to, which becomes `path` only if the block ends without an error."""
    if not is_first():
        with tempfile.TemporaryDirectory() as thrown_away:
            yield Path(thrown_away, path.name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    yield partial
    os.replace(partial, path)


def append_lines(path: Path, lines: Iterable[str], *, keep: int | None = None) -> None:
    """Append lines to a file, which is made where there is none, and wait until the disk has them.

    Args:
      keep: bytes of the file that stay; those after them are cut off. None = all.
    """
    if not is_first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.truncate(keep)
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


MARK = ".igd_jax"
"""A file in each folder that `atomic_folder` writes, a JSON list of all others: nothing else is ever replaced."""


def check_replaceable(path: Path) -> None:
    """Raise `InputError` unless `atomic_folder` may take this path: nothing there, an empty folder, or one of ours."""
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link, which is never replaced; name another folder")
    if not path.exists():
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
    """Names of what `atomic_folder` wrote into a folder; nothing where it did not."""
    try:
        names = json.loads((path / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {MARK, *map(str, names)} if isinstance(names, list) else set()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `path` only if the block ends without an error.

    An older folder of ours is replaced as a whole; a process killed inside leaves it as it was.

    Raises:
      InputError: what lies at `path` is not ours; see `check_replaceable`.
    """
    if not is_first():
        with tempfile.TemporaryDirectory() as thrown_away:
            yield Path(thrown_away)
        return
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _scratch(path, ".partial")
    try:
        yield partial
        write_json(partial / MARK, sorted(entry.name for entry in partial.iterdir()))
        check_replaceable(path)
        if path.exists():
            old = _scratch(path, ".old")
            os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _scratch(path: Path, suffix: str) -> Path:
    """A new empty folder beside `path`, under a name that nobody else has."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent))
    scratch.chmod(0o777 & ~_umask())
    return scratch


def _umask() -> int:
    """The permissions that new files do not get; the system returns them only when they are set."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def check_name(name: str, *, option: str) -> None:
    """Raise `InputError` unless a name from `option` is one plain component of a path, at most 100 characters."""
    if not re.fullmatch(r"[A-Za-z0-9._=,-]{1,100}", name) or name in (".", "..") or name.startswith("-"):
        shown = name if len(name) <= 100 else name[:100] + "..."
        raise InputError(
            f"{option} is {shown!r}; expected the name of a folder to make: letters, digits, '.', '_', '-', '=' and "
            "',', at most 100 of them, not '.' or '..'"
        )


class Workdir:
    """Where a run keeps its files. Names are fixed: people script against them."""

    def __init__(self, path: str):
        self.path = Path(os.path.abspath(path))
        self.config = self.path / "config.json"
        self.env = self.path / "env.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tb"
        self.picture = self.path / "loss.png"
        self.tokenizer = self.path / "tokenizer"
        self.checkpoints = self.path / "checkpoints"

    def eval(self, name: str) -> Path:
        """The folder of one evaluation: metrics.json and predictions.jsonl."""
        return self.path / "eval" / name
