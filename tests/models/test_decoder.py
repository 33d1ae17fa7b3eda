import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from igd_jax.models.attention import KeyBlock, attend
from igd_jax.models.backbone import KVCache
from igd_jax.models.config import NAMED, Llama3Scaling, ModelConfig
from igd_jax.models.decoder import Decoder, Layer
from igd_jax.models.layers import REMAT, look_up, rotate, rotation_of
from igd_jax.models.visibility import Causal, Dense, positions_of

TINY = ModelConfig(
    vocab_size=50,
    hidden_size=32,
    mlp_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    rope_theta=1e4,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
    qkv_bias=True,
    qk_norm=True,
    max_positions=64,
)
PUBLIC_SIZES = {
    "pico": 164_416,
    "nano": 1_312_896,
    "mini": 9_969_920,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "llama3-8b": 8_030_261_248,
}
IDS = jnp.asarray([[3, 14, 15, 9, 26, 5], [2, 7, 18, 28, 1, 8]], jnp.int32)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def tiny(*, tied: bool = True, **options) -> Decoder:
    """A decoder with random values in every weight, norms and biases too."""
    config = dataclasses.replace(TINY, tie_embeddings=tied)
    graph, abstract = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), **options)))
    random = np.random.default_rng(0)
    return nnx.merge(
        graph, jax.tree.map(lambda leaf: jnp.asarray(0.3 * random.normal(size=leaf.shape), leaf.dtype), abstract)
    )


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return tiny()


@partial(jax.jit, static_argnums=0)
def _run(graph, weights, inputs, arguments):
    return nnx.merge(graph, weights)(inputs, **arguments)


def run(decoder: Decoder, inputs, **arguments):
    return _run(*nnx.split(decoder), inputs, arguments)


def run_causal(decoder: Decoder, inputs, valid=None):
    valid = jnp.ones(inputs.shape[:2], bool) if valid is None else valid
    return run(decoder, inputs, positions=positions_of(valid), visible=Causal(valid))


@pytest.mark.parametrize("name", PUBLIC_SIZES)
def test_named_models_have_their_public_parameter_counts(name: str):
    abstract = nnx.eval_shape(lambda: Decoder(NAMED[name], rngs=nnx.Rngs(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(abstract))) == PUBLIC_SIZES[name]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(nnx.state(abstract.layers))} == {NAMED[name].num_layers}


def test_every_named_model_has_a_public_count():
    assert PUBLIC_SIZES.keys() == NAMED.keys()


def test_layers_start_from_different_weights_of_the_stated_spread():
    decoder = Decoder(TINY, rngs=nnx.Rngs(0))
    kernel = np.asarray(decoder.layers.mlp.up.kernel[...])
    assert not np.allclose(kernel[0], kernel[1])
    assert 0.018 < kernel.std() < 0.022
    assert 0.018 < np.asarray(decoder.embed[...]).std() < 0.022
    assert np.all(np.asarray(decoder.layers.attention.q.bias[...]) == 0)
    assert np.all(np.asarray(decoder.norm.scale[...]) == 1)


