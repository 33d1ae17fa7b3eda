"""What a run prints of its data before it trains: targets off the trie, and an example; and of its model meanwhile."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from flax import nnx

from igd_jax.core.log import heartbeat, say
from igd_jax.core.sharding import fetch, row_shards
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.examples import Examples
from igd_jax.data.prepared import Rows
from igd_jax.decoding.engine import recommend
from igd_jax.decoding.search import JUMP, STEPWISE
from igd_jax.evaluation.examples import example_line
from igd_jax.session.batch import make_batch
from igd_jax.session.histories import Histories
from igd_jax.session.limits import decode_options
from igd_jax.session.ranker import engine_of
from igd_jax.session.session import Session
from igd_jax.session.weights import ModelOf
from igd_jax.training.mesh import local_rows, put_batch
from igd_jax.training.step import Params


def report_targets(session: Session, examples: Mapping[str, Examples]) -> None:
    """Print how many targets of each split are not candidates, and so off the trie."""
    catalog, is_candidate = session.index.catalog, session.index.is_candidate
    for split, rows in examples.items():
        if off := int((~is_candidate[catalog.row_of_item[rows.target]]).sum()):
            say(f"{off:,} of {len(rows):,} {split} targets are off the trie (no candidate)")


def print_example(session: Session, examples: Examples, weight: np.ndarray) -> None:
    """Print the first training example: the prompt, and each target token with its weight."""
    assert examples.target is not None
    rows, item = session.index.item_tokens, int(examples.target[0])
    say(f"example prompt: {session.tokenizer.shown(examples.prompt[0].tolist())!r}")
    weights = weight[rows.start[item] : rows.start[item + 1]]
    texts = [session.tokenizer.shown([token]) for token in rows[item].tolist()]
    pieces = [f"{text!r}:{value:g}" for text, value in zip(texts, weights, strict=True)]
    say(f"example target (token:weight): {' '.join(pieces)}")


class Sample:
    """One row of valid, the first that is watched, and what a model in training would recommend to its user.

    Lists are those of the run's settings, among the candidates of training. Where they need more than a search, scores
    of a collaborative source or embeddings of all titles, there are none.

    Args:
      session: the run.
      rows: watched rows of valid.
      model_of: function from trained parameters to the model.

    Attributes:
      is_new: whether none was shown yet, and one will be, by a search that is not compiled.
    """

    def __init__(self, session: Session, rows: Rows, model_of: ModelOf):
        method, is_wanted = session.method, session.settings.train.show_sample
        searches = method.beam_search or method.inputs == "items"
        self.is_new = self._is_shown = is_wanted and searches and not method.needs_collaborative
        self._session, self._row = session, rows.take(np.arange(1))
        self._model_of = model_of

    def show(self, step: int, params: Params) -> None:
        """Print history, target and recommendations in one line; of several processes, all have to call it."""
        if not self._is_shown:
            return
        doing = "compiling" if self.is_new else "searching"
        if self.is_new:
            say("compiling the search of a sample recommendation")
            self.is_new = False
        with heartbeat(doing):
            found = self._ranked(self._model_of(params))
        index, row = self._session.index, self._row
        ranked = found[found >= 0].tolist()
        history, target = row.history[0].tolist(), int(row.target[0])
        wanted = int(index.catalog.row_of_item[target])
        told = example_line(
            [index.titles[item] for item in history],
            [index.titles[target]],
            ranked.index(wanted) if wanted in ranked else -1,
            [index.title_of_row(each) for each in ranked],
        )
        say(f"sample of step {step}: {told}")

    def _ranked(self, model: nnx.Module) -> np.ndarray:
        """Catalogue rows of the list, best first; -1 where there is no item."""
        session = self._session
        options = decode_options(session.settings.decode, session.index)
        if options.search == JUMP:  # the same lists come from a program that is compiled in half the time
            options = replace(options, search=STEPWISE)
        engine = engine_of(session, session.index, model, options)
        return fetch(recommend(engine, self._batch())).rows[0]

    def _batch(self) -> TextBatch | ItemBatch:
        session, size = self._session, row_shards(self._session.mesh)
        own = local_rows(size, session.mesh)
        examples = Histories(session, session.index).of_items(self._row.history)
        batch = make_batch(session, examples, np.arange(1), size=size, own=own)
        return put_batch(batch, session.mesh, size=size)
