"""Reads the weights of decoders from Hugging Face folders."""

from contextlib import ExitStack
from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from igd_jax.models.config import ModelConfig
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf
from igd_jax.models.hf_weights import Name, Place, Source, fill, open_tensors, read_config

NAMES: tuple[Name, ...] = (
    ("model.embed_tokens.weight", "embed", False),
    ("model.layers.{layer}.input_layernorm.weight", "layers.attention_norm.scale", False),
    ("model.layers.{layer}.self_attn.q_proj.weight", "layers.attention.q.kernel", True),
    ("model.layers.{layer}.self_attn.k_proj.weight", "layers.attention.k.kernel", True),
    ("model.layers.{layer}.self_attn.v_proj.weight", "layers.attention.v.kernel", True),
    ("model.layers.{layer}.self_attn.o_proj.weight", "layers.attention.o.kernel", True),
    ("model.layers.{layer}.self_attn.q_proj.bias", "layers.attention.q.bias", False),
    ("model.layers.{layer}.self_attn.k_proj.bias", "layers.attention.k.bias", False),
    ("model.layers.{layer}.self_attn.v_proj.bias", "layers.attention.v.bias", False),
    ("model.layers.{layer}.self_attn.q_norm.weight", "layers.attention.q_norm.scale", False),
    ("model.layers.{layer}.self_attn.k_norm.weight", "layers.attention.k_norm.scale", False),
    ("model.layers.{layer}.post_attention_layernorm.weight", "layers.mlp_norm.scale", False),
    ("model.layers.{layer}.mlp.gate_proj.weight", "layers.mlp.gate.kernel", True),
    ("model.layers.{layer}.mlp.up_proj.weight", "layers.mlp.up.kernel", True),
    ("model.layers.{layer}.mlp.down_proj.weight", "layers.mlp.down.kernel", True),
    ("model.norm.weight", "norm.scale", False),
    ("lm_head.weight", "head", False),
)
"""Names of `Decoder`."""
COMPUTED = ".self_attn.rotary_emb.inv_freq"
"""End of names of tensors in folders of the first Llamas that nothing reads: they follow from the config."""


def load_config(folder: str | Path) -> ModelConfig:
    """Read the sizes of the decoder in a Hugging Face folder.

    Raises:
      InputError: see `read_config` and `from_hf`.
    """
    return from_hf(read_config(folder))


def load_decoder(
    folder: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    remat: str = "none",
    quantize: str = "",
    place: Place | None = None,
) -> Decoder:
    """Build a `Decoder` with the weights of a Hugging Face folder (bf16, f16 or f32 safetensors, whole or sharded).

    In addition to the decoder, host memory holds a stacked array at a time: what the devices of this process get of it.

    Args:
      folder: folder with ``config.json`` and ``model.safetensors``, or shards and ``model.safetensors.index.json``.
      dtype: dtype of the computation.
      param_dtype: dtype of the stored weights, to which those of the files are converted.
      remat: as in `Decoder`.
      quantize: one of `quantized.KINDS`, to which linear maps are quantised and frozen as they are read; or empty.
      place: shardings of the weights, of which each device reads its part; None = JAX's default device.

    Raises:
      InputError: the config or the weights are unusable, or the library that quantises is not installed; or tensors are
        missing (-), surplus (+) or of another shape or dtype than the config says (!), all in one message.
    """
    config = load_config(folder)
    template = nnx.eval_shape(
        lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype, remat=remat)
    )
    copies = {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_embeddings else {}
    with ExitStack() as stack:
        source = Source(Path(folder), open_tensors(Path(folder), stack))
        ignored = {name for name in source.tensors if name.endswith(COMPUTED)}
        return fill(template, source, NAMES, copies=copies, ignored=ignored, quantize=quantize, place=place)
