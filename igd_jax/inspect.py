"""Show the gain, and the training weight, of each token of a title.

python -m igd_jax.inspect --data=DATA --tokenizer=RUN/tokenizer --title="..."
python -m igd_jax.inspect --data=DATA --tokenizer=HF_DIR --title="..." --prompt=d3 --candidates=train --beta=0.1
python -m igd_jax.inspect --data=DATA --tokenizer=HF_DIR --title="..." --json
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.remote import local_folder
from igd_jax.data.prepared import load
from igd_jax.data.templates import TEMPLATES
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluation.tables import markdown_table
from igd_jax.items.candidates import choose_candidates
from igd_jax.items.index import build_index, walk_rows


def inspect(
    data: Path, tokenizer_folder: Path, title: str, *, candidates: str, beta: float, prompt: str = "plain"
) -> dict[str, Any]:
    """Tokens of a title with gain (nats), forced mark and IGD weight.

    Args:
      data: prepared folder.
      tokenizer_folder: folder of the tokenizer.
      title: the title.
      candidates: candidates, by name or file.
      beta: weight of tokens without gain.
      prompt: template, which says what stands around the title.

    Raises:
      InputError: the data or the tokenizer is unusable, the title is empty, or beta is not a weight.
    """
    if not title.strip():
        raise InputError("--title is empty; give the title as it stands in the catalogue")
    if not 0 <= beta <= 1:
        raise InputError(f"--beta is {beta}; expected a weight from 0 to 1")
    prepared, tokenizer = load(data), load_tokenizer(tokenizer_folder)
    train, n_items = prepared.splits["train"], len(prepared.titles)
    counts, seen = np.bincount(train.target, minlength=n_items), train.seen(n_items)
    chosen = choose_candidates(
        candidates, prepared.item_ids, prepared.titles, counts=counts, seen=seen, option="--candidates"
    )
    around = TEMPLATES[prompt].around
    index = build_index(prepared.titles, tokenizer.encode_titles(prepared.titles, *around), counts, candidates=chosen)
    rows = tokenizer.encode_titles([title], *around)
    walk = walk_rows(index.trie, index.gain, rows)
    tokens = [
        {
            "id": int(token),
            "text": tokenizer.backend.decode([int(token)], skip_special_tokens=False),
            "gain": float(gain),
            "forced": bool(forced),
            "weight": beta if forced else 1.0,
        }
        for token, gain, forced in zip(rows.ids, walk.gain, walk.forced, strict=True)
    ]
    return {"title": title, "on_trie": bool(walk.on_trie[0]), "tokens": tokens}


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("data", None, "Folder written by igd_jax.prepare.", required=True)
    flags.DEFINE_string("tokenizer", None, "Hugging Face folder, or RUN/tokenizer.", required=True)
    flags.DEFINE_string("title", None, "The title to take apart.", required=True)
    flags.DEFINE_string("candidates", "catalogue", "catalogue, train, warm, cold, or a file with one item id per line.")
    flags.DEFINE_enum("prompt", "plain", sorted(TEMPLATES), "Template, which says what stands around the title.")
    flags.DEFINE_float("beta", 0.1, "Weight of tokens without gain.")
    flags.DEFINE_bool("json", False, "Print JSON only.")


def main() -> None:
    """Entry point."""
    given = flags.FLAGS
    data, tokenizer = (local_folder(getattr(given, name), option=f"--{name}") for name in ("data", "tokenizer"))
    found = inspect(data, tokenizer, given.title, candidates=given.candidates, beta=given.beta, prompt=given.prompt)
    if given.json:
        say(json.dumps(found, ensure_ascii=False))
        return
    if not found["on_trie"]:
        say(f"{given.title!r} is no candidate ({given.candidates}): off the trie every token has the weight beta")
    rows = []
    for token in found["tokens"]:
        forced = "forced" if token["forced"] else ""
        rows.append([repr(token["text"]), str(token["id"]), f"{token['gain']:.6f}", forced, f"{token['weight']:g}"])
    say(markdown_table(["token", "id", "gain (nats)", "forced", "weight"], rows))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
