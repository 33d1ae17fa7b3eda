"""IGD's weights and loss: plain fine-tuning at beta 1, and the numbers of the published code below it."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_trie import EOS
from tiny_run import HF_CONFIG

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.batches import make_batch
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.index import build_index
from igd_jax.methods.base import target_logits
from igd_jax.methods.igd import IGD
from igd_jax.models.config import from_hf
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_weights import load_decoder
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.step import means

# 9 is the newline. Nobody took "C D" (item 3), and item 4 is no candidate.
TOKENS = Ragged.from_lists([[1, 9, EOS], [2, 9, EOS], [3, 9, EOS], [3, 4, 9, EOS], [1, 5, 9, EOS]])
COUNTS = np.array([3, 1, 2, 0, 0])
DECIDING = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)


def examples_of(prompts: Ragged) -> Examples:
    """One row a prompt, whose target is the item of its number."""
    all_rows = np.ones(len(prompts), bool)
    return Examples(prompts, np.arange(len(prompts), dtype=np.int32), 0, shared_prefix(prompts, all_rows), all_rows)


@pytest.fixture(scope="module")
def index():
    return build_index(["A", "B", "C", "C D", "A B"], TOKENS, COUNTS, candidates=np.arange(5) < 4)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_tokens_weigh_beta_where_forced_one_where_deciding_and_nothing_after_the_end(index, beta):
    found = IGD(beta=beta).annotate(index)
    mask = np.arange(4) < TOKENS.lengths[:, None]
    np.testing.assert_array_equal(found["weight"], np.where(DECIDING, 1, np.float32(beta)) * mask)
    np.testing.assert_array_equal(found["forced"], ~DECIDING & mask)
    assert found["weight"].dtype == np.float32


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_beta_outside_zero_to_one_is_bad_input(beta):
    with pytest.raises(InputError, match=r"config.method.args.beta is .*; expected a weight from 0 to 1"):
        IGD(beta=beta)


def test_at_beta_one_the_loss_is_plain_fine_tuning_to_the_bit(index):
    model = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    prompt = Ragged.from_lists([[11, 12], [13], [14, 15, 16], [17], [18, 19]])
    examples = examples_of(prompt)
    method = IGD(beta=1.0)
    batch = make_batch(examples, np.arange(5), TOKENS, method.annotate(index), size=6)

    @nnx.jit
    def both(model, batch):
        plain = weighted_cross_entropy(
            target_logits(model, batch), batch["target"], batch["target_mask"].astype(jnp.float32), parts={}
        )
        return method.loss(model, batch, {}), plain

    ours, plain = both(model, batch)
    assert float(ours.weight) == float(plain.weight) == TOKENS.lengths.sum()
    np.testing.assert_array_equal(ours.loss, plain.loss)
    parts = means(ours)
    n_forced = int((~DECIDING).sum() - (4 * 5 - TOKENS.lengths.sum()))
    joined = float(parts["loss_forced"]) * n_forced + float(parts["loss_deciding"]) * DECIDING.sum()
    np.testing.assert_allclose(joined / TOKENS.lengths.sum(), parts["loss"], rtol=1e-6)


@pytest.fixture(scope="module")
def golden(shared):
    """The published batch as prompts and targets, an index over the train targets, and the model."""
    folder, model = shared / "golden/igd_amazon_books", shared / "models/tiny-qwen2-books"
    with np.load(folder / "igd_loss.npz", allow_pickle=False) as arrays:
        ids = [row[mask == 1].tolist() for row, mask in zip(arrays["input_ids"], arrays["attention_mask"], strict=True)]
        targets = [row[row >= 0].tolist() for row in arrays["labels"]]
    assert all(row[-len(target) :] == target for row, target in zip(ids, targets, strict=True))
    prompts = [row[: -len(target)] for row, target in zip(ids, targets, strict=True)]
    frequency = json.loads((folder / "item_frequency.json").read_text(encoding="utf-8"))
    tokens = load_tokenizer(model).encode_titles(list(frequency))
    index = build_index(
        list(frequency), tokens, np.array(list(frequency.values())), candidates=np.ones(len(frequency), bool)
    )
    losses = json.loads((folder / "igd_loss.json").read_text(encoding="utf-8"))["loss_by_beta"]
    return prompts, Ragged.from_lists(targets), index, load_decoder(model), losses


def test_losses_equal_those_of_the_published_code(golden):
    prompts, targets, index, model, losses = golden
    examples = examples_of(Ragged.from_lists(prompts))
    index = dataclasses.replace(index, item_tokens=targets)
    assert index.walk(targets).on_trie.tolist() == [True] * 7 + [False]
    loss = nnx.jit(lambda model, batch: means(IGD().loss(model, batch, {}))["loss"])  # beta is in the batch
    ours = {}
    for beta in losses:
        per_item = IGD(beta=float(beta)).annotate(index)
        off_trie = per_item["weight"][7, : targets.lengths[7]]
        assert (off_trie == np.float32(beta)).all()
        ours[beta] = float(loss(model, make_batch(examples, np.arange(8), targets, per_item, size=8)))
    assert ours == pytest.approx(losses, abs=1e-4)
    assert len({round(loss, 3) for loss in ours.values()}) == 4


def test_the_published_batch_gives_the_same_loss_in_micro_batches(golden):
    prompts, targets, index, model, losses = golden
    examples = examples_of(Ragged.from_lists(prompts))
    per_item = IGD(beta=0.1).annotate(dataclasses.replace(index, item_tokens=targets))
    loss = nnx.jit(lambda model, batch: IGD().loss(model, batch, {}))
    first, second = (
        loss(model, make_batch(examples, np.arange(8)[rows], targets, per_item, size=4))
        for rows in (slice(0, 4), slice(4, 8))
    )
    assert float(means(first + second)["loss"]) == pytest.approx(losses["0.1"], abs=1e-4)
