"""Batches of a ranker are the same whoever makes their parts, and its weights are those that products read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_run import tiny_config

from igd_jax.core.allowed import Allowed
from igd_jax.core.io import Workdir
from igd_jax.session.limits import decode_options
from igd_jax.session.ranker import Ranker, engine_of
from igd_jax.session.recommender import Recommender
from igd_jax.session.session import set_up_to_decode
from igd_jax.session.weights import trained_model


def test_a_process_of_several_may_hold_no_row_of_a_short_batch(trained):
    ranker = Recommender.load(trained)
    examples = ranker.examples(ranker.session.rows("test").take(np.arange(3)))
    without_first = Allowed(None, np.array([0]))
    parts = [
        ranker.batch(examples, np.arange(3), size=8, own=own, allowed=[without_first] * 3)
        for own in (np.arange(4), np.arange(4, 8))
    ]
    expected = np.zeros((8, len(ranker.index.catalog)), bool)
    expected[:3] = without_first.mask(ranker.index.is_candidate)
    np.testing.assert_array_equal(np.concatenate([part.allowed for part in parts]), expected)


@pytest.mark.parametrize("changes", [{}, pytest.param({"model.lora_rank": 4}, marks=pytest.mark.slow)])
def test_float32_weights_are_rounded_once_where_bfloat16_is_computed_with(tiny, tmp_path, changes):
    workdir = Workdir(str(tmp_path))
    session = set_up_to_decode(tiny_config(tiny, {"model.dtype": "bfloat16", **changes}), workdir)
    ranker, as_given = Ranker(session, workdir), trained_model(session, workdir, session.context(session.index)).model
    for model, dtype in ((as_given, jnp.float32), (ranker.trained.model, jnp.bfloat16)):
        weights = nnx.to_flat_state(nnx.state(model))
        in_products = [path[-1] in ("kernel", "embed", "head") for path, _ in weights]
        for (_, weight), is_read in zip(weights, in_products, strict=True):
            assert weight.get_value().dtype == (dtype if is_read else jnp.float32)
        assert {*in_products} == {True, False}

    examples = ranker.examples(session.rows("test"))
    engine = engine_of(session, session.index, as_given, decode_options(session.settings.decode, session.index))
    rounded, expected = ranker.rank(examples), ranker.rank(examples, engine=engine)
    jax.tree.map(np.testing.assert_array_equal, rounded, expected)


def test_a_call_is_sized_for_the_rows_that_are_asked_for(trained, monkeypatch):
    ranker, sizes = Recommender.load(trained), []
    monkeypatch.setattr("igd_jax.decoding.jump.budget_of", lambda budget, n_rows, platform: sizes.append(n_rows) or {})
    test = ranker.session.rows("test")
    for n_rows in (1, 3, len(test)):
        ranker.rank(ranker.examples(test.take(np.arange(n_rows))))
    assert sizes == [1, 4, ranker.session.settings.decode.batch_size]


def test_a_search_of_split_weights_says_that_whole_ones_are_faster(tiny, tmp_path, capsys):
    workdir = Workdir(str(tmp_path))
    for parts in (1, 2):
        Ranker(set_up_to_decode(tiny_config(tiny, {"mesh.fsdp": parts}), workdir), workdir)
        assert ("--config.mesh.fsdp=1 is faster" in capsys.readouterr().out) == (parts > 1)
