"""The train step: gradients of sums are accumulated over micro-batches and devices, and divided once.

    L = sum over rows and tokens of w * ce  /  sum of w

so that 1 x 32 rows, 4 x 8 rows and 8 devices x 4 rows are the same objective, whatever the weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.types import Batch, LossSum

Params: TypeAlias = Any
"""Any pytree of float arrays."""

NORMALIZERS = ("global", "micro_batch")


@no_type_check  # as a pytree it also holds shapes, shardings or None
@struct.dataclass
class TrainState:
    """All that training changes.

    Attributes:
      params, opt_state: of the model and of optax.
      step: updates made, int32.
    """

    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]


@struct.dataclass
class Accumulator:
    """Gradient of the loss sum, and the sum itself, over the micro-batches so far."""

    grads: Params
    total: LossSum


class StepFunctions(NamedTuple):
    """Compiled functions, one trace a batch shape.

    Attributes:
      first: ``(params, batch) -> Accumulator`` for the first micro-batch of a step.
      add: ``(params, accumulator, batch) -> Accumulator``; the old accumulator is consumed.
      update: ``(state, accumulator) -> (state, metrics)``; the old state is consumed.
      evaluate: ``(params, batch) -> LossSum`` without gradient.
    """

    first: Callable[[Params, Batch], Accumulator]
    add: Callable[[Params, Accumulator, Batch], Accumulator]
    update: Callable[[TrainState, Accumulator], tuple[TrainState, dict[str, Float[Array, ""]]]]
    evaluate: Callable[[Params, Batch], LossSum]


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(params, optimizer.init(params), jnp.int32(0))


def make_step(
    loss: Callable[[Params, Batch], LossSum],
    optimizer: optax.GradientTransformation,
    *,
    normalizer: str = "global",
) -> StepFunctions:
    """Compile the parts of a step.

    Args:
      loss: a method's loss sum.
      normalizer: ``global`` divides once over the whole batch; ``micro_batch`` divides each micro-batch by its own
        weight and averages, as the published code does.
    """

    def loss_sum(params: Params, batch: Batch) -> tuple[Float[Array, ""], LossSum]:
        total = loss(params, batch)
        if normalizer == "micro_batch":
            mean = total.loss / jnp.maximum(total.weight, 1e-9)
            total = LossSum(mean, (total.weight > 0).astype(jnp.float32), total.metrics)
        return total.loss, total

    def first(params: Params, batch: Batch) -> Accumulator:
        grads, total = jax.grad(loss_sum, has_aux=True)(params, batch)
        return Accumulator(grads, total)

    def add(params: Params, accumulator: Accumulator, batch: Batch) -> Accumulator:
        return jax.tree.map(jnp.add, accumulator, first(params, batch))

    def update(state: TrainState, accumulator: Accumulator) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        total = accumulator.total
        scale = 1.0 / jnp.maximum(total.weight, 1e-9)
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), accumulator.grads)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {**means(total), "grad_norm": optax.tree.norm(grads)}
        return TrainState(params, opt_state, state.step + 1), metrics

    return StepFunctions(
        first=jax.jit(first),
        add=jax.jit(add, donate_argnums=1),
        update=jax.jit(update, donate_argnums=0),
        evaluate=jax.jit(loss),
    )


def means(total: LossSum) -> dict[str, Float[Array, ""]]:
    """The one division: ``loss``, and each further metric, over its weight (0 where there is none)."""
    pairs = {"loss": (total.loss, total.weight), **total.metrics}
    return {name: value / jnp.maximum(weight, 1e-9) for name, (value, weight) in pairs.items()}
