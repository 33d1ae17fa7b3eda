"""Matrices by name in a safetensors file, whose metadata says what they belong to."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from igd_jax.core.errors import InputError


def read_matrices(
    path: Path, *names: str, remedy: str
) -> tuple[list[Float[np.ndarray, "_rows _width"]], dict[str, str]]:
    """The named matrices, in float32, and the file's metadata.

    Raises:
      InputError: no such file, or not one that holds these as matrices of floats; `remedy` says what to do about it.
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
