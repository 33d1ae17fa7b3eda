"""Embeddings of a catalogue, kept in a file that says of which model and catalogue they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax import nnx
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint, sample_leaves
from igd_jax.core.ragged import Ragged
from igd_jax.data.safetensors_io import cached_matrix, read_matrices
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.models.decoder import Decoder


def kept_embeddings(
    model: Decoder,
    rows: Ragged,
    tokenizer: Tokenizer,
    *,
    quote: str,
    given: str,
    cache: Path,
    compute: Callable[[], Float[np.ndarray, "N D"]],
) -> Float[np.ndarray, "N D"]:
    """Embeddings of rows from a given file or from the cache, else computed and kept in the cache.

    Args:
      model: model that embeds.
      rows: ids of the titles.
      tokenizer: tokenizer of the rows.
      quote: mark around each title, which is not embedded.
      given: file of another run's cache, `config.method.args.embeddings`; empty = none.
      cache: folder; nothing is written if its parent does not exist.
      compute: function that computes the embeddings.

    Raises:
      InputError: the given file is unusable, or belongs to another model or catalogue.
    """
    marks = {
        "model": fingerprint(repr(model.config), str(model.dtype), *sample_leaves(nnx.state(model))),
        "catalogue": fingerprint(tokenizer.fingerprint, quote, rows.ids.tobytes(), rows.start.tobytes()),
    }
    shape = (len(rows), model.config.hidden_size)
    if given:
        return _read(Path(given), marks, shape=shape)
    path = cache / f"embeddings-{fingerprint(*marks.values())}.safetensors"
    return cached_matrix(path, "embeddings", compute, shape=shape, metadata=marks)


def _read(path: Path, marks: dict[str, str], *, shape: tuple[int, int]) -> Float[np.ndarray, "N D"]:
    """Read the embeddings of a cache file, which must have these marks (fingerprints by name) and this shape."""
    (embeddings,), found = read_matrices(path, "embeddings", remedy="leave config.method.args.embeddings empty")
    differ = [name for name, mark in marks.items() if found.get(name) != mark]
    if differ := differ or ["shape"] * (embeddings.shape != shape):
        raise InputError(
            f"config.method.args.embeddings is {str(path)!r}, which is of another {' and another '.join(differ)}; "
            "expected those of this run; leave it empty to compute them"
        )
    return embeddings
