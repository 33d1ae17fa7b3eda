"""What a model makes of the tokens of titles: by gain, by place in the title (docs/analysis.md, Tokens)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.evaluation.groups import Columns, gain_groups, group_means

GHOST = 0.99
"""Probability above which a token is a ghost: it adds next to nothing to a sum of log-probabilities, but to the length
(D3, arXiv 2406.14900)."""


@dataclass(frozen=True)
class TitleTokens:
    """Tokens of some titles, one title after another, as one model predicts them; float32 in nats unless noted.

    Attributes:
      place: number of each token in its title, from 0.
      gain: information gain, float64.
      forced: whether the token has no gain.
      left: entropy mass of the titles that are still possible before the token, float64.
      logp: log-probability of the token over the whole vocabulary.
      entropy: entropy of that distribution.
      without: the same log-probability after the prompt without history.
    """

    place: Int[np.ndarray, "n"]
    gain: Float[np.ndarray, "n"]
    forced: Bool[np.ndarray, "n"]
    left: Float[np.ndarray, "n"]
    logp: Float[np.ndarray, "n"]
    entropy: Float[np.ndarray, "n"]
    without: Float[np.ndarray, "n"]

    @property
    def is_ghost(self) -> Bool[np.ndarray, "n"]:
        """Whether the model gives the token a probability above `GHOST`."""
        return self.logp > np.log(GHOST)


def by_gain(tokens: TitleTokens) -> Columns:
    """For each group of gain: mean log-probability, entropy and effect of the history, share of ghosts and of loss."""
    names, group = gain_groups(tokens.gain, tokens.forced)
    values = {"logp": tokens.logp, "entropy": tokens.entropy, "ghost": tokens.is_ghost}
    columns = group_means(names, group, values | {"history": tokens.logp - tokens.without})
    loss = -float(tokens.logp.sum(dtype=np.float64))
    parts = zip(columns["n"], columns["logp"], strict=True)
    return columns | {"loss_share": [-n * logp / loss if loss else 0.0 for n, logp in parts]}


def by_place(tokens: TitleTokens) -> Columns:
    """For each place in a title: means of entropy, mass left, ghosts, log-probability and effect of the history."""
    values = {"entropy": tokens.entropy, "left": tokens.left, "ghost": tokens.is_ghost, "logp": tokens.logp}
    names = [str(place) for place in range(int(tokens.place.max(initial=0)) + 1)]
    columns = group_means(names, tokens.place, values | {"history": tokens.logp - tokens.without})
    return {"place": [int(name) for name in columns.pop("group")]} | columns


def describe_tokens(tokens: TitleTokens) -> dict[str, float]:
    """Means per title and per token: ``tokens``, ``ghosts`` and ``forced`` per title, the share of ``ghosts_forced``
    among ghosts, and ``logp`` and the effect of the ``history`` summed over a title, in nats."""
    n_titles, ghosts = max(int((tokens.place == 0).sum()), 1), tokens.is_ghost
    return {
        "tokens": tokens.place.size / n_titles,
        "forced": float(tokens.forced.sum() / n_titles),
        "ghosts": float(ghosts.sum() / n_titles),
        "ghosts_forced": float((ghosts & tokens.forced).sum() / max(ghosts.sum(), 1)),
        "logp": float(tokens.logp.sum(dtype=np.float64) / n_titles),
        "history": float((tokens.logp - tokens.without).sum(dtype=np.float64) / n_titles),
    }
