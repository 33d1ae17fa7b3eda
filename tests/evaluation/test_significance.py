import numpy as np
import pytest

from igd_jax.evaluation import significance
from igd_jax.evaluation.significance import Difference, paired_bootstrap


def test_equal_runs_differ_by_nothing():
    a = np.random.default_rng(0).random(50)
    result = paired_bootstrap(a, a.copy())
    assert result == Difference(0.0, 0.0, 0.0)
    assert not result.excludes_zero


def test_constant_gain_has_no_spread():
    a = np.arange(20) / 4
    result = paired_bootstrap(a, a + 0.25)
    assert result == pytest.approx((0.25, 0.25, 0.25))
    assert result.excludes_zero


def test_sign_is_second_minus_first():
    rng = np.random.default_rng(1)
    low, high = rng.random(400), rng.random(400) + 0.5
    gain, loss = paired_bootstrap(low, high), paired_bootstrap(high, low)
    assert gain.mean == pytest.approx((high - low).mean())
    assert 0 < gain.low < gain.mean < gain.high
    assert loss.low < loss.mean < loss.high < 0
    assert gain.excludes_zero
    assert loss.excludes_zero


def test_seed_decides_the_interval():
    a, b = np.random.default_rng(2).random((2, 60))
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b, seed=0)
    assert paired_bootstrap(a, b) != paired_bootstrap(a, b, seed=1)


def test_chunk_size_changes_nothing(monkeypatch):
    a, b = np.random.default_rng(3).random((2, 30))
    whole = paired_bootstrap(a, b, n_resamples=1001)
    monkeypatch.setattr(significance, "MAX_CHUNK", 30 * 7)
    assert paired_bootstrap(a, b, n_resamples=1001) == pytest.approx(whole, rel=1e-12)


def test_pairing_matters():
    """The order of rows within one run changes the spread: rows are compared one with one."""
    a = np.random.default_rng(4).random(300)
    b = a + 0.01
    paired, shuffled = paired_bootstrap(a, b), paired_bootstrap(a, b[::-1].copy())
    assert paired.excludes_zero
    assert not shuffled.excludes_zero
    assert paired.mean == pytest.approx(shuffled.mean)


def test_spread_equals_that_of_drawn_row_numbers():
    rng = np.random.default_rng(5)
    a, b = (rng.random(200) < 0.3).astype(float), (rng.random(200) < 0.4).astype(float)
    means = (b - a)[rng.integers(0, 200, (20_000, 200))].mean(axis=1)
    result = paired_bootstrap(a, b, n_resamples=20_000)
    np.testing.assert_allclose([result.low, result.high], np.quantile(means, [0.025, 0.975]), atol=0.006)


def test_higher_confidence_is_wider():
    a, b = np.random.default_rng(6).random((2, 100))
    narrow, wide = paired_bootstrap(a, b, confidence=0.5), paired_bootstrap(a, b, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        a, b = (rng.random(150) < 0.3).astype(float), (rng.random(150) < 0.4).astype(float)
        result = paired_bootstrap(a, b, n_resamples=500)
        covered += result.low <= 0.1 <= result.high
    assert 0.91 <= covered / 400 <= 0.98
