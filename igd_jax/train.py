"""Fine-tune a model on a prepared folder. The same command, started again, resumes.

    python -m igd_jax.train --config=configs/igd.py --config.data.dir=DATA --workdir=RUN [--config.FIELD=VALUE ...]

Reads like the run: data, model, state, loop, result. Writes config.json, env.json, metrics.jsonl, tokenizer/ and
checkpoints/ into the workdir. SIGTERM saves and exits with code 143.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.environment import environment
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json, write_json
from igd_jax.core.log import MetricsWriter, plot_losses, say
from igd_jax.core.types import Batch, LossSum
from igd_jax.data.batches import (
    by_length,
    in_groups,
    make_batch,
    noise_of_rows,
    pad_rows,
    rows_of_step,
    steps_per_epoch,
)
from igd_jax.data.examples import Examples
from igd_jax.session.config_flags import FREE_TO_CHANGE, config_json, define_config_flag
from igd_jax.session.session import (
    Run,
    check_fingerprints,
    evenly_spaced,
    fingerprints,
    make_model,
    set_up,
    split_trainable,
)
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.mesh import by_row, check_divides, replicated
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import NORMALIZERS, Params, StepFunctions, TrainState, init_state, make_step, means
from igd_jax.training.train_log import TrainLog, check_finite

TERMINATED = 143
"""Exit code after SIGTERM: the state is saved, and the same command goes on from it."""


def train(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Train to the end, or from where an earlier start was stopped; returns the final progress.

    Raises:
      InputError: bad config or data, a workdir of another config, or a loss that is not finite.
    """
    # ------------------------------------------------------------------------------------------------------------- data
    run = set_up(config, workdir, free=FREE_TO_CHANGE)
    check_candidates(config, workdir)
    per_item = run.method.annotate(run.index)
    judged = run.rows("valid")
    judged = judged.take(evenly_spaced(len(judged), config.train.eval_examples, field="train.eval_examples"))
    examples = {"train": run.examples(run.rows("train")), "valid": run.examples(judged)}
    report_targets(run, examples)
    if "weight" in per_item:
        print_example(run, examples["train"], per_item)
    plan = Plan(config, len(examples["train"]))
    say(str(plan))
    check_divides("config.train.micro_batch_size", plan.micro_batch_size, run.mesh)

    # ---------------------------------------------------------------------------------------------- model and optimizer
    schedule = make_schedule(
        config.train.schedule,
        learning_rate=config.train.learning_rate,
        warmup_steps=config.train.warmup_steps,
        num_steps=plan.num_steps,
    )
    optimizer = make_optimizer(schedule, clip_norm=config.train.clip_norm, weight_decay=config.train.weight_decay)
    state, functions, frozen = start(run, optimizer)
    # A method tells what does not fit its model when a batch is traced: here, while nothing is written.
    longest = by_length(examples["train"], np.arange(plan.n_rows))[-plan.micro_batch_size :]
    batches = micro_batches(run, examples["train"], longest, per_item, plan.micro_batch_size, step=0)
    jax.eval_shape(functions.first, state, next(batches))
    n_params, n_frozen = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.params, frozen))
    beside = f" beside {n_frozen:,} frozen numbers" if n_frozen else ""
    say(f"model: {n_params:,} parameters to train{beside} on {run.mesh.size} {jax.default_backend()} device(s)")

    # -------------------------------------------------------------------------------------------------- resume or start
    run.tokenizer.save(workdir.tokenizer)
    write_json(workdir.config, config_json(config))
    write_json(workdir.env, environment())
    marks = fingerprints(run, frozen)
    progress: dict[str, Any] = {**marks, "best_loss": None, "best_step": 0, "worse": 0}
    metrics = MetricsWriter(workdir.metrics, workdir.tensorboard)
    with closing(Checkpoints(workdir.checkpoints)) as checkpoints, closing(metrics):  # wait for what is being written
        check = partial(check_fingerprints, marks=marks, run=run, workdir=workdir)
        if (found := checkpoints.restore_last(state, check=check)) is not None:
            state, progress = found
            say(f"resuming from step {int(state.step)} of {plan.num_steps}")
        first_step = int(state.step)
        metrics.truncate(first_step)
        log = TrainLog(metrics, schedule, num_steps=plan.num_steps, every_steps=plan.log_every_steps)

        # --------------------------------------------------------------------------------------------------- train loop
        terminated = catch_sigterm()
        stopped_early = plan.patience and progress["worse"] >= plan.patience
        for step in range(first_step, 0 if stopped_early else plan.num_steps):
            rows = rows_of_step(
                len(examples["train"]), batch_size=plan.global_batch_size, seed=config.train.seed, step=step
            )
            batches = micro_batches(run, examples["train"], rows, per_item, plan.micro_batch_size, step=step)
            state, values = train_step(functions, state, batches)
            log.add(step + 1, values, n_rows=len(rows))
            if (step + 1) % plan.eval_every_steps == 0 or step + 1 == plan.num_steps:
                log.flush()
                valid = evaluate_loss(run, functions, state, examples["valid"], per_item, plan.micro_batch_size)
                check_finite(valid, step + 1)
                metrics.write(step + 1, **valid)
                progress = update_best(progress, valid["valid_loss"], step + 1)
                say(f"step {step + 1}: valid loss {valid['valid_loss']:.4f} (best {progress['best_loss']:.4f})")
                if progress["worse"] == 0:
                    checkpoints.save_best(step + 1, state.params, progress)
                if plan.patience and progress["worse"] >= plan.patience:
                    say(f"stopping early: {progress['worse']} evaluation(s) without a better loss")
                    break
            if terminated or (step + 1) % plan.checkpoint_every_steps == 0:
                log.flush()
                checkpoints.save_last(state, progress)
            if terminated:
                say(f"terminated: saving step {step + 1}; the same command resumes from it")
                sys.exit(TERMINATED)
        checkpoints.save_last(state, progress)

    # ----------------------------------------------------------------------------------------------------------- result
    plot_losses(workdir.metrics, workdir.picture)
    if first_step == int(state.step):
        say(f"nothing left to train: step {int(state.step)} was the last")
    say(f"best valid loss {progress['best_loss']:.4f} at step {progress['best_step']}; next:")
    say(f"  python -m igd_jax.evaluate --workdir={workdir.path}")
    return progress


