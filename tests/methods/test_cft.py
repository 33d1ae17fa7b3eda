"""Pos and CFT: weights that fall along a title, and a second loss that costs one short pass, not a whole one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_trie import EOS
from tiny_run import HF_CONFIG, context_of

from configs import cft as cft_config
from configs import pos as pos_config
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import LossSum
from igd_jax.data.batches import make_batch
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.data.prompts import render
from igd_jax.data.tokenizer import load_tokenizer, train_tokenizer
from igd_jax.items.index import build_index
from igd_jax.methods.base import load_method, target_logits
from igd_jax.methods.cft import CFT, Counterfactual, logits_without_history
from igd_jax.models.config import from_hf
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_weights import load_decoder
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.step import means

# 9 is the newline. Item 4 is no candidate, and item 5 has one token.
TOKENS = Ragged.from_lists([[1, 9, EOS], [2, 9, EOS], [3, 9, EOS], [3, 4, 6, 7, 9, EOS], [1, 5, 9, EOS], [EOS]])
COUNTS = np.array([3, 1, 2, 0, 0, 1])
MASK = np.arange(6) < TOKENS.lengths[:, None]
DECIDING = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], bool)
DECIDING = np.pad(DECIDING, ((0, 0), (0, 3)))
PROMPT = np.array([21, 22, 23, 24, 25], np.int32)
CONSTANTS = Counterfactual(jnp.asarray(PROMPT), longest=6)


@pytest.fixture(scope="module")
def index():
    return build_index(["A", "B", "C", "C D", "A B", ""], TOKENS, COUNTS, candidates=np.arange(6) != 4)


@pytest.fixture(scope="module")
def model():
    return nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()


def rows_of(prompts: list[list[int]], n_items: int) -> Examples:
    """One row a prompt, whose target is the item of its number."""
    ragged, every = Ragged.from_lists(prompts), np.ones(len(prompts), bool)
    assert len(prompts) == n_items
    return Examples(ragged, np.arange(n_items, dtype=np.int32), 0, shared_prefix(ragged, every), every)


def batch_of(method: CFT, index) -> dict[str, np.ndarray]:
    """Six rows with a header of two tokens, and one that fills up."""
    prompts = [[30, 31, 11, 12], [30, 31, 13], [30, 31, 14, 15, 16], [30, 31, 17], [30, 31, 18, 19], [30, 31, 20]]
    return make_batch(rows_of(prompts, 6), np.arange(6), TOKENS, method.annotate(index), size=7)


def naive_loss(model, batch, *, alpha: float, stop_gradient: bool) -> LossSum:
    """Two whole forward passes, both over prompts of their own for each row."""
    n_rows = len(batch["target"])
    other = {name: array for name, array in batch.items() if name != "header"}
    other["prompt"] = jnp.asarray(np.tile(PROMPT, (n_rows, 1)))
    other["prompt_mask"] = jnp.ones((n_rows, len(PROMPT)), bool)
    logits, without = target_logits(model, batch), target_logits(model, other)
    without = jax.lax.stop_gradient(without) if stop_gradient else without
    normal, causal = (
        weighted_cross_entropy(z, batch["target"], batch["weight"], parts={}) for z in (logits, logits - without)
    )
    return LossSum(normal.loss + alpha * causal.loss, normal.weight, {})


# ------------------------------------------------------------------------------------------------------------ weights
@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("gain_beta", [0.1, 1.0])
def test_weights_fall_in_equal_steps_from_one_to_beta_and_gain_beta_scales_forced_tokens(index, beta, gain_beta):
    found = CFT(beta=beta, gain_beta=gain_beta).annotate(index)
    for item, n in enumerate(TOKENS.lengths):
        omega = np.linspace(1.0, beta, n)
        expected = np.where(DECIDING[item, :n], omega, gain_beta * omega)
        np.testing.assert_allclose(found["weight"][item, :n], expected, rtol=1e-6)
        assert not found["weight"][item, n:].any()
    np.testing.assert_array_equal(found["forced"], ~DECIDING & MASK)
    assert found["weight"].dtype == np.float32


@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_the_first_token_weighs_one_and_the_last_beta_exactly(index, beta):
    weight = CFT(beta=beta).annotate(index)["weight"]
    assert (weight[:, 0] == 1).all()
    assert (weight[np.arange(5), TOKENS.lengths[:5] - 1] == np.float32(beta)).all()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"alpha": -0.1}, "alpha is -0.1; expected a weight of at least 0"),
        ({"alpha": float("inf")}, "alpha is inf; expected a weight of at least 0"),
        ({"beta": 1.1}, "beta is 1.1; expected a weight from 0 to 1"),
        ({"gain_beta": float("nan")}, "gain_beta is nan; expected a weight from 0 to 1"),
    ],
)
def test_an_argument_out_of_range_is_bad_input(args, told):
    with pytest.raises(InputError) as caught:
        CFT(**args)
    assert str(caught.value) == f"config.method.args.{told}"


# --------------------------------------------------------------------------------------------------------- equivalences
def test_pos_at_beta_one_is_plain_fine_tuning_to_the_bit(index, model):
    method = CFT(alpha=0.0, beta=1.0)

    @nnx.jit
    def both(model, batch):
        weight = batch["target_mask"].astype(jnp.float32)
        plain = weighted_cross_entropy(target_logits(model, batch), batch["target"], weight, parts={})
        return method.loss(model, batch, None), plain

    ours, plain = both(model, batch_of(method, index))
    assert float(ours.weight) == float(plain.weight) == TOKENS.lengths.sum()
    np.testing.assert_array_equal(ours.loss, plain.loss)


def test_cft_at_alpha_zero_is_pos_and_runs_no_second_pass(index, model):
    pos, cft = CFT(alpha=0.0), CFT(alpha=0.3)
    batch = batch_of(pos, index)
    alone = nnx.jit(lambda model, batch: pos.loss(model, batch, None))(model, batch)
    found = nnx.jit(lambda model, batch: cft.loss(model, batch, CONSTANTS))(model, batch)
    np.testing.assert_allclose(found.metrics["loss_normal"], (alone.loss, alone.weight), rtol=1e-6)
    joined = found.metrics["loss_normal"][0] + 0.3 * found.metrics["loss_causal"][0]
    np.testing.assert_allclose(found.loss, joined, rtol=1e-6)
    assert float(found.loss) > float(alone.loss)


def test_constants_are_the_prompt_without_history_and_the_longest_title_or_nothing_for_pos(index):
    tokenizer = train_tokenizer(["Past books, oldest first: unknown"], vocab_size=300)
    context = context_of(index, tokenizer=tokenizer, category="books")
    found = CFT().constants(context)
    assert tokenizer.decode(found.prompt.tolist()) == "Past books, oldest first:\nunknown\n\nNext:\n"
    assert found.longest == 6
    assert CFT(alpha=0.0).constants(context) is None


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_loss_and_gradient_are_those_of_two_whole_passes(index, model, stop_gradient):
    method = CFT(alpha=0.7, beta=0.25, stop_gradient=stop_gradient)
    batch = jax.tree.map(jnp.asarray, batch_of(method, index))
    graph, params = nnx.split(model)

    def value_and_grad(loss):
        return jax.jit(jax.value_and_grad(lambda params: loss(nnx.merge(graph, params)).loss))(params)

    ours = value_and_grad(lambda model: method.loss(model, batch, CONSTANTS))
    naive = value_and_grad(lambda model: naive_loss(model, batch, alpha=0.7, stop_gradient=stop_gradient))
    other = value_and_grad(lambda model: naive_loss(model, batch, alpha=0.7, stop_gradient=not stop_gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4), ours, naive)
    gap = max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (naive[1], other[1])), strict=True))
    assert gap > 0.1


def test_logits_without_history_align_for_the_longest_and_the_shortest_title(index, model):
    batch = batch_of(CFT(), index)
    found = nnx.jit(logits_without_history)(model, jax.tree.map(jnp.asarray, batch), jnp.asarray(PROMPT))
    for item in (3, 5, 0):
        target = TOKENS[item]
        alone = {"prompt": PROMPT[None], "prompt_mask": np.ones((1, 5), bool), "target": target[None]}
        alone["target_mask"] = np.ones((1, len(target)), bool)
        expected = nnx.jit(target_logits)(model, jax.tree.map(jnp.asarray, alone))
        np.testing.assert_allclose(found[item, : len(target)], expected[0], atol=1e-5)


def test_a_title_of_one_token_has_a_finite_loss_and_gradient(index, model):
    method = CFT(alpha=0.5)
    examples = rows_of([[11]] * 6, 6)
    batch = make_batch(examples, np.array([5]), TOKENS, method.annotate(index), size=1)
    batch = jax.tree.map(jnp.asarray, batch)
    graph, params = nnx.split(model)
    loss = jax.value_and_grad(lambda params: method.loss(nnx.merge(graph, params), batch, CONSTANTS).loss)
    value, grads = jax.jit(loss)(params)
    assert batch["weight"].sum() == 1
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in [value, *jax.tree.leaves(grads)])


# ----------------------------------------------------------------------------------------------------------------- cost
def test_the_second_loss_costs_less_than_half_a_pass_at_published_prompt_lengths(model):
    rng = np.random.default_rng(0)
    batch = {
        "header": np.tile(rng.integers(0, 300, 80).astype(np.int32), (8, 1)),
        "prompt": rng.integers(0, 300, (8, 96)).astype(np.int32),
        "prompt_mask": np.ones((8, 96), bool),
        "target": rng.integers(0, 300, (8, 16)).astype(np.int32),
        "target_mask": np.ones((8, 16), bool),
        "weight": np.ones((8, 16), np.float32),
        "forced": np.zeros((8, 16), bool),
    }
    counterfactual = Counterfactual(jnp.asarray(rng.integers(0, 300, 96), jnp.int32), longest=16)
    graph, params = nnx.split(model)

    def flops(method: CFT, constants: Counterfactual | None) -> float:
        loss = jax.grad(lambda params, batch: method.loss(nnx.merge(graph, params), batch, constants).loss)
        return jax.jit(loss).lower(params, batch).compile().cost_analysis()["flops"]

    ratio = flops(CFT(alpha=0.1), counterfactual) / flops(CFT(alpha=0.0), None)
    assert 1.0 < ratio < 1.5


def test_a_prompt_without_history_that_leaves_no_room_is_bad_input(index, model):
    batch = batch_of(CFT(), index)
    full = Counterfactual(jnp.zeros(507, jnp.int32), longest=6)
    with pytest.raises(InputError, match=r"has 507 tokens and the longest title 6, but the model has 512 positions; "):
        nnx.eval_shape(lambda model, batch: CFT().loss(model, batch, full), model, batch)
    fits = Counterfactual(jnp.zeros(506, jnp.int32), longest=6)
    nnx.eval_shape(lambda model, batch: CFT().loss(model, batch, fits), model, batch)


# --------------------------------------------------------------------------------------------------------------- golden
@pytest.fixture(scope="module")
def golden(shared):
    """The published batch as prompts with history, targets, the prompt without, the model, and the losses."""
    folder, path = shared / "golden/igd_amazon_books", shared / "models/tiny-qwen2-books"
    with np.load(folder / "cft_loss.npz", allow_pickle=False) as arrays:
        halves = {name: np.split(arrays[name], 2, axis=1) for name in ("input_ids", "attention_mask", "labels")}

    def prompts_and_targets(half: int) -> tuple[list[list[int]], list[list[int]]]:
        ids, mask, labels = (halves[name][half] for name in ("input_ids", "attention_mask", "labels"))
        prompt = (mask == 1) & (labels < 0)
        return [row[keep].tolist() for row, keep in zip(ids, prompt, strict=True)], [
            row[row >= 0].tolist() for row in labels
        ]

    prompts, targets = prompts_and_targets(0)
    without, again = prompts_and_targets(1)
    assert targets == again
    losses = json.loads((folder / "cft_loss.json").read_text(encoding="utf-8"))["loss"]
    return prompts, Ragged.from_lists(targets), without, path, losses


def test_the_prompt_without_history_is_that_of_the_published_code(golden):
    _, _, without, path, _ = golden
    ours = load_tokenizer(path).encode_prompts([render("igd", None, category="books")])
    assert without == [ours[0].tolist()] * 8


def test_losses_equal_those_of_the_published_code(golden):
    prompts, targets, without, path, losses = golden
    index = build_index([f"title {n}" for n in range(8)], targets, np.ones(8, int), candidates=np.ones(8, bool))
    constants = Counterfactual(jnp.asarray(without[0], jnp.int32), longest=int(targets.lengths.max()))
    model, examples = load_decoder(path), rows_of(prompts, 8)
    pairs = {name: tuple(float(part.split("=")[1]) for part in name.split(",")) for name in losses}

    @nnx.jit
    def by_alpha(model, batch):  # beta is in the batch
        alphas = {alpha: constants if alpha else None for alpha, _ in pairs.values()}
        return {alpha: means(CFT(alpha=alpha).loss(model, batch, given))["loss"] for alpha, given in alphas.items()}

    ours = {}
    for name, (alpha, beta) in pairs.items():
        batch = make_batch(examples, np.arange(8), targets, CFT(beta=beta).annotate(index), size=8)
        ours[name] = float(by_alpha(model, batch)[alpha])
    assert ours == pytest.approx(losses, abs=1e-4)
    assert len(ours) == 5


def test_pos_is_cft_without_its_second_loss_in_the_configs_too():
    cft, pos = cft_config.get_config(), pos_config.get_config()
    load_method("cft", cft.method.args.to_dict())
    assert cft.method.args.alpha > 0
    cft.method.args.alpha = 0.0
    assert cft.to_dict() == pos.to_dict()
