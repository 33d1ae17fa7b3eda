"""Backbones of both kinds by folder or by name, and further vocabulary."""

import json
import math
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from batches import text_batch
from flax import nnx
from tiny_models import CONFIGS, random_model

from igd_jax.core.errors import InputError
from igd_jax.models import config as decoder_config
from igd_jax.models import t5_config
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_save import save_model
from igd_jax.models.load import TYPES, config_of, grow_vocabulary, kind_of, load_backbone, random_backbone
from igd_jax.models.t5 import T5

HALF = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each kind."""
    root = tmp_path_factory.mktemp("models")
    tiny_run.save_model(root / "decoder")
    (root / "t5").mkdir()
    save_model(random_model("T5 1.1"), root / "t5", eos=1)
    return {"decoder": root / "decoder", "t5": root / "t5"}


def test_a_folder_is_of_the_kind_that_its_config_says(folders, tmp_path):
    for kind, folder in folders.items():
        assert kind_of(folder) == kind_of(str(folder)) == kind
        model = load_backbone(folder)
        assert isinstance(model, {"decoder": Decoder, "t5": T5}[kind])
        assert model.config == config_of(folder) or kind == "t5"
    for name, kind in TYPES.items():
        (tmp_path / "config.json").write_text(json.dumps({"model_type": name}), encoding="utf-8")
        assert kind_of(tmp_path) == kind


def test_a_name_is_of_the_kind_that_lists_it():
    for kind, names in (("decoder", decoder_config.NAMED), ("t5", t5_config.NAMED)):
        for name in names:
            assert kind_of(name) == kind
            assert config_of(name) == names[name]
            model = nnx.eval_shape(lambda name=name: random_backbone(name, vocab_size=300, rngs=nnx.Rngs(0)))
            assert isinstance(model, {"decoder": Decoder, "t5": T5}[kind])
            assert model.embed.shape[0] == model.config.vocab_size == 300


def test_no_name_is_in_both_lists():
    assert not decoder_config.NAMED.keys() & t5_config.NAMED.keys()


def test_what_is_no_model_is_told_in_one_line(tmp_path):
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for given, message in (
        (
            "qwen9",
            r"no model is called 'qwen9' and there is no such folder; .* pico, .*, t5-pico, .*t5-base$",
        ),
        (tmp_path / "gpt2", r"is of type 'gpt2'; expected one of qwen2, qwen3, llama, t5; choose another$"),
        (tmp_path / "empty", r"empty has no config\.json; expected a Hugging Face model folder"),
    ):
        for function in (kind_of, config_of, load_backbone, partial(random_backbone, vocab_size=300, rngs=nnx.Rngs(0))):
            with pytest.raises(InputError, match=message) as caught:
                function(given)
            assert "\n" not in str(caught.value)


def test_options_reach_a_decoder_and_are_refused_for_a_t5(folders):
    for model in (
        load_backbone(folders["decoder"], remat="full", **HALF),
        nnx.eval_shape(lambda: random_backbone("pico", vocab_size=300, rngs=nnx.Rngs(0), remat="full", **HALF)),
    ):
        assert model.dtype == jnp.bfloat16
        assert model.remat == "full"
        assert model.embed.dtype == jnp.bfloat16
    for name, value in HALF.items():
        with pytest.raises(InputError, match=r"is a T5, which computes in float32; got dtype "):
            load_backbone(folders["t5"], **{name: value})
        with pytest.raises(InputError, match=r"^t5-pico is a T5, which computes in float32"):
            random_backbone("t5-pico", vocab_size=300, rngs=nnx.Rngs(0), **{name: value})


# ------------------------------------------------------------------------------------------------- further vocabulary
@nnx.jit
def logits(model, batch):
    return model.logits(model.target_hidden(batch))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_grown_vocabulary_leaves_what_was_there_as_it_was(kind):
    before, after = random_model(kind), random_model(kind)
    grow_vocabulary(after, 90, rngs=nnx.Rngs(5))
    assert after.config.vocab_size == 90
    batch = text_batch([[5, 6, 7], [8]], [[9, 1], [4, 5]], shared=[3])
    found = logits(after, batch)
    assert found.shape == (2, 2, 90)
    np.testing.assert_allclose(found[..., :50], logits(before, batch), rtol=1e-5, atol=1e-5)
    other = text_batch([[5, 6, 7], [80]], [[9, 1], [4, 70]], shared=[3])
    assert np.abs(np.asarray(logits(after, other)) - np.asarray(found))[1].max() > 1e-3


@pytest.mark.parametrize("kind", CONFIGS)
def test_new_rows_are_drawn_as_the_model_draws_its_own(kind):
    model = random_model(kind)
    grow_vocabulary(model, 2050, rngs=nnx.Rngs(5))
    spread = 0.02 if kind == "decoder" else 1.0
    for table in [model.embed] if model.head is None else [model.embed, model.head]:
        assert isinstance(table, nnx.Param)
        new = np.asarray(table[...])[50:]
        assert new.shape == (2000, 32)
        assert new.std() == pytest.approx(spread, rel=5 / math.sqrt(2 * new.size))
    if model.head is not None:
        assert np.abs(model.head[...] - model.embed[...])[50:].max() > 1.0


def test_a_vocabulary_keeps_its_dtype_may_stay_and_never_shrinks():
    model = nnx.jit(lambda: random_backbone("pico", vocab_size=60, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16))()
    grow_vocabulary(model, 60, rngs=nnx.Rngs(5))
    assert model.embed.shape == (60, 64)
    grow_vocabulary(model, 61, rngs=nnx.Rngs(5))
    assert (model.embed.shape, model.embed.dtype) == ((61, 64), jnp.bfloat16)
    with pytest.raises(InputError, match=r"the model embeds 61 ids, more than the 60 it is to grow to"):
        grow_vocabulary(model, 60, rngs=nnx.Rngs(5))
