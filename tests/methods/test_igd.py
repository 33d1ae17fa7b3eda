"""IGD's weights, and its loss: plain fine-tuning at beta 1."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_figures import examples_of
from plain_trie import EOS
from tiny_models import random_model
from tiny_run import context_of

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.batches import make_text_batch
from igd_jax.items.gain_weights import gain_share
from igd_jax.items.index import build_index
from igd_jax.methods import load_method
from igd_jax.methods.base import target_logits
from igd_jax.methods.igd import IGD
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.step import means

# 9 is the newline. Nobody took "C D" (item 3), and item 4 is not a candidate.
TOKENS = Ragged.from_lists([[1, 9, EOS], [2, 9, EOS], [3, 9, EOS], [3, 4, 9, EOS], [1, 5, 9, EOS]])
COUNTS = np.array([3, 1, 2, 0, 0])
DECIDING = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
DECIDING = DECIDING[np.arange(4) < TOKENS.lengths[:, None]]


@pytest.fixture(scope="module")
def context():
    return context_of(build_index(["A", "B", "C", "C D", "A B"], TOKENS, COUNTS, candidates=np.arange(5) < 4))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_tokens_weigh_beta_where_forced_and_one_where_deciding(context, beta):
    found = IGD(beta=beta).objective(context).annotations
    np.testing.assert_array_equal(found["weight"], np.where(DECIDING, 1, np.float32(beta)))
    np.testing.assert_array_equal(found["forced"], ~DECIDING)
    assert found["weight"].dtype == np.float32


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_beta_outside_zero_to_one_is_bad_input(beta):
    with pytest.raises(InputError, match=r"config.method.args.beta is .*; expected a weight from 0 to 1"):
        IGD(beta=beta)


@pytest.mark.parametrize("entropy", ["mass", "prefix"])
@pytest.mark.parametrize("weights", ["gain", "relative"])
def test_other_rules_weigh_deciding_tokens_by_their_share(context, weights, entropy):
    found = IGD(beta=0.2, weights=weights, entropy=entropy).objective(context).annotations
    share = gain_share(context.index, weights=weights, entropy=entropy)
    np.testing.assert_allclose(found["weight"], 0.2 + 0.8 * share, rtol=1e-6)
    np.testing.assert_array_equal(found["weight"][~DECIDING], np.float32(0.2))
    np.testing.assert_array_equal(found["forced"], ~DECIDING)
    assert found["weight"].dtype == np.float32
    assert 0.2 < found["weight"].max() <= 1


@pytest.mark.parametrize(("name", "expected"), [("weights", "one of zero, gain, relative"), ("entropy", "mass or pre")])
def test_an_unknown_rule_or_entropy_is_bad_input(name, expected):
    with pytest.raises(InputError, match=f"config.method.args.{name} is 'all'; expected {expected}"):
        IGD(**{name: "all"})


def test_at_beta_one_the_loss_is_plain_fine_tuning_to_the_bit(context):
    examples = examples_of(Ragged.from_lists([[11, 12], [13], [14, 15, 16], [17], [18, 19]]), np.arange(5))
    objective, sft = IGD(beta=1.0).objective(context), load_method("sft", {}).objective(context)
    batch = make_text_batch(examples, np.arange(5), TOKENS, objective.annotations, size=6)
    as_sft = make_text_batch(examples, np.arange(5), TOKENS, sft.annotations, size=6)

    @nnx.jit
    def losses(model, batch, as_sft):
        plain = weighted_cross_entropy(
            target_logits(model, batch), batch.target, batch.target_mask.astype(jnp.float32), parts={}
        )
        return objective.loss(model, batch, objective.tables, {}), sft.loss(model, as_sft, sft.tables, {}), plain

    ours, tuned, plain = losses(random_model("decoder"), batch, as_sft)
    assert float(ours.weight) == float(tuned.weight) == float(plain.weight) == TOKENS.lengths.sum()
    np.testing.assert_array_equal(ours.loss, plain.loss)
    np.testing.assert_array_equal(tuned.loss, plain.loss)
    parts = means(ours)
    joined = float(parts["loss_forced"]) * (~DECIDING).sum() + float(parts["loss_deciding"]) * DECIDING.sum()
    np.testing.assert_allclose(joined / TOKENS.lengths.sum(), parts["loss"], rtol=1e-6)
