"""What the config.json of an evaluation tells of it: method, seed, split, candidates, and how lists were decoded."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from igd_jax.core.allowed import OF_TRAIN_ROWS
from igd_jax.evaluation.choice import Choice, read_choice

DECODING = (
    *("alpha", "length_penalty", "temperature", "normalize"),
    *("search", "num_beams", "max_new_tokens", "collaborative"),
)
"""Fields of `decode` on which lists depend, beside their candidates and their length."""


WHERE_IT_RUNS = ("mesh", "model.remat", "model.attention", "data.dir")
"""Sections and fields that may differ from machine to machine; the content of `data.dir` is compared by fingerprint."""
NO_RESULT = (
    *WHERE_IT_RUNS,
    *("decode.batch_size", "decode.budget"),
    *("train.log_every_steps", "train.checkpoint_every_steps", "train.show_sample", "train.wandb"),
)
"""Sections and fields on which no result depends, but for the order of sums, beside `how_rows_lie`."""


@dataclass(frozen=True)
class Origin:
    """What the config.json of an evaluation tells; the evaluation may have none.

    Attributes:
      method: text that is equal for evaluations of one method with different seeds.
      seed: `train.seed`; None = not told.
      split: split of the rows; None = not told.
      restricted: what further restricts its candidates, in words; empty = nothing.
      choice: how values were chosen on validation, if some were.
      chosen: these values, by full name of the field.
      decoding: values of the fields of `DECODING` that it tells; None = chosen on validation, * = follows the seed.
    """

    method: str
    seed: int | None = None
    split: str | None = None
    restricted: str = ""
    choice: Choice | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)


def how_rows_lie(config: Mapping[str, Any]) -> list[str]:
    """Fields of `train` that change no loss of a run with this config.

    Micro-batches do not where the loss is divided once for all of a step, but for items that are drawn for each, and
    for positions that count the padding of each.
    """
    is_global = config.get("loss", {}).get("normalizer") == "global"
    args = config.get("method", {}).get("args", {})
    is_whole = is_global and not args.get("sampled_items") and args.get("positions") != "published"
    return ["packing", "pack_length"] + ["micro_batch_size"] * is_whole


def read_origin(config: Any, *, of_run: Collection[str] = ()) -> Origin:
    """What the content of a config.json tells.

    Seeds of one method differ in `train.seed`, in paths such as seed=1, seed1, seed-1 or seed_1, in values that were
    chosen on validation, and in `NO_RESULT`; how values were chosen is part of the method.

    Args:
      config: the content.
      of_run: full names of fields that were chosen when the run was, before this evaluation.

    Raises:
      AttributeError, KeyError, OverflowError, TypeError, ValueError: it is not a config of an evaluation.
    """
    choice = read_choice(config["chosen"]) if "chosen" in config else None
    blank, chosen = json.loads(json.dumps(config)), {}
    tried = choice.tried if choice else {}
    for name in dict.fromkeys(["train.seed", *tried, *of_run]):
        *sections, last = name.split(".")
        section = reduce(dict.__getitem__, sections, blank)
        chosen[name], section[last] = section[last], None
    for name in (*(f"train.{name}" for name in how_rows_lie(config)), *NO_RESULT):  # a sweep may have chosen them, too
        section, _, last = name.rpartition(".")
        (blank.get(section, {}) if section else blank).pop(last, None)
    seed = chosen["train.seed"]
    text = json.dumps(blank, sort_keys=True)
    method = re.sub(rf"(seed[=_-]?){re.escape(str(seed))}(?!\d)", r"\1*", text)
    decode, split = config.get("decode", {}), str(config["eval"]["split"])
    data = config.get("data", {})
    few = data.get("max_examples") if (decode.get("candidates") or data.get("candidates")) in OF_TRAIN_ROWS else 0
    restricted = f" of {few:,} train rows" if few else ""
    restricted += f" and, for each row, {decode['allowed']}" if decode.get("allowed") else ""
    restricted += " without the history" * bool(decode.get("exclude_history"))
    decoded = json.loads(method).get("decode", {})
    decoding = {name: decoded[name] for name in DECODING if name in decoded}
    return Origin(method, int(seed), split, restricted, choice, {name: chosen[name] for name in tried}, decoding)
