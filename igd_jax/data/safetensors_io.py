"""Reads and writes named matrices in a safetensors file, with metadata about their origin."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.core.io import atomic_file


def read_matrices(
    path: Path, *names: str, remedy: str
) -> tuple[list[Float[np.ndarray, "_rows _width"]], dict[str, str]]:
    """Read the named matrices, as float32, and the metadata of the file.

    Raises:
      InputError: no such file, or it lacks one of these matrices; the message ends in `remedy`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors, metadata = set(file.keys()), file.metadata() or {}
            arrays = [file.get_tensor(name) for name in names if name in tensors]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}); {remedy}") from None
    if len(arrays) < len(names) or any(x.ndim != 2 or not np.issubdtype(x.dtype, np.floating) for x in arrays):
        wanted = " and ".join(f"{name!r}, a matrix of floats" for name in names)
        raise InputError(f"{path} has tensors {', '.join(sorted(tensors))}; expected {wanted}; {remedy}")
    return [array.astype(np.float32, copy=False) for array in arrays], metadata


def write_matrices(
    path: Path, matrices: Mapping[str, Float[np.ndarray, "_rows _width"]], metadata: Mapping[str, str]
) -> None:
    """Write named matrices and metadata atomically."""
    with atomic_file(path) as partial:
        whole = {name: np.ascontiguousarray(matrix) for name, matrix in matrices.items()}
        save_file(whole, partial, metadata=dict(metadata))
