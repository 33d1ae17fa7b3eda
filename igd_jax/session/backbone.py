"""The backbone that the settings name, before training."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from igd_jax.core.errors import InputError
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.models.attention import XLA
from igd_jax.models.decoder import Decoder
from igd_jax.models.load import config_of, grow_vocabulary, load_backbone, random_backbone
from igd_jax.models.lora import add_lora
from igd_jax.models.quantized import quantize_layers
from igd_jax.models.sharding_rules import shardings
from igd_jax.models.t5 import T5
from igd_jax.settings.sections import ModelSettings


def make_backbone(
    given: ModelSettings, tokenizer: Tokenizer, *, vocab_size: int, seed: int, mesh: Mesh
) -> Decoder | T5:
    """Make the backbone: with the weights of a Hugging Face folder, or random ones of a named size.

    With LoRA, these weights are frozen, quantised if asked, and new adapters are added that change nothing at first.

    Args:
      given: settings of the model.
      tokenizer: tokenizer of the run.
      vocab_size: number of ids of the identifiers; ids beyond the tokenizer's get new rows of the embedding.
      seed: seed of random weights.
      mesh: devices, on each of which only its part of the weights is ever made or read.

    Raises:
      InputError: the weights are unusable, the tokenizer has more ids than the embedding, or there is no such kernel of
        attention here.
    """
    options, place = _options(given), partial(shardings, mesh=mesh)
    if given.path:
        model = load_backbone(given.path, quantize=given.quantize, place=place, **options)
        if model.config.vocab_size < tokenizer.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size:,} ids but the model in {given.path} embeds "
                f"{model.config.vocab_size:,}; give the tokenizer that belongs to it"
            )
        if model.config.vocab_size < vocab_size:
            grow_vocabulary(model, vocab_size, rngs=nnx.Rngs(seed))
    else:

        def make() -> Decoder | T5:
            return random_backbone(given.config, vocab_size=vocab_size, rngs=nnx.Rngs(seed), **options)

        graph, shapes = nnx.split(nnx.eval_shape(make))
        model = nnx.merge(graph, jax.jit(lambda: nnx.state(make()), out_shardings=place(shapes))())
    _set_attention(model, given)
    if lora := given.lora:
        assert isinstance(model, Decoder), "the settings refuse adapters on anything else"
        if given.quantize and not given.path:
            quantize_layers(model, given.quantize)
        add_lora(model, lora, rngs=nnx.Rngs(seed), trains_vocabulary=vocab_size > tokenizer.vocab_size)
    return model


def tuned_backbone(given: ModelSettings, *, vocab_size: int) -> Decoder | T5:
    """A backbone like that of `make_backbone` without LoRA, for `nnx.eval_shape`: no weights are read.

    Args:
      given: settings of the model.
      vocab_size: number of ids of the identifiers.
    """
    if given.path:
        vocab_size = max(vocab_size, config_of(given.path).vocab_size)
    model = random_backbone(given.source, vocab_size=vocab_size, rngs=nnx.Rngs(0), **_options(given))
    _set_attention(model, given)
    return model


def _options(given: ModelSettings) -> dict[str, Any]:
    return {
        "dtype": jnp.dtype(given.dtype),
        "param_dtype": jnp.dtype(given.param_dtype),
        "remat": given.remat,
        "dropout": None if given.dropout < 0 else given.dropout,
    }


def _set_attention(model: Decoder | T5, given: ModelSettings) -> None:
    if isinstance(model, Decoder):
        check_attention(given, jax.default_backend())
        model.attention = given.attention


def check_attention(given: ModelSettings, platform: str) -> None:
    """Raise `InputError` if the kernel of attention cannot run on a kind of device, or in the model's dtype."""
    if given.attention != XLA and (platform != "gpu" or given.dtype != "bfloat16"):
        raise InputError(
            f"config.model.attention is {given.attention!r}, which needs an NVIDIA GPU and config.model.dtype "
            f"bfloat16; here are a {platform} and {given.dtype}; set {XLA!r}"
        )
