"""SETRec: the numbers of the published code (docs/golden.md). Those with a decoder are checked in every clone."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_figures import golden_arrays, golden_figures
from safetensors.numpy import load_file, save_file
from setrec_calls import ask, index_of, loss_of, rank

from igd_jax.core.types import ItemBatch
from igd_jax.methods.setrec import SETRec
from igd_jax.models.decoder import Decoder
from igd_jax.models.item_tokens import ItemTokens
from igd_jax.models.load import load_backbone
from igd_jax.models.setrec import SetModel
from igd_jax.models.t5 import T5
from igd_jax.training.step import means

QWEN_FIELDS = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings"),
)


@dataclasses.dataclass(frozen=True)
class Golden:
    """A published case."""

    case: dict
    arrays: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    def backbone(self, folder: Path) -> Decoder | T5:
        """The model inside, by way of a Hugging Face folder."""
        is_t5 = self.case["config"]["model_type"] == "t5"
        prefix, ours = ("t5_model.", "") if is_t5 else ("qwen_model.", "model.")
        config = self.case["config"] if is_t5 else {name: self.case["config"][name] for name in QWEN_FIELDS}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        found = {name: x for name, x in self.weights.items() if name.startswith(prefix) and "query_emb" not in name}
        found = {ours + name.removeprefix(prefix): x for name, x in found.items()}
        save_file(found, folder / "model.safetensors")
        return load_backbone(folder)

    def model(self, folder: Path, *, published: bool = False) -> SetModel:
        """The model of the authors in our variables."""
        rngs = nnx.Rngs(0)
        ids = [jnp.asarray(self.arrays[f"{name}_ids"][0], jnp.int32) for name in ("instruct", "response")]
        tokens = ItemTokens(
            jnp.asarray(self.arrays["cf_embeddings"]),
            jnp.asarray(self.arrays["semantic_features"]),
            trains_vectors=False,
            n_semantic=self.case["n_sem"],
            width=64,
            rngs=rngs,
            hidden=tuple(self.case["ae_layers"]),
        )
        set_linear(tokens.project, self.weights, "input_proj")
        for ours, theirs in ((tokens.encoder, "encoder"), (tokens.decoder, "decoder")):
            for layer, number in zip(ours.layers, (1, 4, 7), strict=True):
                set_linear(layer, self.weights, f"tokenizer.{theirs}.mlp_layers.{number}")
        assert tokens.n_tokens == self.case["n_query"]
        model = SetModel(
            self.backbone(folder), tokens, instruction=ids[0], response=ids[1], query_scale=1.0, rngs=rngs,
            positions="published", attention="published" if published else "sparse",
        )  # fmt: skip
        (query,) = [x for name, x in self.weights.items() if name.endswith(("query.weight", "query_emb.weight"))]
        model.queries[...] = jnp.asarray(query)
        return model

    @property
    def batch(self) -> ItemBatch:
        """The published batch; theirs pads with item 0."""
        shifted = self.arrays["inputs_plus_one_padded_left"]
        batch = ItemBatch(
            history=np.maximum(shifted - 1, 0).astype(np.int32),
            history_mask=shifted > 0,
            target=self.arrays["labels"].astype(np.int32),
            is_real=np.ones(len(shifted), bool),
        )
        return jax.tree.map(jnp.asarray, batch)


def set_linear(layer: nnx.Linear, weights: dict[str, np.ndarray], name: str) -> None:
    layer.kernel[...] = jnp.asarray(weights[f"{name}.weight"].T)
    layer.bias[...] = jnp.asarray(weights[f"{name}.bias"])


def golden_of(name: str, request: pytest.FixtureRequest) -> Golden:
    """The committed case, or one of the folder of figures in full size."""
    if name == "setrec":
        found = golden_arrays(name)
        parts = ({key: x for key, x in found.items() if ("." in key) == is_weight} for is_weight in (False, True))
        return Golden(golden_figures(name), *parts)
    folder = request.getfixturevalue("shared") / "golden" / name
    with np.load(folder / "case.npz", allow_pickle=False) as arrays:
        found = dict(arrays)
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return Golden(case, found, load_file(folder / "weights.safetensors"))


CASES = {
    "decoder": ("setrec", "", False),
    "T5 as published": ("setrec_t5", "published_", True),
    "T5 as meant": ("setrec_t5", "mended_", False),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_scores_and_loss_are_those_of_the_published_code(case, request, tmp_path):
    name, prefix, published = CASES[case]
    golden = golden_of(name, request)
    model = golden.model(tmp_path, published=published)
    asked, scores = ask(model, golden.batch, padded=True)
    np.testing.assert_allclose(asked.swapaxes(0, 1), golden.arrays[f"{prefix}query_output"], atol=1e-5)
    np.testing.assert_allclose(scores, golden.arrays[f"{prefix}scores"], atol=1e-4)
    total = loss_of(SETRec(n_semantic=3, alpha=golden.case["alpha"]), model, golden.batch)
    assert float(means(total)["loss"]) == pytest.approx(golden.case[f"{prefix}loss"], abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_lists_are_those_of_the_published_ranking_scores(case, request, tmp_path):
    name, prefix, published = CASES[case]
    golden = golden_of(name, request)
    index, model = index_of([f"item {number}" for number in range(37)]), golden.model(tmp_path, published=published)
    theirs = golden.arrays["ranking_scores_beta_0_1" if name == "setrec" else f"{prefix}ranking"]
    _, scores = ask(model, golden.batch, padded=True)
    np.testing.assert_allclose(0.9 * scores[0] + 0.1 * scores[1:].sum(axis=0), theirs, atol=1e-4)
    # The published program ranks for users one by one. So the figures are those of the one row without padding.
    (row,) = np.flatnonzero(golden.batch.history_mask.all(axis=1))
    ranked = rank(SETRec(n_semantic=3, beta=0.1), model, golden.batch, index)
    np.testing.assert_allclose(ranked.scores[row], -np.sort(-theirs[row])[:8], atol=1e-4)
    best = index.catalog.row_of_item[np.argsort(-theirs[row], kind="stable")[:8]]
    np.testing.assert_array_equal(ranked.rows[row], best)


def test_the_published_query_mask_of_the_t5_is_none(request, tmp_path):
    golden = golden_of("setrec_t5", request)
    for published in (True, False):
        model = golden.model(tmp_path, published=published)
        before, _ = ask(model, golden.batch)
        model.queries[...] = model.queries[...].at[2].add(1.0)
        after, _ = ask(model, golden.batch)
        changed = np.abs(np.asarray(after - before)).max(axis=(0, 2)) > 1e-4
        assert changed.tolist() == ([True] * 4 if published else [False, False, True, False])
