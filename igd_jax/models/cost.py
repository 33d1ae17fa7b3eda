"""What one micro-batch of training costs, by arithmetic (docs/training.md): operations that the model needs, and bytes.

Operations are those of products alone, on real tokens: neither padding nor what is computed again counts. A product
with a trained weight is needed three times, forward and for the gradients of its input and of the weight; with a frozen
one twice. So a token costs 6 operations per weight of the linear maps, or 4 beneath adapters.
"""

from collections.abc import Callable

import numpy as np

from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.models.config import ModelConfig
from igd_jax.models.t5_config import T5Config

_MOST_LOGITS = 1 << 29
"""Bytes of logits of one device that training makes at once."""
_PART_OF_LOGITS = 1 << 27
"""Bytes of them at a time where there are more: so many targets that products with the head are efficient. Each part
adds to the gradient of the head, so a few parts would cost more than they save."""


def real_tokens(batch: TextBatch | ItemBatch) -> int:
    """Tokens, or items of histories, that a model has to read: without padding, a shared prefix once."""
    if isinstance(batch, ItemBatch):
        return int(batch.history_mask.sum())
    own = batch.prompt_mask.sum() + (0 if batch.pack_trees else batch.target_mask.sum())  # packs hold targets' inputs
    return len(batch.shared_prefix) + int(own)


def training_flops(
    config: ModelConfig | T5Config, *, vocab_size: int, adapters: int | None = None, trains_head: bool = False
) -> Callable[[TextBatch], float]:
    """Floating-point operations of the gradient of a batch, as a function of the batch.

    Args:
      config: sizes of the model.
      vocab_size: rows of its head.
      adapters: number of trained weights in adapters on frozen linear maps; None = all weights are trained.
      trains_head: whether the head is trained beside adapters.
    """

    def flops(batch: TextBatch) -> float:
        if isinstance(config, T5Config):
            linear, attention = _t5_forward(config, batch)
        else:
            linear, attention = _decoder_forward(config, batch)
        head = 2 * float(batch.target_mask.sum()) * config.hidden_size * vocab_size
        if adapters is None:
            return 3 * (linear + head + attention)
        return 2 * linear + (3 if trains_head else 2) * head + 3 * attention + 6 * real_tokens(batch) * adapters

    return flops


def _decoder_forward(config: ModelConfig, batch: TextBatch) -> tuple[float, float]:
    """Operations of linear maps, and of attention: 4 per head width, pair of tokens and layer."""
    shared = len(batch.shared_prefix)
    if batch.pack_trees is not None:
        own_pairs = (np.asarray(batch.pack_trees.position, np.float64) + 1)[batch.prompt_mask].sum()
    else:
        own = (batch.prompt_mask.sum(axis=1) + batch.target_mask.sum(axis=1)).astype(np.float64)
        own_pairs = (own * (shared + (own + 1) / 2)).sum()
    pairs = own_pairs + shared * (shared + 1) / 2
    heads = config.num_heads * config.head_dim
    return (
        2.0 * real_tokens(batch) * config.num_layers * _layer_weights(config),
        4.0 * float(pairs) * config.num_layers * heads,
    )


def forward_flops_per_token(config: ModelConfig, seen: float) -> float:
    """Operations of the layers of a decoder on each token, padding too, that attends to so many tokens."""
    return config.num_layers * (2.0 * _layer_weights(config) + 4.0 * config.num_heads * config.head_dim * seen)


def _layer_weights(config: ModelConfig) -> int:
    """Weights of the linear maps of one layer of a decoder."""
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return config.hidden_size * (2 * heads + 2 * kv_heads + 3 * config.mlp_size)


def _t5_forward(config: T5Config, batch: TextBatch) -> tuple[float, float]:
    """As `_decoder_forward`: the encoder reads shared prefix and prompt of each row, the decoder the target."""
    heads = config.num_heads * config.head_dim
    square, mlp = config.hidden_size * heads, config.hidden_size * config.mlp_size * (3 if config.gated else 2)
    read = (batch.prompt_mask.sum(axis=1) + len(batch.shared_prefix) * batch.prompt_mask.any(axis=1)).astype(np.float64)
    written = batch.target_mask.sum(axis=1).astype(np.float64)
    encoder = config.num_layers * (4 * square + mlp) + config.num_decoder_layers * 2 * square
    decoder = config.num_decoder_layers * (6 * square + mlp)
    pairs = config.num_layers * read**2 + config.num_decoder_layers * (written * (written + 1) / 2 + written * read)
    return 2.0 * float(encoder * read.sum() + decoder * written.sum()), 4.0 * heads * float(pairs.sum())


def activation_bytes(
    config: ModelConfig,
    remat: str,
    *,
    rows: int,
    width: int,
    target_rows: int,
    target: int,
    vocab_size: int,
    itemsize: int,
) -> int:
    """Estimate of the bytes of a decoder's states at the peak of a gradient, to a third or so.

    It is what each layer keeps, one layer at work, and the logits of some targets and a copy of them.

    Args:
      config: sizes of the model.
      remat: name in `layers.REMAT`.
      rows, width: rows of the micro-batch on one device, and their tokens.
      target_rows, target: rows and columns of its targets.
      vocab_size: columns of the logits on one device.
      itemsize: bytes per number of the computation.
    """
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    dots = 3 * config.hidden_size + 2 * heads + 2 * kv_heads + 2 * config.mlp_size
    between = 2 * config.hidden_size + heads + kv_heads + 2 * config.mlp_size
    whole = (dots + between) * itemsize + 2 * 4 * config.num_heads * width
    kept = {"none": whole, "dots": dots * itemsize, "full": config.hidden_size * itemsize}[remat]
    logits = 4 * target_rows * targets_at_once(target_rows, target, vocab_size) * vocab_size
    return rows * width * (config.num_layers * kept + whole) + 2 * logits


def targets_at_once(rows: int, target: int, vocab_size: int) -> int:
    """Columns of targets whose logits are in memory together: all, or as many as fit `_PART_OF_LOGITS`.

    Args:
      rows, target: rows of the micro-batch on one device, and columns of targets.
      vocab_size: columns of the logits on one device.
    """
    column = 4 * rows * vocab_size
    if target * column <= _MOST_LOGITS:
        return target
    n_parts = -(-target // max(_PART_OF_LOGITS // column, 1))
    return -(-target // n_parts)
