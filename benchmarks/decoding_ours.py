"""Our side of the decoding benchmark, and the users that both sides recommend for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.decoding_peer import Groups, Lists, Work
from igd_jax.core.map_rows import in_groups
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.batches import by_length, prompt_room
from igd_jax.data.examples import Examples
from igd_jax.decoding.queue import Reader, recommend_all
from igd_jax.models.decoder import Decoder
from igd_jax.models.visibility import Visibility, mask_of
from igd_jax.session.batch import make_batch
from igd_jax.session.ranker import decode_options
from igd_jax.session.session import Session


class Ours:
    """The method's own engine, compiled once per batch shape.

    Args:
      session: run without its weights.
      decode: changes of `DecodeOptions`, such as ``search`` and ``budget``.

    Attributes:
      session: run without its weights.
      index: items, with the candidates of decoding.
      model: untrained backbone, of a folder or with random weights.
      engine: engine of the method.
    """

    def __init__(self, session: Session, **decode: Any):
        context = session.context(session.decode_index)
        self.session, self.index, self.model = session, context.index, session.method.make_model(context)
        options = replace(decode_options(session.settings.decode, self.index), **decode)
        self.engine, self._read = session.method.engine(context, self.model, options), Reader()

    def __call__(self, examples: Examples, groups: Groups) -> Lists:
        batches = ((len(group), self.batch(examples, group)) for group in groups)
        lists: Lists = [[]] * sum(map(len, groups))
        size = self.session.settings.decode.batch_size
        for places, found in recommend_all(self.engine, batches, width=prompt_room(examples), read=self._read):
            batch, row = np.divmod(places, size)
            starts = np.cumsum([0, *(len(group) for group in groups)])[batch]
            for at, *user in zip((starts + row).tolist(), found.rows.tolist(), found.scores.tolist(), strict=True):
                lists[at] = [(self.title(title), score) for title, score in zip(*user, strict=True)]
        return lists

    def batch(self, examples: Examples, group: np.ndarray) -> TextBatch | ItemBatch:
        """Batch of some users in the form that the method reads."""
        return make_batch(self.session, examples, group, size=self.session.settings.decode.batch_size)

    def title(self, row: int) -> tuple[int, ...]:
        """Tokens of a catalogue row; none for row -1."""
        return tuple(self.index.catalog.tokens[row].tolist()) if row >= 0 else ()


@contextmanager
def counting_ours() -> Iterator[Work]:
    """Count the model calls inside the block; all programs are retraced inside it and after it."""
    work, plain = Work(), Decoder.__call__

    def counted(model: Decoder, inputs: jax.Array, *, visible: Visibility, **others: Any) -> Any:
        real = jnp.diagonal(mask_of(visible), axis1=1, axis2=2).sum()  # padding does not see itself
        jax.debug.callback(partial(work.add, inputs.shape[0] * inputs.shape[1]), real)
        return plain(model, inputs, visible=visible, **others)

    jax.clear_caches()
    with mock.patch.object(Decoder, "__call__", counted):
        yield work
        jax.effects_barrier()
    jax.clear_caches()


def choose_users(session: Session, n_users: int) -> tuple[Examples, Groups]:
    """Random rows of the test split, and their batches for both sides."""
    examples = session.examples(session.rows("test").take(chosen_rows(session, n_users)))
    return examples, list(in_groups(by_length(examples, np.arange(len(examples))), session.settings.decode.batch_size))


def chosen_rows(session: Session, n_users: int) -> np.ndarray:
    """Row numbers of the users of `choose_users`, ascending."""
    n_rows = len(session.rows("test"))
    return np.sort(np.random.default_rng(0).choice(n_rows, min(n_users, n_rows), replace=False))
