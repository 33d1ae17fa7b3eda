"""The train step: gradients of sums are accumulated over micro-batches and devices, and divided once.

Micro-batches of one shape are stacked and run by one program, in a loop that takes their number when it starts: a step
is one program per shape, one that makes the zeros they are added to, and one that updates.

    L = sum over rows and tokens of w * ce  /  sum of w

So 1 x 32 rows, 4 x 8 rows and 8 devices x 4 rows give the same objective, for any weights.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from igd_jax.core.compilation import training_compiler_options
from igd_jax.core.types import ItemBatch, LossSum, TextBatch
from igd_jax.training.mesh import put_batch

Params: TypeAlias = Any
"""Any pytree of float arrays."""
LossState: TypeAlias = dict[str, Array]
"""Scalars that a loss reads, by name, and that an objective updates after each step."""
Batch: TypeAlias = TextBatch | ItemBatch
Loss: TypeAlias = Callable[[Params, Any, Batch, LossState], LossSum]
"""``(params, tables, batch, loss_state) -> LossSum``."""

NORMALIZERS = ("global", "micro_batch")


@no_type_check  # as a pytree it also holds shapes, shardings or None
@struct.dataclass
class TrainState:
    """Everything that training changes.

    Attributes:
      params: parameters of the model.
      opt_state: state of the optimizer.
      loss_state: scalars of the objective that are carried from step to step.
      step: number of updates made, int32.
    """

    params: Params
    opt_state: optax.OptState
    loss_state: LossState
    step: Int[Array, ""]


@no_type_check
@struct.dataclass
class Accumulator:
    """Gradient of the loss sum and the sum itself, over the micro-batches so far."""

    grads: Params
    total: LossSum


class Group(NamedTuple):
    """Micro-batches of one shape.

    Attributes:
      batches: their arrays, stacked along a new first axis, whose length may exceed their number.
      number: how many there are, int32.
    """

    batches: Batch
    number: Int[Array, ""] | np.int32


def grouped(batches: Iterable[Batch], mesh: Mesh, *, size: int | None = None, room: int = 1) -> list[Group]:
    """Stack micro-batches of NumPy arrays by their shapes, in the order in which each is met first; on the devices.

    Args:
      batches: the micro-batches of a step.
      mesh: the devices.
      size: as in `put_batch`.
      room: length of the first axis of each stack, so that it is the same from step to step; or more if needed.
    """
    by_shape: dict[Any, list[Batch]] = {}
    for batch in batches:
        by_shape.setdefault(shape_of(batch), []).append(batch)
    return [_stacked(group, mesh, size=size, room=max(room, len(group))) for group in by_shape.values()]


def shape_of(tree: Any) -> tuple[Any, ...]:
    """What programs are compiled for: structure, shapes and dtypes of a pytree of arrays."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, *((leaf.shape, leaf.dtype) for leaf in leaves)


def _stacked(group: Sequence[Batch], mesh: Mesh, *, size: int | None, room: int) -> Group:
    filled = [*group, *[group[-1]] * (room - len(group))]
    stack = jax.tree.map(lambda *arrays: np.stack(arrays), *filled)
    return Group(put_batch(stack, mesh, size=size, is_stack=True), np.int32(len(group)))


class StepFunctions(NamedTuple):
    """Compiled functions, one trace per shape.

    Attributes:
      accumulate: ``(state, groups) -> Accumulator`` over all micro-batches of a step.
      add: ``(state, accumulator, tables, group) -> accumulator``, the program that `accumulate` runs per group; the old
        accumulator is donated.
      update: ``(state, accumulator) -> (state, metrics)``; the old state is donated.
      evaluate: ``(state, batch) -> LossSum``, without gradients.
    """

    accumulate: Callable[[TrainState, Iterable[Group]], Accumulator]
    add: Any
    update: Callable[[TrainState, Accumulator], tuple[TrainState, dict[str, Float[Array, ""]]]]
    evaluate: Callable[[TrainState, Batch], LossSum]


def init_state(
    params: Params, optimizer: optax.GradientTransformation, loss_state: LossState | None = None
) -> TrainState:
    """The state before the first update."""
    return TrainState(params, optimizer.init(params), loss_state or {}, jnp.int32(0))


