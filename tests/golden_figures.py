"""Figures of the authors' code in tests/golden, and the catalogue of IGD's (docs/golden.md)."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.models.backbone import Backbone

FOLDER = Path(__file__).parent / "golden"


@cache
def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """Arrays of a file, by name."""
    return load_file(FOLDER / f"{name}.safetensors")


@cache
def golden_figures(name: str) -> Any:
    """Numbers and settings that belong to those arrays."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def ragged(name: str, rows: str) -> Ragged:
    """Rows of token ids."""
    found = golden_arrays(name)
    return Ragged(found[f"{rows}_ids"].astype(np.int32), found[f"{rows}_start"].astype(np.int64))


def index_with(off_trie: list[list[int]]) -> ItemIndex:
    """IGD's titles with their counts, all candidates, and after them titles that are none; item r is row r."""
    rows, count = ragged("igd", "title"), golden_arrays("igd")["count"]
    n_off = len(off_trie)
    return build_index(
        [f"title {number}" for number in range(len(rows) + n_off)],
        Ragged.from_lists([*(row.tolist() for row in rows), *off_trie]),
        np.append(count, np.zeros(n_off, count.dtype)),
        candidates=np.arange(len(rows) + n_off) < len(rows),
    )


@cache
def books_index() -> ItemIndex:
    """IGD's titles with their counts."""
    return index_with([])


def examples_of(prompts: Ragged, target: np.ndarray) -> Examples:
    """Prompts and their target items."""
    all_rows = np.ones(len(prompts), bool)
    return Examples(prompts, target.astype(np.int32), ~all_rows, shared_prefix(prompts, all_rows), all_rows)


def model_that_gives(logits: jax.Array) -> Backbone:
    """A model with these logits of the target tokens, which can do nothing else."""
    unable = dict.fromkeys((name for name in vars(Backbone) if not name.startswith("_")), NotImplementedError)
    return SimpleNamespace(**unable | {"target_hidden": lambda batch: logits, "logits": lambda hidden: hidden})
