"""Features of items: those of a file, or what a model makes of their texts (SETRec; docs/methods.md)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import atomic_file, read_json
from igd_jax.core.log import say
from igd_jax.core.ragged import Ragged
from igd_jax.data.batches import TARGET_WIDTHS, in_groups, pad_rows, padded_width
from igd_jax.data.safetensors_io import read_matrices
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_weights import load_decoder
from igd_jax.models.t5 import T5
from igd_jax.models.t5_weights import load_t5
from igd_jax.models.text_encoder import text_reader

LONGEST_TEXT = 2048
"""Tokens of a text that are read, unless the model was made for fewer; published."""
TOKENS_AT_ONCE = 8192


def read_features(path: Path, titles: Sequence[str], *, missing: str) -> Float[np.ndarray, "I W"]:
    """Features of a file, for the items in their order.

    Raises:
      InputError: no such file, features of other titles, or, unless `missing` is ``zero``, rows that are not finite.
    """
    (features,), found = read_matrices(path, "features", remedy="make it again")
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
    """The decoder or T5 of a Hugging Face folder, in float32, and its tokenizer.

    Raises:
      InputError: the folder lacks one of them, they are unusable, or the model does not embed all of the tokenizer's
        ids.
    """
    if absent := [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]:
        raise InputError(
            f"config.method.args.text_model is {str(folder)!r}, which holds no {' and no '.join(absent)}; expected the "
            "Hugging Face folder of a decoder or a T5 with its tokenizer, or nothing for the backbone"
        )
    config = read_json(folder / "config.json")
    is_t5 = isinstance(config, dict) and config.get("model_type") == "t5"
    model, tokenizer = load_t5(folder) if is_t5 else load_decoder(folder), load_tokenizer(folder)
    if model.config.vocab_size < tokenizer.vocab_size:
        raise InputError(
            f"config.method.args.text_model is {str(folder)!r}, whose tokenizer has {tokenizer.vocab_size:,} ids, but "
            f"whose model embeds {model.config.vocab_size:,}; give a folder whose two parts belong together"
        )
    return model, tokenizer


def text_features(
    model: Decoder | T5,
    tokenizer: Tokenizer,
    titles: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    *,
    pooling: str,
    cache: Path,
    mark: str,
) -> Float[np.ndarray, "I D"]:
    """Last hidden states of an item's title and other texts, each pooled, then their mean.

    Each text is read alone, with a newline and no EOS; of a T5 the encoder reads it. Texts that an item lacks do not
    count. The result is kept in a cache that is written only beside something.

    Args:
      texts: by field, in the order of the items; blank where an item has none.
      pooling: as in `models.setrec.text_reader`.
      mark: a fingerprint of all that features are made from.
    """
    path = cache / f"features-{mark}.safetensors"
    if path.is_file():
        return read_matrices(path, "features", remedy="delete it")[0][0]
    longest = min(LONGEST_TEXT, model.config.max_positions) if isinstance(model, Decoder) else LONGEST_TEXT
    total = np.zeros((len(titles), model.config.hidden_size), np.float32)
    n_read = np.zeros((len(titles), 1), np.float32)
    reader = text_reader(model, pooling=pooling)
    for name, column in {"title": titles, **texts}.items():
        items = np.array([item for item, text in enumerate(column) if text or name == "title"], np.int64)
        rows = Ragged.from_lists(tokenizer.encode([column[item] + "\n" for item in items]))
        n_cut = int((rows.lengths > longest).sum())
        if texts or n_cut:
            say(f"features: reading {len(items):,} texts ({name}), {n_cut:,} of them cut to {longest:,} tokens")
        for width, size, group in _groups(np.minimum(rows.lengths, longest)):
            part = rows.take(group)
            valid = np.arange(width) < np.minimum(part.lengths, longest)[:, None]
            ids = np.where(valid, part.pad(width), 0)
            total[items[group]] += reader(pad_rows(ids, size), pad_rows(valid, size))[: len(group)]
        n_read[items] += 1
    features = total / n_read
    if cache.parent.is_dir():
        with atomic_file(path) as partial:
            save_file({"features": features}, partial)
    return features


def _groups(lengths: Int[np.ndarray, " R"]) -> Iterator[tuple[int, int, Int[np.ndarray, " r"]]]:
    """Rows of similar length after the width and the number of rows, by `TOKENS_AT_ONCE`, that they are padded to."""
    order = np.argsort(lengths, kind="stable")
    widths = np.array([padded_width(max(1, length), TARGET_WIDTHS) for length in lengths[order].tolist()])
    for width in np.unique(widths).tolist():
        size = max(1, TOKENS_AT_ONCE // width)
        for group in in_groups(order[widths == width], size):
            yield width, size, group
