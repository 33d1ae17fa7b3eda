"""Losses over prompt and answer against one text at a time, without padding and shared prefix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from tiny_models import random_model

from igd_jax.methods import load_method
from igd_jax.methods.base import token_loss, whole_text_loss
from igd_jax.models.decoder import Decoder
from igd_jax.models.visibility import Causal, positions_of
from igd_jax.training.whole_text import whole_text

PROMPTS = [[5, 6, 7, 8], [9], [11, 12]]
TARGETS = [[20, 21, 0], [22, 0], [23, 24, 25, 0]]
SHARED = [3, 4]


@pytest.fixture(scope="module")
def model() -> Decoder:
    return random_model("decoder")


def batch_of(shared: list[int]):
    """Three rows and one that fills up; the last token of each target is forced."""
    batch = text_batch([*PROMPTS, [1]], [*TARGETS, [0]], shared=shared, width=6)
    real = jnp.arange(4)[:, None] < 3
    batch = batch.replace(prompt_mask=batch.prompt_mask & real, target_mask=batch.target_mask & real)
    weight = batch.target_mask.astype(jnp.float32)
    return batch.replace(annotations={"weight": weight, "forced": batch.target_mask & (batch.target == 0)})


@nnx.jit
def logits_of(model: Decoder, text: jax.Array, valid: jax.Array) -> jax.Array:
    return model.logits(model(text, positions=positions_of(valid), visible=Causal(valid))[0])


def plain_nll(model: Decoder, shared: list[int]) -> list[np.ndarray]:
    """Cross-entropy of every token but the first of each text, by float64 sums."""
    found = []
    for prompt, target in zip(PROMPTS, TARGETS, strict=True):
        text = jnp.asarray([[*shared, *prompt, *target]])
        valid = jnp.ones(text.shape, bool)
        logits = np.asarray(logits_of(model, text, valid), np.float64)[0, :-1]
        lse = np.log(np.exp(logits).sum(axis=1))
        found.append(lse - logits[np.arange(len(logits)), np.asarray(text)[0, 1:]])
    return found


@pytest.mark.parametrize("shared", [[], SHARED])
def test_the_loss_is_that_of_all_tokens_of_each_text_but_the_first(model, shared):
    batch = batch_of(shared)
    found, alone = nnx.jit(lambda model: (whole_text_loss(model, batch, (), {}), token_loss(model, batch, (), {})))(
        model
    )
    nll = plain_nll(model, shared)
    np.testing.assert_allclose(found.loss, sum(each.sum() for each in nll), rtol=1e-5)
    assert float(found.weight) == sum(map(len, nll))
    in_prompt = [each[: -len(target)] for each, target in zip(nll, TARGETS, strict=True)]
    np.testing.assert_allclose(
        found.metrics["loss_prompt"], (sum(each.sum() for each in in_prompt), sum(map(len, in_prompt))), rtol=1e-5
    )
    for name in ("loss_forced", "loss_deciding"):  # of the targets, as without their prompts
        np.testing.assert_allclose(found.metrics[name], alone.metrics[name], rtol=1e-5)


def test_gradients_are_those_of_the_plain_loss(model):
    graph, params = nnx.split(model)
    batch, texts = batch_of(SHARED), [[*SHARED, *p, *t] for p, t in zip(PROMPTS, TARGETS, strict=True)]
    width = max(map(len, texts))
    tokens = jnp.asarray([text + [0] * (width - len(text)) for text in texts])
    valid = jnp.arange(width)[None] < jnp.asarray([[len(text)] for text in texts])

    def plain(params):
        model = nnx.merge(graph, params)
        hidden, _ = model(tokens, positions=positions_of(valid), visible=Causal(valid))
        logp = jax.nn.log_softmax(model.logits(hidden[:, :-1]), axis=-1)
        return -jnp.where(valid[:, 1:], jnp.take_along_axis(logp, tokens[:, 1:, None], axis=-1)[..., 0], 0.0).sum()

    ours = jax.jit(jax.grad(lambda params: whole_text_loss(nnx.merge(graph, params), batch, (), {}).loss))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(jax.jit(jax.grad(plain))(params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


def test_columns_are_as_the_picture_of_the_class_says():
    batch = text_batch([[3, 4]], [[5, 6]], shared=[1, 2], width=3)
    text = whole_text(batch)
    assert text.tokens.tolist() == [[1, 2, 0, 3, 4, 5, 6]]
    assert text.in_prompt.tolist() == [[False, True, False, True, True, False, False]]
    before = text.batch.before[0]
    assert [int(before[column]) for column in (1, 3, 4, 5, 6)] == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("name", ["sft", "bigrec"])
def test_a_loss_over_prompts_is_an_option_of_decoders_alone(name):
    assert load_method(name, {"prompt_loss": True}).backbones == ("decoder",)
    assert ("t5" in load_method(name, {}).backbones) == (name == "sft")
