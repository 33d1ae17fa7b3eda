"""The search out of a cache is that of full passes; it loops, grows and takes in new rows without a trace of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch, with_targets
from flax import nnx, struct
from plain_trie import EOS, lists_of, plain_trie, random_rows
from searches import assert_same_lists, engine_of, index_of, lists
from tiny_models import VOCAB, random_model

from igd_jax.core.types import TextBatch
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.engine import recommend
from igd_jax.decoding.recurrence import root
from igd_jax.decoding.slots import empty_store, read_beams
from igd_jax.decoding.stepwise import ROOMS
from igd_jax.items.index import ItemIndex
from igd_jax.models.backbone import Backbone

K, LENGTH = 3, 5
PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11]]


@pytest.fixture(scope="module", params=["decoder", pytest.param("T5 1.0", marks=pytest.mark.slow)])
def model(request) -> Backbone:
    return random_model(request.param)


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return index_of(random_rows(np.random.default_rng(2), 12, vocab=VOCAB, longest=LENGTH))


@nnx.jit
def _all_logp(model: Backbone, batch: TextBatch) -> jax.Array:
    return jax.nn.log_softmax(model.logits(model.target_hidden(batch)), axis=-1)


def plain_logp(model: Backbone, prompts: list[list[int]], written: list[list[int]]) -> np.ndarray:
    """[n V]: log-probabilities of the token after each text, in one pass over everything."""
    batch = with_targets(text_batch(prompts, width=8), [[*text, 0] for text in written], width=LENGTH)
    last = [len(text) for text in written]
    return np.asarray(_all_logp(model, batch))[np.arange(len(prompts)), last]


@pytest.mark.parametrize("width", [5, 9])
def test_beams_predict_as_after_a_full_pass_whatever_their_parents_and_padding(model, width):
    rng = np.random.default_rng(1)
    prefix = nnx.jit(lambda model, batch: model.prefill(batch))(model, text_batch(PROMPTS, width=width))
    store = empty_store(prefix, num_beams=K, room=LENGTH - 1)
    hypotheses = jax.tree.map(lambda x: jnp.tile(x, (1, K)) if x.ndim == 2 else x, root(jnp.ones(3, bool), num_beams=1))
    graph, weights = nnx.split(model)
    read = jax.jit(lambda weights, *given: read_beams(nnx.merge(graph, weights), *given))
    written: list[list[list[int]]] = [[[]] * K for _ in PROMPTS]
    for clock in range(1, LENGTH):
        # Some parents have several heirs and some none, as in a search; at first there is one parent only.
        parent = rng.integers(0, K if clock > 1 else 1, (len(PROMPTS), K))
        token = rng.integers(0, VOCAB, (len(PROMPTS), K))
        written = [[rows[parent[b, k]] + [int(token[b, k])] for k in range(K)] for b, rows in enumerate(written)]
        hypotheses = hypotheses.replace(
            parent=jnp.asarray(parent, jnp.int32),
            token=jnp.asarray(token, jnp.int32),
            clock=jnp.full(len(PROMPTS), clock, jnp.int32),
        )
        store, hidden = read(weights, store, hypotheses)
        logits = model.logits(hidden)
        assert logits.dtype == jnp.float32
        texts = [text for rows in written for text in rows]
        expected = plain_logp(model, [prompt for prompt in PROMPTS for _ in range(K)], texts)
        np.testing.assert_allclose(
            jax.nn.log_softmax(logits), expected.reshape(len(PROMPTS), K, VOCAB), rtol=1e-5, atol=1e-4
        )


def test_the_whole_search_finds_the_titles_that_full_passes_would_rank_best(model, index):
    k = len(index.catalog)  # a beam for each title: the search ranks them all
    found = lists(engine_of(model, index, k=k, length_penalty=1.0), text_batch(PROMPTS, width=6))
    nodes = plain_trie(lists_of(index.catalog.tokens))[1:]
    leaves = [node for node in nodes if not node.children]
    above = [[node.token for node in one.path()[:-1]] for one in nodes]
    for b, prompt in enumerate(PROMPTS):
        logp = plain_logp(model, [prompt] * len(nodes), above)[np.arange(len(nodes)), [node.token for node in nodes]]
        final = np.array([np.mean([logp[node.number - 1] for node in leaf.path()]) for leaf in leaves])
        order = np.argsort(-final)
        assert found.rows[b].tolist() == order.tolist()
        np.testing.assert_allclose(found.scores[b], final[order], rtol=1e-5, atol=1e-4)


def test_the_compiled_loop_equals_a_python_loop_over_calls_and_filling_rows_find_nothing(model, index):
    engine, batch = engine_of(model, index, k=K), text_batch([*PROMPTS, []], width=6)
    state = jax.jit(lambda engine, batch: engine.begin(engine.prefill(batch), width=0))(engine, batch)
    generate = jax.jit(lambda engine, state: engine.generate(state))
    n_calls = 0
    while engine.is_open(state).any():
        state, n_calls = generate(engine, state), n_calls + 1
    found = lists(engine, batch)
    assert 2 <= n_calls <= index.longest - 1
    assert_same_lists(found, engine.finished(state))
    assert (found.rows[:3] >= 0).all()
    assert (found.rows[3] == -1).all()
    assert np.isneginf(found.scores[3]).all()


def test_a_list_may_be_shorter_than_the_beam_is_wide(model, index):
    engine = engine_of(model, index, k=4)
    whole, short = (lists(e, text_batch(PROMPTS)) for e in (engine, engine.replace(top_k=2)))
    np.testing.assert_array_equal(short.rows, whole.rows[:, :2])
    np.testing.assert_array_equal(short.scores, whole.scores[:, :2])


def test_prompts_of_any_width_are_searched_in_a_store_of_one(model, index):
    engine = engine_of(model, index, k=K)
    for prompts in (PROMPTS[:1], PROMPTS[1:2]):
        batch = text_batch(prompts)
        assert_same_lists(jax.tree.map(np.asarray, recommend(engine, batch, width=8)), lists(engine, batch))


# --------------------------------------------------------------------------------------------------------------- rooms
@pytest.mark.slow
def test_growing_room_after_room_equals_the_full_room():
    rng = np.random.default_rng(3)
    chains = [[*rng.integers(1, VOCAB, n - 1).tolist(), EOS] for n in (*ROOMS, ROOMS[0] + 2, 2, ROOMS[1] + 6, 9)]
    engine = engine_of(random_model("decoder"), index_of([*chains, [*chains[4][:-1], 1, EOS]]), k=7)
    batch = text_batch(PROMPTS[:2])
    rooms = []

    @jax.jit
    def go_on(engine, state):
        return jax.lax.while_loop(
            lambda state: engine.is_open(state).any() & engine.has_room(state), engine.generate, state
        )

    state = jax.jit(lambda engine, batch: engine.begin(engine.prefill(batch), width=0))(engine, batch)
    full = engine.grow(engine.grow(state))
    while True:
        rooms.append(state.store.room)
        state = go_on(engine, state)
        if not engine.is_open(state).any():
            break
        state = engine.grow(state)
    assert rooms == [*ROOMS, ROOMS[1] + 6]  # the longest title has one token more, which is never fed back
    assert full.store.room == rooms[-1]
    assert_same_lists(engine.finished(go_on(engine, full)), engine.finished(state))
    assert_same_lists(lists(engine, batch), engine.finished(state))


# -------------------------------------------------------------------------------------------------------- many arrivals
def test_rows_put_in_the_place_of_finished_ones_find_what_they_find_alone(model):
    """Slots are taken in a circle, more than once around, and what a row may recommend comes with it."""
    rng = np.random.default_rng(4)
    index = index_of(random_rows(rng, 40, vocab=VOCAB, longest=7))
    engine = engine_of(model, index, k=4, length_penalty=0.5)
    n_arrivals, n_places, width = 11, 3, 6
    prompts = [rng.integers(1, VOCAB, n).tolist() for n in rng.integers(1, width + 1, n_arrivals)]
    allowed = rng.random((n_arrivals, len(index.catalog))) < 0.6

    def batch_of(arrivals: list[int], width: int) -> TextBatch:
        filled = [prompts[a] for a in arrivals] + [[]] * (2 - len(arrivals))
        return text_batch(filled, width=width).replace(allowed=jnp.asarray(allowed[[*arrivals, 0][:2]]))

    alone = lists(engine, text_batch(prompts, width=width).replace(allowed=jnp.asarray(allowed)))
    prefill = jax.jit(lambda engine, batch: engine.prefill(batch))
    insert = jax.jit(lambda engine, *given: engine.insert(*given))
    generate = jax.jit(lambda engine, state: engine.generate(state))
    nobody = text_batch([[]] * n_places, width=1).replace(allowed=jnp.zeros((n_places, len(index.catalog)), bool))
    state = engine.begin(prefill(engine, nobody), width=width)
    assert state.store.room == index.longest - 1  # the full room at once
    waiting, places, found = list(range(n_arrivals)), [-1] * n_places, {}
    while waiting or engine.is_open(state).any():
        is_open = np.asarray(engine.is_open(state))
        free = [place for place in range(n_places) if not is_open[place]]
        results = engine.finished(state)
        found |= {places[place]: jax.tree.map(lambda x, p=place: np.asarray(x[p]), results) for place in free}
        while free and waiting:
            arrivals, waiting = waiting[: min(2, len(free))], waiting[min(2, len(free)) :]
            narrow = max(len(prompts[a]) for a in arrivals) <= 3
            at = [free.pop(0) for _ in arrivals]
            new = prefill(engine, batch_of(arrivals, 3 if narrow else width))
            state = insert(engine, state, new, jnp.array([*at, n_places][:2]))
            for place, arrival in zip(at, arrivals, strict=True):
                places[place] = arrival
        state = generate(engine, state)
    results = engine.finished(state)
    found |= {places[place]: jax.tree.map(lambda x, p=place: np.asarray(x[p]), results) for place in range(n_places)}
    assert int(state.store.turn) > 2 * state.store.room
    for arrival in range(n_arrivals):
        assert_same_lists(found[arrival], jax.tree.map(lambda x, a=arrival: x[a], alone))
        assert allowed[arrival, found[arrival].rows].all()


# --------------------------------------------------------------------------------------------------------- compilations
@struct.dataclass
class Counted:
    """Another score, whose calls while a program is traced are counted."""

    then: EdgeScore
    traces: Any = struct.field(pytree_node=False)

    def of_rows(self, batch: TextBatch) -> Any:
        return self.then.of_rows(batch)

    def __call__(self, *args: Any) -> jax.Array:
        self.traces.append(1)
        return self.then(*args)


class Traces(list):
    """A list that is equal to itself alone, so that it may be part of a program's key."""

    __hash__ = object.__hash__


def test_one_trace_serves_all_weights_temperatures_and_batches_of_a_shape(index):
    traces, model = Traces(), random_model("decoder")
    other = random_model("decoder", spread=0.2)

    def found(model: Backbone, alpha: float, temperature: float, prompts: list[list[int]]) -> np.ndarray:
        engine = engine_of(model, index, k=2, alpha=alpha, temperature=temperature)
        engine = engine.replace(edge_score=Counted(engine.edge_score, traces))
        return lists(engine, text_batch(prompts, width=5)).scores

    first = found(model, 0.0, 1.0, PROMPTS)
    n_traces = len(traces)
    assert n_traces > 0
    for changes in ((other, 0.0, 1.0, PROMPTS), (model, 0.4, 1.0, PROMPTS), (model, 0.0, 2.0, PROMPTS)):
        assert not np.array_equal(found(*changes), first)
    np.testing.assert_allclose(found(model, 0.0, 1.0, PROMPTS[::-1]), first[::-1], rtol=1e-5)
    assert len(traces) == n_traces
