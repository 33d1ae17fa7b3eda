"""Sizes and switches of a T5, by name or from a Hugging Face ``config.json``."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from igd_jax.core.errors import InputError
from igd_jax.models.hf_config import HARMLESS, REMEDY, positive_number, unsupported

FEED_FORWARD = {"relu": False, "gated-gelu": True}
"""Values of ``feed_forward_proj``, and whether they are gated."""


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """Everything that determines the computation of a T5.

    Attributes:
      vocab_size, hidden_size, mlp_size, num_heads, head_dim, tie_embeddings: sizes as in `models.config`.
      num_layers, num_decoder_layers: number of blocks of the encoder and the decoder.
      num_buckets: number of buckets of relative positions.
      max_distance: distance from which on all positions share a bucket.
      eps: epsilon added to the mean square in every norm.
      gated: whether the feed-forward is a gated GELU (version 1.1) instead of a ReLU.
      scale_logits: whether states are divided by ``sqrt(hidden_size)`` before the head (version 1.0).
      start_id: first input token of the decoder.
      dropout: probability of zeroing a number in training, where rows have seeds.
      max_positions: infinite, since positions are relative.
    """

    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    head_dim: int
    num_buckets: int
    max_distance: int
    eps: float
    gated: bool
    tie_embeddings: bool = True
    scale_logits: bool = True
    start_id: int = 0
    dropout: float = 0.1
    max_positions: ClassVar[float] = math.inf


_T5 = partial(T5Config, vocab_size=32_128, num_buckets=32, max_distance=128, eps=1e-6, gated=False)
NAMED: dict[str, T5Config] = {
    "t5-pico": _T5(hidden_size=64, mlp_size=192, num_layers=2, num_decoder_layers=2, num_heads=4, head_dim=16),
    "t5-tiger": _T5(hidden_size=128, mlp_size=1024, num_layers=4, num_decoder_layers=4, num_heads=6, head_dim=64),
    "t5-small": _T5(hidden_size=512, mlp_size=2048, num_layers=6, num_decoder_layers=6, num_heads=8, head_dim=64),
    "t5-base": _T5(hidden_size=768, mlp_size=3072, num_layers=12, num_decoder_layers=12, num_heads=12, head_dim=64),
}
"""Version 1.0 at its public sizes (arXiv 1910.10683; google-t5 on Hugging Face), that of TIGER (arXiv 2305.05065) and
LETTER, and a small model for quick runs."""


def with_dropout(config: T5Config, dropout: float | None) -> T5Config:
    """The config with another rate of dropout; None leaves it as it is."""
    return config if dropout is None else dataclasses.replace(config, dropout=dropout)


_FIELDS = {
    "vocab_size": "vocab_size", "d_model": "hidden_size", "d_ff": "mlp_size", "num_layers": "num_layers",
    "num_heads": "num_heads", "d_kv": "head_dim", "relative_attention_num_buckets": "num_buckets",
    "relative_attention_max_distance": "max_distance", "layer_norm_epsilon": "eps",
}  # fmt: skip
_DEFAULTS = {"relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6}
"""Defaults of fields that older configs lack."""
_READ_APART = {
    "decoder_start_token_id", "dropout_rate", "feed_forward_proj", "model_type", "num_decoder_layers",
    "scale_decoder_outputs", "tie_word_embeddings",
}  # fmt: skip
_HARMLESS = HARMLESS | {
    "classifier_dropout", "gradient_checkpointing", "initializer_factor", "n_positions", "output_past",
    "task_specific_params",
}  # fmt: skip


def from_hf(config: dict[str, Any]) -> T5Config:
    """Read a Hugging Face config of ``model_type`` t5.

    ``tie_word_embeddings`` false has two meanings, a separate head and unscaled logits; transformers 5 writes the
    second as a field of its own, ``scale_decoder_outputs``.

    Raises:
      InputError: another model type; or, all in one message, fields that are missing or have an unsupported value.
    """
    if config.get("model_type") != "t5":
        raise InputError(f"the model is of type {config.get('model_type')!r}; expected t5; choose such a model")
    kind = config.get("feed_forward_proj", "relu")
    only: dict[str, Any] = {"is_encoder_decoder": True}
    if kind in [*FEED_FORWARD]:
        gated = FEED_FORWARD[kind]
        only |= {"is_gated_act": gated, "dense_act_fn": "gelu_new" if gated else "relu"}
    problems = unsupported(config, only=only, known=_FIELDS.keys() | _READ_APART | _HARMLESS)
    given = {**_DEFAULTS, **config}
    sizes: dict[str, Any] = {
        ours: positive_number(given, theirs, float if ours == "eps" else int, problems)
        for theirs, ours in _FIELDS.items()
    }
    decoder_layers = "num_layers" if given.get("num_decoder_layers") is None else "num_decoder_layers"
    sizes["num_decoder_layers"] = positive_number(given, decoder_layers, int, problems)
    starts = (config.get(name) for name in ("decoder_start_token_id", "pad_token_id"))
    start = next((start for start in starts if start is not None), 0)
    if not isinstance(start, int) or isinstance(start, bool) or not 0 <= start < sizes["vocab_size"]:
        problems.append(f"decoder_start_token_id is {start!r}, expected an id of the vocabulary")
    dropout = config.get("dropout_rate", T5Config.dropout)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0.0 <= dropout < 1.0:
        problems.append(f"dropout_rate is {dropout!r}, expected a probability from 0 to below 1")
    if not 4 <= sizes["num_buckets"] < 2 * sizes["max_distance"]:
        problems.append("relative_attention_num_buckets is not from 4 to twice relative_attention_max_distance")
    if kind not in [*FEED_FORWARD]:
        problems.append(f"feed_forward_proj is {kind!r}, expected one of {', '.join(FEED_FORWARD)}")
    tied = config.get("tie_word_embeddings") is not False
    scaled = config.get("scale_decoder_outputs")
    if not isinstance(scaled, bool | None):
        problems.append(f"scale_decoder_outputs is {scaled!r}, expected true or false")
    if problems:
        raise InputError(f"the t5 config cannot be used: {'; '.join(problems)}; {REMEDY}")
    return T5Config(
        **sizes,
        gated=FEED_FORWARD[kind],
        tie_embeddings=tied,
        scale_logits=tied if scaled is None else scaled,
        start_id=start,
        dropout=float(dropout),
    )


def to_hf(config: T5Config) -> dict[str, Any]:
    """The Hugging Face config that `from_hf` reads as `config`."""
    (kind,) = [kind for kind, gated in FEED_FORWARD.items() if gated == config.gated]
    sizes = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        **sizes,
        "num_decoder_layers": config.num_decoder_layers,
        "feed_forward_proj": kind,
        "tie_word_embeddings": config.tie_embeddings,
        "scale_decoder_outputs": config.scale_logits,
        "decoder_start_token_id": config.start_id,
        "dropout_rate": config.dropout,
        "is_encoder_decoder": True,
    }
