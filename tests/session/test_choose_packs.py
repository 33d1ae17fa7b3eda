"""The width of packs, if it is not given, is the one that takes the fewest operations."""

import numpy as np
import pytest
import tiny_run
from runs import session_of

from igd_jax.data.packing import PackShape, place_rows
from igd_jax.session import packing
from igd_jax.session.cost import backbone_config
from igd_jax.session.input import micro_batches
from igd_jax.session.packing import choose_packs


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        pytest.param(lambda columns: columns**2.0, 64, id="attention is all"),
        pytest.param(lambda columns: columns**-2.0, 256, id="the fewest packs"),
        pytest.param(lambda columns: {64: 2.0, 128: 1.0, 192: 2.0}[columns], 128, id="between"),
    ],
)
def test_the_width_of_packs_is_the_cheapest(cost, expected, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "WIDTHS", (128, 256))
    monkeypatch.setattr(packing, "forward_flops_per_token", lambda config, columns: cost(columns))
    assert _chosen(tiny, tmp_path).width == expected


@pytest.mark.parametrize(
    ("n_packs", "expected"),
    [
        pytest.param([4, 4], 4, id="as many as asked for"),
        pytest.param([5, 5], 5, id="one more, and one micro-batch instead of two"),
        pytest.param([9, 12], 4, id="no more, as that would leave more empty"),
    ],
)
def test_a_micro_batch_has_the_number_of_packs_that_leaves_fewest_empty(n_packs, expected, tiny, tmp_path, monkeypatch):
    session = session_of(tiny_run.tiny_config(tiny), tmp_path)
    choices = packing._numbers_of_packs(4.0, session.mesh)
    assert choices == [4, 5]
    config, shapes = backbone_config(session), {packs: PackShape(64, 0, 0, packs) for packs in choices}
    assert min(choices, key=lambda packs: packing._flops(config, shapes[packs], n_packs=n_packs, n_ids=300)) == expected


def test_rows_of_an_evaluation_are_placed_together_whatever_the_size_of_a_step(tiny, tmp_path):
    config = tiny_run.tiny_config(tiny, {"train.packing": "rows", "train.global_batch_size": 8})
    session = session_of(config, tmp_path)
    objective = session.method.objective(session.context(session.index))
    train = session.examples(session.rows("train"))
    packs, rows = choose_packs(session, objective, train=train, valid=train), np.arange(len(train))
    batches = [*micro_batches(session, objective.annotations, train, rows, packs=packs)]
    placed = place_rows(train, rows, session.index.item_tokens, packs)
    assert len(batches) == -(-placed.n_packs // packs.packs) < len(rows) / 8


def _chosen(tiny, tmp_path):
    session = session_of(tiny_run.tiny_config(tiny, {"train.packing": "rows"}), tmp_path)
    objective = session.method.objective(session.context(session.index))
    train, valid = (session.examples(session.rows(split)) for split in ("train", "valid"))
    return choose_packs(session, objective, train=train, valid=valid)
