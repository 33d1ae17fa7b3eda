"""Figures that only a GPU makes meaningful, as one JSON file: training and searching beside torch on the same device.

    python -m benchmarks.gpu --model=HF_FOLDER [--only=training] [--toy] [--data=FOLDER]

All sides have the weights of ``--model``, which should have seen titles: how a search runs depends on what its model
expects. docs/performance.md has the commands that train one of the shape of Qwen2.5-1.5B in minutes. Prompts and titles
are those of Amazon Books, and all is in bfloat16. Of training, the other side is a torch loop as published, with the
kernels and the fused optimizer of torch (`training_peer`); of the search, `generate` of transformers as published, and
with its waste removed (`decoding_peer`). Equality with a CPU is checked in float32 on a small model.

Utilisation is of useful tokens: the operations that the model needs for them, neither padding nor what is computed
again, against the peak of the device. With ``--toy`` all sizes are small, and any machine runs it.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import torch
from absl import flags

from benchmarks import common, decoding, decoding_ours, decoding_peer, parts, training, training_peer
from benchmarks.parts import Part
from configs import igd
from igd_jax.core.devices import facts
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.core.memory import device_memory, peak_memory
from igd_jax.models.attention import CUDNN, XLA
from igd_jax.session.session import Session, set_up
from igd_jax.settings.settings import settings_from

MODULE = "benchmarks.gpu"


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of the measurements.

    Attributes:
      dtype: dtype of the weights and of the computation.
      kernel: implementation of attention beside XLA's.
      steps: train steps that are timed.
      rows: rows of a step, and of our micro-batches.
      torch_rows: rows of a micro-batch of torch; it keeps the logits of all tokens, and so has no room for more.
      users: users of a search, by how many are answered at a time.
    """

    dtype: str
    kernel: str
    steps: int
    rows: int
    torch_rows: Sequence[int]
    users: Mapping[int, int]


