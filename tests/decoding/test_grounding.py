"""Distances, adjustments and lists against NumPy in float64; embeddings against one text at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_run import HF_CONFIG

from igd_jax.core.types import Remainders
from igd_jax.decoding.grounding import (
    adjusted,
    cut,
    distances,
    embed_texts,
    make_titles,
    min_max,
    nearest,
)
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf
from igd_jax.models.visibility import Causal, positions_of

EOS, NEWLINE, PAREN, PAREN_NEWLINE, QUOTE, PAREN_QUOTE, QUOTE_NEWLINE = range(7)
OTHERS = [7, 8, 9]
UNQUOTED = Remainders(
    end=jnp.array([-1, -1, PAREN, PAREN, QUOTE, PAREN_QUOTE, QUOTE, *OTHERS], jnp.int32),
    opening=jnp.arange(10, dtype=jnp.int32),
    closing=jnp.arange(10, dtype=jnp.int32),
)
QUOTED = UNQUOTED._replace(
    opening=UNQUOTED.opening.at[QUOTE].set(-1), closing=UNQUOTED.closing.at[QUOTE].set(-1).at[PAREN_QUOTE].set(PAREN)
)


def plain_distances(texts: np.ndarray, items: np.ndarray) -> np.ndarray:
    return np.linalg.norm(texts[:, None].astype(np.float64) - items[None].astype(np.float64), axis=2)


def some_distances(seed: int, shape: tuple[int, ...], *, levels: int = 7) -> np.ndarray:
    """Few whole numbers, so that many tie."""
    return np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ distances
@pytest.mark.parametrize("chunk", [1, 7, 40, 41, 1000])
def test_distances_in_chunks_are_those_of_a_direct_computation(chunk):
    rng = np.random.default_rng(0)
    # All hidden states of a language model lie far out on one side.
    items = (rng.normal(0, 1, (40, 24)) + 30).astype(np.float32)
    texts = np.concatenate([rng.normal(0, 1, (5, 24)).astype(np.float32) + np.float32(30), items[:2]])
    found = distances(jnp.asarray(texts), make_titles(items), chunk=chunk)
    np.testing.assert_allclose(found, plain_distances(texts, items), rtol=1e-4, atol=5e-3)
    assert np.asarray(found).argmin(axis=1)[5:].tolist() == [0, 1]


def test_equal_embeddings_are_equally_far():
    rng = np.random.default_rng(1)
    half = rng.integers(-4, 5, (16, 8))
    items = np.concatenate([half, -half, half, -half]).astype(np.float32)  # the mean is 0: all is exact
    texts = rng.integers(-4, 5, (3, 8)).astype(np.float32)
    found = np.asarray(distances(jnp.asarray(texts), make_titles(items), chunk=5))
    np.testing.assert_array_equal(found[:, :32], found[:, 32:])
    np.testing.assert_allclose(found, plain_distances(texts, items), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------- adjustments
def test_adjusted_distances_are_those_of_the_paper():
    rng = np.random.default_rng(2)
    distance = rng.gamma(2, 3, (3, 2, 20))
    weight = rng.random((3, 20))
    for gamma in (0.0, 0.5, 1.0, 99.0):
        low, high = distance.min(axis=2, keepdims=True), distance.max(axis=2, keepdims=True)
        expected = (distance - low) / (high - low) * (1 + weight[:, None]) ** -gamma
        found = adjusted(jnp.asarray(distance, jnp.float32), jnp.asarray(weight, jnp.float32), gamma)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_gamma_zero_keeps_the_order_and_the_nearest_stays_the_nearest():
    distance = jnp.asarray(some_distances(3, (4, 1, 30), levels=1000))
    weight = jnp.asarray(np.random.default_rng(3).random((4, 30)), jnp.float32)
    plain = np.argsort(distance, axis=2, stable=True)
    np.testing.assert_array_equal(np.argsort(adjusted(distance, weight, 0.0), axis=2, stable=True), plain)
    pulled = np.argsort(adjusted(distance, weight, 50.0), axis=2, stable=True)
    np.testing.assert_array_equal(pulled[..., 0], plain[..., 0])
    assert (pulled != plain).any()


def test_scaling_keeps_what_is_not_finite_and_rows_of_one_value_at_zero():
    found = min_max(jnp.array([[2.0, -jnp.inf, 4.0, 3.0], [5.0, 5.0, 5.0, 5.0], [-jnp.inf] * 4, [-jnp.inf, 7.0] * 2]))
    np.testing.assert_array_equal(found, [[0, 0, 1, 0.5], [0] * 4, [0] * 4, [0] * 4])


# ---------------------------------------------------------------------------------------------------------------- lists
def plain_lists(distance: np.ndarray, exists: np.ndarray, k: int) -> list[list[tuple[int, float]]]:
    """Sort the titles of each text, take turns, keep what is new."""
    lists = []
    for user, there in zip(distance, exists, strict=True):
        orders = [np.argsort(text, kind="stable") for text in user[there]]
        turns = [
            (int(order[i]), text[order[i]])
            for i in range(user.shape[1])
            for order, text in zip(orders, user[there], strict=True)
        ]
        found: dict[int, float] = {}
        for row, far in turns:
            found.setdefault(row, far)
        lists.append(list(found.items())[:k])
    return lists


@pytest.mark.parametrize("n_texts", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 4, 12, 15])
def test_lists_take_the_nearest_of_each_text_in_turn_and_every_title_once(n_texts, k):
    distance = some_distances(n_texts, (6, n_texts, 12))
    exists = np.random.default_rng(k).random((6, n_texts)) < 0.7
    exists[0], exists[1] = True, False
    rows, far = jax.jit(lambda *args: nearest(*args, k=k))(jnp.asarray(distance), jnp.asarray(exists))
    for user, expected in enumerate(plain_lists(distance, exists, k)):
        missing = k - len(expected)
        assert rows[user].tolist() == [row for row, _ in expected] + [-1] * missing
        assert far[user].tolist() == [value for _, value in expected] + [np.inf] * missing


def test_with_one_text_the_list_is_its_nearest_titles():
    distance = some_distances(9, (5, 1, 30), levels=9)
    rows, far = nearest(jnp.asarray(distance), jnp.ones((5, 1), bool), k=8)
    order = np.argsort(distance[:, 0], axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(far, np.take_along_axis(distance[:, 0], order, axis=1))


def test_titles_at_an_infinite_distance_are_never_found():
    """Those that may not be recommended to a user; a list ends where only they are left."""
    distance = some_distances(10, (4, 2, 12), levels=9)
    allowed = np.random.default_rng(10).random((4, 12)) < 0.5
    allowed[0], allowed[1], allowed[2] = True, False, np.arange(12) == 5
    rows, far = nearest(jnp.where(allowed[:, None], distance, jnp.inf), jnp.ones((4, 2), bool), k=9)
    for user in range(4):
        kept = np.flatnonzero(allowed[user])
        (expected,) = plain_lists(distance[user][None][:, :, kept], np.ones((1, 2), bool), 9)
        missing = 9 - len(expected)
        assert rows[user].tolist() == [kept[row] for row, _ in expected] + [-1] * missing
        assert far[user].tolist() == [value for _, value in expected] + [np.inf] * missing


# ----------------------------------------------------------------------------------------------------------- embeddings
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([7, 8, NEWLINE, EOS], [7, 8]),
        ([7, 8, PAREN_NEWLINE, EOS], [7, 8, PAREN]),
        ([7, EOS], [7]),
        ([7, 8, 9], [7, 8, 9]),
        ([7, PAREN, NEWLINE, 8, PAREN_NEWLINE, EOS], [7, PAREN]),
        ([7, PAREN_NEWLINE, 8, PAREN_NEWLINE, EOS], [7, PAREN]),
        ([PAREN_NEWLINE, EOS], [PAREN]),
        ([NEWLINE, EOS], [NEWLINE]),
        ([EOS], [EOS]),
    ],
)
def test_texts_are_cut_before_their_first_newline_or_end(text, expected):
    tokens = jnp.asarray([text + [EOS] * (8 - len(text))], jnp.int32)
    found, lengths = cut(tokens, jnp.array([len(text)], jnp.int32), UNQUOTED)
    assert found[0, : lengths[0]].tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([QUOTE, 7, 8, QUOTE, EOS], [7, 8]),
        ([QUOTE, 7, 8, QUOTE_NEWLINE, EOS], [7, 8]),
        ([QUOTE, 7, PAREN_QUOTE, EOS], [7, PAREN]),
        ([QUOTE, 7, QUOTE, 8, QUOTE, EOS], [7, QUOTE, 8]),
        ([7, 8, EOS], [7, 8]),
        ([QUOTE, 7, 8, 9], [7, 8, 9]),
        ([QUOTE, 7, 8, 9, 7, 8, 9, QUOTE], [7, 8, 9, 7, 8, 9]),
        ([QUOTE, QUOTE, EOS], [QUOTE]),
        ([QUOTE, EOS], [QUOTE]),
        ([EOS], [EOS]),
    ],
)
def test_quotes_around_a_text_are_taken_off_and_those_inside_stay(text, expected):
    tokens = jnp.asarray([text + [EOS] * (8 - len(text))], jnp.int32)
    found, lengths = cut(tokens, jnp.array([len(text)], jnp.int32), QUOTED)
    assert found[0, : lengths[0]].tolist() == expected


@nnx.jit
def last_state(model: Decoder, tokens: jax.Array, valid: jax.Array) -> jax.Array:
    return model(tokens, positions=positions_of(valid), visible=Causal(valid))[0][:, -1]


@pytest.mark.parametrize("bos", [None, 5])
def test_an_embedding_is_the_last_state_of_the_text_alone_whatever_its_padding(bos):
    model = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    rng = np.random.default_rng(4)
    lengths = np.array([1, 4, 6])
    tokens = rng.integers(0, 300, (3, 6)).astype(np.int32)
    embed = nnx.jit(lambda model, tokens, lengths: embed_texts(model, tokens, lengths, bos=bos))
    found = embed(model, jnp.asarray(tokens), jnp.asarray(lengths, jnp.int32))
    wider = embed(model, jnp.asarray(np.pad(tokens, ((0, 0), (0, 3)))), jnp.asarray(lengths, jnp.int32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wider, rtol=1e-5, atol=1e-5)
    for row, length in enumerate(lengths):
        alone = jnp.asarray([([] if bos is None else [bos]) + tokens[row, :length].tolist()])
        valid = jnp.ones(alone.shape, bool)
        np.testing.assert_allclose(found[row], last_state(model, alone, valid)[0], rtol=1e-5, atol=1e-5)