def start(run: Run, optimizer: optax.GradientTransformation) -> tuple[TrainState, StepFunctions, Any]:
    """The state before the first step, on the devices; the compiled parts of a step; the frozen part of the model."""
    graph, params, frozen = split_trainable(make_model(run))
    memory = {name: jnp.float32(value) for name, value in run.method.memory().items()}
    state = init_state(params, optimizer, memory)
    state, constants = jax.device_put((state, (frozen, run.method.constants(run.context))), replicated(run.mesh))

    def loss(params: Params, constants: Any, batch: Batch) -> LossSum:
        frozen, looked_up = constants
        return run.method.loss(nnx.merge(graph, params, frozen), batch, looked_up)

    normalizer = run.config.loss.normalizer
    functions = make_step(loss, optimizer, constants=constants, remember=run.method.remember, normalizer=normalizer)
    return state, functions, constants[0]


class Plan:
    """Numbers that follow from the config and the size of the train split, checked and told in one line."""

    def __init__(self, config: ConfigDict, n_rows: int):
        train = config.train
        self.n_rows = n_rows
        if train.seed < 0:
            raise InputError(f"config.train.seed is {train.seed}; expected 0 or more")
        for field in ("global_batch_size", "micro_batch_size", "checkpoint_every_steps", "log_every_steps"):
            if train[field] < 1:
                raise InputError(f"config.train.{field} is {train[field]}; expected at least 1")
        self.global_batch_size, self.micro_batch_size = train.global_batch_size, train.micro_batch_size
        if self.global_batch_size % self.micro_batch_size:
            raise InputError(
                f"config.train.global_batch_size is {self.global_batch_size}, no multiple of micro_batch_size "
                f"{self.micro_batch_size}"
            )
        if config.loss.normalizer not in NORMALIZERS:
            raise InputError(
                f"config.loss.normalizer is {config.loss.normalizer!r}; expected {' or '.join(NORMALIZERS)}"
            )
        self.epoch = steps_per_epoch(n_rows, self.global_batch_size)
        self.num_steps = train.num_steps or train.num_epochs * self.epoch
        if self.num_steps < 1:
            raise InputError(f"config.train asks for {self.num_steps} steps; raise num_epochs or num_steps")
        self.eval_every_steps = train.eval_every_steps or self.epoch
        self.checkpoint_every_steps, self.log_every_steps = train.checkpoint_every_steps, train.log_every_steps
        self.patience = train.patience

    def __str__(self) -> str:
        return (
            f"plan: {self.num_steps:,} steps of {self.global_batch_size} rows ({self.epoch:,} steps an epoch of "
            f"{self.n_rows:,} rows), micro-batches of {self.micro_batch_size}"
        )


