"""The seam between methods and everything else (docs/extending.md).

A method is one module of this folder, named as `config.method.name`, whose ``METHOD`` is its class. It writes every
function of `Method`; what several methods do alike stands below as functions to call. Methods never import one another.
"""

import abc
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import isfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from igd_jax.core.errors import InputError
from igd_jax.core.types import ItemBatch, LossSum, TextBatch
from igd_jax.data.prompts import Prompts
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.device_trie import device_trie
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.engine import Engine
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.restriction import restricted
from igd_jax.decoding.stepwise import Stepwise
from igd_jax.items.index import ItemIndex
from igd_jax.models.backbone import Backbone
from igd_jax.models.decoder import Decoder
from igd_jax.models.t5 import T5
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.step import LossState

BACKBONE = "backbone"
"""Kind of model of a method that tunes the backbone to write items: any such method can decode it."""


@dataclass(frozen=True)
class Context:
    """What a method may know beside the batch.

    Attributes:
      index: items, with the candidates of this use: those of training, or those of decoding.
      texts: what is known of items beside their titles; as in `data.prepared.Prepared`.
      tokenizer: tokenizer of prompts and titles.
      prompts: what stands around histories.
      backbone: function that builds the backbone before any training: a Hugging Face folder, or random weights.
      seed: seed of random weights.
      cache: folder for what takes long to compute.
      data_fingerprint: text that changes with the prepared data.
      mesh: devices.
    """

    index: ItemIndex
    texts: Mapping[str, Sequence[str]]
    tokenizer: Tokenizer
    prompts: Prompts
    backbone: Callable[[], Decoder | T5]
    seed: int
    cache: Path
    data_fingerprint: str
    mesh: Mesh


@dataclass(frozen=True)
class DecodeOptions:
    """How lists are made; a method reads what concerns it.

    Attributes:
      alpha: discount of high-gain siblings, 0 to 1.
      temperature: divisor of log-probabilities, above 0.
      length_penalty: power of the length that divides final scores.
      num_beams: width of the beam.
      top_k: length of the lists.
      max_length: tokens of the longest identifier that may be written, EOS included.
    """

    alpha: float
    temperature: float
    length_penalty: float
    num_beams: int
    top_k: int
    max_length: int


def check_argument(name: str, value: Any, is_good: bool, expected: str, *, but: str = "") -> None:
    """Raise `InputError` about an argument of a method unless it is good.

    Args:
      expected: what it should be, and what to do where that is not the same.
      but: what is wrong with it, where that cannot be seen from the two.
    """
    if not is_good:
        raise InputError(f"config.method.args.{name} is {value!r}{but}; expected {expected}")


def check_file(name: str, value: str, expected: str) -> None:
    """Raise `InputError` unless an argument is empty or a file."""
    check_argument(name, value, not value or isfile(value), expected, but=", which is no file")


def check_folder(name: str, value: str, holds: Sequence[str], expected: str) -> None:
    """Raise `InputError` unless an argument is empty or a folder that holds some files."""
    absent = [file for file in holds if not isfile(f"{value}/{file}")] if value else []
    check_argument(name, value, not absent, expected, but=f", which holds no {' and no '.join(absent)}")


def unchanged(state: LossState, total: LossSum) -> LossState:
    """The loss state of an objective that remembers nothing."""
    return state


@dataclass(frozen=True)
class Objective:
    """What is trained.

    Attributes:
      loss: ``(model, batch, tables, state) -> LossSum`` on the device: weighted sums, never means.
      annotations: arrays aligned with the ids of `ItemIndex.item_tokens`, by name; looked up into each text batch.
      tables: arrays that the loss looks up, a pytree.
      state: scalars that the loss reads and that change from step to step, by name; their first values.
      update_state: ``(state, LossSum) -> state`` after a step, from the sums over all its rows.
    """

    loss: Callable[[Any, Any, Any, LossState], LossSum]
    annotations: Mapping[str, np.ndarray] = field(default_factory=dict)
    tables: Any = ()
    state: Mapping[str, float] = field(default_factory=dict)
    update_state: Callable[[LossState, LossSum], LossState] = unchanged


