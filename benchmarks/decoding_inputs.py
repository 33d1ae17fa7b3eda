"""What the decoding benchmark reads: two catalogues, and two sizes of one model."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks import common
from igd_jax.data.interactions import Interactions, to_prepared
from igd_jax.data.prepared import Prepared, save
from igd_jax.data.sources import d3

BOOKS, SCIENTIFIC = SETS = ("books", "scientific")
"""Amazon Books, titles of 14 tokens of the tiny model, and Amazon Scientific, of 39: the longest of the data here."""
SIZES: dict[str, dict[str, int]] = {
    "tiny": {},
    "30m": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 9,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
}
"""Sizes of the model, as changes of the tiny one's."""


@contextmanager
def prepared(name: str) -> Iterator[Path]:
    """One of `SETS` as a prepared folder that exists inside the block."""
    with TemporaryDirectory() as folder:
        data = d3.read(common.AMAZON_BOOKS) if name == BOOKS else scientific()
        save(data, Path(folder) / "data")
        yield Path(folder) / "data"


def scientific() -> Prepared:
    """Amazon Scientific, each user's last item for test; its files have the order of a user's items and no times."""
    folder = common.SHARED / "data" / "scientific_codes"
    items, users = (json.loads((folder / f"Scientific.{name}.json").read_text()) for name in ("item", "inter"))
    log = Interactions(
        user=np.repeat(np.arange(len(users), dtype=np.int32), [len(history) for history in users.values()]),
        item=np.array([item for history in users.values() for item in history], np.int32),
        timestamp=np.array([place for history in users.values() for place in range(len(history))]),
        user_ids=list(users),
        item_ids=[str(item) for item in range(len(items))],
        titles=[items[str(item)]["title"] for item in range(len(items))],
    )
    return to_prepared(log, split="leave_one_out")


@contextmanager
def model_of(size: str) -> Iterator[Path]:
    """The trained tiny model in one of `SIZES`, as a folder that exists inside the block.

    A larger one predicts what the tiny one does, at the cost of its size: its further columns and layers hold zeros,
    and add nothing to the residual stream. So a search over it meets what it meets over a trained model.
    """
    if not SIZES[size]:
        yield common.TINY_MODEL
        return
    small = AutoModelForCausalLM.from_pretrained(common.TINY_MODEL, dtype=torch.float32, local_files_only=True)
    given = {name: value for name, value in small.config.to_dict().items() if name != "layer_types"}
    # A norm divides by the mean over all columns, those of zeros included.
    share = small.config.hidden_size / SIZES[size]["hidden_size"]
    given |= {**SIZES[size], "rms_norm_eps": share * small.config.rms_norm_eps}
    large, known = AutoModelForCausalLM.from_config(type(small.config)(**given)).float(), small.state_dict()
    with torch.no_grad():
        for name, weight in large.state_dict().items():
            weight.zero_()
            if name in known:
                scale = math.sqrt(share) if "norm" in name else 1.0
                weight[tuple(map(slice, known[name].shape))] = scale * known[name]
    with TemporaryDirectory() as folder:
        large.save_pretrained(folder)
        for file in common.TINY_MODEL.glob("token*"):
            shutil.copy(file, folder)
        yield Path(folder)
