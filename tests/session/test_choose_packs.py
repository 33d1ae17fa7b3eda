"""The width of packs, if it is not given, is the one that takes the fewest operations."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from runs import session_of

from igd_jax.core.errors import InputError
from igd_jax.data.batches import rows_of_step, steps_per_epoch
from igd_jax.data.packing import PackShape, own_lengths, place_rows
from igd_jax.session import packing
from igd_jax.session.cost import backbone_config
from igd_jax.session.input import micro_batches
from igd_jax.session.packing import choose_packs
from igd_jax.session.train_plan import TrainPlan


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
    train, any_room = session.examples(session.rows("train")), PackShape(128, packing.ANY, packing.ANY, 0)
    placed = place_rows(train, np.arange(8), session.index.item_tokens, any_room)
    steps = [replace(placed, n_packs=number) for number in n_packs]
    tried = {PackShape(64, 0, 0, packs): steps for packs in choices}
    assert packing._cheapest((backbone_config(session), 300), tried)[0].packs == expected


def test_rows_of_an_evaluation_are_placed_together_whatever_the_size_of_a_step(tiny, tmp_path):
    config = tiny_run.tiny_config(tiny, {"train.packing": "rows", "train.global_batch_size": 8})
    session = session_of(config, tmp_path)
    objective = session.method.objective(session.context(session.index))
    train = session.examples(session.rows("train"))
    packs = choose_packs(session, objective, TrainPlan(session, len(train)), train=train, valid=train)
    rows = np.arange(len(train))
    batches = [*micro_batches(session, objective.annotations, train, rows, packs=packs)]
    placed = place_rows(train, rows, session.index.item_tokens, packs)
    assert len(batches) == -(-placed.n_packs // packs.packs) < len(rows) / 8


@pytest.mark.parametrize(("packing", "n_rows", "in_packs"), [("auto", 1, False), ("rows", 1, True), ("auto", 16, True)])
def test_rows_are_padded_where_that_takes_fewer_operations_unless_told(
    tiny, tmp_path, capsys, packing, n_rows, in_packs
):
    sizes = {"train.global_batch_size": n_rows, "train.micro_batch_size": n_rows}
    found = _chosen(tiny, tmp_path, {"train.packing": packing, **sizes})
    told = capsys.readouterr().out
    assert (found is not None) == in_packs
    assert ("packing: none, as padded rows take 0." in told) == (not in_packs)


def test_packs_that_fill_up_a_micro_batch_are_no_tokens(tiny, tmp_path, capsys):
    sizes = {"train.pack_length": 64, "train.global_batch_size": 16}
    found = _chosen(tiny, tmp_path, {"train.packing": "rows", **sizes})
    (told,) = re.findall(r"; (\d+)% of tokens", capsys.readouterr().out)
    session = session_of(tiny_run.tiny_config(tiny, sizes), tmp_path)
    train, tokens = session.examples(session.rows("train")), session.index.item_tokens
    own = own_lengths(train, tokens, shares_prefix=True)
    used = read = 0
    for step in range(steps_per_epoch(len(train), 16)):
        rows = rows_of_step(len(train), batch_size=16, seed=session.settings.train.seed, step=step)
        used += own[rows].sum()
        read += 64 * found.packs * -(-place_rows(train, rows, tokens, found).n_packs // found.packs)
    assert int(told) == round(100 * used / read)


def test_a_pack_that_no_step_can_fill_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match=r"pack_length is 5000, but the .* rows of a step have at most \d+ tokens"):
        _chosen(tiny, tmp_path, {"train.packing": "rows", "train.pack_length": 5000})


def _chosen(tiny, tmp_path, changes=None):
    session = session_of(tiny_run.tiny_config(tiny, {"train.packing": "rows"} | (changes or {})), tmp_path)
    objective = session.method.objective(session.context(session.index))
    train, valid = (session.examples(session.rows(split)) for split in ("train", "valid"))
    return choose_packs(session, objective, TrainPlan(session, len(train)), train=train, valid=valid)