class Method(abc.ABC):
    """What a method says of its model, of training and of recommending.

    Attributes:
      model_kind: kind of model; a trained model can be decoded by every method of the same kind.
      inputs: what its batches hold, ``text`` or ``items``: `TextBatch` or `ItemBatch`.
      decoding_args: arguments that `engine` reads, and that may differ from those of training.
      beam_search: whether lists come from a beam search, and are at most as long as the beam is wide.
      backbones: kinds of backbone that it works on, ``decoder`` and ``t5``; none where it has a model of its own.
    """

    model_kind: ClassVar[str]
    inputs: ClassVar[str]
    decoding_args: ClassVar[tuple[str, ...]]
    beam_search: ClassVar[bool]
    backbones: tuple[str, ...]

    @property
    @abc.abstractmethod
    def needs_collaborative(self) -> bool:
        """Whether `engine` needs scores of a collaborative source in its batches."""

    @abc.abstractmethod
    def make_model(self, context: Context) -> nnx.Module:
        """The untrained model. Its `nnx.Param` variables are trained, all others are frozen."""

    @abc.abstractmethod
    def objective(self, context: Context) -> Objective:
        """What is trained, with all that is looked up."""

    @abc.abstractmethod
    def engine(self, context: Context, model: Any, options: DecodeOptions) -> Engine:
        """What recommends with a trained model; rows that only fill up a batch find nothing."""


class CollaborativeMethod(Method):
    """A method whose model has vectors of users and items, which others take as a source of scores."""

    @abc.abstractmethod
    def vectors(self, model: Any, batch: ItemBatch) -> tuple[Float[Array, "B D"], Float[Array, "items D"]]:
        """On the device: users and all items, whose inner products are scores."""


def gain_weights(index: ItemIndex, *, beta: float) -> dict[str, np.ndarray]:
    """Annotations of target tokens: ``weight``, `beta` where there is no gain and else 1, float32; ``forced``, bool."""
    forced = index.walk().forced
    return {"weight": np.where(forced, np.float32(beta), np.float32(1)), "forced": forced}


def token_loss(model: Backbone, batch: TextBatch, tables: Any, state: LossState) -> LossSum:
    """Cross-entropy of the target tokens by the annotation ``weight``; its parts by ``forced`` are reported."""
    annotations = batch.annotations
    return weighted_cross_entropy(
        target_logits(model, batch), batch.target, annotations["weight"], parts=parts_by_gain(batch)
    )


def parts_by_gain(batch: TextBatch) -> dict[str, Bool[Array, "B T"]]:
    """Masks of the target tokens whose mean losses are reported apart: forced ones, and those that decide."""
    forced = batch.annotations["forced"]
    return {"loss_forced": forced, "loss_deciding": batch.target_mask & ~forced}


def target_logits(model: Backbone, batch: TextBatch) -> Float[Array, "B T V"]:
    """Logits that predict each target token, float32; the vocabulary head runs on target positions only."""
    return model.logits(model.target_hidden(batch))


def search_engine(
    context: Context,
    model: Backbone,
    options: DecodeOptions,
    *,
    edge_score: EdgeScore | None = None,
    softmax_temperature: float = 1.0,
) -> Stepwise:
    """Trie-constrained beam search over the candidates, by IGD's edge score unless another one is given."""
    index = context.index
    if edge_score is None:
        edge_score = rebalanced(index.gain, alpha=options.alpha, temperature=options.temperature)
    return Stepwise(
        *nnx.split(model),
        trie=device_trie(index.trie),
        edge_score=restricted(index.trie, edge_score),
        options=SearchOptions(options.num_beams, options.max_length, options.length_penalty),
        top_k=options.top_k,
        softmax_temperature=softmax_temperature,
    )


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
