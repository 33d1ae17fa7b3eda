"""The objective of a run, and what tokens of titles weigh in it."""

import numpy as np
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.methods.base import Context, Objective
from igd_jax.session.session import Session


def make_objective(session: Session, context: Context) -> Objective:
    """The objective of the run's method.

    Raises:
      InputError: an annotation does not have one entry per token of all items.
    """
    objective, total = session.method.objective(context), len(context.index.item_tokens.ids)
    for name, array in objective.annotations.items():
        if np.shape(array) != (total,):
            raise InputError(
                f"the objective of {session.settings.method.name} has an annotation {name!r} of shape "
                f"{np.shape(array)}; expected one entry per token of all items, ({total},), aligned with "
                "context.index.item_tokens.ids"
            )
    return objective


def training_weights(session: Session) -> Float[np.ndarray, " total"]:
    """Weight of each token of all items in the loss of the run's method, aligned with `ItemIndex.item_tokens`.

    Where an objective has annotations and none called ``weight``, its loss weighs tokens in a way of its own, and all
    weights are nan; one without annotations weighs all alike, by 1.

    Raises:
      InputError: the method writes no titles, so none of their tokens has a weight; or see `make_objective`.
    """
    if session.method.inputs != "text":
        raise InputError(
            f"{session.settings.method.name} scores items and writes no titles, so there are no tokens to explain"
        )
    annotations = make_objective(session, session.context(session.index)).annotations
    unknown = np.full(len(session.index.item_tokens.ids), np.nan if annotations else 1.0, np.float32)
    return annotations.get("weight", unknown)
