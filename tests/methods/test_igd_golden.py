"""IGD's losses are those of the authors' code (docs/golden.md)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_figures import examples_of, golden_arrays, golden_figures, index_with, model_that_gives, ragged
from plain_trie import lists_of
from tiny_run import context_of

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.methods.base import Context, token_loss
from igd_jax.methods.igd import IGD
from igd_jax.models.backbone import Backbone
from igd_jax.models.decoder_weights import load_decoder
from igd_jax.training.step import means

TARGETS = lists_of(ragged("igd", "loss_target"))
LOSSES = golden_figures("igd")["loss_by_beta"]


@pytest.fixture(scope="module")
def context() -> Context:
    """The published titles; the last target is none of them, an item beside the candidates."""
    return context_of(index_with(TARGETS[7:]))


@pytest.fixture(scope="module")
def items(context) -> np.ndarray:
    """The item of each target."""
    number = {tuple(row): item for item, row in enumerate(lists_of(context.index.item_tokens))}
    found = np.array([number[tuple(target)] for target in TARGETS])
    assert context.index.candidates[found].tolist() == [True] * 7 + [False]
    return found


def batch_of(context: Context, prompts: list[list[int]], items: np.ndarray, beta: float) -> TextBatch:
    """Rows of the published batch, with weights by `beta`."""
    objective, n = IGD(beta=beta).objective(context), len(items)
    assert objective.loss is token_loss
    examples = examples_of(Ragged.from_lists(prompts), items)
    return make_text_batch(examples, np.arange(n), context.index.item_tokens, objective.annotations, size=n)


_loss = nnx.jit(lambda model, batch: token_loss(model, batch, (), {}))  # the weights are in the batch


def test_a_target_off_the_trie_weighs_beta(context, items):
    batch = batch_of(context, [[1]] * 8, items, 0.5)
    assert (batch.annotations["weight"][7][batch.target_mask[7]] == 0.5).all()
    assert (batch.annotations["weight"][:7][batch.target_mask[:7]] == 1).any()


@pytest.mark.parametrize("beta", LOSSES)
def test_the_loss_of_the_published_batch_by_its_logits(beta, context, items):
    batch = batch_of(context, [[1]] * 8, items, float(beta))
    logits = np.zeros((*batch.target.shape, 2), np.float32)
    logits[batch.target_mask] = golden_arrays("igd")["loss_logits"]
    batch = jax.tree.map(jnp.asarray, batch.replace(target=np.zeros_like(batch.target)))
    found = means(token_loss(model_that_gives(jnp.asarray(logits)), batch, (), {}))["loss"]
    assert float(found) == pytest.approx(LOSSES[beta], abs=1e-5)


# ------------------------------------------------------------------------------------------------------------ the model
@pytest.fixture(scope="module")
def given(shared) -> tuple[list[list[int]], Backbone]:
    """The published prompts, and the model."""
    with np.load(shared / "golden/igd_amazon_books/igd_loss.npz", allow_pickle=False) as arrays:
        ids = [row[mask == 1].tolist() for row, mask in zip(arrays["input_ids"], arrays["attention_mask"], strict=True)]
    assert all(row[-len(target) :] == target for row, target in zip(ids, TARGETS, strict=True))
    prompts = [row[: -len(target)] for row, target in zip(ids, TARGETS, strict=True)]
    return prompts, load_decoder(shared / "models/tiny-qwen2-books")


def test_losses_equal_those_of_the_published_code(given, context, items):
    prompts, model = given
    ours = {beta: float(means(_loss(model, batch_of(context, prompts, items, float(beta))))["loss"]) for beta in LOSSES}
    assert ours == pytest.approx(LOSSES, abs=1e-4)
    assert len({round(loss, 3) for loss in ours.values()}) == 4


def test_the_published_batch_gives_the_same_loss_in_micro_batches(given, context, items):
    prompts, model = given
    first, second = (
        _loss(model, batch_of(context, prompts[part], items[part], 0.1)) for part in (slice(4), slice(4, 8))
    )
    assert float(means(first + second)["loss"]) == pytest.approx(LOSSES["0.1"], abs=1e-4)
