"""Choosing values of fields on rows of valid, which have no part in the figures of test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CHOSEN_ON = "valid"
"""The split that values are chosen on."""


@dataclass(frozen=True)
class Choice:
    """How the values of some fields of a config were chosen; part of the config.json of an evaluation.

    Attributes:
      tried: the values that were tried, by full name of the field.
      metric: metric whose mean was largest with the chosen values.
      split: split of the rows that were ranked.
      protocol, n: kind and number of queries, as in metrics.json.
    """

    tried: Mapping[str, Sequence[Any]]
    metric: str
    split: str
    protocol: str
    n: int


def read_choice(told: Any) -> Choice:
    """A choice from JSON.

    Raises:
      TypeError, ValueError: it is none.
    """
    choice = Choice(**told)
    if not isinstance(choice.tried, dict) or not all(isinstance(values, list) for values in choice.tried.values()):
        raise ValueError("chosen.tried holds no lists by field")
    if not all(isinstance(text, str) for text in (choice.metric, choice.split, choice.protocol)):
        raise ValueError("chosen has a metric, split or protocol that is not text")
    if type(choice.n) is not int:
        raise ValueError("chosen.n is not a whole number")
    return choice


def means_of_largest_ndcg(tried: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[str, list[float]]:
    """The metric that decides between alternatives, and its mean for each of them.

    Args:
      tried: for each alternative the metrics.json of its evaluations on the same rows, one per seed.

    Returns:
      The name of NDCG at the largest k that all of them have, and the means over seeds.
    """
    names = frozenset.intersection(*(frozenset(metrics) for alternative in tried for metrics in alternative))
    metric = f"ndcg@{max(int(name[len('ndcg@') :]) for name in names if name.startswith('ndcg@'))}"
    return metric, [float(np.mean([metrics[metric] for metrics in alternative])) for alternative in tried]
