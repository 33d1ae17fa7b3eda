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
      on_trie: whether its title is on the trie; of the tokens of others, `gain`, `forced` and `left` say nothing.
      left: entropy mass of the titles that are still possible before the token, float64.
      logp: log-probability of the token over the whole vocabulary.
      entropy: entropy of that distribution.
      without: the same log-probability after the prompt without history.
    """

    place: Int[np.ndarray, " n"]
    gain: Float[np.ndarray, " n"]
    forced: Bool[np.ndarray, " n"]
    on_trie: Bool[np.ndarray, " n"]
    left: Float[np.ndarray, " n"]
    logp: Float[np.ndarray, " n"]
    entropy: Float[np.ndarray, " n"]
    without: Float[np.ndarray, " n"]

    @property
    def is_ghost(self) -> Bool[np.ndarray, " n"]:
        """Whether the model gives the token a probability above `GHOST`."""
        return self.logp > np.log(GHOST)

    @property
    def n_titles(self) -> int:
        """Number of titles."""
        return int((self.place == 0).sum())

    def those_on_trie(self) -> "TitleTokens":
        """The tokens of titles on the trie."""
        return TitleTokens(**{name: each[self.on_trie] for name, each in vars(self).items()})


def by_gain(tokens: TitleTokens) -> Columns:
    """For each group of gain: mean log-probability, entropy and effect of the history, share of ghosts and of loss.

    Titles off the trie are left out; there are no groups if all are.
    """
    tokens = tokens.those_on_trie()
    names, group = gain_groups(tokens.gain, tokens.forced)
    values = {"logp": tokens.logp, "entropy": tokens.entropy, "ghost": tokens.is_ghost}
    columns = group_means(names, group, values | {"history": tokens.logp - tokens.without})
    loss = -float(tokens.logp.sum(dtype=np.float64))
    parts = zip(columns["n"], columns["logp"], strict=True)
    return columns | {"loss_share": [-n * logp / loss if loss else 0.0 for n, logp in parts]}


def by_place(tokens: TitleTokens) -> Columns:
    """For each place in a title: means of entropy, mass left, ghosts, log-probability and effect of the history.

    The mean of the mass that is left is over titles on the trie; None if none of them has the place.
    """
    names = [str(place) for place in range(int(tokens.place.max(initial=0)) + 1)]
    values = {"entropy": tokens.entropy, "ghost": tokens.is_ghost, "logp": tokens.logp}
    columns = group_means(names, tokens.place, values | {"history": tokens.logp - tokens.without})
    on = tokens.those_on_trie()
    columns["left"] = group_means(names, on.place, {"left": on.left})["left"]
    return {"place": [int(name) for name in columns.pop("group")]} | columns


def describe_tokens(tokens: TitleTokens) -> dict[str, float | int | None]:
    """Means per title, and what is off the trie.

    Returns:
      ``tokens`` and ``ghosts`` per title, ``logp`` and the effect of the ``history`` summed over a title, in nats; the
      number of ``titles_off_trie``; and, of the other titles, ``forced`` tokens per title and the share of
      ``ghosts_forced`` among ghosts: None if there is nothing that they could be a part of.
    """
    on = tokens.those_on_trie()
    n_titles, n_forced_ghosts = max(tokens.n_titles, 1), int((on.is_ghost & on.forced).sum())
    return {
        "tokens": tokens.place.size / n_titles,
        "ghosts": float(tokens.is_ghost.sum() / n_titles),
        "logp": float(tokens.logp.sum(dtype=np.float64) / n_titles),
        "history": float((tokens.logp - tokens.without).sum(dtype=np.float64) / n_titles),
        "titles_off_trie": tokens.n_titles - on.n_titles,
        "forced": _ratio(int(on.forced.sum()), on.n_titles),
        "ghosts_forced": _ratio(n_forced_ghosts, int(on.is_ghost.sum())),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
