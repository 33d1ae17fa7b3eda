import numpy as np
import pytest

from igd_jax.evaluation import significance
from igd_jax.evaluation.significance import corrected, interval


def resampled_means(columns, user=None, **options):
    """Each row is of a user of its own, unless something else is said."""
    return significance.resampled_means(columns, np.arange(len(columns)) if user is None else user, **options)


def hits(rng, n, *rates):
    """Columns of 0 and 1."""
    return (rng.random((n, len(rates))) < rates).astype(float)


def p_of(columns, pairs, n_resamples=1000):
    samples = resampled_means(columns, n_resamples=n_resamples)
    return corrected(columns.mean(axis=0), samples, pairs).p


# ------------------------------------------------------------------------------------------------------ resampled means
def test_rows_are_drawn_whole_so_pairing_is_kept():
    a = np.random.default_rng(0).random(300)
    samples = resampled_means(np.stack([a, a + 0.01, a[::-1]], axis=1), n_resamples=200)
    np.testing.assert_allclose(samples[1] - samples[0], 0.01, atol=1e-12)
    assert (samples[2] - samples[0]).std() > 0.01


def test_seed_decides_the_samples():
    columns = np.random.default_rng(2).random((60, 2))
    default = resampled_means(columns, n_resamples=50)
    np.testing.assert_array_equal(default, resampled_means(columns, n_resamples=50, seed=0))
    assert (default != resampled_means(columns, n_resamples=50, seed=1)).any()


def test_chunk_size_changes_nothing(monkeypatch):
    columns = np.random.default_rng(3).random((30, 2))
    whole = resampled_means(columns, n_resamples=1001)
    assert whole.shape == (2, 1001)
    monkeypatch.setattr(significance, "MAX_CHUNK", 30 * 7)
    np.testing.assert_allclose(resampled_means(columns, n_resamples=1001), whole, rtol=1e-12)


def test_spread_equals_that_of_drawn_row_numbers():
    rng = np.random.default_rng(5)
    columns = hits(rng, 200, 0.3, 0.4)
    drawn = columns[rng.integers(0, 200, (20_000, 200))].mean(axis=1).T
    ours = resampled_means(columns, n_resamples=20_000)
    np.testing.assert_allclose(np.cov(ours), np.cov(drawn), rtol=0.1, atol=2e-5)
    assert interval(ours[0], confidence=0.95) == pytest.approx(np.quantile(drawn[0], [0.025, 0.975]), abs=0.006)


def test_users_are_drawn_with_all_their_rows():
    rng = np.random.default_rng(6)
    size = rng.integers(1, 6, 80)
    user = rng.permutation(np.repeat([f"u{u}" for u in range(80)], size))
    columns = hits(rng, len(user), 0.3, 0.4)
    rows = [np.flatnonzero(user == name) for name in np.unique(user)]
    drawn = []
    for chosen in rng.integers(0, 80, (4_000, 80)):
        drawn.append(columns[np.concatenate([rows[u] for u in chosen])].mean(axis=0))
    ours = resampled_means(columns, user, n_resamples=20_000)
    np.testing.assert_allclose(np.cov(ours), np.cov(np.array(drawn).T), rtol=0.15, atol=5e-5)
    np.testing.assert_allclose(ours.mean(axis=1), columns.mean(axis=0), atol=0.01)


