"""Recommend the next items after a history of titles, by a trained run.

python -m igd_jax.recommend --workdir=RUN --history="Title A" --history="Title B" [--k=10] [--json]
"""

import contextlib
import json
import sys
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples, item_examples, make_examples
from igd_jax.evaluation.tables import markdown_table
from igd_jax.session.config_flags import define_config_flag, define_decode_as_flag, load_config
from igd_jax.session.recommender import collaborative_source, describe_results, rank
from igd_jax.session.session import Run, set_up, trained_model


def recommend(config: ConfigDict, workdir: Workdir, history: list[str], *, k: int) -> list[dict[str, Any]]:
    """The best k titles after `history` (oldest first), as in predictions.jsonl.

    Raises:
      InputError: no model, no history, or k beyond the number of beams.
    """
    if not 1 <= k <= config.decode.num_beams:
        raise InputError(
            f"--k is {k}, but the search has {config.decode.num_beams} beams; give 1 to {config.decode.num_beams}, or "
            "raise --config.decode.num_beams"
        )
    if not history:
        raise InputError("no --history is given; name at least one title, oldest first")
    config.decode.batch_size = config.mesh.data = 1
    run = set_up(config, workdir)
    source = collaborative_source(run, split=None, n_rows=1)
    rows, scores, nodes = rank(run, trained_model(run, workdir), _example(run, history), source)
    return describe_results(run, rows[0], scores[0], nodes[0])[:k]


def _example(run: Run, history: list[str]) -> Examples:
    """One row for a history of titles; notes what of it the model cannot take as it is."""
    item_of = {title: item for item, title in reversed(list(enumerate(run.index.titles)))}
    unknown = [title for title in history if title not in item_of]
    target = np.zeros(1, np.int32)  # no one knows it; only its length is looked at
    if run.method.inputs == "items":
        known = [item_of[title] for title in history if title in item_of]
        for title in unknown:
            say(f"note: {title!r} is no title of the catalogue, so the model cannot read it; it is left out")
        if not known:
            raise InputError("no --history is a title of the catalogue, and this model reads nothing else")
        return item_examples(Ragged.from_lists([known]), target)
    for title in unknown:
        say(f"note: {title!r} is no title of the catalogue; the model reads it as plain text")
    limit = run.config.data.max_length
    examples = make_examples(run.context.prompts([history]), target, run.index, max_length=limit)
    if examples.n_cut:
        say(f"note: the history is cut to its newest part: with a title over {limit} tokens")
    return examples


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_multi_string("history", [], "A past title; repeat, oldest first.")
    flags.DEFINE_integer("k", 10, "Recommendations to print.")
    flags.DEFINE_bool("json", False, "Print JSON only.")
    define_decode_as_flag()
    define_config_flag()


def main() -> None:
    """Entry point."""
    workdir = Workdir(flags.FLAGS.workdir)
    config = load_config(flags.FLAGS.config, workdir)
    with contextlib.redirect_stdout(sys.stderr if flags.FLAGS.json else sys.stdout):
        found = recommend(config, workdir, flags.FLAGS.history, k=flags.FLAGS.k)
    if flags.FLAGS.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    rows = [[str(i + 1), f"{one['score']:.3f}", " ".join(one["items"]), one["title"]] for i, one in enumerate(found)]
    print(markdown_table(["rank", "score", "items", "title"], rows))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
