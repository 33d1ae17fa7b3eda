"""What a call reads, and the slots it is kept in: pieces of chains, and nodes that a beam can still use."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from batches import text_batch
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_trie, random_rows, trie_of
from searches import assert_same_lists, engine_of, index_of, jump_of, lists
from tiny_models import VOCAB, random_model

from igd_jax.decoding import jump as jumping
from igd_jax.decoding.call_plan import on_paths, shared_out
from igd_jax.decoding.chains import chains_of
from igd_jax.decoding.engine import finish, grow, start
from igd_jax.decoding.prospect import Wanted
from igd_jax.decoding.recurrence import root
from igd_jax.decoding.table import Reading, ScoredChildren, empty_table
from igd_jax.models.backbone import KVCache


def _shared_out(lengths: list[int], n_tokens: int) -> list[int]:
    """One token to each chain in turn, as long as there are tokens."""
    given = [0] * len(lengths)
    while n_tokens and given != lengths:
        for place, length in enumerate(lengths):
            if given[place] < length and n_tokens:
                given[place], n_tokens = given[place] + 1, n_tokens - 1
    return given


def test_the_tokens_of_a_call_are_shared_out_one_by_one():
    lengths = np.random.default_rng(0).integers(0, 12, (40, 5)) * np.array([1, 1, 1, 0, 3])
    nothing = jnp.zeros(lengths.shape, jnp.int32)
    wanted = Wanted(nothing, nothing, jnp.asarray(lengths, jnp.int32), nothing.astype(jnp.float32), nothing)
    for n_tokens in (3, 16):
        found = shared_out(wanted, n_tokens).length.tolist()
        assert found == [_shared_out(row, n_tokens) for row in lengths.tolist()]


def test_new_tokens_take_the_first_free_slots_and_nothing_else_moves():
    n_rows, n_slots, n_tokens = 3, 9, 4
    cache = jnp.zeros((2, n_rows, 1, 0, 2))
    table = empty_table(KVCache(cache, cache), n_rows, n_slots, n_children=2, with_worth=False)
    held: list[dict[int, int]] = [{} for _ in range(n_rows)]
    rng = np.random.default_rng(1)
    for first in range(100, 200, 10):
        is_token = np.arange(n_tokens) < rng.integers(0, n_tokens + 1, (n_rows, 1))
        node = np.where(is_token, np.arange(n_tokens) + first, -1).astype(np.int32)
        children = ScoredChildren(jnp.asarray(np.stack([node, node + 1], axis=2)), jnp.zeros((n_rows, n_tokens, 2)))
        value = jnp.broadcast_to(jnp.asarray(node, jnp.float32)[None, :, None, :, None], (2, n_rows, 1, n_tokens, 2))
        table = table.append(Reading(*map(jnp.asarray, (node, node + 1, node))), children, KVCache(value, -value))
        for row, slots in enumerate(held):
            free = [slot for slot in range(n_slots) if slot not in slots]
            slots |= dict(zip(free, node[row][is_token[row]].tolist(), strict=False))
            assert {slot: x for slot, x in enumerate(table.reading.node[row].tolist()) if x >= 0} == slots
            for slot, x in slots.items():
                assert table.kv.key[1, row, 0, slot, 1] == -table.kv.value[0, row, 0, slot, 0] == x
                assert table.children.child[row, slot, 1] == x + 1
        held = [{slot: x for slot, x in slots.items() if x % 3 and slot < n_slots - n_tokens} for slots in held]
        table = table.keep(jnp.array([[slot in slots for slot in range(n_slots)] for slots in held]))
        assert table.n_free.tolist() == [n_slots - len(slots) for slots in held]


def test_a_slot_is_kept_if_its_node_is_above_or_below_a_beam_of_an_open_row():
    catalog = catalog_of(random_rows(np.random.default_rng(2), 40))
    trie, nodes = trie_of(catalog), plain_trie(lists_of(catalog.tokens))
    chains, inner = chains_of(trie, catalog.counts), [node for node in nodes[1:] if node.children]
    rng = np.random.default_rng(3)
    beams: list[list[PlainNode]] = [[inner[i] for i in rng.choice(len(inner), 2)] for _ in range(4)]
    every = jnp.array([[node.number for node in inner]] * 4, jnp.int32)
    reading = Reading(every, chains.end_of(every), every)
    empty = jnp.zeros((1, 4, 1, 0, 1))
    table = dataclasses.replace(
        empty_table(KVCache(empty, empty), 4, len(inner), n_children=1, with_worth=False), reading=reading
    )
    node = jnp.array([[*(beam.number for beam in each), -1] for each in beams], jnp.int32)
    hypotheses = root(jnp.array([True, True, True, False]), num_beams=3)
    hypotheses = hypotheses.replace(parent=node, node=node, token=node, score=node.astype(jnp.float32))
    kept = on_paths(table, hypotheses, chains)
    for found, each in zip(kept[:3].tolist(), beams, strict=False):
        wanted = [any(beam in node.below() or node in beam.below() for beam in each) for node in inner]
        assert found == wanted
    assert not kept[3].any()


def test_a_table_of_few_slots_serves_a_long_search(monkeypatch):
    monkeypatch.setattr(jumping, "ROOM", 1)
    rng = np.random.default_rng(4)
    index = index_of([[*rng.integers(1, 3, 13).tolist(), EOS] for _ in range(300)])
    stepwise = engine_of(random_model("decoder"), index, k=3, alpha=0.2, length_penalty=0.0)
    engine = jump_of(stepwise, index, n_tokens=8, fill=8)
    batch = text_batch([[5, 6, 7, 8, 9], [VOCAB - 1]], width=5)
    state, n_read = start(engine, batch, 0), 0
    read_some = jax.jit(
        lambda engine, state: (
            (engine._plan(state.table, state.hypotheses).reading.node >= 0).sum(1),
            engine.generate(state),
        )
    )
    while engine.is_open(state).any():
        state = state if engine.has_room(state) else grow(engine, state)
        n, state = read_some(engine, state)
        n_read += n
    assert state.table.n_slots == 48 < n_read.min()
    assert_same_lists(finish(engine, state), lists(stepwise, batch))
