"""Seals of checkpoints: checkpoint.json, with progress, the names of arrays, and the SHA-256 of each file of tree/.

It is written last, when all other files are on disk. So a folder without it is unfinished, and later changes are
detected.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.io import read_json, sync, sync_tree, write_json

TREE, SEAL = "tree", "checkpoint.json"
MOST_THREADS = 8
"""Files that are hashed side by side: enough for the bandwidth of a disk."""


class DamagedError(Exception):
    """An unfinished or damaged checkpoint; the message says how."""


def seal(path: Path, progress: dict[str, Any], arrays: dict[str, str]) -> None:
    """Complete the checkpoint in a folder, whose arrays are written."""
    sync_tree(path / TREE)
    names = [file.relative_to(path).as_posix() for file in _files(path / TREE)]
    body = {"progress": progress, "arrays": arrays, "files": _sha256_of_files(path, names)}
    write_json(path / SEAL, {"sha256": _sha256_of(body), **body})
    for folder in path.parents[:3]:
        sync(folder)


def is_sealed(path: Path) -> bool:
    """Whether a checkpoint was completed."""
    return (path / SEAL).is_file()


def best_step_of(path: Path) -> int | None:
    """Step of the best parameters that a state's seal names, which is not verified; None = it cannot be read."""
    try:
        step = read_json(path / SEAL)["progress"].get("best_step", 0)
    except (AttributeError, InputError, KeyError, OSError, TypeError):
        return None
    return step if isinstance(step, int) else None


def verified(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Progress of a checkpoint, and its arrays by name.

    Raises:
      DamagedError: the checkpoint is unfinished or gone, or a file of it is not as it was written.
    """
    if not is_sealed(path):
        raise DamagedError("is unfinished" if path.exists() else "is gone")
    try:
        told = read_json(path / SEAL)
        sha256 = told.pop("sha256")
        if sha256 != _sha256_of(told):
            raise DamagedError(f"is damaged: {SEAL} is not what was written")
        files = told["files"]
        there = [name for name in files if (path / name).is_file()]  # reading a pipe would block
        found = _sha256_of_files(path, there)
        if changed := [name for name, expected in files.items() if found.get(name) != expected]:
            raise DamagedError(f"is damaged: {changed[0]} is not what was written")
        return told["progress"], told["arrays"]
    except (AttributeError, InputError, KeyError, OSError, TypeError) as error:
        raise DamagedError(f"is damaged: {error}") from None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256_of_files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of files by name, several at a time: a thread that hashes leaves the interpreter to the others."""
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(_sha256, [folder / name for name in names]), strict=True))


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _sha256_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
