"""Interface between methods and the rest of the package (docs/howto/own_method.md).

A method is one module of this folder, named like `config.method.name`, whose ``METHOD`` is its class. It implements all
functions of `Method`; functions that several methods call are below. Methods never import one another.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import isfile
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from igd_jax.core.errors import InputError
from igd_jax.core.metrics_log import LOSSES_BY_GAIN
from igd_jax.core.types import ItemBatch, LossSum, TextBatch
from igd_jax.data.prompts import Prompts
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.chains import chains_of
from igd_jax.decoding.device_trie import device_trie
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.engine import Engine
from igd_jax.decoding.exact import ExactSearch, exact_search
from igd_jax.decoding.jump import Jump, call_sizes
from igd_jax.decoding.normalizing import AmongChildren
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.restriction import restricted
from igd_jax.decoding.search import EXACT, STEPWISE, TrieSearch
from igd_jax.decoding.stepwise import Stepwise
from igd_jax.items.index import ItemIndex
from igd_jax.models.backbone import Backbone
from igd_jax.models.decoder import Decoder
from igd_jax.models.t5 import T5
from igd_jax.training.loss import weighted_loss
from igd_jax.training.step import LossState, unchanged
from igd_jax.training.whole_text import whole_text

BACKBONE = "backbone"
"""Kind of model of methods that tune the backbone to write items; any such method can decode it."""
LOG_PROBABILITY = (
    "log-probability of the title, its tokens summed as the method and config.decode.alpha weigh them, over "
    "length^config.decode.length_penalty; the nearer to 0 the better, to be compared within one list only"
)
"""What the score of a result is under methods that search the trie."""


@dataclass(frozen=True)
class Context:
    """Data available to a method in addition to the batch.

    Attributes:
      index: items, with the candidates of training or of decoding.
      texts: further texts of the items, as in `data.prepared.Prepared`.
      tokenizer: tokenizer of prompts and titles.
      prompts: prompts around histories.
      backbone: function that makes the untrained backbone, from a Hugging Face folder or with random weights.
      seed: seed of random weights.
      cache: folder for results of long computations.
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
    """Options of decoding; a method reads those that apply to it. All but `max_length` are fields of `config.decode`.

    Attributes:
      alpha: share by which high-gain siblings are favoured, 0 to 1; see `decoding.rebalancing`.
      temperature: divisor of log-probabilities, above 0.
      length_penalty: exponent of the length by which final scores are divided.
      num_beams: width of the beam.
      top_k: length of the lists.
      max_length: maximum number of tokens of an identifier, EOS included.
      normalize: over what log-probabilities are normalised, one of `decoding.normalizing.NORMALIZE`.
      search: engine of the search over the trie, of `SEARCHES`.
      budget: tokens per user and call of a search that jumps; see `decoding.jump.budget_of`.
      batch_size: users at a time.
    """

    alpha: float
    temperature: float
    length_penalty: float
    num_beams: int
    top_k: int
    max_length: int
    normalize: str
    search: str
    budget: int
    batch_size: int


def check_argument(name: str, value: Any, is_good: bool, expected: str, *, but: str = "") -> None:
    """Raise `InputError` about an argument of a method unless it is good.

    Args:
      name: name of the argument.
      value: its value.
      is_good: whether the value is good.
      expected: description of good values, and advice if needed.
      but: fault of the value, if it is not obvious from `expected`.
    """
    if not is_good:
        raise InputError(f"config.method.args.{name} is {value!r}{but}; expected {expected}")


def check_file(name: str, value: str, expected: str) -> None:
    """Raise `InputError` unless an argument is empty or a file."""
    check_argument(name, value, not value or isfile(value), expected, but=", which is not a file")


def check_folder(name: str, value: str, holds: Sequence[str], expected: str) -> None:
    """Raise `InputError` unless an argument is empty or a folder that holds some files."""
    absent = [file for file in holds if not isfile(f"{value}/{file}")] if value else []
    check_argument(name, value, not absent, expected, but=f", which holds no {' and no '.join(absent)}")


@dataclass(frozen=True)
class Objective:
    """Objective of training.

    Attributes:
      loss: function ``(model, batch, tables, state) -> LossSum`` on the device; returns weighted sums, never means.
      annotations: arrays aligned with the ids of `ItemIndex.item_tokens`, by name; looked up for each text batch. Two
        names have a meaning beside the loss: ``weight`` (float32) is shown to people as what each token weighs, and
        refused where no target of validation has any; ``forced`` (bool) says by which tokens `token_loss` reports its
        parts. Without annotations all tokens weigh 1; where there are some and no ``weight``, no weight is shown.
      tables: arrays that the loss looks up, a pytree.
      state: initial values of scalars that the loss reads and that change from step to step, by name.
      update_state: function ``(state, LossSum) -> state``, called after a step with the sums over all its rows.
      covers_prompt: whether the loss also covers the tokens of prompts.
      criterion: what the loss of rows without seeds is, those of validation, for people.
    """

    loss: Callable[[Any, Any, Any, LossState], LossSum]
    annotations: Mapping[str, np.ndarray] = field(default_factory=dict)
    tables: Any = ()
    state: Mapping[str, float] = field(default_factory=dict)
    update_state: Callable[[LossState, LossSum], LossState] = unchanged
    covers_prompt: bool = False
    criterion: str = "loss"


