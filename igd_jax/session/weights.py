"""The model of a run, before and after training."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint, sample_leaves
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.sharding import put, replicated
from igd_jax.core.types import ItemBatch, LossSum, TextBatch
from igd_jax.methods import load_method, with_defaults
from igd_jax.methods.base import BACKBONE, Context, Method, Objective
from igd_jax.models.load import config_of, kind_of
from igd_jax.models.sharding_rules import as_placed, placed, shardings, whole_arrays
from igd_jax.session.backbone import tuned_backbone
from igd_jax.session.session import Session
from igd_jax.settings.config_flags import config_json, run_config
from igd_jax.settings.sections import MethodSettings
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.frozen_fingerprint import frozen_fingerprint
from igd_jax.training.optimizer import sum_dtype
from igd_jax.training.step import LossState, Params, StepFunctions, TrainState, init_state, make_step

ModelOf: TypeAlias = Callable[[Params], nnx.Module]


@dataclass(frozen=True)
class Trained:
    """A model to recommend with.

    Attributes:
      model: model with its weights.
      step: number of training steps of the weights; None if untrained.
      made_from: text that differs for other weights.
    """

    model: nnx.Module
    step: int | None
    made_from: str


def split_trainable(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Split a model into its graph, trained variables (`nnx.Param`) and frozen variables (all others)."""
    graph, *states = nnx.split(model, nnx.Param, ...)
    trained, frozen = states
    return graph, trained, frozen


def model_to_restore(session: Session, context: Context) -> nnx.Module:
    """The model of a run whose trained variables a checkpoint holds: if it holds all weights, shapes in their place.

    So the weights of a model folder, which training replaced, are neither read nor held. They are where something is
    frozen, where more than a backbone is made of them, and of a T5, whose folder alone tells whether it has a head.
    """
    given, method = session.settings.model, session.method
    if method.model_kind == BACKBONE and not given.lora and not (given.path and kind_of(given.path) == "t5"):
        backbone = partial(tuned_backbone, given, vocab_size=session.identifiers.vocab_size)
        model: nnx.Module = nnx.eval_shape(lambda: method.make_model(replace(context, backbone=backbone)))
        if not jax.tree.leaves(split_trainable(model)[2]):
            return model
    return method.make_model(context)


def initial_state(
    session: Session,
    context: Context,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    is_saved: bool = False,
) -> tuple[TrainState, StepFunctions, Any, ModelOf]:
    """Make the initial state on the devices, the compiled parts of a step, and the frozen part of the model.

    The last result makes the model of the parameters of a state.

    Args:
      session: the run.
      context: context of the method.
      objective: what is trained.
      optimizer: the optimizer.
      is_saved: whether a checkpoint holds a later state, so that shapes stand in the place of this one.
    """
    mesh = session.mesh
    model = model_to_restore(session, context) if is_saved else session.method.make_model(context)
    graph, params, frozen = split_trainable(model)
    params, frozen = as_placed(params, mesh) if is_saved else placed(params, mesh), placed(frozen, mesh)
    tables = (frozen, put(objective.tables, replicated(mesh)))
    loss_state = {name: jnp.float32(value) for name, value in objective.state.items()}

    def first(params: Params) -> TrainState:
        return init_state(params, optimizer, loss_state)

    state = as_placed(jax.eval_shape(first, params), mesh)
    places = shardings(state, mesh)
    if not is_saved:
        state = jax.jit(first, donate_argnums=0, out_shardings=places)(params)
    for name in whole_arrays((state, frozen), mesh):
        say(f"whole on every device, as no rule of igd_jax/models/sharding_rules.py splits it: {name}")

    def loss(params: Params, tables: Any, batch: TextBatch | ItemBatch, loss_state: LossState) -> LossSum:
        frozen, looked_up = tables
        return objective.loss(nnx.merge(graph, params, frozen), batch, looked_up, loss_state)

    functions = make_step(
        loss,
        optimizer,
        tables=tables,
        update_state=objective.update_state,
        normalizer=session.settings.loss.normalizer,
        sum_dtype=sum_dtype(session.settings.train.bfloat16),
        shardings=places,
    )
    return state, functions, frozen, lambda params: nnx.merge(graph, params, frozen)


