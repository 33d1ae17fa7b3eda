"""Dropout: the right share, the same mean, and draws that follow from a row's seed and a token's number alone."""

import jax
import jax.numpy as jnp
import numpy as np

from igd_jax.models.dropout import at_site, drop, fold, row_keys, token_keys

ONES = jnp.ones((2, 6, 50))
SEED = jnp.array([5, 6])
ALL = jnp.ones((2, 6), bool)


def test_the_given_share_becomes_zero_and_the_mean_stays():
    found = np.asarray(drop(jnp.ones((4, 5000)), row_keys(jnp.arange(4)), rate=0.25))
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_allclose((found == 0).mean(axis=1), 0.25, atol=0.03)


def test_rates_near_the_ends_and_odd_numbers_of_draws():
    keys = row_keys(jnp.arange(3))
    assert (drop(jnp.ones((3, 501)), keys, rate=1e-7) != 0).all()
    found = np.asarray(drop(jnp.ones((3, 50_001)), keys, rate=1 - 1e-7)) != 0
    assert found.mean() < 1e-3
    found = np.asarray(drop(jnp.ones((3, 50_001)), keys, rate=0.05)) == 0
    np.testing.assert_allclose([found[:, ::2].mean(), found[:, 1::2].mean()], 0.05, atol=0.004)  # each half of a word
    both = (found[:, :-1:2] & found[:, 1::2]).mean()
    np.testing.assert_allclose(both, 0.05**2, atol=0.001)


def test_without_seeds_there_is_no_trace_of_dropout_and_at_rate_zero_nothing_is_drawn():
    assert not jax.make_jaxpr(lambda x: drop(x, at_site(token_keys(None, ALL), 3), rate=0.5))(ONES).eqns
    assert drop(ONES, row_keys(SEED), rate=0.0) is ONES


def test_a_token_draws_the_same_wherever_it_stands_and_whatever_stands_beside_it():
    padded = jnp.array([[False, False, True, True, False, True]])
    wide = np.asarray(drop(ONES[:1], token_keys(SEED[:1], padded), rate=0.5))
    narrow = np.asarray(drop(ONES[:, :3], token_keys(SEED, ALL[:, :3]), rate=0.5))
    np.testing.assert_array_equal(wide[0, [2, 3, 5]], narrow[0])
    drawn = [*narrow[0], *narrow[1]]
    assert len({tuple(draw) for draw in drawn}) == len(drawn)


def test_each_site_and_each_folded_number_has_draws_of_its_own():
    keys = row_keys(SEED)
    pairs = fold(fold(keys, jnp.array([[0, 1], [0, 1]])), jnp.array([[[0, 1, 2]] * 2] * 2))
    assert pairs.shape == (2, 2, 3)
    sites = [np.asarray(drop(jnp.ones((2, 2, 3, 40)), at_site(pairs, site), rate=0.5)) for site in (0, 1)]
    drawn = np.stack(sites).reshape(-1, 40)
    assert len(np.unique(drawn, axis=0)) == len(drawn)


def test_low_precision_stays():
    assert drop(ONES.astype(jnp.bfloat16), row_keys(SEED), rate=0.5).dtype == jnp.bfloat16
