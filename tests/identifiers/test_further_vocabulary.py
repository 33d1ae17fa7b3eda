"""Identifiers of ids that no text spells: what a backbone gets for them, and who refuses them."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from flax import nnx

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.prompts import Prompts
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.index import build_index
from igd_jax.methods import load_method
from igd_jax.models.layers import Frozen
from igd_jax.models.load import load_backbone
from igd_jax.session.backbone import make_backbone
from igd_jax.settings.settings import settings_from
from igd_jax.training.mesh import make_mesh

N_EMBEDDED = tiny_run.HF_CONFIG["vocab_size"]
MORE = 9


def model_settings(tiny: Path, **changes):
    return settings_from(tiny_run.tiny_config(tiny, {f"model.{name}": value for name, value in changes.items()})).model


@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_a_folder_keeps_its_rows_and_gets_further_ones(tiny, t5_folder, kind):
    folder = tiny / "model" if kind == "decoder" else t5_folder
    tokenizer, given = load_tokenizer(folder), load_backbone(folder)
    wanted = given.config.vocab_size + MORE
    model, again = (
        make_backbone(
            model_settings(tiny, path=str(folder)), tokenizer, vocab_size=wanted, seed=0, mesh=make_mesh(data=1)
        )
        for _ in range(2)
    )
    assert model.config.vocab_size == wanted == len(model.embed[...])
    np.testing.assert_array_equal(model.embed[:-MORE], given.embed[...])
    np.testing.assert_array_equal(model.embed[...], again.embed[...])
    spread = 1.0 if kind == "t5" else 0.02  # of first weights
    assert 0.8 * spread < np.std(model.embed[-MORE:]) < 1.2 * spread


def test_a_folder_with_rows_to_spare_is_left_as_it_is(tiny):
    tokenizer = load_tokenizer(tiny / "model")
    assert tokenizer.vocab_size < N_EMBEDDED
    model = make_backbone(model_settings(tiny), tokenizer, vocab_size=N_EMBEDDED - 1, seed=0, mesh=make_mesh(data=1))
    assert len(model.embed[...]) == N_EMBEDDED


@pytest.mark.parametrize("more", [0, MORE])
def test_adapters_leave_the_embedding_trained_where_it_has_rows_of_further_vocabulary(tiny, more):
    tokenizer, given = load_tokenizer(tiny / "model"), model_settings(tiny, lora_rank=2)
    model = make_backbone(given, tokenizer, vocab_size=tokenizer.vocab_size + more, seed=0, mesh=make_mesh(data=1))
    assert isinstance(model.embed, nnx.Param if more else Frozen)
    trained = {path[0] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    assert trained == ({"layers", "embed"} if more else {"layers"})
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


class Numbers:
    """Each item is one new id."""

    texts, names = None, {}

    def __init__(self, tokenizer):
        self._first, self._eos = tokenizer.vocab_size, tokenizer.eos
        self.vocab_size = self._first + len(tiny_run.TITLES)

    def rows(self) -> Ragged:
        return Ragged.from_lists([[*ids, self._eos] for ids in self._ids()])

    def mentions(self) -> Ragged:
        return Ragged.from_lists(self._ids())

    def _ids(self) -> list[list[int]]:
        return [[self._first + item] for item in range(len(tiny_run.TITLES))]


def test_bigrec_refuses_identifiers_that_are_no_words(tiny, tmp_path):
    tokenizer = load_tokenizer(tiny / "model")
    numbers, everything = Numbers(tokenizer), np.ones(len(tiny_run.TITLES), bool)
    index = build_index(tiny_run.TITLES, numbers.rows(), everything.astype(int), candidates=everything)
    prompts = Prompts(filled("plain", category="items"), tokenizer, numbers, tmp_path / "cache")
    context = tiny_run.context_of(index, tokenizer=tokenizer, prompts=prompts)
    method = load_method("bigrec", {})
    with pytest.raises(InputError, match=r"^bigrec compares .* no words; set it to titles, or .* searches the trie$"):
        method.objective(context)
    with pytest.raises(InputError, match="no words; set it to titles"):
        method.engine(context, context.backbone(), tiny_run.decode_options(index))
