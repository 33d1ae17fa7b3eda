"""BIGRec's distances, injected statistics and metrics are those of the authors' code (docs/golden.md)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derive_golden import titles_of
from golden_figures import golden_arrays, golden_figures

from igd_jax.decoding.grounding import adjusted, distances, make_titles, min_max, nearest
from igd_jax.evaluation.metrics import mean_metrics, rank_of_target

KS = tuple(golden_figures("bigrec")["top_k"])


def metrics_of(distance: jax.Array, title: np.ndarray, target: np.ndarray) -> np.ndarray:
    """HR and NDCG at `KS` [2 6] of lists of items, where the best item of the target's title counts."""
    rows, _ = nearest(distance, jnp.ones(distance.shape[:2], bool), k=max(KS))
    found = mean_metrics(rank_of_target(title[np.asarray(rows)], title[target]), KS)
    return np.array([[found[f"{name}@{k}"] for k in KS] for name in ("hr", "ndcg")])


@jax.jit
def injected(distance: jax.Array, weight: jax.Array, gamma: jax.Array) -> jax.Array:
    return adjusted(distance, weight, gamma)


@pytest.fixture(scope="module", params=["committed", "valid", "test"])
def golden(request) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """Arrays, a number for the title of each item, and the split: the committed test rows, or all of a split."""
    if request.param == "committed":
        return golden_arrays("bigrec"), golden_arrays("bigrec")["item_title"], "test"
    folder = request.getfixturevalue("shared") / "golden/msl_bigrec"
    with np.load(folder / "bigrec.npz", allow_pickle=False) as arrays:
        found = dict(arrays)
    return found, titles_of(json.loads((folder / "bigrec.json").read_text(encoding="utf-8"))), request.param


def test_distances(golden):
    found, _, split = golden
    ours = distances(jnp.asarray(found[f"predict_embedding_{split}"]), make_titles(found["item_embedding"]))
    theirs = found[f"dist_{split}"][:, : ours.shape[1]]
    # Theirs come from squares and a product, which lose digits where texts are nearly the same.
    assert (np.abs(ours - theirs) <= np.where(theirs > 1, 1e-4, 2e-2)).all()


def test_metrics_by_distance_alone():
    found, theirs = golden_arrays("bigrec"), golden_figures("bigrec")["evaluate_test"]
    ours = metrics_of(jnp.asarray(found["dist_test"])[:, None], found["item_title"], found["target_item_test"])
    np.testing.assert_allclose(ours, [theirs["HR"], theirs["NDCG"]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("statistic", ["popularity", "collaborative"])
def test_metrics_at_every_gamma(golden, statistic):
    found, title, split = golden
    distance = jnp.asarray(found[f"dist_{split}"])[:, None]
    if statistic == "popularity":
        gammas, name = found["gamma_grid_pop"], "pop_best_duplicate"
        weight = jnp.broadcast_to(min_max(jnp.asarray(found["pop_count"], jnp.float32))[None], distance[:, 0].shape)
    else:
        gammas, name = found["gamma_grid_cf_game"], "cf_game"
        weight = min_max(jnp.asarray(found[f"cf_score_{split}"]))
    target = found[f"target_item_{split}"]
    ours = np.array([metrics_of(injected(distance, weight, jnp.float32(gamma)), title, target) for gamma in gammas])
    theirs = np.stack([found[f"{name}_{metric}_{split}"] for metric in ("hr", "ndcg")], axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