def test_many_rows_of_a_few_users_are_not_many_observations():
    rng = np.random.default_rng(10)
    by_user = hits(rng, 10, 0.5, 0.5)
    columns, user = np.repeat(by_user, 50, axis=0), np.repeat(np.arange(10), 50)
    alone, together = resampled_means(columns).std(axis=1), resampled_means(columns, user).std(axis=1)
    np.testing.assert_allclose(together, alone * 50**0.5, rtol=0.05)


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        samples = resampled_means(hits(rng, 150, 0.3, 0.4), n_resamples=500)
        low, high = interval(samples[1] - samples[0], confidence=0.95)
        covered += low <= 0.1 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_higher_confidence_is_wider():
    samples = np.random.default_rng(6).random(1000)
    narrow, wide = interval(samples, confidence=0.5), interval(samples, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


# -------------------------------------------------------------------------------------------------------- adjusted p
def test_equal_columns_never_differ_even_by_rounding():
    a = np.full(50, 2 / 3)
    for b in (a, np.nextafter(a, 1)):
        assert p_of(np.stack([a, b], axis=1), [(0, 1)]).tolist() == [1.0]
    means, samples = np.array([0.5, 0.5 + 2**-52]), np.tile([[0.5], [0.5 + 2**-52]], (1, 1000))
    assert corrected(means, samples, [(0, 1)]).p.tolist() == [1.0]


def test_a_constant_gain_is_as_sure_as_the_resamples_allow():
    a = np.arange(20) / 40
    assert p_of(np.stack([a, a + 0.25], axis=1), [(0, 1)]) == pytest.approx([1 / 1001])


def test_one_comparison_is_the_plain_studentized_bootstrap():
    columns = hits(np.random.default_rng(8), 200, 0.3, 0.4)
    samples = resampled_means(columns)
    noise = (samples[1] - samples[0]) - (columns[:, 1] - columns[:, 0]).mean()
    expected = np.mean(np.abs(noise) >= abs((columns[:, 1] - columns[:, 0]).mean()))
    assert p_of(columns, [(0, 1)], 10_000) == pytest.approx([expected], abs=2e-4)


def test_direction_of_a_pair_does_not_matter():
    columns = hits(np.random.default_rng(9), 200, 0.3, 0.4, 0.35)
    np.testing.assert_array_equal(p_of(columns, [(0, 1), (1, 2)]), p_of(columns, [(1, 0), (2, 1)]))


def test_the_order_of_comparisons_does_not_matter():
    columns = hits(np.random.default_rng(10), 200, 0.3, 0.4, 0.35, 0.5)
    pairs = [(0, 1), (2, 3), (0, 3), (1, 2)]
    np.testing.assert_array_equal(p_of(columns, pairs)[::-1], p_of(columns, pairs[::-1]))


def test_more_comparisons_cost_but_copies_of_one_do_not():
    """Holm would multiply p by 10 in both cases."""
    rng = np.random.default_rng(11)
    columns = np.concatenate([hits(rng, 300, 0.3, 0.4), hits(rng, 300, *[0.3] * 18)], axis=1)
    alone = p_of(columns, [(0, 1)])[0]
    others = [(place, place + 1) for place in range(2, 20, 2)]
    among = p_of(columns, [(0, 1), *others])[0]
    assert 2 * alone < among
    assert p_of(columns, [(0, 1)] * 10).tolist() == [alone] * 10


def test_a_sure_difference_does_not_hide_a_smaller_one():
    """Step-down: what is already called different no longer counts against the rest."""
    columns = hits(np.random.default_rng(12), 400, 0.1, 0.9, 0.3, 0.38)
    together, alone = p_of(columns, [(0, 1), (2, 3)]), p_of(columns, [(2, 3)])
    assert together[0] == pytest.approx(1 / 1001)
    assert together[1] == alone[0] > together[0]


def test_p_rises_as_the_studentized_difference_falls():
    columns = hits(np.random.default_rng(13), 200, 0.3, 0.45, 0.4, 0.31)
    pairs = [(0, 1), (0, 2), (0, 3)]
    differences = [columns[:, b] - columns[:, a] for a, b in pairs]
    told = [abs(d.mean()) / d.std() for d in differences]
    order = np.argsort(told)
    assert (np.diff(p_of(columns, pairs)[order]) <= 0).all()


def test_no_p_is_smaller_than_that_of_a_larger_studentized_difference():
    """The first pair has t 2.01 and a t* of 2.24 in 20 of 100 resamples, the second t 1.9 and a t* of 1 in all."""
    rare, even = np.repeat([-1.0, 0.0, 1.0], [10, 80, 10]), np.tile([-1.0, 1.0], 50)
    means = np.array([0.0, 0.9, 1.9])
    samples = np.stack([np.zeros(100), 0.9 + rare, 1.9 + even])
    assert corrected(means, samples, [(0, 1), (0, 2)]).p == pytest.approx([21 / 101] * 2)


def test_any_false_difference_is_as_rare_as_asked_where_uncorrected_ones_are_common():
    rng = np.random.default_rng(14)
    false, misses, alone = 0, 0, 0
    pairs = [(a, b) for a in range(4) for b in range(a)]
    for _ in range(200):
        columns = hits(rng, 200, *[0.3] * 4)
        samples = resampled_means(columns, n_resamples=400)
        means = columns.mean(axis=0)
        p, margin = corrected(means, samples, pairs)
        false += p.min() <= 0.05
        misses += any(abs(means[b] - means[a]) > m for (a, b), m in zip(pairs, margin, strict=True))
        alone += min(corrected(means, samples, [pair]).p[0] for pair in pairs) <= 0.05
    assert max(false, misses) / 200 <= 0.09
    assert alone / 200 >= 0.13


def test_the_margin_is_the_largest_studentized_noise_of_all_pairs():
    columns, pairs = hits(np.random.default_rng(15), 150, 0.2, 0.3, 0.3, 0.6), [(0, 1), (0, 2), (2, 3)]
    means, samples = columns.mean(axis=0), resampled_means(columns, n_resamples=300)
    noise = np.stack([samples[b] - samples[a] - (means[b] - means[a]) for a, b in pairs])
    spread = noise.std(axis=1)
    largest = (np.abs(noise) / spread[:, None]).max(axis=0)
    found = corrected(means, samples, pairs, confidence=0.9)
    np.testing.assert_allclose(found.margin, np.quantile(largest, 0.9) * spread)
    alone = [corrected(means, samples, [pair], confidence=0.9).margin[0] for pair in pairs]
    assert (found.margin > alone).all()


def test_no_comparison_is_no_p():
    assert p_of(np.zeros((5, 1)), []).size == 0
