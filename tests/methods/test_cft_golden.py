"""CFT and Pos against the losses of the published code on its own batch."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_run import context_of

from igd_jax.core.ragged import Ragged
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.data.prompts import render
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.index import build_index
from igd_jax.methods.cft import CFT, Counterfactual
from igd_jax.models.decoder_weights import load_decoder
from igd_jax.training.step import means


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
    ours = load_tokenizer(path).encode_prompts([render(filled("igd", category="books"), None)])
    assert without == [ours[0].tolist()] * 8


def test_losses_equal_those_of_the_published_code(golden):
    prompts, targets, without, path, losses = golden
    context = context_of(
        build_index([f"title {n}" for n in range(8)], targets, np.ones(8, int), candidates=np.ones(8, bool))
    )
    tables = Counterfactual(jnp.asarray(without[0], jnp.int32), longest=int(targets.lengths.max()))
    model, prompts, every = load_decoder(path), Ragged.from_lists(prompts), np.ones(8, bool)
    examples = Examples(prompts, np.arange(8, dtype=np.int32), ~every, shared_prefix(prompts, every), every)
    pairs = {name: tuple(float(part.split("=")[1]) for part in name.split(",")) for name in losses}
    by_alpha = {alpha: CFT(alpha=alpha).objective(context) for alpha, _ in pairs.values()}

    @nnx.jit
    def all_losses(model, batch):  # beta is in the batch
        return {alpha: means(each.loss(model, batch, tables, {}))["loss"] for alpha, each in by_alpha.items()}

    ours = {}
    for name, (alpha, beta) in pairs.items():
        annotations = CFT(beta=beta).objective(context).annotations
        batch = make_text_batch(examples, np.arange(8), targets, annotations, size=8)
        ours[name] = float(all_losses(model, batch)[alpha])
    assert ours == pytest.approx(losses, abs=1e-4)
    assert len(ours) == 5