FULL = Size("bfloat16", CUDNN, steps=4, rows=128, torch_rows=(16, 32, 64), users={1: 16, 16: 128, 64: 256})
TOY = Size("float32", XLA, steps=1, rows=8, torch_rows=(4, 8), users={1: 2, 4: 8})


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is read: a prepared folder, and Hugging Face folders of the model and of a small one."""

    data: Path
    model: Path
    small: Path


def parts_of(size: Size, inputs: Inputs) -> dict[str, Part]:
    """All parts by name."""
    return {
        "training": Part(partial(measure_training, size, inputs), 140),
        "training, kernel of attention": Part(partial(measure_training, size, inputs, attention=size.kernel), 140),
        "training of torch": Part(partial(measure_torch_training, size, inputs), 140),
        **{f"search, {n} at a time": Part(partial(measure_search, size, inputs, n), 240) for n in size.users},
        "equality with a CPU": Part(partial(measure_equality, inputs), 70),
    }


def make_session(size: Size, data: Path, model: Path, *, batch_size: int = 1, attention: str = XLA) -> Session:
    """The published recipe for books on one device."""
    config = igd.get_config("books")
    config.data.dir, config.model.path, config.model.attention = str(data), str(model), attention
    config.model.update({"dtype": size.dtype, "param_dtype": size.dtype})
    config.train.global_batch_size = config.train.micro_batch_size = size.rows
    config.train.bfloat16 = "pure" if size.dtype == "bfloat16" else "master"  # as published
    config.decode.batch_size, config.mesh.data, config.loss.normalizer = batch_size, 1, "global"  # so in packs
    return set_up(settings_from(config), Workdir(str(data.parent / "run")))


def measure_training(size: Size, inputs: Inputs, *, attention: str = XLA) -> dict[str, Any]:
    """Speed, utilisation and memory of train steps, after a pass that compiles."""
    session = make_session(size, inputs.data, inputs.model, attention=attention)
    examples = training.choose_examples(session, 4 * size.rows * size.steps)
    side = training.Ours(session, examples)
    steps = training.rows_of_steps(session, examples, size.steps)
    losses: list[float] = []
    compiling = common.seconds(lambda: losses.extend(side(steps)))  # all shapes
    taken = common.seconds(lambda: side(steps))
    n_rows, flops = sum(map(len, steps)), sum(map(side.flops, steps))
    peak = facts(jax.devices()[0].device_kind)
    return {
        **_device(),
        "attention": attention,
        "rows_per_micro_batch": size.rows,
        "examples_per_second": round(n_rows / taken, 1),
        "padded_tokens_per_second": round(sum(map(side.tokens, steps)) / taken),
        "useful_TFLOP_per_second": round(flops / taken / 1e12, 3),
        "utilisation_on_useful_tokens": round(flops / taken / peak.flops_per_second, 3) if peak else None,
        "peak_memory_GB": round(peak_memory() / 1e9, 2),
        "compile_seconds": round(compiling - taken, 1),
        "losses": [round(float(loss), 4) for loss in losses],
    }


def measure_torch_training(size: Size, inputs: Inputs) -> dict[str, Any]:
    """The same of torch, on the GPU if it has one, over the same rows, by the rows of its micro-batches."""
    session = make_session(size, inputs.data, inputs.model)
    examples = training.choose_examples(session, 4 * size.rows * size.steps)
    steps = training.rows_of_steps(session, examples, size.steps)
    found: dict[str, Any] = {}
    for n_rows in size.torch_rows:
        given = training.with_train(session, micro_batch_size=n_rows)
        side = training_peer.Peer(given, examples, _torch_model(session))
        losses = side(steps)
        taken = common.seconds(partial(side, steps))
        found[f"{n_rows} rows per micro-batch"] = {
            "examples_per_second": round(sum(map(len, steps)) / taken, 1),
            "padded_tokens_per_second": round(sum(map(side.tokens, steps)) / taken),
            "losses": [round(loss, 4) for loss in losses],
            **_torch_memory(),
        }
    return found


def measure_search(size: Size, inputs: Inputs, batch_size: int) -> dict[str, Any]:
    """Users per second of both sides, the time of a call if users come alone, and how much of their lists is the same.

    Lists are not compared by score: in bfloat16, those of neighbours are often equal.
    """
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs memory, too
    session = make_session(size, inputs.data, inputs.model, batch_size=batch_size)
    examples, groups = decoding_ours.choose_users(session, size.users[batch_size])
    model = _torch_model(session)
    sides: dict[str, decoding_ours.Ours | decoding_peer.Peer] = {
        decoding.OURS: decoding_ours.Ours(session),
        "stepwise": decoding_ours.Ours(session, search="stepwise"),
        **{name: decoding_peer.Peer(session, model, strong=strong) for name, strong in decoding.PEERS.items()},
    }
    lists: dict[str, decoding_peer.Lists] = {}
    found: dict[str, Any] = {**_device(), "users": len(examples), "beams": session.settings.decode.num_beams}
    for name, side in sides.items():
        is_ours = isinstance(side, decoding_ours.Ours)
        first = common.seconds(partial(side, examples, groups if is_ours else groups[:1]))  # all shapes of ours
        taken = common.seconds(lambda name=name, side=side: lists.update({name: side(examples, groups)}))
        found[name] = {"users_per_second": round(len(examples) / taken, 2)}
        if batch_size == 1:
            alone = decoding.milliseconds(lambda user, side=side: side(examples, [groups[user]]), len(groups))
            found[name] |= {f"latency_{figure}": value for figure, value in alone.items()}
        if is_ours:
            found[name]["compile_seconds"] = round(first - taken, 1)
        else:
            found[name] |= decoding.changes(lists[name], lists[decoding.OURS])
    return found | _torch_memory()


def measure_equality(inputs: Inputs) -> dict[str, Any]:
    """Lists of the small model on this device and on the CPU, in float32.

    Raises:
      InputError: scores differ by more than `decoding.TOLERANCE`.
    """
    session = make_session(TOY, inputs.data, inputs.small, batch_size=4)
    examples, groups = decoding_ours.choose_users(session, 32)
    cpu = jax.devices("cpu")[0]
    with jax.default_matmul_precision("highest"):
        side = decoding_ours.Ours(session)
        here = side(examples, groups)
        side.engine = jax.device_put(side.engine, cpu)
        with jax.default_device(cpu):
            there = side(examples, groups)
    return {**_device(), "users": len(examples), **decoding.check(here, there)}


def _torch_model(session: Session) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return common.torch_model(session, dtype=session.settings.model.dtype, device=device)


def _torch_memory() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"torch_device": "cpu"}
    peak = torch.cuda.max_memory_allocated()
    return {"torch_device": torch.cuda.get_device_name(), "torch_peak_memory_GB": round(peak / 1e9, 2)}


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    memory = device_memory(device)
    return {"device": device.device_kind, "device_memory_GB": round(memory / 1e9, 1) if memory else None}


def run(data: Path) -> None:
    """Run the parts that the flags ask for, on a prepared folder."""
    values = flags.FLAGS
    given = [f"--prepared={data}", f"--model={values.model}", *(["--toy"] if values.toy else [])]
    inputs = Inputs(data, Path(values.model), common.TINY_MODEL)
    found = parts.run(MODULE, parts_of(TOY if values.toy else FULL, inputs), arguments=given)
    if not values.part:
        print(common.markdown(found))


def main() -> None:
    """Entry point."""
    if given := flags.FLAGS.prepared:
        run(Path(given))
        return
    with common.prepared_folder(flags.FLAGS.data) as data:
        run(data)


if __name__ == "__main__":
    flags.DEFINE_bool("toy", False, "Small sizes, for any machine.")
    flags.DEFINE_string("prepared", "", "Prepared folder, instead of --data.")
    common.define_flags()
    parts.define_flags(
        parts_of(FULL, Inputs(Path(), Path(), Path())), output=common.ROOT / "benchmarks" / "results" / "gpu.json"
    )
    run_main(main)
