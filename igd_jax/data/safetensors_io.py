"""Reads and writes named matrices in a safetensors file, with metadata about their origin."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from igd_jax.core.arrays import check_finite
from igd_jax.core.errors import InputError
from igd_jax.core.io import atomic_file
from igd_jax.core.log import say


def read_matrices(
    path: Path, *names: str, remedy: str, may_lack: bool = False
) -> tuple[list[Float[np.ndarray, "_rows _width"]], dict[str, str]]:
    """Read the named matrices, as float32, and the metadata of the file.

    Args:
      remedy: what to do about a file that is not right.
      may_lack: whether numbers may be nan or infinite, for what is not known.

    Raises:
      InputError: no such file, or it lacks one of these matrices, or its numbers are not finite; the message ends in
        `remedy`.
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
    for name, array in zip(names, arrays, strict=True):
        if not may_lack:
            check_finite(f"{name!r} in {path}", array, remedy=remedy)
    return [array.astype(np.float32, copy=False) for array in arrays], metadata


def read_cached(
    path: Path, name: str, *, shape: tuple[int, int], metadata: Mapping[str, str]
) -> Float[np.ndarray, "_rows _width"] | None:
    """Read a matrix from a cache, as `write_matrices` wrote it.

    Returns:
      The matrix, float32; None if it has to be made, which is printed unless the file is just not there.
    """
    if not path.is_file():
        return None
    try:
        (matrix,), found = read_matrices(path, name, remedy="it is made again")
    except InputError as error:
        say(str(error))
        return None
    if matrix.shape != shape or found != metadata:
        say(f"{path} holds {matrix.shape} numbers of {found}, expected {shape} of {metadata}; it is made again")
        return None
    return matrix


def cached_matrix(
    path: Path,
    name: str,
    make: Callable[[], Float[np.ndarray, "_rows _width"]],
    *,
    shape: tuple[int, int],
    metadata: Mapping[str, str],
) -> Float[np.ndarray, "_rows _width"]:
    """Load a matrix from the cache file `path`, or make and store it; a damaged file is made again.

    The file is written only if the parent of its folder exists, so that a run refused for bad input leaves no folder.

    Args:
      name: name of the matrix in the file.
      make: function that makes the matrix.
      shape: shape of the matrix.
      metadata: metadata of the file, text by name.
    """
    if (found := read_cached(path, name, shape=shape, metadata=metadata)) is not None:
        return found
    matrix = make()
    if path.parent.parent.is_dir():
        write_matrices(path, {name: matrix}, metadata)
    return matrix


def write_matrices(
    path: Path, matrices: Mapping[str, Float[np.ndarray, "_rows _width"]], metadata: Mapping[str, str]
) -> None:
    """Write named matrices and metadata atomically."""
    with atomic_file(path) as partial:
        whole = {name: np.ascontiguousarray(matrix) for name, matrix in matrices.items()}
        save_file(whole, partial, metadata=dict(metadata))
