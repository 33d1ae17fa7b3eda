"""What tokens of titles weigh in the training of a run."""

import numpy as np
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.session.session import Session


def training_weights(session: Session) -> Float[np.ndarray, " total"]:
    """Weight of each token of all items in the loss of the run's method, aligned with `ItemIndex.item_tokens`.

    Raises:
      InputError: the method writes no titles, so none of their tokens has a weight.
    """
    if session.method.inputs != "text":
        raise InputError(
            f"{session.settings.method.name} scores items and writes no titles, so there are no tokens to explain"
        )
    annotations = session.method.objective(session.context(session.index)).annotations
    return annotations.get("weight", np.ones(len(session.index.item_tokens.ids), np.float32))
