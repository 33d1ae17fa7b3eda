"""Which rows a step sees, and how they are padded."""

import jax
import numpy as np
import pytest
from plain_trie import EOS

from igd_jax.core.map_rows import in_groups
from igd_jax.core.ragged import Ragged
from igd_jax.data.batches import (
    PROMPT_WIDTHS,
    TARGET_WIDTHS,
    Users,
    by_length,
    make_item_batch,
    make_text_batch,
    n_shapes,
    rows_of_step,
    seed_of_rows,
    steps_per_epoch,
)
from igd_jax.data.examples import Examples, item_examples, ranked_examples

N_ROWS, SIZE = 23, 5
ITEM_TOKENS = Ragged.from_lists([[7, EOS], [7, 8, 9, EOS]])


def _examples(prompts: list[list[int]], target: list[int], prefix: tuple[int, ...] = ()) -> Examples:
    has_prefix = np.array([tuple(prompt[: len(prefix)]) == prefix for prompt in prompts])
    uncut = np.zeros(len(prompts), bool)
    return Examples(
        Ragged.from_lists(prompts), np.array(target, np.int32), uncut, np.array(prefix, np.int32), has_prefix
    )


def test_users_are_drawn_with_all_their_rows_each_once_per_epoch():
    number = np.random.default_rng(0).integers(0, 6, N_ROWS)
    n_steps, orders = steps_per_epoch(N_ROWS, SIZE), []
    for first in (0, n_steps):
        rows = [
            rows_of_step(N_ROWS, batch_size=SIZE, seed=3, step=first + step, users=Users(number))
            for step in reversed(range(n_steps))  # in any order of asking
        ]
        orders.append(np.concatenate(rows[::-1]))
        np.testing.assert_array_equal(np.sort(orders[-1]), np.arange(N_ROWS))
        assert np.count_nonzero(np.diff(number[orders[-1]])) == len(np.unique(number)) - 1
    assert orders[0].tolist() != orders[1].tolist()
    other = rows_of_step(N_ROWS, batch_size=N_ROWS, seed=4, step=0, users=Users(number))
    assert orders[0].tolist() != other.tolist()


EXAMPLES = _examples([[1, 2, 3], [4], [5, 6]], [1, 0, 1])


def _epoch(epoch: int, *, seed: int = 0) -> list[list[int]]:
    n = steps_per_epoch(N_ROWS, SIZE)
    return [rows_of_step(N_ROWS, batch_size=SIZE, seed=seed, step=epoch * n + i).tolist() for i in range(n)]


