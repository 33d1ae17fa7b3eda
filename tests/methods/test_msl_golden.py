"""MSL against the losses, gradients, temperatures and lists of the published code (docs/golden.md)."""

import json
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from golden_figures import examples_of, golden_arrays, golden_figures, model_that_gives
from plain_trie import EOS
from searches import index_of, lists
from tiny_run import context_of, decode_options

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluation.metrics import mean_metrics
from igd_jax.items.index import build_index
from igd_jax.methods.base import Context, Objective
from igd_jax.methods.msl import MSL, legal_logits, legal_nll
from igd_jax.models.decoder_weights import load_decoder
from igd_jax.training.step import means

VOCAB = 4096
ADAPTIVE = golden_figures("msl")["adaptive"]
CASES = {
    f"scale {case['scale']}, bonus {case['target_bonus']}, eta {case['eta']}, alpha {case['alpha']}, "
    f"warm_up {case['warm_up']}": case
    for case in ADAPTIVE["cases"]
}


class Golden(NamedTuple):
    """The published batch in our terms.

    Attributes:
      context: a trie in which each prefix of a target has the published alternatives.
      batch: the batch.
      logits: [B T V] logits, 0 where nothing is legal, since the figures lack those.
      legal: row, column and token of each published alternative.
      target: row and column of each target token.
    """

    context: Context
    batch: TextBatch
    logits: np.ndarray
    legal: tuple[np.ndarray, np.ndarray, np.ndarray]
    target: tuple[np.ndarray, np.ndarray]


@cache
def golden_of(name: str) -> Golden:
    found = golden_arrays("msl")
    row, target, start = (found[f"{name}_{part}"] for part in ("row", "target", "allowed_start"))
    titles = [target[row == r].tolist() for r in range(8)]
    prefixes = {tuple(title[:length]) for title in titles for length in range(len(title) + 1)}
    rows, place = list(titles), np.arange(len(row)) - np.searchsorted(row, row)
    for token, (first, last) in enumerate(pairwise(start.tolist())):
        before = tuple(titles[row[token]][: place[token]])
        ways = {(*before, int(way)) for way in found[f"{name}_allowed"][first:last]} - prefixes
        rows += [[*way, EOS] if way[-1] != EOS else [*way] for way in sorted(ways)]
    context = context_of(index_of(rows))
    examples = examples_of(Ragged.from_lists([[1]] * 8), np.arange(8))
    annotations = MSL().objective(context).annotations
    tokens, seed = context.index.item_tokens, np.zeros(8, np.int32)  # as in training
    batch = make_text_batch(examples, np.arange(8), tokens, annotations, size=8, seed=seed)
    at_row, at_column = np.nonzero(batch.target_mask)
    assert batch.target[at_row, at_column].tolist() == target.tolist()
    token = np.repeat(np.arange(len(row)), np.diff(start))
    legal = (at_row[token], at_column[token], found[f"{name}_allowed"].astype(int))
    logits = np.zeros((*batch.target.shape, VOCAB), np.float32)
    logits[legal] = found[f"{name}_logits"]
    return Golden(context, jax.tree.map(jnp.asarray, batch), logits, legal, (at_row, at_column))


def loss_and_gradient(
    method: MSL, golden: Golden, logits: np.ndarray, state: dict[str, float]
) -> tuple[LossSum, np.ndarray]:
    """Sums of the loss, and the gradient of its mean by the logits."""
    objective = method.objective(golden.context)

    @jax.jit
    def loss(logits, tables, state):
        total = objective.loss(model_that_gives(logits), golden.batch, tables, state)
        return means(total)["loss"], total

    (_, total), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.asarray(logits), objective.tables, {name: jnp.float32(value) for name, value in state.items()}
    )
    return total, np.asarray(gradient)


def token_losses(objective: Objective, golden: Golden, logits: np.ndarray, tau: float) -> np.ndarray:
    """Loss of each target token, before a factor of tau."""
    batch, trie = golden.batch, objective.tables
    parent = jnp.where(batch.target_mask, batch.annotations["parent"], -1)
    found, legal = legal_logits(jnp.asarray(logits), parent, trie, width=max(trie.root_width, trie.width))
    own = logits[*golden.target, np.asarray(batch.target)[golden.target]]
    target = jnp.zeros(parent.shape).at[golden.target].set(own)
    return np.asarray(legal_nll(found, legal, target, jnp.float32(tau)))[golden.target]


def assert_gradient(found: np.ndarray, expected: np.ndarray, golden: Golden) -> None:
    np.testing.assert_allclose(found[golden.legal], expected, rtol=0, atol=1e-7)
    elsewhere = found.copy()
    elsewhere[golden.legal] = 0
    assert not elsewhere.any()


@pytest.mark.parametrize("tau", ["1", "4.5"])
@pytest.mark.parametrize("name", ["quoted", "unquoted"])
def test_loss_and_gradient_at_a_fixed_temperature(name, tau):
    golden = golden_of(name)
    total, gradient = loss_and_gradient(MSL(tau=float(tau)), golden, golden.logits, {})
    assert float(total.weight) == len(golden.target[0])
    assert float(means(total)["loss"]) == pytest.approx(golden_figures("msl")[name][tau], abs=2e-6)
    expected = golden_arrays("msl")[f"{name}_token_loss_tau{tau}"]
    found = token_losses(MSL().objective(golden.context), golden, golden.logits, float(tau))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert float(total.loss) == pytest.approx(expected.sum(), abs=1e-4)
    assert_gradient(gradient, golden_arrays("msl")[f"{name}_grad_tau{tau}"], golden)


