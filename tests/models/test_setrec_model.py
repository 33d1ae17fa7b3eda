"""Sets of tokens: where they stand, who sees whom, and what padding and order change: nothing."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_run import HF_CONFIG

from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf
from igd_jax.models.item_tokens import ItemTokens, torch_linear
from igd_jax.models.lora import LoRA, add_lora
from igd_jax.models.setrec import POSITIONS, SetModel, apart, lay_out
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import T5Config
from igd_jax.models.visibility import Causal, Dense

N_ITEMS, N_TOKENS, WIDTH = 12, 3, 32
T5_CONFIG = T5Config(
    vocab_size=40, hidden_size=WIDTH, mlp_size=48, num_layers=2, num_decoder_layers=2, num_heads=2, head_dim=8,
    num_buckets=8, max_distance=20, eps=1e-6, gated=False,
)  # fmt: skip
MASK = jnp.asarray([[False, True, True], [True, True, True]])


def make(
    kind: str,
    *,
    positions: str = "contiguous",
    attention: str = "sparse",
    n_tokens: int = N_TOKENS,
    t5: T5Config = T5_CONFIG,
    collaborative: bool = True,
) -> SetModel:
    """A model with weights large enough for every token to be seen."""
    rng = np.random.default_rng(0)
    rngs = nnx.Rngs(0)
    first = partial(Decoder, from_hf(HF_CONFIG)) if kind == "decoder" else partial(T5, t5)
    graph, state = nnx.split(nnx.eval_shape(lambda: first(rngs=nnx.Rngs(0))))
    state = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), state)
    backbone = nnx.merge(graph, state)
    vectors, features = (jnp.asarray(rng.normal(size=(N_ITEMS, width)), jnp.float32) for width in (5, 7))
    tokens = ItemTokens(
        vectors if collaborative else None, features if n_tokens > 1 else None, trains_vectors=False,
        n_semantic=n_tokens - collaborative, width=WIDTH, rngs=rngs,
    )  # fmt: skip
    return SetModel(
        backbone, tokens, instruction=jnp.asarray([4, 5]), response=jnp.asarray([6]), positions=positions,
        query_scale=1.0, rngs=rngs, attention=attention,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["decoder", "t5"])
def model(request) -> SetModel:
    return make(request.param)


@pytest.fixture(scope="module")
def history() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, N_TOKENS, WIDTH)), jnp.float32)


@nnx.jit
def ask(model, history, mask):
    return model(history, mask)


def differs(a, b) -> np.ndarray:
    """Queries whose output is another, in any row."""
    return np.abs(np.asarray(a - b)).max(axis=(0, 2)) > 1e-4


# -------------------------------------------------------------------------------------------------------------- layout
def test_positions_and_groups_are_the_rows_of_the_docstring():
    mask = jnp.asarray([[False, True, True], [True, True, True]])
    expected = {
        (False, False): [0, 0, 0, 1, 1, 2, 2, 3, 4, 5],
        (True, False): [0, 0, 0, 1, 1, 2, 2, 5, 6, 7],
        (True, True): [0, 1, 1, 2, 2, 3, 3, 7, 8, 9],
    }
    for (gap, padded), rows in expected.items():
        layout = lay_out(mask, n_instruction=1, n_response=1, n_tokens=2, gap=gap, padded=padded)
        assert layout.group.tolist() == [0, 1, 1, 2, 2, 3, 3, 4]
        assert layout.valid[0].tolist() == [True, False, False, True, True, True, True, True]
        assert [*layout.positions[0].tolist(), *layout.query_positions[0].tolist()] == rows


def test_padding_counts_up_to_two_items_at_least():
    mask = jnp.asarray([[False, True], [False, False]])
    layout = lay_out(mask, n_instruction=1, n_response=1, n_tokens=3, padded=True)
    assert layout.positions[0].tolist() == [0, 1, 1, 1, 2, 2, 2, 3]


def test_tokens_of_a_group_see_themselves_alone():
    seen = np.asarray(apart(jnp.asarray([0, 1, 1, 2])))
    assert seen.astype(int).tolist() == [[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]]


# ------------------------------------------------------------------------------------------------------- who sees whom
def test_a_query_changes_its_own_output_alone(model, history):
    before = ask(model, history, MASK)
    graph, state = nnx.split(model)
    for query in range(N_TOKENS):
        other = nnx.merge(graph, jax.tree.map(lambda x: x, state))
        other.queries[...] = other.queries[...].at[query].add(1.0)
        assert differs(ask(other, history, MASK), before).tolist() == [k == query for k in range(N_TOKENS)]


def test_the_order_of_tokens_in_an_item_changes_nothing(model, history):
    turned = history.at[:, 1].set(history[:, 1, ::-1])
    np.testing.assert_allclose(ask(model, turned, MASK), ask(model, history, MASK), atol=1e-4)
    swapped = history[:, jnp.asarray([0, 2, 1])]
    assert differs(ask(model, swapped, MASK), ask(model, history, MASK)).all()


def look(model, items: np.ndarray, mask, seen: list[jax.Array], *, at: tuple[int, ...]) -> list[np.ndarray]:
    """What is seen while the model runs, before and after a token is changed."""

    @nnx.jit
    def run(model, items):
        model(items, mask)
        return seen.pop()

    moved = items.copy()
    moved[at] += 1.0
    return [np.asarray(run(model, jnp.asarray(each))) for each in (items, moved)]


def test_a_token_of_an_item_does_not_reach_the_others_of_its_item():
    model = make("decoder")
    items = np.random.default_rng(1).normal(size=(1, 1, N_TOKENS, WIDTH)).astype(np.float32)
    seen: list[jax.Array] = []
    run = model.backbone.__class__.__call__

    def watch(self, *args, **kwargs):
        hidden, cache = run(self, *args, **kwargs)
        seen.append(hidden[0, 2 : 2 + N_TOKENS])
        return hidden, cache

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "__call__", watch)
        before, after = look(model, items, jnp.ones((1, 1), bool), seen, at=(0, 0, 1))
    changed = np.abs(after - before).max(axis=1) > 1e-4
    assert changed.tolist() == [False, True, False]


@pytest.mark.slow
def test_dense_attention_of_a_decoder_is_the_plain_causal_one(history):
    model = make("decoder", attention="dense")
    found = ask(model, history, MASK)
    embed = model.backbone.embed[...]
    for row, is_read in enumerate(np.asarray(MASK)):
        items = history[row, is_read].reshape(-1, WIDTH)
        words = embed[model.instruction[...]], items, embed[model.response[...]], model.queries[...]
        read = jnp.concatenate(words)[None]
        place = lay_out(jnp.ones((1, is_read.sum()), bool), n_instruction=2, n_response=1, n_tokens=3)
        positions = jnp.concatenate([place.positions, place.query_positions], axis=1)
        hidden, _ = nnx.jit(lambda decoder, x, n: decoder(x, positions=n, visible=Causal(jnp.ones(n.shape, bool))))(
            model.backbone, read, positions
        )
        np.testing.assert_allclose(found[row], hidden[0, -N_TOKENS:], atol=1e-5)


@pytest.mark.parametrize("attention", ["sparse", "dense", "published"])
def test_in_a_layer_of_the_encoder_a_token_reaches_all_but_the_others_of_its_item_unless_dense(attention):
    # With a second layer it would reach them, too, by way of tokens that may look at both.
    model = make("t5", attention=attention, t5=dataclasses.replace(T5_CONFIG, num_layers=1))
    items, mask = (
        np.random.default_rng(1).normal(size=(1, 2, N_TOKENS, WIDTH)).astype(np.float32),
        jnp.ones((1, 2), bool),
    )
    seen: list[jax.Array] = []
    run = T5.encode

    def watch(self, *args, **kwargs):
        seen.append(run(self, *args, **kwargs)[0])
        return seen[-1][None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(T5, "encode", watch)
        before, after = look(model, items, mask, seen, at=(0, 1, 1))
    changed = np.abs(after - before).max(axis=1) > 1e-4
    others_of_its_item = [attention != "sparse", True, attention != "sparse"]
    assert changed.tolist() == [True] * 2 + [True] * 3 + others_of_its_item + [True]


def test_with_one_token_an_item_a_query_is_the_next_token_of_a_plain_causal_decoder(history):
    model = make("decoder", n_tokens=1)
    found = ask(model, history[:, :, :1], MASK)
    embed = model.backbone.embed[...]
    for row, is_read in enumerate(np.asarray(MASK)):
        words = embed[model.instruction[...]], history[row, is_read, 0], embed[model.response[...]], model.queries[...]
        read = jnp.concatenate(words)[None]
        n = read.shape[1]
        mask = jnp.tril(jnp.ones((1, n, n), bool))
        hidden, _ = nnx.jit(lambda decoder, x, n, mask: decoder(x, positions=n, visible=Dense(mask)))(
            model.backbone, read, jnp.arange(n)[None], mask
        )
        np.testing.assert_allclose(found[row, 0], hidden[0, -1], atol=1e-5)


def test_every_item_of_the_history_counts_and_padding_does_not(model, history):
    before = ask(model, history, MASK)
    for item in range(3):
        after = ask(model, history.at[:, item].add(1.0), MASK)
        assert (np.abs(after[1] - before[1]) > 1e-4).any()
        assert (np.abs(after[0] - before[0]) > 1e-4).any() == (item > 0)


@pytest.mark.parametrize("kind", ["decoder", pytest.param("t5", marks=pytest.mark.slow)])
def test_more_padding_changes_nothing(kind, history):
    wide = jnp.pad(history, ((0, 0), (2, 0), (0, 0), (0, 0)))
    wide_mask, found = jnp.pad(MASK, ((0, 0), (2, 0))), {}
    for positions in POSITIONS:
        model = make(kind, positions=positions)
        found[positions] = ask(model, history, MASK)
        np.testing.assert_allclose(ask(model, wide, wide_mask), found[positions], atol=1e-4)
        alone = model(history[:1, 1:], MASK[:1, 1:])
        np.testing.assert_allclose(alone, found[positions][:1], atol=1e-4)
    assert differs(*found.values()).any()


@pytest.mark.parametrize("kind", ["decoder", pytest.param("t5", marks=pytest.mark.slow)])
def test_published_positions_of_training_count_padding_up_to_the_longest_row(kind, history):
    model = make(kind, positions="published")
    wide, wide_mask = jnp.pad(history, ((0, 0), (2, 0), (0, 0), (0, 0))), jnp.pad(MASK, ((0, 0), (2, 0)))
    padded, own = model(history, MASK, padded=True), model(history, MASK)
    np.testing.assert_allclose(padded[1], own[1], atol=1e-4)
    assert differs(padded[:1], own[:1]).any()
    np.testing.assert_allclose(model(wide, wide_mask, padded=True), padded, atol=1e-4)


def test_an_empty_history_has_finite_answers(model, history):
    assert np.isfinite(ask(model, history, jnp.zeros((2, 3), bool))).all()


def adapted() -> SetModel:
    """A decoder with adapters, which drop out."""
    model = make("decoder")
    add_lora(model.backbone, LoRA(2, 4.0, "q,v", dropout=0.3), rngs=nnx.Rngs(0))
    for name in "qv":
        adapter = getattr(model.backbone.layers.attention, name).adapter
        adapter.b[...] = jnp.ones_like(adapter.b[...])
    return model


@pytest.mark.parametrize(
    "make_model",
    [pytest.param(partial(make, "t5"), id="t5", marks=pytest.mark.slow), pytest.param(adapted, id="adapters")],
)
def test_dropout_follows_from_the_seeds_of_rows_whatever_the_padding(history, make_model):
    drawn = nnx.jit(lambda model, history, mask, seed: model(history, mask, seed))
    model, seed = make_model(), jnp.asarray([5, 6])
    found = drawn(model, history, MASK, seed)
    assert differs(found, ask(model, history, MASK)).all()
    wide, wide_mask = jnp.pad(history, ((0, 0), (2, 0), (0, 0), (0, 0))), jnp.pad(MASK, ((0, 0), (2, 0)))
    np.testing.assert_allclose(drawn(model, wide, wide_mask, seed), found, atol=1e-4)
    np.testing.assert_allclose(drawn(model, history[1:], MASK[1:], seed[1:])[0], found[1], atol=1e-4)


def test_a_rate_of_0_is_no_dropout(history):
    drawn, seed = nnx.jit(lambda model, history, mask, seed: model(history, mask, seed)), jnp.asarray([5, 6])
    still = make("t5", t5=dataclasses.replace(T5_CONFIG, dropout=0.0))
    np.testing.assert_array_equal(drawn(still, history, MASK, seed), ask(still, history, MASK))


# --------------------------------------------------------------------------------------------------------- item tokens
@pytest.mark.parametrize("width", [5, 500])
def test_the_projection_starts_as_that_of_pytorch(width):
    linear = torch_linear(width, 64, rngs=nnx.Rngs(0))
    for weights in (linear.kernel[...], linear.bias[...]):
        assert np.abs(weights).max() <= width**-0.5
        assert float(np.std(weights)) == pytest.approx((3 * width) ** -0.5, rel=0.2)
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.Linear(width, 64)
    for ours, other in ((linear.kernel, theirs.weight), (linear.bias, theirs.bias)):
        assert float(np.std(ours[...])) == pytest.approx(float(other.detach().std()), rel=0.3)


def test_tokens_are_projected_vectors_and_then_the_pieces_of_the_encoded_features(model):
    tokens = model.tokens
    found = tokens(jnp.asarray([[7, 2]]))
    assert found.shape == (1, 2, N_TOKENS, WIDTH)
    vector = tokens.vectors[...][7] @ tokens.project.kernel[...] + tokens.project.bias[...]
    np.testing.assert_allclose(found[0, 0, 0], vector, atol=1e-5)
    x = tokens.features[...][7]
    for layer in tokens.encoder.layers[:-1]:
        x = jnp.maximum(x @ layer.kernel[...] + layer.bias[...], 0)
    last = tokens.encoder.layers[-1]
    np.testing.assert_allclose(found[0, 0, 1:].reshape(-1), x @ last.kernel[...] + last.bias[...], atol=1e-5)
    assert [layer.kernel.shape[1] for layer in tokens.encoder.layers] == [512, 256, 128, 2 * WIDTH]
    assert [layer.kernel.shape[1] for layer in tokens.decoder.layers] == [128, 256, 512, 7]


def test_gradients_of_words_are_summed_over_rows_in_float32():
    model = make("decoder")
    graph, state = nnx.split(model.backbone)
    half = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state))
    half.dtype, model.backbone = jnp.bfloat16, half
    gradient = nnx.grad(lambda model: model._words(jnp.asarray([4]), 1023).astype(jnp.float32).sum())(model)
    assert float(gradient.backbone.embed[...][4, 0]) == 1024  # 1023, rounded once
