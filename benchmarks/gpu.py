"""Figures that only a GPU makes meaningful, in under ten minutes on a large one, as one JSON file.

    python -m benchmarks.gpu [--only=training] [--toy] [--data=FOLDER] [--tokenizer=HF_FOLDER]

The model has random weights of the shape of Qwen2.5-1.5B in bfloat16; prompts and titles have the lengths of Amazon
Books. The other side of the search is `generate` of transformers with a logits processor as published, on the same
device; its weights are random too, and not the same. Equality with a CPU is checked in float32 on a small model.
Utilisation is of useful tokens: the operations that the model needs for them, neither padding nor what is computed
again, against the peak of the device. Training is measured with both implementations of attention; with ``--toy``,
both are XLA's.

A row more is a function more in `parts_of`. With ``--toy`` all sizes are small, and any machine runs it.
"""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from absl import flags
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from benchmarks import common, decoding, decoding_ours, decoding_peer, parts, training
from benchmarks.parts import Part
from configs import igd
from igd_jax.core.devices import facts
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.core.memory import device_memory, peak_memory
from igd_jax.models.attention import CUDNN, XLA
from igd_jax.models.config import NAMED, ModelConfig
from igd_jax.session.session import Session, set_up
from igd_jax.settings.settings import settings_from

MODULE = "benchmarks.gpu"


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of the measurements.

    Attributes:
      model, dtype: name of the model, and dtype of its weights and of the computation.
      kernel: implementation of attention beside XLA's.
      steps: train steps that are timed.
      global_rows, micro_rows: rows of a step and of a micro-batch.
      users: users of the searches.
      batch: users at a time.
      single: users that are answered one by one.
    """

    model: str
    dtype: str
    kernel: str
    steps: int
    global_rows: int
    micro_rows: int
    users: int
    batch: int
    single: int


FULL = Size("qwen2.5-1.5b", "bfloat16", CUDNN, steps=4, global_rows=128, micro_rows=32, users=256, batch=64, single=20)
TOY = Size("pico", "float32", XLA, steps=1, global_rows=8, micro_rows=4, users=4, batch=4, single=1)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is read: a prepared folder, and a Hugging Face folder with a tokenizer."""

    data: Path
    tokenizer: Path


def parts_of(size: Size, inputs: Inputs) -> dict[str, Part]:
    """All parts by name; their limits add up to less than ten minutes."""
    return {
        "training": Part(partial(measure_training, size, inputs), 140),
        "training, kernel of attention": Part(partial(measure_training, size, inputs, attention=size.kernel), 140),
        "search": Part(partial(measure_search, size, inputs), 120),
        "search of transformers": Part(partial(measure_peer, size, inputs), 120),
        "equality with a CPU": Part(partial(measure_equality, inputs), 70),
    }


def make_session(size: Size, inputs: Inputs, *, attention: str = XLA) -> Session:
    """The published recipe for books, with random weights, on one device."""
    config = igd.get_config("books")
    config.data.dir, config.tokenizer.path = str(inputs.data), str(inputs.tokenizer)
    config.model.update({"config": size.model, "dtype": size.dtype, "param_dtype": size.dtype})
    config.model.attention = attention
    config.train.update({"global_batch_size": size.global_rows, "micro_batch_size": size.micro_rows})
    config.decode.batch_size, config.mesh.data, config.loss.normalizer = size.batch, 1, "global"  # so in packs
    return set_up(settings_from(config), Workdir(str(inputs.data.parent / "run")))


def measure_training(size: Size, inputs: Inputs, *, attention: str = XLA) -> dict[str, Any]:
    """Speed, utilisation and memory of train steps, after one that compiles."""
    session = make_session(size, inputs, attention=attention)
    examples = training.choose_examples(session, 4 * size.global_rows * size.steps)
    side = training.Ours(session, examples)
    steps = training.rows_of_steps(session, examples, size.steps)
    compiling = common.seconds(lambda: side(steps))  # all shapes
    taken = common.seconds(lambda: side(steps))
    n_rows, flops = sum(map(len, steps)), sum(map(side.flops, steps))
    peak = facts(jax.devices()[0].device_kind)
    return {
        **_device(),
        "attention": attention,
        "rows_per_micro_batch": size.micro_rows,
        "examples_per_second": round(n_rows / taken, 1),
        "padded_tokens_per_second": round(sum(map(side.tokens, steps)) / taken),
        "useful_TFLOP_per_second": round(flops / taken / 1e12, 3),
        "utilisation_on_useful_tokens": round(flops / taken / peak.flops_per_second, 3) if peak else None,
        "peak_memory_GB": round(peak_memory() / 1e9, 2),
        "compile_seconds": round(compiling - taken, 1),
    }


