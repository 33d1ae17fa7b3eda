"""Fine-tune a model on a prepared folder. The same command, started again, resumes.

    python -m igd_jax.train --config=configs/igd.py --config.data.dir=DATA --workdir=RUN [--config.FIELD=VALUE ...]

Reads like the run: data, model, state, loop, result. Writes config.json, env.json, metrics.jsonl, tokenizer/ and
checkpoints/ into the workdir. SIGTERM saves and exits with code 143.
"""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import nnx
from jaxtyping import Int
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.environment import environment
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, write_json
from igd_jax.core.log import MetricsWriter, plot_losses, say, told
from igd_jax.core.map_rows import in_groups
from igd_jax.core.sharding import replicated
from igd_jax.core.types import ItemBatch, LossSum, TextBatch
from igd_jax.data.batches import (
    by_length,
    make_item_batch,
    make_text_batch,
    rows_of_step,
    seed_of_rows,
    steps_per_epoch,
)
from igd_jax.data.examples import Examples
from igd_jax.evaluation.queries import evenly_spaced
from igd_jax.methods.base import CollaborativeMethod, Context, Objective
from igd_jax.session.collaborative import export_vectors
from igd_jax.session.config_flags import FREE_TO_CHANGE, check_workdir, config_json, define_config_flag
from igd_jax.session.session import Session, set_up
from igd_jax.session.settings import TO_TRAIN, Settings, settings_from
from igd_jax.session.weights import check_fingerprints, fingerprints, split_trainable, trained_model
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.mesh import check_divides, put_batch
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import LossState, Params, StepFunctions, TrainState, init_state, make_step, means
from igd_jax.training.train_log import TrainLog, check_finite

TERMINATED = 143
"""Exit code after SIGTERM: the state is saved, and the same command goes on from it."""


