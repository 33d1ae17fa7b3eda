"""Training benchmark: our train step with information-gain weights against a torch loop as published, in one run.

    python -m benchmarks.training [--only="tiny model"] [--data=FOLDER] [--model=HF_FOLDER] [--tokenizer=HF_FOLDER]

Parts are a small trained model, and a random one with a body of 30 million weights and Qwen's vocabulary; of each,
speed and memory, both without compiled programs from before. On two quiet cores they take about 6, 3, 20 and 10
minutes. Another is the small model on Amazon Scientific, with a row for every item of a user but the first, in steps of
whole users: where histories grow, rows have much in common.

Rows stand in packs, as by default, are padded, or are trees (docs/packing.md); FLOPs of each are the matter of
`benchmarks.packing`.
All sides start from the same weights and see the same rows at each step, in micro-batches of 16, in float32 on
all cores, and must have the same losses. The other side follows the published code: micro-batches in random order
padded to their longest row, logits at every position, and weights by a walk through a trie of dictionaries inside the
loss (docs/methods/igd.md, IGD weights). One difference does not affect the time: the loss is divided once per
step, like ours, instead of once per micro-batch, so that all take the same steps.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import torch
from absl import flags
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import common, decoding_inputs, parts
from benchmarks.training_peer import Peer
from igd_jax.core.errors import InputError
from igd_jax.core.errors import run as run_main
from igd_jax.data.examples import Examples
from igd_jax.session.cost import flops_of
from igd_jax.session.input import micro_batches
from igd_jax.session.packing import choose_packs
from igd_jax.session.session import Session
from igd_jax.session.train_plan import TrainPlan
from igd_jax.session.weights import initial_state
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import grouped

N_EXAMPLES = 1024
"""Rows of the train split that steps draw from."""
FIRST_TOLERANCE, LATER_TOLERANCE = 1e-4, 1e-3


@dataclass(frozen=True)
class Size:
    """Size of the measurements.

    Attributes:
      rows: rows of a step.
      steps: steps of one side before the other's turn.
      repeats: turns of each side, twice: by the clock, and in processor time.
      shuffle: `config.train.shuffle`.
      data: one of `decoding_inputs.SETS`; "" = the folder of ``--data``.
    """

    rows: int
    steps: int
    repeats: int
    shuffle: str = "rows"
    data: str = ""

    def session(self, data: Path, model: Path) -> Session:
        """The published recipe, with steps of this size."""
        return with_train(common.make_session(data, model), global_batch_size=self.rows, shuffle=self.shuffle)


TINY, LARGE = Size(rows=128, steps=2, repeats=3), Size(rows=32, steps=1, repeats=2)
WHOLE_USERS = replace(TINY, steps=1, shuffle="users", data=decoding_inputs.SCIENTIFIC)


class Ours:
    """The functions of `igd_jax.train`."""

    def __init__(self, session: Session, examples: Examples):
        context = session.context(session.index)
        objective = session.method.objective(context)
        train, plan = session.settings.train, TrainPlan(session, len(examples))
        packs = choose_packs(session, objective, plan, train=examples, valid=examples)
        self._batches = partial(micro_batches, session, objective.annotations, examples, packs=packs)
        schedule = make_schedule("constant", learning_rate=train.learning_rate, warmup_steps=0, num_steps=0)
        optimizer = make_optimizer(schedule, clip_norm=train.clip_norm, weight_decay=train.weight_decay)
        self._mesh = session.mesh
        self._room = packs.batches if packs else train.global_batch_size // train.micro_batch_size
        self._state, self._functions, *_ = initial_state(session, context, objective, optimizer)
        self._flops = flops_of(session, self._state)

    def __call__(self, steps: Sequence[np.ndarray]) -> list[float]:
        """Take steps, each over the given rows; the loss of each, before its update."""
        losses = []
        for rows in steps:
            groups = grouped(self._batches(rows), self._mesh, room=self._room)
            accumulator = self._functions.accumulate(self._state, groups)
            self._state, metrics = self._functions.update(self._state, accumulator)
            losses.append(metrics["loss"])
        return jax.device_get(jax.block_until_ready((losses, self._state))[0])

    def tokens(self, rows: np.ndarray) -> int:
        """Tokens through the model in one step, padding included."""
        return sum(
            len(one.shared_prefix) + one.prompt.size + (0 if one.pack_trees else one.target.size)  # packs hold both
            for one in self._batches(rows)
        )

    def flops(self, rows: np.ndarray) -> float:
        """Floating-point operations that the model needs for one step, without padding."""
        return sum(map(self._flops, self._batches(rows)))


def choose_examples(session: Session, n_examples: int) -> Examples:
    """Random rows of the train split, or all of them for steps of whole users."""
    rows = session.rows("train")
    if session.settings.train.shuffle == "users":
        return session.examples(rows)
    chosen = np.random.default_rng(0).choice(len(rows), min(n_examples, len(rows)), replace=False)
    return session.examples(rows.take(np.sort(chosen)))


def rows_of_steps(session: Session, examples: Examples, n_steps: int) -> list[np.ndarray]:
    """Row numbers of the first steps, the same for both sides."""
    plan = TrainPlan(session, len(examples))
    return [plan.rows(step) for step in range(n_steps)]


def check(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Differences of the losses of the same steps; the first loss is before any update.

    Raises:
      InputError: losses differ by more than `FIRST_TOLERANCE` or `LATER_TOLERANCE`.
    """
    differ = np.abs(np.array(ours) - np.array(theirs))
    if not (differ[0] <= FIRST_TOLERANCE and differ.max() <= LATER_TOLERANCE):
        raise InputError(f"losses {ours} and {theirs} differ: a bug in one of the sides")
    return {
        "loss": round(float(ours[0]), 6),
        "loss_difference": float(differ[0]),
        "later": float(differ[1:].max(initial=0.0)),
    }


