"""Fingerprints of data, tokenizers and weights: short texts that change with the content."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

_AT_ONCE = 1 << 16


def fingerprint(*parts: bytes | str | np.ndarray) -> str:
    """Sixteen hex digits that depend on every part and on the borders between parts; arrays count as their bytes."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8)  # no copy
        else:
            data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def json_list(words: Sequence[str] | Shaped[np.ndarray, " n"]) -> bytes:
    """What `json.dumps` makes of a list of words, which takes several times their memory where they are many."""
    text = bytearray(b"[")
    for begin in range(0, len(words), _AT_ONCE):
        text += b", " if begin else b""
        text += json.dumps(list(words[begin : begin + _AT_ONCE]))[1:-1].encode()
    return bytes(text + b"]")


def version_of(path: str) -> str:
    """Sizes and times of change of a file, or of the files of a folder; empty if there is neither."""
    files = sorted(Path(path).iterdir()) if path and Path(path).is_dir() else [Path(path)] * Path(path).is_file()
    return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def sample_leaves(tree: Any) -> list[bytes]:
    """Bytes of 64 to 127 numbers of each array, or of all if it is small: enough to tell models apart on any device."""
    import jax  # not needed to prepare data

    from igd_jax.core.sharding import fetch

    return [part.tobytes() for part in fetch([_sampler()(leaf) for leaf in jax.tree.leaves(tree)])]


@cache
def _sampler() -> Any:
    """Compiled, so that no array is copied as a whole; one program per shape."""
    import jax

    return jax.jit(lambda leaf: leaf.reshape(-1)[:: max(1, leaf.size // 64)])
