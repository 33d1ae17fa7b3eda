"""Figures about data and trie: the table of data, the histogram of gain, the losses of training."""

from pathlib import Path

import numpy as np

from igd_jax.core.metrics_log import LOSSES_BY_GAIN, read_metrics, unit_of_losses
from igd_jax.data.prepared import SPLITS
from igd_jax.evaluation.figures import Figure
from igd_jax.evaluation.groups import Columns, gain_groups
from igd_jax.evaluation.predictions import is_finite
from igd_jax.items.index import TokenWalk
from igd_jax.session.session import Session

WINDOWS = 100
"""Most points of a curve over training."""


def data_figure(session: Session, walk: TokenWalk) -> Figure:
    """Rows, users and target tokens of each split, beside all items, and the share of those tokens without gain."""
    index, columns = session.index, Columns()
    lengths, n_items = index.item_tokens.lengths, len(index.titles)
    on_trie = index.is_candidate[index.catalog.row_of_item]
    for split in SPLITS:
        rows = session.rows(split)
        counts = np.bincount(rows.target, minlength=n_items)
        tokens = int((counts * lengths).sum())
        without = int(np.repeat(counts, lengths)[walk.forced].sum())
        values = {
            "split": split,
            "rows": len(rows),
            "users": len(set(rows.user.tolist())),
            "items": n_items,
            "tokens": tokens,
            "without_gain": without,
            "share_without_gain": without / max(tokens, 1),
            "rows_off_trie": int(counts[~on_trie].sum()),
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return Figure("data", "Target tokens", columns)


def data_facts(session: Session) -> dict[str, int | float]:
    """Sizes of catalogue and trie, and the entropy of the train targets in nats."""
    index = session.index
    return {
        "items": len(index.titles),
        "titles": len(index.catalog),
        "candidates": int(index.is_candidate.sum()),
        "tokens_per_title": float(index.catalog.lengths[index.is_candidate].mean()),
        "trie_nodes": len(index.trie.token) - 1,
        "trie_branches": len(index.trie.branch),
        "root_entropy": index.gain.root_entropy,
    }


def gain_figure(session: Session, walk: TokenWalk) -> Figure:
    """Tokens by gain: those of the catalogue's titles, and those of the train targets."""
    names, group = gain_groups(walk.gain, walk.forced)
    bought = np.repeat(session.index.counts, session.index.item_tokens.lengths)
    columns: Columns = {"gain": names}
    for name, weight in {"titles": np.ones(len(group)), "targets": bought}.items():
        tokens = np.bincount(group, weights=weight, minlength=len(names))
        columns[name] = tokens.astype(np.int64).tolist()
        columns[f"share_of_{name}"] = (tokens / max(tokens.sum(), 1)).tolist()
    return Figure("gain", "Tokens by gain (nats)", columns, ("share_of_titles", "share_of_targets"), "share")


def training_figure(metrics: Path) -> Figure | None:
    """Every loss of a metrics.jsonl over the steps, in at most `WINDOWS` means; None if there is none."""
    lines = [
        {"step": line["step"]} | {name: value for name, value in line.items() if "loss" in name and is_finite(value)}
        for line in read_metrics(metrics)
        if is_finite(line["step"])
    ]
    names = list(dict.fromkeys(name for line in lines for name in line if name != "step"))
    if not names:
        return None
    steps = np.array([line["step"] for line in lines])
    window = np.minimum((steps - steps.min()) * WINDOWS // max(int(np.ptp(steps)), 1), WINDOWS - 1)
    columns: Columns = {"step": []} | {name: [] for name in names}
    for each in np.unique(window):
        here = [line for line, place in zip(lines, window, strict=True) if place == each]
        columns["step"].append(max(line["step"] for line in here))
        for name in names:
            values = [line[name] for line in here if name in line]
            columns[name].append(float(np.mean(values)) if values else None)
    by_gain = tuple(name for name in names if name.endswith(LOSSES_BY_GAIN))
    unit = unit_of_losses(names)
    return Figure("training", "Losses during training", columns, by_gain or tuple(names), unit)