def test_every_epoch_shows_every_row_once_and_its_last_batch_may_be_short():
    for epoch in range(3):
        batches = _epoch(epoch)
        assert [len(rows) for rows in batches] == [5, 5, 5, 5, 3]
        assert sorted(row for rows in batches for row in rows) == list(range(N_ROWS))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [_epoch(0), _epoch(1), _epoch(0, seed=1), _epoch(1, seed=1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_a_step_does_not_depend_on_those_before_it():
    forward = {step: rows_of_step(N_ROWS, batch_size=SIZE, seed=3, step=step).tolist() for step in range(12)}
    np.random.default_rng(0).random()
    backward = {step: rows_of_step(N_ROWS, batch_size=SIZE, seed=3, step=step).tolist() for step in reversed(range(12))}
    assert forward == backward


@pytest.mark.parametrize(("n_rows", "expected"), [(1, 1), (5, 1), (6, 2), (10, 2)])
def test_steps_of_an_epoch_round_up(n_rows, expected):
    assert steps_per_epoch(n_rows, 5) == expected


def test_groups_hold_each_row_once_and_prompts_of_like_length():
    rows = np.array([2, 0, 1])
    groups = [group.tolist() for group in in_groups(by_length(EXAMPLES, rows), 2)]
    assert groups == [[1, 2], [0]]


def test_prompts_are_padded_left_and_targets_right_and_filler_rows_hold_nothing():
    flat = {"weight": np.float32([0.5, 1.0, 0.1, 0.2, 0.3, 0.4]), "parent": np.array([3, 4, 5, 5, 5, 5])}
    batch = make_text_batch(EXAMPLES, np.array([2, 1]), ITEM_TOKENS, flat, size=3)
    arrays = {name: getattr(batch, name) for name in ("prompt", "prompt_mask", "target", "target_mask")}
    arrays |= {"place": batch.place, "before": batch.before, **batch.annotations}
    assert {name: (type(array), array.shape, array.dtype) for name, array in arrays.items()} == {
        "prompt": (np.ndarray, (3, 32), np.int32),
        "prompt_mask": (np.ndarray, (3, 32), np.bool_),
        "target": (np.ndarray, (3, 16), np.int32),
        "target_mask": (np.ndarray, (3, 16), np.bool_),
        "place": (np.ndarray, (3, 16), np.int32),
        "before": (np.ndarray, (3, 16), np.int32),
        "weight": (np.ndarray, (3, 16), np.float32),
        "parent": (np.ndarray, (3, 16), np.int64),
    }
    assert batch.prompt[:, -3:].tolist() == [[0, 5, 6], [0, 0, 4], [0, 0, 0]]
    assert batch.prompt_mask[:, -3:].tolist() == [[False, True, True], [False, False, True], [False] * 3]
    assert batch.target[:, :5].tolist() == [[7, 8, 9, EOS, 0], [7, EOS, 0, 0, 0], [0] * 5]
    assert batch.target_mask[:, :5].tolist() == [[True] * 4 + [False], [True] * 2 + [False] * 3, [False] * 5]
    assert batch.place[:, :5].tolist() == [[0, 1, 2, 3, 0], [0, 1, 0, 0, 0], [0] * 5]
    assert batch.before[:, :5].tolist() == [[31, 32, 33, 34, 0], [31, 32, 0, 0, 0], [0] * 5]
    weight = np.float32([[0.1, 0.2, 0.3, 0.4, 0], [0.5, 1, 0, 0, 0], [0] * 5])
    np.testing.assert_array_equal(batch.annotations["weight"][:, :5], weight)
    assert batch.annotations["parent"][:, :5].tolist() == [[5, 5, 5, 5, 0], [3, 4, 0, 0, 0], [0] * 5]
    assert batch.is_real.tolist() == [True, True, False]
    for name, array in arrays.items():
        first = 29 if name.startswith("prompt") else 0
        assert not np.delete(array, np.s_[first : first + 5], axis=1).any(), name


@pytest.mark.parametrize("prefix", [(), (1,)])
def test_the_column_before_each_target_token_holds_the_token_that_stands_before_it(prefix):
    examples = _examples([[1, 2, 3], [1, 4], [1, 5, 6]], [1, 0, 1], prefix)
    batch = make_text_batch(examples, np.arange(3), ITEM_TOKENS, {}, size=4)
    joined = np.concatenate([batch.prompt, batch.target], axis=1)
    found = np.take_along_axis(joined, batch.before, axis=1)
    assert [row[mask].tolist() for row, mask in zip(found, batch.target_mask, strict=True)] == [
        [3, 7, 8, 9],
        [4, 7],
        [6, 7, 8, 9],
        [],
    ]


def test_requests_without_a_target_have_a_target_of_no_columns():
    prompts = Ragged.from_lists([[8, 1, 2], [8, 4]])
    flat = {"weight": np.ones(len(ITEM_TOKENS.ids), np.float32)}
    examples = ranked_examples(prompts, lambda history: history, room=9)
    batch = make_text_batch(examples, np.arange(2), ITEM_TOKENS, flat, size=3)
    for array in (batch.target, batch.target_mask, batch.place, batch.before, batch.annotations["weight"]):
        assert array.shape == (3, 0)
    assert (batch.target_mask.dtype, batch.annotations["weight"].dtype) == (np.bool_, np.float32)
    assert batch.prompt[:, -2:].tolist() == [[1, 2], [0, 4], [0, 0]]


@pytest.mark.parametrize(
    ("n_prompt", "n_target", "widths"),
    [
        (PROMPT_WIDTHS[0], TARGET_WIDTHS[0], (PROMPT_WIDTHS[0], TARGET_WIDTHS[0])),
        (PROMPT_WIDTHS[0] + 1, TARGET_WIDTHS[0] + 1, PROMPT_WIDTHS[1:2] + TARGET_WIDTHS[1:2]),
        (PROMPT_WIDTHS[-1] + 1, TARGET_WIDTHS[-1] + 1, (2 * PROMPT_WIDTHS[-1], 2 * TARGET_WIDTHS[-1])),
    ],
)
def test_widths_come_from_a_short_list(n_prompt, n_target, widths):
    examples = _examples([[1] * n_prompt], [0])
    batch = make_text_batch(examples, np.array([0]), Ragged.from_lists([[2] * n_target]), {}, size=2)
    assert (batch.prompt.shape[1], batch.target.shape[1]) == widths
    assert (batch.prompt_mask.sum(), batch.target_mask.sum()) == (n_prompt, n_target)


def test_a_row_of_text_carries_its_seed_in_training_alone():
    seed = np.array([11, 12], np.int32)
    batch = make_text_batch(EXAMPLES, np.array([2, 0]), ITEM_TOKENS, {}, size=4, seed=seed)
    assert batch.seed is not None
    assert batch.seed.tolist() == [11, 12, 0, 0]
    assert make_text_batch(EXAMPLES, np.array([2, 0]), ITEM_TOKENS, {}, size=4).seed is None


def test_what_all_prompts_begin_with_stands_apart_unless_a_row_of_the_batch_lacks_it():
    examples = _examples([[8, 9, 1, 2], [8, 9, 3], [5, 6]], [0, 0, 0], prefix=(8, 9))
    batch = make_text_batch(examples, np.array([1, 0]), ITEM_TOKENS, {}, size=3)
    assert batch.shared_prefix.tolist() == [8, 9]
    assert batch.prompt[:, -2:].tolist() == [[0, 3], [1, 2], [0, 0]]
    whole = make_text_batch(examples, np.array([1, 2]), ITEM_TOKENS, {}, size=2)
    assert whole.shared_prefix.shape == (0,)
    assert whole.prompt[:, -3:].tolist() == [[8, 9, 3], [0, 5, 6]]


def test_items_are_padded_left_to_a_width_for_the_longest_of_the_batch():
    history = Ragged.from_lists([[0], [4, 5, 6], [7, 0]])
    examples = item_examples(history, np.array([3, 2, 1], np.int32))
    batch = make_item_batch(examples, np.array([2, 0]), size=3, seed=np.array([11, 12], np.int32))
    assert batch.history.tolist() == [[0, 0, 0, 7, 0], [0] * 5, [0] * 5]
    assert batch.history_mask.tolist() == [[False] * 3 + [True, True], [False] * 4 + [True], [False] * 5]
    assert batch.target.tolist() == [1, 3, 0]
    longer, rows = item_examples(Ragged.from_lists([[4] * 51, [0], [4] * 6, [4] * 5])), np.arange(4)
    assert [make_item_batch(longer, rows[row : row + 1], size=1).history.shape[1] for row in rows] == [100, 5, 10, 5]
    assert make_item_batch(longer, rows[1:3], size=1, own=np.array([0])).history.shape == (1, 10)
    assert by_length(longer, rows).tolist() == [1, 3, 2, 0]
    assert n_shapes(longer, in_groups(by_length(longer, rows), 2)) == 2
    assert batch.is_real.tolist() == [True, True, False]
    assert batch.seed.tolist() == [11, 12, 0]
    assert {type(array) for array in jax.tree.leaves(batch)} == {np.ndarray}


def test_items_without_a_target_or_a_seed():
    batch = make_item_batch(item_examples(Ragged.from_lists([[4, 5], [6]])), np.array([1]), size=2)
    assert batch.seed is None
    assert batch.target.tolist() == [0, 0]
    assert batch.history.tolist() == [[0] * 4 + [6], [0] * 5]
    assert batch.is_real.tolist() == [True, False]


def test_the_seed_of_a_row_depends_on_seed_step_and_row_alone():
    rows = np.arange(1000)
    seeds = seed_of_rows(rows, seed=1, step=2)
    np.testing.assert_array_equal(seeds[[7, 3]], seed_of_rows(np.array([7, 3]), seed=1, step=2))
    assert len(set(seeds.tolist())) == 1000
    for seed, step in ((1, 3), (2, 2)):
        assert (seeds != seed_of_rows(rows, seed=seed, step=step)).mean() > 0.99
