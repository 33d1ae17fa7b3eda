"""Tokens of titles as a heat map: gain, weight, and log-probability before and after training."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.core.shown import with_ink
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.evaluation.groups import Columns, group_means
from igd_jax.evaluation.queries import evenly_spaced
from igd_jax.evaluation.token_figures import TitleTokens
from igd_jax.methods.base import BACKBONE
from igd_jax.page.lists import chosen_queries
from igd_jax.session.analysis import Evaluated
from igd_jax.session.session import Session
from igd_jax.session.token_statistics import title_tokens
from igd_jax.session.training_weights import training_weights
from igd_jax.session.weights import as_trained

COSTLY = 6.0
"""Nats from which on a token is as dark as it can be."""


@dataclass(frozen=True)
class ShownToken:
    """A token of a title.

    Attributes:
      text: its text.
      is_joined: whether it goes on where the token before it ends.
      gain: information gain, in nats.
      forced: whether it has none.
      weight: weight in the loss; nan where the objective has none.
      before, after: log-probability after the history of the user, with untrained and with trained weights.
      darkest_gain: the largest gain among the tokens that are shown.
    """

    text: str
    is_joined: bool
    gain: float
    forced: bool
    weight: float
    before: float
    after: float
    darkest_gain: float

    @property
    def shades(self) -> dict[str, float]:
        """Shade of its cell for each number, from 0 to 1."""
        dark = {"gain": self.gain / (self.darkest_gain or 1.0), "weight": 0.0 if isnan(self.weight) else self.weight}
        dark |= {"before": -self.before / COSTLY, "after": -self.after / COSTLY}
        return {name: round(min(max(value, 0.0), 1.0), 2) for name, value in dark.items()}


@dataclass(frozen=True)
class ShownTitle:
    """A title, token by token.

    Attributes:
      tokens: its tokens.
      on_trie: whether it is on the trie of training; if not, `ShownToken.gain` and `ShownToken.forced` say nothing.
    """

    tokens: Sequence[ShownToken]
    on_trie: bool


@dataclass(frozen=True)
class HeatMap:
    """Titles, token by token.

    Attributes:
      titles: the titles.
      by_gain: mean log-probability of forced and of deciding tokens of titles on the trie, before and after training.
      n_queries: number of queries whose targets, on the trie, the means are of.
    """

    titles: Sequence[ShownTitle]
    by_gain: Columns
    n_queries: int


def heat_map(evaluated: Evaluated, *, max_examples: int) -> HeatMap:
    """Run the model of a run, untrained and trained, on the targets of some queries.

    Args:
      evaluated: the evaluation.
      max_examples: most queries for the means, evenly spread; 0 = all.

    Raises:
      InputError: the model writes no text, or its weights are not there.
    """
    session, lists = as_trained(evaluated.session, evaluated.workdir), evaluated.lists
    if session.method.model_kind != BACKBONE:
        raise InputError(f"{session.settings.method.name} scores items and writes no text")
    ranker, shown = evaluated.ranker, chosen_queries(len(lists))
    further = evenly_spaced(len(lists), max_examples).tolist()
    some = lists.take(np.array([*shown, *further]))
    item, examples = ranker.index.catalog.first[some.first_targets], evaluated.examples(some)
    untrained = session.method.make_model(session.context(session.index))
    before, after = (title_tokens(ranker, examples, item, evaluated.walk, model=model) for model in (untrained, None))
    start = np.flatnonzero(after.place == 0)
    titles = _titles(session, item[: len(shown)].tolist(), start[: len(shown)].tolist(), before.logp, after)
    rest = start[len(shown)] + np.flatnonzero(after.on_trie[start[len(shown)] :])
    values = {"before": before.logp[rest], "after": after.logp[rest]}
    means = group_means(("deciding", "forced"), after.forced[rest].astype(np.int64), values)
    return HeatMap(titles, means, int((after.place[rest] == 0).sum()))


def _titles(
    session: Session, items: Sequence[int], starts: Sequence[int], before: Float[np.ndarray, " n"], after: TitleTokens
) -> list[ShownTitle]:
    """Some titles; `starts` says where they begin in `before` and `after`."""
    ids, weight = session.index.item_tokens, training_weights(session)
    titles: list[ShownTitle] = []
    darkest = float(after.gain[: starts[-1] + len(ids[items[-1]])].max())
    for item, start in zip(items, starts, strict=True):
        numbers = zip(ids[item].tolist(), weight[ids.start[item] :].tolist(), strict=False)
        tokens = [
            ShownToken(
                *token_text(session.tokenizer, token),
                float(after.gain[at]),
                bool(after.forced[at]),
                own_weight,
                float(before[at]),
                float(after.logp[at]),
                darkest,
            )
            for at, (token, own_weight) in enumerate(numbers, start=start)
        ]
        titles.append(ShownTitle(tokens, bool(after.on_trie[start])))
    return titles


def token_text(tokenizer: Tokenizer, token: int) -> tuple[str, bool]:
    """Text of a token for people, with signs for what has no ink, and whether no space is before it."""
    if token == tokenizer.eos:
        return "end", False
    text = tokenizer.shown([token])
    signs = text.strip() or with_ink(text)
    return signs, not text[:1].isspace()
