"""Decoder and T5 as the search and training see them: what is kept of a prompt, and what is written after it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from tiny_models import random_model

from igd_jax.models import backbone
from igd_jax.models.backbone import Backbone, KVCache, Memory, Prefix
from igd_jax.models.visibility import Causal, Tree

PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11, 4]]
TARGETS = [[13, 14, 1], [21, 22, 23, 24, 1], [13, 1]]
SHARED = [30, 31, 32]


def close(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=["decoder", "T5 1.0", pytest.param("T5 1.1", marks=pytest.mark.slow)])
def model(request) -> Backbone:
    return random_model(request.param)


prefill = nnx.jit(lambda model, batch: model.prefill(batch))
target_hidden = nnx.jit(lambda model, batch: model.target_hidden(batch))
logits = nnx.jit(lambda model, hidden: model.logits(hidden))


@nnx.jit
def extend(model, prefix, tokens, positions, visible, past=()):
    return model.extend(prefix, tokens, positions=positions, visible=visible, past=past)


def written(model, prefix: Prefix, targets: np.ndarray) -> list[jax.Array]:
    """States that predict each token of the targets, one token at a time out of a store of slots."""
    states, n_rows, width = [prefix.hidden], *targets.shape
    store = prefix.kv.empty(width)
    for t in range(width - 1):
        seen = jnp.broadcast_to(jnp.arange(width) < t, (n_rows, 1, width))
        hidden, new = extend(
            model,
            prefix,
            jnp.asarray(targets[:, t : t + 1]),
            (prefix.length + t)[:, None],
            Causal(jnp.ones((n_rows, 1), bool)),
            [(store, seen)],
        )
        store = store.write(new, jnp.int32(t))
        states.append(hidden[:, 0])
    return states


# --------------------------------------------------------------------------------------------------- one pass, or many
@pytest.mark.parametrize("shared", [[], SHARED])
def test_written_token_by_token_out_of_a_cache_as_in_one_pass(model, shared):
    batch = text_batch(PROMPTS, TARGETS, shared=shared)
    expected = target_hidden(model, batch)
    states = written(model, prefill(model, batch), np.asarray(batch.target))
    mask = np.asarray(batch.target_mask)
    found = np.stack([np.asarray(state) for state in states], axis=1)
    assert np.abs(found[mask]).max() > 0.1
    close(found[mask], np.asarray(expected)[mask])
    close(logits(model, found[mask]), np.asarray(logits(model, expected))[mask])


def test_a_shared_prefix_is_as_good_as_whole_prompts(model):
    apart, whole = text_batch(PROMPTS, TARGETS, shared=SHARED), text_batch([SHARED + p for p in PROMPTS], TARGETS)
    mask = np.asarray(apart.target_mask)
    close(np.asarray(target_hidden(model, apart))[mask], np.asarray(target_hidden(model, whole))[mask])
    close(prefill(model, apart).hidden, prefill(model, whole).hidden)
    assert prefill(model, apart).length.tolist() == prefill(model, whole).length.tolist()


def test_padding_and_the_other_rows_change_nothing(model):
    mask = np.asarray(text_batch(PROMPTS, TARGETS).target_mask)
    expected = target_hidden(model, text_batch(PROMPTS, TARGETS))
    close(np.asarray(target_hidden(model, text_batch(PROMPTS, TARGETS, width=8)))[mask], np.asarray(expected)[mask])
    for row in range(3):
        alone = target_hidden(model, text_batch(PROMPTS[row : row + 1], TARGETS[row : row + 1]))
        close(alone[0], np.asarray(expected)[row, : len(TARGETS[row])])


def test_what_stands_before_a_token_decides_its_state(model):
    """The rows' own prompts and targets are read: another token changes what comes after it and nothing before."""
    expected = np.asarray(target_hidden(model, text_batch(PROMPTS, TARGETS)))
    other_prompt = target_hidden(model, text_batch([[5, 6, 7, 8, 10], *PROMPTS[1:]], TARGETS))
    assert (np.abs(np.asarray(other_prompt)[0, :3] - expected[0, :3]).max(axis=-1) > 1e-3).all()
    close(np.asarray(other_prompt)[1, :5], expected[1, :5])
    other_target = target_hidden(model, text_batch(PROMPTS, [TARGETS[0], [21, 40, 23, 24, 1], TARGETS[2]]))
    changed = np.abs(np.asarray(other_target) - expected)[1, :5].max(axis=-1) > 1e-3
    assert changed.tolist() == [False, False, True, True, True]


