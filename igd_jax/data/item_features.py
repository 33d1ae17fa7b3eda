"""Features of items: those of a file, or what a model makes of their titles (SETRec; spec/methods.md 5.1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.core.io import atomic_file, fingerprint, read_json
from igd_jax.data.batches import TARGET_WIDTHS, in_groups, pad_rows, padded_width
from igd_jax.data.matrices import read_matrices
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer
from igd_jax.items.catalog import Ragged
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_weights import load_decoder
from igd_jax.models.set_tokens import title_reader
from igd_jax.models.t5 import T5, load_t5

TITLES_AT_ONCE = 64


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


def title_features(
    model: Decoder | T5, titles: Ragged, *, pooling: str, cache: Path, mark: str
) -> Float[np.ndarray, "I D"]:
    """Last hidden states of titles, pooled, kept in a cache that is written only beside something.

    Args:
      model: reads a title and its newline, without the EOS; of a T5 the encoder does.
      titles: as by `Tokenizer.encode_titles`.
      pooling: as in `title_reader`.
      mark: a fingerprint of all that features are made from.
    """
    path = cache / f"features-{mark}.safetensors"
    if path.is_file():
        return read_matrices(path, "features", remedy="delete it")[0][0]
    lengths = titles.lengths - 1
    run, features = title_reader(model, pooling=pooling), np.zeros((len(titles), model.config.hidden_size), np.float32)
    for items in in_groups(np.argsort(lengths, kind="stable"), TITLES_AT_ONCE):
        width = padded_width(int(lengths[items].max(initial=1)), TARGET_WIDTHS)
        valid = np.arange(width) < lengths[items][:, None]
        ids = np.where(valid, titles.take(items).pad(width), 0)
        features[items] = run(pad_rows(ids, TITLES_AT_ONCE), pad_rows(valid, TITLES_AT_ONCE))[: len(items)]
    if cache.parent.is_dir():
        with atomic_file(path) as partial:
            save_file({"features": features}, partial)
    return features