def trained_model(session: Session, workdir: Workdir, context: Context, *, known: Trained | None = None) -> Trained:
    """Load the best checkpoint of the run in the workdir; without a run, the Hugging Face folder of the config.

    The method that decodes the run may differ from the one that trained it, as long as both have the same kind of
    model.

    Args:
      session: the run.
      workdir: folder of the run.
      context: context of the method.
      known: what this gave before, if nothing but how it is decoded has changed since; it is not loaded again.

    Raises:
      InputError: neither exists, the checkpoint is damaged or belongs to other data, or the kinds of model differ.
    """
    session = as_trained(session, workdir)
    if known is not None:
        return known
    if not workdir.config.is_file():
        say(f"no training: weights of {session.settings.model.path}")
        model, sizes = session.method.make_model(context), repr(config_of(session.settings.model.path))
        return Trained(model, None, fingerprint(sizes, *sample_leaves(nnx.state(model))))
    graph, params, frozen = split_trainable(model_to_restore(session, context))
    params = as_placed(params, session.mesh)  # or weights would be held twice
    check = partial(check_fingerprints, expected=fingerprints(session, frozen), session=session, workdir=workdir)
    with closing(Checkpoints(workdir.checkpoints)) as checkpoints:
        found, step = checkpoints.restore_best(params, check=check), checkpoints.newest_step
    if found is None and step:
        raise InputError(
            f"{workdir.path} has a state of step {step} to resume, but no evaluated weights yet; go on with "
            "igd_jax.train, if need be with a lower config.train.eval_every_steps"
        )
    if found is None:
        raise InputError(f"{workdir.path} has no checkpoint yet; let igd_jax.train reach its first evaluation")
    params, progress = found
    say(f"checkpoint of step {progress['best_step']}, valid loss {progress['best_loss']:.4f}")
    return Trained(nnx.merge(graph, params, frozen), progress["best_step"], json.dumps(progress, sort_keys=True))


def as_trained(session: Session, workdir: Workdir) -> Session:
    """The session with the method that trained the run in the workdir, if there is one, whichever decodes it.

    Raises:
      InputError: there is no model, or the method of the session cannot decode it.
    """
    settings, method = session.settings, session.method
    if not workdir.config.is_file():
        if not settings.model.path or method.model_kind != BACKBONE:
            lacks = "config.model.path is not set"
            if method.model_kind != BACKBONE:
                lacks = f"{settings.method.name} has to be trained"
            raise InputError(f"{workdir.path} holds no run and {lacks}: there is no model")
        return session
    trained_by = config_json(run_config(workdir))["method"]
    if trained_by["name"] == settings.method.name:
        args = (with_defaults(settings.method.name, given) for given in (trained_by["args"], settings.method.args))
        check_decoding_args(method, *args)
        return session  # a path among the run's arguments may no longer exist if only decoding reads it
    trainer = load_method(trained_by["name"], trained_by["args"])
    if trainer.model_kind != method.model_kind:
        raise InputError(
            f"{workdir.path} holds a model of {trained_by['name']}, which {settings.method.name} cannot decode; give "
            "the run of a method that tunes the same kind of model"
        )
    return replace(session, method=trainer, settings=replace(settings, method=MethodSettings(**trained_by)))


def check_decoding_args(method: Method, trained: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise `InputError` if an argument that only training reads differs from the run's; both have all arguments."""
    differ = sorted(name for name in set(trained) | set(given) if trained.get(name) != given.get(name))
    if fixed := [name for name in differ if name not in method.decoding_args]:
        raise InputError(
            f"config.method.args.{fixed[0]} is {given.get(fixed[0])!r}, but the run was trained with "
            f"{trained.get(fixed[0])!r}, and decoding does not read it; leave it as it is, or train another run"
        )


def fingerprints(session: Session, frozen: Any) -> dict[str, str]:
    """Fingerprints that a checkpoint must match: of data and tokenizer, and of the model's frozen variables."""
    return {"fingerprint": session.fingerprint, "frozen": frozen_fingerprint(frozen)}


def check_fingerprints(
    progress: dict[str, Any], *, expected: dict[str, str], session: Session, workdir: Workdir
) -> None:
    """Raise `InputError` if a checkpoint was trained with other rows, candidates, tokenizer or frozen variables."""
    if progress["fingerprint"] != expected["fingerprint"]:
        raise InputError(
            f"{workdir.path} was trained on other data, on other rows of it, or with other candidates or another "
            f"tokenizer than {session.settings.data.dir} and the config give now; use what it was trained on, or "
            "another --workdir"
        )
    if progress["frozen"] != expected["frozen"]:
        raise InputError(
            f"{workdir.path} was trained on top of other frozen weights, item vectors or item features than the files "
            "that its config names hold now; restore those files, or train in another --workdir"
        )