def test_a_row_that_only_fills_up_the_batch_is_finite_and_harms_nobody(model):
    batch, real = text_batch([*PROMPTS, []], [*TARGETS, []]), text_batch(PROMPTS, TARGETS)
    found, mask = np.asarray(target_hidden(model, batch)), np.asarray(real.target_mask)
    assert np.isfinite(found).all()
    close(found[:3][mask], np.asarray(target_hidden(model, real))[mask])
    assert np.isfinite(np.asarray(prefill(model, batch).hidden)).all()
    assert batch.is_real.tolist() == [True, True, True, False]


def test_a_decoder_takes_the_state_of_the_column_that_before_names():
    model = random_model("decoder")
    batch = text_batch([[5, 6, 7, 8, 9]], [[13, 14, 1]])
    found = target_hidden(model, dataclasses.replace(batch, before=jnp.asarray([[1, 6, 3]], jnp.int32)))
    for t, read in enumerate(([5, 6], [5, 6, 7, 8, 9, 13, 14], [5, 6, 7, 8])):
        close(found[0, t], prefill(model, text_batch([read], [])).hidden[0])


@pytest.mark.parametrize("kind", ["T5 1.0", "T5 1.1"])
def test_a_t5_predicts_the_first_token_of_every_identifier_from_its_start(kind):
    model, batch = random_model(kind), text_batch(PROMPTS, TARGETS)
    hidden = np.asarray(target_hidden(model, batch))
    moved = dataclasses.replace(
        batch,
        place=jnp.asarray([[0, 0, 1, 2, 3]] * 3, jnp.int32),
        before=jnp.asarray([[4, 2, 5, 6, 8]] * 3, jnp.int32),
    )
    np.testing.assert_array_equal(target_hidden(model, moved)[:, :2], hidden[:, [0, 0]])


# -------------------------------------------------------------------------------------------------------------- a tree
def test_a_tree_of_texts_in_one_call_equals_each_text_alone(model):
    """Prompt, then the texts a b c, a b d and e f; parts of the tree are written before the call."""
    a, b, c, d, e, f = range(40, 46)
    prefix = prefill(model, text_batch(PROMPTS[:1], []))
    texts = {"c": [a, b, c], "d": [a, b, d], "f": [e, f]}
    alone = {}
    for name, text in texts.items():
        n = len(text)
        tokens, place = jnp.asarray([text], jnp.int32), jnp.arange(n)[None]
        alone[name], _ = extend(model, prefix, tokens, prefix.length[:, None] + place, Causal(jnp.ones((1, n), bool)))
    place = jnp.asarray([[1, 2, 0, 0, 1, 2]])  # of the tokens below: f c a e b d
    tree = Tree(jnp.asarray([[5, 2, 0, 4, 1, 3]]), jnp.asarray([[6, 3, 4, 6, 4, 4]]))
    tokens = jnp.asarray([[f, c, a, e, b, d]], jnp.int32)
    expected = [alone["f"][0, 1], alone["c"][0, 2], alone["c"][0, 0], alone["f"][0, 0], *alone["d"][0, 1:]]
    found, new = extend(model, prefix, tokens, prefix.length[:, None] + place, tree)
    close(found[0], jnp.stack(expected))

    store = prefix.kv.empty(8).write(new, 2)  # slots . . f c a e b d
    seen = jnp.asarray([[[0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]]], bool)
    again, _ = extend(
        model,
        prefix,
        jnp.asarray([[b, f]], jnp.int32),
        prefix.length[:, None] + jnp.ones((1, 2), jnp.int32),
        Tree(jnp.asarray([[0, 1]]), jnp.asarray([[1, 2]])),
        [(store, seen)],
    )
    close(again[0], jnp.stack([expected[4], expected[0]]))


# -------------------------------------------------------------------------------------------------- prefixes are moved
def test_rows_of_a_prefix_are_taken_repeated_and_padded(model):
    batch = text_batch(PROMPTS, TARGETS, shared=SHARED)
    prefix, target = prefill(model, batch), np.asarray(batch.target)
    mask, rows = np.asarray(batch.target_mask), np.array([2, 0, 0, 1])
    expected = np.stack(written(model, prefix, target), axis=1)
    wide = prefix.pad_to(prefix.width + 5)
    assert wide.width == prefix.width + 5
    for found in (wide.take(jnp.asarray(rows)), prefix.take(jnp.asarray(rows)).pad_to(prefix.width + 1)):
        states = np.stack(written(model, found, target[rows]), axis=1)
        close(states[mask[rows]], expected[rows][mask[rows]])


