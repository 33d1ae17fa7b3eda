"""The seam between methods and everything else (DESIGN section 4).

A method is one module of this folder, named as `config.method.name`, whose ``METHOD`` is its class. It must write
`annotate`, `loss` and `recommend`; the other functions have an answer here that suits a method which tunes the backbone
to write titles, and is replaced as a whole. Methods never import one another.
"""

import abc
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.data.prompts import render
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.beam_search import SearchOptions, beam_search
from igd_jax.decoding.device_trie import device_trie
from igd_jax.decoding.lm_scorer import lm_scorer
from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder
from igd_jax.training.loss import weighted_cross_entropy


@dataclass(frozen=True)
class Context:
    """What a method may know beside the batch.

    Attributes:
      index: the items, over the candidates.
      texts: of the items beside their titles; as in `data.prepared.Prepared`.
      counts: train targets an item.
      tokenizer: of titles and prompts.
      template, category: of prompts; see `data.prompts.render`.
      backbone: builds the decoder as it is before any training: a Hugging Face folder, or random weights.
      seed: of random weights.
      cache: a folder for what is dear to compute.
      data_fingerprint: changes with the prepared data.
    """

    index: ItemIndex
    texts: Mapping[str, Sequence[str]]
    counts: Int[np.ndarray, " items"]
    tokenizer: Tokenizer
    template: str
    category: str
    backbone: Callable[[], Decoder]
    seed: int
    cache: Path
    data_fingerprint: str

    def prompts(self, histories: Sequence[Sequence[str] | None]) -> Ragged:
        """Ids of the prompt for each history of titles, oldest first; None is the prompt with its history removed."""
        return self.tokenizer.encode_prompts(
            [render(self.template, history, category=self.category) for history in histories]
        )


class Method(abc.ABC):
    """What a method says of titles, of a batch, and of users.

    Attributes:
      inputs: what its batches hold, ``text`` or ``items``; see `core.types.Batch`.
      decoding_args: arguments that `recommend` reads, and that may differ from those of training. The others have done
        their work then.
    """

    inputs: ClassVar[str] = "text"
    decoding_args: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """On the host, once: arrays [items, T] aligned with the items' title tokens, looked up into each batch."""

    @abc.abstractmethod
    def loss(self, model: Any, batch: Batch, constants: Any) -> LossSum:
        """On the device: the weighted loss of a batch as sums, never a mean."""

    @abc.abstractmethod
    def recommend(self, model: Any, batch: Batch, *, tables: Any, options: SearchOptions) -> Ranked:
        """On the device: the best K titles of each row. Rows that only fill up the batch find nothing."""

    def make_model(self, context: Context) -> nnx.Module:
        """The untrained model. Its `nnx.Param` variables are trained, all others are frozen."""
        return context.backbone()

    def constants(self, context: Context) -> Any:
        """Arrays that `loss` looks up, beside the model."""
        return {}

    def memory(self) -> dict[str, float]:
        """Scalars that `loss` finds in its batch under their names, before the first step."""
        return {}

    def remember(self, memory: dict[str, jax.Array], total: LossSum) -> dict[str, jax.Array]:
        """On the device: those scalars after a step, from the sums over all its rows."""
        return memory

    def tables(self, context: Context, model: Any) -> Any:
        """Arrays that `recommend` looks up, beside the model; built once a model."""
        return device_trie(context.index.trie, context.index.gain, max_length=context.index.longest_title)

    def vectors(self, model: Any, batch: Batch) -> tuple[Float[Array, "B D"], Float[Array, "items D"]] | None:
        """On the device: users and all items, whose inner products are scores; None where there are none."""
        return None


def gain_weights(index: ItemIndex, *, beta: float) -> dict[str, np.ndarray]:
    """`weight` float32, `beta` on tokens without gain and else 1, and `forced`, those tokens; 0 after a title's end."""
    walk = index.walk(index.item_tokens)
    weight = np.where(walk.forced, beta, 1.0).astype(np.float32)
    return {"weight": np.where(walk.mask, weight, np.float32(0)), "forced": walk.forced & walk.mask}


def title_loss(model: Decoder, batch: Batch) -> LossSum:
    """Cross-entropy of the target tokens by the batch's `weight`; its parts by `forced` are reported."""
    parts = {"loss_forced": batch["forced"], "loss_deciding": batch["target_mask"] & ~batch["forced"]}
    return weighted_cross_entropy(target_logits(model, batch), batch["target"], batch["weight"], parts=parts)


def search_titles(model: Decoder, batch: Batch, *, tables: Any, options: SearchOptions) -> Ranked:
    """Trie-constrained beam search with gain-scaled token scores; `tables` is the trie."""
    scorer = lm_scorer(model, batch, num_beams=options.num_beams)
    return beam_search(scorer, tables, options, is_real=batch["prompt_mask"].any(axis=1))


def target_logits(model: Decoder, batch: Batch) -> Float[Array, "B T V"]:
    """Logits that predict each target token, in float32; the vocabulary head runs on target positions only."""
    width = batch["prompt"].shape[1]
    tokens = jnp.concatenate([batch["prompt"], batch["target"]], axis=1)
    valid = jnp.concatenate([batch["prompt_mask"], batch["target_mask"]], axis=1)
    hidden, _ = model.after_prefix(batch.get("header"), tokens, valid)
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
