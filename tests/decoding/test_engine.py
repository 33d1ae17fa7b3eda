"""Engines of one call are engines like any other."""

import jax
import jax.numpy as jnp
import numpy as np
from batches import text_batch
from flax import struct

from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.engine import OneCall, recommend


@struct.dataclass
class Echo(OneCall):
    """Recommends the last tokens of each prompt, last first, plus a number."""

    plus: jax.Array

    def prefill(self, batch: TextBatch) -> Recommendations:
        rows = jnp.where(batch.prompt_mask, batch.prompt + self.plus, -1)[:, ::-1]
        return Recommendations(rows=rows, scores=jnp.where(rows >= 0, -rows.astype(jnp.float32), -jnp.inf))


ECHO = Echo(jnp.int32(10))


def test_an_engine_of_one_call_recommends_what_its_prefill_finds():
    found = recommend(ECHO, text_batch([[1, 2], [3]]))
    assert found.rows.tolist() == [[12, 11], [13, -1]]
    assert found.scores.tolist() == [[-12, -11], [-13, -np.inf]]


def test_rows_are_inserted_in_the_place_of_others_and_those_beyond_the_last_are_left_out():
    state = ECHO.begin(ECHO.prefill(text_batch([[1, 2], [3, 4], [5, 6]])))
    assert not ECHO.is_open(state).any()
    new = ECHO.prefill(text_batch([[7, 8], [9, 9], [2, 1]]))
    state = jax.jit(lambda *args: ECHO.insert(*args))(state, new, jnp.array([2, 3, 0]))
    found = ECHO.finished(ECHO.grow(ECHO.generate(state)))
    assert found.rows.tolist() == [[11, 12], [14, 13], [18, 17]]
    assert found.scores.tolist() == [[-11, -12], [-14, -13], [-18, -17]]
    assert ECHO.has_room(state)
