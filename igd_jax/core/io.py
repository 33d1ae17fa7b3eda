"""Paths, atomic writes and the layout of a run's folder."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError


def read_json(path: Path) -> Any:
    """Read one JSON file; raises `InputError` when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error})") from None


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a sibling's name to write to, which becomes `path` only if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    yield partial
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `path` only if the block ends without an error.

    An older `path` is replaced as a whole; a process killed inside leaves `path` as it was.
    """
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            old = path.with_name(path.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def fingerprint(*parts: bytes | str) -> str:
    """Sixteen hex digits that change when any part, or the border between two parts, changes."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


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
