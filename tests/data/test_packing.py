"""Every row has a place in one pack, no pack or group of packs is too full, and hardly any is left half empty."""

import numpy as np
import pytest

from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape, own_lengths, place_rows

N_ROWS, WIDTH, SLOTS, N_SEEN_TOGETHER = 200, 60, 50, 9
TITLES = Ragged.from_lists([[*range(1, n), 0] for n in (2, 3, 5, 9)])


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Histories that grow, of forty users, whose rows come in any order."""
    rng = np.random.default_rng(0)
    longest = [rng.integers(3, 99, 40).tolist() for _ in range(40)]
    prompts = [longest[user][: 5 + 7 * n] for user in range(40) for n in range(5)]
    prompts = [prompts[row] for row in rng.permutation(N_ROWS)]
    target = rng.integers(0, len(TITLES), N_ROWS).astype(np.int32)
    return Examples(
        Ragged.from_lists(prompts), target, np.zeros(N_ROWS, bool), np.zeros(0, np.int32), np.zeros(N_ROWS, bool)
    )


def _first_fit(sizes: list[int]) -> int:
    """Number of packs if each row goes into the first that has room."""
    room: list[int] = []
    for size in sizes:
        place = next((place for place, left in enumerate(room) if left >= size), len(room))
        room += [WIDTH] * (place == len(room))
        room[place] -= size
    return len(room)


@pytest.mark.parametrize("trees", [False, True], ids=["rows", "trees"])
@pytest.mark.parametrize("together", [1, 3])
def test_rows_fit_into_few_packs_and_targets_into_their_groups(trees, together, examples):
    shape = PackShape(WIDTH, SLOTS * together, N_SEEN_TOGETHER * together, 3, together, trees=trees)
    placed = place_rows(examples, np.arange(N_ROWS), TITLES, shape)
    sizes = own_lengths(examples, TITLES, shares_prefix=True)
    assert sorted(placed.texts.lengths.tolist()) == sorted(sizes.tolist())
    assert (placed.shared.sum() > N_ROWS) == trees
    assert (np.diff(placed.pack) >= 0).all()
    assert np.bincount(placed.pack, placed.own).max() <= WIDTH
    group = placed.pack // together
    assert np.bincount(group, placed.texts.n_target).max() <= shape.slots
    assert np.bincount(group).max() <= shape.rows
    if not trees:
        assert placed.n_packs <= _first_fit(sizes.tolist())
    assert placed.own.sum() / (placed.n_packs * WIDTH) > (0.6 if trees else 0.9)
