"""Quantised weights: against NumPy, as parts of products and gradients, loaded from files, and beneath adapters."""

import shutil
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import run_here
from flax import nnx
from runs import assert_same_run, saved, train_tiny
from safetensors.numpy import load_file, save_file

from igd_jax import evaluate
from igd_jax.core.errors import InputError
from igd_jax.core.io import read_json
from igd_jax.core.memory import shown_bytes
from igd_jax.models.decoder_weights import load_decoder
from igd_jax.models.layers import Linear
from igd_jax.models.lora import LoRA, add_lora
from igd_jax.models.quantized import KINDS, Quantized, quantize_layers, quantized, quantized_variable
from igd_jax.session.weights import split_trainable
from igd_jax.training.frozen_fingerprint import frozen_fingerprint

NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
"""Appendix E of arXiv 2305.14314."""
WEIGHTS = np.random.default_rng(0).normal(0, 0.02, (3, 128, 6)).astype(np.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(5, 128)), jnp.float32)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nf4_is_the_nearest_published_quantile_in_blocks_of_64(dtype):
    blocks = WEIGHTS.reshape(3, 2, 64, 6)
    scale = np.abs(blocks).max(axis=2, keepdims=True)
    nearest = np.abs((blocks / scale)[..., None] - np.float32(NF4)).argmin(axis=-1)
    expected = (np.float32(NF4)[nearest] * scale).reshape(WEIGHTS.shape)
    dense = quantized(jnp.asarray(WEIGHTS), "nf4").astype(dtype).dense()
    assert dense.dtype == dtype
    np.testing.assert_array_equal(dense, expected.astype(dtype))


def test_int8_is_within_half_a_step_of_each_weight():
    found = quantized(jnp.asarray(WEIGHTS), "int8")
    np.testing.assert_allclose(found.scale, np.abs(WEIGHTS).max(axis=1, keepdims=True) / 127.5, rtol=1e-6)
    assert (np.abs(found.dense() - WEIGHTS) <= 0.501 * np.asarray(found.scale)).all()


@pytest.mark.parametrize(("kind", "expected"), [("int8", 1 + 4 / 128), ("nf4", 1 / 2 + 4 / 64)])
def test_bytes_of_a_weight(kind, expected):
    leaves = jax.tree.leaves(quantized(jnp.asarray(WEIGHTS), kind))
    assert sum(leaf.on_device_size_in_bytes() for leaf in leaves) == expected * WEIGHTS.size


def test_widths_that_64_does_not_divide_have_smaller_blocks():
    found = quantized(jnp.asarray(WEIGHTS[:, :96]), "nf4")
    assert found.scale.shape == (3, 3, 6)
    assert found.dense().shape == (3, 96, 6)


@pytest.mark.parametrize("shape", [(2, 32, 65), (2, 33, 64), (2, 40, 64)])
def test_widths_that_nf4_does_not_fit_are_refused(shape):
    with pytest.raises(InputError, match=r"config.model.quantize is nf4, but a linear map of the model has"):
        quantized_variable(jnp.ones(shape), "nf4")
    quantized_variable(jnp.ones(shape), "int8")


@pytest.mark.parametrize("kind", KINDS)
def test_products_and_gradients_are_those_of_the_dense_weights_which_are_not_kept(kind):
    found = quantized(jnp.asarray(WEIGHTS), kind)

    def product(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tile(x @ w.astype(x.dtype), (1, 22))[:, :128], None), x, weights)[0]

    def dense_product(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tile(x @ w, (1, 22))[:, :128], None), x, weights)[0]

    ours, theirs = (
        jax.jit(jax.value_and_grad(lambda x, weights=weights, run=run: jnp.square(run(x, weights)).sum()))(X)
        for run, weights in ((product, found), (dense_product, found.dense()))
    )
    jax.tree.map(close, ours, theirs)
    kept = jax.eval_shape(lambda x, weights: jax.vjp(lambda x: product(x, weights), x)[1], X, found)
    assert WEIGHTS.shape not in {leaf.shape for leaf in jax.tree.leaves(kept) if leaf.dtype == jnp.float32}


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(InputError, match=r"needs the package qwix, which is not installed; install it: pip install "):
        quantized(jnp.asarray(WEIGHTS[:, :32]), "int8")


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_layers_are_quantised_as_they_are_loaded_and_the_rest_is_not(tiny, kind):
    loaded, plain = load_decoder(tiny / "model", quantize=kind), load_decoder(tiny / "model")
    quantize_layers(plain, kind)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), nnx.state(plain))
    kernels = [module.kernel for _, module in nnx.iter_modules(loaded) if isinstance(module, Linear)]
    assert len(kernels) == 7
    assert all(isinstance(kernel.get_value(), Quantized) for kernel in kernels)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(loaded, nnx.Param))} == {jnp.dtype(jnp.float32)}


def _mark(folder, kind: str) -> str:
    decoder = load_decoder(folder, quantize=kind)
    add_lora(decoder, LoRA(2, 4.0, "q"), rngs=nnx.Rngs(0))
    _, trained, frozen = split_trainable(decoder)
    assert {path[-1] for path, _ in nnx.to_flat_state(trained)} == {"a", "b"}
    return frozen_fingerprint(frozen)


def test_the_fingerprint_is_that_of_the_weights_before_they_are_quantised(tiny, tmp_path):
    assert len({_mark(tiny / "model", kind) for kind in ("", "int8", "nf4")}) == 3
    tensors, changed = load_file(tiny / "model" / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    tensors[changed][0, 0] *= np.float32(1.0001)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny / "model" / name).read_bytes())
    save_file(tensors, tmp_path / "model.safetensors")
    assert _mark(tmp_path, "int8") != _mark(tiny / "model", "int8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_quantised_weights_resumes_and_ranks(tiny, tmp_path, capsys, kind):
    changes = {
        "model.quantize": kind, "model.lora_rank": 2, "model.dtype": "bfloat16", "model.param_dtype": "bfloat16",
        "train.num_steps": 4, "train.eval_every_steps": 2, "train.checkpoint_every_steps": 2,
    }  # fmt: skip
    whole = tmp_path / "whole"
    train_tiny(tiny, whole, changes)
    told = capsys.readouterr().out
    model = load_decoder(tiny / "model", param_dtype=jnp.bfloat16, quantize=kind)
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))
    assert f" parameters to train beside {shown_bytes(n_bytes)} of frozen arrays" in told
    (state, _), _ = saved(whole)
    assert {path[-1] for path, _ in nnx.to_flat_state(state.params)} == {"a", "b"}
    resumed = shutil.copytree(whole, tmp_path / "resumed")
    shutil.rmtree(resumed / "checkpoints/last/4")
    train_tiny(tiny, resumed, changes)
    assert "resuming from step 2 of 4" in capsys.readouterr().out
    assert_same_run(resumed, whole)
    done = run_here(evaluate, f"--workdir={whole}")
    assert (done.code, done.err) == (0, ""), done.err
    assert read_json(whole / "eval/test/metrics.json")["invalid"] == 0
