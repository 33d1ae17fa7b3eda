"""Dropout of adapters: which numbers it zeroes, and that a row's draws follow from the seed of that row alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from tiny_models import random_model

from igd_jax.models.dropout import row_keys
from igd_jax.models.lora import TARGETS, LoRA, LowRank, add_lora

PROMPTS, TARGET = [[3, 4, 5, 6, 7], [3, 4, 8], [3, 4, 9, 10]], [[11, 12, 0], [13, 0], [14, 15, 0]]
SEEDS = jnp.asarray([5, 6, 7], jnp.int32)


def _decoder(dropout: float, *, remat: str = "none"):
    decoder = random_model("decoder", spread=0.2)
    decoder.remat = remat
    add_lora(decoder, LoRA(4, 8.0, ",".join(TARGETS), dropout), rngs=nnx.Rngs(0))
    for _, module in nnx.iter_modules(decoder):
        if isinstance(module, LowRank):
            module.b[...] = 0.3 * jax.random.normal(jax.random.key(module.site), module.b.shape)
    return decoder


@nnx.jit
def _hidden(decoder, batch):
    return decoder.target_hidden(batch)


def _batch(rows=(0, 1, 2), *, seed=SEEDS, shared=0, wider=0):
    prompts = [PROMPTS[row][shared:] for row in rows]
    width = max(map(len, prompts)) + wider
    batch = text_batch(prompts, [TARGET[row] for row in rows], width=width, shared=PROMPTS[0][:shared])
    return batch.replace(seed=None if seed is None else seed[jnp.asarray(rows)])


def test_numbers_are_zeroed_or_scaled_up_for_each_token_and_adapter():
    x, keys = 1.0 + jnp.arange(400.0).reshape(10, 40), row_keys(jnp.arange(10))
    lora = LoRA(40, 40.0, "q", 0.25)
    found = []
    for site in (0, 1):
        adapter = LowRank(1, 40, 40, lora=lora, site=site, rngs=nnx.Rngs(0))
        adapter.a[...] = adapter.b[...] = jnp.eye(40)[None]
        layer = jax.tree.map(lambda leaf: leaf[0], nnx.state(adapter))
        adapter = nnx.merge(nnx.graphdef(adapter), layer)
        dropped = np.asarray(adapter(x, keys) / x)
        np.testing.assert_allclose(np.unique(dropped.round(5)), [0.0, 1.33333], rtol=1e-6)
        assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.07)
        np.testing.assert_array_equal(adapter(x), x)
        found.append(dropped == 0)
    assert (found[0] != found[1]).any()
    assert (found[0][0] != found[0][1]).any()


def test_there_is_dropout_only_with_seeds_and_a_rate():
    plain = _hidden(_decoder(0.0), _batch())
    np.testing.assert_array_equal(_hidden(_decoder(0.3), _batch(seed=None)), _hidden(_decoder(0.0), _batch(seed=None)))
    np.testing.assert_array_equal(plain, _hidden(_decoder(0.0), _batch(seed=None)))
    assert np.abs(_hidden(_decoder(0.3), _batch()) - plain).max() > 0.1


def test_draws_of_a_row_depend_neither_on_the_rows_beside_nor_on_padding_nor_on_a_shared_prefix():
    decoder = _decoder(0.3)
    whole, mask = np.asarray(_hidden(decoder, _batch())), np.asarray(_batch().target_mask)
    for alike in (_batch(wider=4), _batch(shared=2), _batch(shared=1, wider=3)):
        np.testing.assert_allclose(np.asarray(_hidden(decoder, alike))[mask], whole[mask], rtol=1e-4, atol=1e-5)
    alone = _hidden(decoder, _batch((1,)))
    np.testing.assert_allclose(alone[0], whole[1, : alone.shape[1]], rtol=1e-4, atol=1e-5)
    other = np.asarray(_hidden(decoder, _batch(seed=SEEDS.at[0].add(1))))
    np.testing.assert_allclose(other[1:], whole[1:], rtol=1e-4, atol=1e-5)
    assert np.abs(other[0] - whole[0]).max() > 0.01


def test_recomputed_layers_draw_the_same():
    def loss(decoder):
        return jnp.square(decoder.target_hidden(_batch())).mean()

    plain, again = (nnx.jit(nnx.value_and_grad(loss))(_decoder(0.3, remat=remat)) for remat in ("none", "full"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, again)