def test_one_prompt_serves_many_texts(model):
    one = prefill(model, text_batch(PROMPTS[:1], []))
    many, targets = one.take(jnp.zeros(3, jnp.int32)), np.array([[13, 14], [21, 22], [40, 41]], np.int32)
    expected = target_hidden(model, text_batch(PROMPTS[:1] * 3, targets.tolist()))
    close(np.stack(written(model, many, targets), axis=1), expected)


def test_a_prefix_tells_the_width_of_prompts_and_where_writing_begins():
    batch = text_batch(PROMPTS, [], shared=SHARED)
    decoder, t5 = (prefill(random_model(kind), batch) for kind in ("decoder", "T5 1.0"))
    assert (decoder.width, t5.width) == (8, 8)
    assert decoder.length.tolist() == [8, 4, 7]
    assert decoder.memory is None
    assert t5.length.tolist() == [1, 1, 1]
    assert (t5.kv.n_slots, t5.memory.kv.n_slots) == (1, 8)


# ------------------------------------------------------------------------------------------------------------ the cache
@pytest.mark.parametrize("has_position", [True, False])
def test_slots_are_written_taken_and_padded(has_position):
    rng = np.random.default_rng(0)

    def cache(n_slots: int) -> KVCache:
        key, value = (jnp.asarray(rng.normal(size=(2, 3, 4, n_slots, 5)), jnp.float32) for _ in range(2))
        position = jnp.asarray(rng.integers(1, 9, (3, n_slots)), jnp.int32) if has_position else None
        return KVCache(key, value, position)

    old, new = cache(6), cache(2)
    found = jax.jit(KVCache.write)(old, new, jnp.int32(3))
    for name, axis in (("key", 3), ("value", 3), ("position", 1)):
        before, part = getattr(old, name), getattr(new, name)
        if before is None:
            assert getattr(found, name) is None
            continue
        before, part, after = (np.moveaxis(np.asarray(x), axis, 0) for x in (before, part, getattr(found, name)))
        np.testing.assert_array_equal(after[3:5], part)
        np.testing.assert_array_equal(after[[0, 1, 2, 5]], before[[0, 1, 2, 5]])
    wide, none = old.pad_to(9), old.empty(4)
    assert (old.n_slots, wide.n_slots, none.n_slots) == (6, 9, 4)
    np.testing.assert_array_equal(wide.key[:, :, :, :6], old.key)
    assert not np.asarray(none.key).any()
    taken = old.take(jnp.asarray([2, 2]))
    np.testing.assert_array_equal(taken.value, old.value[:, np.array([2, 2])])
    assert (taken.position is None) == (none.position is None) == (wide.position is None) == (not has_position)
    if has_position:
        np.testing.assert_array_equal(taken.position, old.position[np.array([2, 2])])
        assert wide.position.shape == (3, 9)


def test_a_wider_memory_hides_what_is_new():
    kv = KVCache(jnp.ones((1, 2, 1, 3, 1)), jnp.ones((1, 2, 1, 3, 1)))
    memory = Memory(kv, jnp.asarray([[True, True, False], [True, False, False]])).pad_to(4).take(jnp.asarray([1]))
    assert memory.mask.tolist() == [[True, False, False, False]]
    assert memory.kv.key.shape == (1, 1, 1, 4, 1)


def test_decoder_and_t5_are_backbones(model):
    assert isinstance(model, Backbone)
    assert model.config.vocab_size == 50
    assert model.config.max_positions >= 64


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_new_tokens_are_written_to_their_slots_on_every_platform(platform, monkeypatch):
    random, slot = np.random.default_rng(0), np.array([[1, 9, 3], [6, 0, 7]])  # there are 7
    old, new = (
        KVCache(*random.normal(size=(2, 3, 2, 2, n, 4)), random.integers(9, size=(2, n))) for n in (7, slot.shape[1])
    )
    expected = jax.tree.map(np.copy, old)
    for row, token in [(0, 0), (0, 2), (1, 0), (1, 1)]:
        expected.key[:, row, :, slot[row, token]] = new.key[:, row, :, token]
        expected.value[:, row, :, slot[row, token]] = new.value[:, row, :, token]
        expected.position[row, slot[row, token]] = new.position[row, token]
    monkeypatch.setattr(backbone, "platform_here", lambda: platform)
    found = jax.tree.map(jnp.asarray, old).write_slots(jax.tree.map(jnp.asarray, new), jnp.asarray(slot))
    jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(jnp.asarray, expected))
