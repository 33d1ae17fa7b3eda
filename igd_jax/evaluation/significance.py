"""Which methods differ: a bootstrap over rows that all of them answered, corrected for the number of comparisons.

Rows are resampled for all methods and metrics at once (Efron and Tibshirani 1993, ch. 13), so a row's answers stay
together. The correction is the step-down maximum of studentized differences (Westfall and Young 1993; Romano and Wolf
2005): the chance that any comparison without a true difference is called one is held at the level asked for. HR and
NDCG at neighbouring cut-offs, and pairs that share a method, move together; the maximum knows that, where Holm's method
would pay for each as if it stood alone.

Axes: R rows, X columns (one metric of one method each), S resamples, P comparisons.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

MAX_CHUNK = 1 << 22
"""Draws held in memory at once (8 bytes each)."""

ROUNDING = 1e-12
"""Differences and standard errors below this are rounding: the smallest true ones of metrics up to 1 are larger."""


def resampled_means(
    columns: Float[np.ndarray, "R X"], *, n_resamples: int = 10_000, seed: int = 0
) -> Float[np.ndarray, "X S"]:
    """Means of the columns over rows drawn with replacement, the same rows for all columns.

    That is one multinomial draw over the distinct rows, of which metrics at a cut-off have few: the same distribution
    as drawing row numbers, at a cost that hardly depends on the number of rows.
    """
    values, counts = np.unique(columns, axis=0, return_counts=True)
    rng, n = np.random.default_rng(seed), len(columns)
    chunk = max(1, MAX_CHUNK // len(values))
    means = [
        rng.multinomial(n, counts / n, size=min(chunk, n_resamples - start)) @ values / n
        for start in range(0, n_resamples, chunk)
    ]
    return np.ascontiguousarray(np.concatenate(means).T)


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