class Method(abc.ABC):
    """A method: its model, training and decoding.

    Attributes:
      model_kind: kind of model; a trained model can be decoded by every method of the same kind.
      inputs: type of the batches: ``text`` for `TextBatch` or ``items`` for `ItemBatch`.
      decoding_args: arguments that `engine` alone reads, which may differ from those of training.
      beam_search: whether lists come from a search over the trie, so that those of a beam are at most as long as it is
        wide.
      backbones: supported kinds of backbone, ``decoder`` and ``t5``; empty if the method has a model of its own.
      score: what the score of a result is, for people.
      needs_collaborative: whether the batches of `engine` must have scores of a collaborative source.
    """

    model_kind: ClassVar[str]
    inputs: ClassVar[str]
    decoding_args: ClassVar[tuple[str, ...]]
    beam_search: ClassVar[bool]
    backbones: tuple[str, ...]
    score: ClassVar[str]
    needs_collaborative: bool

    @abc.abstractmethod
    def make_model(self, context: Context) -> nnx.Module:
        """Make the untrained model. Its `nnx.Param` variables are trained, all others are frozen.

        Of model kind `BACKBONE` it is also traced, as shapes suffice to restore a model that is tuned whole.
        """

    @abc.abstractmethod
    def objective(self, context: Context) -> Objective:
        """Make the objective, with its look-up tables."""

    @abc.abstractmethod
    def engine(self, context: Context, model: Any, options: DecodeOptions) -> Engine:
        """Make the engine that recommends with a trained model; padding rows must get no results."""


class ItemsMethod(Method):
    """A method whose backbone reads items instead of text, each as several tokens."""

    @abc.abstractmethod
    def most_items(self, tokenizer: Tokenizer, positions: int | float) -> int | float:
        """Items of a history that a backbone with so many positions can read, infinite if these are.

        Raises:
          InputError: it can read none.
        """


class CollaborativeMethod(Method):
    """A method whose model has vectors of users and items, which other methods use as a source of scores."""

    @abc.abstractmethod
    def vectors(self, model: Any, batch: ItemBatch) -> tuple[Float[Array, "B D"], Float[Array, "items D"]]:
        """Vectors of users and of all items, whose inner products are scores; runs on the device."""


def gain_weights(index: ItemIndex, *, beta: float) -> dict[str, np.ndarray]:
    """Annotations of target tokens: ``forced`` (bool), no gain; ``weight`` (float32), `beta` if forced, else 1."""
    forced = index.walk().forced
    return {"weight": np.where(forced, np.float32(beta), np.float32(1)), "forced": forced}


def token_loss(model: Backbone, batch: TextBatch, tables: Any, state: LossState) -> LossSum:
    """Cross-entropy of the target tokens, weighted by the annotation ``weight``; reports its parts by ``forced``."""
    return weighted_loss(model, batch, batch.target, batch.annotations["weight"], parts=parts_by_gain(batch))


def whole_text_loss(model: Backbone, batch: TextBatch, tables: Any, state: LossState) -> LossSum:
    """As `token_loss`, and of all tokens of prompts but the first, with weight 1; reports them as ``loss_prompt``."""
    if batch.pack_trees is not None:  # packs have slots for them
        assert "prompt" in batch.annotations, "Objective.covers_prompt is False, but its loss covers prompts"
        in_prompt = batch.annotations["prompt"]
        weight, parts = batch.annotations["weight"] + in_prompt, parts_by_gain(batch) | {"loss_prompt": in_prompt}
        return weighted_loss(model, batch, batch.target, weight, parts=parts)
    text = whole_text(batch)
    left = ((0, 0), (text.batch.prompt.shape[1], 0))
    weight = jnp.where(text.in_prompt, 1.0, jnp.pad(batch.annotations["weight"], left))
    parts = {name: jnp.pad(mask, left) for name, mask in parts_by_gain(batch).items()} | {"loss_prompt": text.in_prompt}
    return weighted_loss(model, text.batch, text.tokens, weight, parts=parts)


def plain_objective(index: ItemIndex, *, prompt_loss: bool = False) -> Objective:
    """Cross-entropy of all target tokens with weight 1, and of the prompts' tokens if `prompt_loss` is true."""
    loss = whole_text_loss if prompt_loss else token_loss
    return Objective(loss, gain_weights(index, beta=1.0), covers_prompt=prompt_loss)


def parts_by_gain(batch: TextBatch) -> dict[str, Bool[Array, "B T"]]:
    """Masks of the target tokens whose mean losses are reported separately: forced ones and deciding ones."""
    forced = batch.annotations["forced"]
    return dict(zip(LOSSES_BY_GAIN, (forced, batch.target_mask & ~forced), strict=True))


def target_logits(model: Backbone, batch: TextBatch) -> Float[Array, "B T V"]:
    """Logits of all target tokens at once, float32."""
    return model.logits(model.target_hidden(batch))


def search_engine(
    context: Context,
    model: Backbone,
    options: DecodeOptions,
    *,
    edge_score: EdgeScore | None = None,
    softmax_temperature: float = 1.0,
) -> Stepwise | Jump | ExactSearch:
    """Trie-constrained search over the candidates, with IGD's edge score unless another one is given."""
    index = context.index
    if edge_score is None:
        edge_score = rebalanced(index.gain, alpha=options.alpha, temperature=options.temperature)
    if options.normalize == "children":
        edge_score = AmongChildren(edge_score)
    graph, weights = nnx.split(model)
    search: dict[str, Any] = {
        "graph": graph,
        "weights": weights,
        "trie": device_trie(index.trie),
        "edge_score": restricted(index.trie, edge_score),
        "options": SearchOptions(options.num_beams, options.max_length, options.length_penalty),
        "top_k": options.top_k,
        "softmax_temperature": softmax_temperature,
    }
    if options.search == EXACT:
        return exact_search(TrieSearch(**search), index)
    if options.search == STEPWISE:
        return Stepwise(**search)
    sizes = call_sizes(options.budget, batch_size=options.batch_size, mesh=context.mesh)
    return Jump(**search, **sizes, chains=chains_of(index.trie, index.catalog.counts))