def test_attention_over_blocks_is_one_softmax_per_head():
    random = np.random.default_rng(0)
    query, keys, values = (random.normal(size=(2, length, heads, 8)) for length, heads in ((3, 4), (7, 2), (7, 2)))
    mask = random.random((2, 3, 7)) < 0.7
    mask[:, :, 0] = True
    expected = np.zeros_like(query)
    for b, t, head in np.ndindex(2, 3, 4):
        logits = keys[b, mask[b, t], head // 2] @ query[b, t, head] / math.sqrt(8)
        share = np.exp(logits) / np.exp(logits).sum()
        expected[b, t, head] = share @ values[b, mask[b, t], head // 2]
    key, value = (jnp.asarray(x.transpose(0, 2, 1, 3), jnp.float32) for x in (keys, values))
    pieces = [slice(0, 4), slice(4, 5), slice(5, 7)]
    blocks = [KeyBlock(key[:, :, piece], value[:, :, piece], jnp.asarray(mask[:, :, piece])) for piece in pieces]
    close(jax.jit(attend)(jnp.asarray(query, jnp.float32), blocks), expected)


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    x = jax.random.normal(jax.random.key(0), (1, 1, 2, 8))
    x = jnp.broadcast_to(x, (1, 40, 2, 8))
    turned = np.asarray(jax.jit(lambda x, t: rotate(x, rotation_of(t, TINY)))(x, jnp.arange(40)[None]))[0]
    close(np.linalg.norm(turned, axis=-1), np.linalg.norm(x[0], axis=-1))
    dots = np.einsum("thd,shd->hts", turned[:, :1], turned[:, 1:])[0]
    close(dots[5, 2], dots[38, 35], rtol=1e-4)
    assert abs(dots[5, 2] - dots[2, 5]) > 1e-2
    close(turned[0], x[0, 0])


def test_llama3_scaling_keeps_fast_and_divides_slow_frequencies():
    scaling = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=64)
    plain = dataclasses.replace(TINY, rope_theta=100.0)
    one = jnp.ones((1, 1), jnp.int32)
    before, after = (
        np.arcsin(rotation_of(one, config)[1])[0, 0, 1:]
        for config in (plain, dataclasses.replace(plain, rope_scaling=scaling))
    )
    turns = 64 * before / (2 * np.pi)
    close(turns, [3.2211, 1.0186, 0.3221], rtol=1e-3)
    kept = np.asarray([(turns[0] - 1) / 3, (turns[1] - 1) / 3, 0.0])
    close(after, before * (kept + (1 - kept) / 8))
    close(rotation_of(one, plain)[1][0, 0, 0], np.sin(1.0))


def test_token_by_token_with_a_cache_equals_one_pass(decoder: Decoder):
    expected, expected_cache = run_causal(decoder, IDS)
    n_tokens = IDS.shape[1]
    shape = (TINY.num_layers, 2, TINY.num_kv_heads, n_tokens, TINY.head_dim)
    cache = KVCache(key=jnp.zeros(shape), value=jnp.zeros(shape))
    for t in range(n_tokens):
        seen = jnp.broadcast_to(jnp.arange(n_tokens) < t, (2, 1, n_tokens))
        hidden, new = run(
            decoder,
            IDS[:, t : t + 1],
            positions=jnp.full((2, 1), t, jnp.int32),
            visible=Dense(jnp.ones((2, 1, 1), bool)),
            past=[(cache, seen)],
        )
        close(hidden[:, 0], expected[:, t])
        cache = jax.tree.map(lambda old, piece, t=t: old.at[:, :, :, t].set(piece[:, :, :, 0]), cache, new)
    jax.tree.map(close, cache, expected_cache)


def test_left_padding_changes_nothing(decoder: Decoder):
    expected, _ = run_causal(decoder, IDS)
    valid = jnp.broadcast_to(jnp.arange(9) >= 3, (2, 9))
    padded, _ = run_causal(decoder, jnp.pad(IDS, ((0, 0), (3, 0)), constant_values=11), valid)
    close(padded[:, 3:], expected)


def test_tree_in_any_slot_order_equals_separate_sequences(decoder: Decoder):
    """Prompt a b c; the beams d e f and g h i. Slots hold g d, then one call runs i e f h."""
    a, b, c, d, e, f, g, h, i = range(10, 19)
    first, _ = run_causal(decoder, jnp.asarray([[a, b, c, d, e, f], [a, b, c, g, h, i]], jnp.int32))
    _, prompt = run_causal(decoder, jnp.asarray([[a, b, c]], jnp.int32))
    heads, stored = run(
        decoder,
        jnp.asarray([[g, d]], jnp.int32),
        positions=jnp.full((1, 2), 3, jnp.int32),
        visible=Dense(jnp.eye(2, dtype=bool)[None]),
        past=[(prompt, jnp.ones((1, 2, 3), bool))],
    )
    close(heads[0], first[jnp.asarray([1, 0]), 3])
    store = jax.tree.map(lambda new, old: jnp.concatenate([new, old], axis=3)[:, :, :, ::-1], stored, prompt)
    seen = jnp.asarray([[[1, 1, 1, 0, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]], bool)
    halves = [(jax.tree.map(lambda x, at=at: x[:, :, :, at], store), seen[..., at]) for at in (slice(2), slice(2, 5))]
    for past in ([(store, seen)], halves):
        tails, _ = run(  # slots: c b a d g
            decoder,
            jnp.asarray([[i, e, f, h]], jnp.int32),
            positions=jnp.asarray([[5, 4, 5, 4]], jnp.int32),
            visible=Dense(jnp.asarray([[[1, 0, 0, 1], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]], bool)),
            past=past,
        )
        close(tails[0], jnp.stack([first[1, 5], first[0, 4], first[0, 5], first[1, 4]]))


def test_embeddings_in_equal_tokens_in(decoder: Decoder):
    expected, _ = run_causal(decoder, IDS)
    hidden, _ = run_causal(decoder, decoder.embed[...][IDS])
    np.testing.assert_array_equal(hidden, expected)


def loss_of(graph, weights):
    decoder = nnx.merge(graph, weights)
    valid = jnp.ones(IDS.shape, bool)
    hidden, _ = decoder(IDS, positions=positions_of(valid), visible=Causal(valid))
    return jnp.mean(jax.nn.logsumexp(decoder.logits(hidden), axis=-1) + jnp.sum(jnp.square(hidden), axis=-1) ** 0.5)


@pytest.mark.slow
def test_every_policy_keeps_less_than_the_one_before_and_changes_neither_value_nor_gradient():
    results, kept = [], []
    for remat in REMAT:
        graph, weights = nnx.split(tiny(remat=remat))
        loss = partial(loss_of, graph)
        residuals = jax.eval_shape(lambda w, loss=loss: jax.vjp(loss, w)[1], weights)
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(residuals)))
        results.append(jax.jit(jax.value_and_grad(loss))(weights))
    assert list(REMAT) == ["none", "dots", "full"]
    assert kept[2] < kept[1] < 0.6 * kept[0]
    for found in results[1:]:
        jax.tree.map(close, found, results[0])
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(results[0][1]))


