"""Feature vectors of items, read from a file or computed from their texts by a model (docs/methods/setrec.md)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint, sample_leaves
from igd_jax.core.log import Progress, say
from igd_jax.core.map_rows import deal_rows, in_groups, map_rows
from igd_jax.core.ragged import Ragged
from igd_jax.data.batches import TARGET_WIDTHS, padded_width
from igd_jax.data.npy_io import read_npy
from igd_jax.data.safetensors_io import cached_matrix, read_matrices
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer
from igd_jax.models.decoder import Decoder
from igd_jax.models.load import load_backbone
from igd_jax.models.t5 import T5
from igd_jax.models.text_encoder import text_reader

LONGEST_TEXT = 2048
"""Limit in tokens per text, as published with SETRec for Qwen; lower if the model has a shorter context."""
TOKENS_AT_ONCE = 8192


def read_features(path: Path, titles: Sequence[str], *, missing: str) -> Float[np.ndarray, "I W"]:
    """Read features, one row per item in catalogue order, from a file of safetensors, or of NumPy (``.npy``).

    Raises:
      InputError: no such file, features of other titles, or rows that are not finite unless `missing` is ``zero``.
    """
    if path.suffix == ".npy":
        features, found = read_npy(path, remedy="make it again"), dict[str, str]()
    else:
        (features,), found = read_matrices(path, "features", remedy="make it again", may_lack=True)
    of_titles = fingerprint(*titles)
    if len(features) != len(titles) or found.get("fingerprint", of_titles) != of_titles:
        raise InputError(
            f"{path} has features of {len(features):,} items, fingerprint {found.get('fingerprint', 'not given')}, but "
            f"the data has {len(titles):,} items, fingerprint {of_titles}; make them from these titles in this order"
        )
    is_broken = ~np.isfinite(features).all(axis=1)
    if is_broken.any() and missing != "zero":
        first = titles[int(is_broken.argmax())]
        raise InputError(
            f"{path} has features that are not finite for {int(is_broken.sum()):,} items, such as {first!r}; mend "
            "them, or take them as zeros with config.method.args.missing=zero"
        )
    return np.where(is_broken[:, None], np.float32(0), features)


def load_text_model(folder: Path) -> tuple[Decoder | T5, Tokenizer]:
    """Load the decoder or T5 of a Hugging Face folder, in float32, and its tokenizer.

    Raises:
      InputError: either is unusable, or the model does not embed all ids of the tokenizer.
    """
    model, tokenizer = load_backbone(folder), load_tokenizer(folder)
    if model.config.vocab_size < tokenizer.vocab_size:
        raise InputError(
            f"config.method.args.text_model is {str(folder)!r}, whose tokenizer has {tokenizer.vocab_size:,} ids, but "
            f"whose model embeds {model.config.vocab_size:,}; give a folder whose two parts belong together"
        )
    return model, tokenizer


def cached_text_features(
    model: Decoder | T5,
    tokenizer: Tokenizer,
    titles: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    *,
    pooling: str,
    mesh: Mesh,
    cache: Path,
) -> tuple[Float[np.ndarray, "I D"], str]:
    """As `text_features`, kept in the folder `cache`, and a fingerprint of model, tokenizer, texts and pooling."""
    read = [*titles, *(text for name, column in texts.items() for text in (name, *column))]
    mark = fingerprint(pooling, tokenizer.fingerprint, *read, *sample_leaves(nnx.state(model)))
    features = cached_matrix(
        cache / f"features-{mark}.safetensors",
        "features",
        lambda: text_features(model, tokenizer, titles, texts, pooling=pooling, mesh=mesh),
        shape=(len(titles), model.config.hidden_size),
        metadata={},
    )
    return features, mark


def text_features(
    model: Decoder | T5,
    tokenizer: Tokenizer,
    titles: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    *,
    pooling: str,
    mesh: Mesh,
) -> Float[np.ndarray, "I D"]:
    """Mean over the title and further texts of each item of the pooled last hidden states of each text.

    Each text is read on its own, with a newline and without EOS; a T5 reads it with its encoder. Missing texts do not
    count.

    Args:
      texts: texts by field, in catalogue order; blank if an item has none.
      pooling: "mean" or "last", as in `models.text_encoder.text_reader`.
      mesh: devices among which the texts are divided.
    """
    longest = min(LONGEST_TEXT, model.config.max_positions) if isinstance(model, Decoder) else LONGEST_TEXT
    total = np.zeros((len(titles), model.config.hidden_size), np.float32)
    n_read = np.zeros((len(titles), 1), np.float32)
    reader = text_reader(model, pooling=pooling, mesh=mesh)
    for name, column in {"title": titles, **texts}.items():
        items = np.array([item for item, text in enumerate(column) if text or name == "title"], np.int64)
        if not len(items):
            continue
        encoded = tokenizer.encode([column[item] + "\n" for item in items])
        n_cut = sum(len(ids) > longest for ids in encoded)
        if texts or n_cut:
            say(f"features: reading {len(items):,} texts ({name}), {n_cut:,} of them cut to {longest:,} tokens")
        rows, progress = Ragged.from_lists([ids[:longest] for ids in encoded]), Progress(name, len(items), "texts")
        total[items] += _read(reader, rows, mesh=mesh, progress=progress)
        n_read[items] += 1
    return total / n_read


def _read(
    reader: Callable[[Any, Any], Array], rows: Ragged, *, mesh: Mesh, progress: Progress
) -> Float[np.ndarray, "R D"]:
    """Apply the reader to all rows, in batches of few distinct shapes."""
    width_of_row = np.array([padded_width(length, TARGET_WIDTHS) for length in rows.lengths.tolist()])

    def answer(group: Int[np.ndarray, " r"]) -> Array:
        part, width = rows.take(group), int(width_of_row[group[0]])
        valid = np.arange(width) < part.lengths[:, None]
        return reader(*deal_rows(part.pad(width), valid, size=_rows_at_once(width), mesh=mesh))

    def groups() -> Iterator[Int[np.ndarray, " r"]]:
        for width in np.unique(width_of_row).tolist():
            yield from in_groups(np.flatnonzero(width_of_row == width), _rows_at_once(width))

    return map_rows(answer, groups(), n_rows=len(rows), progress=progress)


def _rows_at_once(width: int) -> int:
    return max(1, TOKENS_AT_ONCE // width)