def with_train(session: Session, **changes: Any) -> Session:
    """The session with other fields of `config.train`."""
    train = replace(session.settings.train, **changes)
    return replace(session, settings=replace(session.settings, train=train))


SIDES: dict[str, Callable[[Session, Examples], Ours | Peer]] = {
    "igd_jax": Ours,  # in packs
    "igd_jax, padded": lambda session, examples: Ours(with_train(session, packing="none"), examples),
    "igd_jax, trees": lambda session, examples: Ours(with_train(session, packing="trees"), examples),
    "torch": Peer,
}


def prepare_one_step(side: str, data: Path, model: Path, size: Size) -> Any:
    """For `common.added_peak_mb`: reads the inputs; the result loads the weights and takes one step."""
    session = size.session(data, model)
    examples = choose_examples(session, N_EXAMPLES)
    return lambda: SIDES[side](session, examples)(rows_of_steps(session, examples, 1))


def compare(
    session: Session, *, n_steps: int, n_examples: int, repeats: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Check and time all sides, on the same rows: figures of each, and of all."""
    examples = choose_examples(session, n_examples)
    steps = rows_of_steps(session, examples, n_steps)
    sides = {name: make(session, examples) for name, make in SIDES.items()}
    losses: dict[str, list[float]] = {}
    first = {name: common.seconds(lambda name=name: losses.update({name: sides[name](steps)})) for name in sides}
    agreements = [check(ours, losses["torch"]) for name, ours in losses.items() if name != "torch"]
    work = {name: partial(side, steps) for name, side in sides.items()}
    least = common.interleaved(work, repeats=repeats, clock=time.perf_counter)
    busy = common.interleaved(work, repeats=repeats, clock=time.process_time)
    n_rows = sum(map(len, steps))
    columns: dict[str, dict[str, Any]] = {
        name: {
            "examples_per_second": round(n_rows / least[name], 1),
            "examples_per_second_of_torch": round(least["torch"] / least[name], 2),
            "cpu_milliseconds_per_example": round(1000 * busy[name] / n_rows, 2),
            "tokens_through_the_model_per_example": round(sum(map(side.tokens, steps)) / n_rows),
        }
        for name, side in sides.items()
    }
    for name in columns.keys() - {"torch"}:
        columns[name]["compile_seconds"] = round(first[name] - least[name], 1)
    used = np.concatenate(steps)
    real = examples.prompt.lengths[used] + session.index.item_tokens.lengths[examples.target[used]]
    for column in columns.values():
        column["useful_tokens_per_second"] = round(float(real.mean()) * column["examples_per_second"])
    worst = {name: max(each[name] for each in agreements) for name in agreements[0]}
    return columns, {"tokens_per_example_without_padding": round(float(real.mean())), **worst}


def measure_speed(size: Size, model: Path, data: Path) -> dict[str, Any]:
    """Figures of all sides, and of all together."""
    session = size.session(data, model)
    columns, every = compare(session, n_steps=size.steps, n_examples=N_EXAMPLES, repeats=size.repeats)
    return {"rows_per_step": size.rows, "steps": size.steps, **every, "sides": columns}


def measure_memory(size: Size, model: Path, data: Path) -> dict[str, Any]:
    """What a step of each side adds to the memory of a process that has read the data, at its peak."""
    return {f"peak_mb_{name}": common.added_peak_mb(prepare_one_step, name, data, model, size) for name in SIDES}


def in_scratch(measure: Callable[..., dict[str, Any]], size: Size) -> dict[str, Any]:
    """Measure on prepared data, with the model of this size, and with an empty cache of programs."""
    values = flags.FLAGS
    folder = decoding_inputs.prepared(size.data) if size.data else common.prepared_folder(values.data)
    with folder as data, TemporaryDirectory() as programs:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs  # of further processes, too
        jax.config.update("jax_compilation_cache_dir", programs)
        model = random_model(data.parent / "model", Path(values.tokenizer)) if size is LARGE else Path(values.model)
        return {"data": size.data or Path(values.data).name, **measure(size, model, data)}


def random_model(folder: Path, tokenizer: Path) -> Path:
    """A Hugging Face folder: 30 million random weights beside an embedding of Qwen's ids, which is the head."""
    shutil.copytree(tokenizer, folder)
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 14}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen2", vocab_size=151_936, tie_word_embeddings=True, **sizes, **heads)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


PARTS = {
    f"{name}{kind}": parts.Part(partial(in_scratch, measure, size), limit)
    for name, size, limit in (
        ("tiny model", TINY, 1500),
        ("tiny model, whole users", WHOLE_USERS, 1500),
        ("30M body, Qwen's vocabulary", LARGE, 3600),
    )
    for kind, measure in (("", measure_speed), (", memory", measure_memory))
}


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    given = [f"--{name}={values[name].value}" for name in ("data", "model", "tokenizer")]
    found = parts.run("benchmarks.training", PARTS, arguments=given)
    for name, figures in {} if values.part else found.items():
        print(f"\n{name}\n\n{common.markdown(figures.get('sides', {name: figures}))}")


if __name__ == "__main__":
    common.define_flags()
    flags.DEFINE_string("tokenizer", str(common.QWEN_TOKENIZER), "Hugging Face folder of the large model's tokenizer.")
    parts.define_flags(PARTS, output=common.ROOT / "benchmarks" / "results" / "training.json")
    run_main(main)
