"""What a training step costs on chips that are not there: compiled ahead of time, on arrays without numbers.

XLA compiles for a TPU on any machine that has the package libtpu, and says how much of a chip's memory the program
needs, or that it does not fit. The step is that of `training.step` for a backbone that is tuned to write titles.
"""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import by_row, replicated, row_shards
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.methods.base import token_loss
from igd_jax.models.decoder import Decoder
from igd_jax.models.load import config_of
from igd_jax.models.lora import LoRA, add_lora
from igd_jax.models.sharding_rules import shardings
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import T5Config
from igd_jax.session.sections import MeshSettings, ModelSettings
from igd_jax.session.weights import split_trainable
from igd_jax.training.mesh import mesh_over
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import Accumulator, Group, LossState, Params, init_state, make_step

GIB = 2**30
_UNITS = {"G": GIB, "M": 2**20}
_REFUSED = re.compile(r"Used ([\d.]+)([GM]) of ([\d.]+)([GM]) hbm")
_COLLECTIVE = re.compile(r" = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
_ARRAY = re.compile(r"(bf16|f16|f32|s32|u32|s8|u8|pred)\[([\d,]*)\]")
_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "s8": 1, "u8": 1, "pred": 1}


@dataclass(frozen=True)
class StepCost:
    """Cost of one micro-batch on one chip.

    Attributes:
      used: peak of the chip's memory in bytes.
      room: memory of the chip in bytes that programs may use; None if the compiler did not say, as all fits.
      held: bytes of parameters, optimizer, sums of gradients and batch, within `used`.
      flops: floating-point operations of the program; a loop over layers counts once.
      collectives: number of each kind of collective, and the bytes of the largest.
      seconds: time to compile.
    """

    used: float
    room: float | None
    held: float = 0.0
    flops: float = 0.0
    collectives: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether the compiler accepted the program."""
        return self.room is None


def topology_mesh(topology: str, mesh: MeshSettings) -> Mesh:
    """A mesh of chips by the name of their topology, such as ``v5e:4x4``.

    Raises:
      InputError: libtpu is missing, there is no such topology, or its chips do not make such a mesh.
    """
    # No chip is opened, so there is none to ask for, and no reason to keep other processes out.
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        os.environ.setdefault(name, "1")
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # XLA's errors are of several types
        raise InputError(
            f"--topology is {topology!r}, which cannot be described here ({str(error).splitlines()[0]}); expected a "
            "name such as v5e:4x4 or v6e:2x4, and the package libtpu: pip install igd_jax[tpu]"
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
    name = given.path or given.config

    def make() -> nnx.Module:
        config, rngs = config_of(name), nnx.Rngs(0)
        if isinstance(config, T5Config):
            return T5(config, rngs=rngs, remat=given.remat)
        model = Decoder(config, rngs=rngs, **_dtypes(given))
        if given.lora_rank:
            add_lora(model, LoRA(given.lora_rank, given.lora_alpha, given.lora_targets), rngs=nnx.Rngs(0))
        return model

    return nnx.eval_shape(make)


def step_cost(given: ModelSettings, mesh: Mesh, *, rows: int, prompt: int, target: int) -> StepCost:
    """Compile the step of one micro-batch, whose weights, states and rows are split over the mesh.

    Args:
      given: settings of the model.
      mesh: the chips.
      rows: rows of the micro-batch over all chips.
      prompt, target: tokens of prompts and of targets.

    Raises:
      InputError: the rows cannot be dealt evenly.
    """
    if rows % row_shards(mesh):
        raise InputError(f"{rows} rows per micro-batch cannot be dealt over {row_shards(mesh)} chips; use a multiple")
    graph, params, frozen = split_trainable(abstract_backbone(given))
    optimizer = make_optimizer(
        make_schedule("constant", learning_rate=1e-4, warmup_steps=0, num_steps=1), clip_norm=1.0, weight_decay=0.0
    )

    def loss(params: Params, tables: Any, batch: Any, state: LossState) -> LossSum:
        return token_loss(nnx.merge(graph, params, tables), batch, (), state)

    state = jax.eval_shape(lambda params: init_state(params, optimizer), params)
    places = shardings(state, mesh)
    functions = make_step(loss, optimizer, shardings=places)
    state, frozen = _with(state, places), _with(frozen, shardings(frozen, mesh))
    batch = abstract_batch(mesh, rows=rows, prompt=prompt, target=target)
    start = time.monotonic()
    with jax.set_mesh(mesh):
        totals = jax.eval_shape(loss, state.params, frozen, batch, {})
        sums = Accumulator(state.params, jax.tree.map(lambda x: _array(x.shape, x.dtype, replicated(mesh)), totals))
        # Unused arguments are kept, as the optimizer's state lies in memory while its step is not.
        of_sums = Accumulator(places.params, cast(Any, None))
        run = jax.jit(functions.add.__wrapped__, donate_argnums=1, out_shardings=of_sums, keep_unused=True)
        try:
            compiled: Any = run.lower(state, sums, frozen, _group_of_one(batch, mesh)).compile()
        except jax.errors.JaxRuntimeError as error:
            if (refused := _REFUSED.search(str(error))) is None:
                raise
            used, of_used, room, of_room = refused.groups()
            return StepCost(
                float(used) * _UNITS[of_used], float(room) * _UNITS[of_room], seconds=time.monotonic() - start
            )
    memory = compiled.memory_analysis()
    return StepCost(
        used=memory.peak_memory_in_bytes,
        room=None,
        held=memory.argument_size_in_bytes,
        flops=compiled.cost_analysis().get("flops", 0.0),
        collectives=collectives(compiled.as_text()),
        seconds=time.monotonic() - start,
    )


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """Number of each kind of collective in the text of a compiled program, and the bytes of the largest of each."""
    found: dict[str, tuple[int, int]] = {}
    for shapes, kind in _COLLECTIVE.findall(program):
        sizes = [0]
        for dtype, dims in _ARRAY.findall(shapes):
            size = _BYTES[dtype]
            for dim in filter(None, dims.split(",")):
                size *= int(dim)
            sizes.append(size)
        number, largest = found.get(kind, (0, 0))
        found[kind] = number + 1, max(largest, *sizes)
    return found


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


def _dtypes(given: ModelSettings) -> dict[str, Any]:
    return {"dtype": jnp.dtype(given.dtype), "param_dtype": jnp.dtype(given.param_dtype), "remat": given.remat}


def _group_of_one(batch: TextBatch, mesh: Mesh) -> Group:
    """The shapes of a micro-batch as `training.step.grouped` gives them to the step."""

    def stacked(x: Any) -> Any:
        return _array((1, *x.shape), x.dtype, NamedSharding(mesh, PartitionSpec(None, *x.sharding.spec)))

    return Group(jax.tree.map(stacked, batch), _array((), jnp.int32, replicated(mesh)))


def _array(shape: tuple[int, ...], dtype: Any, sharding: Any) -> Any:
    """Shape, dtype and sharding in the place of an array."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _with(tree: Any, places: Any) -> Any:
    return jax.tree.map(lambda x, place: _array(x.shape, x.dtype, place), tree, places)