def check_candidates(config: ConfigDict, workdir: Workdir) -> None:
    """Raise `InputError` when a run would go on with other candidates: the weights of its tokens come from them."""
    if workdir.config.is_file():
        old = read_json(workdir.config)["decode"]["candidates"]
        if old != config.decode.candidates:
            raise InputError(f"{workdir.path} was trained with decode.candidates={old}; keep it or change --workdir")


def report_targets(run: Run, examples: dict[str, Examples]) -> None:
    """Say how many targets of each split are no candidate, and so off the trie."""
    for split, rows in examples.items():
        off = int((run.index.catalog.row_of_item[rows.target] < 0).sum())
        if off:
            say(f"{off:,} of {len(rows):,} {split} targets are off the trie (no candidate)")


def print_example(run: Run, examples: Examples, per_item: dict[str, np.ndarray]) -> None:
    """Show the first training example: the prompt's end, and each target token with its weight."""
    target = run.index.item_tokens[int(examples.target[0])].tolist()
    say(f"example prompt: {run.tokenizer.decode(examples.prompt[0].tolist())!r}")
    weights = per_item["weight"][examples.target[0]]
    texts = [run.tokenizer.decode([token]) or "<eos>" for token in target]
    pieces = [f"{text!r}:{weight:g}" for text, weight in zip(texts, weights[: len(texts)], strict=True)]
    say(f"example target (token:weight): {' '.join(pieces)}")


def micro_batches(
    run: Run,
    examples: Examples,
    rows: np.ndarray,
    per_item: dict[str, np.ndarray],
    size: int,
    *,
    step: int | None = None,
) -> Iterator[Batch]:
    """The micro-batches of a step, on the devices; by length, unless the objective depends on who shares one.

    In training, at some `step`, methods that read items also get a seed for each row.
    """
    if run.config.loss.normalizer == "global":
        rows = by_length(examples, rows)
    inputs = run.method.inputs
    for group in in_groups(rows, size):
        batch = make_batch(examples, group, run.index.item_tokens, per_item, size=size, inputs=inputs)
        if step is not None and inputs == "items":
            batch["noise"] = pad_rows(noise_of_rows(group, seed=run.config.train.seed, step=step), size)
        yield jax.device_put(batch, by_row(run.mesh))


def train_step(
    functions: StepFunctions, state: TrainState, batches: Iterator[Batch]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Accumulate all micro-batches, then update once."""
    accumulator = functions.first(state, next(batches))
    for batch in batches:
        accumulator = functions.add(state, accumulator, batch)
    return functions.update(state, accumulator)


def evaluate_loss(
    run: Run,
    functions: StepFunctions,
    state: TrainState,
    examples: Examples,
    per_item: dict[str, np.ndarray],
    size: int,
) -> dict[str, float]:
    """The weighted loss over a whole split, divided once."""
    sums = [
        functions.evaluate(state, batch)
        for batch in micro_batches(run, examples, np.arange(len(examples)), per_item, size)
    ]
    total = jax.tree.map(lambda *parts: np.sum(parts, dtype=np.float64), *jax.device_get(sums))
    return {f"valid_{name}": float(value) for name, value in means(total).items()}


def update_best(progress: dict[str, Any], loss: float, step: int) -> dict[str, Any]:
    """Progress after an evaluation: a new best, or one more without."""
    if progress["best_loss"] is None or loss < progress["best_loss"]:
        return {**progress, "best_loss": loss, "best_step": step, "worse": 0}
    return {**progress, "worse": progress["worse"] + 1}


def catch_sigterm() -> list[bool]:
    """A list that is empty until SIGTERM comes."""
    received: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    return received


def define_flags() -> None:
    """``--config`` and ``--workdir``."""
    flags.DEFINE_string("workdir", None, "Folder of the run; started again, it resumes.", required=True)
    define_config_flag()


def main() -> None:
    """Entry point."""
    config = flags.FLAGS.config
    if not config:
        raise InputError("--config is not set; start with --config=configs/igd.py or --config=configs/quickstart.py")
    train(config, Workdir(flags.FLAGS.workdir))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
