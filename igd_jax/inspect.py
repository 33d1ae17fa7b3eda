"""Show the gain, and the training weight, of each token of a title.

python -m igd_jax.inspect --workdir=RUN --title="..."
python -m igd_jax.inspect --data=DATA --tokenizer=HF_DIR --title="..." --prompt=d3 --candidates=train --beta=0.1
python -m igd_jax.inspect --workdir=RUN --title="..." --json

With --workdir, data, tokenizer, prompt, candidates and weights are those of the run; its model is not read.
"""

import contextlib
import json
import sys
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.remote import local_folder
from igd_jax.data.prepared import load
from igd_jax.data.templates import OF_TITLES, TEMPLATES
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.candidates import choose_candidates
from igd_jax.items.index import build_index
from igd_jax.session.explaining import explanation
from igd_jax.session.requests import ItemNames
from igd_jax.session.results import Explanation

OF_THE_RUN = ("data", "tokenizer", "candidates", "prompt", "beta")
"""Flags whose values a run has."""


def inspect(
    data: Path,
    tokenizer_folder: Path,
    title: str,
    *,
    candidates: str = "catalogue",
    beta: float = 0.1,
    prompt: str = "plain",
) -> Explanation:
    """Tokens of a title with gain (nats), forced mark and IGD weight.

    Args:
      data: prepared folder.
      tokenizer_folder: folder of the tokenizer.
      title: title or item id.
      candidates: candidates, by name or file.
      beta: weight of tokens without gain.
      prompt: template, which says what stands around the title.

    Raises:
      InputError: the data or the tokenizer is unusable, the catalogue has no such title, or beta is not a weight.
    """
    if not 0 <= beta <= 1:
        raise InputError(f"--beta is {beta}; expected a weight from 0 to 1")
    prepared, tokenizer = load(data), load_tokenizer(tokenizer_folder)
    train, n_items = prepared.splits["train"], len(prepared.titles)
    counts, seen = np.bincount(train.target, minlength=n_items), prepared.seen(train)
    chosen = choose_candidates(
        candidates, prepared.item_ids, prepared.titles, counts=counts, seen=seen, option="--candidates"
    )
    rows = tokenizer.encode_titles(prepared.titles, *TEMPLATES[prompt].around)
    index = build_index(prepared.titles, rows, counts, candidates=chosen)
    item = ItemNames(index, prepared.item_ids).item(title)
    return explanation(index, tokenizer, item, weight=np.where(index.walk().forced, beta, 1.0))


def inspect_run(workdir: Workdir, title: str) -> Explanation:
    """Tokens of a title with gain (nats), forced mark and weight in the training of a run.

    Raises:
      InputError: there is no run, its method writes no titles, or the catalogue has no such title.
    """
    # JAX, which these import, takes a second, and only a run needs it.
    from igd_jax.session.session import set_up_to_decode
    from igd_jax.session.training_weights import training_weights
    from igd_jax.settings.config_flags import load_config

    session = set_up_to_decode(load_config(None, workdir), workdir)
    item = ItemNames(session.index, session.prepared.item_ids).item(title)
    return explanation(session.index, session.tokenizer, item, weight=training_weights(session))


def as_json(found: Explanation) -> dict[str, Any]:
    """What ``--json`` prints."""
    tokens = [
        {"id": one.id, "text": one.text, "gain": one.gain, "forced": one.forced}
        | {"weight": None if isnan(one.weight) else one.weight}  # JSON has no nan
        for one in found.tokens
    ]
    return {"title": found.title, "on_trie": found.is_candidate, "tokens": tokens}


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of a run, which has all but the title.")
    flags.DEFINE_string("data", None, "Folder written by igd_jax.prepare.")
    flags.DEFINE_string("tokenizer", None, "Hugging Face folder, or RUN/tokenizer.")
    flags.DEFINE_string("title", None, "The title, or the item id, to take apart.", required=True)
    flags.DEFINE_string("candidates", None, "catalogue (default), train, warm, cold, or a file of item ids.")
    flags.DEFINE_enum("prompt", None, OF_TITLES, "What stands around the title, by template; default plain.")
    flags.DEFINE_float("beta", None, "Weight of tokens without gain; default 0.1.")
    flags.DEFINE_bool("json", False, "Print JSON only.")


def main() -> None:
    """Entry point."""
    given = flags.FLAGS
    if not given.title.strip():
        raise InputError("--title is empty; give the title as it stands in the catalogue")
    own = {name: value for name in OF_THE_RUN if (value := getattr(given, name)) is not None}
    with contextlib.redirect_stdout(sys.stderr if given.json else sys.stdout):
        if given.workdir is not None:
            if own:
                raise InputError(f"--workdir and --{next(iter(own))} are given; a run has its own, so leave one out")
            found = inspect_run(Workdir(given.workdir), given.title)
        else:
            if not {"data", "tokenizer"} <= own.keys():
                raise InputError("no run is given; give --workdir=RUN, or --data=DIR with --tokenizer=HF_DIR")
            data, tokenizer = (local_folder(own.pop(name), option=f"--{name}") for name in ("data", "tokenizer"))
            found = inspect(data, tokenizer, given.title, **own)
    say(json.dumps(as_json(found), ensure_ascii=False) if given.json else repr(found))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