def test_loss_gradient_and_temperature_of_a_step_with_an_adaptive_one():
    golden, case = golden_of("unquoted"), CASES["scale 0.5, bonus 15, eta 0.25, alpha 0.05, warm_up -1"]
    step = case["steps"][0]
    logits = golden.logits * np.float32(case["scale"])
    logits[*golden.target, np.asarray(golden.batch.target)[golden.target]] += case["target_bonus"]
    method = MSL(tau=ADAPTIVE["start"], adaptive=True, denominator="deciding")
    # The published loss is taken at the temperature that its own batch has moved.
    state = {"tau": step["tau_used"], "step": 0.0}
    total, gradient = loss_and_gradient(method, golden, logits, state)
    assert float(total.weight) == step["n_branching"]
    assert float(means(total)["loss"]) == pytest.approx(step["loss"], rel=1e-5)
    found = token_losses(method.objective(golden.context), golden, logits, step["tau_used"])
    decides = np.diff(golden_arrays("msl")["unquoted_allowed_start"]) > 1  # the others have no figure, and no loss
    np.testing.assert_allclose(found[decides], golden_arrays("msl")["adaptive_token_loss"], rtol=0, atol=2e-6)
    assert not found[~decides].any()
    assert_gradient(gradient, golden_arrays("msl")["adaptive_grad"], golden)
    update = method.objective(golden.context).update_state
    before = {"tau": jnp.float32(ADAPTIVE["start"]), "step": jnp.float32(0)}
    assert float(update(before, total)["tau"]) == pytest.approx(step["tau_used"], abs=2e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_temperature_after_each_step(case):
    found = golden_arrays("msl")
    method = MSL(
        tau=ADAPTIVE["start"], adaptive=True, denominator="deciding",
        eta=case["eta"], alpha=case["alpha"], warm_up=max(case["warm_up"], 0),
    )  # fmt: skip
    titles = [[first, EOS] if first != EOS else [EOS] for first in found["root_allowed"].tolist()]
    update = method.objective(context_of(index_of(titles))).update_state
    state = {"tau": jnp.float32(ADAPTIVE["start"]), "step": jnp.float32(0)}
    taus = []
    for logits, target in zip(found["root_logits"], found["root_target"], strict=True):
        logits = logits * np.float32(case["scale"])
        at = (np.arange(len(target)), np.searchsorted(found["root_allowed"], target))
        logits[at] += case["target_bonus"]
        sums = {
            "first_target": (logits[at].sum(), len(target)),
            "first_legal": (logits.sum(), logits.size),
            "first_legal_square": (np.square(logits).sum(), logits.size),
        }
        metrics = {name: (jnp.float32(value), jnp.float32(weight)) for name, (value, weight) in sums.items()}
        state = update(state, LossSum(jnp.float32(0), jnp.float32(1), metrics))
        taus.append(float(state["tau"]))
    assert taus == pytest.approx([step["tau_used"] for step in case["steps"]], abs=2e-6, rel=1e-6)


def test_metrics_of_lists():
    figures = golden_figures("msl")["metrics"]
    rank = np.array([-1 if beam is None else beam for beam in figures["target_put_at_beam"]])
    found = mean_metrics(rank, (1, 5, 10))
    theirs = {name.lower(): value for name, value in figures["metrics"].items()}
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


# ------------------------------------------------------------------------------------------------------------ the model
@pytest.mark.slow
@pytest.mark.parametrize("name", ["quoted", "unquoted"])
def test_lists_and_scores_of_the_published_search(name, shared):
    given = json.loads((shared / "golden/msl_bigrec/msl_decoding.json").read_text(encoding="utf-8"))[name]["prompts"]
    folder, info = shared / "models/tiny-qwen2-books", shared / "data/amazon_books/Amazon_Books.info.txt"
    tokenizer = load_tokenizer(folder)
    lines = info.read_text(encoding="utf-8").splitlines()
    titles = list(dict.fromkeys(line.rpartition("\t")[0] for line in lines))
    titles = [f'"{title}"' for title in titles] if name == "quoted" else titles
    rows = tokenizer.encode(titles)
    # Their trie lacks the end: a title that another one goes on from, the blank one too, is never written.
    goes_on = {tuple(row[:length]) for row in rows for length in range(len(row))}
    titles = [title for title, row in zip(titles, rows, strict=True) if tuple(row) not in goes_on]
    tokens = Ragged.from_lists([[*row, EOS] for row in rows if tuple(row) not in goes_on])
    n = len(titles)
    index = build_index(titles, tokens, np.ones(n, int), candidates=np.ones(n, bool))
    options = decode_options(index, num_beams=10, length_penalty=1.0)
    engine = MSL().engine(context_of(index, tokenizer=tokenizer), load_decoder(folder), options)
    found = lists(engine, text_batch([prompt["prompt_ids"] for prompt in given]))
    for row, prompt in enumerate(given):
        texts, scores = ([beam[part] for beam in prompt["beams"]] for part in ("text", "score"))
        assert [index.title_of_row(r) for r in found.rows[row].tolist()] == texts
        np.testing.assert_allclose(found.scores[row], scores, rtol=0, atol=1e-4)
