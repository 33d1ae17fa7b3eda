"""Recommend the next items with a trained run: after one history, or for a file of requests.

    python -m igd_jax.recommend --workdir=RUN --history="Title A" --history="Title B" --k=10 [--exclude_history]
    python -m igd_jax.recommend --workdir=RUN --history="Title A" --score="Title C" --score=sku4 --json
    python -m igd_jax.recommend --workdir=RUN --input=REQUESTS.jsonl --output=FILE.jsonl

A line of REQUESTS.jsonl is ``{"history": ["Title A", "sku2"]}``, with titles or item ids, oldest first; optional fields
are ``id``, ``candidates`` (the only items that may be recommended), ``exclude_history``, and ``score`` (items whose
scores are the answer). Items of the history may be recommended again, unless ``exclude_history``, or else
config.decode.exclude_history, is true. Each answer is a line of FILE.jsonl, in the same order: ``{"line": 1, "id": ...,
"ranked": [...]}``, or ``"scored": [...]``. The same command, started again, resumes.
"""

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.evaluation.predictions import as_json
from igd_jax.session.answers import answer_file
from igd_jax.session.results import Answer
from igd_jax.settings.config_flags import define_config_flag, define_decode_as_flag, load_config
from igd_jax.settings.settings import for_lists_alone

if TYPE_CHECKING:
    import igd_jax.session.recommender


def make_recommender(config: ConfigDict, workdir: Workdir) -> "igd_jax.session.recommender.Recommender":
    """Make the recommender of a run; the config may differ from that of the run in how it is decoded."""
    # JAX, which these import, takes seconds, and options are checked before.
    from igd_jax.session.recommender import Recommender
    from igd_jax.session.session import set_up_to_decode

    return Recommender(set_up_to_decode(for_lists_alone(config), workdir), workdir)


def recommend(config: ConfigDict, workdir: Workdir, history: list[str], *, k: int | None, **fields: Any) -> Answer:
    """Recommend the best k items after a history.

    Args:
      config: the config.
      workdir: folder of the run.
      history: titles or item ids, oldest first.
      k: number of items; None = `config.decode.top_k`.
      fields: further fields of the request.

    Raises:
      InputError: there is no model or no history, the request has no answer, or k exceeds `config.decode.top_k`.
    """
    if not history:
        raise InputError("no --history is given; name at least one title or item id, oldest first")
    return make_recommender(config, workdir).recommend({"history": history, **fields}, k=k)


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_multi_string("history", [], "A past title or item id; repeat, oldest first.")
    flags.DEFINE_multi_string("candidate", None, "A title or item id that may be recommended; repeat; default all.")
    flags.DEFINE_bool("exclude_history", None, "Recommend no item of the history; default as the config.")
    flags.DEFINE_multi_string("score", None, "A title or item id whose score is wanted instead of a list; repeat.")
    flags.DEFINE_string("input", None, "File of requests, one JSON object per line.")
    flags.DEFINE_string("output", None, "File of answers to write, or to go on with.")
    flags.DEFINE_integer("k", None, "Length of the lists; default config.decode.top_k.")
    flags.DEFINE_bool("json", False, "Print JSON only.")
    define_decode_as_flag()
    define_config_flag()


def main() -> None:
    """Entry point."""
    given, workdir = flags.FLAGS, Workdir(flags.FLAGS.workdir)
    if (given.input is None) != (given.output is None) or (given.input is not None and given.history):
        raise InputError("give --history, or --input=REQUESTS.jsonl with --output=FILE.jsonl, and not both")
    if given.input is not None and (given.candidate or given.exclude_history is not None or given.score or given.json):
        raise InputError(
            "--candidate, --exclude_history, --score and --json are of --history; a file of requests has fields, and "
            "its answers are JSON"
        )
    if given.score and given.k is not None:
        raise InputError("--k is the length of a list, and --score asks for the scores of given titles; leave one out")
    config = load_config(given.config, workdir)
    if given.input is not None:
        answer_file(lambda: make_recommender(config, workdir), given.input, given.output, k=given.k)
        return
    with contextlib.redirect_stdout(sys.stderr if given.json else sys.stdout):
        fields = {"candidates": given.candidate, "exclude_history": given.exclude_history, "score": given.score}
        answer = recommend(config, workdir, given.history, k=given.k, **fields)
        if given.json:
            for note in answer.notes:
                say(f"note: {note}")
    say(as_json(answer.results) if given.json else repr(answer))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
