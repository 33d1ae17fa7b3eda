"""Fine-tune a model on a prepared folder. The same command, started again, resumes.

    python -m igd_jax.train --config=igd --config.data.dir=DATA --workdir=RUN
    python -m igd_jax.train --config=igd:books --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.train --config=my/experiment.py --workdir=RUN --config.train.num_steps=500 --restart

Writes config.json, env.json, metrics.jsonl, tokenizer/ and checkpoints/ into the workdir. SIGTERM and Ctrl-C save and
exit with code 143 or 130; a second signal exits at once. With --profile_steps, these steps are
traced into profile/, for TensorBoard.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors, hosts
from igd_jax.core.background import made_ahead
from igd_jax.core.environment import environment
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, write_json
from igd_jax.core.locks import locked
from igd_jax.core.log import say, told
from igd_jax.core.metrics_log import MetricsWriter, plot_losses
from igd_jax.core.signals import Stop, stoppable
from igd_jax.core.trackers import TensorBoard, Tracker, WeightsAndBiases
from igd_jax.core.types import ItemBatch, LossSum, TextBatch
from igd_jax.data.batches import by_length
from igd_jax.methods.base import CollaborativeMethod
from igd_jax.session.collaborative import export_vectors
from igd_jax.session.config_flags import FREE_TO_RESUME, check_workdir, config_json, define_config_flag
from igd_jax.session.config_grid import changed
from igd_jax.session.cost import flops_of, make_advice, peak_flops, report_cost
from igd_jax.session.input import micro_batches, step_inputs
from igd_jax.session.packing import choose_packs
from igd_jax.session.plan import Plan
from igd_jax.session.preview import Sample, print_example, report_targets
from igd_jax.session.resume import resume
from igd_jax.session.session import Session, check_processes, set_up
from igd_jax.session.settings import TO_TRAIN, Settings, settings_from
from igd_jax.session.weights import initial_state, trained_model
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.mesh import check_divides, put_batch
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.profile import Profiler, parse_steps
from igd_jax.training.step import StepFunctions, TrainState, means
from igd_jax.training.train_log import TrainLog, check_finite


def train(config: ConfigDict, workdir: Workdir, *, restart: bool = False, profile_steps: str = "") -> dict[str, Any]:
    """Train a run, or resume it; returns the final progress.

    Args:
      config: the config.
      workdir: folder of the run.
      restart: whether to start from step 0 even if there are checkpoints.
      profile_steps: steps of which a trace is written, ``FIRST:LAST``; empty = none.

    Raises:
      InputError: the config or the data is bad, the workdir is in use or has another config, or a loss is not finite.
      SystemExit: SIGTERM or Ctrl-C was received; progress is saved.
    """
    needs = TO_TRAIN - {"tokenizer.path"} if workdir.config.is_file() else TO_TRAIN
    settings = settings_from(config, needs=needs)
    with locked(workdir.path), stoppable() as stop:
        check_workdir(config, workdir, free=FREE_TO_RESUME)
        session = set_up(settings, workdir)
        config = changed(config, {"model.config": session.settings.model.config})
        check_processes(config, session)
        with jax.set_mesh(session.mesh):
            return _train(session, config, workdir, stop, restart=restart, profile_steps=profile_steps)


def _train(
    session: Session, config: ConfigDict, workdir: Workdir, stop: Stop, *, restart: bool, profile_steps: str
) -> dict[str, Any]:
    # ------------------------------------------------------------------------------------------------------------ data
    settings = session.settings
    check_divides("config.train.micro_batch_size", settings.train.micro_batch_size, session.mesh)
    context = session.context(session.index)
    objective = session.method.objective(context)
    if objective.annotations:  # which come from the trie
        session.check_targets()
    valid_rows = session.watched_rows()
    examples = {"train": session.examples(session.rows("train")), "valid": session.examples(valid_rows)}
    report_targets(session, examples)
    if "weight" in objective.annotations:
        print_example(session, examples["train"], objective.annotations["weight"])
    plan = Plan(settings, len(examples["train"]))
    say(str(plan))
    profiled = parse_steps(profile_steps, num_steps=plan.num_steps)
    packs = choose_packs(session, objective, train=examples["train"], valid=examples["valid"])
    size = plan.micro_batch_size if packs is None else packs.packs
    batches_of = partial(micro_batches, session, objective.annotations, packs=packs)

    # ---------------------------------------------------------------------------------------------- model and optimizer
    schedule = make_schedule(
        settings.train.schedule,
        learning_rate=settings.train.learning_rate,
        warmup_steps=settings.train.warmup_steps,
        num_steps=plan.num_steps,
    )
    optimizer = make_optimizer(
        schedule,
        clip_norm=settings.train.clip_norm,
        weight_decay=settings.train.weight_decay,
        bfloat16=settings.train.bfloat16,
        seed=settings.train.seed,
    )
    say(f"making the model: {settings.model.path or settings.model.config or settings.method.name}")
    state, functions, frozen, model_of = initial_state(session, context, objective, optimizer)
    sample = Sample(session, valid_rows, examples["valid"], model_of)
    # Methods raise errors about sizes when a batch is traced; trace the longest before anything is written.
    longest = by_length(examples["train"], np.arange(plan.n_rows))[-plan.micro_batch_size :]
    longest_batch = next(batches_of(examples["train"], longest, step=0))
    jax.eval_shape(functions.evaluate, state, longest_batch)
    report_cost(session, state, frozen, longest_batch)

    metrics = MetricsWriter(workdir.metrics, *trackers_of(settings, config, workdir))
    vote = hosts.make_vote(session.mesh)
    with (
        stop.held_back(vote),
        closing(Checkpoints(workdir.checkpoints)) as checkpoints,
        closing(metrics),
        ExitStack() as ends,
    ):
        # ---------------------------------------------------------------------------------------------- resume or start
        state, progress = resume(
            state,
            frozen,
            session=session,
            workdir=workdir,
            plan=plan,
            n_valid=len(valid_rows),
            checkpoints=checkpoints,
            metrics=metrics,
            restart=restart,
        )
        if not workdir.config.is_file():
            session.tokenizer.save(workdir.tokenizer)
        write_json(workdir.config, config_json(config))
        write_json(workdir.env, environment())
        first_step = step = int(state.step)
        log = TrainLog(
            metrics,
            schedule,
            num_steps=plan.num_steps,
            every_steps=settings.train.log_every_steps,
            peak=peak_flops(session.mesh),
            advice=make_advice(session, longest_batch),
        )
        profiler = ends.enter_context(closing(Profiler(profiled, workdir.profile, done=step)))
        flops, of_rows = flops_of(session, state), partial(batches_of, examples["train"])
        inputs = step_inputs(session, plan, of_rows, flops, step, packs)
        ahead = ends.enter_context(closing(made_ahead(inputs)))

        # --------------------------------------------------------------------------------------------------- train loop
        while True:
            if plan.evaluates(step) and progress["evaluated"] < step:
                log.flush()
                batches = batches_of(examples["valid"], np.arange(len(valid_rows)))
                n_batches = -(-len(valid_rows) // plan.micro_batch_size)
                with closing(made_ahead(put_batch(batch, session.mesh, size=size) for batch in batches)) as ready:
                    valid = evaluate_loss(functions, state, log.watch("evaluation", ready), stop, n_batches=n_batches)
                if valid:
                    check_finite(valid, step)
                    metrics.write(step, **valid)
                    progress = update_best(progress, valid["valid_loss"], step)
                    say(f"step {step}: valid loss {valid['valid_loss']:.4f} (best {progress['best_loss']:.4f})")
                    sample.show(step, state.params)
                    if progress["worse"] == 0:
                        checkpoints.save_best(step, state.params, progress)
                    if plan.out_of_patience(progress["worse"]):
                        say(f"stopping early: {progress['worse']} evaluation(s) without a better loss")
            is_over = stop.check() or plan.is_over(step, worse=progress["worse"])
            if step and (is_over or step % settings.train.checkpoint_every_steps == 0):
                log.flush()
                metrics.sync()
                checkpoints.save_last(state, progress)
            if stop:
                say(f"terminated: saving step {step}; the same command resumes from it")
            if is_over:
                break
            groups, amount = log.take(ahead)
            step += 1
            profiler.before(step, state)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, values = functions.update(state, functions.accumulate(state, log.watch("step", groups)))
            profiler.after(step, state)
            log.add(step, values, amount)
    if stop:
        hosts.wait_for_all()  # until the first has saved
        sys.exit(stop.code)

    # ----------------------------------------------------------------------------------------------------------- result
    plot_losses(workdir.metrics, workdir.picture)
    if first_step == step:
        say(f"nothing left to train: step {step} was the last")
    say(f"best valid loss {progress['best_loss']:.4f} at step {progress['best_step']}")
    if isinstance(session.method, CollaborativeMethod):
        export_vectors(session, session.method, trained_model(session, workdir, context).model, workdir)
    say(f"next:\n  python -m igd_jax.evaluate --workdir={workdir.path}")
    say(f"  python -m igd_jax.report --workdir={workdir.path}")
    return progress


def evaluate_loss(
    functions: StepFunctions,
    state: TrainState,
    batches: Iterator[TextBatch | ItemBatch],
    stop: Stop,
    *,
    n_batches: int,
) -> dict[str, float] | None:
    """Weighted loss of a whole split, divided once; None if a signal to stop is received meanwhile."""
    sums: list[LossSum] = []
    for (batch,) in told(([batch] for batch in batches), "valid", n_batches, "batches"):
        jax.block_until_ready(sums[-2:-1])  # keeps the device close behind, so that signals are handled soon
        if stop.check():
            return None
        sums.append(functions.evaluate(state, batch))
    total = jax.tree.map(lambda *parts: np.sum(parts, dtype=np.float64), *jax.device_get(sums))
    return {f"valid_{name}": float(value) for name, value in means(total).items()}


def trackers_of(settings: Settings, config: ConfigDict, workdir: Workdir) -> Iterator[Tracker]:
    """Where the metrics of a run also go."""
    yield TensorBoard(workdir.tensorboard)
    if settings.train.wandb:
        yield WeightsAndBiases(settings.train.wandb, workdir.path, config_json(config))


def update_best(progress: dict[str, Any], loss: float, step: int) -> dict[str, Any]:
    """Progress after an evaluation, which is a new best or not."""
    if progress["best_loss"] is None or loss < progress["best_loss"]:
        return {**progress, "evaluated": step, "best_loss": loss, "best_step": step, "worse": 0}
    return {**progress, "evaluated": step, "worse": progress["worse"] + 1}


def define_flags() -> None:
    """``--config``, ``--workdir``, ``--restart`` and ``--profile_steps``."""
    flags.DEFINE_string("workdir", None, "Folder of the run; started again, it resumes.", required=True)
    flags.DEFINE_bool("restart", False, "Start from step 0, and remove the checkpoints that are there.")
    flags.DEFINE_string("profile_steps", "", "FIRST:LAST: write a trace of these steps into the folder profile.")
    define_config_flag()
    hosts.define_flags()


def main() -> None:
    """Entry point."""
    config = flags.FLAGS.config
    if not config:
        raise InputError("--config is not set; start with --config=igd or --config=quickstart")
    values = flags.FLAGS
    with hosts.together():
        train(config, Workdir(values.workdir), restart=values.restart, profile_steps=values.profile_steps)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
