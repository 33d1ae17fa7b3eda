"""What a run costs, told before it starts: parameters, and bytes per device against those there are."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from igd_jax.core.devices import facts
from igd_jax.core.log import duration, say
from igd_jax.core.memory import device_memory, shown_bytes
from igd_jax.core.sharding import row_shards, tensor_share
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.methods.base import BACKBONE
from igd_jax.models.config import SMALL, ModelConfig
from igd_jax.models.cost import activation_bytes, training_flops
from igd_jax.models.load import config_of
from igd_jax.models.sharding_rules import path_of
from igd_jax.models.t5_config import T5Config
from igd_jax.session.session import Session
from igd_jax.settings.settings import Settings
from igd_jax.training.mesh import local_rows
from igd_jax.training.optimizer import sum_dtype
from igd_jax.training.step import TrainState

SECONDS_OF_A_LONG_RUN = 3600.0
"""On a CPU, a longer training comes with a proposal that shortens it: another model, or this many seconds of steps."""
SECONDS_PROPOSED = 1200.0


def report_cost(session: Session, state: TrainState, frozen: Any, longest: TextBatch | ItemBatch) -> None:
    """Print the number of parameters, and bytes per device.

    Args:
      session: the run.
      state: the state before the first step.
      frozen: variables that are not trained.
      longest: a micro-batch of the longest rows.
    """
    mesh, n_trained = session.mesh, count(state.params)
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(frozen))
    beside = f" beside {shown_bytes(n_bytes)} of frozen arrays" if n_bytes else ""
    devices = f"{mesh.size} {mesh.devices.flat[0].device_kind} device(s) of {jax.process_count()} process(es)"
    say(f"model: {n_trained:,} parameters to train{beside} on {devices}")
    dtype = sum_dtype(session.settings.train.bfloat16)
    of_sums = None if dtype is None else jnp.dtype(dtype).itemsize
    parts: dict[str, int | None] = {
        "parameters": bytes_per_device(state.params) + bytes_per_device(frozen),
        "optimizer": bytes_per_device(state.opt_state),
        "gradients": bytes_per_device(state.params) + bytes_per_device(state.params, itemsize=of_sums),
        "activations": _activations(session, longest),
    }
    known = {name: size for name, size in parts.items() if size is not None}
    total, there = sum(known.values()), device_memory(mesh.local_devices[0])
    told = ", ".join(f"{name} {shown_bytes(size)}" for name, size in known.items())
    unknown = "" if len(known) == len(parts) else " and activations, which are not estimated"
    against = f" of {shown_bytes(there)}" if there else ""
    say(f"memory per device, estimated: {told}: {shown_bytes(total)}{against}{unknown}")
    if note := there and _note(session.settings, parts["activations"], total=total, there=there):
        say(f"note: {note}")


def _note(settings: Settings, activations: int | None, *, total: int, there: int) -> str:
    """What to change if a device has too little memory or, where that makes larger products faster, much more of it."""
    if total > there:
        is_wide = settings.model.lora_rank and settings.model.param_dtype == "float32"
        narrower = "config.model.param_dtype=bfloat16 beneath adapters, " * bool(is_wide)
        return (
            f"that is more than there is; {narrower}config.model.remat=full, fewer rows in "
            "config.train.micro_batch_size, more devices in config.mesh.fsdp, or adapters "
            "(config.model.lora_rank) need less"
        )
    if jax.default_backend() == "cpu" or not activations or settings.loss.normalizer != "global":
        return ""
    rows = given = settings.train.micro_batch_size
    room = there // 2 - (total - activations)  # an estimate fills no more than half
    while settings.train.global_batch_size % (2 * rows) == 0 and 2 * rows * activations <= room * given:
        rows *= 2
    if rows == given:
        return ""
    return (
        f"there is room for config.train.micro_batch_size={rows}, which trains faster, with the same losses to float "
        "tolerance"
    )


def make_advice(session: Session, batch: TextBatch | ItemBatch) -> Callable[[float, float], str]:
    """Function from the seconds that training will take, and those of a step, to the flag that shortens it.

    The text is empty on an accelerator, or if training is not long. How long the smallest model would take follows from
    the operations of both models for the same batch.
    """
    config, model, share = backbone_config(session), session.settings.model, 1.0
    if isinstance(config, ModelConfig) and isinstance(batch, TextBatch) and not model.path:
        sizes = config_of(SMALL), config
        small, own = (training_flops(size, vocab_size=vocab_size(session, config))(batch) for size in sizes)
        share = small / own

    def advice(seconds: float, per_step: float) -> str:
        if jax.default_backend() != "cpu" or seconds < SECONDS_OF_A_LONG_RUN:
            return ""
        if share < 1.0:
            return f"; --config.model.config={SMALL} would take about {duration(seconds * share)}"
        n_steps = max(int(SECONDS_PROPOSED / per_step), 1)
        return f"; --config.train.num_steps={n_steps} would take about {duration(n_steps * per_step)}"

    return advice


def flops_of(session: Session, state: TrainState) -> Callable[[Any], float]:
    """Floating-point operations of training on a batch, as a function of the batch; 0 if they are not known."""
    if (config := backbone_config(session)) is None:
        return lambda batch: 0.0
    size = vocab_size(session, config)
    if not session.settings.model.lora_rank:
        return training_flops(config, vocab_size=size)
    weights = {path_of(path): x.size for path, x in jax.tree.leaves_with_path(state.params)}
    adapters = sum(n for path, n in weights.items() if ".adapter." in path)
    return training_flops(config, vocab_size=size, adapters=adapters, trains_head=adapters < sum(weights.values()))


def peak_flops(mesh: Mesh) -> float | None:
    """Products per second that all devices together can do, in bfloat16; None if it is not known."""
    known = facts(mesh.devices.flat[0].device_kind)
    return None if known is None else known.flops_per_second * mesh.size


def count(tree: Any) -> int:
    """Number of numbers in the arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def bytes_per_device(tree: Any, *, itemsize: int | None = None) -> int:
    """Bytes of arrays on each device, by their shardings.

    Args:
      tree: the arrays.
      itemsize: bytes per number; None = those of each array.
    """
    return sum(
        prod(leaf.sharding.shard_shape(leaf.shape)) * (itemsize or leaf.dtype.itemsize)
        for leaf in jax.tree.leaves(tree)
    )


def _activations(session: Session, longest: TextBatch | ItemBatch) -> int | None:
    """Estimate of the bytes of activations per device; None if the model is not a decoder that writes items."""
    config, model = backbone_config(session), session.settings.model
    if not isinstance(config, ModelConfig) or not isinstance(longest, TextBatch):
        return None
    shards = len(local_rows(row_shards(session.mesh), session.mesh))  # a process makes its own rows only
    target = longest.target.shape[1]
    return activation_bytes(
        config,
        model.remat,
        rows=len(longest.prompt) // shards,
        width=longest.shared_prefix.size + longest.prompt.shape[1] + (0 if longest.pack_trees else target),
        target_rows=len(longest.target) // shards,
        target=target,
        vocab_size=tensor_share(vocab_size(session, config), session.mesh),
        itemsize=jnp.dtype(model.dtype).itemsize,
    )


def backbone_config(session: Session) -> ModelConfig | T5Config | None:
    """Sizes of the backbone; None if the model is another."""
    model = session.settings.model
    return config_of(model.source) if session.method.model_kind == BACKBONE else None


def vocab_size(session: Session, config: ModelConfig | T5Config) -> int:
    """Rows of the head."""
    own = config.vocab_size if session.settings.model.path else 0
    return max(own, session.identifiers.vocab_size)
