"""Runs whose weights are bfloat16: trained in each of the ways there are, resumed, and searched with."""

import shutil

import jax
import jax.numpy as jnp
import pytest
from command import run_here
from runs import assert_same_run, first_gradients, saved, train_tiny
from tiny_run import tiny_config

from igd_jax import evaluate
from igd_jax.core.io import read_json

CHANGES = {
    "model.dtype": "bfloat16", "model.param_dtype": "bfloat16", "train.num_steps": 4, "train.eval_every_steps": 2,
    "train.checkpoint_every_steps": 2, "train.log_every_steps": 1,
}  # fmt: skip
BYTES = {"master": 2 + 4 + 8, "stochastic": 2 + 8, "pure": 2 + 4}
"""Of a weight and what the optimizer keeps of it."""


@pytest.mark.parametrize(
    ("bfloat16", "dtype"), {"master": "float32", "stochastic": "float32", "pure": "bfloat16"}.items()
)
def test_a_run_adds_gradients_up_in_float32_unless_it_is_pure(tiny, tmp_path, bfloat16, dtype):
    sums = first_gradients(tiny_config(tiny, CHANGES | {"train.bfloat16": bfloat16}), tmp_path)
    expected = jnp.bfloat16 if bfloat16 == "pure" else jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(expected)}


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", BYTES)
def test_a_run_of_bfloat16_weights_resumes_as_if_nothing_had_been_and_ranks(tiny, tmp_path, capsys, bfloat16):
    changes = CHANGES | {"train.bfloat16": bfloat16}
    whole = tmp_path / "whole"
    train_tiny(tiny, whole, changes)
    resumed = shutil.copytree(whole, tmp_path / "resumed")
    shutil.rmtree(resumed / "checkpoints/last/4")
    train_tiny(tiny, resumed, changes)
    assert "resuming from step 2 of 4" in capsys.readouterr().out
    assert_same_run(resumed, whole)

    (state, _), (best, _) = saved(whole)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, best))} == {jnp.dtype(jnp.bfloat16)}
    n_weights = sum(leaf.size for leaf in jax.tree.leaves(best))
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state)) if leaf.ndim)
    assert n_bytes == BYTES[bfloat16] * n_weights

    done = run_here(evaluate, f"--workdir={whole}")
    assert (done.code, done.err) == (0, ""), done.err
    assert read_json(whole / "eval/test/metrics.json")["invalid"] == 0