@pytest.mark.parametrize("num_layers", [1, 5])
def test_layer_is_traced_once_whatever_the_depth(num_layers: int, monkeypatch: pytest.MonkeyPatch):
    calls = []
    original = Layer.__call__
    monkeypatch.setattr(Layer, "__call__", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    config = dataclasses.replace(TINY, num_layers=num_layers)
    abstract = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    graph, weights = nnx.split(abstract)
    jax.eval_shape(partial(loss_of, graph), weights)
    assert len(calls) == 1


def test_token_that_may_look_nowhere_is_finite_and_harms_nobody(decoder: Decoder):
    def hidden_of(embedded, valid):
        return run_causal(decoder, embedded, valid)[0]

    embedded = decoder.embed[...][IDS]
    valid = jnp.broadcast_to(jnp.arange(6) >= 2, (2, 6))
    assert np.all(np.isfinite(hidden_of(embedded, valid)))
    gradient = jax.grad(lambda x: jnp.sum(hidden_of(x, valid)[:, 2:]))(embedded)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient[:, :2]) == 0)
    assert np.all(np.any(np.asarray(gradient[:, 2:]) != 0, axis=-1))


def test_bfloat16_computes_near_float32_from_the_same_weights(decoder: Decoder):
    half = tiny(dtype=jnp.bfloat16)
    hidden, cache = run_causal(half, IDS)
    assert (hidden.dtype, cache.key.dtype, cache.value.dtype) == (jnp.bfloat16,) * 3
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half))} == {jnp.dtype(jnp.float32)}
    expected, _ = run_causal(decoder, IDS)
    np.testing.assert_allclose(hidden.astype(jnp.float32), expected, atol=0.1)
    assert half.logits(hidden).dtype == jnp.float32


def test_weights_are_stored_in_param_dtype():
    abstract = nnx.eval_shape(lambda: Decoder(TINY, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(abstract))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_products_with_the_rows_of_the_head(tied: bool):
    model = tiny(tied=tied)
    assert (model.head is None) == tied
    hidden = jax.random.normal(jax.random.key(1), (3, 32))
    head = model.embed if tied else model.head
    close(model.logits(hidden), np.asarray(hidden) @ np.asarray(head[...]).T)
    close(model.logits(hidden[0]), model.logits(hidden)[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_an_embedding_are_summed_in_float32(dtype):
    table, ids = jnp.zeros((5, 3), dtype), jnp.asarray([[2] * 4096, [4] * 4096], jnp.int32)
    found = jax.jit(jax.grad(lambda table: look_up(table, ids).sum(dtype=jnp.float32)))(table)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array([0, 0, 4096, 0, 4096])[:, None].repeat(3, 1))
