"""What training and searching cost on chips that are not there: compiled ahead of time, on arrays without numbers.

XLA compiles for a TPU on any machine that has the package libtpu, and says how much of a chip's memory a program needs,
or that it does not fit. The programs are those of `training.step`, for a backbone that is tuned to write titles, and of
`decoding.engine`.
"""

import os
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import by_row, replicated, row_shards
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.decoding import engine as engines
from igd_jax.methods.base import token_loss
from igd_jax.models.config import LARGE
from igd_jax.models.decoder import Decoder
from igd_jax.models.layers import Frozen, Linear
from igd_jax.models.load import config_of, random_backbone
from igd_jax.models.lora import add_lora
from igd_jax.models.quantized import quantized
from igd_jax.models.sharding_rules import as_placed, shardings
from igd_jax.session.program_cost import Cost, compiled_cost, together
from igd_jax.session.weights import split_trainable
from igd_jax.settings.sections import MeshSettings, ModelSettings
from igd_jax.training.mesh import mesh_over
from igd_jax.training.optimizer import make_optimizer, make_schedule, sum_dtype
from igd_jax.training.step import Accumulator, Group, LossState, Params, init_state, make_step

_NO_CHIP = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
}
"""What libtpu has to be told where no chip is opened: not to ask for any, not to keep other processes out, and names of
some, whatever the topology, for lack of which it would print warnings."""


def topology_mesh(topology: str, mesh: MeshSettings) -> Mesh:
    """A mesh of chips by the name of their topology, such as ``v5e:4x4``.

    Raises:
      InputError: libtpu is missing, there is no such topology, or its chips do not make such a mesh.
    """
    for name, value in _NO_CHIP.items():
        os.environ.setdefault(name, value)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # XLA's errors are of several types
        raise InputError(
            f"--topology is {topology!r}, which cannot be described here ({str(error).splitlines()[0]}); expected a "
            "name such as v5e:4x4 or v6e:2x4, and the package libtpu: pip install libtpu"
        ) from None
    shards = mesh.fsdp * mesh.tensor
    n_data = len(devices) // shards if mesh.data == -1 else mesh.data
    if n_data * shards != len(devices):
        raise InputError(
            f"--topology is {topology!r} with {len(devices)} chips, which data {mesh.data} x fsdp {mesh.fsdp} x tensor "
            f"{mesh.tensor} do not fill; give sizes whose product does, or data -1"
        )
    return mesh_over(devices, fsdp=mesh.fsdp, tensor=mesh.tensor)


def abstract_backbone(given: ModelSettings) -> nnx.Module:
    """The backbone that the settings name, with shapes in the place of arrays; no weights are read."""
    name = given.source or LARGE

    def make() -> nnx.Module:
        dtypes: dict[str, Any] = {"dtype": jnp.dtype(given.dtype), "param_dtype": jnp.dtype(given.param_dtype)}
        vocab_size, rngs = config_of(name).vocab_size, nnx.Rngs(0)
        model = random_backbone(name, vocab_size=vocab_size, rngs=rngs, remat=given.remat, **dtypes)
        if given.quantize:
            for _, module in nnx.iter_modules(model):
                if isinstance(module, Linear):
                    module.kernel = Frozen(quantized(module.kernel[...], given.quantize))
        if given.lora:
            assert isinstance(model, Decoder), "the settings refuse adapters on anything else"
            add_lora(model, given.lora, rngs=nnx.Rngs(0))
        return model

    return nnx.eval_shape(make)