def train(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Train to the end, or from where an earlier start was stopped; returns the final progress.

    Raises:
      InputError: bad config or data, a workdir of another config, or a loss that is not finite.
    """
    # --------------------------------------------------------------------------------------------- settings, then data
    needs = TO_TRAIN - {"tokenizer.path"} if workdir.config.is_file() else TO_TRAIN
    settings = settings_from(config, needs=needs)
    check_workdir(config, workdir, free=FREE_TO_CHANGE)
    session = set_up(settings, workdir)
    check_divides("config.train.micro_batch_size", settings.train.micro_batch_size, session.mesh)
    context = session.context(session.index)
    objective = session.method.objective(context)
    valid_rows = session.rows("valid")
    valid_rows = valid_rows.take(evenly_spaced(len(valid_rows), settings.train.eval_examples))
    examples = {"train": session.examples(session.rows("train")), "valid": session.examples(valid_rows)}
    report_targets(session, examples)
    if "weight" in objective.annotations:
        print_example(session, examples["train"], objective.annotations["weight"])
    plan = Plan(settings, len(examples["train"]))
    say(str(plan))
    batches_of = partial(micro_batches, session, objective.annotations)

    # ---------------------------------------------------------------------------------------------- model and optimizer
    schedule = make_schedule(
        settings.train.schedule,
        learning_rate=settings.train.learning_rate,
        warmup_steps=settings.train.warmup_steps,
        num_steps=plan.num_steps,
    )
    optimizer = make_optimizer(schedule, clip_norm=settings.train.clip_norm, weight_decay=settings.train.weight_decay)
    state, functions, frozen = start(session, context, objective, optimizer)
    # A method tells what does not fit its model when a batch is traced: here, while nothing is written.
    longest = by_length(examples["train"], np.arange(plan.n_rows))[-plan.micro_batch_size :]
    jax.eval_shape(functions.evaluate, state, next(batches_of(examples["train"], longest, step=0)))
    n_params, n_frozen = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.params, frozen))
    beside = f" beside {n_frozen:,} frozen numbers" if n_frozen else ""
    say(f"model: {n_params:,} parameters to train{beside} on {session.mesh.size} {jax.default_backend()} device(s)")

    # -------------------------------------------------------------------------------------------------- resume or start
    session.tokenizer.save(workdir.tokenizer)
    write_json(workdir.config, config_json(config))
    write_json(workdir.env, environment())
    expected = fingerprints(session, frozen)
    progress: dict[str, Any] = {**expected, "best_loss": None, "best_step": 0, "worse": 0}
    metrics = MetricsWriter(workdir.metrics, workdir.tensorboard)
    with closing(Checkpoints(workdir.checkpoints)) as checkpoints, closing(metrics):  # wait for what is being written
        check = partial(check_fingerprints, expected=expected, session=session, workdir=workdir)
        if (found := checkpoints.restore_last(state, check=check)) is not None:
            state, progress = found
            say(f"resuming from step {int(state.step)} of {plan.num_steps}")
        first_step = int(state.step)
        metrics.truncate(first_step)
        log = TrainLog(metrics, schedule, num_steps=plan.num_steps, every_steps=settings.train.log_every_steps)

        # --------------------------------------------------------------------------------------------------- train loop
        terminated = catch_sigterm()
        stopped_early = plan.patience and progress["worse"] >= plan.patience
        for step in range(first_step, 0 if stopped_early else plan.num_steps):
            rows = rows_of_step(plan.n_rows, batch_size=plan.global_batch_size, seed=settings.train.seed, step=step)
            batches = log.watch("step", batches_of(examples["train"], rows, step=step))
            state, values = functions.update(state, functions.accumulate(state, batches))
            log.add(step + 1, values, n_rows=len(rows))
            if (step + 1) % plan.eval_every_steps == 0 or step + 1 == plan.num_steps:
                log.flush()
                batches = batches_of(examples["valid"], np.arange(len(valid_rows)))
                n_batches = -(-len(valid_rows) // plan.micro_batch_size)
                valid = evaluate_loss(functions, state, log.watch("evaluation", batches), n_batches=n_batches)
                check_finite(valid, step + 1)
                metrics.write(step + 1, **valid)
                progress = update_best(progress, valid["valid_loss"], step + 1)
                say(f"step {step + 1}: valid loss {valid['valid_loss']:.4f} (best {progress['best_loss']:.4f})")
                if progress["worse"] == 0:
                    checkpoints.save_best(step + 1, state.params, progress)
                if plan.patience and progress["worse"] >= plan.patience:
                    say(f"stopping early: {progress['worse']} evaluation(s) without a better loss")
                    break
            if terminated or (step + 1) % settings.train.checkpoint_every_steps == 0:
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
    say(f"best valid loss {progress['best_loss']:.4f} at step {progress['best_step']}")
    if isinstance(session.method, CollaborativeMethod):
        export_vectors(session, session.method, trained_model(session, workdir, context).model, workdir)
    say(f"next:\n  python -m igd_jax.evaluate --workdir={workdir.path}")
    return progress


def start(
    session: Session, context: Context, objective: Objective, optimizer: optax.GradientTransformation
) -> tuple[TrainState, StepFunctions, Any]:
    """The state before the first step, on the devices; the compiled parts of a step; the frozen part of the model."""
    graph, params, frozen = split_trainable(session.method.make_model(context))
    loss_state = {name: jnp.float32(value) for name, value in objective.state.items()}
    state = init_state(params, optimizer, loss_state)
    state, tables = jax.device_put((state, (frozen, objective.tables)), replicated(session.mesh))

    def loss(params: Params, tables: Any, batch: TextBatch | ItemBatch, loss_state: LossState) -> LossSum:
        frozen, looked_up = tables
        return objective.loss(nnx.merge(graph, params, frozen), batch, looked_up, loss_state)

    functions = make_step(
        loss,
        optimizer,
        tables=tables,
        update_state=objective.update_state,
        normalizer=session.settings.loss.normalizer,
    )
    return state, functions, tables[0]


class Plan:
    """Numbers that follow from the settings and the size of the train split, told in one line.

    Attributes:
      n_rows: train rows in use.
      epoch: steps that show each of them once.
      num_steps: steps in all.
      eval_every_steps: steps between evaluations.
      global_batch_size, micro_batch_size, patience: as in the settings.
    """

    def __init__(self, settings: Settings, n_rows: int):
        train = settings.train
        self.n_rows, self.patience = n_rows, train.patience
        self.global_batch_size, self.micro_batch_size = train.global_batch_size, train.micro_batch_size
        self.epoch = steps_per_epoch(n_rows, self.global_batch_size)
        self.num_steps = train.num_steps or train.num_epochs * self.epoch
        self.eval_every_steps = train.eval_every_steps or self.epoch

    def __str__(self) -> str:
        return (
            f"plan: {self.num_steps:,} steps of {self.global_batch_size} rows ({self.epoch:,} steps per epoch of "
            f"{self.n_rows:,} rows), micro-batches of {self.micro_batch_size}"
        )


def report_targets(session: Session, examples: Mapping[str, Examples]) -> None:
    """Say how many targets of each split are no candidate, and so off the trie."""
    catalog, is_candidate = session.index.catalog, session.index.is_candidate
    for split, rows in examples.items():
        if off := int((~is_candidate[catalog.row_of_item[rows.target]]).sum()):
            say(f"{off:,} of {len(rows):,} {split} targets are off the trie (no candidate)")


def print_example(session: Session, examples: Examples, weight: np.ndarray) -> None:
    """Show the first training example: the prompt, and each target token with its weight."""
    assert examples.target is not None
    rows, item = session.index.item_tokens, int(examples.target[0])
    say(f"example prompt: {session.tokenizer.decode(examples.prompt[0].tolist())!r}")
    weights = weight[rows.start[item] : rows.start[item + 1]]
    texts = [session.tokenizer.decode([token]) or f"<{token}>" for token in rows[item].tolist()]
    pieces = [f"{text!r}:{value:g}" for text, value in zip(texts, weights, strict=True)]
    say(f"example target (token:weight): {' '.join(pieces)}")


def micro_batches(
    session: Session,
    annotations: Mapping[str, np.ndarray],
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    *,
    step: int | None = None,
) -> Iterator[TextBatch | ItemBatch]:
    """The micro-batches of a step, on the devices; by length, unless the objective depends on who shares one.

    In training, at some `step`, methods that read items also get a seed for each row.
    """
    settings, reads_items = session.settings, session.method.inputs == "items"
    size = settings.train.micro_batch_size
    if settings.loss.normalizer == "global":
        rows = by_length(examples, rows)
    for group in in_groups(rows, size):
        batch: TextBatch | ItemBatch
        if reads_items:
            seed = None if step is None else seed_of_rows(group, seed=settings.train.seed, step=step)
            batch = make_item_batch(examples, group, size=size, seed=seed)
        else:
            batch = make_text_batch(examples, group, session.index.item_tokens, annotations, size=size)
        yield put_batch(batch, session.mesh)


def evaluate_loss(
    functions: StepFunctions, state: TrainState, batches: Iterator[TextBatch | ItemBatch], *, n_batches: int
) -> dict[str, float]:
    """The weighted loss over a whole split, divided once; told while it takes long."""
    sums = [*chain(*told(([functions.evaluate(state, batch)] for batch in batches), "valid", n_batches, "batches"))]
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
