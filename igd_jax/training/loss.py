"""Weighted cross-entropy as a `LossSum`: sum and weight are kept separate, and divided once.

Logits are the largest arrays of training. Of a cross-entropy there is one of them, as the gradient takes its place,
and of many targets there are never those of all: see `over_targets`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.sharding import FSDP, TENSOR, keep_rows, row_shards_here, tensor_share
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.models.backbone import Backbone
from igd_jax.models.cost import targets_at_once

OfLogits: TypeAlias = Callable[..., LossSum]
"""``(*logits [B T V], arrays) -> LossSum``, a sum over rows and columns to which arrays of zeros add nothing."""


def weighted_cross_entropy(
    logits: Float[Array, "B T V"],
    target: Int[Array, "B T"],
    weight: Float[Array, "B T"],
    *,
    parts: Mapping[str, Bool[Array, "B T"] | Float[Array, "B T"]],
) -> LossSum:
    """Sum of ``weight * (logsumexp(logits) - logits[target])`` in nats, over all tokens of all rows.

    Args:
      logits: logits of the tokens.
      target: ids of the tokens.
      weight: weight of each token; 0 on padding.
      parts: masks of tokens, or how often each counts, by name; the mean cross-entropy of each is reported under its
        name, without `weight`.
    """
    nll = _cross_entropy(logits.astype(jnp.float32), target)  # a softmax in bf16 is too coarse for small gains
    counts = {name: part.astype(jnp.float32) for name, part in parts.items()}
    metrics = {name: ((count * nll).sum(), count.sum()) for name, count in counts.items()}
    return LossSum((weight * nll).sum(), weight.sum(), metrics)


@jax.custom_vjp
def _cross_entropy(logits: Float[Array, "B T V"], target: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """``logsumexp(logits) - logits[target]``, with a gradient made number by number, in the place of the logits."""
    return _cross_entropy_forward(logits, target)[0]


def _cross_entropy_forward(logits: Array, target: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    total = jax.nn.logsumexp(logits, axis=-1)
    own = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return total - own, (logits, total, target)


def _cross_entropy_backward(kept: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, None]:
    logits, total, target = kept
    is_own = jax.lax.broadcasted_iota(target.dtype, logits.shape, logits.ndim - 1) == target[..., None]
    return gradient[..., None] * (jnp.exp(logits - total[..., None]) - is_own.astype(jnp.float32)), None


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def over_targets(
    logits_of: Callable[[Float[Array, "B T D"]], Float[Array, "B T V"]],
    hidden: Sequence[Float[Array, "B T D"]],
    arrays: Any,
    of_logits: OfLogits,
) -> LossSum:
    """A loss of target tokens, some columns at a time where the logits of all would take too much memory.

    How many is `models.cost.targets_at_once`. Of columns at a time, gradients are taken as soon as their logits are
    known, so that these are made once and kept for nobody. Only `LossSum.loss` can be differentiated.

    Args:
      logits_of: the head, `Backbone.logits`.
      hidden: states that predict the targets; several for a loss that compares them.
      arrays: pytree of arrays [B T ...] of the targets.
      of_logits: function from the logits of each of `hidden`, and from the arrays.
    """
    n_rows, n_targets, vocab_size = jax.eval_shape(logits_of, hidden[0]).shape
    of_each = tensor_share(vocab_size, jax.sharding.get_abstract_mesh()) * len(hidden)
    columns = targets_at_once(-(-n_rows // row_shards_here()), n_targets, of_each)
    if columns >= n_targets:
        return of_logits(*map(logits_of, hidden), arrays)

    def of_columns(hidden: Sequence[Array], arrays: Any) -> LossSum:
        return of_logits(*(logits_of(keep_rows(each)) for each in hidden), arrays)

    hidden, arrays = jax.tree.map(partial(_in_columns, columns=columns), (tuple(hidden), arrays))
    function, weights = jax.closure_convert(of_columns, *jax.tree.map(lambda x: x[0], (hidden, arrays)))
    return _added_up(function, hidden, tuple(weights), arrays)


def weighted_loss(
    model: Backbone,
    batch: TextBatch,
    target: Int[Array, "B T"],
    weight: Float[Array, "B T"],
    *,
    parts: Mapping[str, Bool[Array, "B T"] | Float[Array, "B T"]],
) -> LossSum:
    """`weighted_cross_entropy` of the tokens whose inputs `batch.before` names."""

    def loss(logits: Float[Array, "B T V"], arrays: Any) -> LossSum:
        target, weight, parts = arrays
        return weighted_cross_entropy(logits, target, weight, parts=parts)

    return over_targets(model.logits, [model.target_hidden(batch)], (target, weight, parts), loss)


def _in_columns(x: Array, *, columns: int) -> Array:
    """[B T ...] as [parts B columns ...], the last part filled with zeros."""
    n_parts = -(-x.shape[1] // columns)
    filled = jnp.pad(x, ((0, 0), (0, n_parts * columns - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
    return jnp.moveaxis(filled.reshape(x.shape[0], n_parts, columns, *x.shape[2:]), 1, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _added_up(function: Callable[..., LossSum], hidden: Any, weights: Any, arrays: Any) -> LossSum:
    """Sum of ``function(hidden, arrays, *weights)`` over the first axis of `hidden` and `arrays`."""
    weights = jax.tree.map(_like_head, weights)

    def add(total: LossSum, part: Any) -> tuple[LossSum, None]:
        return total + function(*part, *weights), None

    return jax.lax.scan(add, _zero(function, hidden, weights, arrays), (hidden, arrays))[0]


def _added_up_forward(function: Callable[..., LossSum], hidden: Any, weights: Any, arrays: Any) -> tuple[LossSum, Any]:
    def loss(hidden: Any, weights: Any, arrays: Any) -> tuple[Array, LossSum]:
        total = function(hidden, arrays, *weights)
        return total.loss, total

    def add(sums: Any, part: Any) -> tuple[Any, Any]:
        (of_hidden, of_weights), total = jax.grad(loss, argnums=(0, 1), has_aux=True)(part[0], weights, part[1])
        return jax.tree.map(lambda total, x: total + x.astype(total.dtype), sums, (total, of_weights)), of_hidden

    def of_weight(weight: Array, x: Array) -> Array:
        # Gradients that are rounded are scattered for each part, as devices add them up before; so is their sum.
        return _like_head(x, last=None if weight.dtype == x.dtype else FSDP)

    weights = jax.tree.map(_like_head, weights)
    # In float32, as sums over micro-batches are.
    none = jax.tree.map(lambda weight: of_weight(weight, jnp.zeros_like(weight, dtype=jnp.float32)), weights)
    (total, of_weights), of_hidden = jax.lax.scan(
        add, (_zero(function, hidden, weights, arrays), none), (hidden, arrays)
    )
    of_weights = jax.tree.map(of_weight, weights, of_weights)
    return total, (of_hidden, of_weights, weights)


def _added_up_backward(function: Callable[..., LossSum], kept: Any, gradient: LossSum) -> tuple[Any, Any, None]:
    of_hidden, of_weights, weights = kept

    def scaled(x: Array, like: Array) -> Array:
        # The factor, such as one over a sum of weights, would be rounded with 16 bits.
        return (x.astype(jnp.float32) * gradient.loss).astype(like.dtype)

    return jax.tree.map(scaled, of_hidden, of_hidden), jax.tree.map(scaled, of_weights, weights), None


_added_up.defvjp(_added_up_forward, _added_up_backward)


def _like_head(x: Array, *, last: str | None = None) -> Array:
    """An array [V D] split by its vocabulary, and by its width over an axis of the mesh or not; others as they are.

    A head that is split by its width would be gathered, and its gradient scattered, for each part anew.
    """
    return keep_rows(x, last=last, over=(TENSOR,)) if x.ndim == 2 else x


def _zero(function: Callable[..., LossSum], hidden: Any, weights: Any, arrays: Any) -> LossSum:
    part = jax.tree.map(lambda x: x[0], (hidden, arrays))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *part, *weights))