def measure_search(size: Size, inputs: Inputs) -> dict[str, Any]:
    """Users per second in batches, and the time to answer one."""
    session = make_session(size, inputs)
    examples, groups = decoding_ours.choose_users(session, size.users)
    side = decoding_ours.Ours(session)
    compiling = common.seconds(lambda: side(examples, groups))
    taken = common.seconds(lambda: side(examples, groups))
    alone = decoding_ours.Ours(make_session(dataclasses.replace(size, batch=1), inputs))
    return {
        **_device(),
        **_speed(size, session, taken, len(examples)),
        **_latency(alone, examples, size.single),
        "peak_memory_GB": round(peak_memory() / 1e9, 2),
        "compile_seconds": round(compiling - taken, 1),
    }


def measure_peer(size: Size, inputs: Inputs) -> dict[str, Any]:
    """The same of transformers, on the GPU if torch has one."""
    jax.config.update("jax_platforms", "cpu")  # the memory of the GPU is for torch
    session = make_session(size, inputs)
    examples, groups = decoding_ours.choose_users(session, size.users)
    side = decoding_peer.Peer(session, torch_model(NAMED[size.model], size.dtype))
    side(examples, groups[:1])
    side.in_processor.clear()
    taken = common.seconds(lambda: side(examples, groups))
    in_processor, is_gpu = sum(side.in_processor), torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if is_gpu else "cpu",
        **_speed(size, session, taken, len(examples)),
        **_latency(side, examples, size.single),
        "logits_processor_share_of_time": round(in_processor / taken, 2),
        **({"peak_memory_GB": round(torch.cuda.max_memory_allocated() / 1e9, 2)} if is_gpu else {}),
    }


def measure_equality(inputs: Inputs) -> dict[str, Any]:
    """Lists of a small random model on this device and on the CPU, in float32.

    Raises:
      InputError: scores differ by more than `decoding.TOLERANCE`.
    """
    session = make_session(TOY, inputs)
    examples, groups = decoding_ours.choose_users(session, 32)
    cpu = jax.devices("cpu")[0]
    with jax.default_matmul_precision("highest"):
        side = decoding_ours.Ours(session)
        here = side(examples, groups)
        side.engine = jax.device_put(side.engine, cpu)
        with jax.default_device(cpu):
            there = side(examples, groups)
    return {**_device(), "users": len(examples), **decoding.check(here, there)}


def torch_model(config: ModelConfig, dtype: str) -> PreTrainedModel:
    """A model of transformers of the same shape with random weights, on the GPU if there is one."""
    theirs = AutoConfig.for_model(
        "qwen2",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=config.tie_embeddings,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(theirs, dtype=getattr(torch, dtype))


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    memory = device_memory(device)
    return {"device": device.device_kind, "device_memory_GB": round(memory / 1e9, 1) if memory else None}


def _speed(size: Size, session: Session, taken: float, n_users: int) -> dict[str, Any]:
    return {
        "users_per_second": round(n_users / taken, 2),
        "users_at_a_time": size.batch,
        "beams": session.settings.decode.num_beams,
    }


def _latency(side: decoding_ours.Ours | decoding_peer.Peer, examples: Any, n_users: int) -> dict[str, Any]:
    """Time to answer users one by one, after one that is not counted."""
    groups = [np.array([row]) for row in range(min(n_users + 1, len(examples)))]
    times = []
    for group in groups:
        start = time.perf_counter()
        side(examples, [group])
        times.append(1000 * (time.perf_counter() - start))
    low, high = np.percentile(times[1:] or times, [50, 95])
    return {"latency_ms_median": round(float(low), 1), "latency_ms_95th": round(float(high), 1)}


def run(size: Size, inputs: Inputs, arguments: list[str]) -> Mapping[str, Any]:
    """Run the parts that the flags ask for."""
    return parts.run(MODULE, parts_of(size, inputs), arguments=arguments)


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    size, tokenizer = TOY if values.toy else FULL, Path(values.tokenizer)
    toy = ["--toy"] if values.toy else []
    if values.prepared:
        run(size, Inputs(Path(values.prepared), tokenizer), [])
        return
    with common.prepared_folder(values.data) as data:
        found = run(size, Inputs(data, tokenizer), [f"--prepared={data}", f"--tokenizer={tokenizer}", *toy])
    print(common.markdown(found))


if __name__ == "__main__":
    flags.DEFINE_bool("toy", False, "Small sizes, for any machine.")
    flags.DEFINE_string("prepared", "", "Prepared folder, instead of --data.")
    flags.DEFINE_string("data", str(common.AMAZON_BOOKS), "Folder of published splits (source d3).")
    flags.DEFINE_string("tokenizer", str(common.QWEN_TOKENIZER), "Hugging Face folder.")
    parts.define_flags(
        parts_of(TOY, Inputs(Path(), Path())), output=common.ROOT / "benchmarks" / "results" / "gpu.json"
    )
    run_main(main)