def step_cost(
    given: ModelSettings, mesh: Mesh, *, rows: int, prompt: int, target: int, bfloat16: str = "master"
) -> Cost:
    """Cost of a step of one micro-batch, its gradient and its update; weights, states and rows are split over the mesh.

    Args:
      given: settings of the model.
      mesh: the chips.
      rows: rows of the micro-batch over all chips.
      prompt, target: tokens of prompts and of targets.
      bfloat16: how bfloat16 weights are updated, one of `optimizer.BFLOAT16`.

    Raises:
      InputError: the rows cannot be dealt evenly.
    """
    if rows % row_shards(mesh):
        raise InputError(f"{rows} rows per micro-batch cannot be dealt over {row_shards(mesh)} chips; use a multiple")
    graph, params, frozen = split_trainable(abstract_backbone(given))
    schedule = make_schedule("constant", learning_rate=1e-4, warmup_steps=0, num_steps=1)
    optimizer = make_optimizer(schedule, clip_norm=1.0, weight_decay=0.0, bfloat16=bfloat16)

    def loss(params: Params, tables: Any, batch: Any, state: LossState) -> LossSum:
        return token_loss(nnx.merge(graph, params, tables), batch, (), state)

    state = jax.eval_shape(lambda params: init_state(params, optimizer), params)
    places, dtype = shardings(state, mesh), sum_dtype(bfloat16)
    functions = make_step(loss, optimizer, sum_dtype=dtype, shardings=places)
    state, frozen = as_placed(state, mesh), as_placed(frozen, mesh)
    batch = abstract_batch(mesh, rows=rows, prompt=prompt, target=target)
    with jax.set_mesh(mesh):
        totals = jax.eval_shape(loss, state.params, frozen, batch, {})
        grads = jax.tree.map(lambda x: _array(x.shape, dtype or x.dtype, x.sharding), state.params)
        sums = Accumulator(grads, jax.tree.map(lambda x: _array(x.shape, x.dtype, replicated(mesh)), totals))
        # Unused arguments are kept, as the optimizer's state lies in memory while its step is not.
        of_sums = Accumulator(places.params, cast(Any, None))
        add = jax.jit(functions.add.__wrapped__, donate_argnums=1, out_shardings=of_sums, keep_unused=True)
        gradient, _ = compiled_cost(add.trace(state, sums, frozen, _group_of_one(batch, mesh)), mesh)
        if not gradient.fits:
            return gradient
        update, _ = compiled_cost(cast(Any, functions.update).trace(state, sums), mesh)
    return together([gradient, update])


def search_cost(engine: engines.Engine, mesh: Mesh, *, rows: int, prompt: int) -> Cost:
    """Cost of a search: reading the prompts, a call of the model, and growing once between two calls.

    Args:
      engine: the engine; its weights may be shapes.
      mesh: the chips.
      rows: users at a time, over all chips.
      prompt: tokens of prompts.
    """
    engine = as_placed(jax.eval_shape(lambda x: x, engine), mesh)
    batch = abstract_batch(mesh, rows=rows, prompt=prompt, target=0)

    with jax.set_mesh(mesh):
        start, program = compiled_cost(engines.start.trace(engine, batch, prompt), mesh)
        costs, state = [start], _result(engines.start, program, engine, batch, prompt)
        for work in (engines.grow, engines.generate):
            if not costs[-1].fits:
                break
            cost, program = compiled_cost(work.trace(engine, state), mesh)
            costs.append(cost)
            state = _result(work, program, engine, state)
    return together(costs)


def abstract_batch(mesh: Mesh, *, rows: int, prompt: int, target: int) -> TextBatch:
    """Shapes of a batch with the annotations of `methods.base.gain_weights`, dealt over the mesh."""

    def dealt(width: int, dtype: Any) -> Any:
        return _array((rows, width), dtype, by_row(mesh))

    return TextBatch(
        shared_prefix=_array((0,), jnp.int32, replicated(mesh)),
        prompt=dealt(prompt, jnp.int32),
        prompt_mask=dealt(prompt, bool),
        target=dealt(target, jnp.int32),
        target_mask=dealt(target, bool),
        place=dealt(target, jnp.int32),
        before=dealt(target, jnp.int32),
        first=_array((rows,), jnp.int32, replicated(mesh)),
        annotations={"weight": dealt(target, jnp.float32), "forced": dealt(target, bool)},
    )


def _group_of_one(batch: TextBatch, mesh: Mesh) -> Group:
    """The shapes of a micro-batch as `training.step.grouped` gives them to the step."""

    def stacked(x: Any) -> Any:
        return _array((1, *x.shape), x.dtype, NamedSharding(mesh, PartitionSpec(None, *x.sharding.spec)))

    return Group(jax.tree.map(stacked, batch), _array((), jnp.int32, replicated(mesh)))


def _array(shape: tuple[int, ...], dtype: Any, sharding: Any) -> Any:
    """Shape, dtype and sharding in the place of an array."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _result(function: Any, program: Any, *given: Any) -> Any:
    """The result of a program, where the compiler puts it; None if it was refused."""
    if program is None:
        return None
    shapes = jax.eval_shape(function, *given)
    return jax.tree.map(lambda x, place: _array(x.shape, x.dtype, place), shapes, program.output_shardings)
