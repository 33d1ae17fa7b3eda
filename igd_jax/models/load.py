"""Backbones of any kind by folder or by name, and additional vocabulary for them."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from igd_jax.core.errors import InputError
from igd_jax.models import config as decoder_config
from igd_jax.models import hf_config, t5_config
from igd_jax.models.config import ModelConfig
from igd_jax.models.decoder import Decoder
from igd_jax.models.decoder_weights import load_decoder
from igd_jax.models.hf_weights import Place, read_config
from igd_jax.models.layers import normal_init
from igd_jax.models.t5 import T5, unit_normal
from igd_jax.models.t5_config import T5Config
from igd_jax.models.t5_weights import load_t5

Kind: TypeAlias = Literal["decoder", "t5"]

TYPES: dict[str, Kind] = {**dict.fromkeys(hf_config.FAMILIES, "decoder"), "t5": "t5"}
"""Kind of model for each ``model_type`` of a Hugging Face config."""


def kind_of(folder_or_name: str | Path) -> Kind:
    """Kind of the model of a Hugging Face folder or a named size; no weights are read.

    Raises:
      InputError: there is no such name and no such folder with a config, or the config has another type.
    """
    name = str(folder_or_name)
    if name in decoder_config.NAMED:
        return "decoder"
    if name in t5_config.NAMED:
        return "t5"
    if not Path(name).is_dir():
        known = ", ".join((*decoder_config.NAMED, *t5_config.NAMED))
        raise InputError(
            f"no model is called {name!r} and there is no such folder; expected a folder or one of {known}"
        )
    found = read_config(name).get("model_type")
    if not isinstance(found, str) or found not in TYPES:
        raise InputError(
            f"the model in {name} is of type {found!r}; expected one of {', '.join(TYPES)}; choose another"
        )
    return TYPES[found]


def config_of(folder_or_name: str | Path) -> ModelConfig | T5Config:
    """Sizes of a Hugging Face folder or a named size; no weights are read.

    Raises:
      InputError: see `kind_of`; or the config is unusable.
    """
    kind, name = kind_of(folder_or_name), str(folder_or_name)
    named = decoder_config.NAMED | t5_config.NAMED
    if name in named:
        return named[name]
    content = read_config(name)
    return hf_config.from_hf(content) if kind == "decoder" else t5_config.from_hf(content)


def load_backbone(
    folder: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    remat: str = "none",
    dropout: float | None = None,
    quantize: str = "",
    place: Place | None = None,
) -> Decoder | T5:
    """Load the decoder or T5 of a Hugging Face folder, with its weights.

    Args:
      folder: the folder.
      dtype, param_dtype, remat: as in `Decoder`; a T5 has float32.
      dropout: rate of a T5 in training instead of its config's; a decoder has none.
      quantize, place: as in `decoder_weights.load_decoder`; a T5 is not quantised.

    Raises:
      InputError: the config or the weights are unusable, or a T5 or a decoder does not have these options.
    """
    if kind_of(folder) == "decoder":
        _check_decoder(str(folder), dropout)
        return load_decoder(folder, dtype=dtype, param_dtype=param_dtype, remat=remat, quantize=quantize, place=place)
    _check_t5(str(folder), dtype, param_dtype, quantize)
    return load_t5(folder, remat=remat, dropout=dropout, place=place)


def random_backbone(
    folder_or_name: str | Path,
    *,
    vocab_size: int,
    rngs: nnx.Rngs,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    remat: str = "none",
    dropout: float | None = None,
) -> Decoder | T5:
    """Make a backbone with the sizes of `config_of`, initial weights, and `vocab_size` rows in its embedding.

    The options are those of `load_backbone`. It can be jitted, and reads no weights: so a T5 whose folder has a head of
    its own that the config does not tell (`t5_weights.load_t5`) is made without.

    Raises:
      InputError: see `config_of`; or a T5 or a decoder does not have these options.
    """
    name, config = str(folder_or_name), dataclasses.replace(config_of(folder_or_name), vocab_size=vocab_size)
    if isinstance(config, T5Config):
        _check_t5(name, dtype, param_dtype)
        return T5(t5_config.with_dropout(config, dropout), rngs=rngs, remat=remat)
    _check_decoder(name, dropout)
    return Decoder(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype, remat=remat)


def grow_vocabulary(model: Decoder | T5, vocab_size: int, *, rngs: nnx.Rngs) -> None:
    """Add rows to embedding and head up to `vocab_size`, drawn like the initial ones; to be called before `add_lora`.

    Raises:
      InputError: the model has more rows already.
    """
    more = vocab_size - model.config.vocab_size
    if more < 0:
        raise InputError(
            f"the model embeds {model.config.vocab_size:,} ids, more than the {vocab_size:,} it is to grow to; give a "
            "number of ids that holds them all"
        )
    init = unit_normal if isinstance(model, T5) else normal_init
    for name in ("embed", "head"):
        if (old := getattr(model, name)) is not None:
            new = init(rngs.params(), (more, model.config.hidden_size), old[...].dtype)
            setattr(model, name, nnx.Param(jnp.concatenate([old[...], new])))
    model.config = dataclasses.replace(model.config, vocab_size=vocab_size)


def _check_t5(given: str, dtype: DTypeLike, param_dtype: DTypeLike, quantize: str = "") -> None:
    if jnp.dtype(dtype) != jnp.float32 or jnp.dtype(param_dtype) != jnp.float32 or quantize:
        raise InputError(
            f"{given} is a T5, which computes in float32; got dtype {jnp.dtype(dtype)}, param_dtype "
            f"{jnp.dtype(param_dtype)}, quantize {quantize!r}; set float32, float32 and ''"
        )


def _check_decoder(given: str, dropout: float | None) -> None:
    if dropout:
        raise InputError(f"{given} is a decoder, which has no dropout; got a rate of {dropout:g}; set none")
