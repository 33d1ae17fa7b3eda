"""The seam between methods and everything else: three functions a method (DESIGN section 4).

A method is one module of this folder, named as `config.method.name`, whose ``METHOD`` is its class. A class is either
this abstract one or final; methods never import one another.
"""

import abc
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from igd_jax.core.errors import InputError
from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.decoding.constraint import DeviceTrie
from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder
from igd_jax.models.layers import causal_mask, positions_of


class Method(abc.ABC):
    """What a method says of titles, of a batch, and of users."""

    @abc.abstractmethod
    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """On the host, once: arrays [items, T] aligned with the items' title tokens, looked up into each batch."""

    @abc.abstractmethod
    def loss(self, model: Decoder, batch: Batch) -> LossSum:
        """On the device: the weighted loss of a batch as sums, never a mean."""

    @abc.abstractmethod
    def recommend(self, model: Decoder, batch: Batch, *, trie: DeviceTrie, options: SearchOptions) -> Ranked:
        """On the device: the best K titles of each row. Rows without a prompt find nothing."""


def target_logits(model: Decoder, batch: Batch) -> Float[Array, "B T V"]:
    """Logits that predict each target token, in float32; the vocabulary head runs on target positions only."""
    width = batch["prompt"].shape[1]
    tokens = jnp.concatenate([batch["prompt"], batch["target"]], axis=1)
    valid = jnp.concatenate([batch["prompt_mask"], batch["target_mask"]], axis=1)
    hidden, _ = model(tokens, positions=positions_of(valid), mask=causal_mask(valid))
    return model.logits(hidden[:, width - 1 : -1])


def load_method(name: str, args: Mapping[str, Any]) -> Method:
    """Make the method of `config.method.name` with `config.method.args`.

    Raises:
      InputError: there is no such method, or it does not take such an argument or value.
    """
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base"))
    if name not in known:
        raise InputError(f"config.method.name is {name!r}; known methods are {', '.join(known)}")
    method = importlib.import_module(f"igd_jax.methods.{name}").METHOD
    takes = inspect.signature(method).parameters
    unknown = sorted(set(args) - set(takes))
    if unknown:
        raise InputError(f"config.method.args has {', '.join(unknown)}; {name} takes {', '.join(takes)}")
    return method(**args)
