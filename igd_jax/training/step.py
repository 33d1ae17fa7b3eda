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
Memory: TypeAlias = dict[str, Array]
"""Scalars that the loss finds in its batch under their names, and that a method renews after each step."""
Loss: TypeAlias = Callable[[Params, Any, Batch], LossSum]
"""``(params, constants, batch) -> LossSum``."""

NORMALIZERS = ("global", "micro_batch")


@no_type_check  # as a pytree it also holds shapes, shardings or None
@struct.dataclass
class TrainState:
    """All that training changes.

    Attributes:
      params, opt_state: of the model and of optax.
      memory: what the method remembers from step to step, scalars by name.
      step: updates made, int32.
    """

    params: Params
    opt_state: optax.OptState
    memory: Memory
    step: Int[Array, ""]


@struct.dataclass
class Accumulator:
    """Gradient of the loss sum, and the sum itself, over the micro-batches so far."""

    grads: Params
    total: LossSum


class StepFunctions(NamedTuple):
    """Compiled functions, one trace a batch shape.

    Attributes:
      first: ``(state, batch) -> Accumulator`` for the first micro-batch of a step.
      add: ``(state, accumulator, batch) -> Accumulator``; the old accumulator is consumed.
      update: ``(state, accumulator) -> (state, metrics)``; the old state is consumed.
      evaluate: ``(state, batch) -> LossSum`` without gradient.
    """

    first: Callable[[TrainState, Batch], Accumulator]
    add: Callable[[TrainState, Accumulator, Batch], Accumulator]
    update: Callable[[TrainState, Accumulator], tuple[TrainState, dict[str, Float[Array, ""]]]]
    evaluate: Callable[[TrainState, Batch], LossSum]


def init_state(params: Params, optimizer: optax.GradientTransformation, memory: Memory | None = None) -> TrainState:
    """The state before the first update."""
    return TrainState(params, optimizer.init(params), memory or {}, jnp.int32(0))


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    constants: Any = None,
    remember: Callable[[Memory, LossSum], Memory] = lambda memory, _: memory,
    normalizer: str = "global",
) -> StepFunctions:
    """Compile the parts of a step.

    Args:
      loss: a method's loss sum.
      constants: arrays that training never changes, handed to the loss: frozen weights, look-up tables.
      remember: the memory after a step, from that before it and the step's sums.
      normalizer: ``global`` divides once over the whole batch; ``micro_batch`` divides each micro-batch by its own
        weight and averages, as the published code does.
    """

    def loss_sum(params: Params, constants: Any, batch: Batch) -> tuple[Float[Array, ""], LossSum]:
        total = loss(params, constants, batch)
        if normalizer == "micro_batch":
            mean = total.loss / jnp.maximum(total.weight, 1e-9)
            total = LossSum(mean, (total.weight > 0).astype(jnp.float32), total.metrics)
        return total.loss, total

    def first(state: TrainState, constants: Any, batch: Batch) -> Accumulator:
        grads, total = jax.grad(loss_sum, has_aux=True)(state.params, constants, batch | state.memory)
        return Accumulator(grads, total)

    def add(state: TrainState, accumulator: Accumulator, constants: Any, batch: Batch) -> Accumulator:
        return jax.tree.map(jnp.add, accumulator, first(state, constants, batch))

    def update(state: TrainState, accumulator: Accumulator) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        total = accumulator.total
        scale = 1.0 / jnp.maximum(total.weight, 1e-9)
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), accumulator.grads)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {**means(total), "grad_norm": optax.tree.norm(grads)}
        return TrainState(params, opt_state, remember(state.memory, total), state.step + 1), metrics

    def evaluate(state: TrainState, constants: Any, batch: Batch) -> LossSum:
        return loss(state.params, constants, batch | state.memory)

    run_first, run_add, run_evaluate = jax.jit(first), jax.jit(add, donate_argnums=1), jax.jit(evaluate)
    return StepFunctions(
        first=lambda state, batch: run_first(state, constants, batch),
        add=lambda state, accumulator, batch: run_add(state, accumulator, constants, batch),
        update=jax.jit(update, donate_argnums=0),
        evaluate=lambda state, batch: run_evaluate(state, constants, batch),
    )


def means(total: LossSum) -> dict[str, Float[Array, ""]]:
    """The one division: ``loss``, and each further metric, over its weight (0 where there is none)."""
    pairs = {"loss": (total.loss, total.weight), **total.metrics}
    return {name: value / jnp.maximum(weight, 1e-9) for name, (value, weight) in pairs.items()}
