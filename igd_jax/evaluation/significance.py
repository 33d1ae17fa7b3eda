"""Which methods differ: a bootstrap over users whom all of them answered, corrected for the number of comparisons.

Users are resampled with all their rows, for all methods and metrics at once (Efron and Tibshirani 1993, ch. 8 and 13):
rows of one user are alike, and a row's answers stay together. The correction is the step-down maximum of studentized
differences (Westfall and Young 1993; Romano and Wolf 2005): the chance that any comparison without a true difference is
called one is held at the level asked for. HR and NDCG at neighbouring cut-offs, and pairs that share a method, move
together; the maximum knows that, where Holm's method would pay for each as if it stood alone.

Axes: R rows, X columns (one metric of one method each), S resamples, P comparisons.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

MAX_CHUNK = 1 << 22
"""Draws held in memory at once (8 bytes each)."""

ROUNDING = 1e-12
"""Differences and standard errors below this are rounding: the smallest true ones of metrics up to 1 are larger."""


def resampled_means(
    columns: Float[np.ndarray, "R X"], user: Shaped[np.ndarray, "R"], *, n_resamples: int = 10_000, seed: int = 0
) -> Float[np.ndarray, "X S"]:
    """Means of the columns over the rows of users drawn with replacement, the same users for all columns.

    That is one multinomial draw over users with distinct sums, of whom metrics at a cut-off have few: the same
    distribution as drawing user numbers, at a cost that hardly depends on how many there are.

    Args:
      user: whose row it is.
    """
    _, group = np.unique(user, return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, 1 + columns.shape[1]))
    np.add.at(sums, group, np.concatenate([np.ones((len(columns), 1)), columns], axis=1))
    values, counts = np.unique(sums, axis=0, return_counts=True)
    rng, n = np.random.default_rng(seed), len(sums)
    chunk, drawn = max(1, MAX_CHUNK // len(values)), []
    for start in range(0, n_resamples, chunk):
        totals = rng.multinomial(n, counts / n, size=min(chunk, n_resamples - start)) @ values
        drawn.append(totals[:, 1:] / totals[:, :1])
    return np.ascontiguousarray(np.concatenate(drawn).T)


def interval(samples: Float[np.ndarray, "S"], *, confidence: float) -> tuple[float, float]:
    """The percentile interval that holds this share of the resampled values."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def adjusted_p(
    means: Float[np.ndarray, "X"], samples: Float[np.ndarray, "X S"], pairs: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "P"]:
    """p of each comparison, corrected for all of them.

    With t the difference of a pair over its standard error, and t* the same of its resampled, centred differences, the
    p of the pair is the share of resamples in which the largest t* among the pairs with no larger t reaches t; and no
    smaller than the p of any pair with a larger t.

    Args:
      means: of the columns.
      samples: their resampled means, from `resampled_means`.
      pairs: columns to compare.
    """
    differences = np.array([abs(means[b] - means[a]) for a, b in pairs])
    spread = np.array([(samples[b] - samples[a]).std() for a, b in pairs]).clip(min=ROUNDING)
    told, p = np.where(differences < ROUNDING, 0.0, differences / spread), np.ones(len(pairs))
    largest = np.zeros(samples.shape[1])
    upwards = np.argsort(told, kind="stable")
    for place in upwards:
        a, b = pairs[place]
        noise = (samples[b] - samples[a]) - (means[b] - means[a])
        np.maximum(largest, np.abs(noise) / spread[place], out=largest)
        p[place] = (1 + (largest >= told[place]).sum()) / (1 + largest.size)
    downwards = upwards[::-1]
    p[downwards] = np.maximum.accumulate(p[downwards])
    return p