def unchanged(state: LossState, total: LossSum) -> LossState:
    """The unchanged loss state, for objectives without one."""
    return state


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    tables: Any = None,
    update_state: Callable[[LossState, LossSum], LossState] = unchanged,
    normalizer: str = "global",
    sum_dtype: DTypeLike | None = jnp.float32,
    shardings: TrainState | None = None,
) -> StepFunctions:
    """Compile the parts of a step.

    Args:
      loss: loss sum of an objective.
      optimizer: the optimizer.
      tables: arrays that training does not change, passed to the loss: frozen weights, look-up tables.
      update_state: function from the loss state before a step and the step's sums to the loss state after it.
      normalizer: ``global`` divides once over the whole batch; ``micro_batch`` divides each micro-batch by its own
        weight and averages, like the published code.
      sum_dtype: dtype in which gradients are added up over micro-batches; None = that of each weight.
      shardings: sharding of each array of the state, which its sums of gradients share; None = by the compiler.
    """
    accumulate, add = _accumulation(
        loss,
        normalizer=normalizer,
        sum_dtype=sum_dtype,
        tables=tables,
        shardings=None if shardings is None else shardings.params,
    )

    def update(state: TrainState, accumulator: Accumulator) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        total = accumulator.total
        scale = 1.0 / jnp.maximum(total.weight, 1e-9)
        grads = jax.tree.map(lambda g: (g.astype(scale.dtype) * scale).astype(g.dtype), accumulator.grads)
        # optax raises floats to integer powers, and adds float32 updates to bfloat16 weights.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = {**means(total), "grad_norm": optax.tree.norm(grads)}
        return TrainState(params, opt_state, update_state(state.loss_state, total), state.step + 1), metrics

    def evaluate(state: TrainState, tables: Any, batch: Batch) -> LossSum:
        return loss(state.params, tables, batch, state.loss_state)

    run_evaluate = jax.jit(evaluate)
    return StepFunctions(
        accumulate=accumulate,
        add=add,
        update=jax.jit(update, donate_argnums=0, out_shardings=None if shardings is None else (shardings, None)),
        evaluate=lambda state, batch: run_evaluate(state, tables, batch),
    )


def _accumulation(
    loss: Loss, *, normalizer: str, sum_dtype: DTypeLike | None, tables: Any, shardings: Params | None
) -> tuple[Callable[[TrainState, Iterable[Group]], Accumulator], Any]:
    """`StepFunctions.accumulate` and `StepFunctions.add`; `shardings` are those of the parameters."""
    of_sums: Any = None if shardings is None else Accumulator(shardings, cast(Any, None))

    def loss_sum(params: Params, tables: Any, batch: Batch, loss_state: LossState) -> tuple[Float[Array, ""], LossSum]:
        total = loss(params, tables, batch, loss_state)
        if normalizer == "micro_batch":
            mean = total.loss / jnp.maximum(total.weight, 1e-9)
            total = LossSum(mean, (total.weight > 0).astype(jnp.float32), total.metrics)
        return total.loss, total

    def one(state: TrainState, tables: Any, batch: Batch) -> Accumulator:
        grads, total = jax.grad(loss_sum, has_aux=True)(state.params, tables, batch, state.loss_state)
        return Accumulator(grads, total)

    def add(state: TrainState, accumulator: Accumulator, tables: Any, group: Group) -> Accumulator:
        def added(number: Int[Array, ""], accumulator: Accumulator) -> Accumulator:
            sums = one(state, tables, _member(group, number))
            return jax.tree.map(lambda total, x: total + x.astype(total.dtype), accumulator, sums)

        return jax.lax.fori_loop(0, group.number, added, accumulator)

    def totals(state: TrainState, tables: Any, group: Group) -> LossSum:
        return loss_sum(state.params, tables, _member(group, 0), state.loss_state)[1]  # traced without its gradient

    def zeros(state: TrainState, total: LossSum) -> Accumulator:
        grads = jax.tree.map(lambda weight: jnp.zeros_like(weight, dtype=sum_dtype), state.params)
        return Accumulator(grads, jax.tree.map(jnp.zeros_like, total))

    # The first group is added to zeros, so that there is one program per shape instead of two.
    run_zeros = jax.jit(zeros, out_shardings=of_sums)
    run_add = jax.jit(add, donate_argnums=1, out_shardings=of_sums, compiler_options=training_compiler_options())
    shapes: list[LossSum] = []

    def accumulate(state: TrainState, groups: Iterable[Group]) -> Accumulator:
        accumulator = None
        for group in groups:
            if accumulator is None:
                if not shapes:  # shapes of sums do not depend on the batch
                    shapes.append(jax.eval_shape(totals, state, tables, group))
                accumulator = run_zeros(state, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes[0]))
            accumulator = run_add(state, accumulator, tables, group)
        assert accumulator is not None, "a step has at least one micro-batch"
        return accumulator

    return accumulate, run_add


def _member(group: Group, number: int | Int[Array, ""]) -> Batch:
    """One micro-batch of a group, inside a program."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), group.batches)


def means(total: LossSum) -> dict[str, Float[Array, ""]]:
    """The single division: ``loss``, 0 if its weight is, and each further metric, then NaN: a mean over nothing."""
    further = {
        name: jnp.where(weight > 0, value / jnp.where(weight > 0, weight, 1), jnp.nan)
        for name, (value, weight) in total.metrics.items()
    }
    return {"loss": total.loss / jnp.maximum(total.weight, 1e-9), **further}
