"""Reads T5 weights from Hugging Face folders."""

import dataclasses
from contextlib import ExitStack
from pathlib import Path

from flax import nnx

from igd_jax.models.hf_weights import Name, Place, Source, fill, open_tensors, read_config
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import from_hf, with_dropout

HEAD = "lm_head.weight"
COPIES = dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), "shared.weight")
"""Copies of the embedding under other names, as in some published folders."""
IGNORED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
"""A tensor in published version 1.0 folders that no T5 uses: cross-attention has no position biases."""


def names(*, gated: bool) -> list[Name]:
    """Names of the tensors of a `T5`; see `hf_weights.Name`."""
    found = [("shared.weight", "embed", False), (HEAD, "head", False)]
    for side, parts in (
        ("encoder", (("attention", "SelfAttention"), ("mlp", "DenseReluDense"))),
        ("decoder", (("attention", "SelfAttention"), ("cross", "EncDecAttention"), ("mlp", "DenseReluDense"))),
    ):
        found += [
            (f"{side}.final_layer_norm.weight", f"{side}.norm.scale", False),
            (f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", f"{side}.bias", False),
        ]
        for number, (ours, theirs) in enumerate(parts):
            block = f"{side}.block.{{layer}}.layer.{number}"
            found.append((f"{block}.layer_norm.weight", f"{side}.layers.{ours}_norm.scale", False))
            maps = {name: name for name in "qkvo"}
            if ours == "mlp":
                maps = {"gate": "wi_0" if gated else "wi", "up": "wi_1", "down": "wo"}
            found += [
                (f"{block}.{theirs}.{name}.weight", f"{side}.layers.{ours}.{linear}.kernel", True)
                for linear, name in maps.items()
            ]
    return found


def load_t5(folder: str | Path, *, remat: str = "none", dropout: float | None = None, place: Place | None = None) -> T5:
    """Build a `T5` with the weights of a Hugging Face folder, converted to float32.

    transformers 5 always writes ``tie_word_embeddings`` true. A head in the files is therefore a separate head if the
    config does not scale logits (version 1.1), and must equal the embedding if it does.

    Args:
      folder: the folder.
      remat: as in `Decoder`.
      dropout: rate in training instead of the config's; None = the config's.
      place: as in `decoder_weights.load_decoder`.

    Raises:
      InputError: no usable config or weights; or tensors that are missing (-), surplus (+) or differ from the config in
        shape or dtype (!), all in one message.
    """
    config, path = with_dropout(from_hf(read_config(folder)), dropout), Path(folder)
    with ExitStack() as stack:
        tensors = open_tensors(path, stack)
        if HEAD in tensors and not config.scale_logits:
            config = dataclasses.replace(config, tie_embeddings=False)
        template = nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0), remat=remat))
        copies = COPIES | ({HEAD: "shared.weight"} if config.tie_embeddings else {})
        source = Source(path, tensors)
        return fill(template, source, names(gated=config.gated), copies=copies, ignored=IGNORED, place=place)
