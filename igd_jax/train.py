"""Fine-tune a model on a prepared folder. The same command, started again, resumes.

    python -m igd_jax.train --config=igd --config.data.dir=DATA --workdir=RUN
    python -m igd_jax.train --config=igd:books --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.train --config=my/experiment.py --workdir=RUN --config.train.num_steps=500 --restart

Writes config.json, env.json, metrics.jsonl, tokenizer/ and checkpoints/ into the workdir. SIGTERM and Ctrl-C save and
exit with code 143 or 130; a second signal exits at once. With --profile_steps, these steps are
traced into profile/, for TensorBoard.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import flags
from jaxtyping import Float
from ml_collections import ConfigDict

from igd_jax.core import errors, hosts, meeting
from igd_jax.core.environment import environment
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, write_json
from igd_jax.core.locks import locked
from igd_jax.core.log import say
from igd_jax.core.metrics_log import MetricsWriter, plot_losses
from igd_jax.core.run_folder import check_takes_run
from igd_jax.core.signals import Stop, stoppable
from igd_jax.core.trackers import TensorBoard, Tracker, WeightsAndBiases
from igd_jax.data.batches import by_length
from igd_jax.data.collaborative import FILE as COLLABORATIVE
from igd_jax.data.examples import Examples
from igd_jax.data.prepared import Rows
from igd_jax.methods.base import CollaborativeMethod, Objective
from igd_jax.session.collaborative import export_vectors
from igd_jax.session.cost import make_advice, peak_flops, report_cost
from igd_jax.session.input import micro_batches
from igd_jax.session.limits import check_max_length, room_of_prompts
from igd_jax.session.packing import choose_packs
from igd_jax.session.preview import Sample, print_example, report_targets
from igd_jax.session.resume import resume
from igd_jax.session.session import Session, check_processes, set_up
from igd_jax.session.train_loop import NO_WEIGHT, Outputs, Parts, train_steps
from igd_jax.session.train_plan import TrainPlan
from igd_jax.session.training_weights import make_objective
from igd_jax.session.weights import initial_state, trained_model
from igd_jax.settings.config_flags import (
    FREE_TO_RESUME,
    check_workdir,
    config_json,
    define_config_flag,
    required_config,
)
from igd_jax.settings.config_grid import changed
from igd_jax.settings.settings import TO_TRAIN, Settings, settings_from
from igd_jax.training.checkpoint import Checkpoints, newest_step
from igd_jax.training.mesh import check_divides
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.profile import Profiler, parse_steps
from igd_jax.training.train_log import TrainLog

RATE_OF_RANDOM_WEIGHTS = 1e-3
"""Lower rates are for weights that were trained before; the best of small models here were 3e-3 (LOG.md)."""


def train(config: ConfigDict, workdir: Workdir, *, restart: bool = False, profile_steps: str = "") -> dict[str, Any]:
    """Train a run, or resume it; returns the final progress.

    Args:
      config: the config.
      workdir: folder of the run.
      restart: whether to start from step 0 even if there are checkpoints.
      profile_steps: steps of which a trace is written, ``FIRST:LAST``; empty = none.

    Raises:
      InputError: the config or the data is bad, the workdir is in use, has another config or is no place for a run
        (see `check_takes_run`), or a loss is not finite.
      SystemExit: SIGTERM or Ctrl-C was received; progress is saved.
    """
    needs = TO_TRAIN - {"tokenizer.path"} if workdir.config.is_file() else TO_TRAIN
    settings = settings_from(config, needs=needs)
    check_takes_run(workdir)
    with locked(workdir.path), stoppable() as stop:
        hosts.check_shared(workdir.path)
        check_workdir(config, workdir, free=FREE_TO_RESUME)
        session = set_up(settings, workdir)
        config = changed(config, {"model.config": session.settings.model.config})
        check_processes(config, session)
        with jax.set_mesh(session.mesh):
            return _train(session, config, workdir, stop, restart=restart, profile_steps=profile_steps)


def _train(
    session: Session, config: ConfigDict, workdir: Workdir, stop: Stop, *, restart: bool, profile_steps: str
) -> dict[str, Any]:
    context, settings = session.context(session.index), session.settings
    objective = make_objective(session, context)
    valid_rows = session.watched_rows()
    examples = _examples(session, objective, valid_rows)
    plan = TrainPlan(session, len(examples["train"]))
    say(str(plan))
    for note in plan.notes:
        say(note)
    profiled = parse_steps(profile_steps, num_steps=plan.num_steps)
    packs = choose_packs(session, objective, plan, train=examples["train"], valid=examples["valid"])
    schedule, optimizer = _optimizer(settings, plan)
    _tell_model(session)
    _tell_source(settings.decode.collaborative)
    is_saved = not restart and hosts.from_first(lambda: newest_step(workdir.checkpoints) > 0)
    state, functions, frozen, model_of = initial_state(session, context, objective, optimizer, is_saved=is_saved)
    sample = Sample(session, valid_rows, model_of)
    # Methods raise errors about sizes when a batch is traced; trace the longest before anything is written.
    batches_of = partial(micro_batches, session, objective.annotations, packs=packs)
    rows = by_length(examples["train"], np.arange(plan.n_rows))[-plan.micro_batch_size :]
    longest = next(batches_of(examples["train"], rows, step=0))
    jax.eval_shape(functions.evaluate, state, longest)
    report_cost(session, state, frozen, longest)
    parts = Parts(plan, examples, batches_of, packs, functions, sample, objective.criterion)

    metrics = MetricsWriter(workdir.metrics, *trackers_of(settings, config, workdir))
    # All are told of a signal by `largest`, once the first process has saved.
    held_back = stop.held_back(hosts.make_vote(session.mesh), hosts.largest)
    with held_back, closing(Checkpoints(workdir.checkpoints)) as checkpoints, closing(metrics):
        state, progress = resume(
            state,
            frozen,
            session=session,
            workdir=workdir,
            plan=plan,
            n_valid=len(examples["valid"]),
            checkpoints=checkpoints,
            metrics=metrics,
            restart=restart,
        )
        if not workdir.config.is_file():
            session.tokenizer.save(workdir.tokenizer)
        write_json(workdir.config, config_json(config))
        write_json(workdir.env, environment())
        log = TrainLog(
            metrics,
            schedule,
            num_steps=plan.num_steps,
            every_steps=settings.train.log_every_steps,
            peak=peak_flops(session.mesh),
            advice=make_advice(session, longest),
        )
        first_step = int(state.step)
        with closing(Profiler(profiled, workdir.profile, done=first_step)) as profiler:
            out = Outputs(log, metrics, checkpoints, profiler)
            step, progress = train_steps(session, parts, state, progress, out, stop)
    if stop:
        sys.exit(stop.code)

    plot_losses(workdir.metrics, workdir.picture)
    if first_step == step:
        is_early = step < plan.num_steps
        why = f"; {progress['worse']} evaluation(s) were no better, raise config.train.patience to go on" * is_early
        say(f"nothing left to train: step {step} was the last{why}")
    say(f"best valid {objective.criterion} {progress['best_loss']:.4f} at step {progress['best_step']}")
    if isinstance(session.method, CollaborativeMethod):
        export_vectors(session, session.method, trained_model(session, workdir, context).model, workdir)
    told = shlex.quote(str(workdir.path))
    say(f"next:\n  python -m igd_jax.evaluate --workdir={told}\n  python -m igd_jax.report --workdir={told}")
    return progress


def _examples(session: Session, objective: Objective, valid_rows: Rows) -> dict[str, Examples]:
    """Examples of both splits, and what is to be said of them before anything is spent."""
    check_divides("config.train.micro_batch_size", session.settings.train.micro_batch_size, session.mesh)
    if objective.annotations:  # which come from the trie
        session.check_targets()
    if session.method.inputs == "text":
        check_max_length(session)
        room_of_prompts(session, session.index)  # which ranking will ask for
    rows = {"train": session.rows("train"), "valid": valid_rows}
    examples = {split: session.examples(some, split=split) for split, some in rows.items()}
    report_targets(session, examples)
    if "weight" in objective.annotations:
        _check_weight(session, objective.annotations["weight"], valid_rows)
        print_example(session, examples["train"], objective.annotations["weight"])
    return examples


def _check_weight(session: Session, weight: Float[np.ndarray, " total"], valid_rows: Rows) -> None:
    """Refuse validation rows of which no target has a token with weight, whose loss would be 0 whatever is learned."""
    of_items = np.add.reduceat(weight, session.index.item_tokens.start[:-1])
    if not of_items[valid_rows.target].any():
        raise InputError(NO_WEIGHT)


def _tell_model(session: Session) -> None:
    """Print which model is made, and what of the config is for weights that were trained before, if its are random."""
    settings, has_backbone = session.settings, bool(session.method.backbones)
    backbone = settings.model.source if has_backbone else ""
    say(f"making the model: {backbone or settings.method.name}")
    if not has_backbone or settings.model.path:
        return
    if rank := settings.model.lora_rank:
        say(
            f"note: its weights are random, and config.model.lora_rank={rank} trains adapters alone, which can learn "
            "little on top of them; give a trained model in config.model.path, or set lora_rank to 0"
        )
    if settings.train.learning_rate < RATE_OF_RANDOM_WEIGHTS:
        say(
            f"note: its weights are random, which config.train.learning_rate={settings.train.learning_rate:g} is low "
            f"for; {RATE_OF_RANDOM_WEIGHTS:g} or more trains small models well"
        )


def _tell_source(source: str) -> None:
    """Print that the collaborative source, which only decoding needs, is not there yet."""
    if source not in ("", "popularity") and not (Path(source) / COLLABORATIVE).is_file():
        say(f"note: config.decode.collaborative is {source}, which holds no {COLLABORATIVE} yet; evaluating needs it")


def _optimizer(settings: Settings, plan: TrainPlan) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The rate of each step, and the optimizer that follows it."""
    train = settings.train
    schedule = make_schedule(
        train.schedule,
        learning_rate=train.learning_rate,
        warmup_steps=train.warmup_steps,
        num_steps=plan.num_steps,
    )
    return schedule, make_optimizer(
        schedule,
        clip_norm=train.clip_norm,
        weight_decay=train.weight_decay,
        bfloat16=train.bfloat16,
        seed=train.seed,
    )


def trackers_of(settings: Settings, config: ConfigDict, workdir: Workdir) -> Iterator[Tracker]:
    """Where the metrics of a run also go."""
    yield TensorBoard(workdir.tensorboard)
    if settings.train.wandb:
        yield WeightsAndBiases(settings.train.wandb, workdir.path, config_json(config))


def define_flags() -> None:
    """``--config``, ``--workdir``, ``--restart`` and ``--profile_steps``."""
    flags.DEFINE_string("workdir", None, "Folder of the run; started again, it resumes.", required=True)
    flags.DEFINE_bool("restart", False, "Start from step 0, and remove the checkpoints that are there.")
    flags.DEFINE_string("profile_steps", "", "FIRST:LAST: write a trace of these steps into the folder profile.")
    define_config_flag()
    meeting.define_flags()


def main() -> None:
    """Entry point."""
    config = required_config()
    values = flags.FLAGS
    with meeting.together():
        train(config, Workdir(values.workdir), restart=values.restart, profile_steps=values.profile_steps)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
