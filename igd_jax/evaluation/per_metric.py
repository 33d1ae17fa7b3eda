"""A value of its own for each metric and cut-off, chosen on valid and reported on another split (BIGRec)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from igd_jax.evaluation.choice import CHOSEN_ON
from igd_jax.evaluation.tables import markdown_table

_WITH_CUT_OFF = re.compile(r"(hr|recall|ndcg)@\d+")


def best_by_metric(tried: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The alternative with the largest figure of each metric with a cut-off, the first one in case of ties.

    Args:
      tried: for each alternative the content of its metrics.json, on the same rows.
    """
    names = [name for name in tried[0] if _WITH_CUT_OFF.fullmatch(name) and all(name in metrics for metrics in tried)]
    return {name: int(np.argmax([metrics[name] for metrics in tried])) for name in names}


def figures_of(
    values: Sequence[Any], tried: Sequence[Mapping[str, Any]], ranked: Mapping[int, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """For each metric the ``value`` that is best on valid, the figure there (``chosen_on``) and the ``figure``.

    Args:
      values: the alternatives.
      tried: metrics of each on valid.
      ranked: metrics of the best ones on the split to be reported, by their place in `values`.
    """
    return {
        name: {"value": values[best], "chosen_on": tried[best][name], "figure": ranked[best][name]}
        for name, best in best_by_metric(tried).items()
    }


def table_of(figures: Mapping[str, Mapping[str, Any]], *, field: str, split: str) -> str:
    """The figures as a Markdown table, with one line per metric."""
    rows = [
        [name, str(each["value"]), f"{each['chosen_on']:.4f}", f"{each['figure']:.4f}"]
        for name, each in figures.items()
    ]
    return markdown_table(["metric", field, f"{CHOSEN_ON}, chosen on", split], rows)
